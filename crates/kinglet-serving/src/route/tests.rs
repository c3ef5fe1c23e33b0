//! Plans for a Route, as recorded in 01 (ready), 03 (private), 05 (no digest), 13 (traffic errors), 14 (rollout).
#![expect(
    clippy::needless_pass_by_value,
    reason = "tables read better without borrows"
)]

mod certificates;
mod hosts;
mod ingress;
mod placeholders;
mod targets;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use kinglet_api::config::{Configs, Data};
use kinglet_api::keys;
use kinglet_api::serving::{Configuration, Revision, Route};
use kinglet_reconcile::{Next, Plan, Verb};
use serde_json::{Value, json};

use super::decide::decide;
use super::observe::{Referenced, RouteObserved};

/// A Route with its surroundings, moved from reconcile to reconcile.
struct World(RouteObserved);

fn configs(maps: &[(&str, &str, &str)]) -> Arc<Configs> {
    let mut all: BTreeMap<String, Data> = BTreeMap::new();
    all.entry("config-domain".to_owned())
        .or_default()
        .insert("example.com".to_owned(), String::new());
    all.entry("config-network".to_owned())
        .or_default()
        .insert("ingress-class".to_owned(), "x.ingress".to_owned());
    for (map, key, value) in maps {
        all.entry((*map).to_owned())
            .or_default()
            .insert((*key).to_owned(), (*value).to_owned());
    }
    let (configs, problems) = Configs::from_maps(|name| all.get(name));
    assert_eq!(problems, []);
    Arc::new(configs)
}

impl World {
    fn new(traffic: Value) -> Self {
        let route: Route = serde_json::from_value(json!({
            "metadata": {
                "name": "hello", "namespace": "a", "uid": "r", "generation": 1,
                "labels": {keys::SERVICE: "hello"}, "annotations": {keys::CREATOR: "admin"},
            },
            "spec": {"traffic": traffic},
        }))
        .unwrap();
        Self(RouteObserved {
            route: Arc::new(route),
            referenced: Referenced::default(),
            ingress: None,
            certificates: BTreeMap::new(),
            services: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            configs: configs(&[]),
            cluster_domain: "cluster.local".into(),
            hold: std::time::Duration::ZERO,
            now: Timestamp::from_second(1_000).unwrap(),
        })
    }

    fn latest() -> Self {
        Self::new(json!([{"configurationName": "hello", "latestRevision": true, "percent": 100}]))
    }

    fn route(&mut self, change: impl FnOnce(&mut Route)) {
        let mut next = Route::clone(&self.0.route);
        change(&mut next);
        self.0.route = Arc::new(next);
    }

    fn configuration(&mut self, latest_ready: &str, ready: &str, message: &str) {
        let value = json!({
            "metadata": {"name": "hello", "namespace": "a"},
            "status": {"latestReadyRevisionName": latest_ready, "conditions": [{"type": "Ready", "status": ready, "message": message}]},
        });
        let found: Configuration = serde_json::from_value(value).unwrap();
        self.0
            .referenced
            .configurations
            .insert("hello".to_owned(), Arc::new(found));
    }

    fn revision(&mut self, name: &str, ready: &str, message: &str) {
        self.revision_of(name, Some("hello"), ready, message);
    }

    fn revision_of(&mut self, name: &str, service: Option<&str>, ready: &str, message: &str) {
        let mut value = json!({
            "metadata": {"name": name, "namespace": "a", "labels": {keys::CONFIGURATION: "hello"}},
            "spec": {"containers": [{"image": "x", "ports": [{"name": if name.ends_with("h2c") { "h2c" } else { "http1" }, "containerPort": 8080}]}]},
            "status": {"conditions": [{"type": "Ready", "status": ready, "message": message}]},
        });
        if let Some(service) = service {
            value["metadata"]["labels"][keys::SERVICE] = json!(service);
        }
        let found: Revision = serde_json::from_value(value).unwrap();
        self.0
            .referenced
            .revisions
            .insert(name.to_owned(), Arc::new(found));
    }

