//! Checks of a value beyond its type: length, range, pattern, and schemas combined with allOf, anyOf, oneOf and not.

use serde_json::{Number, Value, json};

use super::FieldError;
use super::formats::Format;
use super::node::{Limits, Node};
use super::validate::walk;

/// A value under check.
struct Check<'a> {
    path: &'a str,
    value: &'a Value,
    found: &'a mut Vec<FieldError>,
}

/// Checks a value against the limits of its place.
pub(super) fn check_limits(
    limits: &Limits,
    value: &Value,
    path: &str,
    found: &mut Vec<FieldError>,
) {
    let mut check = Check { path, value, found };
    match value {
        Value::String(text) => check.text(limits, text),
        Value::Number(number) => check.number(limits, number),
        Value::Array(items) => check.items(limits, items),
        Value::Object(fields) => check.fields(limits, fields.len()),
        Value::Null | Value::Bool(_) => {}
    }
    if !limits.allowed.is_empty() && !limits.allowed.contains(value) {
        let plain = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let allowed: Vec<String> = limits.allowed.iter().map(plain).collect();
        found.push(FieldError::unsupported(
            path,
            value,
            &allowed.iter().map(String::as_str).collect::<Vec<_>>(),
        ));
    }
    check_combined(limits, value, path, found);
}

impl Check<'_> {
    fn invalid(&mut self, detail: &str) {
        let message = format!("{} in body {detail}", self.path);
        self.found
            .push(FieldError::invalid(self.path, self.value, &message));
    }

    fn too_many(&mut self, max: Option<u64>, length: u64) {
        if let Some(max) = max.filter(|max| length > *max) {
            let unit = if max == 1 { "item" } else { "items" };
            let message = format!("Too many: {length}: must have at most {max} {unit}");
            self.found.push(FieldError {
                field: self.path.to_owned(),
                reason: "FieldValueTooMany",
                message,
            });
        }
    }

    /// Checks length, pattern and format.
    fn text(&mut self, limits: &Limits, text: &str) {
        let length = text.chars().count() as u64;
        if let Some(min) = limits.min_length.filter(|min| length < *min) {
            self.invalid(&format!("should be at least {min} chars long"));
        }
        if let Some(pattern) = limits
            .pattern
            .as_ref()
            .filter(|pattern| !pattern.is_match(text))
        {
            self.invalid(&format!("should match '{pattern}'"));
        }
        if let Some(format) = limits.format.filter(|format| !format.fits(text)) {
            let message = format!(
                "{} in body must be of type {}: {}",
                self.path,
                format.name(),
                self.value
            );
            self.found.push(FieldError {
                reason: "FieldValueTypeInvalid",
                ..FieldError::invalid(self.path, self.value, &message)
            });
        }
        if let Some(max) = limits.max_length.filter(|max| length > *max) {
            let unit = if max == 1 { "byte" } else { "bytes" };
            let message = format!("Too long: may not be more than {max} {unit}");
            self.found.push(FieldError {
                field: self.path.to_owned(),
                reason: "FieldValueTooLong",
                message,
            });
        }
    }

    /// Checks range, steps and width.
    fn number(&mut self, limits: &Limits, number: &Number) {
        let number = number.as_f64().unwrap_or(0.0);
        match limits.minimum {
            Some((min, true)) if number <= min => {
                self.invalid(&format!("should be greater than {min}"))
            }
            Some((min, false)) if number < min => {
                self.invalid(&format!("should be greater than or equal to {min}"))
            }
            _ => {}
        }
        match limits.maximum {
            Some((max, true)) if number >= max => {
                self.invalid(&format!("should be less than {max}"))
            }
            Some((max, false)) if number > max => {
                self.invalid(&format!("should be less than or equal to {max}"))
            }
            _ => {}
        }
        if let Some(step) = limits
            .multiple_of
            .filter(|step| *step > 0.0 && (number / step).fract() != 0.0)
        {
            self.invalid(&format!("should be a multiple of {step}"));
        }
        if limits.format == Some(Format::Int32)
            && (number > f64::from(i32::MAX) || number < f64::from(i32::MIN))
        {
            self.invalid(&format!("must be of type int32: {}", self.value));
        }
    }

    /// Checks how many items there are and whether one occurs twice.
    fn items(&mut self, limits: &Limits, items: &[Value]) {
        let length = items.len() as u64;
        if let Some(min) = limits.min_items.filter(|min| length < *min) {
            self.invalid(&format!("should have at least {min} items"));
        }
        if limits.unique
            && items
                .iter()
                .enumerate()
                .any(|(at, item)| items[..at].contains(item))
        {
            self.invalid("shouldn't contain duplicates");
        }
        self.too_many(limits.max_items, length);
    }

    /// Checks how many fields there are.
    fn fields(&mut self, limits: &Limits, count: usize) {
        let length = count as u64;
        if let Some(min) = limits.min_properties.filter(|min| length < *min) {
            self.invalid(&format!("should have at least {min} properties"));
        }
        self.too_many(limits.max_properties, length);
    }
}

/// Checks allOf, anyOf, oneOf and not. The real server names no field in these errors.
fn check_combined(limits: &Limits, value: &Value, path: &str, found: &mut Vec<FieldError>) {
    let errors = |node: &Node| {
        let mut errors = Vec::new();
        walk(node, value, false, path, &mut errors);
        errors
    };
    let said = |detail: String| FieldError {
        field: "<nil>".to_owned(),
        ..FieldError::invalid("", &json!(""), &detail)
    };
    let mut combined = Vec::new();
    for node in &limits.all_of {
        let inner = errors(node);
        if !inner.is_empty() {
            combined.push(said(format!(
                "\"{path}\" must validate all the schemas (allOf)"
            )));
            combined.extend(inner);
        }
    }
    if !limits.any_of.is_empty() {
        let each: Vec<_> = limits.any_of.iter().map(errors).collect();
        if each.iter().all(|inner| !inner.is_empty()) {
            combined.push(said(format!(
                "\"{path}\" must validate at least one schema (anyOf)"
            )));
            combined.extend(each.into_iter().min_by_key(Vec::len).unwrap_or_default());
        }
    }
    if !limits.one_of.is_empty() {
        let valid = limits
            .one_of
            .iter()
            .filter(|node| errors(node).is_empty())
            .count();
        if valid != 1 {
            let how = if valid == 0 {
                "Found none valid".to_owned()
            } else {
                format!("Found {valid} valid alternatives")
            };
            combined.push(said(format!(
                "\"{path}\" must validate one and only one schema (oneOf). {how}"
            )));
        }
    }
    if limits
        .not
        .as_deref()
        .is_some_and(|node| errors(node).is_empty())
    {
        combined.push(said(format!(
            "\"{path}\" must not validate the schema (not)"
        )));
    }
    found.extend(combined);
}
