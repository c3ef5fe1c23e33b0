//! `delete` and `deletecollection`: grace, finalizers, propagation, preconditions.

use std::sync::Arc;

use bytes::Bytes;
use kinglet_quantity::pod::TERMINATION_GRACE_SECONDS;
use kinglet_store::{Entry, Expect};
use serde_json::{Value, json};

use crate::admission::Operation;
use crate::body::{ApiResponse, json, json_bytes};
use crate::context::RequestContext;
use crate::decode;
use crate::kinds::{Builtin, custom};
use crate::object::{self, Template, meta, number, text};
use crate::present::{self, Presenter};
use crate::read;
use crate::status::{Cause, Status, deleted};
use crate::{admit, commit, crd};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// Attempts of a delete without a precondition on the version.
const TRIES: usize = 5;

/// `DeleteOptions`, from body or query.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    grace_seconds: Option<i64>,
    propagation: Option<String>,
    uid: Option<String>,
    revision: Option<String>,
    dry_run: bool,
}

pub(crate) fn delete_options(context: &mut RequestContext<'_>) -> Result<DeleteOptions, Status> {
    let mut body = Value::Null;
    if !context.body.is_empty() {
        let protobuf = context
            .content_type
            .starts_with("application/vnd.kubernetes.protobuf");
        body = if protobuf {
            crate::protobuf::decode(&context.body).map_err(|error| {
                Status::bad_request(format!("decoding the delete options: {error}"))
            })?
        } else {
            decode::parse(&context.body, decode::Strictness::Ignore)?.0
        };
    }
    let query = &context.query;
    let propagation = match text(&body, &["propagationPolicy"]) {
        "" => query.get("propagationPolicy"),
        policy => policy,
    };
    let orphan = body
        .get("orphanDependents")
        .and_then(Value::as_bool)
        .or_else(|| {
            query
                .has("orphanDependents")
                .then(|| query.flag("orphanDependents"))
        });
    let propagation = match (propagation, orphan) {
        ("", None) => None,
        ("", Some(orphan)) => Some(if orphan { "Orphan" } else { "Background" }.to_owned()),
        ("Orphan" | "Background" | "Foreground", None) => Some(propagation.to_owned()),
        ("Orphan" | "Background" | "Foreground", Some(_)) => {
            let value = Value::from(propagation);
            let cause = Cause::invalid(
                "propagationPolicy",
                &value,
                "orphanDependents and deletionPropagation cannot be both set",
            );
            return Err(Status::invalid(
                "meta.k8s.io",
                "DeleteOptions",
                "",
                &[cause],
            ));
        }
        (other, _) => {
            let cause = Cause::unsupported(
                "propagationPolicy",
                &other.into(),
                &["Foreground", "Background", "Orphan", "nil"],
            );
            return Err(Status::invalid(
                "meta.k8s.io",
                "DeleteOptions",
                "",
                &[cause],
            ));
        }
    };
    let some = |path: &[&str]| Some(text(&body, path).to_owned()).filter(|value| !value.is_empty());
    Ok(DeleteOptions {
        grace_seconds: number(&body, &["gracePeriodSeconds"])
            .or_else(|| query.number("gracePeriodSeconds")),
        propagation,
        uid: some(&["preconditions", "uid"]),
        revision: some(&["preconditions", "resourceVersion"]),
        dry_run: query.has("dryRun") || !object::items(&body, &["dryRun"]).is_empty(),
    })
}

pub(crate) async fn delete(context: &mut RequestContext<'_>) -> Result<ApiResponse, Status> {
    let options = delete_options(context)?;
    let name = context.info.name.clone();
    match delete_one(context, &name, &options).await? {
        Outcome::Gone(last) => {
            let object = present::object(&context.kind, &last);
            if context.kind.builtin.is_some_and(Builtin::returns_deleted) {
                return Ok(json(200, &object));
            }
            Ok(json(
                200,
                &deleted(
                    &context.kind.group,
                    &context.kind.plural,
                    &name,
                    object::uid(&object),
                ),
            ))
        }
        Outcome::Waits(now) => Ok(json_bytes(200, present::convert(&context.kind, &now))),
    }
}

