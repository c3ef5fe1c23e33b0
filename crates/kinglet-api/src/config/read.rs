//! Reading single keys of a ConfigMap, with Knative's words for what does not parse.

use crate::go::{self, GoDuration};
use kinglet_quantity::Quantity;

use super::Data;

/// The first of several names of a key that is present, trimmed.
pub(super) fn text<'a>(data: &'a Data, keys: &[&str]) -> Option<&'a str> {
    keys.iter()
        .find_map(|key| data.get(*key))
        .map(|value| value.trim())
}

fn parsed<T>(
    data: &Data,
    keys: &[&str],
    or: T,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<T, String> {
    for key in keys {
        if let Some(value) = data.get(*key) {
            return parse(value.trim())
                .map_err(|error| format!("failed to parse {}: {error}", go::quote(key)));
        }
    }
    Ok(or)
}

pub(super) fn int(data: &Data, keys: &[&str], bits: u32, or: i64) -> Result<i64, String> {
    parsed(data, keys, or, |text| go::parse_int(text, bits))
}

pub(super) fn uint(data: &Data, keys: &[&str], bits: u32, or: u64) -> Result<u64, String> {
    parsed(data, keys, or, |text| go::parse_uint(text, bits))
}

pub(super) fn float(data: &Data, keys: &[&str], or: f64) -> Result<f64, String> {
    parsed(data, keys, or, go::parse_float)
}

pub(super) fn boolean(data: &Data, keys: &[&str], or: bool) -> Result<bool, String> {
    parsed(data, keys, or, go::parse_bool)
}

pub(super) fn duration(data: &Data, keys: &[&str], or: GoDuration) -> Result<GoDuration, String> {
    parsed(data, keys, or, GoDuration::parse)
}

pub(super) fn quantity(data: &Data, keys: &[&str]) -> Result<Option<Quantity>, String> {
    parsed(data, keys, None, |text| {
        if text.is_empty() {
            Ok(None)
        } else {
            Quantity::parse(text).map(Some).map_err(str::to_owned)
        }
    })
}

/// A YAML value, as JSON.
pub(super) fn yaml(text: &str) -> Result<serde_json::Value, String> {
    crate::yaml::document(text).map_err(|error| {
        // The one mistake that upstream's parser words in a way worth keeping; others carry our parser's position.
        let unclosed = text.trim_end().ends_with(['[', '{', ',']);
        let line = text.trim_end().lines().count().max(1);
        if unclosed {
            format!("error converting YAML to JSON: yaml: line {line}: did not find expected node content")
        } else {
            let error = error.to_string();
            format!("error converting YAML to JSON: {}", error.lines().next().unwrap_or_default())
        }
    })
}
