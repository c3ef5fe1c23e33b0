//! What may be in a ConfigMap or Secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::object::{at, text};
use crate::status::Cause;

/// Most that a ConfigMap or Secret may hold.
const DATA_BYTES_MAX: usize = 1 << 20;
const KEY_BYTES_MAX: usize = 253;
const NOT_A_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// What is wrong with a key of a ConfigMap or Secret.
pub(super) fn config_key(key: &str) -> Option<&'static str> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    match key {
        _ if key.len() > KEY_BYTES_MAX => Some("must be no more than 253 characters"),
        _ if key.is_empty() || !key.bytes().all(fits) => Some(NOT_A_KEY),
        "." => Some("must not be '.'"),
        ".." => Some("must not be '..'"),
        _ if key.starts_with("..") => Some("must not start with '..'"),
        _ => None,
    }
}

fn immutable(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let Some(old) = old.filter(|old| old["immutable"] == true) else {
        return;
    };
    if object["immutable"] != true {
        causes.push(Cause::forbidden(
            "immutable",
            "field is immutable when `immutable` is set",
        ));
    }
    for field in ["data", "binaryData"] {
        if object.get(field) != old.get(field) {
            causes.push(Cause::forbidden(
                field,
                "field is immutable when `immutable` is set",
            ));
        }
    }
}

pub(super) fn config_map(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let mut total = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in object
            .get(field)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            if let Some(wrong) = config_key(key) {
                causes.push(Cause::invalid(
                    format!("{field}[{key}]"),
                    &key.as_str().into(),
                    wrong,
                ));
            }
            if field == "binaryData" && at(object, &["data", key]).is_some() {
                causes.push(Cause::invalid(
                    format!("data[{key}]"),
                    &key.as_str().into(),
                    "duplicate of key present in binaryData",
                ));
            }
            total += value.as_str().map_or(0, str::len);
        }
    }
    too_long(total, "[]", causes);
    immutable(object, old, causes);
}

fn too_long(total: usize, field: &str, causes: &mut Vec<Cause>) {
    if total > DATA_BYTES_MAX {
        causes.push(Cause {
            field: field.to_owned(),
            reason: "FieldValueTooLong",
            message: format!("Too long: may not be more than {DATA_BYTES_MAX} bytes"),
        });
    }
}

pub(super) fn secret(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let mut total = 0;
    for (key, value) in object
        .get("data")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        if let Some(wrong) = config_key(key) {
            causes.push(Cause::invalid(
                format!("data[{key}]"),
                &key.as_str().into(),
                wrong,
            ));
        }
        match STANDARD.decode(value.as_str().unwrap_or("")) {
            Ok(bytes) => total += bytes.len(),
            Err(_) => causes.push(redacted(key, "illegal base64 data")),
        }
    }
    too_long(total, "data", causes);
    of_type(object, causes);
    if let Some(old) = old
        && object["type"] != old["type"]
    {
        causes.push(Cause::invalid(
            "type",
            &object["type"],
            "field is immutable",
        ));
    }
    immutable(object, old, causes);
}

fn redacted(key: &str, wrong: &str) -> Cause {
    Cause::invalid(
        format!("data[{key}]"),
        &"<secret contents redacted>".into(),
        wrong,
    )
}

/// The keys that a type of Secret must have.
fn of_type(object: &Value, causes: &mut Vec<Cause>) {
    let data = |key: &str| at(object, &["data", key]).and_then(Value::as_str);
    let needs: &[&str] = match text(object, &["type"]) {
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        // One of the two is enough.
        "kubernetes.io/basic-auth" if data("username").or(data("password")).is_none() => {
            &["username", "password"]
        }
        _ => &[],
    };
    for key in needs {
        let may_be_empty = key.starts_with("tls.");
        if data(key).is_none_or(|value| value.is_empty() && !may_be_empty) {
            causes.push(Cause::required(format!("data[{key}]"), ""));
        } else if key.starts_with(".docker")
            && let Some(Ok(bytes)) = data(key).map(|text| STANDARD.decode(text))
            && let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes)
        {
            causes.push(redacted(key, &format!("is no JSON object: {error}")));
        }
    }
}
