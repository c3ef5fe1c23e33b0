//! EventType: an event that can be had, in the three versions that are served.

use serde::{Deserialize, Serialize};

use crate::duck::{KReference, Status};
use crate::kind::kind;

kind!(
    /// An event that can be had, by its attributes.
    EventType, "eventtypes", "eventing.knative.dev", "v1beta3", EventTypeSpec, EventTypeStatus
);

/// An EventType as it is stored: `eventing.knative.dev/v1beta2`.
pub type EventTypeV1Beta2 = v1beta2::EventType;
/// An EventType of `eventing.knative.dev/v1beta1`.
pub type EventTypeV1Beta1 = v1beta1::EventType;

mod v1beta2 {
    use super::{EventTypeSpecV1Beta2, EventTypeStatus};
    use crate::kind::kind;

    kind!(
        /// An event that can be had.
        EventType, "eventtypes", "eventing.knative.dev", "v1beta2", EventTypeSpecV1Beta2, EventTypeStatus
    );
}

mod v1beta1 {
    use super::{EventTypeSpecV1Beta2, EventTypeStatus};
    use crate::kind::kind;

    kind!(
        /// An event that can be had.
        EventType, "eventtypes", "eventing.knative.dev", "v1beta1", EventTypeSpecV1Beta2, EventTypeStatus
    );
}

/// Spec of an EventType.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventTypeSpec {
    /// Where it can be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<KReference>,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its attributes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<EventAttributeDefinition>,
}

/// An attribute of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventAttributeDefinition {
    /// Its name.
    pub name: String,
    /// Whether every such event has it.
    pub required: bool,
    /// Its value, maybe with variables in braces.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
}

/// Spec of an EventType before v1beta3.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EventTypeSpecV1Beta2 {
    /// Attribute `type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Attribute `source`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// URL of a schema of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The schema itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub schema_data: String,
    /// Name of a Broker; `reference` took its place.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub broker: String,
    /// Where it can be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<KReference>,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// Status of an EventType.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventTypeStatus {
    /// Generation, conditions, annotations.
    #[serde(flatten)]
    pub common: Status,
}
