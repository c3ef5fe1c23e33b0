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
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let mut rows = vec![
        vec!["Name:".to_owned(), text("/metadata/name")],
        vec!["Kind:".to_owned(), kind.to_owned()],
    ];
    if object["metadata"]["namespace"].is_string() {
        rows.push(vec!["Namespace:".to_owned(), text("/metadata/namespace")]);
    }
    rows.push(vec![
        "Created:".to_owned(),
        text("/metadata/creationTimestamp"),
    ]);
    for (title, pointer) in [
        ("Labels:", "/metadata/labels"),
        ("Annotations:", "/metadata/annotations"),
    ] {
        let pairs = object
            .pointer(pointer)
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        for (index, (key, value)) in pairs
            .iter()
            .filter(|(key, _)| *key != "kubectl.kubernetes.io/last-applied-configuration")
            .enumerate()
        {
            let title = if index == 0 { title } else { "" };
            rows.push(vec![
                title.to_owned(),
                format!("{key}={}", value.as_str().unwrap_or_default()),
            ]);
        }
    }
    if object["status"]["url"].is_string() {
        rows.push(vec!["URL:".to_owned(), text("/status/url")]);
    }
    let mut out = table::align(&rows);
    let conditions = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    if !conditions.is_empty() {
        let mut rows = vec![
            ["  TYPE", "STATUS", "REASON", "MESSAGE"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for condition in &conditions {
            let field = |name: &str| condition[name].as_str().unwrap_or_default().to_owned();
            rows.push(vec![
                format!("  {}", field("type")),
                field("status"),
                field("reason"),
                field("message"),
            ]);
        }
        out.push_str("Conditions:\n");
        out.push_str(&table::align(&rows));
    }
    for part in ["spec", "data", "status"] {
        let mut value = object[part].clone();
        if let Some(fields) = value.as_object_mut() {
            fields.remove("conditions");
        }
        if object["kind"] == "Secret"
            && part == "data"
            && let Some(fields) = value.as_object_mut()
        {
            fields.values_mut().for_each(|secret| {
                *secret = Value::from(format!(
                    "{} characters of base64",
                    secret.as_str().map_or(0, str::len)
                ))
            });
        }
        if value.as_object().is_some_and(|fields| !fields.is_empty()) {
            let title = part[..1].to_uppercase() + &part[1..];
            out.push_str(&format!("{title}:\n"));
            for line in super::get::yaml(&value)?.lines() {
                out.push_str(&format!("  {line}\n"));
            }
        }
    }
    Ok(out)
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
