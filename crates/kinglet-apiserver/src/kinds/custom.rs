//! The kinds that CustomResourceDefinitions bring.

use std::collections::BTreeMap;
use std::sync::Arc;

use kinglet_store::Store;
use serde_json::Value;

use super::{Kind, Scale, api_version};
use crate::conversion::{Conversion, Convert, Places, Strategy, VersionTypes, Webhook};
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

/// How definitions get their conversions.
#[derive(Clone, Copy)]
pub(crate) struct Converters<'a> {
    /// Functions of this process by the name of a definition.
    pub(crate) in_process: &'a [(String, Convert)],
    pub(crate) places: &'a Places,
}

/// Returns the kinds that a definition brings, one for each served version.
pub(crate) fn kinds(definition: &Value, converters: Converters<'_>) -> Vec<Kind> {
    let established = conditions(definition)
        .iter()
        .any(|c| text(c, &["type"]) == "Established" && text(c, &["status"]) == "True");
    if !established {
        return Vec::new();
    }
    let versions = items(&definition["spec"], &["versions"]);
    let known = Known::of(definition, converters);
    versions
        .iter()
        .filter(|version| version["served"] == true)
        .map(|version| kind(definition, version, &known))
        .collect()
}

/// Returns the kind in the version in which its objects are stored, served or not.
pub(crate) fn stored_kind(definition: &Value, converters: Converters<'_>) -> Option<Kind> {
    let version = items(&definition["spec"], &["versions"])
        .iter()
        .find(|version| version["storage"] == true)?;
    Some(kind(
        definition,
        version,
        &Known::of(definition, converters),
    ))
}

/// What all versions of a definition share.
struct Known {
    /// The `apiVersion` in which objects are stored.
    stored_version: String,
    types: BTreeMap<String, Option<Arc<Schema>>>,
    conversion: Option<Arc<Conversion>>,
}

impl Known {
    fn of(definition: &Value, converters: Converters<'_>) -> Self {
        let (spec, name) = (&definition["spec"], object::name(definition));
        let group = text(spec, &["group"]);
        let versions = items(spec, &["versions"]);
        let storage = versions
            .iter()
            .find(|version| version["storage"] == true)
            .map_or("", |version| text(version, &["name"]));
        let types: BTreeMap<String, Option<Arc<Schema>>> = versions
            .iter()
            .map(|version| {
                (
                    text(version, &["name"]).to_owned(),
                    schema(definition, version),
                )
            })
            .collect();
        let function = converters
            .in_process
            .iter()
            .find(|(of, _)| of.as_str() == name);
        let strategy = match (function, text(spec, &["conversion", "strategy"])) {
            (Some((_, convert)), _) => Strategy::InProcess(Arc::clone(convert)),
            (None, "Webhook") => Strategy::Webhook(Webhook::of(
                name,
                &spec["conversion"]["webhook"],
                converters.places,
            )),
            (None, _) => Strategy::None,
        };
        let conversion = (versions.len() > 1).then(|| {
            let versions = versions.iter().map(|version| {
                let short = text(version, &["name"]);
                let types = VersionTypes {
                    schema: types.get(short).cloned().flatten(),
                    has_status: has_status(version),
                };
                (api_version(group, short), types)
            });
            Arc::new(Conversion {
                versions: versions.collect(),
                strategy,
            })
        });
        Self {
            stored_version: api_version(group, storage),
            types,
            conversion,
        }
    }
}

fn has_status(version: &Value) -> bool {
    version
        .pointer("/subresources/status")
        .is_some_and(|status| !status.is_null())
}

/// Returns the kind of one version.
fn kind(definition: &Value, version: &Value, known: &Known) -> Kind {
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
        stored_version: known.stored_version.clone(),
        conversion: known.conversion.clone(),
        has_status: has_status(version),
        scale: scale(subresources),
        extra: &[],
        names: NameRule::Subdomain,
        generations: true,
        columns: Columns::custom(items(version, &["additionalPrinterColumns"])),
        schema: known.types.get(name).cloned().flatten(),
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
