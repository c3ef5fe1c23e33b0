//! The checks of the Pod Security Standards, in the order and the words of k8s.io/pod-security-admission.

mod baseline;
mod pod;
mod restricted;

use serde_json::Value;

use super::{Level, Policy};
use crate::object::items;
use pod::Pod;

/// Returns the detail of a violation, if there is one.
type Check = fn(&Pod<'_>) -> Option<String>;

struct Row {
    level: Level,
    /// The minor version that brought the check.
    since: u32,
    /// The level `restricted` has a stricter form of the check and leaves this one out.
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
    baseline("forbidden AppArmor profile", baseline::app_armor),
    Row {
        until_restricted: true,
        ..baseline("non-default capabilities", baseline::capabilities_baseline)
    },
    baseline("host namespaces", baseline::host_namespaces),
    baseline("hostPath volumes", baseline::host_path),
    baseline("hostPort", baseline::host_ports),
    Row {
        since: HOST_PROBES_SINCE,
        ..baseline("probe or lifecycle host", baseline::probe_hosts)
    },
    baseline("privileged", baseline::privileged),
    baseline("procMount", baseline::proc_mount),
    baseline("seLinuxOptions", baseline::se_linux),
    Row {
        until_restricted: true,
        ..baseline("seccompProfile", baseline::seccomp_baseline)
    },
    baseline("forbidden sysctls", baseline::sysctls),
    baseline("hostProcess", baseline::host_process),
    restricted(
        8,
        "allowPrivilegeEscalation != false",
        restricted::privilege_escalation,
    ),
    restricted(
        22,
        "unrestricted capabilities",
        restricted::capabilities_restricted,
    ),
    restricted(0, "restricted volume types", restricted::volume_types),
    restricted(0, "runAsNonRoot != true", restricted::run_as_non_root),
    restricted(23, "runAsUser=0", restricted::run_as_user),
    restricted(19, "seccompProfile", restricted::seccomp_restricted),
];

/// The minor version from which on baseline forbids `host` in probes and hooks.
const HOST_PROBES_SINCE: u32 = 34;

/// Lists the violations of a policy by a pod, as the message of a refusal does.
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
