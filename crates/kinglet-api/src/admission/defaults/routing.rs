//! Defaults of traffic targets and of an Ingress's rules.

use serde_json::{Value, json};

use super::set_default;
use crate::admission::look;

pub(super) fn traffic(spec: &mut Value, in_service: bool) {
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

pub(super) fn ingress(spec: &mut Value) {
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
