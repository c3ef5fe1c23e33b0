//! What Kinglet does about each field of Kubernetes' built-in kinds: acts on it, refuses it in words, or ignores it with a warning.
//!
//! Flow: `fields/support.txt` -> parsed here at first use -> read by admission, by the rules for Knative's pod templates, and by docs/fields.md.
//! Always: every field that a client can write has a row (a test walks all of them), so that none is dropped in silence.

mod page;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use crate::fields::{Field, Struct, Type, table};
use crate::status::Cause;

pub use page::page;

static SUPPORT: LazyLock<Support> =
    LazyLock::new(|| Support::parse(include_str!("fields/support.txt")));

/// What is done about a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// Acted on, or kept for clients to read.
    Acted,
    /// Written by the server.
    Output,
    /// Accepted with a warning.
    Ignored,
    /// Refused, unless the value is absent, zero or an allowed one.
    Refused,
}

#[derive(Debug)]
struct Row {
    treatment: Treatment,
    /// The row speaks for everything below the field, too.
    whole: bool,
    allowed: Vec<&'static str>,
    words: &'static str,
}

#[derive(Debug, Default)]
struct Support {
    /// Names of structs in the order of the file, each with its fields in that order.
    order: Vec<(&'static str, Vec<&'static str>)>,
    rows: HashMap<(&'static str, &'static str), Row>,
}

impl Support {
    fn parse(text: &'static str) -> Self {
        let mut support = Self::default();
        for line in text.lines() {
            let Some((mark, rest)) = line
                .split_at_checked(1)
                .filter(|(mark, _)| matches!(*mark, "@" | "+" | "<" | "~" | "-"))
            else {
                continue;
            };
            if mark == "@" {
                support.order.push((rest, Vec::new()));
                continue;
            }
            let treatment = match mark {
                "+" => Treatment::Acted,
                "<" => Treatment::Output,
                "~" => Treatment::Ignored,
                _ => Treatment::Refused,
            };
            let (names, words) = rest.split_once('|').unwrap_or((rest, ""));
            let (names, allowed) = names.split_once('=').unwrap_or((names, ""));
            for name in names.split_whitespace() {
                let Some((of, fields)) = support.order.last_mut() else {
                    continue;
                };
                let plain = name.trim_end_matches('*');
                fields.push(plain);
                let row = Row {
                    treatment,
                    whole: plain.len() != name.len(),
                    allowed: allowed.split_whitespace().collect(),
                    words: words.trim(),
                };
                support.rows.insert((*of, plain), row);
            }
        }
        support
    }
}

/// What the fields of an object that clients may set lead to.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) refused: Vec<Cause>,
    pub(crate) warnings: Vec<String>,
}

/// Looks at all fields of a built-in kind's object.
pub(crate) fn check(group: &str, version: &str, kind: &str, object: &Value) -> Findings {
    let mut findings = Findings::default();
    if let Some(of) = table().kind(group, version, kind) {
        findings.of_struct(of, object, &mut String::new());
    }
    findings
}

/// Looks at a pod specification inside another object, such as a Knative Service; `path` is where it lies. Answers what is refused, and what
/// clients are warned of.
pub fn check_pod_spec(spec: &Value, path: &str) -> (Vec<Cause>, Vec<String>) {
    let mut findings = Findings::default();
    if let Some(of) = table().named_struct("core/v1.PodSpec") {
        findings.of_struct(of, spec, &mut path.to_owned());
    }
    (findings.refused, findings.warnings)
}

/// Has the table a row for this property of an OpenAPI definition? `None` where the definition is not one of the table's.
pub fn knows(definition: &str, property: &str) -> Option<bool> {
    let of = table().openapi_struct(definition)?;
    SUPPORT
        .order
        .iter()
        .any(|(id, _)| *id == of.id)
        .then(|| SUPPORT.rows.contains_key(&(of.id, property)))
}

impl Findings {
    fn of_struct(&mut self, of: &'static Struct, value: &Value, path: &mut String) {
        for (key, value) in value.as_object().into_iter().flatten() {
            let Some(field) = table().field(of, key).filter(|_| !is_zero(value)) else {
                continue;
            };
            let Some(row) = SUPPORT.rows.get(&(of.id, field.name)) else {
                continue;
            };
            let length = path.len();
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(key);
            self.of_field(field, row, value, path);
            path.truncate(length);
        }
    }

    fn of_field(&mut self, field: &'static Field, row: &Row, value: &Value, path: &mut String) {
        match row.treatment {
            Treatment::Output => {}
            Treatment::Ignored => self
                .warnings
                .push(format!("{path}: ignored by Kinglet: {}", row.words)),
            Treatment::Refused if !is_allowed(value, &row.allowed) => self
                .refused
                .push(Cause::forbidden(path.as_str(), &refusal(row))),
            Treatment::Refused => {}
            Treatment::Acted if row.whole => {}
            Treatment::Acted => self.below(field.kind, value, path),
        }
    }

    fn below(&mut self, kind: Type, value: &Value, path: &mut String) {
        let length = path.len();
        match (table().plain(kind), value) {
            (Type::Struct(_), _) => {
                if let Some(of) = table().structure(kind) {
                    self.of_struct(of, value, path);
                }
            }
            (Type::List(at), Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    path.push_str(&format!("[{index}]"));
                    self.below(table().element(at), item, path);
                    path.truncate(length);
                }
            }
            _ => {}
        }
    }
}

fn refusal(row: &Row) -> String {
    let words = row.words;
    match row.allowed.as_slice() {
        [] => format!("not supported by Kinglet: {words}"),
        allowed => format!(
            "only {} is supported by Kinglet: {words}",
            allowed.join(" or ")
        ),
    }
}

/// Go's zero values say nothing.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn is_allowed(value: &Value, allowed: &[&str]) -> bool {
    match value {
        Value::String(text) => allowed.contains(&text.as_str()),
        Value::Array(items) => items.iter().all(|item| is_allowed(item, allowed)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    }
}
