//! Rows of admission: what goes in, what is stored, what is refused.

use super::*;
use crate::config::Data;
use crate::keys;
use serde_json::json;

const INSECURE: &str =
    "Kubernetes default value is insecure, Knative may default this to secure in a future release";

fn create<'a>(group: &'a str, kind: &'a str, namespace: &'a str, name: &'a str) -> Review<'a> {
    Review {
        group,
        version: "v1",
        kind,
        operation: Operation::Create,
        subresource: None,
        namespace,
        name,
        user: "ada",
        user_is_controller: false,
        dry_run: None,
        now: Timestamp::UNIX_EPOCH,
        old: None,
    }
}

fn configs(map: &str, pairs: &[(&str, &str)]) -> Configs {
    let data: Data = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let (configs, problems) = Configs::from_maps(|name| (name == map).then_some(&data));
    assert_eq!(problems, []);
    configs
}

fn service(spec: &Value) -> Value {
    json!({"metadata": {"name": "svc"}, "spec": spec})
}

/// A Service whose template's spec is `pod`.
fn with_pod(pod: &Value) -> Value {
    service(&json!({"template": {"spec": pod}}))
}

fn with_container(extra: &Value) -> Value {
    let mut container = json!({"image": "gcr.io/x/y"});
    for (key, value) in extra.as_object().unwrap() {
        container[key] = value.clone();
    }
    with_pod(&json!({"containers": [container]}))
}

fn refusal(object: &Value, configs: &Configs) -> String {
    let answer = review(
        &create("serving.knative.dev", "Service", "ns", "svc"),
        &mut object.clone(),
        configs,
    );
    let message = answer.expect_err("it must be refused").message;
    let prefix = "admission webhook \"validation.webhook.serving.knative.dev\" denied the request: validation failed: ";
    message
        .strip_prefix(prefix)
        .map_or(message.clone(), str::to_owned)
}

fn stored(object: &Value, configs: &Configs) -> Value {
    let mut object = object.clone();
    review(
        &create("serving.knative.dev", "Service", "ns", "svc"),
        &mut object,
        configs,
    )
    .unwrap();
    object
}

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

fn updated(old: &Value, change: impl FnOnce(&mut Value)) -> Result<Value, String> {
    let mut new = old.clone();
    change(&mut new);
    let request = create("serving.knative.dev", "Service", "ns", "svc");
    let request = Review {
        operation: Operation::Update,
        user: "bob",
        old: Some(old),
        ..request
    };
    review(&request, &mut new, &Configs::default()).map_err(|refused| refused.message)?;
    Ok(new)
}

#[test]
fn only_a_changed_spec_changes_the_signature() {
    let old = stored(&with_container(&json!({})), &Configs::default());
    let signature = |object: &Value| object["metadata"]["annotations"][keys::LAST_MODIFIER].clone();
    assert_eq!(signature(&updated(&old, |_| {}).unwrap()), "ada");
    let relabelled = updated(&old, |new| new["metadata"]["labels"] = json!({"a": "b"})).unwrap();
    assert_eq!(signature(&relabelled), "ada");
    let changed = updated(&old, |new| {
        new["spec"]["template"]["spec"]["timeoutSeconds"] = json!(5)
    })
    .unwrap();
    assert_eq!(signature(&changed), "bob");
    assert_eq!(changed["metadata"]["annotations"][keys::CREATOR], "ada");
    let forged = updated(&old, |new| {
        new["metadata"]["annotations"][keys::CREATOR] = json!("eve")
    })
    .unwrap_err();
    assert!(
        forged.contains(
            "annotation value is immutable: metadata.annotations.serving.knative.dev/creator"
        ),
        "{forged}"
    );
    let forged = updated(&old, |new| {
        new["metadata"]["annotations"][keys::LAST_MODIFIER] = json!("eve")
    })
    .unwrap_err();
    assert!(
        forged
            .contains("invalid value: eve: metadata.annotations.serving.knative.dev/lastModifier"),
        "{forged}"
    );
}

