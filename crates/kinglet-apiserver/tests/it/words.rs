//! Objects that kube-apiserver 1.34 refuses, or does not, in its own words: `words.jsonl` is what it answered.

use http::Method;
use kinglet_apiserver::Identity;
use serde::Deserialize;
use serde_json::Value;

use crate::test_server::{TestServer, read};

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
    (
        "pod grace",
        "a negative grace is refused rather than read as 1",
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
const OURS: &str = "refused as not supported, whatever the value";

#[tokio::test]
async fn objects_are_refused_in_kubernetes_words() {
    let server = TestServer::new().await;
    server
        .patch(
            "/api/v1/namespaces/default",
            "merge-patch+json",
            serde_json::json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}),
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
