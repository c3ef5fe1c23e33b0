//! Label and field selectors.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::kinds::{Builtin, Kind};
use crate::names;
use crate::object::text;
use crate::status::Status;

/// A parsed pair of selectors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldTerm>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
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
        let labels = parse_labels(labels).map_err(|detail| {
            Status::bad_request(format!("unable to parse requirement: {detail}"))
        })?;
        let fields = parse_fields(fields).map_err(Status::bad_request)?;
        for term in &fields {
            if !is_selectable(kind, &term.field) {
                return Err(Status::bad_request(
                    if kind.builtin.is_some() && !generic_message(kind) {
                        format!(
                            "\"{}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                            term.field
                        )
                    } else {
                        format!("field label not supported: {}", term.field)
                    },
                ));
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
            if !self.labels.iter().all(|requirement| {
                requirement
                    .test
                    .holds(labels.get(requirement.key.as_str()).map(|v| &**v))
            }) {
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

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        match self {
            Self::In(values) => {
                value.is_some_and(|value| values.iter().any(|candidate| candidate == value))
            }
            Self::NotIn(values) => {
                value.is_none_or(|value| values.iter().all(|candidate| candidate != value))
            }
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
            Self::Greater(bound) => value
                .and_then(|v| v.parse::<i64>().ok())
                .is_some_and(|v| v > *bound),
            Self::Less(bound) => value
                .and_then(|v| v.parse::<i64>().ok())
                .is_some_and(|v| v < *bound),
        }
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
        _ => &[],
    };
    fields.contains(&field)
}

/// A field as a selector sees it.
fn field(object: &Value, path: &str) -> String {
    match path {
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
    for term in text.split(',').filter(|term| !term.is_empty()) {
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
            value: value.to_owned(),
            equal,
        });
    }
    Ok(terms)
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, String> {
    let mut requirements = Vec::new();
    for term in split_top(text) {
        let term = term.trim();
        if term.is_empty() {
            if text.trim().is_empty() {
                continue;
            }
            return Err(format!("found '{text}', expected: identifier after ','"));
        }
        let requirement = parse_requirement(term)?;
        if let Some(wrong) = names::qualified(&requirement.key) {
            return Err(format!(
                "key: Invalid value: \"{}\": {wrong}",
                requirement.key
            ));
        }
        if let Test::In(values) | Test::NotIn(values) = &requirement.test {
            for value in values {
                if let Some(wrong) = names::label_value(value) {
                    return Err(format!(
                        "values[0][{}]: Invalid value: \"{value}\": {wrong}",
                        requirement.key
                    ));
                }
            }
        }
        requirements.push(requirement);
    }
    Ok(requirements)
}

/// Splits at commas outside parentheses.
fn split_top(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_requirement(term: &str) -> Result<Requirement, String> {
    let make = |key: &str, test| {
        Ok(Requirement {
            key: key.trim().to_owned(),
            test,
        })
    };
    if let Some(key) = term.strip_prefix('!') {
        return make(key, Test::Absent);
    }
    if let Some((head, list)) = term.split_once('(') {
        let list = list
            .trim_end()
            .strip_suffix(')')
            .ok_or_else(|| format!("found '{term}', expected: ',' or ')'"))?;
        let values = list
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect();
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => make(key, Test::In(values)),
            (Some(key), Some("notin"), None) => make(key, Test::NotIn(values)),
            _ => Err(format!(
                "found '{}', expected: in, notin, =, ==, !=, gt, lt",
                head.trim()
            )),
        };
    }
    for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((key, value)) = term.split_once(operator) {
            if value.contains('=') {
                return Err("found '=', expected: identifier".to_owned());
            }
            let values = vec![value.trim().to_owned()];
            return make(
                key,
                if equal {
                    Test::In(values)
                } else {
                    Test::NotIn(values)
                },
            );
        }
    }
    for (operator, greater) in [('>', true), ('<', false)] {
        if let Some((key, value)) = term.split_once(operator) {
            let bound = value
                .trim()
                .parse()
                .map_err(|_| format!("values[0]: Invalid value: \"{}\": for 'Gt', 'Lt' operators, the value must be an integer", value.trim()))?;
            return make(
                key,
                if greater {
                    Test::Greater(bound)
                } else {
                    Test::Less(bound)
                },
            );
        }
    }
    if let Some(second) = term.split_whitespace().nth(1) {
        return Err(format!(
            "found '{second}', expected: in, notin, =, ==, !=, gt, lt"
        ));
    }
    make(term, Test::Exists)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(selector: &str, labels: &str) -> bool {
        let selector = Selector {
            labels: parse_labels(selector).unwrap(),
            fields: Vec::new(),
        };
        selector.matches(
            "ns/name",
            format!("{{\"metadata\":{{\"labels\":{labels}}}}}").as_bytes(),
        )
    }

    #[test]
    fn labels_are_matched() {
        let labels = r#"{"app":"web","tier":"front","n":"5"}"#;
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app!=web", false),
            ("missing!=web", true),
            ("app in (api, web),tier", true),
            ("app notin (api,web)", false),
            ("!missing", true),
            ("!app", false),
            ("n>4,n<6", true),
            ("example.com/x", false),
        ] {
            assert_eq!(selects(selector, labels), expected, "{selector}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for selector in ["a b", "a in (b", "a=b,,c=d", "a=-", "=b", "a like (b)"] {
            assert!(parse_labels(selector).is_err(), "{selector}");
        }
        assert!(parse_fields("metadata.name").is_err());
    }
}
