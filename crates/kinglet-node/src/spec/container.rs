//! Program, privileges and limits of one container.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Capabilities, Container, Pod};
use kinglet_image::ImageConfig;
use kinglet_quantity::Quantity;

use crate::cgroup::Limits;
use crate::spec::environment::expand;
use crate::wire::{Isolation, Process, User};

/// Processes and threads one container may have.
pub(crate) const PIDS_MAX: u64 = 4096;

/// What a container keeps unless told otherwise; the set that other runtimes agree on: CHOWN, DAC_OVERRIDE, FOWNER,
/// FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
pub(crate) const DEFAULT_CAPABILITY_NUMBERS: [u8; 14] =
    [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31];

/// Kernel parameters of a pod's own namespaces that a Pod may set (a kubelet's safe set).
const SAFE_SYSCTLS: [&str; 12] = [
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

/// The program with its environment and privileges. `environment` is complete: node, image and container.
pub(crate) fn process(
    pod: &Pod,
    container: &Container,
    image: &ImageConfig,
    environment: &[(String, String)],
) -> Result<Process, String> {
    let known: BTreeMap<String, String> = environment.iter().cloned().collect();
    let expanded = |words: &[String]| {
        words
            .iter()
            .map(|word| expand(word, &known))
            .collect::<Vec<_>>()
    };
    let command = container
        .command
        .as_deref()
        .filter(|words| !words.is_empty());
    let arguments = container.args.as_deref().filter(|words| !words.is_empty());
    // A command of the Pod's replaces the image's entrypoint and its arguments.
    let argv = match (command, arguments) {
        (Some(command), arguments) => {
            [expanded(command), expanded(arguments.unwrap_or_default())].concat()
        }
        (None, Some(arguments)) => [image.entrypoint.clone(), expanded(arguments)].concat(),
        (None, None) => [image.entrypoint.clone(), image.cmd.clone()].concat(),
    };
    if argv.is_empty() {
        return Err("no command specified: neither the image nor the container has one".to_owned());
    }
    let own = container.security_context.as_ref();
    let of_pod = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref());
    let uid = own
        .and_then(|own| own.run_as_user)
        .or(of_pod.and_then(|pod| pod.run_as_user));
    let gid = own
        .and_then(|own| own.run_as_group)
        .or(of_pod.and_then(|pod| pod.run_as_group));
    let must_not_be_root = own
        .and_then(|own| own.run_as_non_root)
        .or(of_pod.and_then(|pod| pod.run_as_non_root))
        == Some(true);
    let image_user = image.user.split(':').next().unwrap_or("");
    if must_not_be_root
        && uid.is_none()
        && !image_user.is_empty()
        && image_user.parse::<u32>().is_err()
    {
        return Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify user is non-root"
        ));
    }
    let mut groups: Vec<u32> = Vec::new();
    for gid in of_pod.into_iter().flat_map(|pod| {
        pod.supplemental_groups
            .iter()
            .flatten()
            .chain(&pod.fs_group)
    }) {
        groups.push(id(*gid, "group")?);
    }
    let privileged = own.and_then(|own| own.privileged) == Some(true);
    let profile = own
        .and_then(|own| own.seccomp_profile.as_ref())
        .or(of_pod.and_then(|pod| pod.seccomp_profile.as_ref()));
    let filter_system_calls = match profile.map(|profile| profile.type_.as_str()) {
        Some("Unconfined") => false,
        Some("Localhost") => {
            return Err("seccomp profiles of type Localhost are not supported".to_owned());
        }
        // Whoever says nothing is filtered: RuntimeDefault is the default.
        _ => !privileged,
    };
    let directory = container
        .working_dir
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or(&image.working_dir);
    Ok(Process {
        argv,
        env: environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect(),
        directory: PathBuf::from(if directory.is_empty() { "/" } else { directory }),
        user: User {
            of_image: image.user.clone(),
            uid: uid.map(|uid| id(uid, "user")).transpose()?,
            gid: gid.map(|gid| id(gid, "group")).transpose()?,
            groups,
            must_not_be_root,
        },
        capabilities: if privileged {
            (0..=40).collect()
        } else {
            capabilities(own.and_then(|own| own.capabilities.as_ref()))?
        },
        no_new_privileges: !privileged
            && own.and_then(|own| own.allow_privilege_escalation) == Some(false),
        filter_system_calls,
        oom_score_adj: 0,
    })
}

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
    if profile.is_some_and(|profile| profile.type_ == "RuntimeDefault") && has_app_armor() {
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

/// Who is killed first when the machine's memory runs out, by a kubelet's rule: guaranteed pods last, those that asked for
/// nothing first, the others by how much of the machine they asked for.
pub(crate) fn oom_score_adj(qos_class: &str, container: &Container, node_memory_bytes: i64) -> i32 {
    const GUARANTEED: i32 = -997;
    const BEST_EFFORT: i32 = 1000;
    match qos_class {
        "Guaranteed" => GUARANTEED,
        "BestEffort" => BEST_EFFORT,
        _ => {
            let request = container
                .resources
                .as_ref()
                .and_then(|all| all.requests.as_ref())
                .and_then(|requests| requests.get("memory"))
                .and_then(|text| Quantity::parse(&text.0).ok())
                .map_or(0, Quantity::units);
            let share = i128::from(request) * 1000 / i128::from(node_memory_bytes.max(1));
            let share = i32::try_from(share).unwrap_or(BEST_EFFORT);
            (BEST_EFFORT - share).clamp(BEST_EFFORT + GUARANTEED, BEST_EFFORT - 1)
        }
    }
}

/// The environment from lowest to highest: image, node, container; each name once.
pub(crate) fn environment(
    hostname: &str,
    image: &ImageConfig,
    node: &[(String, String)],
    own: Vec<(String, String)>,
) -> Vec<(String, String)> {
    let of_image = image
        .env
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let default_path = (
        "PATH".to_owned(),
        crate::sys::container::DEFAULT_PATH.to_owned(),
    );
    let hostname = ("HOSTNAME".to_owned(), hostname.to_owned());
    let mut all: Vec<(String, String)> = Vec::new();
    for (name, value) in std::iter::once(default_path)
        .chain(of_image)
        .chain([hostname])
        .chain(node.iter().cloned())
        .chain(own)
    {
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => all.push((name, value)),
        }
    }
    all
}

