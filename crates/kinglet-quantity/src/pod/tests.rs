//! Pod specs as a Kubernetes API server fills them in.

use serde_json::{Value, json};

use super::*;

fn filled(spec: Value, fill: fn(&mut Fields)) -> Value {
    let Value::Object(mut fields) = spec else {
        panic!("a spec is an object");
    };
    fill(&mut fields);
    let once = fields.clone();
    fill(&mut fields);
    assert_eq!(once, fields, "filled in twice");
    Value::Object(fields)
}

#[test]
fn a_row_per_default() {
    let spec = json!({
        "serviceAccountName": "robot", "hostPID": false, "nodeSelector": {},
        "initContainers": [],
        "containers": [{
            "name": "a", "image": "example.com:5000/a", "command": [],
            "ports": [{"containerPort": 80}],
            "env": [{"name": "EMPTY", "value": ""}, {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}},
            "readinessProbe": {"httpGet": {"port": 80}, "initialDelaySeconds": 0, "periodSeconds": 0},
            "livenessProbe": {"grpc": {"port": 9}, "periodSeconds": 7},
            "lifecycle": {"preStop": {"httpGet": {"port": 80}}},
        }],
        "volumes": [
            {"name": "files", "configMap": {"name": "c"}},
            {"name": "empty"},
            {"name": "api", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
        ],
    });
    let container = json!({
        "name": "a", "image": "example.com:5000/a", "imagePullPolicy": "Always",
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        "ports": [{"containerPort": 80, "protocol": "TCP"}],
        "env": [{"name": "EMPTY"}, {"name": "POD", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
        "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
        "readinessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
            "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
        "livenessProbe": {"grpc": {"port": 9, "service": ""},
            "timeoutSeconds": 1, "periodSeconds": 7, "successThreshold": 1, "failureThreshold": 3},
        "lifecycle": {"preStop": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}}},
    });
    let mut expected = json!({
        "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
        "securityContext": {}, "terminationGracePeriodSeconds": 30,
        "serviceAccountName": "robot", "serviceAccount": "robot",
        "containers": [container],
        "volumes": [
            {"name": "files", "configMap": {"name": "c", "defaultMode": 420}},
            {"name": "empty", "emptyDir": {}},
            {"name": "api", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}]}},
        ],
    });
    assert_eq!(filled(spec.clone(), fill_spec), expected);
    // A Pod gets more than a template.
    expected["enableServiceLinks"] = json!(true);
    expected["containers"][0]["resources"]["requests"] = json!({"cpu": "500m", "memory": "1Gi"});
    assert_eq!(filled(spec, fill), expected);
}

#[test]
fn images_whose_tags_move_are_pulled_each_time() {
    for (image, policy) in [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("host:5000/a", "Always"),
        ("host:5000/a:1", "IfNotPresent"),
        ("a:1", "IfNotPresent"),
        ("a@sha256:00", "IfNotPresent"),
        ("a:latest@sha256:00", "IfNotPresent"),
    ] {
        assert_eq!(pull_policy(image), policy, "{image}");
    }
}

#[test]
fn a_pod_is_ready_when_its_condition_says_so() {
    for (conditions, ready) in [
        (&[][..], false),
        (&[("Ready", "True")], true),
        (&[("Ready", "False")], false),
        (&[("Ready", "Unknown")], false),
        (&[("ContainersReady", "True")], false),
        (&[("ContainersReady", "False"), ("Ready", "True")], true),
    ] {
        assert_eq!(
            is_ready(conditions.iter().copied()),
            ready,
            "{conditions:?}"
        );
    }
}
