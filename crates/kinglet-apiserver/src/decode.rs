//! From a request body to an object: media types, strictness, kind.

use bytes::Bytes;
use serde_json::Value;

use crate::body;
use crate::dispatch::Call;
use crate::object::{self, text};
use crate::status::Status;

const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// What to do about fields that are unknown or there twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    Ignore,
    Warn,
    Strict,
}

pub(crate) fn strictness(call: &Call<'_>) -> Result<Strictness, Status> {
    match call.query.get("fieldValidation") {
        "Ignore" => Ok(Strictness::Ignore),
        // Our own controllers read no warnings.
        "" if call.in_process() => Ok(Strictness::Ignore),
        "" | "Warn" => Ok(Strictness::Warn),
        "Strict" => Ok(Strictness::Strict),
        other => Err(Status::bad_request(format!(
            "fieldValidation: Unsupported value: \"{other}\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
        ))),
    }
}

/// Reads the body as an object of any kind.
pub(crate) fn value(call: &mut Call<'_>) -> Result<Value, Status> {
    let media = call.content_type.split(';').next().unwrap_or("").trim().to_owned();
    match media.as_str() {
        "" | "application/json" | "application/yaml" | "application/x-yaml" => {
            let strictness = strictness(call)?;
            let (value, duplicates) = parse(&call.body, strictness)?;
            note(call, strictness, duplicates)?;
            Ok(value)
        }
        "application/vnd.kubernetes.protobuf" => {
            if call.kind.builtin.is_none() {
                return Err(Status::unsupported_media_type("application/json, application/yaml"));
            }
            crate::protobuf::decode(&call.body).map_err(|error| Status::bad_request(format!("decoding the protobuf body: {error}")))
        }
        _ => Err(Status::unsupported_media_type(ACCEPTED)),
    }
}

/// Reads JSON, or YAML if it is not; with the paths of keys that are there twice.
pub(crate) fn parse(bytes: &Bytes, strictness: Strictness) -> Result<(Value, Vec<String>), Status> {
    if bytes.is_empty() {
        return Err(Status::bad_request("the request body is empty: an object was expected"));
    }
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'{') {
        match serde_json::from_slice::<Value>(bytes) {
            Ok(value) => {
                let duplicates =
                    if strictness == Strictness::Ignore { Vec::new() } else { crate::duplicates::find(bytes) };
                return Ok((value, duplicates));
            }
            Err(error) => {
                // Flow-style YAML may begin like JSON; if it is neither, the JSON error says more.
                return yaml(bytes).map_err(|_| {
                    Status::bad_request(format!("couldn't get version/kind; json parse error: {error}"))
                });
            }
        }
    }
    yaml(bytes)
}

fn yaml(bytes: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let text = std::str::from_utf8(bytes).map_err(|_| Status::bad_request("the request body is not UTF-8"))?;
    match serde_saphyr::from_str::<Value>(text) {
        Ok(value @ Value::Object(_)) => Ok((value, Vec::new())),
        Ok(_) => Err(Status::bad_request("couldn't get version/kind; the body is not an object")),
        Err(error) => Err(Status::bad_request(format!("error converting YAML to JSON: {error}"))),
    }
}

/// Warns of, or refuses, what strict decoding found.
pub(crate) fn note(call: &mut Call<'_>, strictness: Strictness, found: Vec<String>) -> Result<(), Status> {
    match strictness {
        Strictness::Ignore => Ok(()),
        Strictness::Warn => {
            call.warnings.extend(found);
            Ok(())
        }
        Strictness::Strict if found.is_empty() => Ok(()),
        Strictness::Strict => {
            let kind = &call.kind;
            let list = found.join(", ");
            Err(Status::bad_request(if kind.builtin.is_some() {
                format!("{} in version \"{}\" cannot be handled as a {}: strict decoding error: {list}", kind.kind, kind.version, kind.kind)
            } else {
                format!("{} in version \"{}\" cannot be handled as a {}: strict decoding error: {list}", kind.kind, kind.version, kind.kind)
            }))
        }
    }
}

/// Is it the kind that the path speaks of? Fills in what typed clients leave out.
pub(crate) fn check_kind(call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    if !object.is_object() {
        return Err(Status::bad_request("the body is not an object"));
    }
    let kind = &call.kind;
    let expected = kind.api_version();
    let (version, name) = (text(object, &["apiVersion"]).to_owned(), text(object, &["kind"]).to_owned());
    if (!version.is_empty() && version != expected) || (!name.is_empty() && name != kind.kind) {
        let (group_version, given) = (if version.is_empty() { expected.clone() } else { version }, name);
        return Err(Status::bad_request(if given == kind.kind {
            format!("the API version in the data ({group_version}) does not match the expected API version ({expected})")
        } else if kind.builtin.is_some() {
            let (_, short) = group_version.rsplit_once('/').unwrap_or(("", &group_version));
            format!("{given} in version \"{short}\" cannot be handled as a {}: converting ({group_version}.{given}) to ({expected}.{}): unknown conversion", kind.kind, kind.kind)
        } else {
            format!("the kind in the data ({given}) does not match the expected kind ({expected}, Kind={})", kind.kind)
        }));
    }
    let fields = object::fields(object);
    fields.insert("apiVersion".to_owned(), expected.into());
    fields.insert("kind".to_owned(), kind.kind.clone().into());
    if let Some(metadata) = fields.get("metadata")
        && !metadata.is_object()
        && !metadata.is_null()
    {
        return Err(Status::bad_request("metadata: Invalid value: must be an object"));
    }
    let metadata = object::meta(object);
    // Typed clients of Go send their zero values.
    metadata.retain(|_, value| !value.is_null());
    for (key, is_right) in [
        ("name", Value::is_string as fn(&Value) -> bool),
        ("generateName", Value::is_string),
        ("namespace", Value::is_string),
        ("uid", Value::is_string),
        ("resourceVersion", Value::is_string),
        ("labels", is_texts),
        ("annotations", is_texts),
        ("finalizers", Value::is_array),
        ("ownerReferences", Value::is_array),
    ] {
        if metadata.get(key).is_some_and(|value| !is_right(value)) {
            let what = if is_right(&Value::String(String::new())) { "a string" } else if key.ends_with('s') && (key == "labels" || key == "annotations") { "a map of strings" } else { "a list" };
            return Err(Status::bad_request(format!(
                "{} in version \"{}\" cannot be handled as a {}: metadata.{key}: must be {what}",
                kind.kind, kind.version, kind.kind
            )));
        }
    }
    Ok(())
}

fn is_texts(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| fields.values().all(Value::is_string))
}

/// Namespace and name of path and object must agree; fills in the namespace.
pub(crate) fn check_place(call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    let metadata = object::meta(object);
    let given = metadata.get("namespace").and_then(Value::as_str).unwrap_or("");
    if call.kind.namespaced {
        if !given.is_empty() && given != call.place.namespace {
            return Err(Status::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
        }
        metadata.insert("namespace".to_owned(), call.place.namespace.clone().into());
    } else {
        metadata.remove("namespace");
    }
    let name = metadata.get("name").and_then(Value::as_str).unwrap_or("");
    if !call.place.name.is_empty() {
        if name.is_empty() {
            metadata.insert("name".to_owned(), call.place.name.clone().into());
        } else if name != call.place.name {
            return Err(Status::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                call.place.name
            )));
        }
    }
    Ok(())
}

/// An answer with the stored form.
pub(crate) fn answer(call: &Call<'_>, code: u16, stored: &Bytes) -> body::Answer {
    body::json_bytes(code, crate::present::convert(&call.kind, stored))
}
