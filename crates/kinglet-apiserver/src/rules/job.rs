//! What may be in a Job, in Kubernetes' words.

use serde_json::{Map, Value, json};

use super::{not_negative, one_of, pod, selector};
use crate::names;
use crate::object::{self, at, blank, child, fields, items, meta, number, text};
use crate::status::Cause;

/// Longest name: its Pods carry it as a label.
const NAME_CHARS_MAX: usize = 63;
/// Completions with indexes, whose Pods end in `-INDEX`.
const PARALLELISM_MAX: i64 = 100_000;
const COMPLETIONS_MAX: i64 = 1_000_000_000;
/// Labels of a Job's Pods, with what they carry.
const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// Gives a new Job its selector and its Pods the labels that it selects.
pub(crate) fn generate(object: &mut Value) {
    if at(object, &["spec", "manualSelector"]) == Some(&Value::Bool(true)) {
        return;
    }
    let (uid, name) = (
        object::uid(object).to_owned(),
        object::name(object).to_owned(),
    );
    let spec = child(fields(object), "spec");
    let labels = child(child(child(spec, "template"), "metadata"), "labels");
    for (keys, value) in [(UID_LABELS, &uid), (NAME_LABELS, &name)] {
        for key in keys {
            labels
                .entry(key)
                .or_insert_with(|| Value::from(value.as_str()));
        }
    }
    child(child(spec, "selector"), "matchLabels").insert(UID_LABELS[0].to_owned(), uid.into());
}

/// A Job without labels has those of its Pods, once they have all of theirs.
pub(crate) fn label(object: &mut Value) {
    if !blank(at(object, &["metadata", "labels"])) || blank(at(object, &["spec", "selector"])) {
        return;
    }
    let labels = at(object, &["spec", "template", "metadata", "labels"]).cloned();
    if let Some(labels) = labels.filter(|labels| !blank(Some(labels))) {
        meta(object).insert("labels".to_owned(), labels);
    }
}

pub(super) fn validate(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    if old.is_none() {
        generated(object, causes);
    } else if spec["manualSelector"] != true && !selects_uid(object) {
        not_generated(spec, causes);
    }
    numbers(spec, causes);
    completions(object, causes);
    policies(spec, causes);
    template(spec, causes);
    selects_its_own(spec, causes);
    if let Some(old) = old {
        unchanged(spec, &old["spec"], causes);
    }
}

fn selects_uid(object: &Value) -> bool {
    let mut labels = Map::new();
    for key in UID_LABELS {
        labels.insert(key.to_owned(), object::uid(object).into());
    }
    for key in NAME_LABELS {
        labels.insert(key.to_owned(), object::name(object).into());
    }
    object::matches_labels(
        &object["spec"]["selector"],
        &json!({"metadata": {"labels": labels}}),
    )
}

fn not_generated(spec: &Value, causes: &mut Vec<Cause>) {
    causes.push(Cause::invalid(
        "spec.selector",
        &spec["selector"],
        "`selector` not auto-generated",
    ));
}

/// The labels and the selector that the server makes itself, where nobody asked for his own.
fn generated(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    if spec["manualSelector"] == true || blank(spec.get("selector")) {
        return;
    }
    let labels = &spec["template"]["metadata"]["labels"];
    let (uid, name) = (object::uid(object), object::name(object));
    for (keys, wanted) in [(UID_LABELS, uid), (NAME_LABELS, name)] {
        for key in keys {
            if labels.get(key).and_then(Value::as_str) != Some(wanted) {
                causes.push(Cause::invalid(
                    format!("spec.template.metadata.labels[{key}]"),
                    labels,
                    &format!("must be '{wanted}'"),
                ));
            }
        }
    }
    if !selects_uid(object) {
        not_generated(spec, causes);
    }
}

fn numbers(spec: &Value, causes: &mut Vec<Cause>) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
    ] {
        not_negative(spec, field, "spec", causes);
    }
}

fn completions(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    one_of(
        spec,
        "completionMode",
        &["NonIndexed", "Indexed"],
        "spec",
        causes,
    );
    if text(spec, &["completionMode"]) != "Indexed" {
        return;
    }
    let Some(completions) = number(spec, &["completions"]) else {
        causes.push(Cause::required(
            "spec.completions",
            "when completion mode is Indexed",
        ));
        return;
    };
    for (field, most) in [
        ("parallelism", PARALLELISM_MAX),
        ("completions", COMPLETIONS_MAX),
    ] {
        if let Some(value) = number(spec, &[field]).filter(|value| *value > most) {
            causes.push(Cause::invalid(
                format!("spec.{field}"),
                &value.into(),
                &format!("must be less than or equal to {most} when completion mode is Indexed"),
            ));
        }
    }
    // The host name of the last Pod is a label.
    let longest = format!("{}-{}", object::name(object), (completions - 1).max(0));
    if let Some(wrong) = names::label(&longest)
        && longest.len() > NAME_CHARS_MAX
    {
        causes.push(Cause::invalid(
            "metadata.name",
            &object::name(object).into(),
            &format!("will not able to create pod with invalid DNS label {longest:?}: {wrong}"),
        ));
    }
}

