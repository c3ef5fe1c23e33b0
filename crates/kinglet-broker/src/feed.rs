//! What crosses between the reconcilers (`eventing`) and the data plane: plain data.
//!
//! Control to data: [`Update`], each whole, the last one of a name wins. Data to control: [`Report`].
//! Differences from the first sketch: the kind of a channel names its engine, and the engine says what it promises, so a
//! route does not; a Broker has the channel's id for the short way and its address for the long one.

use std::sync::Arc;

use jiff::Timestamp;
pub use kinglet_decide::feed::Key;
use kinglet_events::Filter;
use kinglet_events::delivery;

pub use crate::engine::{ChannelId, Retention, Uid};

/// A resolved Destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Absolute URL, `http` or `https`.
    pub url: Arc<str>,
    /// Certificates to trust for it beside the system's, as PEM.
    pub ca_certs: Option<Arc<str>>,
    /// Who a token for it must be meant for; none sends none.
    pub audience: Option<Arc<str>>,
}

impl Destination {
    /// One without certificates and audience.
    pub fn plain(url: impl Into<Arc<str>>) -> Self {
        Self {
            url: url.into(),
            ca_certs: None,
            audience: None,
        }
    }
}

/// How events are delivered, and where those go that are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// The dead letter sink.
    pub dead_letter: Option<Destination>,
    /// Attempts, waits, timeout, format.
    pub policy: delivery::Delivery,
}

/// Namespace and name of a ServiceAccount.
pub type ServiceAccount = Key;

/// Who may send to an addressable (spec/eventing.md 7.8).
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The addressable's audience; none: senders are not asked who they are (`authentication-oidc` is off).
    pub audience: Option<Arc<str>>,
    /// What holds where no policy is.
    pub default: DefaultAccess,
    /// EventPolicies in order: the first one with a matching subject decides.
    pub policies: Vec<Policy>,
}

/// `default-authorization-mode`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultAccess {
    /// `allow-all`
    AllowAll,
    /// `deny-all`
    DenyAll,
    /// `allow-same-namespace`
    #[default]
    AllowSameNamespace,
}

/// A ready EventPolicy of an addressable.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its name, for the words of a refusal.
    pub name: Arc<str>,
    /// `status.from`: subjects; one that ends with `*` stands for all that begin so.
    pub subjects: Vec<Arc<str>>,
    /// `spec.filters`
    pub filter: Option<Arc<Filter>>,
}

/// A Broker.
#[derive(Clone, Debug)]
pub struct BrokerRoute {
    /// `metadata.uid`
    pub uid: Uid,
    /// The channel of its Triggers, when this process keeps it.
    pub channel: Option<ChannelId>,
    /// The channel's address (annotation `knative.dev/channelAddress`); none while it has none.
    pub address: Option<Destination>,
    /// Who may send.
    pub access: Access,
    /// Report the types of its events (`eventtype-auto-create`).
    pub auto_event_types: bool,
}

/// A Trigger.
#[derive(Clone, Debug)]
pub struct TriggerRoute {
    /// `metadata.uid`
    pub uid: Uid,
    /// Its Broker.
    pub broker: Key,
    /// The compiled filter.
    pub filter: Arc<Filter>,
    /// `status.subscriberUri`
    pub subscriber: Option<Destination>,
    /// Its own delivery; the format and the dead letter sink are used here, the rest by the channel.
    pub delivery: Delivery,
    /// The Broker's address, where `…/reply` leads (OIDC).
    pub reply: Option<Destination>,
    /// As whom it sends.
    pub identity: Option<ServiceAccount>,
    /// The filter asks who sends to it: it must be [`Self::identity`].
    pub authenticates: bool,
    /// Report the types of replies.
    pub auto_event_types: bool,
}

/// A channel that this process keeps.
#[derive(Clone, Debug)]
pub struct ChannelRoute {
    /// Its subscribers.
    pub subscribers: Vec<Subscriber>,
    /// `messaging.knative.dev/async-handler`: the answer does not wait for deliveries. Durable ones never wait.
    pub asynchronous: bool,
    /// Who may send.
    pub access: Access,
    /// How much it may hold; the engine's default without.
    pub retention: Option<Retention>,
    /// Report the types of events (channels that no Broker owns).
    pub auto_event_types: bool,
}

/// An entry of `spec.subscribers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// The Subscription's uid.
    pub uid: Uid,
    /// Its generation.
    pub generation: i64,
    /// Its name.
    pub name: Arc<str>,
    /// Where events go; without, they go to `reply` themselves.
    pub subscriber: Option<Destination>,
    /// Where replies go.
    pub reply: Option<Destination>,
    /// Retries and dead letters.
    pub delivery: Delivery,
    /// One at a time, in order.
    pub ordered: bool,
    /// As whom it sends.
    pub identity: Option<ServiceAccount>,
}

/// `transport-encryption`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransportEncryption {
    /// https listeners answer 404.
    #[default]
    Disabled,
    /// Both.
    Permissive,
    /// http listeners answer 404.
    Strict,
}

/// A change. `None` removes.
#[derive(Clone, Debug)]
pub enum Update {
    /// A Broker.
    Broker(Key, Option<BrokerRoute>),
    /// A Trigger.
    Trigger(Key, Option<TriggerRoute>),
    /// A channel. Removed, its events are removed with it.
    Channel(ChannelId, Option<ChannelRoute>),
    /// Which listeners serve.
    TransportEncryption(TransportEncryption),
}

/// What kind of object saw an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addressable {
    /// A Broker's ingress.
    Broker,
    /// A reply to a Trigger.
    Trigger,
    /// A channel.
    Channel,
    /// A reply to a Subscription.
    Subscription,
}

/// An event of a type that has not been reported for this object (lately).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventTypeSeen {
    /// What saw it.
    pub addressable: Addressable,
    /// Its kind, for channels (`InMemoryChannel`).
    pub kind: Arc<str>,
    /// Its name.
    pub key: Key,
    /// `type`
    pub event_type: String,
    /// `source`
    pub source: String,
    /// `dataschema`, empty without.
    pub schema: String,
    /// `specversion`
    pub spec_version: &'static str,
}

/// What is told to the reconcilers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// For auto-creation of EventTypes.
    EventTypeSeen(EventTypeSeen),
    /// A subscription's deliveries began to fail, or succeed again: look at [`crate::Handle::subscriptions`].
    SubscriptionChanged {
        /// Its channel.
        channel: ChannelId,
        /// Which one.
        subscription: Uid,
    },
    /// A Trigger's filter could not be evaluated for an event, which is a no; said once for each filter.
    FilterFailed {
        /// The Trigger.
        trigger: Key,
        /// What and why.
        why: String,
    },
}

/// Why a delivery failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastFailure {
    /// When deliveries began to fail without a success in between.
    pub since: Timestamp,
    /// The last attempt.
    pub at: Timestamp,
    /// Failures since then.
    pub count: u64,
    /// Status, if there was one.
    pub status: Option<u16>,
    /// In words, as "http://… answers 503".
    pub words: String,
}

/// How a subscription is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionState {
    /// Its channel.
    pub channel: ChannelId,
    /// Its name.
    pub name: Arc<str>,
    /// Its uid.
    pub uid: Uid,
    /// Events that are not finished.
    pub backlog: u64,
    /// Of them under way.
    pub in_hand: usize,
    /// The failure that lasts; none after a success.
    pub failing: Option<LastFailure>,
}
