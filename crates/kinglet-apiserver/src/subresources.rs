//! Subresources other than the status: scale, log, binding, eviction, token, finalize.

mod pods;
mod scale;
mod token;

use kinglet_store::Entry;
use serde_json::Value;

use crate::body::ApiResponse;
use crate::commit;
use crate::context::RequestContext;
use crate::conversion;
use crate::decode;
use crate::kinds::Builtin;
use crate::object::{self, at, child, fields, text};
use crate::status::Status;
use crate::streams;
use pods::{binding, eviction, log};
use scale::scale;
use token::token;

pub(crate) async fn answer(
    context: &mut RequestContext<'_>,
    verb: &str,
) -> Result<ApiResponse, Status> {
    let sub = context.info.subresource.clone();
    match (context.kind.builtin, sub.as_str(), verb) {
        (_, "scale", "get" | "update" | "patch") if context.kind.scale.is_some() => {
            scale(context, verb).await
        }
        (Some(Builtin::Pod), "log", "get") => log(context).await,
        (Some(Builtin::Pod), "exec" | "attach", "get" | "create") => {
            streams::session(context).await
        }
        (Some(Builtin::Pod), "portforward", "get" | "create") => {
            streams::port_forward(context).await
        }
        (Some(Builtin::Pod), "binding", "create") => binding(context).await,
        (Some(Builtin::Pod), "eviction", "create") => eviction(context).await,
        (Some(Builtin::ServiceAccount), "token", "create") => token(context).await,
        (Some(Builtin::Namespace), "finalize", "update") => finalize(context).await,
        (_, "scale", _) if context.kind.scale.is_some() => Err(Status::method_not_allowed()),
        (
            Some(Builtin::Pod),
            "log" | "binding" | "eviction" | "exec" | "attach" | "portforward",
            _,
        )
        | (Some(Builtin::Namespace), "finalize", _) => Err(Status::method_not_allowed()),
        _ => Err(Status::no_such_path()),
    }
}

async fn current(context: &RequestContext<'_>) -> Result<(Entry, Value), Status> {
    let name = &context.info.name;
    let entry = context
        .server
        .store
        .get(&context.kind.key(&context.info.namespace, name))
        .ok_or_else(|| context.not_found(name))?;
    let object = conversion::object(context.server, &context.kind, &entry.value).await?;
    Ok((entry, object))
}

/// `finalize` of a Namespace: replaces `spec.finalizers`, and removes a deleted namespace that has none left.
async fn finalize(context: &mut RequestContext<'_>) -> Result<ApiResponse, Status> {
    let body = decode::value(context)?;
    let (entry, old) = current(context).await?;
    let version = text(&body, &["metadata", "resourceVersion"]);
    if !version.is_empty() && version != entry.modified.to_string() {
        return Err(Status::modified("", "namespaces", &context.info.name));
    }
    let mut new = old.clone();
    let finalizers = at(&body, &["spec", "finalizers"]).cloned();
    let spec = child(fields(&mut new), "spec");
    match finalizers.filter(|list| !object::blank(Some(list))) {
        Some(list) => spec.insert("finalizers".to_owned(), list),
        None => spec.remove("finalizers"),
    };
    let done = object::is_deleting(&old)
        && object::items(&new, &["spec", "finalizers"]).is_empty()
        && object::finalizers(&old).is_empty();
    let stored = if done {
        commit::erase(context, &entry, &new).await?
    } else {
        commit::put_raw(context, &entry, &old, &new).await?
    };
    decode::answer(context, 200, &stored).await
}
