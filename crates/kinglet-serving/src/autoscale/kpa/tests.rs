//! Plans for a PodAutoscaler, step by step through the recordings 02 (zero and wake), 06 (never starts), 10 (bounds).

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "loads of a test are small whole numbers"
)]

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use kinglet_api::autoscaling::PodAutoscaler;
use kinglet_api::config::Configs;
use kinglet_api::networking::ServerlessService;
use kinglet_decide::scale::bounds::BufferPath;
use kinglet_reconcile::{Next, Verb, Write};
use serde_json::{Value, json};

use super::*;
use crate::autoscale::decider_set::DesiredScale;
use crate::autoscale::pods::PodCounts;
use crate::autoscale::settings::Settings;

/// A PodAutoscaler with its surroundings, moved from reconcile to reconcile.
struct World {
    owner: PodAutoscaler,
    service: Option<ServerlessService>,
    replicas: i32,
    ready: u32,
    trouble: Option<String>,
    desired_scale: Option<DesiredScale>,
    configs: Configs,
    now: Timestamp,
}

/// What one reconcile did.
#[derive(Debug)]
struct Did {
    plan: Plan,
    replicas: Option<i64>,
    conditions: String,
    desired: i64,
}

impl World {
    fn new(annotations: &Value) -> Self {
        let owner = serde_json::from_value(json!({
            "metadata": {"name": "hello-00001", "namespace": "default", "uid": "uid-pa", "generation": 1, "annotations": annotations},
            "spec": {
                "reachability": "Reachable", "protocolType": "http1",
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "hello-00001-deployment"},
            },
        }))
        .unwrap();
        let mut configs = Configs::default();
        configs.autoscaler.scale_to_zero_grace_period = Duration::from_secs(10);
        configs.autoscaler.allow_zero_initial_scale = true;
        Self {
            owner,
            service: None,
            replicas: 1,
            ready: 0,
            trouble: None,
            desired_scale: None,
            configs,
            now: "2026-11-21T10:00:00Z".parse().unwrap(),
        }
    }

    fn pass(&mut self, seconds: i64) {
        self.now = self
            .now
            .checked_add(SignedDuration::from_secs(seconds))
            .unwrap();
    }

    fn desired_scale(&mut self, desired: impl Into<Option<u32>>) {
        self.desired_scale = Some(DesiredScale {
            desired: desired.into(),
            excess_burst_capacity: -1,
        });
    }

    fn observed(&self) -> PodAutoscalerObserved {
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "hello-00001-deployment", "namespace": "default", "uid": "uid-d", "resourceVersion": "7"},
            "spec": {"replicas": self.replicas, "selector": {}, "template": {}},
        }))
        .unwrap();
        PodAutoscalerObserved {
            autoscaler: Arc::new(self.owner.clone()),
            service: self.service.clone().map(Arc::new),
            metric: None,
            deployment: Some(Arc::new(deployment)),
            pods: PodCounts {
                ready: self.ready,
                ..PodCounts::default()
            },
            trouble: self.trouble.clone(),
            settings: Settings::of(&self.owner, &self.configs),
            desired_scale: self.desired_scale,
            buffer: BufferPath::Confirmed,
            now: self.now,
        }
    }

    /// Reconciles once; statuses and replicas are taken over, and the ServerlessService follows as its controller would.
    fn reconcile(&mut self) -> Did {
        let plan = decide(&self.observed());
        let find = |kind: &str, verb: Verb| {
            plan.writes()
                .find(|write| write.kind == kind && write.verb == verb)
        };
        let scaled = plan.writes().find_map(|write| match write.verb {
            Verb::Scale { from, to } if write.kind == "Deployment" => Some((from, to)),
            _ => None,
        });
        if let Some((from, to)) = scaled {
            assert_eq!(from, self.replicas);
            self.replicas = to;
        }
        if let Some(write) = plan
            .writes()
            .find(|write| write.kind == "ServerlessService" && !write.changes_nothing())
        {
            let mut service: ServerlessService =
                serde_json::from_value(write.body.clone()).unwrap();
            let generation = self
                .service
                .as_ref()
                .map_or(0, ServerlessService::generation)
                + 1;
            service.metadata.generation = Some(generation);
            service.metadata.uid = Some("uid-sks".to_owned());
            self.service = Some(service);
        }
        let status = find("PodAutoscaler", Verb::Status).unwrap();
        self.owner = serde_json::from_value(status.body.clone()).unwrap();
        let conditions: Vec<String> = self
            .owner
            .status
            .common
            .conditions
            .iter()
            .map(brief)
            .collect();
        let desired = i64::from(self.owner.status.desired_scale.unwrap());
        Did {
            replicas: scaled.map(|(_, to)| to.into()),
            conditions: conditions.join("; "),
            desired,
            plan,
        }
    }

    /// The ServerlessService's controller has caught up.
    fn service_follows(&mut self) {
        let (now, ready) = (self.now, self.ready);
        let service = self.service.as_mut().unwrap();
        let populated = if ready > 0 {
            ConditionState::True
        } else {
            ConditionState::unknown_because("NoHealthyBackends", "K8s Service is not ready")
        };
        use kinglet_api::conditions::ServerlessServiceCondition::{
            ActivatorEndpointsPopulated, EndpointsPopulated,
        };
        service.status.common.conditions = Conditions::new()
            .with(EndpointsPopulated, populated)
            .with(
                ActivatorEndpointsPopulated,
                ConditionState::true_because("ActivatorEndpointsPopulated", ""),
            )
            .finish(&service.status.common.conditions.clone(), now);
        service.status.common.observed_generation = service.metadata.generation.unwrap();
        service.status.service_name = "hello-00001".to_owned();
        service.status.private_service_name = "hello-00001-private".to_owned();
    }
}

