//! Ingresses of Kinglet's class: from KIngress objects to the gateway's route table, and back to `Ready`.
//!
//! Flow: Ingress changed -> [`rules`] -> [`publish`] (one table of all Ingresses, built once for many changes) -> the
//! gateways -> the version that each of this process acknowledges, the hash that each other one answers [`prober`] with ->
//! status.
//! The first table is made of the caches alone, so that requests after a restart do not wait for the controllers.
//! Always: an Ingress is Ready only when every gateway serves what its spec says; Ingresses of other classes are not
//! touched; while the gateway has not answered, what it served before goes on.

mod decide;
mod gateways;
mod prober;
mod publish;
mod rules;
mod tls;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Secret, Service};
use kinglet_api::keys;
use kinglet_api::networking::Ingress;
use kinglet_decide::feed::{Key, Update};
use kinglet_reconcile::{Context, Controller, Next, Plan, is_deleting};
use tokio::sync::mpsc;

pub use gateways::{Gateways, ProbeAnswer, ProbeGateway, Probed};

use prober::{Prober, Standing, Target};
use publish::{ProgrammedState, Publisher};
use tls::{Certificates, Look};

const WORKERS: usize = 4;
/// An Ingress whose certificates will expire is looked at so often at least, since clocks are set.
const EXPIRY_LOOK_MAX: Duration = Duration::from_secs(24 * 3600);

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

/// The routes of all Ingresses on their way to the gateways, before the controller works.
pub(crate) struct Routes {
    controller: Controller<Ingress>,
    publisher: Publisher,
    probed: Option<Probed>,
    certificates: Certificates,
}

/// Starts to publish route tables. The first one, version 1, has the routes of all Ingresses there were at the start: it is
/// made of the caches alone, as soon as they have Ingresses and Services.
pub(crate) fn start_routes(
    context: &Context,
    updates: mpsc::Sender<Update>,
    gateways: Gateways,
) -> Routes {
    let certificates = Certificates::default();
    let referring = certificates.clone();
    let controller = Controller::<Ingress>::new("ingress-controller")
        .reads::<Service>()
        .watches_heads::<Secret, _>(move |secret| referring.ingresses_of(&secret.key))
        .workers(WORKERS)
        .reports_errors();
    let probed = gateways.probed.clone();
    let known = certificates.clone();
    let first = |publisher| first_routes(context.clone(), publisher, known);
    let publisher = Publisher::start(context, updates, gateways, controller.queue(), first);
    Routes {
        controller,
        publisher,
        probed,
        certificates,
    }
}

/// Starts the controller.
pub(crate) fn start(context: &Context, names: GatewayNames, routes: Routes) {
    let Routes {
        controller,
        publisher,
        probed,
        certificates,
    } = routes;
    let names = Arc::new(names);
    let prober = probed.map(|probed| Prober::start(context, probed, controller.queue()));
    controller.run(context, move |context, key| {
        let (names, publisher, prober) = (Arc::clone(&names), publisher.clone(), prober.clone());
        let certificates = certificates.clone();
        async move {
            let found = context.cache::<Ingress>().find(&key);
            let ours = found.filter(|found| !is_deleting(&**found) && is_ours(found));
            let Some(ingress) = ours else {
                publisher.remove(&key);
                certificates.forget(&key);
                if let Some(prober) = &prober {
                    prober.forget(&key);
                }
                return Ok(Next::Done);
            };
            let services = context.cache::<Service>();
            let (secrets, now) = (context.cache::<Secret>(), context.now());
            let shown = certificates.resolve(&key, &ingress, Look::Close, now, |secret| {
                secrets.find(secret)
            });
            let rules = rules::of(&ingress, &shown.certificates, |namespace, name| {
                services.get(namespace, name)
            });
            let outcome = rules.map(|rules| {
                let here = publisher.set(&key, &ingress, rules);
                let hash = rules::probe_hash(&ingress, &shown.certificates);
                everywhere(here, prober.as_ref(), &key, &ingress, &hash)
            });
            let outcome = decide::with_faults(outcome, &shown.faults);
            let mut plan = decide::decide(&ingress, &outcome, &names, now);
            look_at_expiry(&mut plan, shown.changes_at, now);
            context.apply(plan).await
        }
    });
}

fn look_at_expiry(plan: &mut Plan, at: Option<Timestamp>, now: Timestamp) {
    let left = at.map(|at| at.duration_since(now));
    if let Some(left) = left.and_then(|left| Duration::try_from(left).ok()) {
        // Past it, not on it.
        let left = left + Duration::from_secs(1);
        plan.after(left.min(EXPIRY_LOOK_MAX));
    }
}

/// The routes of before, straight from the caches: they are served before any controller has begun.
async fn first_routes(context: Context, publisher: Publisher, certificates: Certificates) {
    let (ingresses, services) = (context.cache::<Ingress>(), context.cache::<Service>());
    ingresses.wait_synced().await;
    services.wait_synced().await;
    let (secrets, now) = (context.cache::<Secret>(), context.now());
    secrets.wait_synced().await;
    for key in ingresses.keys() {
        publisher.set_first(&key, || {
            let ingress = ingresses.find(&key)?;
            if is_deleting(&*ingress) || !is_ours(&ingress) {
                return None;
            }
            let find = |namespace: &str, name: &str| services.get(namespace, name);
            // What is wrong with one is its controller's to tell.
            let shown = certificates.resolve(&key, &ingress, Look::Quick, now, |secret| {
                secrets.find(secret)
            });
            let rules = rules::of(&ingress, &shown.certificates, find).ok()?;
            Some((ingress, rules))
        });
    }
}

/// Where an Ingress stands with all gateways, when this is where it stands with those of this process.
fn everywhere(
    here: ProgrammedState,
    prober: Option<&Prober>,
    key: &Key,
    ingress: &Ingress,
    hash: &str,
) -> ProgrammedState {
    let Some(prober) = prober.filter(|_| here == ProgrammedState::InForce) else {
        return here;
    };
    // As Knative's probers: what was ready stays so while gateways come and go, and after a start.
    if decide::is_ready(ingress) {
        return here;
    }
    let targets = targets(ingress);
    match prober.standing(key, hash, &targets) {
        Standing::Ready => ProgrammedState::InForce,
        Standing::Asked => ProgrammedState::OnItsWay,
        Standing::NoGateways => ProgrammedState::Stalled {
            gateways: Vec::new(),
        },
        Standing::Stalled(gateways) => ProgrammedState::Stalled { gateways },
    }
}

/// The hosts that gateways are asked for: in plain HTTP, since the listener that is asked is one for callers inside, whom
/// nothing redirects.
fn targets(ingress: &Ingress) -> Vec<Target> {
    let hosts = ingress.spec.rules.iter().flat_map(|rule| &rule.hosts);
    hosts
        .map(|host| Target {
            host: host.as_str().into(),
            tls: false,
        })
        .collect()
}

fn is_ours(ingress: &Ingress) -> bool {
    keys::INGRESS_CLASS.get(ingress.metadata.annotations.as_ref())
        == Some(keys::INGRESS_CLASS_KINGLET)
}
