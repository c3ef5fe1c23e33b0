//! From a request body to an object: media types, strictness, kind.

use bytes::Bytes;
use serde_json::Value;

use crate::body;
use crate::context::{RequestContext, options_kind};
use crate::kinds::Kind;
use crate::object::{self, text};
use crate::status::{Cause, Status};

const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// What to do about fields that are unknown or there twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    Ignore,
    Warn,
    Strict,
}

pub(crate) fn strictness(context: &RequestContext<'_>) -> Result<Strictness, Status> {
    match context.query.get("fieldValidation") {
        "Ignore" => Ok(Strictness::Ignore),
        // Our own controllers read no warnings.
        "" if context.in_process() => Ok(Strictness::Ignore),
        "" | "Warn" => Ok(Strictness::Warn),
        "Strict" => Ok(Strictness::Strict),
        other => {
            let cause = Cause::unsupported(
                "fieldValidation",
                &other.into(),
                &["", "Ignore", "Strict", "Warn"],
            );
            Err(Status::invalid(
                "meta.k8s.io",
                options_kind(context.verb),
                "",
                &[cause],
            ))
        }
    }
}

/// Reads the body as an object of any kind.
pub(crate) fn value(context: &mut RequestContext<'_>) -> Result<Value, Status> {
    let media = context
        .content_type
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .to_owned();
    match media.as_str() {
        "" | "application/json" | "application/yaml" | "application/x-yaml" => {
            let strictness = strictness(context)?;
            let (value, duplicates) = parse(&context.body, strictness)
                .map_err(|detail| unrecognized(context, &detail))?;
            context.found = duplicates;
            Ok(value)
        }
        "application/vnd.kubernetes.protobuf" => {
            if context.kind.builtin.is_none() {
                return Err(Status::unsupported_media_type(
                    "application/json, application/yaml",
                ));
            }
            crate::protobuf::decode(&context.body).map_err(|error| {
                Status::bad_request(format!("decoding the protobuf body: {error}"))
            })
        }
        _ => Err(Status::unsupported_media_type(ACCEPTED)),
    }
}

/// Reads JSON, or YAML if it is not; with the paths of keys that are there twice.
pub(crate) fn parse(bytes: &Bytes, strictness: Strictness) -> Result<(Value, Vec<String>), Status> {
    if bytes.is_empty() {
        return Err(Status::bad_request(
            "couldn't get version/kind; json parse error: unexpected end of JSON input",
        ));
    }
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'{') {
        match serde_json::from_slice::<Value>(bytes) {
            Ok(value) => {
                let duplicates = if strictness == Strictness::Ignore {
                    Vec::new()
                } else {
                    crate::duplicates::find(bytes)
                };
                return Ok((value, duplicates));
            }
            Err(error) => {
                // Flow-style YAML may begin like JSON; if it is neither, the JSON error says more.
                return yaml(bytes).map_err(|_| {
                    Status::bad_request(format!(
                        "couldn't get version/kind; json parse error: {error}"
                    ))
                });
            }
        }
    }
    yaml(bytes)
}

fn yaml(bytes: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Status::bad_request("the request body is not UTF-8"))?;
    match serde_saphyr::from_str::<Value>(text) {
        Ok(value @ Value::Object(_)) => Ok((value, Vec::new())),
        Ok(_) => Err(Status::bad_request(
            "couldn't get version/kind; the body is not an object",
        )),
        Err(error) => Err(Status::bad_request(format!(
            "error converting YAML to JSON: {error}"
        ))),
    }
}

fn unrecognized(context: &RequestContext<'_>, detail: &Status) -> Status {
    const SHOWN_MAX: usize = 40;
    let body = String::from_utf8_lossy(&context.body);
    let shown: String = if body.is_empty() {
        "<empty>".to_owned()
    } else {
        body.chars().take(SHOWN_MAX).collect()
    };
    let more = if body.chars().count() > SHOWN_MAX {
        " ..."
    } else {
        ""
    };
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {} ({shown}{more})",
        context.kind.kind, detail.message
    ))
}

/// Warns of, or refuses, what strict decoding has found by now.
pub(crate) fn settle(context: &mut RequestContext<'_>, unknown: Vec<String>) -> Result<(), Status> {
    let mut found = std::mem::take(&mut context.found);
    found.extend(unknown);
    let strictness = strictness(context)?;
    note(context, strictness, found)
}

/// Warns of, or refuses, what strict decoding found.
fn note(
    context: &mut RequestContext<'_>,
    strictness: Strictness,
    found: Vec<String>,
) -> Result<(), Status> {
    match strictness {
        Strictness::Ignore => Ok(()),
        Strictness::Warn => {
            context.warnings.extend(found);
            Ok(())
        }
        Strictness::Strict if found.is_empty() => Ok(()),
        Strictness::Strict => {
            let kind = &context.kind;
            let list = found.join(", ");
            let (name, version) = (&kind.kind, &kind.version);
            Err(Status::bad_request(format!(
                "{name} in version \"{version}\" cannot be handled as a {name}: strict decoding error: {list}"
            )))
        }
    }
}

