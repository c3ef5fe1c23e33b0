//! Everything a Revision's decision depends on, read from caches.

use std::sync::Arc;

use http::Method;
use jiff::Timestamp;
use k8s_openapi::List;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Pod};
use kinglet_api::autoscaling::PodAutoscaler;
use kinglet_api::caching::Image;
use kinglet_api::config::Configs;
use kinglet_api::names;
use kinglet_api::serving::Revision;
use kinglet_reconcile::{Context, name_of};

use super::digests::Known;
use super::health;
use crate::autoscale::pods;
use crate::configs::LiveConfigs;

/// PodInputs about one Revision.
#[derive(Clone, Debug)]
pub(super) struct RevisionObserved {
    pub(super) revision: Arc<Revision>,
    pub(super) images: Known,
    pub(super) deployment: Option<Arc<Deployment>>,
    pub(super) autoscaler: Option<Arc<PodAutoscaler>>,
    /// The Image caches that are there.
    pub(super) caches: Vec<Arc<Image>>,
    /// Its pods, by name.
    pub(super) pods: Vec<Arc<Pod>>,
    /// What the last failed readiness probe said, if a pod has been running for long without being ready.
    pub(super) probe: Option<String>,
    pub(super) configs: Arc<Configs>,
    pub(super) now: Timestamp,
}

pub(super) fn observe(
    context: &Context,
    live: &LiveConfigs,
    revision: Arc<Revision>,
    images: Known,
) -> RevisionObserved {
    let (namespace, name) = (revision.namespace(), revision.name());
    let uid = revision.metadata.uid.as_deref().unwrap_or_default();
    RevisionObserved {
        images,
        deployment: context
            .cache::<Deployment>()
            .get(namespace, &names::deployment(name)),
        autoscaler: context.cache::<PodAutoscaler>().get(namespace, name),
        caches: context.cache::<Image>().by_owner(uid),
        pods: pods::of_revision(&context.cache::<Pod>(), namespace, name),
        probe: None,
        configs: live.get(),
        now: context.now(),
        revision,
    }
}

/// Asks for what the last failed probe of a slow pod said. Events are not cached: they are needed here alone, and rarely.
pub(super) async fn ask_for_probe(context: &Context, observed: &mut RevisionObserved) {
    let initialized = observed
        .autoscaler
        .as_deref()
        .is_some_and(super::decide::is_initialized);
    let up = observed.pods.iter().any(|pod| pods::takes_requests(pod));
    let slowest = health::slowest(observed.pods.iter().map(|pod| &**pod), observed.now);
    let Some((pod, _)) =
        slowest.filter(|(_, seconds)| !initialized && !up && health::is_slow(*seconds))
    else {
        return;
    };
    let path = format!(
        "/api/v1/namespaces/{}/events?fieldSelector=involvedObject.kind%3DPod%2CinvolvedObject.name%3D{}%2Creason%3DUnhealthy",
        observed.revision.namespace(),
        name_of(pod),
    );
    // Without an answer the pod's own condition speaks.
    let Ok(answer) = context.call(Method::GET, &path, None).await else {
        return;
    };
    let Ok(events) = serde_json::from_slice::<List<Event>>(&answer) else {
        return;
    };
    let readiness = |event: &&Event| {
        event
            .message
            .as_deref()
            .is_some_and(|message| message.contains("eadiness"))
    };
    let last = events
        .items
        .iter()
        .filter(readiness)
        .max_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0));
    observed.probe = last.and_then(|event| event.message.clone());
}
