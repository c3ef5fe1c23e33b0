//! `create`, `update`, `patch`: from an object as sent to an object as stored.

use bytes::Bytes;
use kinglet_store::{Durability, Entry, Expect, WriteError};
use serde_json::Value;

use crate::admission::{AdmissionRequest, Denied, Operation};
use crate::body::Answer;
use crate::builtin;
use crate::decode;
use crate::dispatch::Call;
use crate::kinds::Builtin;
use crate::object::{self, Template, at, blank, carry, meta, text};
use crate::present;
use crate::server::WriteFacts;
use crate::status::{Cause, Status};
use crate::{crd, names, ownership, patching, quota, rules};

/// How often a patch is tried again when another write comes in between.
const PATCH_TRIES: usize = 5;
/// How often another generated name is tried.
const NAME_TRIES: usize = 8;

pub(crate) async fn create(call: &mut Call<'_>) -> Result<Answer, Status> {
    let mut object = decode::value(call)?;
    decode::check_kind(call, &mut object)?;
    decode::check_place(call, &mut object)?;
    let stored = create_object(call, object, None).await?;
    Ok(decode::answer(call, 201, &stored))
}

/// Creates an object that has been read and placed, perhaps by a patch.
async fn create_object(
    call: &mut Call<'_>,
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
    prepare_create(call, &mut object);
    check_namespace(call, object::name(&object))?;
    rules::shape(call, &mut object)?;
    // What admission adds belongs to nobody.
    if !tracked {
        ownership::track(call, None, &mut object);
    }
    if call.kind.is(Builtin::Pod) {
        builtin::pods::await_account(call, &object).await;
    }
    builtin::on_create(call, &mut object)?;
    admit(call, Operation::Create, &mut object, None, true)?;
    if call.kind.is(Builtin::CustomResourceDefinition) {
        crd::establish(call.core, &mut object, None);
    }
    // Quota and CRDs are decided on what is there and stored before anybody else decides.
    let core = call.core;
    let _turn = match call.kind.builtin {
        Some(Builtin::CustomResourceDefinition) => Some(core.turn.lock().await),
        Some(Builtin::Pod) if quota::applies(core, &call.place.namespace) => {
            Some(core.turn.lock().await)
        }
        _ => None,
    };
    if call.kind.is(Builtin::Pod) {
        quota::check(call, &object)?;
    }
    for _ in 0..NAME_TRIES {
        if generated {
            let room = 63 - 5;
            let stem: String = generate.chars().take(room).collect();
            meta(&mut object).insert("name".to_owned(), format!("{stem}{}", core.suffix()).into());
        }
        let causes = validate(call, &object, None);
        if !causes.is_empty() {
            return Err(Status::invalid(
                &call.kind.group,
                &call.kind.kind,
                shown_name(&object, &generate),
                &causes,
            ));
        }
        admit(call, Operation::Create, &mut object, None, false)?;
        builtin::claim(call, &mut object)?;
        match store(call, &object, None).await {
            Err(status) if generated && status.reason == "AlreadyExists" => {}
            Err(status) => {
                builtin::unclaim(call, &object);
                return Err(status);
            }
            Ok(stored) => {
                after(call, None, Some(&object));
                return Ok(stored);
            }
        }
    }
    Err(Status::already_exists(
        &call.kind.group,
        &call.kind.plural,
        object::name(&object),
    ))
}

fn shown_name<'a>(object: &'a Value, generate: &'a str) -> &'a str {
    match object::name(object) {
        "" => generate,
        name => name,
    }
}

/// The metadata that only the server sets.
fn prepare_create(call: &Call<'_>, object: &mut Value) {
    let (core, kind) = (call.core, &call.kind);
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
    metadata.insert("uid".to_owned(), core.uuid().into());
    metadata.insert("creationTimestamp".to_owned(), core.now().into());
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
    // A node comes with what it is; everything else begins without a past.
    if kind.has_status
        && !kind.is(Builtin::Node)
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
}

