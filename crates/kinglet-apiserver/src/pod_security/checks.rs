//! The checks of the Pod Security Standards, in the order and the words of k8s.io/pod-security-admission.

use serde_json::Value;

use super::{Level, Policy};
use crate::object::{at, items, text};

/// What a check looks at.
struct Pod<'a> {
    metadata: &'a Value,
    spec: &'a Value,
    containers: Vec<&'a Value>,
}

/// Finds nothing, or the detail of a violation.
type Check = fn(&Pod<'_>) -> Option<String>;

struct Row {
    level: Level,
    /// The minor version that brought the check.
    since: u32,
    /// Left to restricted's own form of the check there.
    until_restricted: bool,
    reason: &'static str,
    check: Check,
}

const fn baseline(reason: &'static str, check: Check) -> Row {
    Row {
        level: Level::Baseline,
        since: 0,
        until_restricted: false,
        reason,
        check,
    }
}

const fn restricted(since: u32, reason: &'static str, check: Check) -> Row {
    Row {
        level: Level::Restricted,
        since,
        until_restricted: false,
        reason,
        check,
    }
}

const CHECKS: &[Row] = &[
    baseline("forbidden AppArmor profile", app_armor),
    Row {
        until_restricted: true,
        ..baseline("non-default capabilities", capabilities_baseline)
    },
    baseline("host namespaces", host_namespaces),
    baseline("hostPath volumes", host_path),
    baseline("hostPort", host_ports),
    Row {
        since: HOST_PROBES_SINCE,
        ..baseline("probe or lifecycle host", probe_hosts)
    },
    baseline("privileged", privileged),
    baseline("procMount", proc_mount),
    baseline("seLinuxOptions", se_linux),
    Row {
        until_restricted: true,
        ..baseline("seccompProfile", seccomp_baseline)
    },
    baseline("forbidden sysctls", sysctls),
    baseline("hostProcess", host_process),
    restricted(8, "allowPrivilegeEscalation != false", privilege_escalation),
    restricted(22, "unrestricted capabilities", capabilities_restricted),
    restricted(0, "restricted volume types", volume_types),
    restricted(0, "runAsNonRoot != true", run_as_non_root),
    restricted(23, "runAsUser=0", run_as_user),
    restricted(19, "seccompProfile", seccomp_restricted),
];

/// Since then `host` in probes and hooks is against baseline.
const HOST_PROBES_SINCE: u32 = 34;

/// All that a pod does against a policy, as the message lists it.
pub(super) fn violation(metadata: &Value, spec: &Value, policy: Policy) -> Option<String> {
    let pod = Pod {
        metadata,
        spec,
        containers: ["initContainers", "containers", "ephemeralContainers"]
            .iter()
            .flat_map(|list| items(spec, &[list]))
            .collect(),
    };
    let found: Vec<String> = CHECKS
        .iter()
        .filter(|row| row.level <= policy.level && row.since <= policy.minor())
        .filter(|row| !(row.until_restricted && policy.level == Level::Restricted))
        // Whatever `host` says, our probes do not reach the host (design decision 18); only who asks for the standard gets it refused.
        .filter(|row| policy.labelled || row.since < HOST_PROBES_SINCE)
        .filter_map(|row| Some(format!("{} ({})", row.reason, (row.check)(&pod)?)))
        .collect();
    (!found.is_empty()).then(|| found.join(", "))
}

/// `container "a"` or `containers "a", "b"`.
fn named(kind: &str, names: &[&str]) -> String {
    let plural = if names.len() == 1 { "" } else { "s" };
    format!("{kind}{plural} {}", quoted(names))
}

fn quoted(names: &[&str]) -> String {
    let list: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    list.join(", ")
}

/// `pod and container "a"`, for what both may set.
fn setters(pod: bool, containers: &[&str]) -> String {
    match (pod, containers) {
        (true, []) => "pod".to_owned(),
        (true, names) => format!("pod and {}", named("container", names)),
        (false, names) => named("container", names),
    }
}

impl<'a> Pod<'a> {
    /// Names of the containers for which something holds.
    fn containers_where(&self, test: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers
            .iter()
            .filter(|container| test(container))
            .map(|container| text(container, &["name"]))
            .collect()
    }

    /// The security contexts: the pod's (no name) and those of containers.
    fn contexts(&self) -> impl Iterator<Item = (Option<&'a str>, &'a Value)> {
        let of_containers = self.containers.iter().map(|container| {
            (
                Some(text(container, &["name"])),
                &container["securityContext"],
            )
        });
        std::iter::once((None, &self.spec["securityContext"])).chain(of_containers)
    }

    /// Who sets forbidden values, and which.
    fn forbidden(
        &self,
        find: impl Fn(&'a Value) -> Vec<String>,
    ) -> Option<(bool, Vec<&'a str>, Vec<String>)> {
        let (mut pod, mut names, mut values) = (false, Vec::new(), Vec::new());
        for (name, context) in self.contexts() {
            let found = find(context);
            if found.is_empty() {
                continue;
            }
            match name {
                None => pod = true,
                Some(name) => names.push(name),
            }
            for value in found {
                if !values.contains(&value) {
                    values.push(value);
                }
            }
        }
        (!values.is_empty()).then_some((pod, names, values))
    }
}

fn some(names: &[&str], words: impl Fn(&[&str]) -> String) -> Option<String> {
    (!names.is_empty()).then(|| words(names))
}

// --- baseline --------------------------------------------------------------------------------------------------------

fn app_armor(pod: &Pod<'_>) -> Option<String> {
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

/// What containers have anyway.
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

fn added_beyond(pod: &Pod<'_>, allowed: &[&str]) -> Option<String> {
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

fn capabilities_baseline(pod: &Pod<'_>) -> Option<String> {
    added_beyond(pod, CAPABILITIES)
}

fn host_namespaces(pod: &Pod<'_>) -> Option<String> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| pod.spec[**field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    (!set.is_empty()).then(|| set.join(", "))
}

fn host_path(pod: &Pod<'_>) -> Option<String> {
    let names: Vec<&str> = items(pod.spec, &["volumes"])
        .iter()
        .filter(|volume| volume.get("hostPath").is_some_and(|v| !v.is_null()))
        .map(|volume| text(volume, &["name"]))
        .collect();
    some(&names, |names| named("volume", names))
}

fn host_ports(pod: &Pod<'_>) -> Option<String> {
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

fn probe_hosts(pod: &Pod<'_>) -> Option<String> {
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

fn privileged(pod: &Pod<'_>) -> Option<String> {
    let names = pod.containers_where(|c| c["securityContext"]["privileged"] == true);
    some(&names, |names| {
        format!(
            "{} must not set securityContext.privileged=true",
            named("container", names)
        )
    })
}

fn proc_mount(pod: &Pod<'_>) -> Option<String> {
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

fn se_linux(pod: &Pod<'_>) -> Option<String> {
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

fn seccomp_baseline(pod: &Pod<'_>) -> Option<String> {
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

fn sysctls(pod: &Pod<'_>) -> Option<String> {
    const ALLOWED: &[&str] = &[
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    ];
    let names: Vec<&str> = items(pod.spec, &["securityContext", "sysctls"])
        .iter()
        .map(|sysctl| text(sysctl, &["name"]))
        .filter(|name| !ALLOWED.contains(name))
        .collect();
    some(&names, |names| names.join(", "))
}

fn host_process(pod: &Pod<'_>) -> Option<String> {
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

// --- restricted ------------------------------------------------------------------------------------------------------

fn privilege_escalation(pod: &Pod<'_>) -> Option<String> {
    let names = pod.containers_where(|c| c["securityContext"]["allowPrivilegeEscalation"] != false);
    some(&names, |names| {
        format!(
            "{} must set securityContext.allowPrivilegeEscalation=false",
            named("container", names)
        )
    })
}

fn capabilities_restricted(pod: &Pod<'_>) -> Option<String> {
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

fn volume_types(pod: &Pod<'_>) -> Option<String> {
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

fn run_as_non_root(pod: &Pod<'_>) -> Option<String> {
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

fn run_as_user(pod: &Pod<'_>) -> Option<String> {
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

fn seccomp_restricted(pod: &Pod<'_>) -> Option<String> {
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
