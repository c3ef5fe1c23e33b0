//! `spec.versions` and `status.storedVersions`: which versions there are, and in which of them objects may lie in the store.

use serde_json::Value;

use crate::kinds::api_version;
use crate::names;
use crate::object::{items, text};
use crate::schema::Schema;
use crate::state::ServerState;
use crate::status::Cause;

/// Longest deprecation warning; the real server's bound.
const WARNING_CHARS_MAX: usize = 256;

/// Judges `spec.versions`.
pub(super) fn validate(spec: &Value, causes: &mut Vec<Cause>) {
    let versions = items(spec, &["versions"]);
    let mut wrong = |field: &str, value: Value, detail: &str| {
        causes.push(Cause::invalid(field, &value, detail));
    };
    let name = |version: &Value| text(version, &["name"]).to_owned();
    let mut known: Vec<String> = versions.iter().map(name).collect();
    known.sort();
    known.dedup();
    if known.len() < versions.len() {
        wrong(
            "spec.versions",
            Value::Array(Vec::new()),
            "must contain unique version names",
        );
    }
    let storage = versions
        .iter()
        .filter(|version| version["storage"] == true)
        .count();
    if storage != 1 {
        wrong(
            "spec.versions",
            Value::Array(Vec::new()),
            "must have exactly one version marked as storage version",
        );
    }
    if storage == 0 {
        wrong(
            "status.storedVersions",
            Value::Null,
            "must have at least one stored version",
        );
    }
    for (index, version) in versions.iter().enumerate() {
        validate_version(version, &format!("spec.versions[{index}]"), causes);
    }
}

fn validate_version(version: &Value, path: &str, causes: &mut Vec<Cause>) {
    if let Some(wrong) = names::label_1035(text(version, &["name"])) {
        causes.push(Cause::invalid(
            format!("{path}.name"),
            &version["name"],
            &wrong,
        ));
    }
    if let Some(warning) = version.get("deprecationWarning").and_then(Value::as_str) {
        let field = format!("{path}.deprecationWarning");
        if let Some(detail) = wrong_warning(warning, version["deprecated"] == true) {
            causes.push(Cause::invalid(field, &warning.into(), &detail));
        }
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

/// What is wrong with a deprecation warning, if anything.
fn wrong_warning(warning: &str, deprecated: bool) -> Option<String> {
    if !deprecated {
        return Some("can only be set for deprecated versions".to_owned());
    }
    if warning.is_empty() {
        return Some("must not be an empty string".to_owned());
    }
    if warning.chars().count() > WARNING_CHARS_MAX {
        return Some(format!("must be <= {WARNING_CHARS_MAX} characters long"));
    }
    let at = warning.char_indices().find(|(_, c)| c.is_control());
    at.map(|(index, _)| {
        format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {index}"
        )
    })
}

/// Refuses to take away a version in which objects may be stored.
pub(super) fn validate_stored(definition: &Value, causes: &mut Vec<Cause>) {
    let versions = items(definition, &["spec", "versions"]);
    for (index, stored) in items(definition, &["status", "storedVersions"])
        .iter()
        .enumerate()
    {
        if versions.iter().any(|version| version["name"] == *stored) {
            continue;
        }
        let name = stored.as_str().unwrap_or("");
        causes.push(Cause::invalid(
            format!("status.storedVersions[{index}]"),
            stored,
            &format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            ),
        ));
    }
}

/// Judges a changed status: a version goes from the list only when no object is stored in it. The real server leaves that to
/// the one who writes, and objects are lost to his mistake.
pub(crate) fn validate_status(
    server: &ServerState,
    definition: &Value,
    old: Option<&Value>,
    causes: &mut Vec<Cause>,
) {
    let listed = items(definition, &["status", "storedVersions"]);
    let gone = old
        .map_or(&[][..], |old| items(old, &["status", "storedVersions"]))
        .iter()
        .filter(|version| !listed.contains(version));
    let place = "status.storedVersions";
    let shown = Value::Array(listed.to_vec());
    for version in gone {
        let name = version.as_str().unwrap_or("");
        let storage = items(definition, &["spec", "versions"])
            .iter()
            .any(|each| each["name"] == *version && each["storage"] == true);
        if storage {
            let detail = format!("must have the storage version {name}");
            causes.push(Cause::invalid(place, &shown, &detail));
            continue;
        }
        let count = stored_in(server, definition, name);
        if count > 0 {
            let detail = format!(
                "{name} cannot be dropped: {count} objects are stored in it; write each of them once, as with kubectl get and kubectl replace"
            );
            causes.push(Cause::invalid(place, &shown, &detail));
        }
    }
}

/// Counts the objects that are stored in a version.
fn stored_in(server: &ServerState, definition: &Value, version: &str) -> usize {
    let group = text(definition, &["spec", "group"]);
    let prefix = format!(
        "{group}/{}/",
        text(definition, &["spec", "names", "plural"])
    );
    let wanted = api_version(group, version);
    let page = server.store.list(&prefix, None, 0, None);
    page.map_or(0, |page| {
        page.entries
            .iter()
            .filter(|(_, entry)| crate::conversion::is_in(&entry.value, &wanted))
            .count()
    })
}

/// Returns the versions in which objects may be stored: the earlier ones and the present one.
pub(super) fn stored(definition: &Value) -> Vec<Value> {
    let mut stored = items(definition, &["status", "storedVersions"]).to_vec();
    for version in items(definition, &["spec", "versions"]) {
        let name = &version["name"];
        if version["storage"] == true && !stored.contains(name) {
            stored.push(text(version, &["name"]).into());
        }
    }
    stored
}