fn brief(condition: &Condition) -> String {
    let text = format!(
        "{}={} {}",
        condition.kind,
        condition.status.as_str(),
        condition.reason
    );
    let text = text.trim_end();
    if condition.message.is_empty() {
        text.to_owned()
    } else {
        format!("{text} {:?}", condition.message)
    }
}

const QUEUED: &str =
    "Queued \"Requests to the target are being buffered as resources are provisioned.\"";
const NO_TRAFFIC: &str = "NoTraffic \"The target is not receiving traffic.\"";

/// Up to the state in which one pod serves.
fn serving(annotations: &Value) -> World {
    let mut world = World::new(annotations);
    world.reconcile();
    world.service_follows();
    world.desired_scale(None);
    world.ready = 1;
    world.reconcile();
    world.service_follows();
    world.reconcile();
    world
}

#[test]
fn becomes_ready_as_recorded() {
    let mut world = World::new(
        &json!({"autoscaling.knative.dev/class": "kpa.autoscaling.knative.dev", "autoscaling.knative.dev/metric": "concurrency"}),
    );
    let did = world.reconcile();
    let not_ready =
        "SKSReady=Unknown NotReady \"No Private Service Name\"; ScaleTargetInitialized=Unknown";
    assert_eq!(
        did.conditions,
        format!("Active=Unknown {QUEUED}; Ready=Unknown {QUEUED}; {not_ready}")
    );
    assert_eq!(
        (did.desired, world.owner.status.actual_scale),
        (-1, Some(0))
    );
    let service = world.service.clone().unwrap();
    assert_eq!(service.spec.num_activators, 2);
    assert_eq!(
        service.annotation("autoscaling.knative.dev/metric"),
        None,
        "the metric is no business of the service"
    );

    world.service_follows();
    world.desired_scale(None);
    let did = world.reconcile();
    let unready =
        "SKSReady=Unknown NotReady \"K8s Service is not ready\"; ScaleTargetInitialized=Unknown";
    assert_eq!(
        did.conditions,
        format!("Active=Unknown {QUEUED}; Ready=Unknown {QUEUED}; {unready}")
    );
    assert_eq!(world.service.as_ref().unwrap().spec.num_activators, 3);
    assert_eq!(
        did.replicas, None,
        "the Deployment began with its initial scale"
    );
    let metric = did
        .plan
        .writes()
        .find(|write| write.kind == "Metric")
        .unwrap();
    assert_eq!(
        metric.body["spec"],
        json!({"stableWindow": 60_000_000_000_i64, "panicWindow": 6_000_000_000_i64, "scrapeTarget": "hello-00001-private"})
    );

    world.service_follows();
    world.ready = 1;
    let did = world.reconcile();
    let top = "Ready=Unknown NotReady \"K8s Service is not ready\"; SKSReady=Unknown NotReady \"K8s Service is not ready\"";
    assert_eq!(
        did.conditions,
        format!("Active=True; {top}; ScaleTargetInitialized=True")
    );
    world.service_follows();
    let did = world.reconcile();
    assert_eq!(
        did.conditions,
        "Active=True; Ready=True; SKSReady=True; ScaleTargetInitialized=True"
    );
    assert_eq!(world.service.as_ref().unwrap().spec.num_activators, 4);
    assert_eq!(did.desired, -1);
    assert_eq!(world.owner.status.service_name, "hello-00001");

    let did = world.reconcile();
    let repeated: Vec<&Write> = did
        .plan
        .writes()
        .filter(|write| write.kind != "Metric" && !write.changes_nothing())
        .collect();
    assert!(repeated.is_empty(), "{repeated:?}");
}

