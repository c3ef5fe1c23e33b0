//! CustomResourceDefinitions: which kinds they bring, their conditions, their end.

use std::sync::Arc;

use kinglet_store::Store;
use serde_json::{Value, json};

use crate::dispatch::Call;
use crate::kinds::{Kind, Scale};
use crate::names::{self, NameRule};
use crate::object::{self, child, fields, items, meta, text};
use crate::remove;
use crate::schema::Schema;
use crate::server::Core;
use crate::status::{Cause, Status};
use crate::table::Columns;

const FOLDER: &str = "apiextensions.k8s.io/customresourcedefinitions/";
const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// All definitions in the store.
pub(crate) fn stored(store: &Store) -> Vec<Value> {
    let page = store.list(FOLDER, None, 0, None);
    let entries = page.map(|page| page.entries).unwrap_or_default();
    entries
        .iter()
        .filter_map(|(_, entry)| serde_json::from_slice(&entry.value).ok())
        .collect()
}

/// The kinds that a definition brings: one for each served version.
pub(crate) fn kinds(definition: &Value) -> Vec<Kind> {
    let established = conditions(definition)
        .iter()
        .any(|c| text(c, &["type"]) == "Established" && text(c, &["status"]) == "True");
    if !established {
        return Vec::new();
    }
    let spec = &definition["spec"];
    let group = text(spec, &["group"]);
    let names = &definition["status"]["acceptedNames"];
    let plural = text(names, &["plural"]);
    let versions = items(spec, &["versions"]);
    let storage = versions
        .iter()
        .find(|v| v["storage"] == true)
        .map_or("", |v| text(v, &["name"]));
    let texts = |list: &[Value]| {
        list.iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    versions
        .iter()
        .filter(|version| version["served"] == true)
        .map(|version| {
            let name = text(version, &["name"]);
            let subresources = &version["subresources"];
            let schema = version
                .pointer("/schema/openAPIV3Schema")
                .and_then(|schema| match Schema::compile(schema) {
                    Ok(schema) => Some(Arc::new(schema)),
                    Err(error) => {
                        tracing::warn!(
                            definition = object::name(definition),
                            version = name,
                            error,
                            "schema not used"
                        );
                        None
                    }
                });
            let path = |field: &str| {
                let path = text(subresources, &["scale", field]);
                (!path.is_empty()).then(|| {
                    path.trim_start_matches('.')
                        .split('.')
                        .map(str::to_owned)
                        .collect::<Vec<_>>()
                })
            };
            Kind {
                group: group.to_owned(),
                version: name.to_owned(),
                kind: text(names, &["kind"]).to_owned(),
                plural: plural.to_owned(),
                singular: text(names, &["singular"]).to_owned(),
                list_kind: text(names, &["listKind"]).to_owned(),
                short_names: texts(items(names, &["shortNames"])),
                categories: texts(items(names, &["categories"])),
                namespaced: text(spec, &["scope"]) == "Namespaced",
                builtin: None,
                prefix: format!("{group}/{plural}/"),
                stored_version: crate::kinds::api_version(group, storage),
                converts: versions.len() > 1,
                has_status: subresources
                    .get("status")
                    .is_some_and(|status| !status.is_null()),
                scale: path("specReplicasPath")
                    .zip(path("statusReplicasPath"))
                    .map(|(spec_path, status_path)| Scale {
                        spec_path,
                        status_path,
                        selector_path: path("labelSelectorPath"),
                    }),
                extra: &[],
                names: NameRule::Subdomain,
                generations: true,
                columns: Columns::custom(items(version, &["additionalPrinterColumns"])),
                schema,
                definition: Some(object::name(definition).to_owned()),
                review: false,
            }
        })
        .collect()
}

fn conditions(definition: &Value) -> &[Value] {
    items(definition, &["status", "conditions"])
}

/// Fills in what the API server fills in.
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
    let conversion = child(spec, "conversion");
    object::default_text(conversion, "strategy", "None");
    if let Some(preserve) = spec.get("preserveUnknownFields")
        && preserve == false
    {
        spec.remove("preserveUnknownFields");
    }
}

/// What is wrong with a definition.
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
    let versions = items(spec, &["versions"]);
    if versions.is_empty() {
        causes.push(Cause::required(
            "spec.versions",
            "must have at least one version",
        ));
    }
    let storage = versions
        .iter()
        .filter(|version| version["storage"] == true)
        .count();
    if !versions.is_empty() && storage != 1 {
        causes.push(Cause::invalid(
            "spec.versions",
            &Value::Array(Vec::new()),
            "must have exactly one version marked as storage version",
        ));
    }
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        if let Some(wrong) = names::label_1035(text(version, &["name"])) {
            causes.push(Cause::invalid(
                format!("{path}.name"),
                &version["name"],
                &wrong,
            ));
        }
        match version.pointer("/schema/openAPIV3Schema") {
            None => causes.push(Cause::required(
                format!("{path}.schema.openAPIV3Schema"),
                "schemas are required",
            )),
            Some(schema) => {
                if let Err(error) = Schema::compile(schema) {
                    causes.push(Cause::invalid(
                        format!("{path}.schema.openAPIV3Schema"),
                        &Value::String("schema".into()),
                        &error,
                    ));
                }
            }
        }
        for (at, column) in items(version, &["additionalPrinterColumns"])
            .iter()
            .enumerate()
        {
            for field in ["name", "type", "jsonPath"] {
                if text(column, &[field]).is_empty() {
                    causes.push(Cause::required(
                        format!("{path}.additionalPrinterColumns[{at}].{field}"),
                        "",
                    ));
                }
            }
        }
    }
    let strategy = text(spec, &["conversion", "strategy"]);
    if strategy == "Webhook" {
        causes.push(Cause::invalid(
            "spec.conversion.strategy",
            &strategy.into(),
            "conversion webhooks are not supported by Kinglet; use None",
        ));
    }
    if let Some(old) = old {
        for field in ["group", "scope"] {
            if spec[field] != old["spec"][field] {
                causes.push(Cause::invalid(
                    format!("spec.{field}"),
                    &spec[field],
                    "field is immutable",
                ));
            }
        }
        for field in ["plural", "kind"] {
            if spec["names"][field] != old["spec"]["names"][field] {
                causes.push(Cause::invalid(
                    format!("spec.names.{field}"),
                    &spec["names"][field],
                    "field is immutable",
                ));
            }
        }
    }
}

