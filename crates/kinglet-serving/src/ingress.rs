//! Ingresses of Kinglet's class: from KIngress objects to the gateway's route table, and back to `Ready`.
//!
//! Flow: Ingress changed -> [`rules`] -> [`publish`] (one table of all Ingresses, built once for many changes) -> the
//! data plane -> its acknowledged version -> status.
//! The first table is made of the caches alone, so that requests after a restart do not wait for the controllers.
//! Always: an Ingress is Ready only when the gateway serves what its spec says; Ingresses of other classes are not
//! touched; while the gateway has not answered, what it served before goes on.

mod decide;
mod publish;
mod rules;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kinglet_api::keys;
use kinglet_api::networking::Ingress;
use kinglet_decide::feed::Update;
use kinglet_reconcile::{Context, Controller, Next, is_deleting, key_of};
use tokio::sync::{mpsc, watch};

use publish::Publisher;

const WORKERS: usize = 4;

/// Host names under which the gateway is reached inside the cluster; they are what placeholder Services lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayNames {
    /// The gateway for everybody.
    pub public: String,
    /// The gateway for callers inside.
    pub private: String,
}

impl GatewayNames {
    /// Kinglet's own gateway.
    pub fn new(cluster_domain: &str) -> Self {
        Self {
            public: format!("gateway.kinglet-system.svc.{cluster_domain}"),
            private: format!("gateway-internal.kinglet-system.svc.{cluster_domain}"),
        }
    }
}

/// Starts the controller. `applied` is the version of the table that the gateway has in force; from 1 on, that has
/// the routes of all Ingresses there were at the start.
pub fn start(
    context: &Context,
    names: GatewayNames,
    updates: mpsc::Sender<Update>,
    applied: watch::Receiver<u64>,
) {
    let names = Arc::new(names);
    let controller = Controller::<Ingress>::new("ingress-controller")
        .reads::<Service>()
        .workers(WORKERS)
        .reports_errors();
    let ingresses = context.cache::<Ingress>();
    let before = async move {
        ingresses.wait_synced().await;
        ingresses.keys()
    };
    let publisher = Publisher::start(context, updates, applied, controller.queue(), before);
    context.tasks().spawn_cancellable(
        "first-routes",
        first_routes(context.clone(), publisher.clone()),
    );
    controller.run(context, move |context, key| {
        let (names, publisher) = (Arc::clone(&names), publisher.clone());
        async move {
            let found = context.cache::<Ingress>().find(&key);
            let ours = found.filter(|found| !is_deleting(&**found) && is_ours(found));
            let Some(ingress) = ours else {
                publisher.remove(&key);
                publisher.pass(&key);
                return Ok(Next::Done);
            };
            let services = context.cache::<Service>();
            let rules = rules::of(&ingress, |namespace, name| services.get(namespace, name));
            let outcome = match rules {
                Ok(rules) => Ok(publisher.set(&key, &ingress, rules)),
                Err(words) => Err(words),
            };
            publisher.pass(&key);
            context
                .apply(decide::decide(&ingress, &outcome, &names, context.now()))
                .await
        }
    });
}

/// The routes of before, straight from the caches: they are served before any controller has begun.
async fn first_routes(context: Context, publisher: Publisher) {
    let (ingresses, services) = (context.cache::<Ingress>(), context.cache::<Service>());
    ingresses.wait_synced().await;
    services.wait_synced().await;
    for ingress in ingresses.all() {
        let key = key_of(&*ingress);
        if !is_deleting(&*ingress) && is_ours(&ingress) {
            let find = |namespace: &str, name: &str| services.get(namespace, name);
            // What is wrong with one is its controller's to tell.
            if let Ok(rules) = rules::of(&ingress, find) {
                publisher.set_first(&key, &ingress, rules);
            }
        }
        publisher.pass(&key);
    }
}

fn is_ours(ingress: &Ingress) -> bool {
    keys::INGRESS_CLASS.get(ingress.metadata.annotations.as_ref())
        == Some(keys::INGRESS_CLASS_KINGLET)
}
