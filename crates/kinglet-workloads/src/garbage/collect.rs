//! Carries out what the graph says about one object.

use std::sync::Arc;

use http::Method;
use kinglet_reconcile::{Context, Key, Next, Owner, ReconcileError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Collector;
use super::graph::{FOREGROUND, Node, ORPHAN, Task};

/// One object by uid (the key's name).
pub(super) async fn reconcile(
    context: Context,
    collector: Arc<Collector>,
    key: Key,
) -> Result<Next, ReconcileError> {
    let task = collector.graph.lock().task(&key.name);
    match task {
        Task::Nothing => {}
        Task::Orphan { object, dependants } => {
            for dependant in &dependants {
                drop_owners(&context, dependant, |owner| owner.uid == object.head.uid).await?;
            }
            drop_finalizer(&context, &object, ORPHAN).await?;
        }
        Task::Foreground {
            object,
            blocked: false,
            ..
        } => drop_finalizer(&context, &object, FOREGROUND).await?,
        Task::Foreground {
            object, dependants, ..
        } => {
            for dependant in dependants
                .iter()
                .filter(|dependant| !dependant.head.deleting)
            {
                let task = collector.graph.lock().task(&dependant.head.uid);
                owners(&context, &collector, task).await?;
            }
            tracing::debug!(kind = object.kind.kind, name = %object.head.key.name, "waits for its dependants");
        }
        task @ Task::Owners { .. } => owners(&context, &collector, task).await?,
    }
    Ok(Next::Done)
}

/// Deletes an object whose owners are all gone or going, or takes off the references to those that are.
async fn owners(
    context: &Context,
    collector: &Collector,
    task: Task,
) -> Result<(), ReconcileError> {
    let Task::Owners {
        object,
        mut present,
        waiting,
        unknown,
        has_dependants,
    } = task
    else {
        return Ok(());
    };
    let mut absent = Vec::new();
    for owner in unknown {
        if exists(context, collector, &object, &owner).await? {
            present.push(owner);
        } else {
            absent.push(owner);
        }
    }
    if absent.is_empty() && waiting.is_empty() {
        return Ok(());
    }
    if !present.is_empty() {
        return drop_owners(context, &object, |owner| {
            absent.contains(owner) || waiting.contains(owner)
        })
        .await;
    }
    let policy = if object.has(ORPHAN) {
        "Orphan"
    } else if object.has(FOREGROUND) || (!waiting.is_empty() && has_dependants) {
        "Foreground"
    } else {
        "Background"
    };
    tracing::debug!(kind = object.kind.kind, key = %object.head.key, policy, "its owners are gone");
    let options = json!({
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": policy,
        "preconditions": {"uid": *object.head.uid, "resourceVersion": object.head.version.to_string()},
    });
    settled(
        context
            .call(Method::DELETE, &object.path(), Some(&options))
            .await,
    )
}

#[derive(Deserialize)]
struct Found {
    metadata: FoundMeta,
}

#[derive(Deserialize)]
struct FoundMeta {
    uid: String,
}

/// Asks the API server for an owner that the graph does not know. An owner of a kind that is not served is taken as
/// present: its kind may come back.
async fn exists(
    context: &Context,
    collector: &Collector,
    object: &Node,
    owner: &Owner,
) -> Result<bool, ReconcileError> {
    let Some(kind) = collector.kinds.find(&owner.api_version, &owner.kind) else {
        return Ok(true);
    };
    // A namespaced owner is in the same namespace, or it does not exist.
    let path = format!(
        "{}/{}",
        kind.path(Some(&object.head.key.namespace)),
        owner.name
    );
    if kind.namespaced && object.head.key.namespace.is_empty() {
        return Ok(false);
    }
    match context.call(Method::GET, &path, None).await {
        Ok(answer) => {
            let found: Found =
                serde_json::from_slice(&answer).map_err(|source| ReconcileError::Garbled {
                    attempt: format!("reading {path}"),
                    source,
                })?;
            Ok(found.metadata.uid == *owner.uid)
        }
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

async fn drop_owners(
    context: &Context,
    object: &Node,
    goes: impl Fn(&Owner) -> bool,
) -> Result<(), ReconcileError> {
    let all = &object.head.owners;
    let stays: Vec<&Owner> = all.iter().filter(|owner| !goes(owner)).collect();
    if stays.len() == all.len() {
        return Ok(());
    }
    let stays = if stays.is_empty() {
        Value::Null
    } else {
        references(context, object, &stays)
    };
    patch(context, object, json!({"ownerReferences": stays})).await
}

/// The references as the object has them, with fields that we do not know.
fn references(context: &Context, object: &Node, stays: &[&Owner]) -> Value {
    let head = &object.head;
    let caches = context.caches();
    let whole = caches.peek(&object.kind, &head.key, head.version);
    let whole = whole.map(|found| found.value()).unwrap_or_default();
    let written = whole["metadata"]["ownerReferences"].as_array();
    let find = |owner: &Owner| {
        let mut all = written.into_iter().flatten();
        let found = all.find(|reference| reference["uid"] == *owner.uid);
        found.cloned().unwrap_or_else(|| owner.to_json())
    };
    stays.iter().map(|owner| find(owner)).collect()
}

async fn drop_finalizer(
    context: &Context,
    object: &Node,
    finalizer: &str,
) -> Result<(), ReconcileError> {
    let all = object.head.finalizers.iter();
    let stays: Vec<&str> = all
        .map(|known| &**known)
        .filter(|known| *known != finalizer)
        .collect();
    let stays = if stays.is_empty() {
        Value::Null
    } else {
        json!(stays)
    };
    patch(context, object, json!({"finalizers": stays})).await
}

async fn patch(
    context: &Context,
    object: &Node,
    mut metadata: Value,
) -> Result<(), ReconcileError> {
    metadata["uid"] = json!(*object.head.uid);
    metadata["resourceVersion"] = json!(object.head.version.to_string());
    settled(
        context
            .merge_patch(&object.path(), &json!({"metadata": metadata}))
            .await,
    )
}

/// Gone already is done; a conflict comes back, since the graph was behind.
fn settled(answer: Result<bytes::Bytes, ReconcileError>) -> Result<(), ReconcileError> {
    match answer {
        Err(error) if error.is_not_found() => Ok(()),
        other => other.map(|_| ()),
    }
}
