//! Everything a Revision's decision depends on, read from caches.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kinglet_api::autoscaling::PodAutoscaler;
use kinglet_api::caching::Image;
use kinglet_api::config::Configs;
use kinglet_api::names;
use kinglet_api::serving::Revision;
use kinglet_reconcile::Kit;

use super::digests::Known;
use crate::autoscale::pods;
use crate::configs::LiveConfigs;

/// Facts about one Revision.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) revision: Arc<Revision>,
    pub(super) images: Known,
    pub(super) deployment: Option<Arc<Deployment>>,
    pub(super) autoscaler: Option<Arc<PodAutoscaler>>,
    /// The Image caches that are there.
    pub(super) caches: Vec<Arc<Image>>,
    /// Its pods, by name.
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) configs: Arc<Configs>,
    pub(super) now: Timestamp,
}

pub(super) fn observe(kit: &Kit, live: &LiveConfigs, revision: Arc<Revision>, images: Known) -> Seen {
    let (namespace, name) = (revision.namespace(), revision.name());
    let uid = revision.metadata.uid.as_deref().unwrap_or_default();
    Seen {
        images,
        deployment: kit.cache::<Deployment>().get(namespace, &names::deployment(name)),
        autoscaler: kit.cache::<PodAutoscaler>().get(namespace, name),
        caches: kit.cache::<Image>().by_owner(uid),
        pods: pods::of_revision(&kit.cache::<Pod>(), namespace, name),
        configs: live.get(),
        now: kit.now(),
        revision,
    }
}
