//! Plans for a Configuration: the Revision made, the latest that works, failures, names of the user's.

use std::sync::Arc;

use jiff::Timestamp;
use kinglet_api::keys;
use kinglet_api::serving::{Configuration, Revision};
use kinglet_reconcile::{Plan, Verb};
use serde_json::{Value, json};

use super::decide::{decide, refused};
use super::observe::{ConfigurationObserved, Latest, by_generation, by_name};

fn configuration(generation: i64, name: Option<&str>, latest_ready: &str) -> Configuration {
    let mut template = json!({"metadata": {"annotations": {"mine": "too"}}, "spec": {"containers": [{"image": "x:1"}]}});
    if let Some(name) = name {
        template["metadata"]["name"] = json!(name);
    }
    serde_json::from_value(json!({
        "metadata": {
            "name": "hello", "namespace": "ready", "uid": "c-1", "generation": generation,
            "labels": {keys::SERVICE: "hello", keys::SERVICE_UID: "s-1"},
            "annotations": {keys::CREATOR: "ann", keys::LAST_MODIFIER: "bob", keys::ROUTES: "hello"},
        },
        "spec": {"template": template},
        "status": {"latestReadyRevisionName": latest_ready},
    }))
    .unwrap()
}

fn revision(name: &str, generation: i64, truth: &str, message: &str) -> Arc<Revision> {
    let value = json!({
        "metadata": {
            "name": name, "namespace": "ready", "generation": 1,
            "labels": {keys::CONFIGURATION: "hello", keys::CONFIGURATION_GENERATION: generation.to_string()},
            "ownerReferences": [{"apiVersion": "serving.knative.dev/v1", "kind": "Configuration", "name": "hello", "uid": "c-1", "controller": true}],
        },
        "spec": {"containers": [{"image": "x:1"}]},
        "status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": truth, "message": message}]},
    });
    Arc::new(serde_json::from_value(value).unwrap())
}

fn look(configuration: Configuration, revisions: &[Arc<Revision>]) -> ConfigurationObserved {
    let wanted = configuration.spec.template.metadata.name.clone();
    let latest = match wanted {
        Some(name) => by_name(
            &configuration,
            &name,
            revisions.iter().find(|found| found.name() == name).cloned(),
        ),
        None => by_generation(&configuration, revisions),
    };
    let now = Timestamp::from_second(1_795_256_272).unwrap();
    ConfigurationObserved {
        configuration: Arc::new(configuration),
        revisions: revisions.to_vec(),
        latest,
        hold: std::time::Duration::ZERO,
        now,
    }
}

fn status(plan: &Plan) -> Value {
    plan.writes()
        .find(|write| write.verb == Verb::Status)
        .expect("a status")
        .body["status"]
        .clone()
}

fn conditions(plan: &Plan) -> String {
    let status = status(plan);
    let ready = &status["conditions"][0];
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    format!(
        "{}/{} {} {} {}",
        text(&status["latestCreatedRevisionName"]),
        text(&status["latestReadyRevisionName"]),
        text(&ready["status"]),
        text(&ready["reason"]),
        text(&ready["message"])
    )
}

fn events(plan: &Plan) -> Vec<String> {
    plan.events()
        .map(|event| format!("{} {}", event.reason, event.message))
        .collect()
}

#[test]
fn a_revision_is_made_as_knative_makes_it() {
    let plan = decide(&look(configuration(1, None, ""), &[]));
    let made = plan.writes().next().unwrap();
    assert_eq!(
        made.body,
        json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
            "metadata": {
                "name": "hello-00001", "namespace": "ready",
                "labels": {
                    keys::CONFIGURATION: "hello", keys::CONFIGURATION_GENERATION: "1", keys::CONFIGURATION_UID: "c-1",
                    keys::ROUTING_STATE: "active", keys::SERVICE: "hello", keys::SERVICE_UID: "s-1",
                },
                "annotations": {"mine": "too", keys::CREATOR: "bob", keys::ROUTES: "hello", keys::ROUTING_STATE_MODIFIED: "2026-11-21T10:17:52Z"},
                "ownerReferences": [{"apiVersion": "serving.knative.dev/v1", "kind": "Configuration", "name": "hello", "uid": "c-1", "controller": true, "blockOwnerDeletion": true}],
            },
            "spec": {"containers": [{"image": "x:1", "name": ""}]},
        })
    );
    assert_eq!(conditions(&plan), "hello-00001/- Unknown - -");
    assert_eq!(events(&plan), ["Created Created Revision \"hello-00001\""]);

    let mut alone = configuration(1, None, "");
    alone.metadata.annotations = None;
    let plan = decide(&look(alone, &[]));
    assert_eq!(
        plan.writes().next().unwrap().body["metadata"]["labels"][keys::ROUTING_STATE],
        "pending"
    );
}

