//! What may be in a ConfigMap or Secret.

use serde_json::Value;

use crate::object::{at, text};
use crate::status::Cause;

/// Most that a ConfigMap or Secret may hold.
const DATA_BYTES_MAX: usize = 1 << 20;

fn config_key(key: &str) -> Option<&'static str> {
    let good = !key.is_empty()
        && key.len() <= 253
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    (!good || key == "." || key == ".." || key.starts_with("..")).then_some(
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
    )
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
            total += value.as_str().map_or(0, str::len);
        }
    }
    too_long(total, causes);
    immutable(object, old, causes);
}

fn too_long(total: usize, causes: &mut Vec<Cause>) {
    if total > DATA_BYTES_MAX {
        causes.push(Cause {
            field: String::new(),
            reason: "FieldValueTooLong",
            message: format!("Too long: may not be more than {DATA_BYTES_MAX} bytes"),
        });
    }
}

pub(super) fn secret(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    use base64::Engine as _;
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
        let text = value.as_str().unwrap_or("");
        match base64::engine::general_purpose::STANDARD.decode(text) {
            Ok(bytes) => total += bytes.len(),
            Err(_) => causes.push(Cause::invalid(
                format!("data[{key}]"),
                &"<secret contents redacted>".into(),
                "illegal base64 data",
            )),
        }
    }
    too_long(total, causes);
    let needs: &[&str] = match text(object, &["type"]) {
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in needs {
        if at(object, &["data", key]).is_none() {
            causes.push(Cause::required(format!("data[{key}]"), ""));
        }
    }
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
