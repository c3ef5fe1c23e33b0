//! What Knative Eventing's webhooks do to an object on its way in: defaults, then rules (spec/eventing.md 4 and 5).
//!
//! Flow: as for Serving, [`mutate`] before the schema, [`validate`] after it. What cannot be known here is asked through [`Ask`].
//! An EventType of v1beta3 is judged as what it is stored as (v1beta2): Knative's webhook knows no newer version.

mod certificate;
mod defaults;
mod delivery;
mod destination;
mod eventing_kinds;
mod filters;
mod flows;
mod immutable;
mod messaging;
mod ping_source;
mod sinks;
mod sources;
mod trigger;

use serde_json::{Map, Value, json};

use super::{Operation, Rejection, Review, look};
use crate::config::eventing::{self as configs, EventingConfigs};
use crate::field::Findings;
use crate::{conversion, eventing, flows as flows_api, messaging as messaging_api};
use crate::{shape, sinks as sinks_api, sources as sources_api};

const MUTATING: &str = "webhook.eventing.knative.dev";
const VALIDATING: &str = "validation.webhook.eventing.knative.dev";
const CHANNEL_MUTATING: &str = "inmemorychannel.eventing.knative.dev";
const CHANNEL_VALIDATING: &str = "validation.inmemorychannel.eventing.knative.dev";
const CONFIG: &str = "config.webhook.eventing.knative.dev";
/// Who alone changes the subscribers of a channel, besides our own controllers.
const CONTROLLER: &str = "system:serviceaccount:knative-eventing:eventing-controller";

/// What the rules must ask outside.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// Whether the user of the request may link to an object of another namespace.
    pub may_link: &'a dyn Fn(&Link<'_>) -> bool,
    /// Creates a Job without storing it; answers what is wrong with it.
    pub try_job: &'a dyn Fn(&Value) -> Result<(), String>,
}

/// The question of a SubjectAccessReview: may the user `knsubscribe` to this object?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// Group of the object.
    pub group: &'a str,
    /// Its resource, as Knative writes it: the kind in lower case, and an `s`.
    pub resource: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl Link<'_> {
    /// The verb that is asked for.
    pub const VERB: &'static str = "knsubscribe";
}

/// The kinds that are judged here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    Broker,
    Trigger,
    EventType,
    EventPolicy,
    RequestReply,
    EventTransform,
    Channel,
    Subscription,
    InMemoryChannel,
    DurableChannel,
    Sequence,
    Parallel,
    PingSource,
    ApiServerSource,
    ContainerSource,
    SinkBinding,
    IntegrationSource,
    JobSink,
    IntegrationSink,
}

impl Judged {
    fn of(review: &Review<'_>) -> Option<Self> {
        if review.operation == Operation::Delete || review.subresource.is_some() {
            return None;
        }
        Some(match (review.group, review.kind) {
            (eventing::GROUP, "Broker") => Self::Broker,
            (eventing::GROUP, "Trigger") => Self::Trigger,
            (eventing::GROUP, "EventType") => Self::EventType,
            (eventing::GROUP, "EventPolicy") => Self::EventPolicy,
            (eventing::GROUP, "RequestReply") => Self::RequestReply,
            (eventing::GROUP, "EventTransform") => Self::EventTransform,
            (messaging_api::GROUP, "Channel") => Self::Channel,
            (messaging_api::GROUP, "Subscription") => Self::Subscription,
            (messaging_api::GROUP, "InMemoryChannel") => Self::InMemoryChannel,
            (messaging_api::KINGLET_GROUP, "DurableChannel") => Self::DurableChannel,
            (flows_api::GROUP, "Sequence") => Self::Sequence,
            (flows_api::GROUP, "Parallel") => Self::Parallel,
            (sources_api::GROUP, "PingSource") => Self::PingSource,
            (sources_api::GROUP, "ApiServerSource") => Self::ApiServerSource,
            (sources_api::GROUP, "ContainerSource") => Self::ContainerSource,
            (sources_api::GROUP, "SinkBinding") => Self::SinkBinding,
            (sources_api::GROUP, "IntegrationSource") => Self::IntegrationSource,
            (sinks_api::GROUP, "JobSink") => Self::JobSink,
            (sinks_api::GROUP, "IntegrationSink") => Self::IntegrationSink,
            _ => return None,
        })
    }

