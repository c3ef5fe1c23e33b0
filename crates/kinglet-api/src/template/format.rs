//! Go's `Sprintf`.

use serde_json::Value;

use super::value::print;

/// Go's `Sprintf` with the verbs that logs use: `%s %v %d %q %f %t %x %%`, width, precision, `-` and `0`. Another verb, and a
/// value that is missing or left over, come out in Go's words.
pub(super) fn printf(format: &str, values: &[Value]) -> String {
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let flags_end = rest
            .find(|c: char| !matches!(c, '0'..='9' | '.' | '-' | '+' | '#' | ' '))
            .unwrap_or(rest.len());
        let (flags, after) = rest.split_at(flags_end);
        let Some(verb) = after.chars().next() else {
            out.push_str("%!(NOVERB)");
            return out;
        };
        rest = &after[verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        match values.next() {
            Some(value) => out.push_str(&verb_of(verb, flags, value)),
            None => out.push_str(&format!("%!{verb}(MISSING)")),
        }
    }
    out.push_str(rest);
    for value in values {
        out.push_str(&format!("%!(EXTRA {})", print(value)));
    }
    out
}

fn verb_of(verb: char, flags: &str, value: &Value) -> String {
    /// Greatest width. It comes from a ConfigMap and must not ask for gigabytes; no line of a log needs more.
    const WIDTH_MAX: usize = 1024;
    let numbers = flags.trim_start_matches(['-', '+', '#', ' ', '0']);
    let (width, precision) = match numbers.split_once('.') {
        Some((width, precision)) => (width, Some(precision.parse::<usize>().unwrap_or(0))),
        None => (numbers, None),
    };
    let width = width.parse::<usize>().unwrap_or(0).min(WIDTH_MAX);
    let precision = precision.map(|precision| precision.min(WIDTH_MAX));
    let text = match (verb, value) {
        ('q', value) => crate::go::quote(&print(value)),
        ('x', Value::Number(number)) => number
            .as_i64()
            .map_or_else(|| print(value), |number| format!("{number:x}")),
        ('f', Value::Number(number)) => {
            let number = number.as_f64().unwrap_or(0.0);
            format!("{number:.0$}", precision.unwrap_or(6))
        }
        ('s' | 'v', Value::String(text)) => match precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text.clone(),
        },
        ('d', Value::Number(_)) | ('t', Value::Bool(_)) | ('s' | 'v', _) => print(value),
        _ => format!("%!{verb}({})", print(value)),
    };
    if flags.starts_with('-') {
        format!("{text:<width$}")
    } else if flags.starts_with('0') && matches!(verb, 'd' | 'f' | 'x') {
        format!("{text:0>width$}")
    } else {
        format!("{text:>width$}")
    }
}
