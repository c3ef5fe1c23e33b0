//! Defaults of Eventing's kinds.

use serde_json::{Value, json};

use super::{Judged, metadata_map};
use crate::admission::{Review, look};
use crate::config::eventing::EventingConfigs;
use crate::keys;

/// Defaults of the CRD's schema, for callers without one.
pub(super) fn schema(kind: Judged, spec: &mut Value) {
    match kind {
        Judged::IntegrationSource => {
            set_absent(spec.pointer_mut("/timer"), "period", 1000);
            set_absent(spec.pointer_mut("/timer"), "contentType", "text/plain");
        }
        Judged::IntegrationSink => {
            for (field, value) in [("loggerName", "log-sink"), ("level", "INFO")] {
                set_absent(spec.pointer_mut("/log"), field, value);
            }
            for (field, value) in [
                ("logMask", false),
                ("multiline", false),
                ("showAllProperties", false),
                ("showBody", true),
                ("showBodyType", true),
                ("showExchangePattern", true),
                ("showHeaders", false),
                ("showProperties", false),
                ("showStreams", false),
                ("showCachedStreams", true),
            ] {
                set_absent(spec.pointer_mut("/log"), field, value);
            }
        }
        _ => {}
    }
}

/// Fills in the defaults of an object that is stored next: its spec, annotations and labels.
pub(super) fn apply(
    kind: Judged,
    review: &Review<'_>,
    object: &mut Value,
    configs: &EventingConfigs,
) {
    let mut spec = look::at(object, "spec").clone();
    spec_in(kind, review, object, &mut spec, configs);
    object["spec"] = spec;
    match kind {
        Judged::Broker => {
            let class = configs.broker_defaults.class(review.namespace);
            if !class.is_empty() {
                annotate(object, keys::BROKER_CLASS, class);
            }
        }
        Judged::Trigger => {
            let of_reference = object
                .pointer("/spec/brokerRef/name")
                .and_then(Value::as_str);
            let broker = match of_reference {
                Some(name) if configs.features.links_namespaces() => name.to_owned(),
                _ => look::text(&object["spec"], "broker").to_owned(),
            };
            label_broker(object, &broker);
        }
        Judged::RequestReply => {
            let broker = object
                .pointer("/spec/brokerRef/name")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            label_broker(object, &broker);
        }
        Judged::Channel | Judged::InMemoryChannel | Judged::DurableChannel => {
            annotate(object, keys::SUBSCRIBABLE, "v1");
        }
        _ => {}
    }
}

/// Fills in the defaults of a spec alone.
pub(super) fn spec_in(
    kind: Judged,
    review: &Review<'_>,
    object: &Value,
    spec: &mut Value,
    configs: &EventingConfigs,
) {
    let namespace = review.namespace;
    match kind {
        Judged::Broker => broker(object, spec, namespace, configs),
        Judged::Trigger => {
            set_absent(Some(spec), "filter", json!({}));
            own_namespace(spec.pointer_mut("/subscriber/ref"), namespace);
            dead_letter_sink(spec, namespace);
        }
        Judged::EventType => own_namespace(spec.pointer_mut("/reference"), namespace),
        Judged::EventPolicy => {
            for from in items(spec, "from") {
                own_namespace(from.pointer_mut("/ref"), namespace);
            }
        }
        Judged::RequestReply => {
            set_absent(Some(spec), "correlationAttribute", "correlationid");
            set_absent(Some(spec), "replyAttribute", "replyid");
            let timeout = configs.features.requestreply_default_timeout.as_str();
            set_absent(Some(spec), "timeout", timeout);
            dead_letter_sink(spec, namespace);
        }
        Judged::EventTransform => own_namespace(spec.pointer_mut("/sink/ref"), namespace),
        Judged::Channel => channel(spec, namespace, configs),
        Judged::Subscription => subscription(spec, namespace),
        Judged::InMemoryChannel | Judged::DurableChannel => dead_letter_sink(spec, namespace),
        Judged::Sequence => {
            cluster_channel(spec, configs);
            for step in items(spec, "steps") {
                own_namespace(step.pointer_mut("/ref"), namespace);
                dead_letter_sink(step, namespace);
            }
            own_namespace(spec.pointer_mut("/reply/ref"), namespace);
        }
        Judged::Parallel => {
            cluster_channel(spec, configs);
            for branch in items(spec, "branches") {
                for reference in ["/filter/ref", "/subscriber/ref", "/reply/ref"] {
                    own_namespace(branch.pointer_mut(reference), namespace);
                }
                dead_letter_sink(branch, namespace);
            }
            own_namespace(spec.pointer_mut("/reply/ref"), namespace);
        }
        Judged::PingSource => set_absent(Some(spec), "schedule", "* * * * *"),
        Judged::ApiServerSource => {
            set_absent(Some(spec), "mode", "Reference");
            set_absent(Some(spec), "serviceAccountName", "default");
        }
        Judged::ContainerSource => container_names(spec, review.name),
        Judged::SinkBinding => own_namespace(spec.pointer_mut("/subject"), namespace),
        Judged::JobSink => execution_mode(spec),
        Judged::IntegrationSource | Judged::IntegrationSink => {}
    }
}

