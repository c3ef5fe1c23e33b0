//! The objects that a PodAutoscaler owns: its ServerlessService and its Metric.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kinglet_api::autoscaling::{Metric, MetricSpec, PodAutoscaler};
use kinglet_api::keys;
use kinglet_api::networking::{ServerlessService, ServerlessServiceMode, ServerlessServiceSpec};
use kinglet_decide::scale::path::PathMode;
use kinglet_reconcile::owner_reference;

/// The ServerlessService wanted, built over the one seen so that foreign metadata stays.
pub(super) fn service(
    owner: &PodAutoscaler,
    observed: Option<&ServerlessService>,
    mode: PathMode,
    activators: u32,
) -> ServerlessService {
    let mut desired = observed.cloned().unwrap_or_else(|| {
        let mut metadata = child(owner);
        if let Some(annotations) = &mut metadata.annotations {
            annotations.remove(keys::AUTOSCALING_METRIC);
        }
        ServerlessService {
            metadata,
            ..Default::default()
        }
    });
    desired.spec = ServerlessServiceSpec {
        mode: Some(match mode {
            PathMode::Serve => ServerlessServiceMode::Serve,
            PathMode::Proxy => ServerlessServiceMode::Proxy,
        }),
        object_ref: owner.spec.scale_target_ref.clone(),
        protocol_type: owner.spec.protocol_type,
        num_activators: i32::try_from(activators).unwrap_or(i32::MAX),
    };
    desired
}

/// The Metric wanted. Its metadata follows the PodAutoscaler's.
pub(super) fn metric(owner: &PodAutoscaler, observed: Option<&Metric>, spec: MetricSpec) -> Metric {
    let request = child(owner);
    let mut desired = observed.cloned().unwrap_or_else(|| Metric {
        metadata: request.clone(),
        ..Default::default()
    });
    desired.metadata.annotations = request.annotations;
    desired.metadata.labels = request.labels;
    desired.spec = spec;
    desired
}

fn child(owner: &PodAutoscaler) -> ObjectMeta {
    ObjectMeta {
        name: owner.metadata.name.clone(),
        namespace: owner.metadata.namespace.clone(),
        labels: owner.metadata.labels.clone(),
        annotations: owner.metadata.annotations.clone(),
        owner_references: Some(vec![owner_reference(owner)]),
        ..Default::default()
    }
}
