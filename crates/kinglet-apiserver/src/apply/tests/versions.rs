//! Managers that write in different versions of a kind whose field has another name in each.

use serde_json::{Value, json};

use super::super::*;
use super::{by, fields_of, refused};
use crate::schema::Schema;

#[derive(Debug)]
struct Birds {
    v1: Schema,
    v2: Schema,
}

fn schema(field: &str) -> Schema {
    Schema::compile(
        &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        field: {"type": "string"}, "eggs": {"type": "integer"}}}}}),
    )
    .unwrap()
}

fn birds() -> Birds {
    Birds {
        v1: schema("song"),
        v2: schema("tune"),
    }
}

impl Versions for Birds {
    fn types(&self, api_version: &str) -> Option<TypeInfo<'_>> {
        match api_version {
            "b/v1" => Some(TypeInfo::custom(&self.v1)),
            "b/v2" => Some(TypeInfo::custom(&self.v2)),
            _ => None,
        }
    }

    fn convert(&self, object: &Value, api_version: &str) -> Result<Value, Unconverted> {
        let mut out = object.clone();
        let (from, to) = match api_version {
            "b/v1" => ("tune", "song"),
            "b/v2" => ("song", "tune"),
            other => return Err(Unconverted(other.to_owned())),
        };
        out["apiVersion"] = api_version.into();
        if let Some(spec) = out.get_mut("spec").and_then(Value::as_object_mut)
            && let Some(value) = spec.remove(from)
        {
            spec.insert(to.to_owned(), value);
        }
        Ok(out)
    }
}

fn bird(version: &str, spec: Value) -> Value {
    json!({"apiVersion": version, "kind": "Bird", "metadata": {"name": "wren"}, "spec": spec})
}

impl Birds {
    /// Applies in a version; `live` may be in another one.
    fn apply(
        &self,
        live: Option<&Value>,
        manager: &str,
        version: &str,
        spec: Value,
        force: bool,
    ) -> Result<Value, ApplyError> {
        let live = live.map(|live| {
            if live["apiVersion"] == version {
                live.clone()
            } else {
                self.convert(live, version).unwrap()
            }
        });
        let types = self.types(version).unwrap().with_versions(self);
        apply(
            live.as_ref(),
            &bird(version, spec),
            by(manager),
            force,
            types,
        )
    }
}

#[test]
fn each_manager_keeps_its_version_and_conflicts_are_seen_across_them() {
    let birds = birds();
    let live = birds
        .apply(None, "one", "b/v1", json!({"song": "la"}), false)
        .unwrap();
    let live = birds
        .apply(Some(&live), "two", "b/v2", json!({"eggs": 3}), false)
        .unwrap();
    assert_eq!(live["spec"], json!({"tune": "la", "eggs": 3}));
    let versions: Vec<&Value> = live["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["apiVersion"])
        .collect();
    assert_eq!(versions, ["b/v1", "b/v2"]);
    assert_eq!(
        fields_of(&live, "one"),
        Some(&json!({"f:spec": {"f:song": {}}}))
    );
    // The same value in the other version is shared, another one is a conflict.
    birds
        .apply(
            Some(&live),
            "two",
            "b/v2",
            json!({"eggs": 3, "tune": "la"}),
            false,
        )
        .unwrap();
    let conflicts = refused(birds.apply(Some(&live), "two", "b/v2", json!({"tune": "lu"}), false));
    assert!(
        conflicts.message.contains("\"one\"") && conflicts.message.contains(".spec.song"),
        "{conflicts:?}"
    );
    let forced = birds
        .apply(Some(&live), "two", "b/v2", json!({"tune": "lu"}), true)
        .unwrap();
    assert_eq!(
        (fields_of(&forced, "one"), &forced["spec"]),
        (None, &json!({"tune": "lu"}))
    );
}

#[test]
fn what_a_manager_no_longer_applies_goes_also_when_it_has_moved_to_another_version() {
    let birds = birds();
    let live = birds
        .apply(None, "one", "b/v1", json!({"song": "la", "eggs": 2}), false)
        .unwrap();
    let moved = birds
        .apply(Some(&live), "one", "b/v2", json!({"eggs": 2}), false)
        .unwrap();
    assert_eq!(moved["spec"], json!({"eggs": 2}));
    let listed = moved["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(
        (listed.len(), &listed[0]["apiVersion"]),
        (1, &json!("b/v2"))
    );
    // What another manager owns in its version stays.
    let shared = birds
        .apply(Some(&live), "two", "b/v2", json!({"tune": "la"}), false)
        .unwrap();
    let left = birds
        .apply(Some(&shared), "one", "b/v1", json!({"eggs": 2}), false)
        .unwrap();
    assert_eq!(left["spec"], json!({"song": "la", "eggs": 2}));
}

#[test]
fn managers_of_a_version_that_is_gone_lose_their_fields() {
    let birds = birds();
    let live = birds
        .apply(None, "one", "b/v1", json!({"song": "la"}), false)
        .unwrap();
    let mut old = live.clone();
    old["metadata"]["managedFields"][0]["apiVersion"] = "b/v0".into();
    let next = birds
        .apply(Some(&old), "two", "b/v1", json!({"song": "lu"}), false)
        .unwrap();
    assert_eq!(fields_of(&next, "one"), None);
    let mut updated = old.clone();
    updated["spec"]["song"] = "lo".into();
    let types = birds.types("b/v1").unwrap().with_versions(&birds);
    super::super::track_update(Some(&old), &mut updated, by("three"), types).unwrap();
    assert_eq!(fields_of(&updated, "one"), None);
}