#[test]
fn a_kept_name_keeps_its_template() {
    let manifest = service(
        &json!({"template": {"metadata": {"name": "svc-a"}, "spec": {"containers": [{"image": "ab"}]}}}),
    );
    let old = stored(&manifest, &Configs::default());
    // The same manifest once more, without the defaults: still the same template.
    let again = updated(&old, |new| new["spec"] = manifest["spec"].clone()).unwrap();
    assert_eq!(again, old);
    let message = updated(&old, |new| {
        new["spec"]["template"]["spec"]["containers"][0]["image"] = json!("cd")
    })
    .unwrap_err();
    assert!(
        message.ends_with("validation failed: Saw the following changes without a name change (-old +new): spec.template.metadata.name\n{*v1.RevisionTemplateSpec}.Spec.PodSpec.Containers[0].Image:\n\t-: \"ab\"\n\t+: \"cd\"\n"),
        "{message}"
    );
    updated(&old, |new| {
        new["spec"]["template"]["metadata"]["name"] = json!("svc-b");
        new["spec"]["template"]["spec"]["containers"][0]["image"] = json!("cd");
    })
    .unwrap();
}

#[test]
fn revisions_never_change() {
    let mut old = json!({
        "metadata": {"name": "c-1", "labels": {keys::CONFIGURATION: "c"}, "ownerReferences": [{"kind": "Configuration", "name": "c"}]},
        "spec": {"containers": [{"image": "ab"}]},
    });
    let request = create("serving.knative.dev", "Revision", "ns", "c-1");
    review(&request, &mut old, &Configs::default()).unwrap();
    let request = Review {
        operation: Operation::Update,
        old: Some(&old),
        ..request
    };
    let mut labelled = old.clone();
    labelled["metadata"]["annotations"] = json!({keys::ROUTES: "r"});
    review(&request, &mut labelled, &Configs::default()).unwrap();
    let mut changed = old.clone();
    changed["spec"]["timeoutSeconds"] = json!(1);
    let refused = review(&request, &mut changed, &Configs::default())
        .unwrap_err()
        .message;
    assert!(
        refused.contains("Immutable fields changed (-old +new): spec\n"),
        "{refused}"
    );
    let mut orphan = old.clone();
    orphan["metadata"]["ownerReferences"] = json!([]);
    review(&request, &mut orphan, &Configs::default()).expect("its owner may let it go");
    orphan["metadata"]["labels"][keys::CONFIGURATION] = json!("another");
    let refused = review(&request, &mut orphan, &Configs::default())
        .unwrap_err()
        .message;
    assert!(
        refused.ends_with("missing field(s): metadata.labels.serving.knative.dev/configuration"),
        "{refused}"
    );
}

