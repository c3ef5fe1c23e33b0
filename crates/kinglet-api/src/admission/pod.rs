//! Rules about the pod part of a Revision's spec as a whole (spec/serving.md 1.6, 2.5).

use serde_json::Value;

use crate::config::{Configs, Features, Flag, SecurePodDefaults};
use crate::field::Findings;
use crate::formats;
use crate::go;

use super::defaults::lets;
use super::{containers, look, security, volumes};

/// What judging a pod needs to know.
pub(super) struct Rules<'a> {
    /// Bounds and feature flags.
    pub(super) configs: &'a Configs,
    /// Whether insecure defaults are worth a warning.
    pub(super) warn: bool,
}

impl Rules<'_> {
    pub(super) fn features(&self) -> &Features {
        &self.configs.features
    }
}

/// The fields of a `RevisionSpec` that come from the PodSpec.
pub(super) fn validate(spec: &Value, rules: &Rules<'_>) -> Findings {
    let features = rules.features();
    let mut found = mask(spec, features);
    let account = look::text(spec, "serviceAccountName");
    let wrong = formats::dns_1123_subdomain(account);
    if !account.is_empty() && !wrong.is_empty() {
        found.add(Findings::invalid(account, "serviceAccountName").details(wrong.join("\n")));
    }
    found.add(volumes::validate(spec, features));
    found.add(init_containers(spec, features));
    found.add(all_containers(spec, features));
    found.add(security::pod(look::at(spec, "securityContext"), features).under("securityContext"));
    if rules.warn && features.secure_pod_defaults == SecurePodDefaults::Disabled {
        found.add(security::warnings(spec));
    }
    found
}

/// Fields of the pod that a Revision may not set.
fn mask(spec: &Value, features: &Features) -> Findings {
    let allowed = |field: &str| match field {
        "containers" | "volumes" | "serviceAccountName" | "imagePullSecrets"
        | "enableServiceLinks" => true,
        "containerConcurrency"
        | "timeoutSeconds"
        | "responseStartTimeoutSeconds"
        | "idleTimeoutSeconds" => true,
        "automountServiceAccountToken" => look::at(spec, field).as_bool() == Some(false),
        "affinity" => lets(features.podspec_affinity),
        "topologySpreadConstraints" => lets(features.podspec_topology_spread_constraints),
        "hostAliases" => lets(features.podspec_host_aliases),
        "nodeSelector" => lets(features.podspec_node_selector),
        "runtimeClassName" => lets(features.podspec_runtime_class_name),
        "tolerations" => lets(features.podspec_tolerations),
        "securityContext" => {
            lets(features.podspec_security_context)
                || features.secure_pod_defaults != SecurePodDefaults::Disabled
        }
        "shareProcessNamespace" => lets(features.podspec_share_process_namespace),
        "priorityClassName" => lets(features.podspec_priority_class_name),
        "schedulerName" => lets(features.podspec_scheduler_name),
        "initContainers" => lets(features.podspec_init_containers),
        "dnsPolicy" => lets(features.podspec_dns_policy),
        "dnsConfig" => lets(features.podspec_dns_config),
        "hostIPC" => lets(features.podspec_host_ipc),
        "hostPID" => lets(features.podspec_host_pid),
        "hostNetwork" => lets(features.podspec_host_network),
        _ => false,
    };
    look::fields(spec)
        .filter(|field| !allowed(field))
        .map(Findings::disallowed)
        .collect()
}

fn init_containers(spec: &Value, features: &Features) -> Findings {
    let list = look::list(spec, "initContainers");
    if list.is_empty() {
        return Findings::none();
    }
    if features.podspec_init_containers != Flag::Enabled {
        let message = format!(
            "pod spec support for init-containers is off, but found {} init containers",
            list.len()
        );
        return Findings::general(message);
    }
    let volumes = look::list(spec, "volumes");
    let taken: Vec<&str> = look::list(spec, "containers")
        .iter()
        .map(|container| look::text(container, "name"))
        .collect();
    let mut found = Findings::none();
    for (i, container) in list.iter().enumerate() {
        let mut inner = containers::init(container, volumes, features);
        let name = look::text(container, "name");
        let earlier = list[..i]
            .iter()
            .any(|other| look::text(other, "name") == name);
        if earlier || taken.contains(&name) {
            inner.add(duplicate_name(name));
        }
        found.add(inner.under_at("containers", i));
    }
    found
}

fn duplicate_name(name: &str) -> Findings {
    Findings::error(
        format!("duplicate container name {}", go::quote(name)),
        "name",
    )
}

fn all_containers(spec: &Value, features: &Features) -> Findings {
    let list = look::list(spec, "containers");
    let volumes = look::list(spec, "volumes");
    match list {
        [] => return Findings::missing("containers"),
        [only] => {
            let mut found = containers::serving(only, volumes, features).under_at("containers", 0);
            if look::list(only, "ports").len() > 1 {
                found.add(containers::too_many_ports("containers[*].ports"));
            }
            return found;
        }
        _ => {}
    }
    if features.multi_container != Flag::Enabled {
        return Findings::general(format!(
            "multi-container is off, but found {} containers",
            list.len()
        ));
    }
    let ports: usize = list
        .iter()
        .map(|container| look::list(container, "ports").len())
        .sum();
    let mut found = match ports {
        0 => Findings::missing("containers[*].ports"),
        1 => Findings::none(),
        _ => containers::too_many_ports("containers[*].ports"),
    };
    for (i, container) in list.iter().enumerate() {
        let mut inner = if look::list(container, "ports").is_empty() {
            containers::sidecar(container, volumes, features)
        } else {
            containers::serving(container, volumes, features)
        };
        let name = look::text(container, "name");
        if list[..i]
            .iter()
            .any(|other| look::text(other, "name") == name)
        {
            inner.add(duplicate_name(name));
        }
        found.add(inner.under_at("containers", i));
    }
    found
}
