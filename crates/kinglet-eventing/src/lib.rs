//! Knative Eventing's reconcilers: from Brokers and Triggers to channels and subscriptions that are in force.
//!
//! Flow: [`trigger`] -> a Subscription on the channel of its [`broker`] -> [`subscription`] puts its addresses among the
//! channel's subscribers -> [`physical`] (InMemoryChannel, DurableChannel) has the [`DataPlane`] take them over and says so in
//! its status -> the same way back, `Ready` upon `Ready`. [`channel`] stands before a channel of any kind.
//! Always: a reconciler is observe (caches) -> decide (pure, no clock but its argument) -> one plan of writes; what a status
//! calls ready is in force in the data plane; a change of what an object refers to, whatever its kind, wakes it.
//! Absent: sockets and events. The data plane is a trait, which `kinglet_broker` is one of ([`routes`]), so this crate runs over
//! any API server and any data plane.

#![warn(missing_docs)]

mod addresses;
mod backing;
pub mod broker;
pub mod channel;
pub mod configs;
pub mod data_plane;
pub mod physical;
pub mod routes;
pub mod subscription;
mod targets;
#[cfg(test)]
mod testing;
pub mod trigger;

use std::sync::Arc;

use kinglet_reconcile::{Context, ResourceKinds};

pub use data_plane::DataPlane;

/// Labels by which these controllers look objects up; the process's caches should index them.
pub const INDEXED_LABELS: [&str; 2] = [kinglet_api::keys::BROKER, addresses::SERVICE_NAME];

/// What Knative Eventing is started with.
#[derive(Clone)]
pub struct EventingOptions {
    /// The configuration of the moment; followed since before this starts.
    pub configs: configs::LiveConfigs,
    /// Domain of the cluster's own names, `cluster.local` as a rule.
    pub cluster_domain: Arc<str>,
    /// The kinds that the API server serves, for references to any of them.
    pub kinds: ResourceKinds,
    /// What takes events and delivers them.
    pub data_plane: Arc<dyn DataPlane>,
}

/// Starts all of Knative Eventing as tasks of the context.
pub fn start(context: &Context, options: &EventingOptions) {
    physical::start(context, options);
    channel::start(context, options);
    subscription::start(context, options);
    broker::start(context, options);
    trigger::start(context, options);
}
