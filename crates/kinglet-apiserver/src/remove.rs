//! `delete` and `deletecollection`: grace, finalizers, propagation, preconditions.

use bytes::Bytes;
use kinglet_store::{Entry, Expect};
use serde_json::{Value, json};

use crate::admission::Operation;
use crate::body::{Answer, json, json_bytes};
use crate::decode;
use crate::dispatch::Call;
use crate::kinds::Builtin;
use crate::object::{self, Template, meta, number, text};
use crate::present::{self, Presenter};
use crate::read;
use crate::status::{Cause, Status, deleted};
use crate::{crd, write};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// How often a delete without a wanted version is tried again.
const TRIES: usize = 5;

/// `DeleteOptions`, from body or query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    grace_seconds: Option<i64>,
    propagation: Option<String>,
    uid: Option<String>,
    revision: Option<String>,
    dry_run: bool,
}

pub(crate) fn wish(call: &mut Call<'_>) -> Result<Wish, Status> {
    let mut options = Value::Null;
    if !call.body.is_empty() {
        let protobuf = call
            .content_type
            .starts_with("application/vnd.kubernetes.protobuf");
        options = if protobuf {
            crate::protobuf::decode(&call.body).map_err(|error| {
                Status::bad_request(format!("decoding the delete options: {error}"))
            })?
        } else {
            decode::parse(&call.body, decode::Strictness::Ignore)?.0
        };
    }
    let query = &call.query;
    let propagation = match text(&options, &["propagationPolicy"]) {
        "" => query.get("propagationPolicy"),
        policy => policy,
    };
    let orphan = options
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
    let some =
        |path: &[&str]| Some(text(&options, path).to_owned()).filter(|value| !value.is_empty());
    Ok(Wish {
        grace_seconds: number(&options, &["gracePeriodSeconds"])
            .or_else(|| query.number("gracePeriodSeconds")),
        propagation,
        uid: some(&["preconditions", "uid"]),
        revision: some(&["preconditions", "resourceVersion"]),
        dry_run: query.has("dryRun") || !object::items(&options, &["dryRun"]).is_empty(),
    })
}

pub(crate) async fn delete(call: &mut Call<'_>) -> Result<Answer, Status> {
    let wish = wish(call)?;
    let name = call.place.name.clone();
    match delete_one(call, &name, &wish).await? {
        Outcome::Gone(last) => {
            let object = present::object(&call.kind, &last);
            if call.kind.builtin.is_some_and(Builtin::returns_deleted) {
                return Ok(json(200, &object));
            }
            Ok(json(
                200,
                &deleted(
                    &call.kind.group,
                    &call.kind.plural,
                    &name,
                    object::uid(&object),
                ),
            ))
        }
        Outcome::Waits(now) => Ok(json_bytes(200, present::convert(&call.kind, &now))),
    }
}

pub(crate) async fn delete_collection(call: &mut Call<'_>) -> Result<Answer, Status> {
    if call.kind.is(Builtin::Namespace) || call.kind.is(Builtin::Service) {
        return Err(Status::method_not_allowed());
    }
    let wish = wish(call)?;
    let selector = read::selector(call)?;
    let prefix = call.kind.range(&call.place.namespace);
    let page = call
        .core
        .store
        .list(&prefix, None, 0, None)
        .map_err(Status::internal)?;
    let mut removed = Vec::new();
    let place = call.place.clone();
    for (key, entry) in page.entries {
        let here = key[call.kind.prefix.len()..].to_owned();
        if !selector.matches(&here, &entry.value) {
            continue;
        }
        let (namespace, name) = here.rsplit_once('/').unwrap_or(("", &here));
        call.place.namespace = namespace.to_owned();
        call.place.name = name.to_owned();
        match delete_one(call, name, &wish).await {
            Ok(Outcome::Gone(value) | Outcome::Waits(value)) => removed.push(value),
            Err(status) if status.code == 404 => {}
            Err(status) => {
                call.place = place;
                return Err(status);
            }
        }
    }
    call.place = place;
    let presenter = Presenter::new(
        &call.kind,
        crate::accept::Form::Plain,
        &call.query,
        call.core.options.clock.now(),
    )?;
    let metadata = [(
        "resourceVersion".to_owned(),
        call.core.store.revision().to_string().into(),
    )]
    .into_iter()
    .collect();
    Ok(json_bytes(200, presenter.list(&removed, &metadata)))
}

pub(crate) enum Outcome {
    /// Removed; its last form.
    Gone(Bytes),
    /// Marked; something or somebody must finish first.
    Waits(Bytes),
}

