//! What is refused, and what is warned about.

use serde_json::json;

use super::*;

#[test]
fn refusals_name_the_field() {
    let at = "spec.template.spec.containers[0]";
    let rows: Vec<(Value, String)> = vec![
        (with_pod(&json!({"containers": [{"name": "a"}]})), format!("missing field(s): {at}.image")),
        (with_container(&json!({"image": "A/b"})), format!("Failed to parse image reference: {at}.image\nimage: \"A/b\", error: could not parse reference: A/b")),
        (
            with_pod(&json!({"containers": [
                {"image": "ab", "ports": [{"containerPort": 80}]},
                {"image": "cd", "readinessProbe": {"tcpSocket": {"port": 9999}}},
            ]})),
            "must not set the field(s): spec.template.spec.containers[1].readinessProbe, spec.template.spec.containers[1].readinessProbe.successThreshold".to_owned(),
        ),
        (with_container(&json!({"name": "queue-proxy"})), format!("\"queue-proxy\" is a reserved container name: {at}.name")),
        (with_container(&json!({"env": [{"name": "PORT", "value": "1"}]})), format!("\"PORT\" is a reserved environment variable: {at}.env[0].name")),
        (with_container(&json!({"env": [{"value": "1"}]})), format!("missing field(s): {at}.env[0].name")),
        (with_container(&json!({"ports": [{"containerPort": 9090}]})), format!("invalid value: 9090 is a reserved port: {at}.ports.containerPort\n9090 is a reserved port, please use a different value")),
        (with_container(&json!({"ports": [{"containerPort": 80, "name": "web"}]})), format!("Port name web is not allowed: {at}.ports\nName must be empty, or one of: 'h2c', 'http1'")),
        (with_container(&json!({"lifecycle": {"preStop": {}}})), format!("must not set the field(s): {at}.lifecycle")),
        (with_container(&json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})), format!("volumeMount has no matching volume: {at}.volumeMounts[0].name")),
        (with_container(&json!({"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}})), format!("must not set the field(s): {at}.securityContext.capabilities.add")),
        (with_container(&json!({"livenessProbe": {"httpGet": {}, "grpc": {"port": 1}}})), format!("expected exactly one, got both: {at}.livenessProbe.gRPC, {at}.livenessProbe.httpGet")),
        (with_pod(&json!({"containers": [{"image": "ab"}], "nodeSelector": {"a": "b"}, "tolerations": [{}]})), "must not set the field(s): spec.template.spec.nodeSelector, spec.template.spec.tolerations".into()),
        (with_pod(&json!({"containers": [{"image": "ab"}, {"image": "cd"}]})), "missing field(s): spec.template.spec.containers[*].ports".into()),
        (with_pod(&json!({"containers": [{"image": "ab", "name": "x", "ports": [{}]}, {"image": "cd", "name": "x"}]})), "duplicate container name \"x\": spec.template.spec.containers[1].name".into()),
        (with_pod(&json!({"containers": [{"image": "ab"}], "timeoutSeconds": 1000})), "expected 0 <= 1000 <= 600: spec.template.spec.timeoutSeconds".into()),
        (with_pod(&json!({"containers": [{"image": "ab"}], "volumes": [{"name": "v", "emptyDir": {}}, {"name": "v", "hostPath": {"path": "/"}}]})), "HostPath volume support is disabled, but found HostPath volume v: \nduplicate volume name \"v\": spec.template.spec.volumes[1].name\nmust not set the field(s): spec.template.spec.volumes[1].hostPath\nvolume with name \"v\" not mounted: spec.template.spec.volumes[0].name, spec.template.spec.volumes[1].name".into()),
        (service(&json!({"template": {"metadata": {"name": "other"}, "spec": {"containers": [{"image": "ab"}]}}})), "invalid value: \"other\" must have prefix \"svc-\": spec.template.metadata.name".into()),
        (service(&json!({"template": {"metadata": {"annotations": {"autoscaling.knative.dev/min-scale": "3", "autoscaling.knative.dev/maxScale": "2"}}, "spec": {"containers": [{"image": "ab"}]}}})), "max-scale=2 is less than min-scale=3: spec.template.metadata.annotations.autoscaling.knative.dev/max-scale, spec.template.metadata.annotations.autoscaling.knative.dev/min-scale".into()),
        (service(&json!({"template": {"spec": {"containers": [{"image": "ab"}]}}, "traffic": [{"revisionName": "svc-1", "percent": 40, "tag": "t"}, {"percent": 40, "tag": "t"}]})), "Multiple definitions for \"t\": spec.traffic[0].tag, spec.traffic[1].tag\nTraffic targets sum to 80, want 100: spec.traffic".into()),
        (service(&json!({"template": {"spec": {"containers": [{"image": "ab"}]}}, "traffic": [{"percent": 101, "url": "http://x"}, {"percent": -1}]})), "expected 0 <= -1 <= 100: spec.traffic[1].percent\nexpected 0 <= 101 <= 100: spec.traffic[0].percent\nmust not set the field(s): spec.traffic[0].url".into()),
    ];
    for (object, want) in rows {
        assert_eq!(refusal(&object, &Configs::default()), want, "{object}");
    }
    let bad_rollout = json!({
        "metadata": {"name": "svc", "annotations": {"serving.knative.dev/rolloutDuration": "1500ms"}},
        "spec": {"template": {"spec": {"containers": [{"image": "ab"}]}}},
    });
    assert_eq!(
        refusal(&bad_rollout, &Configs::default()),
        "rollout-duration=1500ms is not at second precision: metadata.annotations.serving.knative.dev/rolloutDuration"
    );
}

#[test]
fn wrong_types_never_reach_the_rules() {
    let object = with_container(&json!({"env": [{"name": "A", "value": true}]}));
    assert_eq!(
        refusal(&object, &Configs::default()),
        "admission webhook \"webhook.serving.knative.dev\" denied the request: mutation failed: cannot decode incoming new object: json: cannot unmarshal bool into Go struct field EnvVar.spec.ConfigurationSpec.template.spec.PodSpec.containers.env.value of type string"
    );
    let nothing = with_pod(&json!({}));
    assert!(refusal(&nothing, &Configs::default()).contains("in body must be of type array"));
}

#[test]
fn flags_open_what_they_guard() {
    let init =
        with_pod(&json!({"containers": [{"image": "ab"}], "initContainers": [{"image": "cd"}]}));
    let open = configs(
        "config-features",
        &[("kubernetes.podspec-init-containers", "enabled")],
    );
    assert_eq!(
        stored(&init, &open)["spec"]["template"]["spec"]["initContainers"][0]["name"],
        "init-container"
    );
    let allowed = configs(
        "config-features",
        &[("kubernetes.podspec-init-containers", "Allowed")],
    );
    assert_eq!(
        refusal(&init, &allowed),
        "pod spec support for init-containers is off, but found 1 init containers: "
    );
    let selector = with_pod(&json!({"containers": [{"image": "ab"}], "nodeSelector": {"a": "b"}}));
    stored(
        &selector,
        &configs(
            "config-features",
            &[("kubernetes.podspec-nodeselector", "Allowed")],
        ),
    );
    let pod_security = with_pod(
        &json!({"containers": [{"image": "ab"}], "securityContext": {"runAsUser": 1, "sysctls": [{}]}}),
    );
    assert_eq!(
        refusal(
            &pod_security,
            &configs(
                "config-features",
                &[("kubernetes.podspec-securitycontext", "enabled")]
            )
        ),
        "must not set the field(s): spec.template.spec.securityContext.sysctls"
    );
}

#[test]
fn insecure_defaults_are_warned_about_but_not_to_controllers() {
    let mut object =
        with_container(&json!({"securityContext": {"runAsNonRoot": true, "capabilities": {}}}));
    let request = create("serving.knative.dev", "Service", "ns", "svc");
    let at = "spec.template.spec.containers[0].securityContext";
    let warnings = review(&request, &mut object, &Configs::default()).unwrap();
    assert_eq!(
        warnings,
        [format!(
            "{INSECURE}: {at}.allowPrivilegeEscalation, {at}.capabilities.drop, {at}.seccompProfile"
        )]
    );
    let controller = Review {
        user_is_controller: true,
        ..request
    };
    assert_eq!(
        review(&controller, &mut object, &Configs::default()),
        Ok(Vec::new())
    );
}

#[test]
fn dry_runs_ask_what_kubernetes_would_say() {
    let mut object = with_container(&json!({"name": "Bad"}));
    let request = create("serving.knative.dev", "Service", "ns", "svc");
    review(&request, &mut object, &Configs::default()).unwrap();
    let refused = review(
        &Review {
            dry_run: Some(|spec| {
                let container = &spec["containers"][0];
                assert_eq!(container["ports"][0]["name"], "user-port");
                vec![format!("spec.containers[0].name: {}", container["name"])]
            }),
            ..request
        },
        &mut object,
        &Configs::default(),
    )
    .unwrap_err();
    assert!(
        refused
            .message
            .contains("validation callback failed: dry run failed with Pod"),
        "{refused}"
    );
    assert!(
        refused
            .message
            .contains("\"dry-run-validation*****\" is invalid: spec.containers[0].name: \"Bad\""),
        "{refused}"
    );
}
