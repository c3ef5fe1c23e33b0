//! Rollouts step by step, with the conditions recorded from Kubernetes.

use super::*;
use kinglet_reconcile::Verb;
use serde_json::json;

const NOW: i64 = 1_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn deployment(replicas: i32, image: &str) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "d", "namespace": "a", "uid": "d-uid", "generation": 1, "resourceVersion": "1"},
        "spec": {
            "replicas": replicas, "revisionHistoryLimit": 0, "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": "d"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": image}]}}
        }
    }))
    .unwrap()
}

fn observed(deployment: &Deployment, owned: Vec<ReplicaSet>) -> ObservedDeployment {
    ObservedDeployment {
        deployment: Arc::new(deployment.clone()),
        owned: owned.into_iter().map(Arc::new).collect(),
        orphans: Vec::new(),
        pods_left: BTreeMap::new(),
    }
}

fn set_of(deployment: &Deployment, wanted: i32, available: i32) -> ReplicaSet {
    let mut set = template::replica_set(deployment);
    set.metadata.uid = Some(format!("{}-uid", name_of(&set)));
    set.metadata.resource_version = Some("1".into());
    annotate(&mut set, &Limits::of(deployment), Some(1));
    set.spec.as_mut().unwrap().replicas = Some(wanted);
    set.status = Some(
        serde_json::from_value(
            json!({"replicas": wanted, "readyReplicas": available, "availableReplicas": available}),
        )
        .unwrap(),
    );
    set
}

