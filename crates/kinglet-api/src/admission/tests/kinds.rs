//! Kinds other than Services, and ConfigMaps of the system namespace.

use serde_json::json;

use super::*;

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
