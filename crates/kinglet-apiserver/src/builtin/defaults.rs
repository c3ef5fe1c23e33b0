//! Defaults of built-in kinds, as the Kubernetes API server fills them in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::kinds::{Builtin, Kind};
use crate::object::{blank, child, default, default_text, fields};

type Fields = Map<String, Value>;

/// Fills in an object of a built-in kind. Doing it twice changes nothing.
pub(crate) fn fill(kind: &Kind, object: &mut Value) {
    match kind.builtin {
        Some(Builtin::Namespace) => {
            let name = crate::object::name(object).to_owned();
            if !name.is_empty() {
                child(crate::object::meta(object), "labels")
                    .insert("kubernetes.io/metadata.name".to_owned(), name.into());
            }
        }
        Some(Builtin::Event) => {
            let root = fields(object);
            root.entry("eventTime").or_insert(Value::Null);
            let reporter = if root.contains_key("regarding") {
                "reportingController"
            } else {
                "reportingComponent"
            };
            default(root, reporter, "");
            default(root, "reportingInstance", "");
        }
        Some(Builtin::Pod) => {
            let spec = child(fields(object), "spec");
            default(spec, "enableServiceLinks", true);
            pod_spec(spec);
            requests_from_limits(spec);
        }
        Some(Builtin::Deployment) => {
            let spec = child(fields(object), "spec");
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
        Some(Builtin::ReplicaSet) => {
            let spec = child(fields(object), "spec");
            default(spec, "replicas", 1);
            template(spec);
        }
        Some(Builtin::Service) => service(child(fields(object), "spec")),
        Some(Builtin::Endpoints) => {
            for subset in each(fields(object), "subsets") {
                ports(subset);
            }
        }
        Some(Builtin::EndpointSlice) => {
            let root = fields(object);
            for port in each(root, "ports") {
                default(port, "name", "");
                default_text(port, "protocol", "TCP");
            }
        }
        Some(Builtin::CustomResourceDefinition) => crate::crd::default(object),
        Some(Builtin::LimitRange) => super::limits::complete(object),
        Some(Builtin::Secret) => secret(fields(object)),
        Some(Builtin::Node) => {
            let root = fields(object);
            child(root, "spec");
            if let Some(status) = root.get_mut("status").and_then(Value::as_object_mut)
                && let Some(capacity) = status.get("capacity").cloned()
            {
                default(status, "allocatable", capacity);
            }
        }
        Some(Builtin::HorizontalPodAutoscaler) => {
            default(child(fields(object), "spec"), "minReplicas", 1)
        }
        Some(Builtin::PriorityClass) => {
            default_text(fields(object), "preemptionPolicy", "PreemptLowerPriority")
        }
        Some(Builtin::RoleBinding | Builtin::ClusterRoleBinding) => {
            default_text(
                child(fields(object), "roleRef"),
                "apiGroup",
                "rbac.authorization.k8s.io",
            );
            for subject in each(fields(object), "subjects") {
                if subject
                    .get("kind")
                    .is_some_and(|kind| kind == "User" || kind == "Group")
                {
                    default_text(subject, "apiGroup", "rbac.authorization.k8s.io");
                }
            }
        }
        Some(Builtin::ClusterRole | Builtin::Role) => default(fields(object), "rules", json!([])),
        _ => {}
    }
}

/// The objects in a list of objects.
fn each<'a>(fields: &'a mut Fields, key: &str) -> impl Iterator<Item = &'a mut Fields> {
    fields
        .get_mut(key)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

fn ports(owner: &mut Fields) {
    for port in each(owner, "ports") {
        default_text(port, "protocol", "TCP");
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

/// `stringData` is only a way of writing `data`.
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
    pod_spec(child(template, "spec"));
}

/// A pod's specification, of a pod or of a template.
pub(crate) fn pod_spec(spec: &mut Fields) {
    default_text(spec, "restartPolicy", "Always");
    default_text(spec, "dnsPolicy", "ClusterFirst");
    default_text(spec, "schedulerName", "default-scheduler");
    default(spec, "securityContext", json!({}));
    default(spec, "terminationGracePeriodSeconds", 30);
    if let Some(account) = spec
        .get("serviceAccountName")
        .filter(|name| !blank(Some(name)))
        .cloned()
    {
        spec.insert("serviceAccount".to_owned(), account);
    } else if let Some(account) = spec
        .get("serviceAccount")
        .filter(|name| !blank(Some(name)))
        .cloned()
    {
        spec.insert("serviceAccountName".to_owned(), account);
    }
    for key in [
        "nodeSelector",
        "imagePullSecrets",
        "volumes",
        "tolerations",
        "initContainers",
        "hostAliases",
    ] {
        if spec.get(key).is_some_and(|value| blank(Some(value))) {
            spec.remove(key);
        }
    }
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        if spec.get(key).is_some_and(|value| value == false) {
            spec.remove(key);
        }
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for item in each(spec, list) {
            container(item);
        }
    }
    for item in each(spec, "volumes") {
        volume(item);
    }
}

