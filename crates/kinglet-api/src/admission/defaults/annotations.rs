//! Annotations that admission writes: who created and changed an object, class and metric of an autoscaler.

use serde_json::{Map, Value, json};

use crate::admission::{Judged, Review, look};
use crate::config::Configs;
use crate::keys;

/// Annotates the object with its creator and the last user who changed its spec.
pub(super) fn sign(
    kind: Judged,
    review: &Review<'_>,
    object: &mut Value,
    creating: bool,
    spec_changed: bool,
) {
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

pub(super) fn autoscaler_annotations(object: &mut Value, configs: &Configs) {
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
