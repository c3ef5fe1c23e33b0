//! The checks of the standard `baseline`.

use kinglet_quantity::pod::SAFE_SYSCTLS;
use serde_json::Value;

use super::pod::{Pod, named, quoted, setters, some};
use crate::object::{at, items, text};

pub(super) fn app_armor(pod: &Pod<'_>) -> Option<String> {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let in_fields = pod.forbidden(
        |context| match text(context, &["appArmorProfile", "type"]) {
            "" | "RuntimeDefault" | "Localhost" => Vec::new(),
            other => vec![format!("\"{other}\"")],
        },
    );
    let in_annotations: Vec<String> = at(pod.metadata, &["annotations"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(key, value)| {
            let value = value.as_str().unwrap_or("");
            key.starts_with(ANNOTATION)
                && !(matches!(value, "" | "runtime/default") || value.starts_with("localhost/"))
        })
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let mut found = Vec::new();
    if let Some((of_pod, names, values)) = in_fields {
        found.push(format!(
            "{} must not set AppArmor profile type to {}",
            setters(of_pod, &names),
            values.join(", ")
        ));
    }
    if !in_annotations.is_empty() {
        let plural = if in_annotations.len() == 1 { "" } else { "s" };
        found.push(format!("annotation{plural} {}", in_annotations.join(", ")));
    }
    (!found.is_empty()).then(|| found.join("; "))
}

/// Capabilities that container runtimes grant by default.
const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

pub(super) fn added_beyond(pod: &Pod<'_>, allowed: &[&str]) -> Option<String> {
    let beyond = |container: &Value| -> Vec<String> {
        items(container, &["securityContext", "capabilities", "add"])
            .iter()
            .filter_map(Value::as_str)
            .filter(|name| !allowed.contains(name))
            .map(str::to_owned)
            .collect()
    };
    let names = pod.containers_where(|container| !beyond(container).is_empty());
    let mut added: Vec<String> = pod.containers.iter().flat_map(|c| beyond(c)).collect();
    added.sort();
    added.dedup();
    let added: Vec<&str> = added.iter().map(String::as_str).collect();
    some(&names, |names| {
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            named("container", names),
            quoted(&added)
        )
    })
}

pub(super) fn capabilities_baseline(pod: &Pod<'_>) -> Option<String> {
    added_beyond(pod, CAPABILITIES)
}

pub(super) fn host_namespaces(pod: &Pod<'_>) -> Option<String> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| pod.spec[**field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    (!set.is_empty()).then(|| set.join(", "))
}

pub(super) fn host_path(pod: &Pod<'_>) -> Option<String> {
    let names: Vec<&str> = items(pod.spec, &["volumes"])
        .iter()
        .filter(|volume| volume.get("hostPath").is_some_and(|v| !v.is_null()))
        .map(|volume| text(volume, &["name"]))
        .collect();
    some(&names, |names| named("volume", names))
}

pub(super) fn host_ports(pod: &Pod<'_>) -> Option<String> {
    let ports = |container: &Value| -> Vec<i64> {
        items(container, &["ports"])
            .iter()
            .filter_map(|port| port["hostPort"].as_i64())
            .filter(|port| *port != 0)
            .collect()
    };
    let mut all: Vec<i64> = pod.containers.iter().flat_map(|c| ports(c)).collect();
    all.sort_unstable();
    all.dedup();
    let list: Vec<String> = all.iter().map(i64::to_string).collect();
    let names = pod.containers_where(|container| !ports(container).is_empty());
    some(&names, |names| {
        let verb = if names.len() == 1 { "uses" } else { "use" };
        let plural = if list.len() == 1 { "" } else { "s" };
        format!(
            "{} {verb} hostPort{plural} {}",
            named("container", names),
            list.join(", ")
        )
    })
}

pub(super) fn probe_hosts(pod: &Pod<'_>) -> Option<String> {
    let named_host = |handler: &Value| {
        ["httpGet", "tcpSocket"]
            .iter()
            .any(|kind| !text(handler, &[kind, "host"]).is_empty())
    };
    let names = pod.containers_where(|container| {
        ["livenessProbe", "readinessProbe", "startupProbe"]
            .iter()
            .map(|probe| &container[*probe])
            .chain(
                ["postStart", "preStop"]
                    .iter()
                    .map(|hook| &container["lifecycle"][*hook]),
            )
            .any(named_host)
    });
    some(&names, |names| {
        format!(
            "{} must not set host in probes or lifecycle hooks",
            named("container", names)
        )
    })
}

pub(super) fn privileged(pod: &Pod<'_>) -> Option<String> {
    let names = pod.containers_where(|c| c["securityContext"]["privileged"] == true);
    some(&names, |names| {
        format!(
            "{} must not set securityContext.privileged=true",
            named("container", names)
        )
    })
}

pub(super) fn proc_mount(pod: &Pod<'_>) -> Option<String> {
    let is_bad = |container: &Value| {
        !matches!(
            text(container, &["securityContext", "procMount"]),
            "" | "Default"
        )
    };
    some(&pod.containers_where(is_bad), |names| {
        format!(
            "{} must not set securityContext.procMount to \"Unmasked\"",
            named("container", names)
        )
    })
}

pub(super) fn se_linux(pod: &Pod<'_>) -> Option<String> {
    const TYPES: &[&str] = &[
        "",
        "container_t",
        "container_init_t",
        "container_kvm_t",
        "container_engine_t",
    ];
    let (of_pod, names, values) = pod.forbidden(|context| {
        let field = |name| text(context, &["seLinuxOptions", name]);
        let mut found = Vec::new();
        if !TYPES.contains(&field("type")) {
            found.push(format!("type \"{}\"", field("type")));
        }
        for name in ["user", "role"] {
            if !field(name).is_empty() {
                found.push(format!("{name} may not be set"));
            }
        }
        found
    })?;
    Some(format!(
        "{} set forbidden securityContext.seLinuxOptions: {}",
        setters(of_pod, &names),
        values.join("; ")
    ))
}

pub(super) fn seccomp_baseline(pod: &Pod<'_>) -> Option<String> {
    let (of_pod, names, values) =
        pod.forbidden(|context| match text(context, &["seccompProfile", "type"]) {
            "" | "RuntimeDefault" | "Localhost" => Vec::new(),
            other => vec![format!("\"{other}\"")],
        })?;
    Some(format!(
        "{} must not set securityContext.seccompProfile.type to {}",
        setters(of_pod, &names),
        values.join(", ")
    ))
}

pub(super) fn sysctls(pod: &Pod<'_>) -> Option<String> {
    let names: Vec<&str> = items(pod.spec, &["securityContext", "sysctls"])
        .iter()
        .map(|sysctl| text(sysctl, &["name"]))
        .filter(|name| !SAFE_SYSCTLS.contains(name))
        .collect();
    some(&names, |names| names.join(", "))
}

pub(super) fn host_process(pod: &Pod<'_>) -> Option<String> {
    let (of_pod, names, _) = pod.forbidden(|context| {
        if context["windowsOptions"]["hostProcess"] == true {
            vec![String::new()]
        } else {
            Vec::new()
        }
    })?;
    Some(format!(
        "{} must not set securityContext.windowsOptions.hostProcess=true",
        setters(of_pod, &names)
    ))
}
