//! Objects that kube-apiserver 1.34 refuses, or does not, in its own words: `words.jsonl` is what it answered.

use http::Method;
use kinglet_apiserver::Identity;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::test_server::{PODS, TestServer, read};

/// One dry-run creation.
#[derive(Deserialize)]
struct Recorded {
    name: String,
    path: String,
    body: Value,
    code: u16,
    /// Of a refusal; empty otherwise.
    message: String,
}

/// What Kinglet answers differently, by the recording's name, and why.
const DIFFERENT: &[(&str, &str)] = &[
    (
        "pod hugepages",
        "pages of other sizes are accepted as any resource that the node does not have",
    ),
    ("pod alias zeros", ZEROS),
    ("pod dns zeros", ZEROS),
    (
        "pod sidecar port",
        "a sidecar runs beside the containers, and would never get the port",
    ),
    ("pod seccomp rt", OURS),
    ("pod priv+noesc", GO),
    ("pod os", OURS),
    ("pod windows", OURS),
    (
        "pod preemption",
        "Kubernetes refuses in an admission plugin",
    ),
    ("meta owner2", "the order of fields in the list shown"),
    ("meta rv", "Kubernetes looks only when it stores"),
    (
        "meta gen neg",
        "the server counts generations, whatever is sent",
    ),
    ("secret docker bad", "the parser's own words"),
    (
        "secret sat nosuch",
        "a token Secret of nobody would never get its token; Kubernetes takes it away later",
    ),
    ("svc dup", GO),
    ("svc ext ip", OURS),
    ("svc ext lo", OURS),
    ("svc fam", OURS),
    ("svc famv6", OURS),
    ("svc dual", OURS),
    ("svc ip", "the list, not the item, is named"),
    ("svc lbr", OURS),
    ("svc hc", OURS),
    (
        "agg2",
        "Kubernetes says it a second time, of the whole selector",
    ),
    ("deploy strategy", GO),
    ("quota scope", OURS),
    ("quota scope2", OURS),
    ("quota scope3", OURS),
    ("lr type", OURS),
    ("lr minmax", "Kubernetes shows the other value"),
    ("lr def", "Kubernetes shows the other value"),
    ("lr poddef", OURS),
    ("lr ratio", OURS),
    ("lr pvc", OURS),
    ("pdb both", GO),
    ("node2", OURS),
];

const GO: &str = "Kubernetes shows its Go struct";
const ZEROS: &str =
    "no resolver reads an address with leading zeros: refused rather than warned of";
const OURS: &str = "refused as not supported, whatever the value";

#[tokio::test]
async fn objects_are_refused_in_kubernetes_words() {
    let server = TestServer::new().await;
    server
        .patch(
            "/api/v1/namespaces/default",
            "merge-patch+json",
            json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}),
        )
        .await;
    let admin = Identity::remote("admin", vec!["system:masters".to_owned()]);
    let mut wrong = Vec::new();
    for line in include_str!("words.jsonl").lines() {
        let recorded: Recorded = serde_json::from_str(line).unwrap();
        let is_different = DIFFERENT.iter().any(|(name, _)| *name == recorded.name);
        let response = server
            .raw(
                &admin,
                Method::POST,
                &recorded.path,
                &[("content-type", "application/json")],
                recorded.body.to_string().into_bytes(),
            )
            .await;
        let reply = read(response).await;
        let said = reply.body["message"].as_str().unwrap_or("");
        let said = if reply.code == 201 { "" } else { said };
        let is_same = (reply.code, said) == (recorded.code, recorded.message.as_str());
        if is_same == is_different {
            wrong.push(format!(
                "{}\n  Kubernetes {} {}\n  Kinglet    {} {said}",
                recorded.name, recorded.code, recorded.message, reply.code
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// What may change in a Pod; the answers are kube-apiserver 1.34's, without the difference that it shows of a whole `spec`.
#[tokio::test]
async fn a_pod_that_exists_changes_as_in_kubernetes() {
    const FIXED: &str = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    let server = TestServer::new().await;
    let toleration = |key: &str, effect: &str, seconds: i64| json!({"key": key, "operator": "Exists", "effect": effect, "tolerationSeconds": seconds});
    let pod = json!({"metadata": {"name": "u"}, "spec": {
        "tolerations": [toleration("x", "NoExecute", 3)],
        "activeDeadlineSeconds": 50,
        "schedulingGates": [{"name": "a/b"}],
        "terminationGracePeriodSeconds": -5,
        "containers": [{"name": "c", "image": "i"}],
    }});
    let made = server.post(PODS, pod).await;
    assert_eq!(made.code, 201, "{}", made.text);
    assert_eq!(made.body["spec"]["terminationGracePeriodSeconds"], 1);
    let mut more = made.body["spec"]["tolerations"].clone();
    more[0]["tolerationSeconds"] = 5.into();
    let mut half = more.clone();
    let list = half.as_array_mut().unwrap();
    list.push(json!({"key": "z", "operator": "Exists", "tolerationSeconds": 5}));
    let wrong_at = more.as_array().unwrap().len();
    let no_effect = format!(
        "spec.tolerations[{wrong_at}].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set"
    );
    for (spec, said) in [
        (json!({"terminationGracePeriodSeconds": 5}), FIXED),
        (json!({"terminationGracePeriodSeconds": -5}), ""),
        (
            json!({"tolerations": []}),
            "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
        ),
        (json!({"tolerations": more}), ""),
        (json!({"tolerations": half}), &no_effect),
        (
            json!({"activeDeadlineSeconds": 60}),
            "spec.activeDeadlineSeconds: Invalid value: 60: must be less than or equal to previous value",
        ),
        (
            json!({"activeDeadlineSeconds": null}),
            "spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value",
        ),
        (
            json!({"activeDeadlineSeconds": 0}),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ),
        (json!({"activeDeadlineSeconds": 40}), ""),
        (
            json!({"schedulingGates": [{"name": "a/b"}, {"name": "c/d"}]}),
            "spec.schedulingGates[1].name: Forbidden: only deletion is allowed, but found new scheduling gate 'c/d'",
        ),
        (json!({"schedulingGates": []}), ""),
    ] {
        let patch = json!({"spec": spec});
        let reply = server
            .patch(&format!("{PODS}/u"), "merge-patch+json", patch.clone())
            .await;
        let wanted = match said {
            "" => Value::Null,
            said => format!("Pod \"u\" is invalid: {said}").into(),
        };
        let heard = match reply.code {
            200 => &Value::Null,
            _ => &reply.body["message"],
        };
        assert_eq!(*heard, wanted, "{patch}");
    }
}

/// Templates keep a negative grace; the Pods that are made of them get one second.
#[tokio::test]
async fn a_template_keeps_a_negative_grace() {
    let server = TestServer::new().await;
    let mut deployment = crate::test_server::deployment("d");
    deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(-5);
    let made = server
        .post(crate::test_server::DEPLOYMENTS, deployment)
        .await;
    assert_eq!(made.code, 201, "{}", made.text);
    let spec = &made.body["spec"]["template"]["spec"];
    assert_eq!(spec["terminationGracePeriodSeconds"], -5);
}
