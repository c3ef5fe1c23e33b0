//! Defaults of built-in kinds, as the Kubernetes API server fills them in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kinglet_quantity::fields::{Fields, each};
use kinglet_quantity::pod;
use serde_json::{Value, json};

use crate::kinds::{Builtin, Kind};
use crate::object::{child, default, default_text, fields};

/// Fills in an object of a built-in kind. Doing it twice changes nothing.
pub(crate) fn fill(kind: &Kind, object: &mut Value) {
    let Some(builtin) = kind.builtin else { return };
    match builtin {
        Builtin::Namespace => namespace(object),
        Builtin::Event => event(fields(object)),
        Builtin::Pod => pod::fill(child(fields(object), "spec")),
        Builtin::Deployment => deployment(child(fields(object), "spec")),
        Builtin::ReplicaSet => {
            let spec = child(fields(object), "spec");
            default(spec, "replicas", 1);
            template(spec);
        }
        Builtin::Job => {
            job(child(fields(object), "spec"));
            crate::rules::job::label(object);
        }
        Builtin::Service => service(child(fields(object), "spec")),
        Builtin::Endpoints => each(fields(object), "subsets").for_each(pod::fill_ports),
        Builtin::EndpointSlice => {
            for port in each(fields(object), "ports") {
                default(port, "name", "");
                default_text(port, "protocol", "TCP");
            }
        }
        Builtin::CustomResourceDefinition => crate::crd::default(object),
        Builtin::LimitRange => super::limits::complete(object),
        Builtin::Secret => secret(fields(object)),
        Builtin::Node => node(fields(object)),
        Builtin::HorizontalPodAutoscaler => {
            default(child(fields(object), "spec"), "minReplicas", 1)
        }
        Builtin::PriorityClass => {
            default_text(fields(object), "preemptionPolicy", "PreemptLowerPriority")
        }
        Builtin::RoleBinding | Builtin::ClusterRoleBinding => binding(fields(object)),
        Builtin::ClusterRole | Builtin::Role => default(fields(object), "rules", json!([])),
        _ => {}
    }
}

/// Labels a namespace with its name.
fn namespace(object: &mut Value) {
    let name = crate::object::name(object).to_owned();
    if !name.is_empty() {
        child(crate::object::meta(object), "labels")
            .insert("kubernetes.io/metadata.name".to_owned(), name.into());
    }
}

fn event(root: &mut Fields) {
    root.entry("eventTime").or_insert(Value::Null);
    let reporter = if root.contains_key("regarding") {
        "reportingController"
    } else {
        "reportingComponent"
    };
    default(root, reporter, "");
    default(root, "reportingInstance", "");
}

fn deployment(spec: &mut Fields) {
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "progressDeadlineSeconds", 600);
    let strategy = child(spec, "strategy");
    default_text(strategy, "type", "RollingUpdate");
    if strategy
        .get("type")
        .is_some_and(|kind| kind == "RollingUpdate")
    {
        let rolling = child(strategy, "rollingUpdate");
        default(rolling, "maxUnavailable", "25%");
        default(rolling, "maxSurge", "25%");
    }
    template(spec);
}

fn job(spec: &mut Fields) {
    // Only parallelism makes a Job that is complete when one of its Pods says so.
    let is_set = |spec: &Fields, field: &str| !crate::object::blank(spec.get(field));
    if !is_set(spec, "completions") && !is_set(spec, "parallelism") {
        default(spec, "completions", 1);
    }
    default(spec, "parallelism", 1);
    default(spec, "backoffLimit", 6);
    default(spec, "manualSelector", false);
    default(spec, "suspend", false);
    default_text(spec, "completionMode", "NonIndexed");
    default_text(spec, "podReplacementPolicy", "TerminatingOrFailed");
    template(spec);
}

/// Fills in the allocatable resources of a Node: its capacity.
fn node(root: &mut Fields) {
    child(root, "spec");
    if let Some(status) = root.get_mut("status").and_then(Value::as_object_mut)
        && let Some(capacity) = status.get("capacity").cloned()
    {
        default(status, "allocatable", capacity);
    }
}

fn binding(root: &mut Fields) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    default_text(child(root, "roleRef"), "apiGroup", GROUP);
    for subject in each(root, "subjects") {
        if subject
            .get("kind")
            .is_some_and(|kind| kind == "User" || kind == "Group")
        {
            default_text(subject, "apiGroup", GROUP);
        }
    }
}

fn service(spec: &mut Fields) {
    default_text(spec, "type", "ClusterIP");
    default_text(spec, "sessionAffinity", "None");
    if spec
        .get("sessionAffinity")
        .is_some_and(|affinity| affinity == "ClientIP")
    {
        default(
            child(child(spec, "sessionAffinityConfig"), "clientIP"),
            "timeoutSeconds",
            10_800,
        );
    } else {
        spec.remove("sessionAffinityConfig");
    }
    for port in each(spec, "ports") {
        default_text(port, "protocol", "TCP");
        if port
            .get("targetPort")
            .is_none_or(|target| target.is_null() || target == 0 || target == "")
            && let Some(number) = port.get("port").cloned()
        {
            port.insert("targetPort".to_owned(), number);
        }
    }
    let kind = spec
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or("")
        .to_owned();
    if kind == "ExternalName" {
        return;
    }
    default_text(spec, "internalTrafficPolicy", "Cluster");
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        default_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// Moves `stringData` into `data`.
fn secret(root: &mut Fields) {
    default_text(root, "type", "Opaque");
    if let Some(Value::Object(texts)) = root.remove("stringData") {
        let data = child(root, "data");
        for (key, value) in texts {
            data.insert(key, STANDARD.encode(value.as_str().unwrap_or("")).into());
        }
    }
}

fn template(spec: &mut Fields) {
    let template = child(spec, "template");
    if template.get("metadata").is_some_and(|metadata| {
        metadata
            .get("creationTimestamp")
            .is_some_and(Value::is_null)
    }) {
        child(template, "metadata").remove("creationTimestamp");
    }
    pod::fill_spec(child(template, "spec"));
}