fn conditions(plan: &Plan) -> Vec<String> {
    let status = plan
        .writes()
        .find(|write| write.verb == Verb::Status)
        .expect("a status is decided");
    let all = status.body["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    all.iter()
        .map(|c| {
            format!(
                "{}={} {} {}",
                c["type"].as_str().unwrap(),
                c["status"].as_str().unwrap(),
                c["reason"].as_str().unwrap(),
                c["message"].as_str().unwrap()
            )
        })
        .collect()
}

fn with_status(deployment: &Deployment, plan: &Plan) -> Deployment {
    let status = plan
        .writes()
        .find(|write| write.verb == Verb::Status)
        .unwrap();
    let mut deployment = deployment.clone();
    deployment.status = serde_json::from_value(status.body["status"].clone()).unwrap();
    deployment.metadata.annotations = Some([(REVISION.to_owned(), "1".to_owned())].into());
    deployment
}

#[test]
fn the_life_of_a_rollout_reads_as_recorded() {
    let d = deployment(1, "v1");
    let first = decide(&observed(&d, vec![]), now());
    let created = first.create.unwrap();
    let name = name_of(&created).to_owned();
    assert_eq!(replicas_of(&created), 1);
    assert_eq!(annotation(&created, DESIRED), Some("1"));
    assert_eq!(annotation(&created, MAX), Some("2"));
    assert_eq!(annotation(&created, REVISION), Some("1"));
    assert_eq!(
        conditions(&first.plan),
        [
            "Available=False MinimumReplicasUnavailable Deployment does not have minimum availability.".to_owned(),
            format!("Progressing=True NewReplicaSetCreated Created new replica set \"{name}\""),
        ]
    );
    assert!(first.plan.writes().any(|write| write.verb == Verb::Update
        && write.body["metadata"]["annotations"][REVISION] == "1"));

    let d = with_status(&d, &first.plan);
    let second = decide(&observed(&d, vec![set_of(&d, 1, 0)]), now());
    assert_eq!(
        conditions(&second.plan)[1],
        format!("Progressing=True ReplicaSetUpdated ReplicaSet \"{name}\" is progressing.")
    );
    assert_eq!(
        second.plan.next,
        kinglet_reconcile::Next::After(std::time::Duration::from_secs(601))
    );

    let d = with_status(&d, &second.plan);
    let third = decide(&observed(&d, vec![set_of(&d, 1, 1)]), now());
    assert_eq!(
        conditions(&third.plan),
        [
            "Available=True MinimumReplicasAvailable Deployment has minimum availability."
                .to_owned(),
            format!(
                "Progressing=True NewReplicaSetAvailable ReplicaSet \"{name}\" has successfully progressed."
            ),
        ]
    );
    let d = with_status(&d, &third.plan);
    let settled = decide(&observed(&d, vec![set_of(&d, 1, 1)]), now());
    assert!(
        settled
            .plan
            .writes()
            .all(kinglet_reconcile::Write::changes_nothing),
        "{:?}",
        settled.plan
    );
}

#[test]
fn a_deadline_that_passes_is_said_once() {
    let d = deployment(1, "v1");
    let first = decide(&observed(&d, vec![]), now());
    let d = with_status(&d, &first.plan);
    let second = decide(&observed(&d, vec![set_of(&d, 1, 0)]), now());
    let d = with_status(&d, &second.plan);
    let late = Timestamp::from_second(NOW + 601).unwrap();
    let third = decide(&observed(&d, vec![set_of(&d, 1, 0)]), late);
    let name = template::replica_set(&d).metadata.name.unwrap();
    assert_eq!(
        conditions(&third.plan)[1],
        format!(
            "Progressing=False ProgressDeadlineExceeded ReplicaSet \"{name}\" has timed out progressing."
        )
    );
    assert_eq!(third.plan.next, kinglet_reconcile::Next::Done);
}

#[test]
fn waking_from_zero_is_one_update_before_any_status() {
    let asleep = deployment(0, "v1");
    let set = set_of(&asleep, 0, 0);
    let awake = deployment(1, "v1");
    let decision = decide(&observed(&awake, vec![set]), now());
    let first = decision.plan.writes().next().unwrap();
    assert_eq!(
        (first.kind.as_str(), &first.body["spec"]["replicas"]),
        ("ReplicaSet", &json!(1))
    );
    let event = decision.plan.events().next().unwrap();
    assert!(event.message.ends_with("from 0 to 1"), "{}", event.message);
}

#[test]
fn scaling_down_to_zero_empties_the_one_replica_set() {
    let set = set_of(&deployment(2, "v1"), 2, 2);
    let decision = decide(&observed(&deployment(0, "v1"), vec![set]), now());
    let first = decision.plan.writes().next().unwrap();
    assert_eq!(first.body["spec"]["replicas"], json!(0));
}

#[test]
fn a_new_template_replaces_the_old_one_and_cleans_up() {
    let old = set_of(&deployment(1, "v1"), 1, 1);
    let d = deployment(1, "v2");
    let first = decide(&observed(&d, vec![old.clone()]), now());
    let new = first.create.unwrap();
    assert_eq!(
        (replicas_of(&new), annotation(&new, REVISION)),
        (1, Some("2"))
    );

    let ready = decide(&observed(&d, vec![old.clone(), set_of(&d, 1, 1)]), now());
    let down = ready
        .plan
        .writes()
        .find(|write| &*write.key.name == name_of(&old))
        .unwrap();
    assert_eq!(down.body["spec"]["replicas"], json!(0));

    let empty = set_of(&deployment(1, "v1"), 0, 0);
    let done = decide(&observed(&d, vec![empty, set_of(&d, 1, 1)]), now());
    assert!(
        done.plan
            .writes()
            .any(|write| matches!(write.verb, Verb::Delete { .. }))
    );
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut d = deployment(1, "v2");
    d.spec.as_mut().unwrap().strategy =
        serde_json::from_value(json!({"type": "Recreate"})).unwrap();
    let old = set_of(&deployment(1, "v1"), 0, 0);
    let mut observed = observed(&d, vec![old.clone()]);
    observed.pods_left = [(uid_of(&old).to_owned(), 1)].into();
    assert_eq!(replicas_of(&decide(&observed, now()).create.unwrap()), 0);
    observed.pods_left.clear();
    assert_eq!(replicas_of(&decide(&observed, now()).create.unwrap()), 1);
}

#[test]
fn a_failure_to_create_pods_is_carried_up() {
    let d = deployment(1, "v1");
    let mut set = set_of(&d, 1, 0);
    set.status.as_mut().unwrap().conditions = serde_json::from_value(json!([
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "pods \"x\" is forbidden"}
    ])).unwrap();
    let decision = decide(&observed(&d, vec![set]), now());
    assert!(
        conditions(&decision.plan)
            .contains(&"ReplicaFailure=True FailedCreate pods \"x\" is forbidden".to_owned())
    );
}

#[test]
fn a_paused_deployment_says_so_and_creates_nothing() {
    let mut d = deployment(1, "v1");
    d.spec.as_mut().unwrap().paused = Some(true);
    let decision = decide(&observed(&d, vec![]), now());
    assert!(decision.create.is_none());
    assert!(
        conditions(&decision.plan)
            .contains(&"Progressing=Unknown DeploymentPaused Deployment is paused".to_owned())
    );
}
