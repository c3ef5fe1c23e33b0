//! The Image caches and the PodAutoscaler of a Revision.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kinglet_api::autoscaling::{PodAutoscaler, PodAutoscalerSpec, Reachability};
use kinglet_api::caching::{Image, ImageSpec};
use kinglet_api::duck::ObjectReference;
use kinglet_api::serving::{ContainerStatus, Revision};
use kinglet_api::{keys, names};
use kinglet_reconcile::owner_reference;

use super::deployment;
use super::pod::PodInputs;
use crate::metadata;

/// The wish to have a container's image at hand.
pub(super) fn image(revision: &Revision, container: &ContainerStatus) -> Image {
    let pod = &revision.spec.pod;
    Image {
        metadata: ObjectMeta {
            name: Some(image_name(revision.name(), &container.name)),
            namespace: revision.metadata.namespace.clone(),
            labels: metadata::some(deployment::labels(revision)),
            annotations: metadata::some(deployment::annotations(revision)),
            owner_references: Some(vec![owner_reference(revision)]),
            ..ObjectMeta::default()
        },
        spec: ImageSpec {
            image: container.image_digest.clone(),
            service_account_name: pod.service_account_name.clone().unwrap_or_default(),
            image_pull_secrets: pod.image_pull_secrets.clone().unwrap_or_default(),
        },
        ..Image::default()
    }
}

/// Name of the Image of a container.
pub(super) fn image_name(revision: &str, container: &str) -> String {
    names::child(&names::child(revision, "-cache"), &format!("-{container}"))
}

/// The PodAutoscaler as it shall be, built over the one seen.
pub(super) fn autoscaler(
    inputs: PodInputs<'_>,
    observed: Option<&PodAutoscaler>,
    reachability: Reachability,
) -> PodAutoscaler {
    let revision = inputs.revision;
    let mut annotations = deployment::annotations_for_autoscaler(revision);
    let spec = PodAutoscalerSpec {
        container_concurrency: revision.spec.container_concurrency.unwrap_or(0),
        scale_target_ref: ObjectReference {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            name: names::deployment(revision.name()),
            ..ObjectReference::default()
        },
        reachability,
        protocol_type: revision.spec.protocol(),
    };
    if let Some(observed) = observed {
        // Annotations for the autoscaler follow the Revision, so that bounds can be changed while it lives; class and
        // metric may have been filled in.
        let kept = metadata::without(observed.metadata.annotations.as_ref(), |key| {
            key.starts_with(keys::AUTOSCALING_PREFIX)
                && !matches!(key, keys::AUTOSCALING_CLASS | keys::AUTOSCALING_METRIC)
        });
        for (key, value) in kept {
            annotations.entry(key).or_insert(value);
        }
        let mut next = observed.clone();
        next.metadata.annotations = metadata::some(annotations);
        next.spec = spec;
        return next;
    }
    let class = annotations
        .entry(keys::AUTOSCALING_CLASS.to_owned())
        .or_insert_with(|| inputs.configs.autoscaler.pod_autoscaler_class.clone())
        .clone();
    let metric = if class == keys::AUTOSCALING_CLASS_HPA {
        "cpu"
    } else {
        "concurrency"
    };
    annotations
        .entry(keys::AUTOSCALING_METRIC.to_owned())
        .or_insert_with(|| metric.to_owned());
    PodAutoscaler {
        metadata: ObjectMeta {
            name: revision.metadata.name.clone(),
            namespace: revision.metadata.namespace.clone(),
            labels: metadata::some(deployment::labels(revision)),
            annotations: metadata::some(annotations),
            owner_references: Some(vec![owner_reference(revision)]),
            ..ObjectMeta::default()
        },
        spec,
        ..PodAutoscaler::default()
    }
}
