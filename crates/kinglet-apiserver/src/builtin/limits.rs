//! LimitRange: defaults for containers that say nothing, bounds for those that say too much.

use serde_json::{Map, Value};

use super::quantity;
use crate::context::RequestContext;
use crate::object::{at, child, default, fields, items, text};
use crate::status::Status;

fn ranges(context: &RequestContext<'_>) -> Vec<Value> {
    let page = context.server.store.list(
        &format!("core/limitranges/{}/", context.info.namespace),
        None,
        0,
        None,
    );
    let entries = page.map(|page| page.entries).unwrap_or_default();
    entries
        .iter()
        .filter_map(|(_, entry)| serde_json::from_slice::<Value>(&entry.value).ok())
        .flat_map(|range| items(&range, &["spec", "limits"]).to_vec())
        .filter(|item| text(item, &["type"]) == "Container")
        .collect()
}

/// Fills in the defaults of a range for containers: limits from the maximum, requests from limits, else from the minimum.
pub(crate) fn complete(range: &mut Value) {
    let Some(list) = range
        .pointer_mut("/spec/limits")
        .and_then(Value::as_array_mut)
    else {
        return;
    };
    for item in list
        .iter_mut()
        .filter(|item| item["type"] == "Container")
        .filter_map(Value::as_object_mut)
    {
        for (from, to) in [
            ("max", "default"),
            ("default", "defaultRequest"),
            ("min", "defaultRequest"),
        ] {
            let known: Map<String, Value> = item
                .get(from)
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default();
            for (name, value) in known {
                default(child(item, to), &name, value);
            }
        }
    }
}

/// Applies the ranges of the namespace to a new pod.
pub(crate) fn apply(
    context: &RequestContext<'_>,
    pod: &mut Value,
    shown: &str,
) -> Result<(), Status> {
    let ranges = ranges(context);
    if ranges.is_empty() {
        return Ok(());
    }
    let mut wrong = Vec::new();
    for list in ["initContainers", "containers"] {
        for container in child(fields(pod), "spec")
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            for range in &ranges {
                fill(container, range);
                bound(container, range, &mut wrong);
            }
        }
    }
    match wrong.as_slice() {
        [] => Ok(()),
        [one] => Err(Status::forbidden("", "pods", shown, one)),
        many => Err(Status::forbidden(
            "",
            "pods",
            shown,
            &format!("[{}]", many.join(", ")),
        )),
    }
}

fn fill(container: &mut Value, range: &Value) {
    // Where a container sets a limit, its request follows from that, not from the range.
    for (from, to) in [("default", "limits"), ("defaultRequest", "requests")] {
        for (name, value) in range
            .get(from)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            default(
                child(child(fields(container), "resources"), to),
                name,
                value.clone(),
            );
        }
    }
}

fn bound(container: &Value, range: &Value, wrong: &mut Vec<String>) {
    let own =
        |side: &str, name: &str| at(container, &["resources", side, name]).and_then(quantity::of);
    let each = |field: &str| {
        range
            .get(field)
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    };
    for (name, value) in each("min") {
        let Some(least) = quantity::of(&value) else {
            continue;
        };
        match own("requests", &name) {
            None => wrong.push(format!(
                "minimum {name} usage per Container is {}.  No request is specified",
                least
            )),
            Some(request) if request < least => {
                wrong.push(format!(
                    "minimum {name} usage per Container is {}, but request is {}",
                    least, request
                ));
            }
            Some(_) => {}
        }
    }
    for (name, value) in each("max") {
        let Some(most) = quantity::of(&value) else {
            continue;
        };
        match own("limits", &name) {
            None => wrong.push(format!(
                "maximum {name} usage per Container is {}.  No limit is specified",
                most
            )),
            Some(limit) if limit > most => {
                wrong.push(format!(
                    "maximum {name} usage per Container is {}, but limit is {}",
                    most, limit
                ));
            }
            Some(_) => {}
        }
    }
}
