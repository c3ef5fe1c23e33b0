//! What is stored: defaults and signatures.

use serde_json::json;

use super::*;

#[test]
fn the_smallest_service_is_filled_in_and_signed() {
    let object = stored(&with_container(&json!({})), &Configs::default());
    assert_eq!(
        object,
        json!({
            "metadata": {"name": "svc", "annotations": {keys::CREATOR: "ada", keys::LAST_MODIFIER: "ada"}},
            "spec": {
                "template": {"metadata": {}, "spec": {
                    "containerConcurrency": 0, "enableServiceLinks": false, "timeoutSeconds": 300,
                    "containers": [{
                        "image": "gcr.io/x/y", "name": "user-container", "resources": {},
                        "readinessProbe": {"successThreshold": 1, "tcpSocket": {"port": 0}},
                    }],
                }},
                "traffic": [{"latestRevision": true, "percent": 100}],
            },
        })
    );
}

#[test]
fn stored_objects_do_not_change_when_stored_again() {
    let configs = Configs::default();
    let once = stored(
        &with_pod(&json!({
            "containers": [
                {"image": "gcr.io/x/y", "ports": [{"containerPort": 9000, "name": "h2c"}], "env": [{"name": "A"}],
                 "resources": {"limits": {"cpu": "0.5"}}, "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                 "readinessProbe": {"httpGet": {"path": "/r"}, "periodSeconds": 2}},
                {"image": "gcr.io/x/z"},
            ],
            "volumes": [{"name": "v", "configMap": {"name": "c"}}],
        })),
        &configs,
    );
    assert_eq!(stored(&once, &configs), once);
    let containers = &once["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers[0]["name"], "user-container-0");
    assert_eq!(containers[0]["ports"][0]["protocol"], "TCP");
    assert_eq!(containers[0]["resources"]["limits"]["cpu"], "500m");
    assert_eq!(containers[0]["volumeMounts"][0]["readOnly"], true);
    assert_eq!(
        containers[0]["readinessProbe"],
        json!({"httpGet": {"path": "/r", "port": 0}, "periodSeconds": 2, "failureThreshold": 3, "timeoutSeconds": 1, "successThreshold": 1})
    );
    assert_eq!(containers[1]["name"], "user-container-1");
    assert!(containers[1].get("readinessProbe").is_none());
}

#[test]
fn operators_defaults_reach_the_spec() {
    let defaults = configs(
        "config-defaults",
        &[
            ("revision-timeout-seconds", "100"),
            ("revision-response-start-timeout-seconds", "50"),
            ("revision-idle-timeout-seconds", "20"),
            ("container-concurrency", "7"),
            ("revision-memory-limit", "1024Mi"),
            ("enable-service-links", "default"),
            ("container-name-template", "{{.Name}}-main"),
        ],
    );
    let spec = &stored(&with_container(&json!({})), &defaults)["spec"]["template"]["spec"];
    assert_eq!(spec["timeoutSeconds"], 100);
    assert_eq!(spec["responseStartTimeoutSeconds"], 50);
    assert_eq!(spec["idleTimeoutSeconds"], 20);
    assert_eq!(spec["containerConcurrency"], 7);
    assert_eq!(
        spec["containers"][0]["resources"],
        json!({"limits": {"memory": "1Gi"}})
    );
    assert_eq!(spec["containers"][0]["name"], "svc-main");
    assert!(spec.get("enableServiceLinks").is_none());
}

#[test]
fn secure_pod_defaults() {
    let enabled = configs("config-features", &[("secure-pod-defaults", "Enabled")]);
    let mut object = with_container(&json!({"ports": [{"containerPort": 80}]}));
    let warnings = review(
        &create("serving.knative.dev", "Service", "ns", "svc"),
        &mut object,
        &enabled,
    )
    .unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(
        object["spec"]["template"]["spec"]["containers"][0]["securityContext"],
        json!({
            "allowPrivilegeEscalation": false, "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"},
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        })
    );
}