fn container(container: &mut Fields) {
    default_text(container, "terminationMessagePath", "/dev/termination-log");
    default_text(container, "terminationMessagePolicy", "File");
    let image = container
        .get("image")
        .and_then(Value::as_str)
        .unwrap_or("")
        .to_owned();
    default_text(
        container,
        "imagePullPolicy",
        if is_moving(&image) {
            "Always"
        } else {
            "IfNotPresent"
        },
    );
    default(container, "resources", json!({}));
    if let Some(resources) = container.get_mut("resources") {
        canonical(resources);
    }
    ports(container);
    for variable in each(container, "env") {
        if variable
            .get("value")
            .is_some_and(|value| blank(Some(value)))
        {
            variable.remove("value");
        }
        if let Some(reference) = variable
            .get_mut("valueFrom")
            .and_then(|from| from.get_mut("fieldRef"))
        {
            default_text(fields(reference), "apiVersion", "v1");
        }
    }
    for key in ["env", "envFrom", "ports", "volumeMounts", "command", "args"] {
        if container.get(key).is_some_and(|value| blank(Some(value))) {
            container.remove(key);
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(key).and_then(Value::as_object_mut) {
            default_number(probe, "timeoutSeconds", 1);
            default_number(probe, "periodSeconds", 10);
            default_number(probe, "successThreshold", 1);
            default_number(probe, "failureThreshold", 3);
            if probe
                .get("initialDelaySeconds")
                .is_some_and(|delay| delay == 0)
            {
                probe.remove("initialDelaySeconds");
            }
            handler(probe);
        }
    }
    if let Some(lifecycle) = container
        .get_mut("lifecycle")
        .and_then(Value::as_object_mut)
    {
        for key in ["postStart", "preStop"] {
            if let Some(hook) = lifecycle.get_mut(key).and_then(Value::as_object_mut) {
                handler(hook);
            }
        }
    }
}

fn default_number(fields: &mut Fields, key: &str, value: i64) {
    if fields.get(key).is_none_or(|old| old.is_null() || old == 0) {
        fields.insert(key.to_owned(), value.into());
    }
}

fn handler(owner: &mut Fields) {
    if let Some(http) = owner.get_mut("httpGet").and_then(Value::as_object_mut) {
        default_text(http, "path", "/");
        default_text(http, "scheme", "HTTP");
    }
    if let Some(grpc) = owner.get_mut("grpc").and_then(Value::as_object_mut) {
        default(grpc, "service", "");
    }
}

/// Does the image's name point at something that moves? `latest`, said or unsaid; a digest never.
fn is_moving(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.rsplit_once(':') {
        Some((_, tag)) => tag == "latest",
        None => true,
    }
}

fn volume(volume: &mut Fields) {
    for key in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(key).and_then(Value::as_object_mut) {
            default(source, "defaultMode", 420);
            references(source);
            for part in each(source, "sources") {
                if let Some(token) = part
                    .get_mut("serviceAccountToken")
                    .and_then(Value::as_object_mut)
                {
                    default(token, "expirationSeconds", 3600);
                }
                if let Some(downward) = part.get_mut("downwardAPI").and_then(Value::as_object_mut) {
                    references(downward);
                }
            }
        }
    }
    if let Some(path) = volume.get_mut("hostPath").and_then(Value::as_object_mut) {
        default(path, "type", "");
    }
    if volume.keys().all(|key| key == "name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
}

fn references(source: &mut Fields) {
    for item in each(source, "items") {
        if let Some(reference) = item.get_mut("fieldRef").and_then(Value::as_object_mut) {
            default_text(reference, "apiVersion", "v1");
        }
    }
}

/// Numbers become texts and quantities their canonical form, as Go's decoding makes them.
fn canonical(resources: &mut Value) {
    for side in ["requests", "limits"] {
        let Some(list) = resources.get_mut(side).and_then(Value::as_object_mut) else {
            continue;
        };
        for value in list.values_mut() {
            if let Some(quantity) = super::quantity::of(value) {
                let shown = quantity.to_string();
                if *value != shown {
                    *value = shown.into();
                }
            }
        }
    }
}

/// In a pod, a limit without a request is also the request.
fn requests_from_limits(spec: &mut Fields) {
    for list in ["initContainers", "containers"] {
        for container in each(spec, list) {
            let Some(limits) = container
                .get("resources")
                .and_then(|r| r.get("limits"))
                .and_then(Value::as_object)
                .cloned()
            else {
                continue;
            };
            let requests = child(child(container, "resources"), "requests");
            for (name, value) in limits {
                default(requests, &name, value);
            }
        }
    }
}
