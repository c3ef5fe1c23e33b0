//! Label and field selectors.

use std::borrow::Cow;
use std::collections::BTreeMap;

use kinglet_quantity::{LabelSelector, Operator};
use serde::Deserialize;
use serde_json::Value;

use crate::kinds::{Builtin, Kind};
use crate::object::text;
use crate::status::Status;

/// Values and terms of a selector: each is looked at for every object and every change. Ten times what people write by hand.
const TERMS_MAX: usize = 1000;

/// A parsed pair of selectors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    labels: LabelSelector,
    fields: Vec<FieldTerm>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldTerm {
    field: String,
    value: String,
    equal: bool,
}

/// Just the labels of an object, read without the rest.
#[derive(Deserialize)]
struct Labelled<'a> {
    #[serde(borrow, default)]
    metadata: Labels<'a>,
}

#[derive(Default, Deserialize)]
struct Labels<'a> {
    #[serde(borrow, default)]
    labels: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
}

impl Selector {
    /// Reads both selectors for a kind.
    pub(crate) fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, Status> {
        let labels = LabelSelector::parse(labels).map_err(Status::bad_request)?;
        let terms: usize = labels
            .requirements()
            .iter()
            .map(|requirement| match &requirement.operator {
                Operator::In(values) | Operator::NotIn(values) => values.len().max(1),
                _ => 1,
            })
            .sum();
        let fields = parse_fields(fields).map_err(Status::bad_request)?;
        if terms + fields.len() > TERMS_MAX {
            return Err(Status::bad_request(format!(
                "a selector may have {TERMS_MAX} values and terms, this one has {}",
                terms + fields.len()
            )));
        }
        for term in &fields {
            if !is_selectable(kind, &term.field) {
                return Err(Status::bad_request(if kind.is(Builtin::Job) {
                    format!("field label {:?} not supported for Job", term.field)
                } else if kind.builtin.is_some() && !generic_message(kind) {
                    format!(
                        "\"{}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                        term.field
                    )
                } else {
                    format!("field label not supported: {}", term.field)
                }));
            }
        }
        Ok(Self { labels, fields })
    }

    /// Selects everything?
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name it can match, if it names one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.fields
            .iter()
            .find(|term| term.field == "metadata.name" && term.equal)
            .map(|term| term.value.as_str())
    }

    /// Restricts to one name.
    pub(crate) fn with_name(mut self, name: &str) -> Self {
        self.fields.push(FieldTerm {
            field: "metadata.name".to_owned(),
            value: name.to_owned(),
            equal: true,
        });
        self
    }

    /// Does a stored object match? `path` is its key behind the kind's prefix.
    pub(crate) fn matches(&self, place: &str, bytes: &[u8]) -> bool {
        let (namespace, name) = place.rsplit_once('/').unwrap_or(("", place));
        let mut rest = self.fields.iter().filter(|term| match term.field.as_str() {
            "metadata.name" => (term.value == name) != term.equal,
            "metadata.namespace" => (term.value == namespace) != term.equal,
            _ => false,
        });
        if rest.next().is_some() {
            return false;
        }
        if !self.labels.is_empty() {
            let Ok(object) = serde_json::from_slice::<Labelled<'_>>(bytes) else {
                return false;
            };
            let labels = object.metadata.labels.unwrap_or_default();
            if !self
                .labels
                .matches(|key| labels.get(key).map(|value| &**value))
            {
                return false;
            }
        }
        let mut deep = self
            .fields
            .iter()
            .filter(|term| !matches!(term.field.as_str(), "metadata.name" | "metadata.namespace"))
            .peekable();
        if deep.peek().is_none() {
            return true;
        }
        let Ok(object) = serde_json::from_slice::<Value>(bytes) else {
            return false;
        };
        deep.all(|term| (field(&object, &term.field) == term.value) == term.equal)
    }
}

/// Custom resources and a few built-ins word it differently; both forms are what clients see.
fn generic_message(kind: &Kind) -> bool {
    matches!(
        kind.builtin,
        Some(
            Builtin::Pod
                | Builtin::Event
                | Builtin::Node
                | Builtin::Namespace
                | Builtin::Secret
                | Builtin::Service
                | Builtin::ReplicaSet
        )
    )
}