#[test]
fn the_newest_that_works_is_the_latest_ready() {
    type Row<'r> = (&'r str, &'r [Arc<Revision>], &'r str, &'r [&'r str]);
    let rows: [Row<'_>; 7] = [
        (
            "",
            &[revision("hello-1", 3, "Unknown", "")],
            "hello-1/- Unknown - -",
            &[],
        ),
        (
            "",
            &[revision("hello-1", 3, "Unknown", "probe fails")],
            "hello-1/- Unknown - probe fails",
            &[],
        ),
        (
            "",
            &[revision("hello-1", 3, "True", "")],
            "hello-1/hello-1 True - -",
            &[
                "ConfigurationReady Configuration becomes ready",
                "LatestReadyUpdate LatestReadyRevisionName updated to \"hello-1\"",
            ],
        ),
        (
            "hello-1",
            &[
                revision("hello-1", 1, "True", ""),
                revision("hello-2", 2, "True", ""),
                revision("hello-3", 3, "Unknown", ""),
            ],
            "hello-3/hello-2 Unknown - -",
            &["LatestReadyUpdate LatestReadyRevisionName updated to \"hello-2\""],
        ),
        (
            "hello-1",
            &[
                revision("hello-1", 1, "True", ""),
                revision("hello-3", 3, "False", "no such image"),
            ],
            "hello-3/hello-1 False RevisionFailed Revision \"hello-3\" failed with message: no such image.",
            &["LatestCreatedFailed Latest created revision \"hello-3\" has failed"],
        ),
        // It never moves back, whatever happens to the newer one.
        (
            "hello-2",
            &[
                revision("hello-1", 1, "True", ""),
                revision("hello-2", 2, "False", ""),
                revision("hello-3", 3, "Unknown", ""),
            ],
            "hello-3/hello-2 Unknown - -",
            &[],
        ),
        // Unless the latest ready one is gone.
        (
            "hello-2",
            &[
                revision("hello-1", 1, "True", ""),
                revision("hello-3", 3, "Unknown", ""),
            ],
            "hello-3/hello-1 Unknown - -",
            &["LatestReadyUpdate LatestReadyRevisionName updated to \"hello-1\""],
        ),
    ];
    for (known, revisions, want, expected) in rows {
        let plan = decide(&look(configuration(3, None, known), revisions));
        assert_eq!(conditions(&plan), want);
        assert_eq!(events(&plan), *expected, "{want}");
    }
}

#[test]
fn names_of_the_users() {
    // Back to an earlier name with the same template.
    let back = [
        revision("hello-a", 1, "True", ""),
        revision("hello-b", 2, "True", ""),
    ];
    let plan = decide(&look(configuration(3, Some("hello-a"), "hello-b"), &back));
    assert_eq!(conditions(&plan), "hello-a/hello-a True - -");

    let mut other = Revision::clone(&back[0]);
    other.spec.timeout_seconds = Some(7);
    let taken = look(
        configuration(3, Some("hello-a"), "hello-b"),
        &[Arc::new(other)],
    );
    assert!(matches!(taken.latest, Latest::Taken(_)));
    let plan = decide(&taken);
    let want = "Revision creation failed with message: revisions.serving.knative.dev \"hello-a\" already exists.";
    assert_eq!(
        conditions(&plan),
        format!("-/hello-b False RevisionFailed {want}")
    );
    assert!(plan.error.is_none());
}

#[test]
fn a_refused_revision_is_told() {
    let observed = look(configuration(1, None, ""), &[]);
    let plan = refused(&observed, "admission says no");
    assert_eq!(
        conditions(&plan),
        "-/- False RevisionFailed Revision creation failed with message: admission says no"
    );
}
