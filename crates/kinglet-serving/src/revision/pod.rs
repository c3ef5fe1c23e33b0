//! The pod template of a Revision: the user's containers, queue-proxy, what lies around them.
//!
//! Always: equal inputs give equal templates, byte for byte, since their hash decides about a rollout; what
//! Kubernetes would fill in is filled in here, so the stored object is the same whoever serves the API.

mod containers;
mod defaults;
mod observability;
mod probe;
mod queue;
mod resources;
mod volumes;

#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::{
    Affinity, PodAffinityTerm, PodAntiAffinity, PodSpec, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kinglet_api::config::{AffinityType, Configs};
use kinglet_api::keys;
use kinglet_api::serving::Revision;

/// Images by container, resolved to digests; empty where the tag is left alone.
pub(super) type ContainerDigests = [kinglet_api::serving::ContainerStatus];

/// What templates are made from besides the Revision.
#[derive(Clone, Copy, Debug)]
pub(super) struct PodInputs<'a> {
    pub(super) revision: &'a Revision,
    pub(super) digests: &'a ContainerDigests,
    pub(super) configs: &'a Configs,
}

/// The finished pod spec.
pub(super) fn spec(inputs: PodInputs<'_>) -> PodSpec {
    let PodInputs {
        revision, configs, ..
    } = inputs;
    let mut pod = revision.spec.pod.clone();
    let mut containers = containers::user(inputs);
    containers.push(queue::container(inputs));
    pod.containers = containers;
    volumes::extend(&mut pod, inputs);
    pod.termination_grace_period_seconds = revision.spec.timeout_seconds;
    if pod.enable_service_links.is_none() {
        pod.enable_service_links = configs.defaults.enable_service_links;
    }
    if pod.runtime_class_name.is_none() {
        let none = std::collections::BTreeMap::new();
        let labels = revision.metadata.labels.as_ref().unwrap_or(&none);
        pod.runtime_class_name = configs
            .deployment
            .runtime_class_for(labels)
            .map(str::to_owned);
    }
    if pod.affinity.is_none()
        && configs.deployment.default_affinity_type == AffinityType::PreferSpreadRevisionOverNodes
    {
        pod.affinity = Some(spread(revision.name()));
    }
    defaults::fill(&pod)
}

/// Pods of one Revision prefer different nodes.
fn spread(revision: &str) -> Affinity {
    let label_selector = LabelSelector {
        match_labels: Some([(keys::REVISION.to_owned(), revision.to_owned())].into()),
        ..LabelSelector::default()
    };
    let term = PodAffinityTerm {
        label_selector: Some(label_selector),
        topology_key: "kubernetes.io/hostname".to_owned(),
        ..PodAffinityTerm::default()
    };
    let weighted = WeightedPodAffinityTerm {
        weight: 100,
        pod_affinity_term: term,
    };
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![weighted]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}