/// An object needs a living namespace.
fn check_namespace(call: &Call<'_>, name: &str) -> Result<(), Status> {
    if !call.kind.namespaced {
        return Ok(());
    }
    let namespace = &call.place.namespace;
    let Some(entry) = call.core.store.get(&format!("core/namespaces/{namespace}")) else {
        return Err(Status::not_found("", "namespaces", namespace));
    };
    let living: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
    if object::is_deleting(&living) {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let mut status = Status::forbidden(&call.kind.group, &call.kind.plural, name, &why);
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

/// Asks the injected admission; `changing` is the first pass.
pub(crate) fn admit(
    call: &mut Call<'_>,
    operation: Operation,
    object: &mut Value,
    old: Option<&Value>,
    changing: bool,
) -> Result<(), Status> {
    let Some(admission) = call.core.options.admission.clone() else {
        return Ok(());
    };
    if !call.place.subresource.is_empty() {
        return Ok(());
    }
    // What the second pass changes is not kept.
    let mut copy;
    let object = if changing {
        object
    } else {
        copy = object.clone();
        &mut copy
    };
    let name = object::name(if object.is_null() {
        old.unwrap_or(object)
    } else {
        object
    })
    .to_owned();
    let kind = std::sync::Arc::clone(&call.kind);
    let mut request = AdmissionRequest {
        operation,
        group: &kind.group,
        version: &kind.version,
        kind: &kind.kind,
        resource: &kind.plural,
        namespace: &call.place.namespace,
        name: &name,
        user: call.who,
        dry_run: call.query.has("dryRun"),
        object,
        old,
    };
    let verdict = if changing {
        admission.admit(&mut request)
    } else {
        admission.check(&mut request)
    };
    match verdict {
        Ok(warnings) => {
            call.warnings.extend(warnings);
            Ok(())
        }
        Err(Denied {
            code,
            message,
            warnings,
        }) => {
            call.warnings.extend(warnings);
            let reason = match code {
                400 => "BadRequest",
                403 => "Forbidden",
                409 => "Conflict",
                422 => "Invalid",
                _ => "",
            };
            Err(Status::new(code, reason, message))
        }
    }
}

/// Everything that is wrong with an object.
fn validate(call: &Call<'_>, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = names::check_metadata(object, call.kind.names, call.kind.namespaced);
    rules::validate(call, object, old, &mut causes);
    causes
}

pub(crate) async fn update(call: &mut Call<'_>) -> Result<Answer, Status> {
    let mut object = decode::value(call)?;
    decode::check_kind(call, &mut object)?;
    decode::check_place(call, &mut object)?;
    let key = call.kind.key(&call.place.namespace, &call.place.name);
    let Some(entry) = call.core.store.get(&key) else {
        if call.kind.builtin.is_some_and(Builtin::creates_on_update)
            && call.place.subresource.is_empty()
        {
            meta(&mut object).remove("resourceVersion");
            let stored = create_object(call, object, None).await?;
            return Ok(decode::answer(call, 201, &stored));
        }
        return Err(call.not_found(&call.place.name));
    };
    if blank(at(&object, &["metadata", "resourceVersion"])) && call.kind.builtin.is_none() {
        let cause = Cause::invalid(
            "metadata.resourceVersion",
            &0.into(),
            "must be specified for an update",
        );
        return Err(Status::invalid(
            &call.kind.group,
            &call.kind.plural,
            &call.place.name,
            &[cause],
        ));
    }
    let old = present::object(&call.kind, &entry.value);
    let stored = replace(call, &entry, &old, object, None).await?;
    Ok(decode::answer(call, 200, &stored))
}

pub(crate) async fn patch(call: &mut Call<'_>) -> Result<Answer, Status> {
    let patch = patching::read(call)?;
    let key = call.kind.key(&call.place.namespace, &call.place.name);
    let mut tries = 0;
    loop {
        tries += 1;
        let Some(entry) = call.core.store.get(&key) else {
            if patch.creates() && call.place.subresource.is_empty() {
                let mut object = patch.apply(call, None)?;
                decode::check_kind(call, &mut object)?;
                decode::check_place(call, &mut object)?;
                match create_object(call, object, Some(&patch)).await {
                    Err(status) if status.reason == "AlreadyExists" && tries < PATCH_TRIES => {
                        continue;
                    }
                    Err(status) => return Err(status),
                    Ok(stored) => return Ok(decode::answer(call, 201, &stored)),
                }
            }
            return Err(call.not_found(&call.place.name));
        };
        let old = present::object(&call.kind, &entry.value);
        let mut object = patch.apply(call, Some(&old))?;
        let (kept, warned) = (call.warnings.len(), std::mem::take(&mut call.warnings));
        decode::check_kind(call, &mut object)?;
        decode::check_place(call, &mut object)?;
        // A patch that names a version wants exactly that one; any other takes what is there.
        let own = text(&object, &["metadata", "resourceVersion"])
            != text(&old, &["metadata", "resourceVersion"]);
        call.warnings = warned;
        match replace(call, &entry, &old, object, Some(&patch)).await {
            Err(status) if status.reason == "Conflict" && !own && tries < PATCH_TRIES => {
                call.warnings.truncate(kept)
            }
            Err(status) => return Err(status),
            Ok(stored) => return Ok(decode::answer(call, 200, &stored)),
        }
    }
}

/// Puts a changed object in the place of the old one.
pub(crate) async fn replace(
    call: &mut Call<'_>,
    entry: &Entry,
    old: &Value,
    mut object: Value,
    patch: Option<&patching::Patch>,
) -> Result<Bytes, Status> {
    let (group, plural, name) = (
        call.kind.group.clone(),
        call.kind.plural.clone(),
        object::name(old).to_owned(),
    );
    let asked = text(&object, &["metadata", "resourceVersion"]).to_owned();
    if !asked.is_empty() && asked != entry.modified.to_string() {
        return Err(Status::modified(&group, &plural, &name));
    }
    let (given, uid) = (text(&object, &["metadata", "uid"]), object::uid(old));
    if !given.is_empty() && given != uid {
        return Err(Status::conflict(
            &group,
            &plural,
            &name,
            &format!(
                "Precondition failed: UID in precondition: {given}, UID in object meta: {uid}"
            ),
        ));
    }
    prepare_update(call, &mut object, old);
    if call.place.subresource.is_empty() || call.kind.builtin.is_none() {
        rules::shape(call, &mut object)
            .map_err(|status| patch.map_or(status.clone(), |_| as_invalid(call, status)))?;
    }
    restrict(call, &mut object, old);
    if patch.is_none_or(|patch| !patch.tracks()) {
        ownership::track(call, Some(old), &mut object);
    }
    builtin::on_update(call, &mut object, old)?;
    admit(call, Operation::Update, &mut object, Some(old), true)?;
    if call.kind.is(Builtin::CustomResourceDefinition) && call.place.subresource.is_empty() {
        crd::establish(call.core, &mut object, Some(old));
    }
    count_generation(call, &mut object, old);
    let mut causes = validate(call, &object, Some(old));
    check_finalizers(&object, old, &mut causes);
    if !causes.is_empty() {
        return Err(Status::invalid(&group, &call.kind.kind, &name, &causes));
    }
    admit(call, Operation::Update, &mut object, Some(old), false)?;
    object::set_revision(&mut object, entry.modified);
    if ownership::only_times_differ(old, &object) {
        return Ok(entry.value.clone());
    }
    if finished_deleting(call, &object) {
        return crate::remove::erase(call, entry, &object).await;
    }
    let stored = store(call, &object, Some((entry, old))).await?;
    after(call, Some(old), Some(&object));
    Ok(stored)
}

/// A patch whose result has the wrong types is an invalid object, not a malformed request.
fn as_invalid(call: &Call<'_>, status: Status) -> Status {
    match status.message.split_once(": json: ") {
        Some((_, why)) if status.code == 400 => {
            let cause = Cause {
                field: "patch".to_owned(),
                reason: "FieldValueInvalid",
                message: format!("Invalid value: json: {why}"),
            };
            Status::invalid(
                &call.kind.group,
                &call.kind.kind,
                &call.place.name,
                &[cause],
            )
        }
        _ => status,
    }
}

/// What an update may not touch.
fn prepare_update(call: &Call<'_>, object: &mut Value, old: &Value) {
    let old_meta = old.get("metadata").cloned().unwrap_or_default();
    let metadata = meta(object);
    for key in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ] {
        carry(&old_meta, metadata, key);
    }
    metadata.remove("selfLink");
    if metadata.get("managedFields").is_none() {
        carry(&old_meta, metadata, "managedFields");
    }
    for key in ["labels", "annotations", "finalizers", "ownerReferences"] {
        if metadata.get(key).is_some_and(|value| blank(Some(value))) {
            metadata.remove(key);
        }
    }
    if call.kind.is(Builtin::Pod)
        || metadata
            .get("generateName")
            .is_some_and(|value| blank(Some(value)))
    {
        carry(&old_meta, metadata, "generateName");
    }
}

/// `/status` changes only the status, everything else only the rest.
fn restrict(call: &Call<'_>, object: &mut Value, old: &Value) {
    if call.place.subresource == "status" {
        let mut result = old.clone();
        carry(object, object::fields(&mut result), "status");
        let new_meta = object.get("metadata").cloned().unwrap_or_default();
        let metadata = meta(&mut result);
        carry(&new_meta, metadata, "managedFields");
        if matches!(call.kind.builtin, Some(Builtin::Node | Builtin::Pod)) {
            carry(&new_meta, metadata, "labels");
            carry(&new_meta, metadata, "annotations");
        }
        *object = result;
    } else if call.kind.has_status {
        carry(old, object::fields(object), "status");
    }
}

/// A changed wish counts up the generation.
fn count_generation(call: &Call<'_>, object: &mut Value, old: &Value) {
    if !call.kind.generations || call.place.subresource == "status" {
        return;
    }
    let changed = if call.kind.builtin.is_some() && !call.kind.is(Builtin::EndpointSlice) {
        object.get("spec") != old.get("spec")
    } else {
        let rest = |value: &Value| -> Vec<(String, Value)> {
            let skip_status = call.kind.has_status;
            value
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(key, _)| {
                    !(matches!(key.as_str(), "metadata" | "apiVersion" | "kind")
                        || skip_status && *key == "status")
                })
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        };
        let labels = |value: &Value| at(value, &["metadata", "labels"]).cloned();
        rest(object) != rest(old)
            || (call.kind.is(Builtin::EndpointSlice) && labels(object) != labels(old))
    };
    if changed {
        let generation = object::number(old, &["metadata", "generation"]).unwrap_or(0) + 1;
        meta(object).insert("generation".to_owned(), generation.into());
    }
}

