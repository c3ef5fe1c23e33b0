//! What a spec gets where it is silent (spec/serving.md 2.2).

use serde_json::{Map, Value, json};

use crate::config::{Configs, Defaults, Features, Flag, SecurePodDefaults};
use crate::keys;
use crate::names;
use kinglet_quantity::Quantity;

use super::{Judged, Operation, Review, look};

/// Puts the defaulted spec and the user's name into the object.
pub(super) fn apply(
    kind: Judged,
    review: &Review<'_>,
    object: &mut Value,
    spec: Value,
    old: Option<&Value>,
    configs: &Configs,
) {
    let creating = review.operation == Operation::Create;
    let mut spec = spec;
    let old_spec = old.map(|old| look::at(old, "spec"));
    match kind {
        Judged::Service | Judged::Configuration => {
            let metadata = look::at(object, "metadata").clone();
            template(&mut spec, &metadata, old_spec, creating, configs);
            if kind == Judged::Service {
                traffic(&mut spec, true);
            }
        }
        Judged::Route => traffic(&mut spec, false),
        Judged::Revision if creating => {
            let metadata = look::at(object, "metadata").clone();
            revision_spec(&mut spec, &metadata, creating, configs);
        }
        Judged::Revision | Judged::Metric | Judged::ServerlessService => {}
        Judged::PodAutoscaler => autoscaler_annotations(object, configs),
        Judged::Ingress => ingress(&mut spec),
    }
    let spec_changed = old_spec.is_none_or(|old| *old != spec);
    object["spec"] = spec;
    sign(kind, review, object, creating, spec_changed);
}

/// Only the defaults of the spec, as for an object that is already stored.
pub(super) fn spec_in(kind: Judged, object: &mut Value, mut spec: Value, configs: &Configs) {
    match kind {
        Judged::Service | Judged::Configuration => {
            let metadata = look::at(object, "metadata").clone();
            if let Some(template) = spec
                .get_mut("template")
                .and_then(|template| template.get_mut("spec"))
            {
                revision_spec(template, &metadata, false, configs);
            }
            if kind == Judged::Service {
                traffic(&mut spec, true);
            }
        }
        Judged::Route => traffic(&mut spec, false),
        Judged::Ingress => ingress(&mut spec),
        Judged::Revision | Judged::Metric | Judged::ServerlessService | Judged::PodAutoscaler => {}
    }
    object["spec"] = spec;
}

/// Who created the object and who last changed its spec.
fn sign(kind: Judged, review: &Review<'_>, object: &mut Value, creating: bool, spec_changed: bool) {
    let owned = !look::list(look::at(object, "metadata"), "ownerReferences").is_empty();
    let signed = match kind {
        Judged::Service => true,
        Judged::Route | Judged::Configuration => !owned,
        _ => false,
    };
    if !signed || !spec_changed {
        return;
    }
    let Some(annotations) = annotations_mut(object) else {
        return;
    };
    if creating {
        annotations.insert(keys::CREATOR.to_owned(), json!(review.user));
    }
    annotations.insert(keys::LAST_MODIFIER.to_owned(), json!(review.user));
}

fn annotations_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let metadata = object
        .as_object_mut()?
        .entry("metadata")
        .or_insert_with(|| json!({}));
    let annotations = metadata
        .as_object_mut()?
        .entry("annotations")
        .or_insert_with(|| json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    annotations.as_object_mut()
}

