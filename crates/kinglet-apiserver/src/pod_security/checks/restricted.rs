//! The checks that the standard `restricted` adds.

use serde_json::Value;

use super::baseline::{added_beyond, seccomp_baseline};
use super::pod::{Pod, named, quoted, setters, some};
use crate::object::{items, text};

pub(super) fn privilege_escalation(pod: &Pod<'_>) -> Option<String> {
    let names = pod.containers_where(|c| c["securityContext"]["allowPrivilegeEscalation"] != false);
    some(&names, |names| {
        format!(
            "{} must set securityContext.allowPrivilegeEscalation=false",
            named("container", names)
        )
    })
}

pub(super) fn capabilities_restricted(pod: &Pod<'_>) -> Option<String> {
    let keeps = pod.containers_where(|container| {
        !items(container, &["securityContext", "capabilities", "drop"])
            .iter()
            .any(|name| name == "ALL")
    });
    let mut found = Vec::new();
    found.extend(some(&keeps, |names| {
        format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            named("container", names)
        )
    }));
    found.extend(added_beyond(pod, &["NET_BIND_SERVICE"]));
    (!found.is_empty()).then(|| found.join("; "))
}

pub(super) fn volume_types(pod: &Pod<'_>) -> Option<String> {
    const ALLOWED: &[&str] = &[
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let (mut names, mut kinds) = (Vec::new(), Vec::new());
    for volume in items(pod.spec, &["volumes"]) {
        let kind = volume
            .as_object()
            .into_iter()
            .flatten()
            .find(|(key, value)| *key != "name" && !value.is_null())
            .map(|(key, _)| key.as_str());
        if let Some(kind) = kind.filter(|kind| !ALLOWED.contains(kind)) {
            names.push(text(volume, &["name"]));
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
    }
    kinds.sort_unstable();
    some(&names, |names| {
        let verb = if names.len() == 1 { "uses" } else { "use" };
        let plural = if kinds.len() == 1 { "" } else { "s" };
        format!(
            "{} {verb} restricted volume type{plural} {}",
            named("volume", names),
            quoted(&kinds)
        )
    })
}

pub(super) fn run_as_non_root(pod: &Pod<'_>) -> Option<String> {
    let of_pod = &pod.spec["securityContext"]["runAsNonRoot"];
    let own = |container: &Value| container["securityContext"]["runAsNonRoot"].as_bool();
    let wrong = pod.containers_where(|container| own(container) == Some(false));
    let unset = pod.containers_where(|container| own(container).is_none());
    if *of_pod == false && !(wrong.is_empty() && unset.is_empty()) || !wrong.is_empty() {
        return Some(format!(
            "{} must not set securityContext.runAsNonRoot=false",
            setters(*of_pod == false, &wrong)
        ));
    }
    if *of_pod == true {
        return None;
    }
    some(&unset, |names| {
        format!(
            "pod or {} must set securityContext.runAsNonRoot=true",
            named("container", names)
        )
    })
}

pub(super) fn run_as_user(pod: &Pod<'_>) -> Option<String> {
    let (of_pod, names, _) = pod.forbidden(|context| {
        if context["runAsUser"] == 0 {
            vec![String::new()]
        } else {
            Vec::new()
        }
    })?;
    Some(format!(
        "{} must not set runAsUser=0",
        setters(of_pod, &names)
    ))
}

pub(super) fn seccomp_restricted(pod: &Pod<'_>) -> Option<String> {
    if let Some(found) = seccomp_baseline(pod) {
        return Some(found);
    }
    if !text(pod.spec, &["securityContext", "seccompProfile", "type"]).is_empty() {
        return None;
    }
    let unset = pod.containers_where(|container| {
        text(container, &["securityContext", "seccompProfile", "type"]).is_empty()
    });
    some(&unset, |names| {
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            named("container", names)
        )
    })
}
