//! `delete` and `deletecollection`: grace, finalizers, propagation, preconditions.

mod mark;
mod options;

use std::sync::Arc;

use bytes::Bytes;
use kinglet_store::{Entry, Expect};
use serde_json::Value;

use crate::admission::Operation;
use crate::body::{ApiResponse, json, json_bytes};
use crate::context::RequestContext;
use crate::kinds::{Builtin, custom};
use crate::object::{self, Template, meta};
use crate::present::{self, Presenter};
use crate::read;
use crate::status::{Status, deleted};
use crate::{admit, commit, conversion, crd};
use mark::mark;
pub(crate) use options::{DeleteOptions, delete_options};

/// Attempts of a delete without a precondition on the version.
const TRIES: usize = 5;

pub(crate) async fn delete(context: &mut RequestContext<'_>) -> Result<ApiResponse, Status> {
    let options = delete_options(context)?;
    let options = orphan_by_default(context, options);
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
        Outcome::Waits(now) => {
            let now = conversion::one_presentable(context.server, &context.kind, &now).await?;
            Ok(json_bytes(200, present::convert(&context.kind, &now)))
        }
    }
}

/// Pods of a Job outlive it unless its deletion says otherwise, and clients are told.
fn orphan_by_default(
    context: &mut RequestContext<'_>,
    mut options: DeleteOptions,
) -> DeleteOptions {
    if context.kind.is(Builtin::Job) && options.propagation.is_none() && !context.in_process() {
        context.warnings.push(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning"
                .to_owned(),
        );
        options.propagation = Some("Orphan".to_owned());
    }
    options
}

pub(crate) async fn delete_collection(
    context: &mut RequestContext<'_>,
) -> Result<ApiResponse, Status> {
    if context.kind.is(Builtin::Namespace) || context.kind.is(Builtin::Service) {
        return Err(Status::method_not_allowed());
    }
    let options = delete_options(context)?;
    let options = orphan_by_default(context, options);
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
    let removed = conversion::presentable(context.server, &context.kind, removed).await?;
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
    // A webhook that is down keeps nothing from being deleted: only metadata changes.
    let as_stored = context.kind.conversion.as_ref().is_some_and(|c| c.waits());
    let old = if as_stored {
        present::object(&context.kind, &entry.value)
    } else {
        conversion::object(context.server, &context.kind, &entry.value).await?
    };
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
        let erased = if as_stored {
            commit::erase_form(context, entry, &last, &last).await
        } else {
            commit::erase(context, entry, &last).await
        };
        return erased.map(Outcome::Gone);
    }
    if new == old || options.dry_run {
        return Ok(Outcome::Waits(Bytes::from(new.to_string())));
    }
    let stored = if as_stored {
        store_marked(context, name, entry, &old, &new).await?
    } else {
        let form = conversion::stored_form(context.server, &context.kind, &new).await?;
        store_marked(context, name, entry, &old, &form).await?
    };
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
    new: &Value,
) -> Result<Bytes, Status> {
    let durability = commit::durability(context, new, Some(old));
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

/// Deletes all objects of a definition that is being deleted; those with finalizers are removed later.
async fn empty_definition(
    context: &mut RequestContext<'_>,
    definition: &Value,
) -> Result<(), Status> {
    // In their storage version, which needs no conversion, and which need not be served.
    let kind = custom::stored_kind(definition, context.server.converters());
    let Some(kind) = kind.map(Arc::new) else {
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
