//! Rules about an object's own metadata (spec/serving.md 2.3).

use crate::field::Findings;
use crate::formats;
use crate::go::GoDuration;
use crate::keys::{self, Priority};

use super::{AdmissionInput, Judged, autoscaling, look};

/// Everything about `metadata`.
pub(super) fn validate(input: &AdmissionInput<'_>) -> Findings {
    let metadata = look::at(input.object, "metadata");
    let annotations = look::map(metadata, "annotations");
    let mut found = Findings::none();
    if !matches!(
        input.kind,
        Judged::Ingress | Judged::ServerlessService | Judged::Certificate
    ) {
        found.add(name(
            look::text(metadata, "name"),
            look::text(metadata, "generateName"),
        ));
    }
    match input.kind {
        Judged::Service | Judged::Configuration | Judged::Route => {
            for key in annotations
                .keys()
                .filter(|key| key.starts_with("autoscaling.knative.dev"))
            {
                found.add(Findings::invalid_key(key, "annotations").details(
                    "autoscaling annotations must be put under \"spec.template.metadata.annotations\" to work",
                ));
            }
        }
        Judged::Revision | Judged::PodAutoscaler | Judged::Metric => {
            found.add(
                autoscaling::validate(&annotations, &input.configs.autoscaler).under("annotations"),
            );
        }
        Judged::Ingress | Judged::ServerlessService | Judged::Certificate => {}
    }
    if matches!(input.kind, Judged::Service | Judged::Route) {
        found.add(
            seconds(&annotations, keys::ROLLOUT_DURATION, "rollout-duration").under("annotations"),
        );
    }
    found.add(owner(input));
    found.add(signature(input).under("annotations"));
    found.under("metadata")
}

fn name(name: &str, generate_name: &str) -> Findings {
    let listed = |wrong: &[String]| format!("[{}]", wrong.join(" "));
    let mut found = Findings::none();
    if !generate_name.is_empty() {
        let wrong = formats::dns_1035_prefix(generate_name);
        if !wrong.is_empty() {
            found.add(Findings::error(
                format!("not a DNS 1035 label prefix: {}", listed(&wrong)),
                "generateName",
            ));
        }
    }
    if !name.is_empty() {
        let wrong = formats::dns_1035_label(name);
        if !wrong.is_empty() {
            found.add(Findings::error(
                format!("not a DNS 1035 label: {}", listed(&wrong)),
                "name",
            ));
        }
    }
    if name.is_empty() && generate_name.is_empty() {
        found.add(Findings::error("name or generateName is required", "name"));
    }
    found
}

/// An annotation that is a duration of whole seconds, at least zero.
pub(super) fn seconds(
    annotations: &std::collections::BTreeMap<String, String>,
    key: Priority,
    short: &str,
) -> Findings {
    let Some((key, value)) = key.find(annotations) else {
        return Findings::none();
    };
    if value.is_empty() {
        return Findings::none();
    }
    match GoDuration::parse(value) {
        Err(_) => Findings::invalid(value, key),
        Ok(duration) if !duration.is_whole_seconds() => {
            Findings::error(format!("{short}={value} is not at second precision"), key)
        }
        Ok(duration) if duration.0 < 0 => {
            Findings::error(format!("{short}={value} must be positive"), key)
        }
        Ok(_) => Findings::none(),
    }
}

/// A label that names an owner needs that owner. An object may be let go by its owner (`--cascade=orphan`) and lives on: what
/// it was labelled with before does not stand against it. Knative's webhook refuses that, and the deletion never ends.
fn owner(input: &AdmissionInput<'_>) -> Findings {
    let (label, kind) = match input.kind {
        Judged::Revision => (keys::CONFIGURATION, "Configuration"),
        Judged::Configuration | Judged::Route => (keys::SERVICE, "Service"),
        _ => return Findings::none(),
    };
    let metadata = look::at(input.object, "metadata");
    let Some(named) = look::map(metadata, "labels").remove(label) else {
        return Findings::none();
    };
    let owned = look::list(metadata, "ownerReferences")
        .iter()
        .any(|owner| look::text(owner, "kind") == kind && look::text(owner, "name") == named);
    let before = input.old.as_ref().map(|old| look::at(old, "metadata"));
    let let_go = before.is_some_and(|before| {
        look::map(before, "labels").get(label) == Some(&named)
            && look::list(metadata, "ownerReferences").is_empty()
    });
    if owned || let_go {
        Findings::none()
    } else {
        Findings::missing(label).under("labels")
    }
}

/// Nobody rewrites who created the object, or signs a change that is none.
fn signature(input: &AdmissionInput<'_>) -> Findings {
    let metadata = look::at(input.object, "metadata");
    let owned = !look::list(metadata, "ownerReferences").is_empty();
    let signed = match input.kind {
        Judged::Service => true,
        Judged::Route | Judged::Configuration => !owned,
        _ => false,
    };
    let (Some(old), true) = (&input.old, signed) else {
        return Findings::none();
    };
    let before = look::map(look::at(old, "metadata"), "annotations");
    let after = look::map(metadata, "annotations");
    let mut found = Findings::none();
    let value = |map: &std::collections::BTreeMap<String, String>, key: &str| {
        map.get(key).cloned().unwrap_or_default()
    };
    // An object from before signatures existed may get one.
    if before.contains_key(keys::CREATOR)
        && value(&before, keys::CREATOR) != value(&after, keys::CREATOR)
    {
        found.add(Findings::error(
            "annotation value is immutable",
            keys::CREATOR,
        ));
    }
    let same_spec = look::at(old, "spec") == look::at(input.object, "spec");
    let (was, is) = (
        value(&before, keys::LAST_MODIFIER),
        value(&after, keys::LAST_MODIFIER),
    );
    if same_spec && before.contains_key(keys::LAST_MODIFIER) && was != is {
        found.add(Findings::invalid(is, keys::LAST_MODIFIER));
    }
    found
}
