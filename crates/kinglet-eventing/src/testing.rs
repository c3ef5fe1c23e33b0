//! What the tables of this crate share.

use std::sync::Arc;

use jiff::Timestamp;
use kinglet_reconcile::{Plan, ResourceKind, Verb, Write};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The moment of every test.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(1_795_256_272).unwrap()
}

pub(crate) const DOMAIN: &str = "cluster.local";

pub(crate) fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

pub(crate) fn channel_kind() -> Arc<ResourceKind> {
    Arc::new(ResourceKind {
        group: "messaging.knative.dev".to_owned(),
        version: "v1".to_owned(),
        kind: "InMemoryChannel".to_owned(),
        plural: "inmemorychannels".to_owned(),
        namespaced: true,
        delete_collection: true,
    })
}

/// The status that a plan writes, without the conditions.
pub(crate) fn status(plan: &Plan) -> Value {
    let write = plan.writes().find(|write| write.verb == Verb::Status);
    let mut status = write.expect("a status").body["status"].clone();
    status.as_object_mut().unwrap().remove("conditions");
    status
}

/// The conditions that a plan writes, one a line.
pub(crate) fn conditions(plan: &Plan) -> Vec<String> {
    let write = plan.writes().find(|write| write.verb == Verb::Status);
    let all = write.expect("a status").body["status"]["conditions"].clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let line = |one: &Value| {
        let parts = ["type", "status", "severity", "reason", "message"];
        let parts = parts.map(|field| text(&one[field]));
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join(" | ")
    };
    all.as_array().unwrap().iter().map(line).collect()
}

/// The writes of a plan besides the status.
pub(crate) fn others(plan: &Plan) -> Vec<&Write> {
    let writes = plan.writes().filter(|write| write.verb != Verb::Status);
    writes.filter(|write| !write.changes_nothing()).collect()
}

pub(crate) fn events(plan: &Plan) -> Vec<String> {
    let line =
        |event: &kinglet_reconcile::EventRecord| format!("{} {}", event.reason, event.message);
    plan.events().map(line).collect()
}

pub(crate) fn error(plan: &Plan) -> &str {
    plan.error.as_ref().map_or("", |error| &error.message)
}

/// What ends the conditions of every kind while OIDC is off.
pub(crate) const POLICIES: &str = "EventPoliciesReady | True | OIDCDisabled | Feature \"authentication-oidc\" must be enabled to support Authorization";
pub(crate) const NO_SINK: &str = "DeadLetterSinkResolved | True | DeadLetterSinkNotConfigured | No dead letter sink is configured.";
pub(crate) const IDENTITY: &str =
    "OIDCIdentityCreated | True | authentication-oidc feature disabled";

/// A condition `Ready` in a status, for an object of generation 1.
pub(crate) fn ready(truth: &str, message: &str) -> Value {
    json!({"observedGeneration": 1, "conditions": [{"type": "Ready", "status": truth, "message": message}]})
}
