//! A new object: the metadata that the server sets, defaults, admission, rules, the store.

use bytes::Bytes;
use serde_json::Value;

use crate::admission::Operation;
use crate::auth::escalation;
use crate::builtin;
use crate::context::RequestContext;
use crate::kinds::Builtin;
use crate::object::{self, at, blank, meta, text};
use crate::status::Status;
use crate::{admit, commit, conversion, crd, ownership, patching, pod_security, quota, rules};

/// Longest generated name: a label.
const NAME_MAX: usize = 63;
/// How often another generated name is tried.
const NAME_TRIES: usize = 8;

/// Creates an object that a create or a patch brings.
pub(super) async fn create_object(
    context: &mut RequestContext<'_>,
    mut object: Value,
    patch: Option<&patching::Patch>,
) -> Result<Bytes, Status> {
    if !blank(at(&object, &["metadata", "resourceVersion"])) {
        return Err(Status::new(
            500,
            "",
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let generate = text(&object, &["metadata", "generateName"]).to_owned();
    let generated = object::name(&object).is_empty() && !generate.is_empty();
    let tracked = patch.is_some_and(patching::Patch::tracks);
    if !tracked {
        meta(&mut object).remove("managedFields");
    }
    prepare_create(context, &mut object);
    check_namespace(context, object::name(&object))?;
    rules::shape(context, &mut object, None)?;
    // No manager owns what admission adds.
    if !tracked {
        ownership::track(context, None, &mut object).await?;
    }
    if context.kind.is(Builtin::Pod) {
        builtin::pods::await_account(context, &object).await;
    }
    builtin::on_create(context, &mut object)?;
    admit::admit(context, Operation::Create, &mut object, None, true)?;
    let server = context.server;
    let waits = context.kind.conversion.as_ref().is_some_and(|c| c.waits());
    for _ in 0..NAME_TRIES {
        if generated {
            generate_name(context, &mut object, &generate);
        }
        builtin::named(context, &mut object);
        // A webhook that hangs must not hold the turn of others.
        let converted = if waits {
            review(context, &mut object, &generate)?;
            let form = conversion::stored_form(server, &context.kind, &object).await?;
            Some(form.into_owned())
        } else {
            None
        };
        let _turn = turn(context).await;
        if context.kind.is(Builtin::CustomResourceDefinition) {
            crd::establish(server, &mut object, None);
        }
        if context.kind.namespaced {
            quota::check(context, &object)?;
        }
        if !waits {
            review(context, &mut object, &generate)?;
        }
        builtin::claim(context, &mut object)?;
        let written = match &converted {
            Some(form) => commit::store_form(context, &object, form, None).await,
            None => commit::store(context, &object, None).await,
        };
        match written {
            Err(status) if generated && status.reason == "AlreadyExists" => {}
            Err(status) => {
                builtin::unclaim(context, &object);
                return Err(status);
            }
            Ok(stored) => {
                commit::after(context, None, Some(&object));
                return Ok(stored);
            }
        }
    }
    Err(Status::already_exists(
        &context.kind.group,
        &context.kind.plural,
        object::name(&object),
    ))
}

/// Quota and CRDs are judged by what is stored, so one write at a time is judged and stored.
async fn turn<'s>(context: &RequestContext<'s>) -> Option<tokio::sync::MutexGuard<'s, ()>> {
    let server = context.server;
    let judged = context.kind.is(Builtin::CustomResourceDefinition)
        || context.kind.namespaced && quota::applies(server, &context.info.namespace);
    if judged {
        Some(server.turn.lock().await)
    } else {
        None
    }
}

/// Gives the object a name that begins with `generateName`, which is cut so that the name fits a label.
fn generate_name(context: &RequestContext<'_>, object: &mut Value, generate: &str) {
    let suffix = context.server.suffix();
    let stem: String = generate.chars().take(NAME_MAX - suffix.len()).collect();
    meta(object).insert("name".to_owned(), format!("{stem}{suffix}").into());
}

/// Judges a complete object: rules, pod security, escalation of rights, validating admission.
fn review(
    context: &mut RequestContext<'_>,
    object: &mut Value,
    generate: &str,
) -> Result<(), Status> {
    let causes = rules::validate_all(context, object, None);
    if !causes.is_empty() {
        return Err(Status::invalid(
            &context.kind.group,
            &context.kind.kind,
            shown_name(object, generate),
            &causes,
        ));
    }
    pod_security::review(context, object)?;
    escalation::review(context, object, None)?;
    admit::admit(context, Operation::Create, object, None, false)?;
    Ok(())
}

fn shown_name<'a>(object: &'a Value, generate: &'a str) -> &'a str {
    match object::name(object) {
        "" => generate,
        name => name,
    }
}

/// Sets the metadata that only the server sets.
fn prepare_create(context: &RequestContext<'_>, object: &mut Value) {
    let (server, kind) = (context.server, &context.kind);
    let metadata = meta(object);
    for key in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "resourceVersion",
        "generation",
    ] {
        metadata.remove(key);
    }
    metadata.insert("uid".to_owned(), server.uuid().into());
    metadata.insert("creationTimestamp".to_owned(), server.now().into());
    if kind.generations || kind.builtin.is_none() {
        metadata.insert("generation".to_owned(), 1.into());
    }
    for key in ["labels", "annotations", "finalizers", "ownerReferences"] {
        if metadata.get(key).is_some_and(|value| blank(Some(value))) {
            metadata.remove(key);
        }
    }
    if metadata
        .get("generateName")
        .is_some_and(|value| blank(Some(value)))
    {
        metadata.remove("generateName");
    }
    // Only a Node brings its status.
    if kind.has_status
        && !kind.is(Builtin::Node)
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
}

/// Refuses an object whose namespace is missing or being deleted.
fn check_namespace(context: &RequestContext<'_>, name: &str) -> Result<(), Status> {
    if !context.kind.namespaced {
        return Ok(());
    }
    let namespace = &context.info.namespace;
    let Some(entry) = context
        .server
        .store
        .get(&format!("core/namespaces/{namespace}"))
    else {
        return Err(Status::not_found("", "namespaces", namespace));
    };
    let living: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
    if object::is_deleting(&living) {
        let detail = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let mut status =
            Status::forbidden(&context.kind.group, &context.kind.plural, name, &detail);
        status.details.insert(
            "causes".to_owned(),
            serde_json::json!([{
                "reason": "NamespaceTerminating", "message": format!("namespace {namespace} is being terminated"), "field": "metadata.namespace",
            }]),
        );
        return Err(status);
    }
    Ok(())
}
