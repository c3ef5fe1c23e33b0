//! CustomResourceDefinitions: which kinds they bring, their conditions, their end.

mod conversion;
mod versions;

use serde_json::{Value, json};

use crate::context::RequestContext;
use crate::kinds::Kind;
use crate::kinds::custom::{FOLDER, conditions};
use crate::names;
use crate::object::{self, child, fields, meta, text};
use crate::state::ServerState;
use crate::status::{Cause, Status};
pub(crate) use versions::validate_status;

const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Fills in names and conversion of a definition.
pub(crate) fn default(definition: &mut Value) {
    let spec = child(fields(definition), "spec");
    let kind = spec
        .get("names")
        .and_then(|names| names.get("kind"))
        .and_then(Value::as_str)
        .unwrap_or("")
        .to_owned();
    let names = child(spec, "names");
    object::default_text(names, "singular", &kind.to_lowercase());
    object::default_text(names, "listKind", &format!("{kind}List"));
    conversion::fill(spec);
    if let Some(preserve) = spec.get("preserveUnknownFields")
        && preserve == false
    {
        spec.remove("preserveUnknownFields");
    }
}

/// Judges a definition.
pub(crate) fn validate(definition: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &definition["spec"];
    let (group, plural) = (text(spec, &["group"]), text(spec, &["names", "plural"]));
    let name = object::name(definition);
    if name != format!("{plural}.{group}") {
        causes.push(Cause::invalid(
            "metadata.name",
            &name.into(),
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    if group.is_empty() {
        causes.push(Cause::required("spec.group", ""));
    } else if let Some(wrong) = names::subdomain(group) {
        causes.push(Cause::invalid("spec.group", &group.into(), &wrong));
    } else if !group.contains('.') {
        causes.push(Cause::invalid(
            "spec.group",
            &group.into(),
            "should be a domain with at least one dot",
        ));
    }
    match text(spec, &["scope"]) {
        "" => causes.push(Cause::required("spec.scope", "")),
        "Namespaced" | "Cluster" => {}
        other => causes.push(Cause::unsupported(
            "spec.scope",
            &other.into(),
            &["Cluster", "Namespaced"],
        )),
    }
    for field in ["plural", "singular", "kind", "listKind"] {
        let value = text(spec, &["names", field]);
        let path = format!("spec.names.{field}");
        if value.is_empty() {
            causes.push(Cause::required(path, ""));
        } else if let Some(wrong) = names::label_1035(&value.to_lowercase()) {
            causes.push(Cause::invalid(path, &value.into(), &wrong));
        }
    }
    versions::validate(spec, causes);
    conversion::validate(spec, causes);
    if let Some(old) = old {
        validate_unchanged(spec, &old["spec"], causes);
        versions::validate_stored(definition, causes);
    }
}

/// Refuses changes of the names under which objects are stored.
fn validate_unchanged(spec: &Value, old: &Value, causes: &mut Vec<Cause>) {
    for field in ["group", "scope"] {
        if spec[field] != old[field] {
            causes.push(Cause::invalid(
                format!("spec.{field}"),
                &spec[field],
                "field is immutable",
            ));
        }
    }
    for field in ["plural", "kind"] {
        if spec["names"][field] != old["names"][field] {
            causes.push(Cause::invalid(
                format!("spec.names.{field}"),
                &spec["names"][field],
                "field is immutable",
            ));
        }
    }
}

/// Accepts names and establishes the definition, unless its names are taken.
pub(crate) fn establish(server: &ServerState, definition: &mut Value, old: Option<&Value>) {
    let now = server.now();
    let (group, wanted) = (
        text(definition, &["spec", "group"]).to_owned(),
        definition["spec"]["names"].clone(),
    );
    let registry = server.registry.load();
    let own = object::name(definition).to_owned();
    let taken = registry.all().find(|kind| {
        kind.group == group
            && kind.definition.as_deref() != Some(&own)
            && (kind.plural == wanted["plural"] || kind.kind == wanted["kind"])
    });
    let list = acceptance(taken.map(AsRef::as_ref), &wanted, old, &now);
    if old.is_none() {
        add_finalizer(definition);
    }
    let stored = versions::stored(definition);
    let status = child(fields(definition), "status");
    status.insert("acceptedNames".to_owned(), wanted);
    status.insert("conditions".to_owned(), Value::Array(list));
    status.insert("storedVersions".to_owned(), Value::Array(stored));
}

/// Returns the conditions that accept or refuse the names, given the kind that has one of them already.
fn acceptance(taken: Option<&Kind>, wanted: &Value, old: Option<&Value>, now: &str) -> Vec<Value> {
    let before = old.map(conditions).unwrap_or_default();
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        let since = before
            .iter()
            .find(|c| text(c, &["type"]) == kind && text(c, &["status"]) == status)
            .map_or(now, |c| text(c, &["lastTransitionTime"]));
        json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since})
    };
    let Some(kind) = taken else {
        let established = "the initial names have been accepted";
        return vec![
            condition("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
            condition("Established", "True", "InitialNamesAccepted", established),
        ];
    };
    let (reason, name) = if kind.plural == wanted["plural"] {
        ("PluralConflict", &wanted["plural"])
    } else {
        ("KindConflict", &wanted["kind"])
    };
    let in_use = format!("{name} is already in use");
    vec![
        condition("NamesAccepted", "False", reason, &in_use),
        condition(
            "Established",
            "False",
            "NotAccepted",
            "not all names are accepted",
        ),
    ]
}

/// Adds the finalizer that keeps the definition until its objects are gone.
fn add_finalizer(definition: &mut Value) {
    let finalizers = meta(definition)
        .entry("finalizers")
        .or_insert_with(|| json!([]));
    if let Some(list) = finalizers.as_array_mut()
        && !list.iter().any(|f| f == FINALIZER)
    {
        list.push(FINALIZER.into());
    }
}

/// Adds the condition `Terminating` to a definition that is being deleted.
pub(crate) fn mark_terminating(definition: &mut Value, now: &str) {
    let status = child(fields(definition), "status");
    let mut list: Vec<Value> = status
        .get("conditions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if !list.iter().any(|c| text(c, &["type"]) == "Terminating") {
        list.push(json!({
            "type": "Terminating", "status": "True", "reason": "InstanceDeletionInProgress",
            "message": "CustomResource deletion is in progress", "lastTransitionTime": now,
        }));
    }
    status.insert("conditions".to_owned(), Value::Array(list));
}

/// Removes the definition of a removed object if it is being deleted and this was its last object.
pub(crate) async fn after_removal(context: &RequestContext<'_>) -> Result<(), Status> {
    let Some(name) = &context.kind.definition else {
        return Ok(());
    };
    let Some(entry) = context.server.store.get(&format!("{FOLDER}{name}")) else {
        return Ok(());
    };
    let definition: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
    if object::is_deleting(&definition) {
        finish(context, &definition).await
    } else {
        Ok(())
    }
}

/// Removes a definition that has no objects left.
pub(crate) async fn finish(context: &RequestContext<'_>, definition: &Value) -> Result<(), Status> {
    let name = object::name(definition);
    let prefix = format!(
        "{}/{}/",
        text(definition, &["spec", "group"]),
        text(definition, &["spec", "names", "plural"])
    );
    if context.server.store.count(&prefix) > 0 {
        return Ok(());
    }
    let key = format!("{FOLDER}{name}");
    let Some(entry) = context.server.store.get(&key) else {
        return Ok(());
    };
    let mut last: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
    let others: Vec<String> = object::finalizers(&last)
        .into_iter()
        .filter(|finalizer| finalizer != FINALIZER)
        .collect();
    if !others.is_empty() {
        return Ok(());
    }
    meta(&mut last).remove("finalizers");
    let template = object::Template::new(&last);
    let removed = context.server.store.delete(
        &key,
        kinglet_store::Expect::Revision(entry.modified),
        kinglet_store::Durability::Synced,
        |r| template.stamp(r),
    );
    if let Ok(write) = removed {
        write.settled().await.map_err(Status::internal)?;
        context.server.reload();
    }
    Ok(())
}