/// Defaults of `spec.template`.
///
/// Upstream leaves a template alone whose name the user brought and kept. So do we, unless the defaults make it the
/// very one that is stored: then the same manifest may be applied twice.
fn template(
    spec: &mut Value,
    parent: &Value,
    old: Option<&Value>,
    creating: bool,
    configs: &Configs,
) {
    let name = spec
        .pointer("/template/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let old_name = old
        .and_then(|old| old.pointer("/template/metadata/name"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    let kept_name = !name.is_empty() && name == old_name;
    let Some(template) = spec.get_mut("template") else {
        return;
    };
    if !kept_name {
        if let Some(inner) = template.get_mut("spec") {
            revision_spec(inner, parent, creating, configs);
        }
        return;
    }
    let mut defaulted = template.clone();
    if let Some(inner) = defaulted.get_mut("spec") {
        revision_spec(inner, parent, true, configs);
    }
    if old
        .and_then(|old| old.get("template"))
        .is_some_and(|old| *old == defaulted)
    {
        *template = defaulted;
    }
}

fn traffic(spec: &mut Value, in_service: bool) {
    let Some(spec) = spec.as_object_mut() else {
        return;
    };
    let empty = spec
        .get("traffic")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty);
    if empty {
        if in_service {
            spec.insert(
                "traffic".to_owned(),
                json!([{"latestRevision": true, "percent": 100}]),
            );
        }
        return;
    }
    for target in spec
        .get_mut("traffic")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let pinned = !look::text(target, "revisionName").is_empty();
        set_default(target, "latestRevision", json!(!pinned));
        set_default(target, "percent", json!(0));
    }
}

fn set_default(value: &mut Value, field: &str, default: Value) {
    if let Some(map) = value.as_object_mut() {
        let slot = map.entry(field).or_insert(Value::Null);
        if slot.is_null() {
            *slot = default;
        }
    }
}

fn autoscaler_annotations(object: &mut Value, configs: &Configs) {
    let Some(annotations) = annotations_mut(object) else {
        return;
    };
    let class = annotations
        .entry(keys::AUTOSCALING_CLASS)
        .or_insert_with(|| json!(configs.autoscaler.pod_autoscaler_class))
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let metric = match class.as_str() {
        keys::AUTOSCALING_CLASS_KPA => "concurrency",
        keys::AUTOSCALING_CLASS_HPA => "cpu",
        _ => return,
    };
    annotations
        .entry(keys::AUTOSCALING_METRIC)
        .or_insert_with(|| json!(metric));
}

fn ingress(spec: &mut Value) {
    for rule in spec
        .get_mut("rules")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        set_default(rule, "visibility", json!("ExternalIP"));
        let paths = rule
            .pointer_mut("/http/paths")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten();
        for path in paths {
            if let Some([split]) = path
                .get_mut("splits")
                .and_then(Value::as_array_mut)
                .map(Vec::as_mut_slice)
            {
                set_default(split, "percent", json!(100));
            }
        }
    }
}

/// Defaults of a Revision's spec. `parent` is the metadata that name templates see.
fn revision_spec(spec: &mut Value, parent: &Value, creating: bool, configs: &Configs) {
    let Configs {
        defaults, features, ..
    } = configs;
    let nonzero = |spec: &Value, field: &str| look::number(spec, field).filter(|value| *value != 0);
    let timeout = nonzero(spec, "timeoutSeconds").unwrap_or(defaults.revision_timeout_seconds);
    spec["timeoutSeconds"] = json!(timeout);
    let shorter = |seconds: i64| seconds != 0 && seconds < timeout;
    if shorter(defaults.revision_idle_timeout_seconds) {
        set_default(
            spec,
            "idleTimeoutSeconds",
            json!(defaults.revision_idle_timeout_seconds),
        );
    }
    if shorter(defaults.revision_response_start_timeout_seconds) {
        set_default(
            spec,
            "responseStartTimeoutSeconds",
            json!(defaults.revision_response_start_timeout_seconds),
        );
    }
    set_default(
        spec,
        "containerConcurrency",
        json!(defaults.container_concurrency),
    );
    container_names(spec, parent, defaults);
    if creating && let Some(links) = defaults.enable_service_links {
        set_default(spec, "enableServiceLinks", json!(links));
    }
    let writable = writable_volumes(spec);
    let pod_security = look::at(spec, "securityContext").clone();
    for (list, init) in [("containers", false), ("initContainers", true)] {
        let Some(containers) = spec.get_mut(list).and_then(Value::as_array_mut) else {
            continue;
        };
        let alone = containers.len() == 1;
        for container in containers {
            if !init {
                resources(container, defaults);
                let serves = alone || !look::list(container, "ports").is_empty();
                probes(container, serves);
            }
            mounts(container, &writable);
            secure(container, &pod_security, features);
            for port in container
                .get_mut("ports")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                set_default(port, "protocol", json!("TCP"));
            }
        }
    }
}

fn container_names(spec: &mut Value, parent: &Value, defaults: &Defaults) {
    let mut taken: Vec<String> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| look::list(spec, list))
        .map(|container| look::text(container, "name").to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    let data = json!({
        "Name": look::text(parent, "name"), "GenerateName": look::text(parent, "generateName"),
        "Namespace": look::text(parent, "namespace"),
        "Labels": look::map(parent, "labels"), "Annotations": look::map(parent, "annotations"),
    });
    for (list, template, fallback) in [
        (
            "initContainers",
            &defaults.init_container_name_template,
            "init-container",
        ),
        (
            "containers",
            &defaults.container_name_template,
            "user-container",
        ),
    ] {
        let Some(containers) = spec.get_mut(list).and_then(Value::as_array_mut) else {
            continue;
        };
        let several = containers.len() > 1;
        let mut next = 0;
        for container in containers
            .iter_mut()
            .filter(|container| look::text(container, "name").is_empty())
        {
            let base = template
                .render(&data)
                .unwrap_or_else(|_| fallback.to_owned());
            let mut name = base.clone();
            if several || taken.contains(&name) {
                loop {
                    name = names::child(&base, &format!("-{next}"));
                    next += 1;
                    if !taken.contains(&name) {
                        break;
                    }
                }
            }
            taken.push(name.clone());
            container["name"] = json!(name);
        }
    }
}