fn check_finalizers(object: &Value, old: &Value, causes: &mut Vec<Cause>) {
    if !object::is_deleting(old) {
        return;
    }
    let before = object::finalizers(old);
    let fresh: Vec<String> = object::finalizers(object)
        .into_iter()
        .filter(|finalizer| !before.contains(finalizer))
        .map(|f| format!("\"{f}\""))
        .collect();
    if !fresh.is_empty() {
        causes.push(Cause::forbidden(
            "metadata.finalizers",
            &format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                fresh.join(", ")
            ),
        ));
    }
}

/// Was this update the last thing a deletion waited for?
fn finished_deleting(call: &Call<'_>, object: &Value) -> bool {
    object::is_deleting(object)
        && object::finalizers(object).is_empty()
        && object::number(object, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0) == 0
        && (!call.kind.is(Builtin::Namespace)
            || object::items(object, &["spec", "finalizers"]).is_empty())
}

/// How durable a write must be.
pub(crate) fn durability(call: &Call<'_>, object: &Value, old: Option<&Value>) -> Durability {
    let options = &call.core.options;
    let fleeting = call.kind.builtin.is_some_and(Builtin::is_fleeting)
        || options
            .fleeting
            .iter()
            .any(|(group, plural)| *group == call.kind.group && *plural == call.kind.plural);
    if fleeting {
        return Durability::Memory;
    }
    if call.in_process() {
        let facts = WriteFacts {
            group: &call.kind.group,
            resource: &call.kind.plural,
            subresource: &call.place.subresource,
            create: old.is_none(),
            object,
            old,
        };
        return if (options.synced)(&facts) {
            Durability::Synced
        } else {
            Durability::Trailing
        };
    }
    Durability::Synced
}

