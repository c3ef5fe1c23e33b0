//! Everything a PodAutoscaler's decision depends on, read from caches.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kinglet_api::autoscaling::{Metric, PodAutoscaler};
use kinglet_api::networking::ServerlessService;
use kinglet_decide::scale::bounds::BufferPath;
use kinglet_reconcile::{Context, Key};

use crate::autoscale::decider_set::DesiredScale;
use crate::autoscale::deciders::Deciders;
use crate::autoscale::pods::{self, PodCounts};
use crate::autoscale::settings::Settings;
use crate::configs::LiveConfigs;

/// Facts about one PodAutoscaler.
#[derive(Clone, Debug)]
pub(super) struct PodAutoscalerObserved {
    pub(super) autoscaler: Arc<PodAutoscaler>,
    pub(super) service: Option<Arc<ServerlessService>>,
    pub(super) metric: Option<Arc<Metric>>,
    pub(super) deployment: Option<Arc<Deployment>>,
    pub(super) pods: PodCounts,
    /// Why pods do not get ready, where one says so.
    pub(super) trouble: Option<String>,
    pub(super) settings: Settings,
    /// `None` until the private Service exists: there is nothing to measure before.
    pub(super) desired_scale: Option<DesiredScale>,
    pub(super) buffer: BufferPath,
    pub(super) now: Timestamp,
}

pub(super) fn observe(
    context: &Context,
    configs: &LiveConfigs,
    deciders: &Deciders,
    key: &Key,
    autoscaler: Arc<PodAutoscaler>,
) -> PodAutoscalerObserved {
    let settings = Settings::of(&autoscaler, &configs.get());
    let pods = pods::of_revision(&context.cache::<Pod>(), &key.namespace, &key.name);
    let trouble = pods::trouble(pods.iter().map(|pod| &**pod));
    let pods = PodCounts::of(pods.iter().map(|pod| &**pod));
    let service = context.cache::<ServerlessService>().find(key);
    let measured = service
        .as_ref()
        .is_some_and(|service| !service.status.private_service_name.is_empty());
    let desired_scale = measured.then(|| deciders.ensure(key, settings.request(pods.ready)));
    let target = &autoscaler.spec.scale_target_ref.name;
    PodAutoscalerObserved {
        metric: context.cache::<Metric>().find(key),
        deployment: context.cache::<Deployment>().get(&key.namespace, target),
        service,
        pods,
        trouble,
        settings,
        desired_scale,
        // The gateway holds every request in this shape, so it is always reached. Where activators stand apart, a
        // probe through the public Service answers this (spec/serving.md 5.8) before pods may go.
        buffer: BufferPath::Confirmed,
        now: context.now(),
        autoscaler,
    }
}
