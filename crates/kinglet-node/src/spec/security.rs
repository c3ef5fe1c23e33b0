//! What a container is allowed beyond its own files: capabilities, system calls, namespaces of the host, kernel parameters.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, Pod, PodSecurityContext, SecurityContext,
};

use kinglet_quantity::pod::SAFE_SYSCTLS;

use crate::wire::Isolation;

/// What a container keeps unless told otherwise; the set that other runtimes agree on: CHOWN, DAC_OVERRIDE, FOWNER,
/// FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
pub(crate) const DEFAULT_CAPABILITY_NUMBERS: [u8; 14] =
    [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31];

/// By number.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Where there is no AppArmor, a default profile asks for nothing, as under containerd.
fn has_app_armor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with(b"Y"))
}

/// How far the container is kept apart from the host.
pub(crate) fn isolation(pod: &Pod, container: &Container) -> Result<Isolation, String> {
    let own = container.security_context.as_ref();
    let of_pod = pod.spec.as_ref();
    if of_pod.and_then(|spec| spec.share_process_namespace) == Some(true) {
        return Err(
            "shareProcessNamespace is not supported: every container has a process namespace of its own"
                .to_owned(),
        );
    }
    let of_pod_context = of_pod.and_then(|spec| spec.security_context.as_ref());
    let profile = own
        .and_then(|own| own.app_armor_profile.as_ref())
        .or(of_pod_context.and_then(|context| context.app_armor_profile.as_ref()));
    let is_unenforced = match profile.map(|profile| profile.type_.as_str()) {
        Some("RuntimeDefault") => has_app_armor(),
        Some("Localhost") => true,
        _ => false,
    };
    if is_unenforced {
        return Err(
            "Cannot enforce AppArmor: this node loads no profile into the kernel; use Unconfined"
                .to_owned(),
        );
    }
    let wanted = of_pod_context.and_then(|context| context.sysctls.as_ref());
    let mut sysctls: BTreeMap<&str, &str> = BTreeMap::new();
    for one in wanted.into_iter().flatten() {
        if !SAFE_SYSCTLS.contains(&one.name.as_str()) {
            return Err(format!(
                "forbidden sysctl: {:?} is not one of those that only concern the pod ({})",
                one.name,
                SAFE_SYSCTLS.join(", ")
            ));
        }
        sysctls.insert(&one.name, &one.value);
    }
    Ok(Isolation {
        privileged: own.and_then(|own| own.privileged) == Some(true),
        unmasked_proc: own.and_then(|own| own.proc_mount.as_deref()) == Some("Unmasked"),
        host_pid: of_pod.and_then(|spec| spec.host_pid) == Some(true),
        host_ipc: of_pod.and_then(|spec| spec.host_ipc) == Some(true),
        sysctls: sysctls
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    })
}

pub(super) fn capabilities(changes: Option<&Capabilities>) -> Result<Vec<u8>, String> {
    let number = |name: &str| {
        let bare = name.to_ascii_uppercase();
        let bare = bare.strip_prefix("CAP_").unwrap_or(&bare).to_owned();
        CAPABILITIES
            .iter()
            .position(|known| **known == bare)
            .ok_or_else(|| format!("unknown capability {name:?}"))
    };
    let all = |list: Option<&Vec<String>>| {
        list.is_some_and(|list| list.iter().any(|name| name.eq_ignore_ascii_case("ALL")))
    };
    let (add, drop) = (
        changes.and_then(|one| one.add.as_ref()),
        changes.and_then(|one| one.drop.as_ref()),
    );
    let mut keep = [false; CAPABILITIES.len()];
    if all(add) {
        keep = [true; CAPABILITIES.len()];
    } else if !all(drop) {
        for number in DEFAULT_CAPABILITY_NUMBERS {
            keep[usize::from(number)] = true;
        }
    }
    for name in add
        .into_iter()
        .flatten()
        .filter(|name| !name.eq_ignore_ascii_case("ALL"))
    {
        keep[number(name)?] = true;
    }
    for name in drop
        .into_iter()
        .flatten()
        .filter(|name| !name.eq_ignore_ascii_case("ALL"))
    {
        keep[number(name)?] = false;
    }
    Ok((0_u8..)
        .zip(keep)
        .filter(|(_, kept)| *kept)
        .map(|(number, _)| number)
        .collect())
}

