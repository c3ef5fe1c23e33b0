//! Defaults of Knative's kinds (spec/serving.md 2.2).

mod annotations;
mod revision;
mod routing;

use serde_json::Value;

use super::{Judged, Operation, Review, look};
use crate::config::{Configs, Flag};
use annotations::{autoscaler_annotations, sign};
use revision::revision_spec;
use routing::{ingress, traffic};

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
        Judged::Revision | Judged::Metric | Judged::ServerlessService | Judged::Certificate => {}
        Judged::PodAutoscaler => autoscaler_annotations(object, configs),
        Judged::Ingress => ingress(&mut spec),
    }
    let spec_changed = old_spec.is_none_or(|old| *old != spec);
    object["spec"] = spec;
    sign(kind, review, object, creating, spec_changed);
}

/// Fills in only the defaults of the spec, as for an object that is already stored.
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
        Judged::Revision
        | Judged::Metric
        | Judged::ServerlessService
        | Judged::Certificate
        | Judged::PodAutoscaler => {}
    }
    object["spec"] = spec;
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

fn set_default(value: &mut Value, field: &str, default: Value) {
    if let Some(map) = value.as_object_mut() {
        let slot = map.entry(field).or_insert(Value::Null);
        if slot.is_null() {
            *slot = default;
        }
    }
}

/// Returns whether a feature flag allows its fields.
pub(super) fn lets(flag: Flag) -> bool {
    flag.is_on()
}