    /// The struct that its spec is.
    fn shape(self) -> &'static str {
        match self {
            Self::Broker => "BrokerSpec",
            Self::Trigger => "TriggerSpec",
            Self::EventType => "EventTypeSpec",
            Self::EventPolicy => "EventPolicySpec",
            Self::RequestReply => "RequestReplySpec",
            Self::EventTransform => "EventTransformSpec",
            Self::Channel => "ChannelSpec",
            Self::Subscription => "SubscriptionSpec",
            Self::InMemoryChannel => "InMemoryChannelSpec",
            Self::DurableChannel => "DurableChannelSpec",
            Self::Sequence => "SequenceSpec",
            Self::Parallel => "ParallelSpec",
            Self::PingSource => "PingSourceSpec",
            Self::ApiServerSource => "ApiServerSourceSpec",
            Self::ContainerSource => "ContainerSourceSpec",
            Self::SinkBinding => "SinkBindingSpec",
            Self::IntegrationSource => "IntegrationSourceSpec",
            Self::JobSink => "JobSinkSpec",
            Self::IntegrationSink => "IntegrationSinkSpec",
        }
    }

    /// Names of the webhooks that judge it: the one with defaults, the one with rules.
    fn webhooks(self) -> (&'static str, &'static str) {
        match self {
            Self::InMemoryChannel => (CHANNEL_MUTATING, CHANNEL_VALIDATING),
            _ => (MUTATING, VALIDATING),
        }
    }
}

/// Whether objects of a kind are judged here.
pub fn judges(group: &str, kind: &str) -> bool {
    let review = Review {
        group,
        version: "",
        kind,
        operation: Operation::Create,
        subresource: None,
        namespace: "",
        name: "",
        user: "",
        user_is_controller: false,
        dry_run: None,
        now: jiff::Timestamp::UNIX_EPOCH,
        old: None,
    };
    Judged::of(&review).is_some()
}

/// Brings `object` into its stored form: what Go's types would write, with defaults and who did it.
pub fn mutate(
    review: &Review<'_>,
    object: &mut Value,
    configs: &EventingConfigs,
) -> Result<(), Rejection> {
    let Some(kind) = Judged::of(review) else {
        return Ok(());
    };
    let spec = stored_spec(kind, review.version, object, Reading::Strict).map_err(|error| {
        refused(
            kind.webhooks().0,
            &format!("mutation failed: cannot decode incoming new object: {error}"),
            Vec::new(),
        )
    })?;
    let old = baseline(kind, review, configs);
    let spec_changed = old.as_ref().is_none_or(|old| {
        let mut same = spec.clone();
        defaults::spec_in(kind, review, object, &mut same, configs);
        *look::at(old, "spec") != same
    });
    object["spec"] = spec;
    defaults::apply(kind, review, object, configs);
    sign(review, object, spec_changed);
    let spec = served_spec(kind, review.version, look::at(object, "spec"));
    object["spec"] = spec;
    Ok(())
}

/// Judges an object in its stored form; answers warnings.
pub fn validate(
    review: &Review<'_>,
    object: &Value,
    configs: &EventingConfigs,
    ask: Ask<'_>,
) -> Result<Vec<String>, Rejection> {
    if is_config_map(review) {
        return validate_config_map(review, object);
    }
    let Some(kind) = Judged::of(review) else {
        return Ok(Vec::new());
    };
    let webhook = kind.webhooks().1;
    let spec = stored_spec(kind, review.version, object, Reading::Lax).map_err(|error| {
        refused(
            webhook,
            &format!("decoding request failed: cannot decode incoming new object: {error}"),
            Vec::new(),
        )
    })?;
    let judge = Judge {
        kind,
        review,
        object,
        spec: &spec,
        old: baseline(kind, review, configs),
        configs,
        ask,
    };
    let found = judge.findings();
    let warnings = found.warnings();
    match found.errors() {
        None => Ok(warnings),
        Some(errors) => Err(refused(
            webhook,
            &format!("validation failed: {errors}"),
            warnings,
        )),
    }
}

fn refused(webhook: &str, error: &str, warnings: Vec<String>) -> Rejection {
    Rejection {
        code: 400,
        message: super::denied(webhook, error),
        warnings,
    }
}

fn is_config_map(review: &Review<'_>) -> bool {
    (review.group, review.kind, review.namespace) == ("", "ConfigMap", configs::SYSTEM_NAMESPACE)
        && review.operation != Operation::Delete
        && review.subresource.is_none()
}

fn validate_config_map(review: &Review<'_>, object: &Value) -> Result<Vec<String>, Rejection> {
    configs::check(review.name, &look::map(object, "data"))
        .map(|()| Vec::new())
        .map_err(|error| refused(CONFIG, &format!("validation failed: {error}"), Vec::new()))
}

/// How a spec is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// An unknown field is an error: what a user sends.
    Strict,
    /// Unknown fields vanish: what is stored.
    Lax,
}

/// The spec as it is stored, whatever version it was sent in.
fn stored_spec(
    kind: Judged,
    version: &str,
    object: &Value,
    reading: Reading,
) -> Result<Value, String> {
    let spec = look::at(object, "spec");
    let read = |spec: &Value, shape| match reading {
        Reading::Strict => shape::normalize_strictly(spec, shape),
        Reading::Lax => shape::normalize(spec, shape),
    };
    if is_newer(kind, version) {
        let spec = read(spec, "EventTypeSpecV1Beta3")?;
        return conversion::event_type_spec(&spec, version, "v1beta2");
    }
    let mut spec = spec.clone();
    defaults::schema(kind, &mut spec);
    read(&spec, kind.shape())
}

