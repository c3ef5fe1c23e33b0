//! Plans for a Service, as recorded in 01 (ready), 05 (no digest), 13 (traffic errors) and 15 (labels).
#![expect(
    clippy::needless_pass_by_value,
    reason = "tables read better without borrows"
)]

use std::sync::Arc;

use jiff::Timestamp;
use kinglet_api::keys;
use kinglet_api::serving::{Configuration, Revision, Route, Service};
use kinglet_reconcile::{Plan, Verb};
use serde_json::{Value, json};

use super::decide::decide;
use super::observe::ServiceObserved;

fn service(template: Value) -> Service {
    serde_json::from_value(json!({
        "metadata": {
            "name": "hello", "namespace": "ready", "uid": "s-1", "generation": 1,
            "labels": {"team": "red"},
            "annotations": {
                "note": "kept", keys::CREATOR: "admin", keys::LAST_MODIFIER: "admin",
                "serving.knative.dev/rollout-duration": "60s",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
            },
        },
        "spec": {"template": template, "traffic": [{"latestRevision": true, "percent": 100}]},
    }))
    .unwrap()
}

fn template() -> Value {
    json!({"spec": {"containers": [{"image": "kn.local/helloworld:1", "name": "user-container"}]}})
}

fn observed(service: Service) -> ServiceObserved {
    let now = Timestamp::from_second(1_000).unwrap();
    ServiceObserved {
        service: Arc::new(service),
        configuration: None,
        route: None,
        namesake: None,
        hold: std::time::Duration::ZERO,
        now,
    }
}

/// The child as the API server would give it back, observed and with this `Ready`.
fn stored<K: serde::de::DeserializeOwned>(plan: &Plan, kind: &str, status: Value) -> Arc<K> {
    let write = plan
        .writes()
        .find(|write| write.kind == kind)
        .expect("the child is written");
    let mut body = write.body.clone();
    body["metadata"]["uid"] = json!(format!("{kind}-uid"));
    body["metadata"]["generation"] = json!(1);
    body["status"] = status;
    Arc::new(serde_json::from_value(body).unwrap())
}

fn ready(truth: &str, reason: &str, message: &str) -> Value {
    json!({"observedGeneration": 1, "conditions": [{"type": "Ready", "status": truth, "reason": reason, "message": message}]})
}

fn conditions(plan: &Plan) -> Vec<String> {
    let status = plan
        .writes()
        .find(|write| write.verb == Verb::Status)
        .expect("a status");
    let all = status.body["status"]["conditions"].as_array().unwrap();
    all.iter()
        .map(|condition| {
            let text = |key: &str| condition[key].as_str().unwrap_or("").to_owned();
            format!(
                "{}={} {} {}",
                text("type"),
                text("status"),
                text("reason"),
                text("message")
            )
            .trim_end()
            .to_owned()
        })
        .collect()
}

fn kinds(plan: &Plan) -> Vec<(Verb, &str)> {
    plan.writes()
        .map(|write| (write.verb.clone(), write.kind.as_str()))
        .collect()
}

#[test]
fn the_children_are_as_knative_makes_them() {
    let plan = decide(&observed(service(template())));
    assert_eq!(
        kinds(&plan),
        [
            (Verb::Create, "Configuration"),
            (Verb::Create, "Route"),
            (Verb::Status, "Service")
        ]
    );
    let bodies: Vec<Value> = plan.writes().map(|write| write.body.clone()).collect();
    let owner = json!([{"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "hello", "uid": "s-1", "controller": true, "blockOwnerDeletion": true}]);
    assert_eq!(
        bodies[0],
        json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Configuration",
            "metadata": {
                "name": "hello", "namespace": "ready", "ownerReferences": owner,
                "labels": {"serving.knative.dev/service": "hello", "serving.knative.dev/serviceUID": "s-1", "team": "red"},
                "annotations": {"note": "kept", keys::CREATOR: "admin", keys::LAST_MODIFIER: "admin", keys::ROUTES: "hello"},
            },
            "spec": {"template": {"metadata": {}, "spec": {"containers": [{"image": "kn.local/helloworld:1", "name": "user-container"}]}}},
        })
    );
    assert_eq!(
        bodies[1],
        json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Route",
            "metadata": {
                "name": "hello", "namespace": "ready", "ownerReferences": owner,
                "labels": {"serving.knative.dev/service": "hello", "team": "red"},
                "annotations": {"note": "kept", keys::CREATOR: "admin", keys::LAST_MODIFIER: "admin", "serving.knative.dev/rollout-duration": "60s"},
            },
            "spec": {"traffic": [{"configurationName": "hello", "latestRevision": true, "percent": 100}]},
        })
    );
    let events: Vec<_> = plan
        .events()
        .map(|event| (event.reason.as_str(), event.message.as_str()))
        .collect();
    assert_eq!(
        events,
        [
            ("Created", "Created Configuration \"hello\""),
            ("Created", "Created Route \"hello\"")
        ]
    );
}

