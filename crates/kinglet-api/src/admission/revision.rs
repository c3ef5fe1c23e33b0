//! Rules about a Revision and the template it is made from (spec/serving.md 2.4, 2.5).

use serde_json::Value;

use crate::field::Findings;
use crate::formats;
use crate::go;
use crate::keys::{self, Priority};
use kinglet_quantity::Quantity;

use super::pod::Rules;
use super::{autoscaling, differences, look, metadata, pod};

/// Networking annotations that a template may carry.
const NETWORKING_ANNOTATIONS: [&str; 9] = [
    "networking.knative.dev/ingress.class",
    "networking.knative.dev/ingress-class",
    "networking.knative.dev/certificate.class",
    "networking.knative.dev/certificate-class",
    "networking.knative.dev/disableAutoTLS",
    "networking.knative.dev/disable-auto-tls",
    "networking.knative.dev/disable-external-domain-tls",
    "networking.knative.dev/httpOption",
    "networking.knative.dev/http-protocol",
];

const QUEUE_QUANTITIES: [Priority; 6] = [
    keys::QUEUE_CPU_REQUEST,
    keys::QUEUE_CPU_LIMIT,
    keys::QUEUE_MEMORY_REQUEST,
    keys::QUEUE_MEMORY_LIMIT,
    keys::QUEUE_EPHEMERAL_STORAGE_REQUEST,
    keys::QUEUE_EPHEMERAL_STORAGE_LIMIT,
];

/// A `RevisionTemplateSpec`. `parent` is the metadata of the object around it.
pub(super) fn template(template: &Value, parent: Option<&Value>, rules: &Rules<'_>) -> Findings {
    let metadata = look::at(template, "metadata");
    let annotations = look::map(metadata, "annotations");
    let mut found = autoscaling::validate(&annotations, &rules.configs.autoscaler);
    found.add(networking(&annotations));
    found.add(queue(&annotations));
    found.add(metadata::seconds(
        &annotations,
        PROGRESS_DEADLINE,
        "progress-deadline",
    ));
    let mut found = found.under("annotations");
    found.add(names(metadata, parent));
    let mut found = found.under("metadata");
    found.add(spec(look::at(template, "spec"), rules).under("spec"));
    found
}

const PROGRESS_DEADLINE: Priority = keys::PROGRESS_DEADLINE_PRIORITY;

/// Rules of the networking group for any annotations of its own.
pub(super) fn networking(annotations: &std::collections::BTreeMap<String, String>) -> Findings {
    annotations
        .keys()
        .filter(|key| {
            key.starts_with("networking.knative.dev")
                && !NETWORKING_ANNOTATIONS.contains(&key.as_str())
        })
        .map(|key| Findings::invalid_key(key, ""))
        .collect()
}

fn queue(annotations: &std::collections::BTreeMap<String, String>) -> Findings {
    let mut found = Findings::none();
    if let Some((key, text)) = keys::QUEUE_RESOURCE_PERCENTAGE.find(annotations) {
        found.add(Findings::general_warning(
            "Queue proxy resource percentage annotation is deprecated. Please use the available annotations to explicitly set resource values per service",
        ));
        match go::parse_float(text) {
            Ok(value) if !(0.1..=100.0).contains(&value) => {
                found.add(Findings::out_of_bounds(text, 0.1, 100, "").key(key));
            }
            Ok(_) => {}
            Err(_) => found.add(Findings::invalid(text, "").key(key)),
        }
    }
    for priority in QUEUE_QUANTITIES {
        if let Some((key, text)) = priority.find(annotations)
            && Quantity::parse(text).is_err()
        {
            found.add(Findings::invalid(text, "").key(key));
        }
    }
    found
}

fn names(metadata: &Value, parent: Option<&Value>) -> Findings {
    let mut found = Findings::none();
    let generate_name = look::text(metadata, "generateName");
    let wrong = formats::dns_1035_prefix(generate_name);
    if !generate_name.is_empty() && !wrong.is_empty() {
        found.add(Findings::invalid(
            format!("not a DNS 1035 label prefix: [{}]", wrong.join(" ")),
            "generateName",
        ));
    }
    let name = look::text(metadata, "name");
    if name.is_empty() {
        return found;
    }
    let wrong = formats::dns_1035_label(name);
    if !wrong.is_empty() {
        found.add(Findings::invalid(
            format!("not a DNS 1035 label: [{}]", wrong.join(" ")),
            "name",
        ));
    }
    let Some(parent) = parent else { return found };
    let prefix = format!("{}-", look::text(parent, "name"));
    if prefix == "-" {
        if !look::text(parent, "generateName").is_empty() {
            found.add(Findings::disallowed("name"));
        }
    } else if !name.starts_with(&prefix) {
        found.add(Findings::invalid(
            format!(
                "{} must have prefix {}",
                go::quote(name),
                go::quote(&prefix)
            ),
            "name",
        ));
    }
    found
}

/// A template whose name the user kept must be the same in everything.
pub(super) fn name_change(spec: &Value, old: Option<&Value>) -> Findings {
    let Some(old) = old.map(|old| look::at(old, "template")) else {
        return Findings::none();
    };
    let new = look::at(spec, "template");
    let name = |template: &Value| look::text(look::at(template, "metadata"), "name").to_owned();
    if name(new).is_empty() || name(new) != name(old) || new == old {
        return Findings::none();
    }
    let changes = differences::between(old, new, "{*v1.RevisionTemplateSpec}");
    Findings::error(
        "Saw the following changes without a name change (-old +new)",
        "metadata.name",
    )
    .details(changes)
}

/// A Revision's spec never changes.
pub(super) fn immutable(spec: &Value, old: Option<&Value>) -> Findings {
    match old {
        Some(old) if old != spec => {
            let changes = differences::between(old, spec, "{v1.RevisionSpec}");
            Findings::error("Immutable fields changed (-old +new)", "spec").details(changes)
        }
        _ => Findings::none(),
    }
}

/// A `RevisionSpec`.
pub(super) fn spec(spec: &Value, rules: &Rules<'_>) -> Findings {
    let defaults = &rules.configs.defaults;
    let mut found = pod::validate(spec, rules);
    let timeout = look::number(spec, "timeoutSeconds").unwrap_or_default();
    if timeout != 0 && !(0..=defaults.max_revision_timeout_seconds).contains(&timeout) {
        found.add(Findings::out_of_bounds(
            timeout,
            0,
            defaults.max_revision_timeout_seconds,
            "timeoutSeconds",
        ));
    }
    found.add(concurrency(
        look::number(spec, "containerConcurrency"),
        defaults,
    ));
    found
}

/// Bounds of `containerConcurrency`.
pub(super) fn concurrency(value: Option<i64>, defaults: &crate::config::Defaults) -> Findings {
    let lower = i64::from(!defaults.allow_container_concurrency_zero);
    let upper = defaults.container_concurrency_max_limit;
    match value {
        Some(value) if !(lower..=upper).contains(&value) => {
            Findings::out_of_bounds(value, lower, upper, "containerConcurrency")
        }
        _ => Findings::none(),
    }
}
