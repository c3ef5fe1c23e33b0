//! The ReplicaSet that a Deployment's template asks for.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kinglet_reconcile::owner_reference;

use super::hash::template_hash;

/// Label that tells the Pods of one template from those of another.
pub(super) const HASH_LABEL: &str = "pod-template-hash";
/// Annotation with the number of the template.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotation with earlier numbers of a template that came back.
pub(super) const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotation with the size the Deployment wanted when the ReplicaSet was last scaled.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation with the most Pods allowed during a rollout.
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations that are not handed down.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// Whether a ReplicaSet was made from the Deployment's present template.
pub(super) fn same(set: &ReplicaSet, deployment: &Deployment) -> bool {
    let Some(of_set) = set.spec.as_ref().and_then(|spec| spec.template.as_ref()) else {
        return false;
    };
    let Some(wanted) = deployment.spec.as_ref().map(|spec| &spec.template) else {
        return false;
    };
    without_hash(of_set) == without_hash(wanted)
}

/// The ReplicaSet for the Deployment's template, without size.
pub(super) fn replica_set(deployment: &Deployment) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment
        .status
        .as_ref()
        .and_then(|status| status.collision_count)
        .unwrap_or(0);
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template.clone();
    let labels = template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector
        .match_labels
        .get_or_insert_default()
        .insert(HASH_LABEL.to_owned(), hash.clone());
    let name = deployment.metadata.name.as_deref().unwrap_or("");
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(handed_down(deployment)),
            owner_references: Some(vec![owner_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: Some(0),
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// The annotations that a Deployment hands down to its ReplicaSet.
pub(super) fn handed_down(deployment: &Deployment) -> BTreeMap<String, String> {
    let all = deployment.metadata.annotations.iter().flatten();
    all.filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let metadata = template.metadata.get_or_insert_default();
    metadata.creation_timestamp = None;
    if let Some(labels) = &mut metadata.labels {
        labels.remove(HASH_LABEL);
    }
    metadata.labels = metadata.labels.take().filter(|labels| !labels.is_empty());
    metadata.annotations = metadata
        .annotations
        .take()
        .filter(|annotations| !annotations.is_empty());
    template
}
