//! What the gateway is told, as a table of pods.

use super::*;
use crate::autoscale::pods::tests::pod;
use serde_json::json;

fn revision(spec: &serde_json::Value) -> Revision {
    serde_json::from_value(json!({
        "metadata": {"name": "r", "namespace": "default", "uid": "uid-r", "labels": {keys::CONFIGURATION: "hello"}},
        "spec": spec,
    }))
    .unwrap()
}

#[test]
fn only_ready_pods_of_this_life_sorted_by_name() {
    let mut old_life = pod("r", "e", "10.0.0.5", true, false);
    old_life
        .metadata
        .labels
        .as_mut()
        .unwrap()
        .insert(keys::REVISION_UID.to_owned(), "another".to_owned());
    let pods = [
        pod("r", "c", "10.0.0.3", true, false),
        pod("r", "a", "10.0.0.1", true, false),
        pod("r", "b", "10.0.0.2", false, false),
        pod("r", "d", "10.0.0.4", true, true),
        old_life,
        pod("r", "f", "", true, false),
    ];
    let backend = revision_backend(
        &revision(&json!({"containers": [{"image": "x"}]})),
        pods.iter(),
    );
    let names: Vec<&str> = backend
        .endpoints
        .iter()
        .map(|endpoint| &*endpoint.pod)
        .collect();
    assert_eq!(names, ["a", "c"]);
    assert_eq!(
        backend.endpoints[0].address,
        "10.0.0.1:8080".parse().unwrap()
    );
    assert_eq!(&*backend.configuration, "hello");
}

#[test]
fn limits_and_protocol_come_from_the_revision() {
    let spec = json!({
        "containers": [{"image": "x", "ports": [{"name": "h2c", "containerPort": 9000}]}],
        "containerConcurrency": 3, "timeoutSeconds": 30, "responseStartTimeoutSeconds": 5, "idleTimeoutSeconds": 7,
    });
    let backend = revision_backend(&revision(&spec), [].iter());
    assert_eq!(backend.container_concurrency, 3);
    assert_eq!(backend.timeout.as_secs(), 30);
    assert_eq!(backend.response_start_timeout.as_secs(), 5);
    assert_eq!(backend.idle_timeout.as_secs(), 7);
    assert_eq!(backend.protocol, Protocol::H2c);
    assert!(backend.endpoints.is_empty());
    let bare = revision_backend(
        &revision(&json!({"containers": [{"image": "x"}]})),
        [].iter(),
    );
    assert_eq!(
        (
            bare.timeout.as_secs(),
            bare.container_concurrency,
            bare.protocol
        ),
        (300, 0, Protocol::Http1)
    );
}

#[test]
fn ordinary_services_by_port() {
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "plain", "namespace": "default"},
        "spec": {"selector": {"a": "b"}, "ports": [{"name": "web", "port": 80}, {"name": "other", "port": 81}]},
    }))
    .unwrap();
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "plain-1", "namespace": "default"}, "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["10.0.0.2"], "conditions": {"ready": true}},
            {"addresses": ["10.0.0.1"]},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false}},
        ],
        "ports": [{"name": "web", "port": 8080}],
    }))
    .unwrap();
    assert!(is_ordinary(&service));
    let expected = vec![
        (
            80,
            vec![
                "10.0.0.1:8080".parse().unwrap(),
                "10.0.0.2:8080".parse().unwrap(),
            ],
        ),
        (81, vec![]),
    ];
    assert_eq!(
        service_backend(&service, &[Arc::new(slice)]).ports,
        expected
    );
}

#[test]
fn names_that_lead_elsewhere() {
    let service = |labels: serde_json::Value, spec: serde_json::Value| -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "channel", "namespace": "default", "labels": labels}, "spec": spec,
        }))
        .unwrap()
    };
    let spec = json!({"type": "ExternalName", "externalName": "Dispatcher.knative-eventing.svc"});
    assert_eq!(
        external_name(&service(json!({}), spec.clone())).as_deref(),
        Some("dispatcher.knative-eventing.svc")
    );
    let placeholder = service(json!({"serving.knative.dev/route": "hello"}), spec);
    assert_eq!(external_name(&placeholder), None, "a Route's own");
    let ordinary = json!({"externalName": "left.over", "selector": {"a": "b"}});
    assert_eq!(external_name(&service(json!({}), ordinary)), None);
}