    /// Looks, and takes over what was written, as the API server would keep it.
    fn step(&mut self) -> Plan {
        let plan = decide(&self.0);
        for write in plan.writes().filter(|write| !write.changes_nothing()) {
            let mut body = write.body.clone();
            match (write.kind.as_str(), &write.verb) {
                ("Route", _) => self.route(|route| {
                    let next: Route = serde_json::from_value(body).unwrap();
                    if write.verb == Verb::Status {
                        route.status = next.status
                    } else {
                        route.metadata = next.metadata
                    }
                }),
                ("Ingress", _) => {
                    let spec_changed =
                        self.0.ingress.as_ref().is_none_or(|old| {
                            serde_json::to_value(&old.spec).unwrap() != body["spec"]
                        });
                    let generation = self.0.ingress.as_ref().map_or(0, |old| old.generation())
                        + i64::from(spec_changed);
                    body["metadata"]["generation"] = json!(generation);
                    self.0.ingress = Some(Arc::new(serde_json::from_value(body).unwrap()));
                }
                ("Service", Verb::Delete { .. }) => drop(self.0.services.remove(&*write.key.name)),
                ("Service", _) => {
                    let service: Service = serde_json::from_value(body).unwrap();
                    self.0
                        .services
                        .insert(write.key.name.to_string(), Arc::new(service));
                }
                ("Certificate", Verb::Delete { .. }) => {
                    drop(self.0.certificates.remove(&*write.key.name));
                }
                ("Certificate", _) => {
                    body["metadata"]["generation"] = json!(1);
                    let certificate = serde_json::from_value(body).unwrap();
                    let name = write.key.name.to_string();
                    self.0.certificates.insert(name, Arc::new(certificate));
                }
                (other, verb) => panic!("{verb:?} {other}"),
            }
        }
        plan
    }

    /// The gateway has the Ingress.
    fn acknowledge(&mut self) {
        let mut next = kinglet_api::networking::Ingress::clone(self.0.ingress.as_ref().unwrap());
        next.status = serde_json::from_value(json!({
            "observedGeneration": next.generation(),
            "conditions": [{"type": "Ready", "status": "True"}],
            "publicLoadBalancer": {"ingress": [{"domainInternal": "gateway.x.svc.cluster.local"}]},
            "privateLoadBalancer": {"ingress": [{"domainInternal": "gateway-internal.x.svc.cluster.local"}]},
        }))
        .unwrap();
        self.0.ingress = Some(Arc::new(next));
    }

    fn says(&self) -> Vec<String> {
        let conditions = &self.0.route.status.common.conditions;
        let words = |condition: &kinglet_api::duck::Condition| {
            format!(
                "{}={} {} {}",
                condition.kind,
                condition.status.as_str(),
                condition.reason,
                condition.message
            )
            .trim_end()
            .to_owned()
        };
        conditions.iter().map(words).collect()
    }

    fn ready(&self) -> String {
        let all = self.says();
        all.iter()
            .find_map(|one| one.strip_prefix("Ready="))
            .unwrap()
            .to_owned()
    }

    fn traffic(&self) -> Value {
        serde_json::to_value(&self.0.route.status.traffic).unwrap()
    }

    fn ingress(&self) -> Value {
        serde_json::to_value(&**self.0.ingress.as_ref().unwrap()).unwrap()
    }

    fn leads_to(&self, service: &str) -> String {
        self.0.services[service]
            .spec
            .as_ref()
            .unwrap()
            .external_name
            .clone()
            .unwrap()
    }

    /// Percent by Revision of the first rule.
    fn shares(&self) -> Vec<(String, i64)> {
        let rule = self.0.ingress.as_ref().unwrap().spec.rules[0].clone();
        rule.http
            .unwrap()
            .paths
            .last()
            .unwrap()
            .splits
            .iter()
            .map(|split| (split.service_name.clone(), split.percent))
            .collect()
    }
}

fn rule(hosts: Value, visibility: &str, service: &str) -> Value {
    json!({
        "hosts": hosts, "visibility": visibility,
        "http": {"paths": [{"splits": [{
            "appendHeaders": {"Knative-Serving-Namespace": "a", "Knative-Serving-Revision": service},
            "percent": 100, "serviceName": service, "serviceNamespace": "a", "servicePort": 80,
        }]}]},
    })
}
