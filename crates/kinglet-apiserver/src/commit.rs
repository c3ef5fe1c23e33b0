//! The last stage of every write: how durable it is, the store, and what follows a stored change.

use bytes::Bytes;
use kinglet_store::{Durability, Entry, Expect, WriteError};
use serde_json::Value;

use crate::context::RequestContext;
use crate::kinds::Builtin;
use crate::object::{self, Template, meta};
use crate::options::WriteAttributes;
use crate::status::Status;
use crate::{builtin, conversion, crd};

/// How durable a write must be.
pub(crate) fn durability(
    context: &RequestContext<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Durability {
    let options = &context.server.options;
    let fleeting = context.kind.builtin.is_some_and(Builtin::is_fleeting)
        || options
            .fleeting
            .iter()
            .any(|(group, plural)| *group == context.kind.group && *plural == context.kind.plural);
    if fleeting {
        return Durability::Memory;
    }
    if context.in_process() {
        let attributes = WriteAttributes {
            group: &context.kind.group,
            resource: &context.kind.plural,
            subresource: &context.info.subresource,
            create: old.is_none(),
            object,
            old,
        };
        return if (options.synced)(&attributes) {
            Durability::Synced
        } else {
            Durability::Trailing
        };
    }
    Durability::Synced
}

/// Writes a change that the server itself made, past defaults and rules.
pub(crate) async fn put_raw(
    context: &RequestContext<'_>,
    entry: &Entry,
    old: &Value,
    new: &Value,
) -> Result<Bytes, Status> {
    let stored = store(context, new, Some((entry, old))).await?;
    after(context, Some(old), Some(new));
    Ok(stored)
}

/// Writes the object where it belongs, if nothing came in between.
pub(crate) async fn store(
    context: &RequestContext<'_>,
    object: &Value,
    old: Option<(&Entry, &Value)>,
) -> Result<Bytes, Status> {
    let form = conversion::stored_form(context.server, &context.kind, object).await?;
    store_form(context, object, &form, old).await
}

/// Writes an object whose stored form is known: who holds the server's turn waits for no webhook.
pub(crate) async fn store_form(
    context: &RequestContext<'_>,
    object: &Value,
    form: &Value,
    old: Option<(&Entry, &Value)>,
) -> Result<Bytes, Status> {
    let kind = &context.kind;
    let name = object::name(object);
    let key = kind.key(&context.info.namespace, name);
    let template = Template::new(form);
    let expect = old.map_or(Expect::Absent, |(entry, _)| {
        Expect::Revision(entry.modified)
    });
    if context.dry_run() {
        let current = context.server.store.get(&key);
        return match (expect, current) {
            (Expect::Absent, Some(_)) => {
                Err(Status::already_exists(&kind.group, &kind.plural, name))
            }
            (_, Some(entry)) => Ok(template.stamp(entry.modified)),
            (_, None) => {
                let mut plain = form.clone();
                meta(&mut plain).remove("resourceVersion");
                Ok(Bytes::from(plain.to_string()))
            }
        };
    }
    let durability = durability(context, object, old.map(|(_, old)| old));
    let written = context
        .server
        .store
        .put(&key, expect, durability, |revision| {
            template.stamp(revision)
        });
    match written {
        Ok(write) => match write.settled().await {
            Ok((_, bytes)) => Ok(bytes),
            Err(error) => Err(refused(context, name, &error)),
        },
        Err(error) => Err(refused(context, name, &error)),
    }
}

/// A store's refusal in Kubernetes' words.
pub(crate) fn refused(context: &RequestContext<'_>, name: &str, error: &WriteError) -> Status {
    let kind = &context.kind;
    match error {
        WriteError::Conflict { current: Some(_) } if context.info.name.is_empty() => {
            Status::already_exists(&kind.group, &kind.plural, name)
        }
        WriteError::Conflict { current: Some(_) } => {
            Status::modified(&kind.group, &kind.plural, name)
        }
        WriteError::Conflict { current: None } => context.not_found(name),
        WriteError::Refused { detail } => {
            let mut status = Status::new(
                507,
                "InsufficientStorage",
                format!(
                    "{} \"{name}\" was not stored: the data directory cannot be written: {detail}",
                    kind.plural
                ),
            );
            status
                .details
                .insert("retryAfterSeconds".to_owned(), 1.into());
            status
        }
        WriteError::Backlog { bytes } => Status::too_many(
            format!("the disk does not keep up: {bytes} bytes wait to be written"),
            1,
        ),
        WriteError::Closed => Status::new(503, "ServiceUnavailable", "the server is shutting down"),
    }
}

/// What follows from a change that is stored: served kinds and addresses.
pub(crate) fn after(context: &RequestContext<'_>, old: Option<&Value>, new: Option<&Value>) {
    if context.dry_run() {
        return;
    }
    if context.kind.is(Builtin::CustomResourceDefinition) {
        let spec = |object: Option<&Value>| object.and_then(|object| object.get("spec")).cloned();
        if spec(old) != spec(new) {
            context.server.reload();
        }
    }
    builtin::after(context, old, new);
}

/// Removes an object for good; answers its last form.
pub(crate) async fn erase(
    context: &RequestContext<'_>,
    entry: &Entry,
    last: &Value,
) -> Result<Bytes, Status> {
    let form = conversion::stored_form(context.server, &context.kind, last).await?;
    erase_form(context, entry, last, &form).await
}

/// Removes an object whose stored form is known.
pub(crate) async fn erase_form(
    context: &RequestContext<'_>,
    entry: &Entry,
    last: &Value,
    form: &Value,
) -> Result<Bytes, Status> {
    let name = object::name(last);
    if context.dry_run() {
        return Ok(entry.value.clone());
    }
    let durability = durability(context, last, Some(last));
    let template = Template::new(form);
    let key = context.kind.key(&context.info.namespace, name);
    let removed = context.server.store.delete(
        &key,
        Expect::Revision(entry.modified),
        durability,
        |revision| template.stamp(revision),
    );
    let bytes = match removed {
        Ok(write) => {
            write
                .settled()
                .await
                .map_err(|error| refused(context, name, &error))?
                .1
        }
        Err(kinglet_store::WriteError::Conflict { current: Some(_) }) => {
            return Err(Status::modified(
                &context.kind.group,
                &context.kind.plural,
                name,
            ));
        }
        Err(error) => return Err(refused(context, name, &error)),
    };
    after(context, Some(last), None);
    crd::after_removal(context).await?;
    Ok(bytes)
}