/// What the container may use.
pub(crate) fn limits(container: &Container) -> Limits {
    let resources = container.resources.as_ref();
    let amount = |kind: Option<
        &BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    >,
                  name: &str| {
        kind.and_then(|amounts| amounts.get(name))
            .and_then(|text| Quantity::parse(&text.0).ok())
    };
    let requests = resources.and_then(|all| all.requests.as_ref());
    let limits = resources.and_then(|all| all.limits.as_ref());
    let cpu_limit = amount(limits, "cpu")
        .map(|cpu| cpu.millis().max(0).unsigned_abs())
        .filter(|milli| *milli > 0);
    Limits {
        // Without a request the limit counts as one.
        cpu_request_milli: amount(requests, "cpu")
            .map(|cpu| cpu.millis().max(0).unsigned_abs())
            .or(cpu_limit)
            .unwrap_or(0),
        cpu_limit_milli: cpu_limit,
        memory_limit_bytes: amount(limits, "memory")
            .map(|bytes| bytes.units().max(0).unsigned_abs())
            .filter(|bytes| *bytes > 0),
        pids_max: Some(PIDS_MAX),
        all_devices: container
            .security_context
            .as_ref()
            .and_then(|own| own.privileged)
            == Some(true),
    }
}

/// The signal that asks a program of this image to end.
pub(crate) fn stop_signal(image: &ImageConfig) -> i32 {
    const SIGTERM: i32 = 15;
    let Some(text) = image.stop_signal.as_deref() else {
        return SIGTERM;
    };
    let name = text.trim().trim_start_matches("SIG");
    match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ABRT" => 6,
        "KILL" => 9,
        "USR1" => 10,
        "USR2" => 12,
        "TERM" => SIGTERM,
        "WINCH" => 28,
        "PWR" => 30,
        number => number
            .parse()
            .ok()
            .filter(|number| (1..=64).contains(number))
            .unwrap_or(SIGTERM),
    }
}

pub(crate) fn id(value: i64, what: &str) -> Result<u32, String> {
    i32::try_from(value)
        .ok()
        .and_then(|id| u32::try_from(id).ok())
        .ok_or_else(|| format!("{what} id {value} is out of range"))
}

