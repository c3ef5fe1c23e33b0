//! Rules and warnings about security contexts (spec/serving.md 1.6.2, 2.5).

use serde_json::Value;

use crate::config::{Features, Flag, SecurePodDefaults};
use crate::field::Findings;

use super::defaults::lets;
use super::look;

const ID_MAX: i64 = i32::MAX as i64;
const INSECURE: &str =
    "Kubernetes default value is insecure, Knative may default this to secure in a future release";

/// A container's security context.
pub(super) fn container(context: &Value, features: &Features) -> Findings {
    let mut found = Findings::none();
    for field in look::fields(context) {
        let allowed = match field {
            "capabilities"
            | "readOnlyRootFilesystem"
            | "runAsUser"
            | "runAsGroup"
            | "runAsNonRoot" => true,
            "allowPrivilegeEscalation" | "seccompProfile" => true,
            "privileged" => look::at(context, field).as_bool() == Some(false),
            _ => false,
        };
        if !allowed {
            found.add(Findings::disallowed(field));
        }
    }
    let add = look::list(look::at(context, "capabilities"), "add");
    let only_bind = features.secure_pod_defaults != SecurePodDefaults::Disabled
        && matches!(add, [one] if one.as_str() == Some("NET_BIND_SERVICE"));
    if !add.is_empty() && features.containerspec_add_capabilities != Flag::Enabled && !only_bind {
        found.add(Findings::disallowed("add").under("capabilities"));
    }
    found.add(ids(context, &["runAsUser", "runAsGroup"]));
    found
}

/// The pod's security context.
pub(super) fn pod(context: &Value, features: &Features) -> Findings {
    if context.is_null() {
        return Findings::none();
    }
    if !lets(features.podspec_security_context) {
        // Refused as a whole, unless secure defaults let a profile through.
        if features.secure_pod_defaults == SecurePodDefaults::Disabled {
            return Findings::none();
        }
        let mut found: Findings = look::fields(context)
            .filter(|field| *field != "seccompProfile")
            .map(Findings::disallowed)
            .collect();
        match look::text(look::at(context, "seccompProfile"), "type") {
            "" | "RuntimeDefault" | "Unconfined" => {}
            other => found.add(Findings::invalid(other, "type").under("seccompProfile")),
        }
        return found;
    }
    const ALLOWED: [&str; 6] = [
        "runAsUser",
        "runAsGroup",
        "runAsNonRoot",
        "fsGroup",
        "supplementalGroups",
        "seccompProfile",
    ];
    let mut found: Findings = look::fields(context)
        .filter(|field| !ALLOWED.contains(field))
        .map(Findings::disallowed)
        .collect();
    found.add(ids(context, &["runAsUser", "runAsGroup", "fsGroup"]));
    for (i, group) in look::list(context, "supplementalGroups").iter().enumerate() {
        let id = group.as_i64().unwrap_or_default();
        if !(0..=ID_MAX).contains(&id) {
            found.add(Findings::out_of_bounds(id, 0, ID_MAX, "").under_at("supplementalGroups", i));
        }
    }
    found
}

fn ids(context: &Value, fields: &[&str]) -> Findings {
    let row = |field: &&str| {
        let id = look::number(context, field).filter(|id| !(0..=ID_MAX).contains(id))?;
        Some(Findings::out_of_bounds(id, 0, ID_MAX, field))
    };
    fields.iter().filter_map(row).collect()
}

/// Warnings about what is left at an insecure default.
pub(super) fn warnings(spec: &Value) -> Findings {
    let pod = look::at(spec, "securityContext");
    let mut found = Findings::none();
    for list in ["containers", "initContainers"] {
        for (i, container) in look::list(spec, list).iter().enumerate() {
            found.add(
                container_warnings(look::at(container, "securityContext"), pod)
                    .under("securityContext")
                    .under_at(list, i),
            );
        }
    }
    found
}

fn container_warnings(context: &Value, pod: &Value) -> Findings {
    let mut found = Findings::none();
    let mut warn = |path: &str| found.add(Findings::warning(INSECURE, path));
    if !look::has(context, "runAsNonRoot") && !look::has(pod, "runAsNonRoot") {
        warn("runAsNonRoot");
    }
    if !look::has(context, "allowPrivilegeEscalation") {
        warn("allowPrivilegeEscalation");
    }
    let profile =
        |context: &Value| look::text(look::at(context, "seccompProfile"), "type").to_owned();
    if profile(pod).is_empty() {
        if !look::has(context, "seccompProfile") {
            warn("seccompProfile");
        } else if profile(context).is_empty() {
            warn("seccompProfile.type");
        }
    }
    if !look::has(context, "capabilities") {
        warn("capabilities");
        return found;
    }
    match look::list(look::at(context, "capabilities"), "drop") {
        [] => warn("capabilities.drop"),
        [first, ..] if first.as_str() == Some("all") => {
            let wrong = Findings::warning("invalid value: all", "capabilities.drop[0]");
            found.add(wrong.details("Must be spelled as 'ALL'"));
        }
        _ => {}
    }
    found
}