/// Deletes one object, again if another write comes in between.
pub(crate) async fn delete_one(
    call: &mut Call<'_>,
    name: &str,
    wish: &Wish,
) -> Result<Outcome, Status> {
    let key = call.kind.key(&call.place.namespace, name);
    let mut tries = 0;
    loop {
        tries += 1;
        let entry = call
            .core
            .store
            .get(&key)
            .ok_or_else(|| call.not_found(name))?;
        match attempt(call, name, &entry, wish).await {
            Err(status)
                if status.reason == "Conflict" && wish.revision.is_none() && tries < TRIES =>
            {
                let raced = call
                    .core
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
    call: &mut Call<'_>,
    name: &str,
    entry: &Entry,
    wish: &Wish,
) -> Result<Outcome, Status> {
    let old = present::object(&call.kind, &entry.value);
    let (group, plural) = (call.kind.group.clone(), call.kind.plural.clone());
    if let Some(uid) = &wish.uid
        && uid != object::uid(&old)
    {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            object::uid(&old)
        );
        return Err(Status::conflict(&group, &plural, name, &why));
    }
    if let Some(revision) = &wish.revision
        && *revision != entry.modified.to_string()
    {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {revision}, ResourceVersion in object meta: {}",
            entry.modified
        );
        return Err(Status::conflict(&group, &plural, name, &why));
    }
    if call.kind.is(Builtin::Namespace) && matches!(name, "default" | "kube-system" | "kube-public")
    {
        return Err(Status::forbidden(
            &group,
            &plural,
            name,
            "this namespace may not be deleted",
        ));
    }
    write::admit(call, Operation::Delete, &mut Value::Null, Some(&old), true)?;
    write::admit(call, Operation::Delete, &mut Value::Null, Some(&old), false)?;
    let mut new = old.clone();
    let waits = mark(call, &mut new, &old, wish);
    if !waits {
        if wish.dry_run {
            return Ok(Outcome::Gone(entry.value.clone()));
        }
        let mut last = old.clone();
        if object::is_deleting(&old) && call.kind.is(Builtin::Pod) {
            meta(&mut last).insert("deletionGracePeriodSeconds".to_owned(), 0.into());
        }
        return erase(call, entry, &last).await.map(Outcome::Gone);
    }
    if new == old || wish.dry_run {
        return Ok(Outcome::Waits(Bytes::from(new.to_string())));
    }
    let durability = write::durability(call, &new, Some(&old));
    present::to_stored(&call.kind, &mut new);
    let template = Template::new(&new);
    let put = call.core.store.put(
        &call.kind.key(&call.place.namespace, name),
        Expect::Revision(entry.modified),
        durability,
        |revision| template.stamp(revision),
    );
    let stored = match put {
        Ok(write) => {
            write
                .settled()
                .await
                .map_err(|error| write::refused(call, name, &error))?
                .1
        }
        Err(kinglet_store::WriteError::Conflict { current: Some(_) }) => {
            return Err(Status::modified(&group, &plural, name));
        }
        Err(error) => return Err(write::refused(call, name, &error)),
    };
    write::after(call, Some(&old), Some(&new));
    if call.kind.is(Builtin::CustomResourceDefinition) {
        crd::empty(call, &new).await?;
    }
    Ok(Outcome::Waits(stored))
}

/// Marks an object as going; does it have to wait?
fn mark(call: &Call<'_>, new: &mut Value, old: &Value, wish: &Wish) -> bool {
    let grace = grace(call, old, wish);
    let finalizers = finalizers(old, wish);
    let deleting = object::is_deleting(old);
    let metadata = meta(new);
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), json!(finalizers));
    }
    let holds =
        call.kind.is(Builtin::Namespace) && !object::items(old, &["spec", "finalizers"]).is_empty();
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
    let now = call.core.options.clock.now();
    let end = now
        .checked_add(jiff::SignedDuration::from_secs(grace))
        .unwrap_or(now);
    metadata.insert(
        "deletionTimestamp".to_owned(),
        end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(),
    );
    if !call.kind.is(Builtin::Namespace) {
        metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
    }
    if call.kind.is(Builtin::Namespace) {
        object::child(object::fields(new), "status")
            .insert("phase".to_owned(), "Terminating".into());
    }
    if call.kind.is(Builtin::CustomResourceDefinition) {
        crd::mark_terminating(new, &call.core.now());
    }
    true
}

/// Only pods that run somewhere get time.
fn grace(call: &Call<'_>, old: &Value, wish: &Wish) -> i64 {
    if !call.kind.is(Builtin::Pod) {
        return 0;
    }
    if text(old, &["spec", "nodeName"]).is_empty()
        || matches!(text(old, &["status", "phase"]), "Succeeded" | "Failed")
    {
        return 0;
    }
    let grace = wish
        .grace_seconds
        .or_else(|| number(old, &["spec", "terminationGracePeriodSeconds"]))
        .unwrap_or(30);
    // A negative period of old means "at once, but in good order".
    if grace < 0 { 1 } else { grace }
}

/// The finalizers after a wish for propagation.
fn finalizers(old: &Value, wish: &Wish) -> Vec<String> {
    let mut finalizers = object::finalizers(old);
    let Some(policy) = wish.propagation.as_deref() else {
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

/// Removes an object for good; answers its last form.
pub(crate) async fn erase(call: &Call<'_>, entry: &Entry, last: &Value) -> Result<Bytes, Status> {
    let name = object::name(last);
    if call.dry_run() {
        return Ok(entry.value.clone());
    }
    let durability = write::durability(call, last, Some(last));
    let mut stored = last.clone();
    present::to_stored(&call.kind, &mut stored);
    let template = Template::new(&stored);
    let key = call.kind.key(&call.place.namespace, name);
    let removed = call.core.store.delete(
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
                .map_err(|error| write::refused(call, name, &error))?
                .1
        }
        Err(kinglet_store::WriteError::Conflict { current: Some(_) }) => {
            return Err(Status::modified(&call.kind.group, &call.kind.plural, name));
        }
        Err(error) => return Err(write::refused(call, name, &error)),
    };
    write::after(call, Some(last), None);
    crd::after_removal(call).await?;
    Ok(bytes)
}
