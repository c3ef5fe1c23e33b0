//! Carries out one write: the request, what its answer means, and what the caches forget.

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::ReconcileError;
use crate::graft::graft;
use crate::wire;
use crate::write::{Verb, Write};

/// How a write ended.
pub(crate) enum WriteOutcome {
    /// It was as it should be.
    Unchanged,
    /// The server's answer.
    Object(bytes::Bytes),
    /// The object is gone.
    Gone,
}

#[derive(Deserialize)]
struct AnswerHead {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: AnswerMeta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerMeta {
    deletion_timestamp: Option<String>,
}

/// Sends a write, unless it would change nothing.
pub(crate) async fn send(context: &Context, write: &Write) -> Result<WriteOutcome, ReconcileError> {
    if write.changes_nothing() {
        return Ok(WriteOutcome::Unchanged);
    }
    let attempt = write.attempt();
    context.may_write(&attempt)?;
    let manager = wire::encode(context.component());
    let (method, path, body) = match &write.verb {
        Verb::Create => (
            Method::POST,
            format!("{}?fieldManager={manager}", write.path),
            write.body.to_string(),
        ),
        Verb::Update => (
            Method::PUT,
            format!("{}/{}?fieldManager={manager}", write.path, write.key.name),
            whole(context, write).await?.to_string(),
        ),
        Verb::Status => (
            Method::PUT,
            format!(
                "{}/{}/status?fieldManager={manager}",
                write.path, write.key.name
            ),
            whole(context, write).await?.to_string(),
        ),
        Verb::Scale { .. } => (
            Method::PUT,
            format!(
                "{}/{}/scale?fieldManager={manager}",
                write.path, write.key.name
            ),
            write.body.to_string(),
        ),
        Verb::Delete {
            cascade,
            uid,
            version,
            grace_seconds,
        } => {
            let options = json!({
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "propagationPolicy": cascade.as_str(),
                "preconditions": {"uid": uid, "resourceVersion": version},
                "gracePeriodSeconds": grace_seconds,
            });
            (
                Method::DELETE,
                format!("{}/{}", write.path, write.key.name),
                options.to_string(),
            )
        }
    };
    tracing::debug!(component = context.component(), verb = ?method, kind = %write.kind, key = %write.key, "write");
    let answer = wire::call(context.client(), &attempt, method, &path, body.into_bytes()).await;
    let Verb::Delete { uid, .. } = &write.verb else {
        return answer.map(WriteOutcome::Object);
    };
    match answer {
        Ok(answer) => {
            let head: AnswerHead =
                serde_json::from_slice(&answer).map_err(|source| garbled(write, source))?;
            // An object in the answer is either waiting for its finalizers or the last state of one that is gone.
            if head.kind == "Status" || head.metadata.deletion_timestamp.is_none() {
                forget(context, write, uid.as_deref());
                Ok(WriteOutcome::Gone)
            } else {
                Ok(WriteOutcome::Object(answer))
            }
        }
        Err(ReconcileError::NotFound { .. }) => {
            forget(context, write, uid.as_deref());
            Ok(WriteOutcome::Gone)
        }
        Err(error) => Err(error),
    }
}

/// The object as it shall be, with the fields that our types do not know.
async fn whole(context: &Context, write: &Write) -> Result<Value, ReconcileError> {
    let Some(observed) = &write.observed else {
        return Ok(write.body.clone());
    };
    let version = version_in(&write.body);
    let number: u64 = version.parse().unwrap_or(0);
    let conflict = || ReconcileError::Conflict {
        attempt: write.attempt(),
        message: "the object has been modified since it was read".to_owned(),
    };
    let mut raw: Value = match (write.raw)(context.caches(), &write.key) {
        Some((cached, raw)) if cached == number => {
            serde_json::from_slice(&raw).map_err(|source| garbled(write, source))?
        }
        Some((cached, _)) if number != 0 && cached > number => return Err(conflict()),
        // No cache has it, or it is behind.
        _ => read(context, write).await?,
    };
    if number != 0 && version_in(&raw) != version {
        return Err(conflict());
    }
    if let Some(metadata) = raw.get_mut("metadata").and_then(Value::as_object_mut) {
        // Left out, they stay as they are.
        metadata.remove("managedFields");
    }
    Ok(graft(raw, observed, &write.body))
}

async fn read(context: &Context, write: &Write) -> Result<Value, ReconcileError> {
    let path = format!("{}/{}", write.path, write.key.name);
    let attempt = write.attempt();
    let answer = wire::call(context.client(), &attempt, Method::GET, &path, Vec::new()).await?;
    serde_json::from_slice(&answer).map_err(|source| garbled(write, source))
}

fn forget(context: &Context, write: &Write, uid: Option<&str>) {
    if let Some(uid) = uid {
        (write.forget)(context.caches(), &write.key, uid);
    }
}

pub(crate) fn version_in(body: &Value) -> &str {
    body.pointer("/metadata/resourceVersion")
        .and_then(Value::as_str)
        .unwrap_or("")
}

/// Puts a write on top of what the same plan has just written to the same object.
///
/// A status goes with the metadata of the answer, since API servers take annotations from status writes, too.
pub(crate) fn rebase(write: &mut Write, answer: &[u8]) -> Result<(), serde_json::Error> {
    let answer = (write.retyped)(answer)?;
    let version = version_in(&answer).to_owned();
    match write.verb {
        Verb::Status => {
            let status = write
                .body
                .get_mut("status")
                .map(Value::take)
                .unwrap_or_default();
            write.observed = Some(answer.clone());
            write.body = answer;
            write.body["status"] = status;
        }
        Verb::Update | Verb::Scale { .. } => {
            if let Some(known) = write.body.pointer_mut("/metadata/resourceVersion") {
                *known = Value::String(version);
            }
        }
        Verb::Create | Verb::Delete { .. } => {}
    }
    Ok(())
}

pub(crate) fn garbled(write: &Write, source: serde_json::Error) -> ReconcileError {
    ReconcileError::Garbled {
        attempt: write.attempt(),
        source,
    }
}
