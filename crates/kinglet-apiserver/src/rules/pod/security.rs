//! What may be in the security contexts of a pod and its containers.

use std::collections::HashSet;

use serde_json::Value;

use crate::object::{items, number, text};
use crate::rules::one_of;
use crate::status::Cause;

const NOT_A_SYSCTL: &str = r"must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const SYSCTL_BYTES_MAX: usize = 253;

/// The context of a pod, which lies below `path`.
pub(super) fn of_pod(context: &Value, path: &str, causes: &mut Vec<Cause>) {
    let path = format!("{path}.securityContext");
    ids(
        context,
        &["runAsUser", "runAsGroup", "fsGroup"],
        &path,
        causes,
    );
    for (index, group) in items(context, &["supplementalGroups"]).iter().enumerate() {
        id(
            group,
            &format!("{path}.supplementalGroups[{index}]"),
            causes,
        );
    }
    let policies = ["Always", "OnRootMismatch"];
    one_of(context, "fsGroupChangePolicy", &policies, &path, causes);
    seccomp(&context["seccompProfile"], &path, causes);
    let mut seen = HashSet::new();
    for (index, sysctl) in items(context, &["sysctls"]).iter().enumerate() {
        let at = format!("{path}.sysctls[{index}].name");
        let name = text(sysctl, &["name"]);
        if name.is_empty() {
            causes.push(Cause::required(at, ""));
        } else if !is_sysctl(name) {
            causes.push(Cause::invalid(at, &name.into(), NOT_A_SYSCTL));
        } else if !seen.insert(name.replace('/', ".")) {
            causes.push(Cause::duplicate(at, &name.into()));
        }
    }
}

/// The context of a container, which lies below `path`.
pub(super) fn of_container(context: &Value, path: &str, causes: &mut Vec<Cause>) {
    let path = format!("{path}.securityContext");
    ids(context, &["runAsUser", "runAsGroup"], &path, causes);
    let kinds = ["Default", "Unmasked"];
    one_of(context, "procMount", &kinds, &path, causes);
    seccomp(&context["seccompProfile"], &path, causes);
    if context["allowPrivilegeEscalation"] == false {
        if context["privileged"] == true {
            causes.push(Cause::invalid(
                path.as_str(),
                context,
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            ));
        }
        let added = items(context, &["capabilities", "add"]);
        if added.iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            causes.push(Cause::invalid(
                path,
                context,
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            ));
        }
    }
}

fn ids(context: &Value, fields: &[&str], path: &str, causes: &mut Vec<Cause>) {
    for field in fields {
        if let Some(value) = context.get(*field) {
            id(value, &format!("{path}.{field}"), causes);
        }
    }
}

fn id(value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if number(value, &[]).is_some_and(|id| !(0..=i64::from(i32::MAX)).contains(&id)) {
        causes.push(Cause::invalid(
            path,
            value,
            "must be between 0 and 2147483647, inclusive",
        ));
    }
}

fn seccomp(profile: &Value, path: &str, causes: &mut Vec<Cause>) {
    if !profile.is_object() {
        return;
    }
    let path = format!("{path}.seccompProfile");
    if text(profile, &["type"]).is_empty() {
        causes.push(Cause::required(
            format!("{path}.type"),
            "type is required when seccompProfile is set",
        ));
    }
    let types = ["Localhost", "RuntimeDefault", "Unconfined"];
    one_of(profile, "type", &types, &path, causes);
    if text(profile, &["type"]) == "Localhost" && text(profile, &["localhostProfile"]).is_empty() {
        causes.push(Cause::required(
            format!("{path}.localhostProfile"),
            "must be set when seccomp type is Localhost",
        ));
    }
}

fn is_sysctl(name: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    name.len() <= SYSCTL_BYTES_MAX
        && name.split(['.', '/']).all(|part| {
            edge(part.bytes().next()) && edge(part.bytes().last()) && part.bytes().all(fits)
        })
}
