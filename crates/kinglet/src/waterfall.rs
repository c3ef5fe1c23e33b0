//! Where the milliseconds of a cold start went, stage by stage.
//!
//! Flow: the caches see each object of the chain change -> **here** (one stamp per stage) -> joined with what the gateway
//! measured -> `kinglet status --cold-starts`.
//! Always: bounded; nothing on the cold path waits for it.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kinglet_dataplane::ColdStart;
use kinglet_process::Clock;
use kinglet_reconcile::{Caches, Change, label, name_of, namespace_of};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// As many as the gateway remembers cold starts, and some that were no cold starts.
const KEPT: usize = 512;
const REVISION: &str = "serving.knative.dev/revision";

/// Stamps by object; the oldest are forgotten.
#[derive(Default)]
struct Stamps {
    /// Namespace/revision: when its Deployment left zero.
    scaled: VecDeque<(String, Timestamp)>,
    pods: VecDeque<Steps>,
}

struct Steps {
    pod: String,
    created: Timestamp,
    bound: Option<Timestamp>,
    ready: Option<Timestamp>,
}

/// Watches the chain. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Waterfalls(Arc<Mutex<Stamps>>);

impl Waterfalls {
    /// Stamps what the caches see from now on.
    pub(crate) fn follow(caches: &Caches, clock: &Clock) -> Self {
        let this = Self::default();
        let (stamps, time) = (this.clone(), clock.clone());
        caches
            .cache::<Deployment>()
            .observe(move |change| stamps.deployment(change, &time));
        let (stamps, time) = (this.clone(), clock.clone());
        caches
            .cache::<Pod>()
            .observe(move |change| stamps.pod(change, &time));
        this
    }

    fn deployment(&self, change: &Change<Deployment>, clock: &Clock) {
        let Change::Applied { old, new } = change else {
            return;
        };
        let replicas = |deployment: &Deployment| {
            deployment
                .spec
                .as_ref()
                .and_then(|spec| spec.replicas)
                .unwrap_or(1)
        };
        let left_zero = old.as_ref().is_none_or(|old| replicas(old) == 0) && replicas(new) > 0;
        if let Some(revision) = label(&**new, REVISION).filter(|_| left_zero) {
            let key = format!("{}/{revision}", namespace_of(&**new));
            push(&mut self.0.lock().scaled, (key, clock.now()));
        }
    }

    fn pod(&self, change: &Change<Pod>, clock: &Clock) {
        let Change::Applied { new, .. } = change else {
            return;
        };
        if label(&**new, REVISION).is_none() {
            return;
        }
        let key = format!("{}/{}", namespace_of(&**new), name_of(&**new));
        let mut stamps = self.0.lock();
        if !stamps.pods.iter().any(|steps| steps.pod == key) {
            push(
                &mut stamps.pods,
                Steps {
                    pod: key.clone(),
                    created: clock.now(),
                    bound: None,
                    ready: None,
                },
            );
        }
        let Some(steps) = stamps.pods.iter_mut().rev().find(|steps| steps.pod == key) else {
            return;
        };
        if steps.bound.is_none()
            && new
                .spec
                .as_ref()
                .is_some_and(|spec| spec.node_name.is_some())
        {
            steps.bound = Some(clock.now());
        }
        let conditions = new
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        let ready = conditions.is_some_and(|conditions| {
            conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True")
        });
        if steps.ready.is_none() && ready {
            steps.ready = Some(clock.now());
        }
    }

    /// One cold start as `status` shows it: stages follow each other and add up to the total.
    pub(crate) fn of(&self, start: &ColdStart) -> Value {
        let stamps = self.0.lock();
        let admitted = start.woke + start.wait;
        let pod = format!("{}/{}", start.revision.namespace, start.pod);
        let steps = stamps.pods.iter().rev().find(|steps| steps.pod == pod);
        // The last time it left zero before this slot, but not before the request: else somebody else woke it.
        let scaled = stamps
            .scaled
            .iter()
            .rev()
            .find(|(key, at)| {
                *key == start.revision.to_string() && *at >= start.woke && *at <= admitted
            })
            .map(|(_, at)| *at);
        let marks = [
            ("decide", scaled),
            ("create", steps.map(|steps| steps.created)),
            ("bind", steps.and_then(|steps| steps.bound)),
            ("start+probe", steps.and_then(|steps| steps.ready)),
            ("slot", Some(admitted)),
        ];
        let mut from = start.woke;
        let mut stages = Vec::new();
        for (name, at) in marks {
            let Some(at) = at.filter(|at| *at >= from && *at <= admitted) else {
                continue;
            };
            stages.push(stage(name, at.duration_since(from).as_secs_f64()));
            from = at;
        }
        stages.push(stage("connect", start.connect.as_secs_f64()));
        stages.push(stage("answer", start.first_byte.as_secs_f64()));
        json!({
            "revision": start.revision.to_string(),
            "pod": &*start.pod,
            "woke": start.woke.to_string(),
            "stages": stages,
            "totalMs": milliseconds((start.wait + start.connect + start.first_byte).as_secs_f64()),
        })
    }
}

fn stage(name: &str, seconds: f64) -> Value {
    json!({"name": name, "ms": milliseconds(seconds)})
}

fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e3
}

fn push<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() >= KEPT {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn stages_add_up() {
        let woke = Timestamp::from_second(1_800_000_000).expect("a time");
        let after = |ms: u64| woke + Duration::from_millis(ms);
        let falls = Waterfalls::default();
        {
            let mut stamps = falls.0.lock();
            stamps.scaled.push_back(("default/r".to_owned(), after(1)));
            stamps.pods.push_back(Steps {
                pod: "default/p".to_owned(),
                created: after(3),
                bound: Some(after(4)),
                ready: Some(after(14)),
            });
        }
        let start = ColdStart {
            revision: kinglet_decide::feed::Key::new("default", "r"),
            pod: "p".into(),
            woke,
            wait: Duration::from_millis(15),
            connect: Duration::from_millis(1),
            first_byte: Duration::from_millis(2),
        };
        let shown = falls.of(&start);
        let stages: Vec<(String, f64)> = shown["stages"]
            .as_array()
            .expect("stages")
            .iter()
            .map(|stage| {
                (
                    stage["name"].as_str().expect("name").to_owned(),
                    stage["ms"].as_f64().expect("ms"),
                )
            })
            .collect();
        let expected = [
            ("decide", 1.0),
            ("create", 2.0),
            ("bind", 1.0),
            ("start+probe", 10.0),
            ("slot", 1.0),
            ("connect", 1.0),
            ("answer", 2.0),
        ];
        assert_eq!(stages, expected.map(|(name, ms)| (name.to_owned(), ms)));
        assert_eq!(shown["totalMs"], 18.0);
    }
}
