//! The functions of Go's templates.

use serde_json::Value;

use super::escape::{html_escape, js_escape, query_escape};
use super::format::printf;
use super::value::{compare, is_true, print};

/// Calls a function; the error is Go's without the template's name.
pub(super) fn call(function: &str, arguments: &[Value]) -> Result<Value, String> {
    let few = || format!("wrong number of args for {function}");
    let joined = || arguments.iter().map(print).collect::<String>();
    Ok(match function {
        "index" => index(arguments).ok_or_else(few)?,
        "slice" => slice(arguments, few)?,
        "eq" | "ne" => {
            let equal = equals_any(arguments).ok_or_else(few)?;
            Value::from(equal == (function == "eq"))
        }
        "lt" | "le" | "gt" | "ge" => {
            let [left, right] = arguments else {
                return Err(few());
            };
            let order = compare(left, right).ok_or("incompatible types for comparison")?;
            Value::from(match function {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            })
        }
        "not" => Value::from(!is_true(arguments.first().ok_or_else(few)?)),
        "and" => first_or_last(arguments, |value| !is_true(value)).ok_or_else(few)?,
        "or" => first_or_last(arguments, is_true).ok_or_else(few)?,
        "len" => Value::from(len(arguments.first().ok_or_else(few)?)),
        "print" => Value::from(joined()),
        "println" => {
            let words: Vec<String> = arguments.iter().map(print).collect();
            Value::from(words.join(" ") + "\n")
        }
        "printf" => {
            let (format, values) = arguments.split_first().ok_or_else(few)?;
            Value::from(printf(&print(format), values))
        }
        "js" => Value::from(js_escape(&joined())),
        "html" => Value::from(html_escape(&joined())),
        "urlquery" => Value::from(query_escape(&joined())),
        _ => {
            let quoted = crate::go::quote(function);
            return Err(format!("function {quoted} is not supported"));
        }
    })
}

/// Follows keys and numbers into a map or list.
fn index(arguments: &[Value]) -> Option<Value> {
    let (from, keys) = arguments.split_first()?;
    Some(keys.iter().fold(from.clone(), |at, key| {
        match (&at, key) {
            (Value::Array(items), Value::Number(n)) => n
                .as_u64()
                .and_then(|n| items.get(usize::try_from(n).ok()?))
                .cloned()
                .unwrap_or_default(),
            (at, Value::String(key)) => at.get(key).cloned().unwrap_or_else(|| Value::from("")),
            _ => Value::Null,
        }
    }))
}

fn slice(arguments: &[Value], few: impl Fn() -> String) -> Result<Value, String> {
    let [Value::String(text), bounds @ ..] = arguments else {
        return Err(few());
    };
    let bound = |i: usize, or: usize| {
        bounds
            .get(i)
            .and_then(Value::as_u64)
            .map_or(or, |n| usize::try_from(n).unwrap_or(usize::MAX))
    };
    let slice = text.get(bound(0, 0)..bound(1, text.len()));
    Ok(Value::from(slice.ok_or("slice: index out of range")?))
}

/// Returns whether the first argument equals any of the others.
fn equals_any(arguments: &[Value]) -> Option<bool> {
    let (first, rest) = arguments.split_first()?;
    (!rest.is_empty()).then(|| rest.iter().any(|other| print(other) == print(first)))
}

fn first_or_last(arguments: &[Value], test: impl Fn(&Value) -> bool) -> Option<Value> {
    arguments
        .iter()
        .find(|value| test(value))
        .or(arguments.last())
        .cloned()
}

fn len(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    }
}
