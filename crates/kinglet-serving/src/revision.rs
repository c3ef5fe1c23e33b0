//! Revision: images by digest, a Deployment, Image caches, a PodAutoscaler, and what its pods say.
//!
//! Flow: the Revision, a child or one of its pods changed -> [`digests`] -> [`observe`] -> [`decide`] -> Deployment
//! (first: its pods take longest), PodAutoscaler, Images, status.
//! Always: nothing is deployed before every image is known; a pod that fails is told at once, with its own words,
//! and not at the progress deadline as upstream does.

mod children;
mod decide;
mod deployment;
pub mod digests;
mod health;
mod observe;
mod pod;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kinglet_api::autoscaling::PodAutoscaler;
use kinglet_api::caching::Image;
use kinglet_api::keys;
use kinglet_api::serving::Revision;
use kinglet_reconcile::{Context, Controller, Key, Next, is_deleting, key_of, label, name_of};

use crate::configs::{self, LiveConfigs};
use digests::{DigestResolver, ResolveDigest};

/// Keys worked on at a time; one may wait for a digest for a moment.
const WORKERS: usize = 8;
/// ConfigMaps whose change can change a Deployment.
const CONCERNING: [&str; 6] = [
    "config-deployment",
    "config-defaults",
    "config-features",
    "config-observability",
    "config-logging",
    "config-network",
];

/// Starts the controller.
pub fn start(context: &Context, live: LiveConfigs, resolver: Arc<dyn ResolveDigest>) {
    let all = context.cache::<Revision>();
    let controller = Controller::<Revision>::new("revision-controller")
        .owns::<Deployment>()
        .owns::<PodAutoscaler>()
        .owns::<Image>()
        .watches::<Pod, _>(|pod| Some(Key::new(key_of(pod).namespace, label(pod, keys::REVISION)?)))
        .watches::<ConfigMap, _>(move |map| {
            let concerned = configs::is_ours(map) && CONCERNING.contains(&name_of(map));
            let all = if concerned { all.all() } else { Vec::new() };
            all.into_iter().map(|revision| key_of(&*revision))
        })
        .workers(WORKERS)
        .reports_errors();
    let digests = DigestResolver::new(context.clone(), live.clone(), resolver, controller.queue());
    controller.run(context, move |context, key| {
        let (live, digests) = (live.clone(), digests.clone());
        async move {
            let Some(revision) = context
                .cache::<Revision>()
                .find(&key)
                .filter(|found| !is_deleting(&**found))
            else {
                digests.forget(&key);
                return Ok(Next::Done);
            };
            let images = digests.of(&key, &revision).await;
            let mut observed = observe::observe(&context, &live, revision, images);
            observe::ask_for_probe(&context, &mut observed).await;
            let outcome =
                crate::outcome::apply(&context, &*observed.revision, decide::decide(&observed))
                    .await;
            if let Err(error) = &outcome
                && crate::outcome::is_refused(error, "Deployment")
            {
                context
                    .apply(decide::refused(&observed, &error.message()))
                    .await?;
            }
            outcome
        }
    });
}