pub(crate) async fn delete_collection(
    context: &mut RequestContext<'_>,
) -> Result<ApiResponse, Status> {
    if context.kind.is(Builtin::Namespace) || context.kind.is(Builtin::Service) {
        return Err(Status::method_not_allowed());
    }
    let options = delete_options(context)?;
    let selector = read::selector(context)?;
    let prefix = context.kind.range(&context.info.namespace);
    let page = context
        .server
        .store
        .list(&prefix, None, 0, None)
        .map_err(Status::internal)?;
    let mut removed = Vec::new();
    let info = context.info.clone();
    for (key, entry) in page.entries {
        let here = key[context.kind.prefix.len()..].to_owned();
        if !selector.matches(&here, &entry.value) {
            continue;
        }
        let (namespace, name) = here.rsplit_once('/').unwrap_or(("", &here));
        context.info.namespace = namespace.to_owned();
        context.info.name = name.to_owned();
        match delete_one(context, name, &options).await {
            Ok(Outcome::Gone(value) | Outcome::Waits(value)) => removed.push(value),
            Err(status) if status.code == 404 => {}
            Err(status) => {
                context.info = info;
                return Err(status);
            }
        }
    }
    context.info = info;
    let presenter = Presenter::new(
        &context.kind,
        crate::accept::Form::Plain,
        &context.query,
        context.server.options.clock.now(),
    )?;
    let metadata = [(
        "resourceVersion".to_owned(),
        context.server.store.revision().to_string().into(),
    )]
    .into_iter()
    .collect();
    Ok(json_bytes(200, presenter.list(&removed, &metadata)))
}

pub(crate) enum Outcome {
    /// The object is removed; this is its last form.
    Gone(Bytes),
    /// The object is marked for deletion and waits for finalizers or its grace period.
    Waits(Bytes),
}

/// Deletes one object; tries again if another write came in between.
pub(crate) async fn delete_one(
    context: &mut RequestContext<'_>,
    name: &str,
    options: &DeleteOptions,
) -> Result<Outcome, Status> {
    let key = context.kind.key(&context.info.namespace, name);
    let mut tries = 0;
    loop {
        tries += 1;
        let entry = context
            .server
            .store
            .get(&key)
            .ok_or_else(|| context.not_found(name))?;
        match attempt(context, name, &entry, options).await {
            Err(status)
                if status.reason == "Conflict" && options.revision.is_none() && tries < TRIES =>
            {
                let raced = context
                    .server
                    .store
                    .get(&key)
                    .is_none_or(|now| now.modified != entry.modified);
                if !raced {
                    return Err(status);
                }
            }
            result => return result,
        }
    }
}

async fn attempt(
    context: &mut RequestContext<'_>,
    name: &str,
    entry: &Entry,
    options: &DeleteOptions,
) -> Result<Outcome, Status> {
    let old = present::object(&context.kind, &entry.value);
    check_preconditions(context, name, entry, &old, options)?;
    admit::admit(
        context,
        Operation::Delete,
        &mut Value::Null,
        Some(&old),
        true,
    )?;
    admit::admit(
        context,
        Operation::Delete,
        &mut Value::Null,
        Some(&old),
        false,
    )?;
    let mut new = old.clone();
    let waits = mark(context, &mut new, &old, options);
    if !waits {
        if options.dry_run {
            return Ok(Outcome::Gone(entry.value.clone()));
        }
        let mut last = old.clone();
        if object::is_deleting(&old) && context.kind.is(Builtin::Pod) {
            meta(&mut last).insert("deletionGracePeriodSeconds".to_owned(), 0.into());
        }
        return commit::erase(context, entry, &last)
            .await
            .map(Outcome::Gone);
    }
    if new == old || options.dry_run {
        return Ok(Outcome::Waits(Bytes::from(new.to_string())));
    }
    let stored = store_marked(context, name, entry, &old, &mut new).await?;
    commit::after(context, Some(&old), Some(&new));
    if context.kind.is(Builtin::CustomResourceDefinition) {
        empty_definition(context, &new).await?;
    }
    Ok(Outcome::Waits(stored))
}

/// Refuses a deletion whose preconditions do not hold, and that of a namespace which the cluster needs.
fn check_preconditions(
    context: &RequestContext<'_>,
    name: &str,
    entry: &Entry,
    old: &Value,
    options: &DeleteOptions,
) -> Result<(), Status> {
    let (group, plural) = (&context.kind.group, &context.kind.plural);
    if let Some(uid) = &options.uid
        && uid != object::uid(old)
    {
        let detail = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            object::uid(old)
        );
        return Err(Status::conflict(group, plural, name, &detail));
    }
    if let Some(revision) = &options.revision
        && *revision != entry.modified.to_string()
    {
        let detail = format!(
            "Precondition failed: ResourceVersion in precondition: {revision}, ResourceVersion in object meta: {}",
            entry.modified
        );
        return Err(Status::conflict(group, plural, name, &detail));
    }
    if context.kind.is(Builtin::Namespace)
        && matches!(name, "default" | "kube-system" | "kube-public")
    {
        return Err(Status::forbidden(
            group,
            plural,
            name,
            "this namespace may not be deleted",
        ));
    }
    Ok(())
}

