//! What the reconcilers need of the data plane: that a change is in force when they say so.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use kinglet_api::destination::Resolved;
use kinglet_api::duck::{ChannelableSpec, DeliverySpec};
use kinglet_api::eventing::{Broker, Trigger};
use kinglet_api::messaging::Retention;
use kinglet_reconcile::Key;

/// A channel: its kind, and the uid that tells it from an earlier one of its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId {
    /// Kind, such as `InMemoryChannel`.
    pub kind: String,
    /// Namespace and name.
    pub key: Key,
    /// `metadata.uid`
    pub uid: String,
}

/// A Broker that takes events.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerInForce {
    /// The object.
    pub broker: Arc<Broker>,
    /// Its channel, and the channel's address.
    pub channel: Option<(ChannelId, String)>,
    /// EventTypes are made from what it takes.
    pub auto_event_types: bool,
}

/// A Trigger that events are filtered for.
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerInForce {
    /// The object, with its filters.
    pub trigger: Arc<Trigger>,
    /// Its Broker.
    pub broker: Key,
    /// Where its events go.
    pub subscriber: Option<Resolved>,
    /// Where those go that could not be delivered.
    pub dead_letter: Option<Resolved>,
    /// How they are delivered: its own delivery, else the Broker's.
    pub delivery: Option<DeliverySpec>,
    /// EventTypes are made from replies.
    pub auto_event_types: bool,
}

/// A channel with its subscribers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelInForce {
    /// Subscribers with resolved addresses.
    pub spec: ChannelableSpec,
    /// Uids of the subscribers that get one event at a time, in order.
    pub ordered: BTreeSet<String>,
    /// Senders are answered before their events are delivered.
    pub asynchronous: bool,
    /// How much is kept.
    pub retention: Retention,
    /// EventTypes are made from what it takes.
    pub auto_event_types: bool,
}

/// A change, each whole; `None` removes.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// A Broker.
    Broker(Key, Option<BrokerInForce>),
    /// A Trigger.
    Trigger(Key, Option<TriggerInForce>),
    /// A channel. Removed, its events are removed with it.
    Channel(ChannelId, Option<ChannelInForce>),
}

/// The data plane of this process.
pub trait DataPlane: Send + Sync + 'static {
    /// Has the change in force when it resolves: a subscriber that it names receives every event accepted afterwards. An error
    /// is a sentence for a condition: what was attempted, and why it failed.
    fn apply(&self, update: Update) -> BoxFuture<'_, Result<(), String>>;
}