fn is_selectable(kind: &Kind, field: &str) -> bool {
    if field == "metadata.name" || (field == "metadata.namespace" && kind.namespaced) {
        return true;
    }
    let fields: &[&str] = match kind.builtin {
        Some(Builtin::Pod) => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        Some(Builtin::Event) => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingComponent",
            "reportingController",
            "source",
            "type",
        ],
        Some(Builtin::Node) => &["spec.unschedulable"],
        Some(Builtin::Namespace) => &["status.phase"],
        Some(Builtin::Secret) => &["type"],
        Some(Builtin::Service) => &["spec.clusterIP", "spec.type"],
        Some(Builtin::ReplicaSet) => &["status.replicas"],
        Some(Builtin::Job) => &["status.successful"],
        _ => &[],
    };
    fields.contains(&field)
}

/// A field as a selector sees it.
fn field(object: &Value, path: &str) -> String {
    match path {
        "status.successful" => {
            let succeeded = crate::object::number(object, &["status", "succeeded"]);
            return succeeded.unwrap_or(0).to_string();
        }
        "source" => {
            let component = text(object, &["source", "component"]);
            return if component.is_empty() {
                text(object, &["reportingComponent"]).to_owned()
            } else {
                component.to_owned()
            };
        }
        "reportingController" => return text(object, &["reportingComponent"]).to_owned(),
        _ => {}
    }
    let path = path.replacen("regarding.", "involvedObject.", 1);
    let value = path
        .split('.')
        .try_fold(object, |value, key| value.get(key));
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        None if matches!(path.as_str(), "spec.hostNetwork" | "spec.unschedulable") => {
            "false".to_owned()
        }
        None | Some(Value::Null | Value::Array(_) | Value::Object(_)) => String::new(),
    }
}

fn parse_fields(text: &str) -> Result<Vec<FieldTerm>, String> {
    let mut terms = Vec::new();
    for term in split_unescaped(text).filter(|term| !term.is_empty()) {
        let (field, value, equal) = if let Some((field, value)) = term.split_once("!=") {
            (field, value, false)
        } else if let Some((field, value)) = term.split_once("==") {
            (field, value, true)
        } else if let Some((field, value)) = term.split_once('=') {
            (field, value, true)
        } else {
            return Err(format!(
                "invalid selector: '{text}'; can't understand '{term}'"
            ));
        };
        terms.push(FieldTerm {
            field: field.trim().to_owned(),
            value: unescaped(value)?,
            equal,
        });
    }
    Ok(terms)
}

/// The terms of a field selector: a comma behind a backslash belongs to a value.
fn split_unescaped(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c| {
        let ends = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })
}

fn unescaped(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                Some(next) => {
                    return Err(format!(
                        "invalid field selector: invalid escape sequence: \\{next}"
                    ));
                }
                None => {
                    return Err("invalid field selector: unterminated escape sequence".to_owned());
                }
            },
            ',' | '=' => {
                return Err(format!(
                    "invalid field selector: unescaped character in value: {c}"
                ));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a label selector means is tested in `kinglet-quantity`; here, that it is asked about the labels of an object.
    #[test]
    fn labels_of_an_object_are_looked_at() {
        let selector = Selector {
            labels: LabelSelector::parse("app=web,!old").unwrap(),
            fields: Vec::new(),
        };
        let matches = |labels: &str| {
            let object = format!("{{\"metadata\":{{\"labels\":{labels}}}}}");
            selector.matches("ns/name", object.as_bytes())
        };
        assert!(matches(r#"{"app":"web","tier":"front"}"#));
        assert!(!matches(r#"{"app":"web","old":""}"#));
        assert!(!matches("null"));
    }

    #[test]
    fn field_selectors_are_read_as_kubernetes_reads_them() {
        let term = |field: &str, value: &str, equal| FieldTerm {
            field: field.to_owned(),
            value: value.to_owned(),
            equal,
        };
        for (text, expected) in [
            ("a=b", vec![term("a", "b", true)]),
            (
                "a==b,c!=d",
                vec![term("a", "b", true), term("c", "d", false)],
            ),
            (r"a=b\,c", vec![term("a", "b,c", true)]),
            (r"a=b\=c\\", vec![term("a", r"b=c\", true)]),
            ("", Vec::new()),
        ] {
            assert_eq!(parse_fields(text), Ok(expected), "{text}");
        }
        for text in ["metadata.name", r"a=b\x", r"a=b\", "a=b=c"] {
            assert!(parse_fields(text).is_err(), "{text}");
        }
    }
}