#[test]
fn routes_and_internal_kinds() {
    let rows = [
        (
            "serving.knative.dev",
            "Route",
            json!({"traffic": [{"percent": 100}]}),
            "expected exactly one, got neither: spec.traffic[0].configurationName, spec.traffic[0].revisionName",
        ),
        (
            "autoscaling.internal.knative.dev",
            "Metric",
            json!({}),
            "missing field(s): spec",
        ),
        (
            "autoscaling.internal.knative.dev",
            "PodAutoscaler",
            json!({"protocolType": "http1"}),
            "missing field(s): spec.scaleTargetRef.apiVersion, spec.scaleTargetRef.kind, spec.scaleTargetRef.name",
        ),
        (
            "networking.internal.knative.dev",
            "ServerlessService",
            json!({"mode": "Serve", "protocolType": "h2c", "numActivators": -1, "objectRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "u"}}),
            "invalid value: -1: spec.numActivators\nmust not set the field(s): spec.objectRef.uid",
        ),
        (
            "networking.internal.knative.dev",
            "Ingress",
            json!({"rules": [{"http": {"paths": [{"splits": [{"serviceName": "s", "serviceNamespace": "other", "servicePort": 80, "percent": 50}]}]}}]}),
            "service namespace must match ingress namespace: spec.rules[0].http.paths[0].splits[0].serviceNamespace\ntraffic split percentage must total to 100, but was 50: spec.rules[0].http.paths[0].splits",
        ),
    ];
    for (group, kind, spec, want) in rows {
        let mut object = json!({"metadata": {"name": "x"}, "spec": spec});
        let refused = review(
            &create(group, kind, "ns", "x"),
            &mut object,
            &Configs::default(),
        )
        .unwrap_err()
        .message;
        assert!(
            refused.ends_with(&format!("validation failed: {want}")),
            "{kind}: {refused}"
        );
    }
    let mut ingress = json!({"metadata": {"name": "x"}, "spec": {"rules": [{"http": {"paths": [{"splits": [
        {"serviceName": "s", "serviceNamespace": "ns", "servicePort": 80}]}]}}]}});
    review(
        &create("networking.internal.knative.dev", "Ingress", "ns", "x"),
        &mut ingress,
        &Configs::default(),
    )
    .unwrap();
    assert_eq!(ingress["spec"]["rules"][0]["visibility"], "ExternalIP");
    assert_eq!(
        ingress["spec"]["rules"][0]["http"]["paths"][0]["splits"][0]["percent"],
        100
    );
    let mut autoscaler = json!({"metadata": {"name": "x"}, "spec": {"protocolType": "http1",
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    review(
        &create(
            "autoscaling.internal.knative.dev",
            "PodAutoscaler",
            "ns",
            "x",
        ),
        &mut autoscaler,
        &Configs::default(),
    )
    .unwrap();
    assert_eq!(
        autoscaler["metadata"]["annotations"],
        json!({keys::AUTOSCALING_CLASS: keys::AUTOSCALING_CLASS_KPA, keys::AUTOSCALING_METRIC: "concurrency"})
    );
}

#[test]
fn what_is_not_ours_passes_untouched() {
    for (group, kind, operation) in [
        ("apps", "Deployment", Operation::Create),
        ("serving.knative.dev", "Service", Operation::Delete),
        ("serving.knative.dev", "DomainMapping", Operation::Create),
    ] {
        let mut object = json!({"spec": {"anything": 1}});
        let request = Review {
            operation,
            ..create(group, kind, "ns", "x")
        };
        assert_eq!(
            review(&request, &mut object, &Configs::default()),
            Ok(Vec::new())
        );
        assert_eq!(object, json!({"spec": {"anything": 1}}));
    }
    let status = Review {
        subresource: Some("status"),
        ..create("serving.knative.dev", "Service", "ns", "x")
    };
    assert_eq!(
        review(&status, &mut json!({"spec": {}}), &Configs::default()),
        Ok(Vec::new())
    );
}

#[test]
fn config_maps_of_the_system_namespace_are_checked() {
    let judge = |namespace: &str, data: Value, annotations: Value| {
        let mut object = json!({"metadata": {"annotations": annotations}, "data": data});
        let request = create("", "ConfigMap", namespace, "config-gc");
        review(&request, &mut object, &Configs::default()).map_err(|refused| refused.message)
    };
    let bad = json!({"min-non-active-revisions": "-3"});
    assert_eq!(
        judge("knative-serving", bad.clone(), json!({})).unwrap_err(),
        "admission webhook \"config.webhook.serving.knative.dev\" denied the request: validation failed: min-non-active-revisions must be non-negative, was: -3"
    );
    assert!(judge("default", bad, json!({})).is_ok());
    let touched = judge(
        "knative-serving",
        json!({"_example": "a: b"}),
        json!({"knative.dev/example-checksum": "00000000"}),
    );
    assert!(
        touched
            .unwrap_err()
            .contains("the update modifies a key in \"_example\"")
    );
}

proptest::proptest! {
    /// Whatever JSON comes in, admission answers; what it stores it stores again unchanged.
    #[test]
    fn any_input_is_answered(pod in any_json()) {
        let mut object = with_pod(&pod);
        let request = create("serving.knative.dev", "Service", "ns", "svc");
        if mutate(&request, &mut object, &Configs::default()).is_ok() {
            let once = object.clone();
            let _verdict = validate(&request, &object, &Configs::default());
            mutate(&request, &mut object, &Configs::default()).unwrap();
            proptest::prop_assert_eq!(object, once);
        }
    }
}

fn any_json() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    const FIELDS: [&str; 22] = [
        "containers",
        "initContainers",
        "name",
        "image",
        "env",
        "value",
        "valueFrom",
        "ports",
        "containerPort",
        "volumes",
        "volumeMounts",
        "readinessProbe",
        "httpGet",
        "tcpSocket",
        "port",
        "resources",
        "limits",
        "cpu",
        "securityContext",
        "secret",
        "emptyDir",
        "periodSeconds",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..100_000).prop_map(Value::from),
        proptest::sample::select(vec!["", "a", "100m", "/x", "1.5Gi", "é"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            proptest::collection::btree_map(proptest::sample::select(FIELDS.to_vec()), inner, 0..5)
                .prop_map(|map| Value::Object(
                    map.into_iter()
                        .map(|(key, value)| (key.to_owned(), value))
                        .collect()
                )),
        ]
    })
}
