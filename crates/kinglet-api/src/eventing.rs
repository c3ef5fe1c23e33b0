//! `eventing.knative.dev`: Broker, Trigger, EventType, EventPolicy, RequestReply, EventTransform.

mod broker;
mod event_policy;
mod event_transform;
mod event_type;
mod request_reply;
mod trigger;

pub use broker::{Broker, BrokerSpec, BrokerStatus};
pub use event_policy::{
    EventPolicy, EventPolicyFrom, EventPolicyFromReference, EventPolicySelector, EventPolicySpec,
    EventPolicyStatus, EventPolicyTo, EventPolicyToReference,
};
pub use event_transform::{
    EventTransform, EventTransformSpec, EventTransformStatus, JsonataStatus, JsonataTransformation,
    ReplySpec,
};
pub use event_type::{
    EventAttributeDefinition, EventType, EventTypeSpec, EventTypeSpecV1Beta2, EventTypeStatus,
    EventTypeV1Beta1, EventTypeV1Beta2,
};
pub use kinglet_events::filter::{SubscriptionsApiFilter, TriggerFilter};
pub use request_reply::{RequestReply, RequestReplySpec, RequestReplyStatus};
pub use trigger::{Trigger, TriggerSpec, TriggerStatus};

/// API group of these kinds.
pub const GROUP: &str = "eventing.knative.dev";
