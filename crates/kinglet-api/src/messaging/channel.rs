//! Channel: a channel of whatever kind its template names.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::duck::{ChannelableSpec, ChannelableStatus, KReference};
use crate::kind::kind;

kind!(
    /// A channel of the kind that its template names.
    Channel, "channels", "messaging.knative.dev", "v1", ChannelSpec, ChannelStatus
);

/// Spec of a Channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChannelSpec {
    /// Kind and spec of the channel behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel_template: Option<ChannelTemplate>,
    /// Subscribers (never set by users) and delivery.
    #[serde(flatten)]
    pub channelable: ChannelableSpec,
}

/// Kind and spec of a channel that is made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChannelTemplate {
    /// Kind of the channel.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its group and version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Its spec, as that kind has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<Value>,
}

/// Status of a Channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelStatus {
    /// As of every channel.
    #[serde(flatten)]
    pub channelable: ChannelableStatus,
    /// The channel behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<KReference>,
}