/// Stores an object that is marked for deletion, at the version at which it was read.
async fn store_marked(
    context: &RequestContext<'_>,
    name: &str,
    entry: &Entry,
    old: &Value,
    new: &mut Value,
) -> Result<Bytes, Status> {
    let durability = commit::durability(context, new, Some(old));
    present::to_stored(&context.kind, new);
    let template = Template::new(new);
    let put = context.server.store.put(
        &context.kind.key(&context.info.namespace, name),
        Expect::Revision(entry.modified),
        durability,
        |revision| template.stamp(revision),
    );
    match put {
        Ok(write) => {
            let settled = write.settled().await;
            let (_, stored) = settled.map_err(|error| commit::refused(context, name, &error))?;
            Ok(stored)
        }
        Err(kinglet_store::WriteError::Conflict { current: Some(_) }) => Err(Status::modified(
            &context.kind.group,
            &context.kind.plural,
            name,
        )),
        Err(error) => Err(commit::refused(context, name, &error)),
    }
}

/// Marks an object for deletion. Returns whether it has to wait for finalizers or its grace period.
fn mark(
    context: &RequestContext<'_>,
    new: &mut Value,
    old: &Value,
    options: &DeleteOptions,
) -> bool {
    let grace = grace(context, old, options);
    let finalizers = finalizers(old, options);
    let deleting = object::is_deleting(old);
    let metadata = meta(new);
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), json!(finalizers));
    }
    let holds = context.kind.is(Builtin::Namespace)
        && !object::items(old, &["spec", "finalizers"]).is_empty();
    if finalizers.is_empty() && grace == 0 && !holds {
        return false;
    }
    let had = number(old, &["metadata", "deletionGracePeriodSeconds"]);
    if deleting && had.is_some_and(|had| had <= grace) {
        return true;
    }
    let metadata = meta(new);
    if !deleting
        && let Some(generation) =
            number(old, &["metadata", "generation"]).filter(|generation| *generation > 0)
    {
        metadata.insert("generation".to_owned(), (generation + 1).into());
    }
    let now = context.server.options.clock.now();
    let end = now
        .checked_add(jiff::SignedDuration::from_secs(grace))
        .unwrap_or(now);
    metadata.insert(
        "deletionTimestamp".to_owned(),
        end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(),
    );
    if !context.kind.is(Builtin::Namespace) {
        metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
    }
    if context.kind.is(Builtin::Namespace) {
        object::child(object::fields(new), "status")
            .insert("phase".to_owned(), "Terminating".into());
    }
    if context.kind.is(Builtin::CustomResourceDefinition) {
        crd::mark_terminating(new, &context.server.now());
    }
    true
}

/// Returns the grace period. Only pods that are bound and have not ended have one.
fn grace(context: &RequestContext<'_>, old: &Value, options: &DeleteOptions) -> i64 {
    if !context.kind.is(Builtin::Pod) {
        return 0;
    }
    if text(old, &["spec", "nodeName"]).is_empty()
        || matches!(text(old, &["status", "phase"]), "Succeeded" | "Failed")
    {
        return 0;
    }
    let grace = options
        .grace_seconds
        .or_else(|| number(old, &["spec", "terminationGracePeriodSeconds"]))
        .unwrap_or(TERMINATION_GRACE_SECONDS);
    // Kubernetes treats a negative period as one second.
    if grace < 0 { 1 } else { grace }
}

/// Returns the finalizers that the propagation policy leaves or adds.
fn finalizers(old: &Value, options: &DeleteOptions) -> Vec<String> {
    let mut finalizers = object::finalizers(old);
    let Some(policy) = options.propagation.as_deref() else {
        return finalizers;
    };
    let wanted = match policy {
        "Orphan" => Some(ORPHAN),
        "Foreground" => Some(FOREGROUND),
        _ => None,
    };
    finalizers
        .retain(|name| (name != ORPHAN && name != FOREGROUND) || Some(name.as_str()) == wanted);
    if let Some(wanted) = wanted
        && !finalizers.iter().any(|name| name == wanted)
    {
        finalizers.push(wanted.to_owned());
    }
    finalizers
}

/// Deletes all objects of a definition that is being deleted; those with finalizers are removed later.
async fn empty_definition(
    context: &mut RequestContext<'_>,
    definition: &Value,
) -> Result<(), Status> {
    let Some(kind) = custom::kinds(definition).into_iter().next().map(Arc::new) else {
        return crd::finish(context, definition).await;
    };
    let (own_kind, own_info) = (Arc::clone(&context.kind), context.info.clone());
    let page = context
        .server
        .store
        .list(&kind.prefix, None, 0, None)
        .map_err(Status::internal)?;
    for (key, _) in page.entries {
        let here = &key[kind.prefix.len()..];
        let (namespace, name) = here.rsplit_once('/').unwrap_or(("", here));
        context.kind = Arc::clone(&kind);
        context.info.group.clone_from(&kind.group);
        context.info.resource.clone_from(&kind.plural);
        context.info.namespace = namespace.to_owned();
        context.info.name = name.to_owned();
        // An object that cannot be deleted keeps its definition, whose condition says so.
        if let Err(status) = Box::pin(delete_one(context, name, &DeleteOptions::default())).await {
            tracing::warn!(%status, "deleting an object of a deleted definition");
        }
    }
    context.kind = own_kind;
    context.info = own_info;
    crd::finish(context, definition).await
}