/// A stored spec in the version that was asked for.
fn served_spec(kind: Judged, version: &str, spec: &Value) -> Value {
    if !is_newer(kind, version) {
        return spec.clone();
    }
    conversion::event_type_spec(spec, "v1beta2", version).unwrap_or_else(|_| spec.clone())
}

fn is_newer(kind: Judged, version: &str) -> bool {
    kind == Judged::EventType && version == "v1beta3"
}

/// The stored object as the current defaults would have it, for comparison.
fn baseline(kind: Judged, review: &Review<'_>, configs: &EventingConfigs) -> Option<Value> {
    let old = review
        .old
        .filter(|_| review.operation == Operation::Update)?;
    let mut spec = stored_spec(kind, review.version, old, Reading::Lax).ok()?;
    defaults::spec_in(kind, review, old, &mut spec, configs);
    let mut old = old.clone();
    old["spec"] = spec;
    Some(old)
}

/// Annotates the object with its creator and the last user who changed its spec.
fn sign(review: &Review<'_>, object: &mut Value, spec_changed: bool) {
    if !spec_changed {
        return;
    }
    let group = review.group;
    let user = json!(review.user);
    if let Some(annotations) = metadata_map(object, "annotations") {
        if review.operation == Operation::Create {
            annotations.insert(format!("{group}/creator"), user.clone());
        }
        annotations.insert(format!("{group}/lastModifier"), user);
    }
}

/// The annotations or labels of an object, made if it has none.
fn metadata_map<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Map<String, Value>> {
    let metadata = object
        .as_object_mut()?
        .entry("metadata")
        .or_insert_with(|| json!({}));
    let map = metadata
        .as_object_mut()?
        .entry(field)
        .or_insert_with(|| json!({}));
    if map.is_null() {
        *map = json!({});
    }
    map.as_object_mut()
}

/// Everything that rules look at.
struct Judge<'a> {
    kind: Judged,
    review: &'a Review<'a>,
    object: &'a Value,
    spec: &'a Value,
    old: Option<Value>,
    configs: &'a EventingConfigs,
    ask: Ask<'a>,
}

impl Judge<'_> {
    fn findings(&self) -> Findings {
        match self.kind {
            Judged::Broker => self.broker(),
            Judged::Trigger => self.trigger(),
            Judged::EventType => self.event_type(),
            Judged::EventPolicy => self.event_policy(),
            Judged::RequestReply => self.request_reply(),
            Judged::EventTransform => self.event_transform(),
            Judged::Channel => self.channel(),
            Judged::Subscription => self.subscription(),
            Judged::InMemoryChannel => self.in_memory_channel(),
            Judged::DurableChannel => self.durable_channel(),
            Judged::Sequence => self.sequence(),
            Judged::Parallel => self.parallel(),
            Judged::PingSource => self.ping_source(),
            Judged::ApiServerSource => self.api_server_source(),
            Judged::ContainerSource => self.container_source(),
            Judged::SinkBinding => self.sink_binding(),
            Judged::IntegrationSource => self.integration_source(),
            Judged::JobSink => self.job_sink(),
            Judged::IntegrationSink => self.integration_sink(),
        }
    }

    /// The rules of references, for kinds that may refer to any namespace.
    fn references(&self) -> destination::References<'static> {
        destination::References {
            features_group: self.configs.features.kreference_group == crate::config::Flag::Enabled,
            only_namespace: None,
        }
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        look::at(look::at(self.object, "metadata"), "annotations")
            .get(key)
            .and_then(Value::as_str)
    }

    fn old_spec(&self) -> Option<&Value> {
        self.old.as_ref().map(|old| look::at(old, "spec"))
    }

    /// Whether the user may name an object of another namespace; the feature must be on for that.
    fn link(&self, reference: &Value) -> Findings {
        let namespace = look::text(reference, "namespace");
        if namespace.is_empty()
            || namespace == self.review.namespace
            || self.review.user_is_controller
            || !self.configs.features.links_namespaces()
        {
            return Findings::none();
        }
        let kind = look::text(reference, "kind");
        let api_version = look::text(reference, "apiVersion");
        let link = Link {
            group: api_version.split_once('/').map_or("", |(group, _)| group),
            resource: &format!("{}s", kind.to_lowercase()),
            namespace,
            name: look::text(reference, "name"),
        };
        if (self.ask.may_link)(&link) {
            return Findings::none();
        }
        Findings::error(
            format!(
                "user {} is not authorized to get target resource in namespace: {namespace}",
                self.review.user
            ),
            &format!("spec.{kind}Namespace"),
        )
    }
}

#[cfg(test)]
mod tests;