fn policies(spec: &Value, causes: &mut Vec<Cause>) {
    one_of(
        spec,
        "podReplacementPolicy",
        &["Failed", "TerminatingOrFailed"],
        "spec",
        causes,
    );
    if let Some(manager) = spec.get("managedBy").and_then(Value::as_str)
        && !is_prefixed(manager)
    {
        causes.push(Cause::invalid(
            "spec.managedBy",
            &manager.into(),
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        ));
    }
}

fn is_prefixed(path: &str) -> bool {
    path.split_once('/')
        .is_some_and(|(host, rest)| names::subdomain(host).is_none() && !rest.is_empty())
}

fn template(spec: &Value, causes: &mut Vec<Cause>) {
    let metadata = &spec["template"]["metadata"];
    names::check_labels(
        metadata.get("labels"),
        "spec.template.metadata.labels",
        causes,
    );
    names::check_annotations(
        metadata.get("annotations"),
        "spec.template.metadata.annotations",
        causes,
    );
    pod::spec(&spec["template"]["spec"], "spec.template.spec", causes);
    // Any other is refused by the rules for Pods.
    let policy = text(spec, &["template", "spec", "restartPolicy"]);
    if matches!(policy, "" | "Always") {
        causes.push(Cause::required(
            "spec.template.spec.restartPolicy",
            "valid values: \"OnFailure\", \"Never\"",
        ));
    }
}

fn selects_its_own(spec: &Value, causes: &mut Vec<Cause>) {
    let wanted = &spec["selector"];
    let labels = &spec["template"]["metadata"]["labels"];
    if blank(Some(wanted)) {
        causes.push(Cause::required("spec.selector", ""));
    } else {
        selector(wanted, "spec.selector", causes);
    }
    if !object::matches_labels(wanted, &spec["template"]) {
        causes.push(Cause::invalid(
            "spec.template.metadata.labels",
            labels,
            "`selector` does not match template `labels`",
        ));
    }
}

/// Refuses changes of what Pods have been made of.
fn unchanged(spec: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let mut immutable = |field: &str| {
        if spec.get(field) != old.get(field) {
            causes.push(Cause::invalid(
                format!("spec.{field}"),
                &spec[field],
                "field is immutable",
            ));
        }
    };
    let is_indexed = text(old, &["completionMode"]) == "Indexed";
    if !is_indexed || blank(spec.get("completions")) {
        immutable("completions");
    }
    immutable("selector");
    immutable("completionMode");
    immutable("managedBy");
    if comparable(spec, old) != comparable(old, old) {
        causes.push(Cause::invalid(
            "spec.template",
            &spec["template"],
            "field is immutable",
        ));
    }
    if is_indexed
        && spec["completions"] != old["completions"]
        && spec["completions"] != spec["parallelism"]
        && !blank(spec.get("completions"))
    {
        causes.push(Cause::invalid(
            "spec.completions",
            &spec["completions"],
            "can only be modified in tandem with spec.parallelism",
        ));
    }
}

/// The template without what a Job that is suspended, and has not begun, may still be told: where its Pods run.
fn comparable(spec: &Value, old: &Value) -> Value {
    let mut template = spec["template"].clone();
    if old["suspend"] != true {
        return template;
    }
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("annotations");
        metadata.remove("labels");
    }
    if let Some(pod) = template.get_mut("spec").and_then(Value::as_object_mut) {
        for field in ["nodeSelector", "tolerations", "schedulingGates", "affinity"] {
            pod.remove(field);
        }
    }
    template
}

/// Judges a changed status.
pub(super) fn validate_status(object: &Value, causes: &mut Vec<Cause>) {
    let status = &object["status"];
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        not_negative(status, field, "status", causes);
    }
    let is_true = |kind: &str| {
        items(status, &["conditions"])
            .iter()
            .any(|each| text(each, &["type"]) == kind && text(each, &["status"]) == "True")
    };
    for (end, before) in [
        ("Complete", "SuccessCriteriaMet"),
        ("Failed", "FailureTarget"),
    ] {
        if is_true(end) && !is_true(before) {
            causes.push(Cause {
                field: "status.conditions".to_owned(),
                reason: "FieldValueInvalid",
                message: format!(
                    "Invalid value: cannot set {end}=True condition without the {before}=true condition"
                ),
            });
        }
    }
}
