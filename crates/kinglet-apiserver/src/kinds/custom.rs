//! The kinds that CustomResourceDefinitions bring.

use std::sync::Arc;

use kinglet_store::Store;
use serde_json::Value;

use super::{Kind, Scale};
use crate::names::NameRule;
use crate::object::{self, items, text};
use crate::printer_columns::Columns;
use crate::schema::Schema;

/// Where the store keeps definitions.
pub(crate) const FOLDER: &str = "apiextensions.k8s.io/customresourcedefinitions/";

/// Returns all definitions in the store.
pub(crate) fn stored(store: &Store) -> Vec<Value> {
    let page = store.list(FOLDER, None, 0, None);
    let entries = page.map(|page| page.entries).unwrap_or_default();
    entries
        .iter()
        .filter_map(|(_, entry)| serde_json::from_slice(&entry.value).ok())
        .collect()
}

/// Returns the kinds that a definition brings, one for each served version.
pub(crate) fn kinds(definition: &Value) -> Vec<Kind> {
    let established = conditions(definition)
        .iter()
        .any(|c| text(c, &["type"]) == "Established" && text(c, &["status"]) == "True");
    if !established {
        return Vec::new();
    }
    let versions = items(&definition["spec"], &["versions"]);
    let storage = versions
        .iter()
        .find(|v| v["storage"] == true)
        .map_or("", |v| text(v, &["name"]));
    versions
        .iter()
        .filter(|version| version["served"] == true)
        .map(|version| kind(definition, version, storage))
        .collect()
}

/// Returns the kind of one version; `storage` is the version in which its objects are stored.
fn kind(definition: &Value, version: &Value, storage: &str) -> Kind {
    let spec = &definition["spec"];
    let group = text(spec, &["group"]);
    let names = &definition["status"]["acceptedNames"];
    let plural = text(names, &["plural"]);
    let name = text(version, &["name"]);
    let subresources = &version["subresources"];
    let texts = |list: &[Value]| {
        list.iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect::<Vec<_>>()
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
        stored_version: super::api_version(group, storage),
        converts: items(spec, &["versions"]).len() > 1,
        has_status: subresources
            .get("status")
            .is_some_and(|status| !status.is_null()),
        scale: scale(subresources),
        extra: &[],
        names: NameRule::Subdomain,
        generations: true,
        columns: Columns::custom(items(version, &["additionalPrinterColumns"])),
        schema: schema(definition, version),
        definition: Some(object::name(definition).to_owned()),
        absent: None,
        deprecation: deprecation(version, group, text(names, &["kind"])),
        review: false,
    }
}

/// Compiles the schema of a version; one that does not compile checks nothing, and the log says so.
fn schema(definition: &Value, version: &Value) -> Option<Arc<Schema>> {
    let schema = version.pointer("/schema/openAPIV3Schema")?;
    match Schema::compile(schema) {
        Ok(schema) => Some(Arc::new(schema)),
        Err(error) => {
            tracing::warn!(
                definition = object::name(definition),
                version = text(version, &["name"]),
                error,
                "schema not used"
            );
            None
        }
    }
}

/// Returns where the scale subresource finds its fields.
fn scale(subresources: &Value) -> Option<Scale> {
    let path = |field: &str| {
        let path = text(subresources, &["scale", field]);
        (!path.is_empty()).then(|| {
            path.trim_start_matches('.')
                .split('.')
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
    };
    path("specReplicasPath")
        .zip(path("statusReplicasPath"))
        .map(|(spec_path, status_path)| Scale {
            spec_path,
            status_path,
            selector_path: path("labelSelectorPath"),
        })
}

/// Returns the warning of a deprecated version.
fn deprecation(version: &Value, group: &str, kind: &str) -> Option<String> {
    (version["deprecated"] == true).then(|| match text(version, &["deprecationWarning"]) {
        "" => format!("{group}/{} {kind} is deprecated", text(version, &["name"])),
        warning => warning.to_owned(),
    })
}

pub(crate) fn conditions(definition: &Value) -> &[Value] {
    items(definition, &["status", "conditions"])
}
