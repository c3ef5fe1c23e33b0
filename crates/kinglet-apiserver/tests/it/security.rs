//! What namespaces let in.

use serde_json::{Value, json};

use crate::test_server::{DEPLOYMENTS, PODS, TestServer, deployment, pod};

fn with_host_path(mut pod: Value) -> Value {
    pod["spec"]["volumes"] = json!([{"name": "root", "hostPath": {"path": "/"}}]);
    pod
}

#[tokio::test]
async fn a_namespace_without_labels_enforces_baseline_and_the_message_names_the_label() {
    let server = TestServer::new().await;
    let refused = server.post(PODS, with_host_path(pod("a"))).await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.body["message"],
        "pods \"a\" is forbidden: violates PodSecurity \"baseline:latest\": hostPath volumes (volume \"root\") (an administrator allows more with the label pod-security.kubernetes.io/enforce on namespace \"default\")"
    );
    // A template is let in with a warning, as its pods will be refused.
    let mut workload = deployment("d");
    workload["spec"]["template"]["spec"]["volumes"] =
        json!([{"name": "root", "hostPath": {"path": "/"}}]);
    let created = server.post(DEPLOYMENTS, workload).await;
    assert_eq!(created.code, 201, "{}", created.text);
    assert_eq!(
        created.warnings,
        [
            "299 - \"would violate PodSecurity \\\"baseline:latest\\\": hostPath volumes (volume \\\"root\\\")\""
        ]
    );
    let labelled = server
        .patch(
            "/api/v1/namespaces/default",
            "merge-patch+json",
            json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}),
        )
        .await;
    assert_eq!(labelled.code, 200);
    let created = server.post(PODS, with_host_path(pod("a"))).await;
    assert_eq!(
        (created.code, created.warnings.len()),
        (201, 0),
        "{}",
        created.text
    );
    let stricter = server
        .patch(
            "/api/v1/namespaces/default",
            "merge-patch+json",
            json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}),
        )
        .await;
    assert_eq!(
        stricter.warnings,
        [
            "299 - \"existing pods in namespace \\\"default\\\" violate the new PodSecurity enforce level \\\"baseline:latest\\\"\"",
            "299 - \"a: hostPath volumes (volume \\\"root\\\")\"",
        ]
    );
    let wrong = server
        .patch(
            "/api/v1/namespaces/default",
            "merge-patch+json",
            json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "strict"}}}),
        )
        .await;
    assert_eq!(wrong.code, 422, "{}", wrong.text);
}

#[tokio::test]
async fn fields_that_nobody_acts_on_are_refused_by_their_path() {
    let server = TestServer::new().await;
    let mut object = pod("a");
    object["spec"]["runtimeClassName"] = "gvisor".into();
    object["spec"]["containers"][0]["volumeDevices"] = json!([{"name": "d", "devicePath": "/d"}]);
    let refused = server.post(PODS, object).await;
    assert_eq!(refused.code, 422);
    let causes: Vec<&str> = refused.body["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cause| cause["field"].as_str().unwrap())
        .collect();
    assert_eq!(
        causes,
        ["spec.containers[0].volumeDevices", "spec.runtimeClassName"]
    );
    let mut workload = deployment("d");
    workload["spec"]["template"]["spec"]["hostNetwork"] = true.into();
    let refused = server.post(DEPLOYMENTS, workload).await;
    assert_eq!(refused.code, 422);
    assert!(
        refused.text.contains(
            "spec.template.spec.hostNetwork: Forbidden: not supported by Kinglet: every Pod has"
        ),
        "{}",
        refused.text
    );
    let mut object = pod("b");
    object["spec"]["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}]);
    let warned = server.post(PODS, object).await;
    assert_eq!(warned.code, 201, "{}", warned.text);
    assert_eq!(
        warned.warnings,
        [
            "299 - \"spec.topologySpreadConstraints: ignored by Kinglet: there is one node to spread over\""
        ]
    );
}