/// Is it the kind that the path speaks of? Fills in what typed clients leave out.
pub(crate) fn check_kind(context: &RequestContext<'_>, object: &mut Value) -> Result<(), Status> {
    if !object.is_object() {
        return Err(Status::bad_request("the body is not an object"));
    }
    let kind = &context.kind;
    let expected = kind.api_version();
    let (version, name) = (
        text(object, &["apiVersion"]).to_owned(),
        text(object, &["kind"]).to_owned(),
    );
    if kind.builtin.is_none() && !context.in_process() && (version.is_empty() || name.is_empty()) {
        let missing = if name.is_empty() {
            "Kind"
        } else {
            "apiVersion"
        };
        let detail = Status::bad_request(format!(
            "Object '{missing}' is missing in '{}'",
            String::from_utf8_lossy(&context.body)
        ));
        return Err(unrecognized(context, &detail));
    }
    if (!version.is_empty() && version != expected) || (!name.is_empty() && name != kind.kind) {
        return Err(another_kind(kind, object, &version, &name));
    }
    let fields = object::fields(object);
    fields.insert("apiVersion".to_owned(), expected.into());
    fields.insert("kind".to_owned(), kind.kind.clone().into());
    if let Some(metadata) = fields.get("metadata")
        && !metadata.is_object()
        && !metadata.is_null()
    {
        return Err(Status::bad_request(
            "metadata: Invalid value: must be an object",
        ));
    }
    check_metadata_types(kind, object)
}

/// The words for an object of another kind than the path's.
fn another_kind(kind: &Kind, object: &Value, version: &str, given: &str) -> Status {
    let expected = kind.api_version();
    let version = if version.is_empty() {
        &expected
    } else {
        version
    };
    let (_, short) = version.rsplit_once('/').unwrap_or(("", version));
    if kind.builtin.is_some() {
        let home = if kind.group.is_empty() {
            "core"
        } else {
            kind.group.split('.').next().unwrap_or("")
        };
        let detail = if version == expected {
            format!(
                "converting ({short}.{given}) to ({home}.{}): unknown conversion",
                kind.kind
            )
        } else {
            format!(
                "no kind \"{given}\" is registered for version \"{version}\" in scheme \"pkg/runtime/scheme.go:110\""
            )
        };
        return Status::bad_request(format!(
            "{given} in version \"{short}\" cannot be handled as a {}: {detail}",
            kind.kind
        ));
    }
    if version != expected {
        return Status::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        ));
    }
    let cause = Cause::invalid("kind", &given.into(), &format!("must be {}", kind.kind));
    Status::invalid(&kind.group, given, object::name(object), &[cause])
}

/// The types of the metadata that everybody reads.
fn check_metadata_types(kind: &Kind, object: &mut Value) -> Result<(), Status> {
    let metadata = object::meta(object);
    // Typed clients of Go send their zero values.
    metadata.retain(|_, value| !value.is_null());
    for (key, is_right, go) in [
        ("name", Value::is_string as fn(&Value) -> bool, "string"),
        ("generateName", Value::is_string, "string"),
        ("namespace", Value::is_string, "string"),
        ("uid", Value::is_string, "types.UID"),
        ("resourceVersion", Value::is_string, "string"),
        ("labels", Value::is_object, "map[string]string"),
        ("annotations", Value::is_object, "map[string]string"),
        ("finalizers", Value::is_array, "[]string"),
        ("ownerReferences", Value::is_array, "[]v1.OwnerReference"),
    ] {
        let Some(value) = metadata.get(key) else {
            continue;
        };
        let wrong = match value {
            value if !is_right(value) => Some((value, go)),
            Value::Object(fields) => fields
                .values()
                .find(|value| !value.is_string())
                .map(|value| (value, "string")),
            _ => None,
        };
        if let Some((value, go)) = wrong {
            let (name, version) = (&kind.kind, &kind.version);
            return Err(Status::bad_request(format!(
                "{name} in version \"{version}\" cannot be handled as a {name}: json: cannot unmarshal {} into Go struct field ObjectMeta.metadata.{key} of type {go}",
                json_type(value)
            )));
        }
    }
    Ok(())
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Namespace and name of path and object must agree; fills in the namespace.
pub(crate) fn check_name_and_namespace(
    context: &RequestContext<'_>,
    object: &mut Value,
) -> Result<(), Status> {
    let metadata = object::meta(object);
    let given = metadata
        .get("namespace")
        .and_then(Value::as_str)
        .unwrap_or("");
    if context.kind.namespaced {
        if !given.is_empty() && given != context.info.namespace {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        metadata.insert(
            "namespace".to_owned(),
            context.info.namespace.clone().into(),
        );
    } else {
        metadata.remove("namespace");
    }
    let name = metadata.get("name").and_then(Value::as_str).unwrap_or("");
    if !context.info.name.is_empty() {
        if name.is_empty() {
            metadata.insert("name".to_owned(), context.info.name.clone().into());
        } else if name != context.info.name {
            return Err(Status::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                context.info.name
            )));
        }
    }
    Ok(())
}

/// An answer with the stored form.
pub(crate) async fn answer(
    context: &RequestContext<'_>,
    code: u16,
    stored: &Bytes,
) -> Result<body::ApiResponse, Status> {
    let kind = &context.kind;
    let object = crate::conversion::one_presentable(context.server, kind, stored).await?;
    Ok(body::json_bytes(
        code,
        crate::present::convert(kind, &object),
    ))
}