fn resources(container: &mut Value, defaults: &Defaults) {
    let d = defaults;
    let rows: [(&str, &str, Option<Quantity>); 6] = [
        ("requests", "cpu", d.revision_cpu_request),
        ("requests", "memory", d.revision_memory_request),
        (
            "requests",
            "ephemeral-storage",
            d.revision_ephemeral_storage_request,
        ),
        ("limits", "cpu", d.revision_cpu_limit),
        ("limits", "memory", d.revision_memory_limit),
        (
            "limits",
            "ephemeral-storage",
            d.revision_ephemeral_storage_limit,
        ),
    ];
    set_default(container, "resources", json!({}));
    for (side, resource, quantity) in rows {
        let Some(quantity) = quantity else { continue };
        let resources = &mut container["resources"];
        set_default(resources, side, json!({}));
        set_default(&mut resources[side], resource, json!(quantity.to_string()));
    }
}

fn probes(container: &mut Value, serves: bool) {
    if serves {
        set_default(container, "readinessProbe", json!({}));
        let probe = &mut container["readinessProbe"];
        if !["exec", "httpGet", "tcpSocket", "grpc"]
            .iter()
            .any(|handler| look::has(probe, handler))
        {
            probe["tcpSocket"] = json!({"port": 0});
        }
    }
    let Some(probe) = container
        .get_mut("readinessProbe")
        .filter(|probe| !probe.is_null())
    else {
        return;
    };
    let mut or = |field: &str, value: i64| {
        if look::number(probe, field).unwrap_or_default() == 0 {
            probe[field] = json!(value);
        }
    };
    or("successThreshold", 1);
    if look::number(probe, "periodSeconds").unwrap_or_default() != 0 {
        for (field, value) in [("failureThreshold", 3), ("timeoutSeconds", 1)] {
            if look::number(probe, field).unwrap_or_default() == 0 {
                probe[field] = json!(value);
            }
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(grpc) = container
            .get_mut(probe)
            .and_then(|probe| probe.get_mut("grpc"))
            .filter(|grpc| !grpc.is_null())
        {
            set_default(grpc, "service", json!(""));
        }
    }
}

/// Names of volumes that may be written to.
fn writable_volumes(spec: &Value) -> Vec<String> {
    look::list(spec, "volumes")
        .iter()
        .filter(|volume| {
            ["emptyDir", "persistentVolumeClaim", "ephemeral"]
                .iter()
                .any(|source| look::has(volume, source))
        })
        .map(|volume| look::text(volume, "name").to_owned())
        .collect()
}

fn mounts(container: &mut Value, writable: &[String]) {
    for mount in container
        .get_mut("volumeMounts")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if !writable
            .iter()
            .any(|name| name == look::text(mount, "name"))
        {
            mount["readOnly"] = json!(true);
        }
    }
}

fn secure(container: &mut Value, pod: &Value, features: &Features) {
    let level = features.secure_pod_defaults;
    if level == SecurePodDefaults::Disabled {
        return;
    }
    let privileged_port = look::list(container, "ports")
        .iter()
        .any(|port| look::number(port, "containerPort").is_some_and(|port| port < 1024));
    set_default(container, "securityContext", json!({}));
    let context = &mut container["securityContext"];
    set_default(context, "allowPrivilegeEscalation", json!(false));
    if look::text(look::at(pod, "seccompProfile"), "type").is_empty() {
        set_default(context, "seccompProfile", json!({}));
        if look::text(&context["seccompProfile"], "type").is_empty() {
            context["seccompProfile"]["type"] = json!("RuntimeDefault");
        }
    }
    if !look::has(context, "capabilities") {
        let mut capabilities = json!({"drop": ["ALL"]});
        if privileged_port {
            capabilities["add"] = json!(["NET_BIND_SERVICE"]);
        }
        context["capabilities"] = capabilities;
    }
    let unset = !look::has(context, "runAsNonRoot") && !look::has(pod, "runAsNonRoot");
    if level == SecurePodDefaults::Enabled && unset {
        context["runAsNonRoot"] = json!(true);
    }
}

/// Whether the flag lets a field through at all.
pub(super) fn lets(flag: Flag) -> bool {
    flag.is_on()
}