#[test]
fn zero_and_wake_as_recorded() {
    let mut world = serving(&json!({"autoscaling.knative.dev/window": "6s"}));
    world.pass(3);
    world.desired_scale(0);
    let did = world.reconcile();
    assert_eq!(
        (did.desired, did.replicas),
        (1, None),
        "the window is not over"
    );
    assert_eq!(did.plan.next, Next::After(Duration::from_secs(3)));

    world.pass(3);
    let did = world.reconcile();
    let rest = "SKSReady=True; ScaleTargetInitialized=True";
    assert_eq!(
        did.conditions,
        format!("Active=False {NO_TRAFFIC}; Ready=False {NO_TRAFFIC}; {rest}")
    );
    assert_eq!(
        (did.desired, did.replicas),
        (0, None),
        "requests go through the gateway first"
    );

    world.pass(3);
    assert_eq!(world.reconcile().replicas, None);
    world.pass(1);
    assert_eq!(
        world.reconcile().replicas,
        Some(0),
        "ten seconds in proxy mode are the grace period"
    );
    world.ready = 0;
    let did = world.reconcile();
    assert_eq!(did.desired, 0);

    world.service_follows();
    world.desired_scale(1);
    let did = world.reconcile();
    assert_eq!((did.desired, did.replicas), (1, Some(1)));
    assert_eq!(
        did.plan.writes().next().unwrap().kind,
        "Deployment",
        "what a request waits for is written first"
    );
    assert!(
        did.conditions
            .starts_with(&format!("Active=Unknown {QUEUED}; Ready=Unknown {QUEUED}")),
        "{did:?}"
    );
    world.ready = 1;
    world.service_follows();
    world.reconcile();
    world.service_follows();
    assert_eq!(
        world.reconcile().conditions,
        "Active=True; Ready=True; SKSReady=True; ScaleTargetInitialized=True"
    );
}

#[test]
fn a_request_on_the_way_to_zero_stops_it() {
    let mut world = serving(&json!({"autoscaling.knative.dev/window": "6s"}));
    world.pass(6);
    world.desired_scale(0);
    world.reconcile();
    world.pass(5);
    world.desired_scale(1);
    let did = world.reconcile();
    assert_eq!((did.desired, did.replicas), (1, None));
    assert!(did.conditions.starts_with("Active=True"), "{did:?}");
}

#[test]
fn initial_scale_zero_as_recorded() {
    let mut world = World::new(&json!({"autoscaling.knative.dev/initial-scale": "0"}));
    world.replicas = 0;
    let did = world.reconcile();
    assert!(
        did.conditions.starts_with(&format!(
            "Active=False {NO_TRAFFIC}; Ready=False {NO_TRAFFIC}"
        )),
        "{did:?}"
    );
    assert!(
        did.conditions.ends_with("ScaleTargetInitialized=Unknown"),
        "{did:?}"
    );
    world.service_follows();
    world.desired_scale(None);
    let did = world.reconcile();
    assert!(
        did.conditions.ends_with("ScaleTargetInitialized=True"),
        "{did:?}"
    );
    assert_eq!((did.desired, did.replicas), (-1, None));
}

#[test]
fn minimum_scale_as_recorded() {
    let mut world = World::new(&json!({"autoscaling.knative.dev/min-scale": "2"}));
    assert_eq!(world.reconcile().desired, -1);
    world.service_follows();
    world.desired_scale(None);
    let did = world.reconcile();
    assert_eq!((did.desired, did.replicas), (2, Some(2)));
    world.ready = 1;
    world.service_follows();
    assert!(
        world
            .reconcile()
            .conditions
            .starts_with("Active=Unknown Queued")
    );
    world.ready = 2;
    assert!(world.reconcile().conditions.starts_with("Active=True"));
    assert_eq!(world.service.as_ref().unwrap().spec.num_activators, 5);
}

#[test]
fn a_revision_that_never_starts_is_given_up_as_recorded() {
    let mut world = World::new(&json!({"serving.knative.dev/progress-deadline": "30s"}));
    world.reconcile();
    world.service_follows();
    world.desired_scale(None);
    world.owner.spec.reachability = Reachability::Unreachable;
    let did = world.reconcile();
    assert_eq!((did.desired, did.replicas), (-1, None));
    world.pass(61);
    let did = world.reconcile();
    assert_eq!((did.desired, did.replicas), (0, Some(0)));
    assert!(
        did.conditions
            .starts_with("Active=False TimedOut \"The target could not be activated.\""),
        "{did:?}"
    );
    assert!(
        world
            .reconcile()
            .conditions
            .starts_with(&format!("Active=False {NO_TRAFFIC}"))
    );
}

