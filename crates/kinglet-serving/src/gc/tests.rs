//! Which Revisions go, by age and number.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kinglet_api::config::Gc;
use kinglet_api::keys;
use kinglet_api::serving::{Configuration, Revision};
use serde_json::json;

use super::decide::decide;

const HOUR: i64 = 3600;

/// A Revision created and last used so many hours ago.
fn revision(name: &str, created: i64, used: i64, state: &str) -> Arc<Revision> {
    let at = |hours: i64| {
        Timestamp::from_second((1_000 - hours) * HOUR)
            .unwrap()
            .to_string()
    };
    let value = json!({
        "metadata": {
            "name": name, "namespace": "a", "creationTimestamp": at(created),
            "labels": {keys::ROUTING_STATE: state}, "annotations": {keys::ROUTING_STATE_MODIFIED: at(used)},
        },
        "spec": {"containers": []},
    });
    Arc::new(serde_json::from_value(value).unwrap())
}

fn gone(revisions: &[Arc<Revision>], gc: &Gc) -> (Vec<String>, Option<u64>) {
    let configuration: Configuration = serde_json::from_value(
        json!({"metadata": {"name": "hello"}, "status": {"latestReadyRevisionName": "latest"}}),
    )
    .unwrap();
    let verdict = decide(
        &configuration,
        revisions,
        gc,
        Timestamp::from_second(1_000 * HOUR).unwrap(),
    );
    (
        verdict
            .delete
            .iter()
            .map(|revision| revision.name().to_owned())
            .collect(),
        verdict.again.map(|span| span.as_secs() / 3600),
    )
}

#[test]
fn old_ones_go_first_and_those_in_use_stay() {
    let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
    let gc = |created, active, min, max| Gc {
        retain_since_create_time: created,
        retain_since_last_active_time: active,
        min_non_active_revisions: min,
        max_non_active_revisions: max,
    };
    let all = [
        revision("a", 100, 90, "reserve"),
        revision("b", 90, 80, "reserve"),
        revision("c", 60, 10, "reserve"),
        revision("d", 5, 4, "reserve"),
        revision("used", 200, 200, "active"),
        revision("latest", 200, 200, "reserve"),
    ];
    let rows: [(Gc, &[&str], Option<u64>); 6] = [
        (gc(hours(48), hours(15), 0, None), &["a", "b"], Some(5)),
        (gc(hours(48), hours(15), 3, None), &["a"], Some(5)),
        (gc(hours(48), hours(15), 4, Some(4)), &[], None),
        (gc(None, None, 1, Some(2)), &["a", "b"], None),
        (gc(None, None, 0, None), &[], None),
        (gc(hours(1000), None, 1, Some(3)), &["a"], Some(900)),
    ];
    for (gc, want, again) in rows {
        let (names, next) = gone(&all, &gc);
        assert_eq!(names, want, "{gc:?}");
        assert_eq!(next, again, "{gc:?}");
    }
}
