//! Jobs as clients see them: defaults, generated labels, refusals and deletion, as kube-apiserver 1.34 answers.

use serde_json::{Value, json};

use crate::test_server::TestServer;

const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";

fn job(spec: &Value) -> Value {
    let mut job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}}}});
    for (key, value) in spec.as_object().unwrap() {
        job["spec"][key] = value.clone();
    }
    job
}

#[tokio::test]
async fn a_job_has_the_defaults_labels_and_selector_of_kubernetes() {
    let server = TestServer::new().await;
    let made = server.post(JOBS, job(&json!({}))).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let uid = &made.body["metadata"]["uid"];
    let labels = json!({"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": "j", "controller-uid": uid, "job-name": "j"});
    assert_eq!(made.body["metadata"]["labels"], labels);
    let mut spec = made.body["spec"].clone();
    let template = spec["template"].take();
    assert_eq!(template["metadata"]["labels"], labels);
    assert_eq!(
        spec,
        json!({"parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false, "manualSelector": false,
            "podReplacementPolicy": "TerminatingOrFailed", "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}, "template": null})
    );
    assert_eq!(
        (&made.body["status"], &made.body["metadata"]["generation"]),
        (&json!({}), &json!(1))
    );
    let queue = server
        .post(&format!("{JOBS}?dryRun=All"), {
            let mut queue = job(&json!({"parallelism": 3}));
            queue["metadata"] = json!({"generateName": "q-"});
            queue
        })
        .await;
    assert_eq!(
        queue.body["spec"].get("completions"),
        None,
        "{}",
        queue.text
    );
    assert_eq!(
        queue.body["spec"]["template"]["metadata"]["labels"]["job-name"],
        queue.body["metadata"]["name"]
    );
    let table = server.table(JOBS).await.body;
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[..4],
        [json!("j"), json!("Running"), json!("0/1"), json!("")]
    );
    let selected = format!("{JOBS}?fieldSelector=status.successful%3D0");
    assert_eq!(
        server.get(&selected).await.body["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn jobs_are_refused_in_the_words_of_kubernetes() {
    let server = TestServer::new().await;
    let labelled = |labels: Value, spec: Value| {
        let mut job = job(&spec);
        job["spec"]["template"]["metadata"] = json!({"labels": labels});
        job
    };
    let restart = |policy: &str| {
        let mut job = job(&json!({}));
        job["spec"]["template"]["spec"]["restartPolicy"] = policy.into();
        job
    };
    let rows = [
        (
            job(&json!({"completionMode": "X"})),
            "spec.completionMode: Unsupported value: \"X\": supported values: \"NonIndexed\", \"Indexed\"",
        ),
        (
            job(&json!({"parallelism": -1})),
            "spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            job(&json!({"ttlSecondsAfterFinished": -1})),
            "spec.ttlSecondsAfterFinished: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            restart("Always"),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ),
        (
            restart(""),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ),
        (
            labelled(
                json!({"a": "b"}),
                json!({"selector": {"matchLabels": {"a": "b"}}}),
            ),
            "`selector` not auto-generated",
        ),
        (
            labelled(
                json!({"a": "c"}),
                json!({"manualSelector": true, "selector": {"matchLabels": {"a": "b"}}}),
            ),
            "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`",
        ),
        (
            job(&json!({"manualSelector": true})),
            "[spec.selector: Required value, spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`]",
        ),
        (
            labelled(json!({"batch.kubernetes.io/job-name": "x"}), json!({})),
            "must be 'j'",
        ),
        (
            job(&json!({"podReplacementPolicy": "X"})),
            "spec.podReplacementPolicy: Unsupported value: \"X\": supported values: \"Failed\", \"TerminatingOrFailed\"",
        ),
        (
            job(
                &json!({"completionMode": "Indexed", "completions": 200_000, "parallelism": 100_001}),
            ),
            "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
        ),
        (
            job(&json!({"managedBy": "x"})),
            "spec.managedBy: Invalid value: \"x\": must be a domain-prefixed path (such as \"acme.io/foo\")",
        ),
        (
            job(&json!({"podFailurePolicy": {"rules": [{"action": "FailJob"}]}})),
            "every failed Pod counts against backoffLimit",
        ),
        (
            job(&json!({"completionMode": "Indexed", "completions": 2, "backoffLimitPerIndex": 1})),
            "failures are counted for the whole Job",
        ),
    ];
    for (job, wanted) in rows {
        let reply = server.post(JOBS, job).await;
        assert_eq!(reply.code, 422, "{wanted}: {}", reply.text);
        let message = reply.body["message"].as_str().unwrap();
        assert!(message.contains(wanted), "{message}\nand not\n{wanted}");
    }
}

#[tokio::test]
async fn what_pods_were_made_of_does_not_change() {
    let server = TestServer::new().await;
    server.post(JOBS, job(&json!({"completions": 3}))).await;
    let path = format!("{JOBS}/j");
    let patch = |spec: Value| {
        let (server, path) = (&server, &path);
        async move {
            server
                .patch(path, "merge-patch+json", json!({"spec": spec}))
                .await
        }
    };
    for (spec, wanted) in [
        (
            json!({"completions": 4}),
            "spec.completions: Invalid value: 4: field is immutable",
        ),
        (
            json!({"completionMode": "Indexed"}),
            "spec.completionMode: Invalid value: \"Indexed\": field is immutable",
        ),
        (
            json!({"template": {"metadata": {"annotations": {"a": "b"}}}}),
            "field is immutable",
        ),
        (
            json!({"selector": {"matchLabels": {"a": "b"}}}),
            "`selector` not auto-generated",
        ),
    ] {
        let reply = patch(spec).await;
        assert_eq!(reply.code, 422, "{wanted}: {}", reply.text);
        let message = reply.body["message"].as_str().unwrap();
        assert!(message.contains(wanted), "{message}\nand not\n{wanted}");
    }
    let changed = patch(json!({"parallelism": 2, "suspend": true, "backoffLimit": 1})).await;
    assert_eq!(
        changed.body["metadata"]["generation"], 2,
        "{}",
        changed.text
    );
    // A suspended Job may be told where its Pods will run.
    let changed = patch(json!({"template": {"spec": {"nodeSelector": {"a": "b"}}}})).await;
    assert_eq!(changed.code, 200, "{}", changed.text);
    let status = server
        .patch(
            &format!("{path}/status"),
            "merge-patch+json",
            json!({"status": {"conditions": [{"type": "Complete", "status": "True"}]}}),
        )
        .await;
    assert!(
        status.text.contains("status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition"),
        "{}",
        status.text
    );
    let deleted = server.delete(&path).await;
    assert_eq!(deleted.warnings.len(), 1, "{:?}", deleted.warnings);
    assert!(
        deleted.warnings[0].contains("child pods are preserved by default when jobs are deleted")
    );
    assert_eq!(
        server.get(&path).await.body["metadata"]["finalizers"],
        json!(["orphan"])
    );
}
