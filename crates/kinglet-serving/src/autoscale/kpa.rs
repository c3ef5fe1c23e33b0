//! PodAutoscaler of class `kpa.autoscaling.knative.dev`.
//!
//! Flow: a desired scale changed, a pod came or went, or an object changed -> [`observe`] -> [`decide`] -> Deployment
//! (first, since a request may be waiting), Metric, ServerlessService, status.
//! Always: other classes are left alone; the Deployment goes to zero only after the handshake.

mod children;
mod decide;
mod observe;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kinglet_api::autoscaling::{Metric, PodAutoscaler};
use kinglet_api::keys;
use kinglet_api::networking::ServerlessService;
use kinglet_reconcile::{Context, Controller, Key, Next, Queue, is_deleting, key_of, label};

use super::deciders::Deciders;
use crate::configs::LiveConfigs;

/// Keys worked on at a time: twenty cold starts at once must not queue behind two.
const WORKERS: usize = 4;

/// Starts the controller. The queue wakes a PodAutoscaler whose desired scale changed.
pub fn start(context: &Context, configs: LiveConfigs, deciders: Deciders) -> Queue {
    let autoscalers = context.cache::<PodAutoscaler>();
    Controller::<PodAutoscaler>::new("kpa-class-podautoscaler-controller")
        .owns::<ServerlessService>()
        .owns::<Metric>()
        .watches::<Pod, _>(|pod| Some(Key::new(key_of(pod).namespace, label(pod, keys::REVISION)?)))
        .watches::<ConfigMap, _>(move |map| {
            let ours = super::settings::concerns(map);
            let all = if ours { autoscalers.all() } else { Vec::new() };
            all.into_iter().map(|autoscaler| key_of(&*autoscaler))
        })
        .reads::<Deployment>()
        .workers(WORKERS)
        .reports_errors()
        .run(context, move |context, key| {
            let (configs, deciders) = (configs.clone(), deciders.clone());
            async move {
                let autoscaler = context.cache::<PodAutoscaler>().find(&key);
                let Some(autoscaler) =
                    autoscaler.filter(|found| is_ours(found) && !is_deleting(&**found))
                else {
                    deciders.remove(&key);
                    return Ok(Next::Done);
                };
                let observed = observe::observe(&context, &configs, &deciders, &key, autoscaler);
                crate::outcome::apply(&context, &*observed.autoscaler, decide::decide(&observed))
                    .await
            }
        })
}

fn is_ours(autoscaler: &PodAutoscaler) -> bool {
    super::serves_class(autoscaler.annotation(keys::AUTOSCALING_CLASS))
}
