//! `describe`: the object, its conditions, its events.

use serde_json::Value;

use crate::args::DescribeArgs;
use crate::client::{Connection, types_and_names};
use crate::discovery::Discovery;
use crate::table;

pub(crate) async fn run(args: &DescribeArgs) -> anyhow::Result<()> {
    let wanted = types_and_names(std::iter::once(&args.types).chain(&args.names))?;
    let connection = Connection::open(&args.target).await?;
    let discovery = Discovery::load(&connection).await?;
    let mut kinds = Vec::new();
    for (word, names) in &wanted {
        kinds.extend(
            discovery
                .find(word)?
                .into_iter()
                .map(|resource| (resource, names)),
        );
    }
    for (resource, names) in kinds {
        let found = match names.as_slice() {
            [] => connection
                .get(&resource.path(Some(&connection.namespace), None))
                .await?["items"]
                .as_array()
                .cloned()
                .unwrap_or_default(),
            names => {
                let mut found = Vec::new();
                for name in names {
                    found.push(
                        connection
                            .get(&resource.path(Some(&connection.namespace), Some(name)))
                            .await?,
                    );
                }
                found
            }
        };
        for object in found {
            crate::screen::show!("{}", show(&object, &resource.kind)?);
            let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
            let namespace = object["metadata"]["namespace"]
                .as_str()
                .unwrap_or("default");
            let events = connection
                .get(&format!(
                    "/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.uid={uid}"
                ))
                .await?;
            crate::screen::say!("{}", show_events(&events));
        }
    }
    Ok(())
}

fn show(object: &Value, kind: &str) -> anyhow::Result<String> {
    let mut out = table::align(&head(object, kind));
    let conditions = conditions(object);
    if conditions.len() > 1 {
        out.push_str("Conditions:\n");
        out.push_str(&table::align(&conditions));
    }
    for part in ["spec", "data", "status"] {
        out.push_str(&section(object, part)?);
    }
    Ok(out)
}

/// What the object is called, whose it is, and where it answers.
fn head(object: &Value, kind: &str) -> Vec<Vec<String>> {
    let row = |title: &str, pointer: &str| {
        let text = object.pointer(pointer).and_then(Value::as_str);
        vec![title.to_owned(), text.unwrap_or_default().to_owned()]
    };
    let mut rows = vec![
        row("Name:", "/metadata/name"),
        vec!["Kind:".to_owned(), kind.to_owned()],
    ];
    if object["metadata"]["namespace"].is_string() {
        rows.push(row("Namespace:", "/metadata/namespace"));
    }
    rows.push(row("Created:", "/metadata/creationTimestamp"));
    for (title, field) in [("Labels:", "labels"), ("Annotations:", "annotations")] {
        let pairs = object["metadata"][field].as_object().into_iter().flatten();
        let shown = pairs
            .filter(|(key, _)| *key != "kubectl.kubernetes.io/last-applied-configuration")
            .enumerate();
        rows.extend(shown.map(|(index, (key, value))| {
            let title = if index == 0 { title } else { "" };
            let value = value.as_str().unwrap_or_default();
            vec![title.to_owned(), format!("{key}={value}")]
        }));
    }
    if object["status"]["url"].is_string() {
        rows.push(row("URL:", "/status/url"));
    }
    rows
}

/// A heading, and a row per condition.
fn conditions(object: &Value) -> Vec<Vec<String>> {
    let mut rows = vec![
        ["  TYPE", "STATUS", "REASON", "MESSAGE"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let conditions = object["status"]["conditions"].as_array();
    rows.extend(conditions.into_iter().flatten().map(|condition| {
        let field = |name: &str| condition[name].as_str().unwrap_or_default().to_owned();
        vec![
            format!("  {}", field("type")),
            field("status"),
            field("reason"),
            field("message"),
        ]
    }));
    rows
}

/// A part of the object as YAML under its title; nothing where it is empty.
fn section(object: &Value, part: &str) -> anyhow::Result<String> {
    let mut value = object[part].clone();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("conditions");
        if object["kind"] == "Secret" && part == "data" {
            for secret in fields.values_mut() {
                let length = secret.as_str().map_or(0, str::len);
                *secret = Value::from(format!("{length} characters of base64"));
            }
        }
    }
    if value.as_object().is_none_or(|fields| fields.is_empty()) {
        return Ok(String::new());
    }
    let mut text = format!("{}{}:\n", part[..1].to_uppercase(), &part[1..]);
    for line in super::get::yaml(&value)?.lines() {
        text.push_str(&format!("  {line}\n"));
    }
    Ok(text)
}

/// When an event was last seen; the oldest are shown first.
fn last_seen(event: &Value) -> String {
    let times = ["lastTimestamp", "eventTime", "firstTimestamp"]
        .map(|name| event[name].as_str().unwrap_or_default());
    times
        .into_iter()
        .find(|time| !time.is_empty())
        .unwrap_or_default()
        .to_owned()
}

fn show_events(events: &Value) -> String {
    let mut items = events["items"].as_array().cloned().unwrap_or_default();
    items.sort_by_key(last_seen);
    if items.is_empty() {
        return "Events:  <none>\n".to_owned();
    }
    let mut rows = vec![
        ["  TYPE", "REASON", "LAST SEEN", "COUNT", "MESSAGE"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for event in &items {
        let field = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        rows.push(vec![
            format!("  {}", field("type")),
            field("reason"),
            last_seen(event),
            event["count"].as_i64().unwrap_or(1).to_string(),
            field("message"),
        ]);
    }
    format!("Events:\n{}", table::align(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_with_its_conditions() {
        let object = json!({"kind": "Service", "metadata": {"name": "hello", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"a": "b", "c": "d"}, "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {"template": {"x": 1}}, "status": {"url": "http://hello.default.localhost", "conditions": [{"type": "Ready", "status": "False", "reason": "Broken", "message": "no such image"}]}});
        let text = show(&object, "Service").expect("shows");
        assert_eq!(
            text,
            "Name:        hello\nKind:        Service\nNamespace:   default\nCreated:     2026-01-01T00:00:00Z\nLabels:      a=b\n             c=d\nURL:         http://hello.default.localhost\n\
             Conditions:\n  TYPE    STATUS   REASON   MESSAGE\n  Ready   False    Broken   no such image\nSpec:\n  template:\n    x: 1\nStatus:\n  url: http://hello.default.localhost\n"
        );
    }

    #[test]
    fn a_secret_keeps_its_secret() {
        let text = show(&json!({"kind": "Secret", "metadata": {"name": "s"}, "data": {"password": "aHVudGVyMg=="}}), "Secret").expect("shows");
        assert!(
            text.contains("12 characters") && !text.contains("aHVu"),
            "{text}"
        );
    }

    #[test]
    fn events_oldest_first() {
        let event = |reason: &str, time: &str| json!({"type": "Normal", "reason": reason, "lastTimestamp": time, "message": "m"});
        let text = show_events(
            &json!({"items": [event("Late", "2026-01-02T00:00:00Z"), event("Early", "2026-01-01T00:00:00Z")]}),
        );
        assert!(text.find("Early") < text.find("Late"), "{text}");
        assert_eq!(show_events(&json!({})), "Events:  <none>\n");
    }
}
