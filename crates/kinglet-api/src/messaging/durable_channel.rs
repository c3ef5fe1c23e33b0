//! DurableChannel: keeps events on disk until every subscriber has had them.

use serde::{Deserialize, Serialize};

use crate::duck::{ChannelableSpec, ChannelableStatus};
use crate::kind::{is_default, kind};

kind!(
    /// Keeps events on disk until every subscriber has had them.
    DurableChannel, "durablechannels", "messaging.kinglet.dev", "v1alpha1", DurableChannelSpec, ChannelableStatus
);

/// Spec of a DurableChannel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DurableChannelSpec {
    /// Subscribers and delivery.
    #[serde(flatten)]
    pub channelable: ChannelableSpec,
    /// How much is kept, and for how long.
    #[serde(skip_serializing_if = "is_default")]
    pub retention: Retention,
}

/// How much is kept, and for how long. What is absent is as the program was told at its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Retention {
    /// Events that every subscriber has had, and given-up ones, stay this long (ISO 8601).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<String>,
    /// Most bytes on disk (a quantity, such as `1Gi`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// What a sender hears while the channel is full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when_full: Option<WhenFull>,
}

/// What a sender hears while the channel is full. Nothing that a subscriber still needs is ever dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WhenFull {
    /// 503, so that the sender's own queue or operator notices.
    #[default]
    Refuse,
    /// 429 with `Retry-After`, so that the sender comes again.
    Delay,
}
