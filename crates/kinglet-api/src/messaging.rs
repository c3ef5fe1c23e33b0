//! `messaging.knative.dev`: Channel, Subscription, InMemoryChannel; and `messaging.kinglet.dev`: DurableChannel.

mod channel;
mod durable_channel;
mod in_memory_channel;
mod subscription;

pub use channel::{Channel, ChannelSpec, ChannelStatus, ChannelTemplate};
pub use durable_channel::{DurableChannel, DurableChannelSpec, Retention, WhenFull};
pub use in_memory_channel::InMemoryChannel;
pub use subscription::{PhysicalSubscription, Subscription, SubscriptionSpec, SubscriptionStatus};

/// API group of Knative's kinds.
pub const GROUP: &str = "messaging.knative.dev";
/// API group of our own.
pub const KINGLET_GROUP: &str = "messaging.kinglet.dev";