fn capabilities(changes: Option<&Capabilities>) -> Result<Vec<u8>, String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: vec!["/app".to_owned()],
            cmd: vec!["serve".to_owned()],
            env: vec!["A=image".to_owned(), "PATH=/bin".to_owned()],
            user: "web".to_owned(),
            working_dir: "/srv".to_owned(),
            stop_signal: Some("SIGQUIT".to_owned()),
            volumes: Vec::new(),
        }
    }

    fn of(container: serde_json::Value, pod: serde_json::Value) -> Result<Process, String> {
        let pod: Pod = serde_json::from_value(json!({"spec": pod})).expect("pod");
        let container: Container = serde_json::from_value(container).expect("container");
        process(
            &pod,
            &container,
            &image(),
            &[("A".to_owned(), "1".to_owned())],
        )
    }

    #[test]
    fn command_and_arguments_as_kubernetes_combines_them() {
        let argv = |container| of(container, json!({"containers": []})).map(|process| process.argv);
        let words = |text: &str| Ok(text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(argv(json!({"name": "c"})), words("/app serve"));
        assert_eq!(
            argv(json!({"name": "c", "args": ["x$(A)"]})),
            words("/app x1")
        );
        assert_eq!(argv(json!({"name": "c", "command": ["sh"]})), words("sh"));
        assert_eq!(
            argv(json!({"name": "c", "command": ["sh"], "args": ["-c"]})),
            words("sh -c")
        );
    }

    #[test]
    fn users_and_privileges() {
        let process = of(
            json!({"name": "c", "securityContext": {"runAsUser": 7, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}, "seccompProfile": {"type": "RuntimeDefault"}}}),
            json!({"containers": [], "securityContext": {"runAsUser": 8, "runAsGroup": 9, "fsGroup": 10, "supplementalGroups": [11]}}),
        )
        .expect("process");
        assert_eq!(
            (process.user.uid, process.user.gid, process.user.groups),
            (Some(7), Some(9), vec![11, 10])
        );
        assert_eq!(process.capabilities, vec![10]);
        assert!(process.no_new_privileges && process.filter_system_calls);
        let plain = of(json!({"name": "c"}), json!({"containers": []})).expect("process");
        assert_eq!(plain.capabilities.len(), DEFAULT_CAPABILITY_NUMBERS.len());
        assert!(!plain.no_new_privileges && plain.filter_system_calls);
        assert_eq!(plain.directory, PathBuf::from("/srv"));
        let refused = of(
            json!({"name": "c", "securityContext": {"runAsNonRoot": true}}),
            json!({"containers": []}),
        );
        assert!(
            refused
                .expect_err("a name says nothing")
                .contains("non-numeric user (web)")
        );
        assert!(
            of(
                json!({"name": "c", "securityContext": {"capabilities": {"add": ["FLY"]}}}),
                json!({"containers": []})
            )
            .is_err()
        );
    }

    #[test]
    fn later_variables_win_and_stand_once() {
        let all = environment(
            "pod",
            &image(),
            &[("N".to_owned(), "node".to_owned())],
            vec![("A".to_owned(), "own".to_owned())],
        );
        let text: Vec<String> = all
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(text, ["PATH=/bin", "A=own", "HOSTNAME=pod", "N=node"]);
    }

    #[test]
    fn limits_and_signals() {
        let container: Container = serde_json::from_value(
            json!({"name": "c", "resources": {"limits": {"cpu": "500m", "memory": "128Mi"}}}),
        )
        .expect("container");
        let limits = limits(&container);
        assert_eq!(
            (
                limits.cpu_request_milli,
                limits.cpu_limit_milli,
                limits.memory_limit_bytes
            ),
            (500, Some(500), Some(128 << 20))
        );
        assert_eq!(stop_signal(&image()), 3);
        assert_eq!(
            stop_signal(&ImageConfig {
                stop_signal: Some("37".to_owned()),
                ..image()
            }),
            37
        );
        assert_eq!(stop_signal(&ImageConfig::default()), 15);
    }

    #[test]
    fn system_calls_are_filtered_unless_the_pod_says_otherwise() {
        let filtered = |pod: serde_json::Value, own: serde_json::Value| {
            let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"},
                "spec": {"containers": [], "securityContext": pod}}))
            .expect("pod");
            let container: Container =
                serde_json::from_value(json!({"name": "c", "securityContext": own}))
                    .expect("container");
            process(&pod, &container, &image(), &[]).map(|process| process.filter_system_calls)
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

    #[test]
    fn who_is_killed_first() {
        let asks = |memory: &str| -> Container {
            serde_json::from_value(
                json!({"name": "c", "resources": {"requests": {"memory": memory}}}),
            )
            .expect("container")
        };
        let node = 4 << 30;
        for (class, container, expected) in [
            ("Guaranteed", asks("1Gi"), -997),
            ("BestEffort", Container::default(), 1000),
            ("Burstable", asks("1Gi"), 750),
            ("Burstable", asks("1Ki"), 999),
            ("Burstable", asks("4Gi"), 3),
        ] {
            assert_eq!(oom_score_adj(class, &container, node), expected, "{class}");
        }
    }
}