/// Whether system calls are filtered: RuntimeDefault is the default.
pub(super) fn filters_system_calls(
    own: Option<&SecurityContext>,
    of_pod: Option<&PodSecurityContext>,
) -> Result<bool, String> {
    let profile = own
        .and_then(|own| own.seccomp_profile.as_ref())
        .or(of_pod.and_then(|pod| pod.seccomp_profile.as_ref()));
    match profile.map(|profile| profile.type_.as_str()) {
        Some("Unconfined") => Ok(false),
        Some("Localhost") => Err("seccomp profiles of type Localhost are not supported".to_owned()),
        _ => Ok(own.and_then(|own| own.privileged) != Some(true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn system_calls_are_filtered_unless_the_pod_says_otherwise() {
        let filtered = |pod: serde_json::Value, own: serde_json::Value| {
            let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"},
                "spec": {"containers": [], "securityContext": pod}}))
            .expect("pod");
            let container: Container =
                serde_json::from_value(json!({"name": "c", "securityContext": own}))
                    .expect("container");
            filters_system_calls(
                container.security_context.as_ref(),
                pod.spec
                    .as_ref()
                    .and_then(|spec| spec.security_context.as_ref()),
            )
        };
        let profile = |kind: &str| json!({"seccompProfile": {"type": kind}});
        for (pod, own, expected) in [
            (json!({}), json!({}), Ok(true)),
            (profile("RuntimeDefault"), json!({}), Ok(true)),
            (profile("Unconfined"), json!({}), Ok(false)),
            (profile("Unconfined"), profile("RuntimeDefault"), Ok(true)),
            (json!({}), profile("Unconfined"), Ok(false)),
            (json!({}), json!({"privileged": true}), Ok(false)),
        ] {
            assert_eq!(filtered(pod.clone(), own.clone()), expected, "{pod} {own}");
        }
        assert!(filtered(json!({}), profile("Localhost")).is_err());
    }

    /// No profile of a Pod's own is ever loaded here, whatever the kernel has.
    #[test]
    fn a_profile_of_app_armor_is_never_taken_for_enforced() {
        for (of_pod, own, taken) in [
            (json!(null), json!({"type": "Unconfined"}), true),
            (
                json!(null),
                json!({"type": "Localhost", "localhostProfile": "p"}),
                false,
            ),
            (
                json!({"type": "Localhost", "localhostProfile": "p"}),
                json!({"type": "Unconfined"}),
                true,
            ),
        ] {
            let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"},
                "spec": {"containers": [], "securityContext": {"appArmorProfile": of_pod}}}))
            .expect("pod");
            let container: Container = serde_json::from_value(
                json!({"name": "c", "securityContext": {"appArmorProfile": own}}),
            )
            .expect("container");
            assert_eq!(isolation(&pod, &container).is_ok(), taken, "{own}");
        }
    }

    #[test]
    fn kernel_parameters_of_the_pod_alone() {
        let of = |sysctls: serde_json::Value| {
            let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"},
                "spec": {"containers": [], "securityContext": {"sysctls": sysctls}}}))
            .expect("pod");
            isolation(&pod, &Container::default()).map(|isolation| isolation.sysctls)
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let set = of(json!([{"name": "net.ipv4.ip_unprivileged_port_start", "value": "1024"}]))
            .expect("safe");
        assert!(set.contains(&pair("net.ipv4.ip_unprivileged_port_start", "1024")));
        assert_eq!(set.len(), 1);
        for name in [
            "kernel.core_pattern",
            "vm.swappiness",
            "net.core.somaxconn",
            "../x",
        ] {
            assert!(of(json!([{"name": name, "value": "1"}])).is_err(), "{name}");
        }
    }
}