#[test]
fn a_revision_name_of_the_users_is_looked_at_before_the_route() {
    let mut named = template();
    named["metadata"] = json!({"name": "hello-a"});
    let mut observed = observed(service(named));
    let first = decide(&observed);
    assert_eq!(
        kinds(&first),
        [(Verb::Create, "Configuration"), (Verb::Status, "Service")]
    );
    let out_of_date =
        "The Configuration is still working to reflect the latest desired specification.";
    assert_eq!(
        conditions(&first),
        [
            format!("ConfigurationsReady=Unknown OutOfDate {out_of_date}"),
            format!("Ready=Unknown OutOfDate {out_of_date}"),
            "RoutesReady=Unknown".to_owned(),
        ]
    );
    observed.configuration = Some(stored(&first, "Configuration", ready("Unknown", "", "")));
    let taken: Revision = serde_json::from_value(
        json!({"metadata": {"name": "hello-a", "namespace": "ready"}, "spec": {"containers": []}}),
    )
    .unwrap();
    observed.namesake = Some(Arc::new(taken));
    let second = decide(&observed);
    assert_eq!(
        kinds(&second),
        [(Verb::Update, "Configuration"), (Verb::Status, "Service")]
    );
    assert!(
        conditions(&second)[2].starts_with(
            "RoutesReady=False RevisionNameTaken The revision name \"hello-a\" is taken"
        )
    );
    observed.namesake = None;
    let third = decide(&observed);
    assert!(kinds(&third).contains(&(Verb::Create, "Route")));
}

#[test]
fn the_status_is_what_the_children_say() {
    let blank = observed(service(template()));
    let first = decide(&blank);
    let spread = json!({"traffic": [{"latestRevision": true, "percent": 100, "revisionName": "hello-1"}], "url": "http://hello.ready.example.com"});
    let with = |mut base: Value, extra: &Value| {
        for (key, value) in extra.as_object().unwrap() {
            base[key] = value.clone();
        }
        base
    };
    let names =
        json!({"latestCreatedRevisionName": "hello-1", "latestReadyRevisionName": "hello-1"});
    let newer =
        json!({"latestCreatedRevisionName": "hello-2", "latestReadyRevisionName": "hello-2"});
    let failed = "Revision \"hello-1\" failed with message: no such image.";
    let cases = [
        (
            with(ready("True", "", ""), &names),
            with(ready("True", "", ""), &spread),
            ["ConfigurationsReady=True", "Ready=True", "RoutesReady=True"].map(str::to_owned),
        ),
        (
            with(ready("True", "", ""), &newer),
            with(ready("True", "", ""), &spread),
            [
                "ConfigurationsReady=True".to_owned(),
                "Ready=Unknown TrafficNotMigrated Traffic is not yet migrated to the latest revision.".to_owned(),
                "RoutesReady=Unknown TrafficNotMigrated Traffic is not yet migrated to the latest revision.".to_owned(),
            ],
        ),
        (
            ready("False", "RevisionFailed", failed),
            ready("False", "RevisionMissing", "no revision"),
            [
                format!("ConfigurationsReady=False RevisionFailed {failed}"),
                "Ready=False RevisionMissing no revision".to_owned(),
                "RoutesReady=False RevisionMissing no revision".to_owned(),
            ],
        ),
        (
            with(ready("True", "", ""), &names),
            ready("False", "RevisionMissing", "Revision \"x\" referenced in traffic not found."),
            [
                "ConfigurationsReady=True".to_owned(),
                "Ready=False RevisionMissing Revision \"x\" referenced in traffic not found.".to_owned(),
                "RoutesReady=False RevisionMissing Revision \"x\" referenced in traffic not found.".to_owned(),
            ],
        ),
    ];
    for (configuration, route, want) in cases {
        let mut observed = blank.clone();
        observed.configuration = Some(stored::<Configuration>(
            &first,
            "Configuration",
            configuration,
        ));
        observed.route = Some(stored::<Route>(&first, "Route", route));
        let plan = decide(&observed);
        assert_eq!(conditions(&plan), want);
        assert!(
            plan.writes()
                .filter(|write| write.verb == Verb::Update)
                .all(kinglet_reconcile::Write::changes_nothing)
        );
        assert_eq!(plan.events().count(), 0);
    }
}

#[test]
fn what_belongs_to_others_is_left_alone() {
    let mut observed = observed(service(template()));
    let foreign: Configuration =
        serde_json::from_value(json!({"metadata": {"name": "hello", "namespace": "ready"}}))
            .unwrap();
    observed.configuration = Some(Arc::new(foreign));
    let plan = decide(&observed);
    assert_eq!(kinds(&plan), [(Verb::Status, "Service")]);
    assert!(
        conditions(&plan)[0]
            .ends_with("NotOwned There is an existing Configuration \"hello\" that we do not own.")
    );
    assert!(plan.error.is_some());
}

#[test]
fn a_failure_of_a_young_generation_waits_behind_out_of_date() {
    let hold = std::time::Duration::from_millis(900);
    let first = decide(&observed(service(template())));
    let mut young = observed(service(template()));
    young.configuration = Some(stored(&first, "Configuration", ready("True", "", "")));
    let missing = ready(
        "False",
        "RevisionMissing",
        "Revision \"nope\" referenced in traffic not found.",
    );
    young.route = Some(stored(&first, "Route", missing));
    young.hold = hold;
    let plan = decide(&young);
    assert_eq!(
        conditions(&plan),
        [
            "ConfigurationsReady=True",
            "Ready=Unknown OutOfDate The Route is still working to reflect the latest desired specification.",
            "RoutesReady=Unknown OutOfDate The Route is still working to reflect the latest desired specification.",
        ]
    );
    assert_eq!(plan.next, kinglet_reconcile::Next::After(hold));
    young.hold = std::time::Duration::ZERO;
    assert_eq!(
        conditions(&decide(&young))[1],
        "Ready=False RevisionMissing Revision \"nope\" referenced in traffic not found."
    );
    // A verdict of True never waits.
    young.hold = hold;
    young.route = Some(stored(&first, "Route", ready("True", "", "")));
    young.configuration = Some(stored(&first, "Configuration", ready("True", "", "")));
    assert_eq!(decide(&young).next, kinglet_reconcile::Next::Done);
}