/// Writes a change that the server itself made, past defaults and rules.
pub(crate) async fn put_raw(
    call: &Call<'_>,
    entry: &Entry,
    old: &Value,
    new: &Value,
) -> Result<Bytes, Status> {
    let stored = store(call, new, Some((entry, old))).await?;
    after(call, Some(old), Some(new));
    Ok(stored)
}

/// Writes the object where it belongs, if nothing came in between.
async fn store(
    call: &Call<'_>,
    object: &Value,
    old: Option<(&Entry, &Value)>,
) -> Result<Bytes, Status> {
    let kind = &call.kind;
    let name = object::name(object);
    let key = kind.key(&call.place.namespace, name);
    let stored;
    let form = if kind.converts {
        let mut converted = object.clone();
        present::to_stored(kind, &mut converted);
        stored = converted;
        &stored
    } else {
        object
    };
    let template = Template::new(form);
    let expect = old.map_or(Expect::Absent, |(entry, _)| {
        Expect::Revision(entry.modified)
    });
    if call.dry_run() {
        let current = call.core.store.get(&key);
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
    let durability = durability(call, object, old.map(|(_, old)| old));
    let written = call.core.store.put(&key, expect, durability, |revision| {
        template.stamp(revision)
    });
    match written {
        Ok(write) => match write.settled().await {
            Ok((_, bytes)) => Ok(bytes),
            Err(error) => Err(refused(call, name, &error)),
        },
        Err(error) => Err(refused(call, name, &error)),
    }
}

/// A store's refusal in Kubernetes' words.
pub(crate) fn refused(call: &Call<'_>, name: &str, error: &WriteError) -> Status {
    let kind = &call.kind;
    match error {
        WriteError::Conflict { current: Some(_) } if call.place.name.is_empty() => {
            Status::already_exists(&kind.group, &kind.plural, name)
        }
        WriteError::Conflict { current: Some(_) } => {
            Status::modified(&kind.group, &kind.plural, name)
        }
        WriteError::Conflict { current: None } => call.not_found(name),
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
pub(crate) fn after(call: &Call<'_>, old: Option<&Value>, new: Option<&Value>) {
    if call.dry_run() {
        return;
    }
    if call.kind.is(Builtin::CustomResourceDefinition) {
        let spec = |object: Option<&Value>| object.and_then(|object| object.get("spec")).cloned();
        if spec(old) != spec(new) {
            call.core.reload();
        }
    }
    builtin::after(call, old, new);
}