/// Accepts names and establishes the definition, unless its names are taken.
pub(crate) fn establish(core: &Core, definition: &mut Value, old: Option<&Value>) {
    let now = core.now();
    let (group, wanted) = (
        text(definition, &["spec", "group"]).to_owned(),
        definition["spec"]["names"].clone(),
    );
    let registry = core.registry.load();
    let own = object::name(definition).to_owned();
    let taken = registry.all().find(|kind| {
        kind.group == group
            && kind.definition.as_deref() != Some(&own)
            && (kind.plural == wanted["plural"] || kind.kind == wanted["kind"])
    });
    let before: Vec<Value> = old.map(|old| conditions(old).to_vec()).unwrap_or_default();
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        let since = before
            .iter()
            .find(|c| text(c, &["type"]) == kind && text(c, &["status"]) == status)
            .map_or(now.as_str(), |c| text(c, &["lastTransitionTime"]));
        json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since})
    };
    let list = match taken {
        None => vec![
            condition("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
            condition(
                "Established",
                "True",
                "InitialNamesAccepted",
                "the initial names have been accepted",
            ),
        ],
        Some(kind) => vec![
            condition(
                "NamesAccepted",
                "False",
                if kind.plural == wanted["plural"] {
                    "PluralConflict"
                } else {
                    "KindConflict"
                },
                &format!(
                    "{} is already in use",
                    if kind.plural == wanted["plural"] {
                        &wanted["plural"]
                    } else {
                        &wanted["kind"]
                    }
                ),
            ),
            condition(
                "Established",
                "False",
                "NotAccepted",
                "not all names are accepted",
            ),
        ],
    };
    let storage: Vec<String> = items(definition, &["spec", "versions"])
        .iter()
        .filter(|v| v["storage"] == true)
        .map(|v| text(v, &["name"]).to_owned())
        .collect();
    if old.is_none() {
        let metadata = meta(definition);
        let list = metadata.entry("finalizers").or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut()
            && !list.iter().any(|f| f == FINALIZER)
        {
            list.push(FINALIZER.into());
        }
    }
    let status = child(fields(definition), "status");
    let mut stored: Vec<Value> = status
        .get("storedVersions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    for version in storage {
        if !stored.iter().any(|known| *known == version) {
            stored.push(version.into());
        }
    }
    status.insert("acceptedNames".to_owned(), wanted);
    status.insert("conditions".to_owned(), Value::Array(list));
    status.insert("storedVersions".to_owned(), Value::Array(stored));
}

/// Says in the conditions that the definition goes.
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

/// Deletes all objects of a definition that goes; those with finalizers finish later.
pub(crate) async fn empty(call: &mut Call<'_>, definition: &Value) -> Result<(), Status> {
    let Some(kind) = kinds(definition).into_iter().next().map(Arc::new) else {
        return finish(call, definition).await;
    };
    let (own_kind, own_place) = (Arc::clone(&call.kind), call.place.clone());
    let page = call
        .core
        .store
        .list(&kind.prefix, None, 0, None)
        .map_err(Status::internal)?;
    for (key, _) in page.entries {
        let here = &key[kind.prefix.len()..];
        let (namespace, name) = here.rsplit_once('/').unwrap_or(("", here));
        call.kind = Arc::clone(&kind);
        call.place.group.clone_from(&kind.group);
        call.place.resource.clone_from(&kind.plural);
        call.place.namespace = namespace.to_owned();
        call.place.name = name.to_owned();
        // What cannot be deleted now keeps the definition; the condition says so.
        if let Err(status) =
            Box::pin(remove::delete_one(call, name, &remove::Wish::default())).await
        {
            tracing::warn!(%status, "deleting an object of a deleted definition");
        }
    }
    call.kind = own_kind;
    call.place = own_place;
    finish(call, definition).await
}

/// After an object is gone for good: was it the last thing its definition waited for?
pub(crate) async fn after_removal(call: &Call<'_>) -> Result<(), Status> {
    let Some(name) = &call.kind.definition else {
        return Ok(());
    };
    let Some(entry) = call.core.store.get(&format!("{FOLDER}{name}")) else {
        return Ok(());
    };
    let definition: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
    if object::is_deleting(&definition) {
        finish(call, &definition).await
    } else {
        Ok(())
    }
}

/// Removes a definition that has no objects left.
async fn finish(call: &Call<'_>, definition: &Value) -> Result<(), Status> {
    let name = object::name(definition);
    let prefix = format!(
        "{}/{}/",
        text(definition, &["spec", "group"]),
        text(definition, &["spec", "names", "plural"])
    );
    if call.core.store.count(&prefix) > 0 {
        return Ok(());
    }
    let key = format!("{FOLDER}{name}");
    let Some(entry) = call.core.store.get(&key) else {
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
    let removed = call.core.store.delete(
        &key,
        kinglet_store::Expect::Revision(entry.modified),
        kinglet_store::Durability::Synced,
        |r| template.stamp(r),
    );
    if let Ok(write) = removed {
        write.settled().await.map_err(Status::internal)?;
        call.core.reload();
    }
    Ok(())
}
