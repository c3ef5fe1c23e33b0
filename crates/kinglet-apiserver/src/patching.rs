//! `PATCH`: which kind of patch a body is, and applying it to an object.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::apply::{self, ApplyError, TypeInfo, Writer};
use crate::context::RequestContext;
use crate::decode;
use crate::object::text;
use crate::ownership;
use crate::patch::{self, PatchError};
use crate::status::{Cause, Status};

const ACCEPTED: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
const ACCEPTED_BUILTIN: &str = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";

/// A patch that has been read.
#[derive(Debug)]
pub(crate) enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
    Apply {
        object: Value,
        manager: String,
        force: bool,
    },
}

/// Reads the body by its media type.
pub(crate) fn read(context: &mut RequestContext<'_>) -> Result<Patch, Status> {
    let media = context
        .content_type
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .to_owned();
    let force = context.query.flag("force");
    if media != "application/apply-patch+yaml" && force {
        let cause = Cause::forbidden("force", "may not be specified for non-apply patch");
        return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", &[cause]));
    }
    match media.as_str() {
        "application/json-patch+json" => Ok(Patch::Json(parse(&context.body)?)),
        "application/merge-patch+json" => Ok(Patch::Merge(fields(&context.body)?)),
        "application/strategic-merge-patch+json" if context.kind.builtin.is_some() => {
            Ok(Patch::Strategic(fields(&context.body)?))
        }
        "application/apply-patch+yaml" | "application/apply-patch+json" => {
            let manager = context.query.get("fieldManager").to_owned();
            if manager.is_empty() {
                let cause = Cause::required("fieldManager", "is required for apply patch");
                return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", &[cause]));
            }
            let strictness = decode::strictness(context)?;
            let (object, duplicates) = decode::parse(&context.body, strictness)?;
            context.found = duplicates;
            Ok(Patch::Apply {
                object,
                manager,
                force,
            })
        }
        _ => Err(Status::unsupported_media_type(
            if context.kind.builtin.is_some() {
                ACCEPTED_BUILTIN
            } else {
                ACCEPTED
            },
        )),
    }
}

fn parse(bytes: &Bytes) -> Result<Value, Status> {
    serde_json::from_slice(bytes)
        .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))
}

fn fields(bytes: &Bytes) -> Result<Value, Status> {
    match parse(bytes)? {
        value @ Value::Object(_) => Ok(value),
        _ => Err(Status::bad_request(
            "error decoding patch: the patch is not an object",
        )),
    }
}

impl Patch {
    /// May it make an object that is not there?
    pub(crate) fn creates(&self) -> bool {
        matches!(self, Self::Apply { .. })
    }

    /// Has it put `managedFields` right already?
    pub(crate) fn tracks(&self) -> bool {
        matches!(self, Self::Apply { .. })
    }

    /// The object after the patch.
    pub(crate) async fn apply(
        &self,
        context: &mut RequestContext<'_>,
        old: Option<&Value>,
    ) -> Result<Value, Status> {
        let kind = std::sync::Arc::clone(&context.kind);
        match (self, old) {
            (
                Self::Apply {
                    object,
                    manager,
                    force,
                },
                old,
            ) => {
                let mut applied = object.clone();
                let (version, name) = (text(&applied, &["apiVersion"]), text(&applied, &["kind"]));
                if version != context.kind.api_version() || name != context.kind.kind {
                    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
                    return Err(Status::bad_request(format!(
                        "invalid object type: {group}/{version}, Kind={name}"
                    )));
                }
                decode::check_kind(context, &mut applied)?;
                decode::check_name_and_namespace(context, &mut applied)?;
                if applied
                    .pointer("/metadata/managedFields")
                    .is_some_and(|fields| !fields.is_null())
                {
                    return Err(Status::bad_request("metadata.managedFields must be nil"));
                }
                server_side(context, old, object, manager, *force).await
            }
            (_, None) => Err(context.not_found(&context.info.name)),
            (Self::Json(patch), Some(old)) => {
                let mut object = old.clone();
                patch::json(&mut object, patch).map_err(|error| refusal(&error))?;
                Ok(object)
            }
            (Self::Merge(patch), Some(old)) => {
                let mut object = old.clone();
                patch::merge(&mut object, patch);
                Ok(object)
            }
            (Self::Strategic(patch), Some(old)) => {
                patch::strategic(&kind.group, &kind.version, &kind.kind, old, patch)
                    .map_err(|error| refusal(&error))
            }
        }
    }
}

async fn server_side(
    context: &RequestContext<'_>,
    old: Option<&Value>,
    applied: &Value,
    manager: &str,
    force: bool,
) -> Result<Value, Status> {
    let now = context.server.now();
    let writer = Writer {
        manager,
        subresource: &context.info.subresource,
        now: &now,
    };
    let applied = ownership::with_types(context, |types: TypeInfo<'_>| {
        apply::apply(old, applied, writer, force, types)
    });
    applied.await?.map_err(|error| match error {
        ApplyError::Unconverted(message) => Status::new(500, "", message),
        ApplyError::Invalid(message) => Status::bad_request(message),
        ApplyError::Untyped(message) => Status::new(500, "", message),
        ApplyError::Conflicts(conflicts) => {
            let mut status = Status::new(409, "Conflict", conflicts.message);
            let causes: Vec<Value> = conflicts
                .causes
                .iter()
                .map(|(message, field)| json!({"reason": "FieldManagerConflict", "message": message, "field": field}))
                .collect();
            status.details.insert("causes".to_owned(), causes.into());
            status
        }
    })
}

fn refusal(error: &PatchError) -> Status {
    match error {
        PatchError::Malformed(message) => Status::bad_request(message.clone()),
        PatchError::TooLarge(message) => Status::new(413, "RequestEntityTooLarge", message.clone()),
        PatchError::DoesNotFit(message) => Status::new(422, "Invalid", message.clone()),
        PatchError::Unsupported => Status::unsupported_media_type(ACCEPTED),
    }
}