#[test]
fn a_missing_deployment_is_told_and_retried() {
    let mut world = serving(&json!({}));
    world.desired_scale(3);
    let plan = decide(&PodAutoscalerObserved {
        deployment: None,
        ..world.observed()
    });
    let trouble = plan.error.unwrap();
    assert!(
        trouble.retry && trouble.message.contains("hello-00001-deployment"),
        "{trouble:?}"
    );
}

#[test]
fn spare_capacity_takes_the_gateway_out_of_the_path() {
    let mut world = serving(&json!({}));
    world.desired_scale = Some(DesiredScale {
        desired: Some(3),
        excess_burst_capacity: 5,
    });
    world.reconcile();
    assert_eq!(
        world.service.as_ref().unwrap().spec.mode,
        Some(kinglet_api::networking::ServerlessServiceMode::Serve)
    );
}

#[test]
fn a_foreign_service_is_named() {
    let mut world = serving(&json!({}));
    world.service.as_mut().unwrap().metadata.owner_references = None;
    let did = world.reconcile();
    assert!(
        did.conditions.starts_with("Active=False NotOwned"),
        "{did:?}"
    );
    assert!(did.plan.error.is_some());
}

#[test]
fn what_keeps_pods_from_coming_is_told_and_the_deadline_goes_on() {
    let mut world = World::new(&json!({"serving.knative.dev/progress-deadline": "30s"}));
    world.reconcile();
    world.service_follows();
    world.desired_scale(None);
    world.pass(20);
    world.trouble = Some("Pod p: container user-container exited with code 5: boom".to_owned());
    let did = world.reconcile();
    assert!(
        did.conditions
            .contains("provisioned. Pod p: container user-container exited with code 5: boom"),
        "{did:?}"
    );
    assert!(
        did.conditions.starts_with("Active=Unknown Queued"),
        "{did:?}"
    );
    world.pass(30);
    world.trouble = Some("Pod p: container user-container: CrashLoopBackOff".to_owned());
    assert_eq!(world.reconcile().replicas, None);
    world.pass(11);
    assert_eq!(world.reconcile().replicas, Some(0), "61 s after the begin");
}

/// A minute of 30 requests at once, silence, and a request after that: set and decisions together, second by second.
/// Pods come up two seconds after they are ordered.
#[test]
fn load_silence_and_wake_together() {
    use crate::autoscale::decider_set::DeciderSet;
    use kinglet_decide::feed::{Key, Report, Source, Stat};
    use kinglet_decide::scale::Moment;

    let annotations =
        json!({"autoscaling.knative.dev/target": "10", "autoscaling.knative.dev/window": "20s"});
    let mut world = serving(&annotations);
    let key = Key::new("default", "hello-00001");
    let mut set = DeciderSet::default();
    let mut coming: Vec<(u64, u32)> = Vec::new();
    let mut scales: Vec<(u64, i32)> = vec![(0, 1)];
    for second in 1..=150_u64 {
        let now = Moment::from_secs(second);
        let load = |requests: f64| {
            let stat = Stat {
                average_concurrent_requests: requests,
                request_count: 2.0 * requests,
                in_flight: Some(requests as u32),
                ..Stat::default()
            };
            Report::Stat {
                revision: key.clone(),
                source: Source::itself("gateway"),
                stat,
            }
        };
        match second {
            5..=64 => drop(set.report(load(30.0), now)),
            65 => drop(set.report(load(0.0), now)),
            130 => assert_eq!(
                set.report(
                    Report::Poke {
                        revision: key.clone(),
                        source: Source::itself("gateway"),
                    },
                    now
                ),
                Some(key.clone())
            ),
            _ => {}
        }
        set.second(now);
        coming.retain(|(at, pods)| {
            if *at <= second {
                world.ready = *pods;
            }
            *at > second
        });
        world.desired_scale = Some(set.ensure(
            &key,
            Settings::of(&world.owner, &world.configs).request(world.ready),
            now,
        ));
        world.service_follows();
        let did = world.reconcile();
        if let Some(replicas) = did.replicas {
            let replicas = i32::try_from(replicas).unwrap();
            scales.push((second, replicas));
            let pods = u32::try_from(replicas).unwrap();
            let lag = if pods > world.ready { 2 } else { 0 };
            coming.push((second + lag, pods));
        }
        world.pass(1);
    }
    let counts: Vec<i32> = scales.iter().map(|scale| scale.1).collect();
    assert_eq!(counts.iter().max(), Some(&5), "{scales:?}");
    let up = scales.iter().find(|scale| scale.1 == 5).unwrap().0;
    assert!(up <= 7, "{scales:?}");
    let zero = scales.iter().find(|scale| scale.1 == 0).unwrap().0;
    assert!((65 + 20..=65 + 20 + 10 + 4).contains(&zero), "{scales:?}");
    assert_eq!(
        scales.last(),
        Some(&(130, 1)),
        "woken in the second of the request: {scales:?}"
    );
}
