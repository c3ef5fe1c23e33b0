//! Objects of a kind with several versions, from one into another (spec/eventing.md 4.3).
//!
//! The API server calls [`convert`] for the kinds that [`converts`] names; every other kind only changes its `apiVersion`.
//! Metadata and status stay as they are. What one version cannot say is lost on the way, as in Knative, but for the reference
//! of an EventType that names only a Broker.

use serde_json::{Map, Value, json};

use crate::eventing;

/// Whether objects of a kind change their form between versions.
pub fn converts(group: &str, kind: &str) -> bool {
    group == eventing::GROUP && kind == "EventType"
}

/// Returns `object` in the version `to_version` (`v1beta3`) of its group. Kinds whose versions are alike, such as PingSource,
/// only change their `apiVersion`.
pub fn convert(mut object: Value, to_version: &str) -> Result<Value, String> {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let Some((group, version)) = api_version.split_once('/') else {
        return Err(format!(
            "converting an object to {to_version}: its apiVersion {api_version:?} has no group"
        ));
    };
    let (group, version) = (group.to_owned(), version.to_owned());
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    if converts(&group, &kind) && version != to_version {
        let spec = object.get("spec").cloned().unwrap_or_else(|| json!({}));
        let spec = event_type_spec(&spec, &version, to_version)
            .map_err(|why| format!("converting {kind} from {version} to {to_version}: {why}"))?;
        object["spec"] = spec;
    }
    object["apiVersion"] = json!(format!("{group}/{to_version}"));
    Ok(object)
}

/// The spec of an EventType in another version.
pub(crate) fn event_type_spec(spec: &Value, from: &str, to: &str) -> Result<Value, String> {
    let middle = match from {
        "v1beta1" => with_reference(spec),
        "v1beta2" => spec.clone(),
        "v1beta3" => from_attributes(spec),
        other => return Err(format!("there is no version {other}")),
    };
    match to {
        "v1beta1" | "v1beta2" => Ok(middle),
        "v1beta3" => Ok(to_attributes(&with_reference(&middle))),
        other => Err(format!("there is no version {other}")),
    }
}

/// A Broker by name becomes a reference to it, unless there is one already.
fn with_reference(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let Some(fields) = spec.as_object_mut() else {
        return spec;
    };
    let broker = fields
        .get("broker")
        .and_then(Value::as_str)
        .filter(|broker| !broker.is_empty())
        .map(str::to_owned);
    if let Some(broker) = broker
        && fields.get("reference").is_none_or(Value::is_null)
    {
        fields.insert(
            "reference".to_owned(),
            json!({"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": broker}),
        );
    }
    spec
}

fn to_attributes(spec: &Value) -> Value {
    let text = |field: &str| spec[field].as_str().filter(|text| !text.is_empty());
    let mut attributes = vec![
        json!({"name": "specversion", "required": true}),
        json!({"name": "id", "required": true}),
    ];
    for (field, name, required) in [
        ("type", "type", true),
        ("source", "source", true),
        ("schema", "schemadata", false),
    ] {
        if let Some(value) = text(field) {
            attributes.push(json!({"name": name, "required": required, "value": value}));
        }
    }
    let mut into = Map::new();
    copy(spec, &mut into, &["reference", "description"]);
    into.insert("attributes".to_owned(), Value::Array(attributes));
    Value::Object(into)
}

fn from_attributes(spec: &Value) -> Value {
    let mut into = Map::new();
    into.insert("type".to_owned(), json!(""));
    copy(spec, &mut into, &["reference", "description"]);
    for attribute in spec["attributes"].as_array().into_iter().flatten() {
        let field = match attribute["name"].as_str() {
            Some("type") => "type",
            Some("source") => "source",
            Some("schemadata") => "schema",
            _ => continue,
        };
        let value = attribute["value"].as_str().unwrap_or_default();
        if field == "type" || !value.is_empty() {
            into.insert(field.to_owned(), json!(value));
        }
    }
    Value::Object(into)
}

fn copy(from: &Value, into: &mut Map<String, Value>, fields: &[&str]) {
    for field in fields {
        if let Some(value) = from.get(*field).filter(|value| !value.is_null()) {
            into.insert((*field).to_owned(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event_type(version: &str, spec: &Value) -> Value {
        json!({"apiVersion": format!("eventing.knative.dev/{version}"), "kind": "EventType",
            "metadata": {"name": "x"}, "spec": spec, "status": {"observedGeneration": 1}})
    }

    #[test]
    fn event_types_change_their_form() {
        let reference =
            json!({"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "b"});
        let rows = [
            (
                "v1beta1",
                json!({"type": "t", "broker": "b"}),
                "v1beta2",
                json!({"type": "t", "broker": "b", "reference": reference}),
            ),
            (
                "v1beta2",
                json!({"type": "t", "source": "/s", "schema": "http://x/y", "schemaData": "{}", "description": "d"}),
                "v1beta3",
                json!({"description": "d", "attributes": [
                    {"name": "specversion", "required": true}, {"name": "id", "required": true},
                    {"name": "type", "required": true, "value": "t"}, {"name": "source", "required": true, "value": "/s"},
                    {"name": "schemadata", "required": false, "value": "http://x/y"},
                ]}),
            ),
            (
                "v1beta3",
                json!({"reference": reference, "attributes": [
                    {"name": "source", "required": true, "value": "/s"}, {"name": "type", "required": true, "value": "t"},
                    {"name": "schemadata", "required": false, "value": "http://x/y"}, {"name": "other", "required": false, "value": "o"},
                ]}),
                "v1beta2",
                json!({"type": "t", "source": "/s", "schema": "http://x/y", "reference": reference}),
            ),
            (
                "v1beta2",
                json!({"type": "t", "broker": "b"}),
                "v1beta3",
                json!({"reference": reference, "attributes": [
                    {"name": "specversion", "required": true}, {"name": "id", "required": true},
                    {"name": "type", "required": true, "value": "t"},
                ]}),
            ),
            (
                "v1beta3",
                json!({"attributes": []}),
                "v1beta1",
                json!({"type": ""}),
            ),
        ];
        for (from, spec, to, want) in rows {
            assert_eq!(
                convert(event_type(from, &spec), to),
                Ok(event_type(to, &want)),
                "{from} to {to}"
            );
        }
    }

    /// What is stored in the middle version comes back as it was written, whatever it was written in.
    #[test]
    fn a_way_there_and_back_keeps_what_both_can_say() {
        let spec = json!({"type": "t", "source": "/s", "schema": "http://x/y", "description": "d",
            "reference": {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "b"}});
        let stored = event_type("v1beta2", &spec);
        for version in ["v1beta1", "v1beta2", "v1beta3"] {
            let there = convert(stored.clone(), version).unwrap();
            assert_eq!(convert(there, "v1beta2"), Ok(stored.clone()), "{version}");
        }
    }

    #[test]
    fn alike_versions_only_change_their_name() {
        let ping = json!({"apiVersion": "sources.knative.dev/v1beta2", "kind": "PingSource", "spec": {"schedule": "* * * * *"}});
        let converted = convert(ping, "v1").unwrap();
        assert_eq!(converted["apiVersion"], "sources.knative.dev/v1");
        assert_eq!(converted["spec"]["schedule"], "* * * * *");
        assert!(convert(event_type("v1beta1", &json!({})), "v2").is_err());
        assert!(convert(json!({"apiVersion": "v1", "kind": "Pod"}), "v2").is_err());
    }
}