/// Configuration and delivery of a Broker. Upstream's way of asking is kept: by the class of the annotation, before that has a
/// default of its own, or by the kind of a configuration that is already there.
fn broker(object: &Value, spec: &mut Value, namespace: &str, configs: &EventingConfigs) {
    let annotations = look::at(look::at(object, "metadata"), "annotations");
    let class = annotations
        .get(keys::BROKER_CLASS)
        .and_then(Value::as_str)
        .unwrap_or_default();
    let config = look::at(spec, "config");
    let is_set = !config.is_null();
    let asked = if is_set {
        look::text(config, "kind")
    } else {
        class
    };
    if let Some(default) = configs.broker_defaults.config(namespace, asked) {
        if !is_set {
            spec["config"] = json!(default.reference);
        }
        if !look::has(spec, "delivery")
            && let Some(delivery) = &default.delivery
        {
            let mut kept = json!(delivery);
            if let Some(fields) = kept.as_object_mut() {
                fields.retain(|field, _| {
                    !["timeout", "retryAfterMax", "format"].contains(&field.as_str())
                });
            }
            spec["delivery"] = kept;
        }
    }
    own_namespace(spec.pointer_mut("/config"), namespace);
    dead_letter_sink(spec, namespace);
}

/// A template that the user brought ends defaulting, as upstream.
fn channel(spec: &mut Value, namespace: &str, configs: &EventingConfigs) {
    if look::has(spec, "channelTemplate") {
        return;
    }
    if let Some(template) = configs.channel_defaults.of(namespace) {
        spec["channelTemplate"] = json!(template);
    }
    dead_letter_sink(spec, namespace);
}

fn subscription(spec: &mut Value, namespace: &str) {
    let reply = look::at(spec, "reply");
    let is_empty = !look::has(reply, "ref") && look::text(reply, "uri").is_empty();
    if let Some(fields) = spec.as_object_mut().filter(|_| is_empty) {
        fields.remove("reply");
    }
    for reference in ["/subscriber/ref", "/reply/ref"] {
        own_namespace(spec.pointer_mut(reference), namespace);
    }
    dead_letter_sink(spec, namespace);
}

fn cluster_channel(spec: &mut Value, configs: &EventingConfigs) {
    if let Some(template) = configs.channel_defaults.of_cluster() {
        set_absent(Some(spec), "channelTemplate", json!(template));
    }
}

fn container_names(spec: &mut Value, source: &str) {
    let containers = spec.pointer_mut("/template/spec/containers");
    let containers = containers.and_then(Value::as_array_mut);
    for (index, container) in containers.into_iter().flatten().enumerate() {
        set_absent(Some(container), "name", format!("{source}-{index}"));
    }
}

/// Every container of a JobSink's Job knows that it runs for an event.
fn execution_mode(spec: &mut Value) {
    const NAME: &str = "K_EXECUTION_MODE";
    let Some(pod) = spec.pointer_mut("/job/spec/template/spec") else {
        return;
    };
    for field in ["initContainers", "containers"] {
        for container in items(pod, field) {
            let known = look::list(container, "env")
                .iter()
                .any(|variable| look::text(variable, "name") == NAME);
            if known || !container.is_object() {
                continue;
            }
            let mut variables = look::list(container, "env").to_vec();
            variables.push(json!({"name": NAME, "value": "batch"}));
            container["env"] = Value::Array(variables);
        }
    }
}

fn dead_letter_sink(parent: &mut Value, namespace: &str) {
    own_namespace(
        parent.pointer_mut("/delivery/deadLetterSink/ref"),
        namespace,
    );
}

/// A reference without a namespace names an object of its own.
fn own_namespace(reference: Option<&mut Value>, namespace: &str) {
    set_absent(reference, "namespace", namespace);
}

/// Sets a field that is absent, null or an empty text.
fn set_absent(parent: Option<&mut Value>, field: &str, value: impl Into<Value>) {
    let Some(map) = parent.and_then(Value::as_object_mut) else {
        return;
    };
    let slot = map.entry(field).or_insert(Value::Null);
    if slot.is_null() || slot.as_str().is_some_and(str::is_empty) {
        *slot = value.into();
    }
}

fn items<'a>(parent: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    parent
        .get_mut(field)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

fn annotate(object: &mut Value, key: &str, value: &str) {
    if let Some(annotations) = metadata_map(object, "annotations") {
        let slot = annotations.entry(key).or_insert(Value::Null);
        if slot.as_str().is_none_or(str::is_empty) {
            *slot = json!(value);
        }
    }
}

fn label_broker(object: &mut Value, broker: &str) {
    if broker.is_empty() {
        return;
    }
    if let Some(labels) = metadata_map(object, "labels") {
        labels.insert(keys::BROKER.to_owned(), json!(broker));
    }
}
