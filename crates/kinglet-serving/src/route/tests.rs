//! Plans for a Route, as recorded in 01 (ready), 03 (private), 05 (no digest), 13 (traffic errors), 14 (rollout).
#![expect(
    clippy::needless_pass_by_value,
    reason = "tables read better without borrows"
)]

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

#[test]
fn from_waiting_to_ready() {
    let mut world = World::latest();
    world.configuration("", "Unknown", "");
    let first = world.step();
    assert_eq!(
        first
            .events()
            .map(|event| event.message.as_str())
            .collect::<Vec<_>>(),
        ["Updated \"hello\" finalizers"]
    );
    let waiting = "Unknown RevisionMissing Configuration \"hello\" is waiting for a Revision to become ready.";
    assert_eq!(
        world.says(),
        [
            format!("AllTrafficAssigned={waiting}"),
            "CertificateProvisioned=Unknown".to_owned(),
            "IngressReady=Unknown IngressNotConfigured Ingress has not yet been reconciled."
                .to_owned(),
            format!("Ready={waiting}"),
        ]
    );
    assert_eq!(
        world.0.route.status.url.as_deref(),
        Some("http://hello.a.example.com")
    );
    assert_eq!(world.0.route.status.address, None);

    world.configuration("hello-1", "True", "");
    world.revision("hello-1", "True", "");
    let second = world.step();
    assert_eq!(
        second
            .events()
            .map(|event| event.message.as_str())
            .collect::<Vec<_>>(),
        [
            "Created Ingress \"hello\"",
            "Created placeholder service \"hello\""
        ]
    );
    assert_eq!(
        world.says(),
        [
            "AllTrafficAssigned=True",
            "CertificateProvisioned=True TLSNotEnabled external-domain-tls is not enabled",
            "IngressReady=Unknown IngressNotConfigured Ingress has not yet been reconciled.",
            "Ready=Unknown IngressNotConfigured Ingress has not yet been reconciled.",
        ]
    );
    assert_eq!(world.leads_to("hello"), "hello.a.example.com");
    assert_eq!(
        world.ingress(),
        json!({
            "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
            "metadata": {
                "name": "hello", "namespace": "a", "generation": 1,
                "labels": {keys::ROUTE: "hello", keys::ROUTE_NAMESPACE: "a", keys::SERVICE: "hello"},
                "annotations": {
                    keys::CREATOR: "admin", "networking.knative.dev/ingress.class": "x.ingress",
                    keys::ROLLOUT: r#"{"configurations":[{"configurationName":"hello","percent":100,"revisions":[{"revisionName":"hello-1","percent":100}],"stepParams":{}}]}"#,
                },
                "ownerReferences": [{"apiVersion": "serving.knative.dev/v1", "kind": "Route", "name": "hello", "uid": "r", "controller": true, "blockOwnerDeletion": true}],
            },
            "spec": {"httpOption": "Enabled", "rules": [
                rule(json!(["hello.a", "hello.a.svc", "hello.a.svc.cluster.local"]), "ClusterLocal", "hello-1"),
                rule(json!(["hello.a.example.com"]), "ExternalIP", "hello-1"),
            ]},
        })
    );
    assert_eq!(
        world.traffic(),
        json!([{"latestRevision": true, "percent": 100, "revisionName": "hello-1"}])
    );
    assert_eq!(
        world
            .0
            .route
            .status
            .address
            .as_ref()
            .unwrap()
            .url
            .as_deref(),
        Some("http://hello.a.svc.cluster.local")
    );

    world.acknowledge();
    world.step();
    assert_eq!(world.ready(), "True");
    assert_eq!(
        world.leads_to("hello"),
        "gateway-internal.x.svc.cluster.local"
    );
    let service = serde_json::to_value(&*world.0.services["hello"]).unwrap();
    assert_eq!(
        service["spec"],
        json!({
            "externalName": "gateway-internal.x.svc.cluster.local", "sessionAffinity": "None", "type": "ExternalName",
            "ports": [{"appProtocol": "kubernetes.io/h2c", "name": "http2", "port": 80, "protocol": "TCP", "targetPort": 80}],
        })
    );
    let again = world.step();
    assert!(
        again
            .writes()
            .all(kinglet_reconcile::Write::changes_nothing),
        "{again:?}"
    );

    // A new domain, at once.
    world.0.configs = configs(&[(
        "config-domain",
        "other.org",
        "selector: {\"serving.knative.dev/service\": hello}",
    )]);
    world.step();
    assert_eq!(
        world.0.route.status.url.as_deref(),
        Some("http://hello.a.other.org")
    );
    assert!(world.ready().starts_with("Unknown IngressNotConfigured"));
}

#[test]
fn targets_that_cannot_be_had() {
    let fixed = |name: &str| json!([{"revisionName": name, "percent": 50, "latestRevision": false}, {"configurationName": "hello", "latestRevision": true, "percent": 50}]);
    type Prepare = fn(&mut World);
    let rows: [(Value, Prepare, &str); 9] = [
        (
            fixed("hello-9"),
            |world| {
                world.configuration("hello-1", "True", "");
                world.revision("hello-1", "True", "");
            },
            "False RevisionMissing Revision \"hello-9\" referenced in traffic not found.",
        ),
        (
            fixed("hello-9"),
            |_| {},
            "False ConfigurationMissing Configuration \"hello\" referenced in traffic not found.",
        ),
        (
            fixed("hello-1"),
            |world| {
                world.configuration("", "Unknown", "");
                world.revision("hello-1", "True", "");
            },
            "Unknown RevisionMissing Configuration \"hello\" is waiting for a Revision to become ready.",
        ),
        (
            fixed("hello-1"),
            |world| {
                world.configuration(
                    "",
                    "False",
                    "Revision \"hello-1\" failed with message: boom.",
                );
                world.revision("hello-1", "False", "boom");
            },
            "False RevisionMissing Configuration \"hello\" does not have any ready Revision: Revision \"hello-1\" failed with message: boom.",
        ),
        (
            fixed("hello-1"),
            |world| {
                world.configuration("hello-2", "True", "");
                world.revision("hello-2", "True", "");
                world.revision("hello-1", "False", "boom");
            },
            "False RevisionMissing Revision \"hello-1\" failed to become ready: boom",
        ),
        (
            fixed("hello-1"),
            |world| {
                world.configuration("hello-2", "True", "");
                world.revision("hello-2", "True", "");
                world.revision("hello-1", "Unknown", "");
            },
            "Unknown RevisionMissing Revision \"hello-1\" is not yet ready.",
        ),
        (
            fixed("other-1"),
            |world| {
                world.configuration("hello-1", "True", "");
                world.revision("hello-1", "True", "");
                world.revision_of("other-1", Some("other"), "True", "");
            },
            "False RevisionNotOwned Revision \"other-1\" belongs to Service \"other\", not Service \"hello\".",
        ),
        (
            fixed("free-1"),
            |world| {
                world.configuration("hello-1", "True", "");
                world.revision("hello-1", "True", "");
                world.revision_of("free-1", None, "True", "");
            },
            "False RevisionNotOwned Revision \"free-1\" does not belong to Service \"hello\".",
        ),
        (
            json!([{"configurationName": "hello", "tag": "Not.A.Name!", "percent": 100}]),
            |_| {},
            "False ErrorConfig invalid domain name \"Not.A.Name!-hello.a.example.com\": url: Invalid value: \"Not.A.Name!-hello.a.example.com\": a lowercase RFC 1123 subdomain",
        ),
    ];
    for (traffic, prepare, want) in rows {
        let mut world = World::new(traffic);
        prepare(&mut world);
        world.step();
        assert!(
            world.ready().starts_with(want),
            "want {want}\n got {}",
            world.ready()
        );
        assert!(world.0.ingress.is_none(), "{want}");
    }
}

#[test]
fn a_bad_target_leaves_what_serves_alone() {
    let mut world = World::latest();
    world.configuration("hello-1", "True", "");
    world.revision("hello-1", "True", "");
    world.step();
    world.acknowledge();
    world.step();
    let before = world.ingress();
    world.route(|route| {
        route.metadata.generation = Some(2);
        route.spec.traffic =
            serde_json::from_value(json!([{"revisionName": "hello-9", "percent": 100}])).unwrap();
    });
    world.step();
    assert_eq!(world.ingress(), before);
    assert_eq!(
        world.says(),
        [
            "AllTrafficAssigned=False RevisionMissing Revision \"hello-9\" referenced in traffic not found.",
            "CertificateProvisioned=True TLSNotEnabled external-domain-tls is not enabled",
            "IngressReady=Unknown IngressNotConfigured Ingress has not yet been reconciled.",
            "Ready=False RevisionMissing Revision \"hello-9\" referenced in traffic not found.",
        ]
    );
    assert_eq!(
        world.traffic(),
        json!([{"latestRevision": true, "percent": 100, "revisionName": "hello-1"}])
    );
}

#[test]
fn tags_have_names_of_their_own() {
    let mut world = World::new(json!([
        {"revisionName": "hello-1", "latestRevision": false, "percent": 50},
        {"configurationName": "hello", "latestRevision": true, "percent": 50, "tag": "now"},
        {"revisionName": "old-h2c", "latestRevision": false, "percent": 0, "tag": "old"},
    ]));
    world.configuration("hello-1", "True", "");
    world.revision("hello-1", "True", "");
    world.revision("old-h2c", "True", "");
    world.step();
    assert_eq!(
        world.traffic(),
        json!([
            {"latestRevision": false, "percent": 50, "revisionName": "hello-1"},
            {"latestRevision": true, "percent": 50, "revisionName": "hello-1", "tag": "now", "url": "http://now-hello.a.example.com"},
            {"latestRevision": false, "percent": 0, "revisionName": "old-h2c", "tag": "old", "url": "http://old-hello.a.example.com"},
        ])
    );
    let ingress = world.ingress();
    let annotations = &ingress["metadata"]["annotations"];
    assert_eq!(
        annotations[keys::TAG_TO_HOST],
        r#"{"now":["now-hello.a.svc.cluster.local","now-hello.a.example.com"],"old":["old-hello.a.svc.cluster.local","old-hello.a.example.com"]}"#
    );
    assert_eq!(
        annotations[keys::ROLLOUT],
        r#"{"configurations":[{"configurationName":"hello","tag":"now","percent":100,"revisions":[{"revisionName":"hello-1","percent":100}],"stepParams":{}}]}"#
    );
    let rules = ingress["spec"]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 6);
    assert_eq!(
        rules[2],
        rule(
            json!([
                "now-hello.a",
                "now-hello.a.svc",
                "now-hello.a.svc.cluster.local"
            ]),
            "ClusterLocal",
            "hello-1"
        )
    );
    let split = &rules[5]["http"]["paths"][0]["splits"][0];
    assert_eq!(
        (&split["percent"], &split["servicePort"]),
        (&json!(100), &json!(81))
    );
    assert_eq!(
        world.0.services.keys().collect::<Vec<_>>(),
        ["hello", "now-hello", "old-hello"]
    );

    // One tag for callers inside only; another is dropped.
    let mut service = Service::clone(&world.0.services["now-hello"]);
    service
        .metadata
        .labels
        .get_or_insert_default()
        .insert(keys::VISIBILITY.to_owned(), "cluster-local".to_owned());
    world
        .0
        .services
        .insert("now-hello".to_owned(), Arc::new(service));
    world.route(|route| drop(route.spec.traffic.pop()));
    world.step();
    assert_eq!(
        world.0.services.keys().collect::<Vec<_>>(),
        ["hello", "now-hello"]
    );
    assert_eq!(world.0.ingress.as_ref().unwrap().spec.rules.len(), 3);
    assert_eq!(
        world.traffic()[1]["url"],
        "http://now-hello.a.svc.cluster.local"
    );
}

#[test]
fn a_private_route() {
    let mut world = World::latest();
    world.route(|route| {
        drop(
            route
                .metadata
                .labels
                .get_or_insert_default()
                .insert(keys::VISIBILITY.to_owned(), "cluster-local".to_owned()),
        )
    });
    world.configuration("hello-1", "True", "");
    world.revision("hello-1", "True", "");
    world.step();
    assert_eq!(
        world.0.route.status.url.as_deref(),
        Some("http://hello.a.svc.cluster.local")
    );
    assert_eq!(world.0.ingress.as_ref().unwrap().spec.rules.len(), 1);
    let labels = world.0.services["hello"].metadata.labels.clone().unwrap();
    assert_eq!(
        labels.keys().collect::<Vec<_>>(),
        [keys::ROUTE, keys::SERVICE]
    );
}

#[test]
fn routing_by_tag_header() {
    let mut world = World::new(json!([
        {"configurationName": "hello", "latestRevision": true, "percent": 100},
        {"revisionName": "hello-1", "latestRevision": false, "tag": "v1"},
    ]));
    world.0.configs = configs(&[("config-features", "tag-header-based-routing", "Enabled")]);
    world.configuration("hello-2", "True", "");
    world.revision("hello-1", "True", "");
    world.revision("hello-2", "True", "");
    world.step();
    let ingress = world.ingress();
    let paths = &ingress["spec"]["rules"][0]["http"]["paths"];
    assert_eq!(
        paths[0]["headers"],
        json!({"Knative-Serving-Tag": {"exact": "v1"}})
    );
    assert_eq!(paths[0]["splits"][0]["serviceName"], "hello-1");
    assert_eq!(
        paths[1]["appendHeaders"],
        json!({"Knative-Serving-Default-Route": "true"})
    );
    assert_eq!(
        ingress["spec"]["rules"][2]["http"]["paths"][0]["appendHeaders"],
        json!({"Knative-Serving-Tag": "v1"})
    );
}

#[test]
fn a_new_revision_comes_in_gradually() {
    let mut world = World::latest();
    world.route(|route| {
        drop(route.metadata.annotations.get_or_insert_default().insert(
            "serving.knative.dev/rollout-duration".to_owned(),
            "60s".to_owned(),
        ))
    });
    world.configuration("hello-1", "True", "");
    world.revision("hello-1", "True", "");
    world.step();
    world.acknowledge();
    world.step();
    assert_eq!(world.ready(), "True");

    world.configuration("hello-2", "True", "");
    world.revision("hello-2", "True", "");
    world.step();
    let share = |old: i64, new: i64| vec![("hello-1".to_owned(), old), ("hello-2".to_owned(), new)];
    assert_eq!(world.shares(), share(99, 1));
    assert_eq!(
        world.ready(),
        "Unknown RolloutInProgress A gradual rollout of the latest revision(s) is in progress."
    );
    assert_eq!(
        world.traffic(),
        json!([{"latestRevision": true, "percent": 99, "revisionName": "hello-1"}, {"latestRevision": true, "percent": 1, "revisionName": "hello-2"}])
    );
    world.0.now = Timestamp::from_millisecond(1_000_200).unwrap();
    world.acknowledge();
    let plan = world.step();
    assert_eq!(plan.next, Next::After(std::time::Duration::from_secs(1)));
    assert_eq!(world.shares(), share(99, 1));
    let mut steps = 0;
    while world.shares().len() > 1 {
        world.0.now = world
            .0
            .now
            .checked_add(jiff::SignedDuration::from_secs(1))
            .unwrap();
        world.step();
        world.acknowledge();
        steps += 1;
        if steps == 1 {
            assert_eq!(
                world.shares(),
                share(97, 3),
                "two percent a second, as recorded"
            );
        }
        assert!(steps < 100);
    }
    assert_eq!(steps, 50);
    world.step();
    assert_eq!(world.ready(), "True");
}

#[test]
fn what_belongs_to_others_is_left_alone() {
    let mut world = World::latest();
    world.configuration("hello-1", "True", "");
    world.revision("hello-1", "True", "");
    let foreign: Service =
        serde_json::from_value(json!({"metadata": {"name": "hello", "namespace": "a"}})).unwrap();
    world
        .0
        .services
        .insert("hello".to_owned(), Arc::new(foreign));
    let plan = world.step();
    assert!(world.0.ingress.is_none());
    assert_eq!(
        world.ready(),
        "False NotOwned There is an existing placeholder Service \"hello\" that we do not own."
    );
    assert!(plan.error.is_some());
}

#[test]
fn a_host_label_that_is_too_long_is_the_routes_fault() {
    let name = "a23456789-b23456789-c23456789-d23456789-e23456789-f2345678";
    let mut world = World::new(json!([
        {"configurationName": "hello", "latestRevision": true, "percent": 100, "tag": "candidate"},
    ]));
    world.route(|route| route.metadata.name = Some(name.to_owned()));
    world.configuration("hello-1", "True", "");
    world.revision("hello-1", "True", "");
    world.step();
    let label = format!("candidate-{name}");
    let expected = format!(
        "AllTrafficAssigned=False ErrorConfig invalid domain name \"{label}.a.example.com\": url: \
         Invalid value: \"{label}\": must be no more than 63 characters"
    );
    assert!(world.says().contains(&expected), "{:?}", world.says());
    assert!(world.0.ingress.is_none());
}

#[test]
fn a_failure_of_a_young_generation_waits_and_reads_as_not_reconciled() {
    let mut world = World::new(json!([{"revisionName": "nope", "percent": 100}]));
    world.0.hold = std::time::Duration::from_millis(700);
    let plan = world.step();
    assert_eq!(
        world.ready(),
        "Unknown IngressNotConfigured Ingress has not yet been reconciled."
    );
    assert_eq!(
        plan.next,
        Next::After(std::time::Duration::from_millis(700))
    );
    assert_eq!(world.0.route.status.common.observed_generation, 1);
    world.0.hold = std::time::Duration::ZERO;
    world.step();
    assert_eq!(
        world.ready(),
        "False RevisionMissing Revision \"nope\" referenced in traffic not found."
    );
}

#[test]
fn placeholders_gain_what_the_route_gains_and_keep_what_it_loses() {
    let mut world = World::latest();
    world.route(|route| {
        let labels = route.metadata.labels.get_or_insert_default();
        labels.insert("team".to_owned(), "red".to_owned());
    });
    world.configuration("hello-1", "True", "");
    world.revision("hello-1", "True", "");
    world.step();
    world.acknowledge();
    world.step();
    world.route(|route| {
        let labels = route.metadata.labels.get_or_insert_default();
        labels.remove("team");
        labels.insert("tier".to_owned(), "front".to_owned());
        let annotations = route.metadata.annotations.get_or_insert_default();
        annotations.insert("note".to_owned(), "new".to_owned());
    });
    world.step();
    let metadata = world.0.services["hello"].metadata.clone();
    let labels = metadata.labels.unwrap();
    assert_eq!(
        (labels.get("team"), labels.get("tier")),
        (Some(&"red".to_owned()), Some(&"front".to_owned()))
    );
    assert_eq!(metadata.annotations.unwrap()["note"], "new");
    let again = world.step();
    assert_eq!(
        again
            .writes()
            .filter(|write| !write.changes_nothing())
            .count(),
        0
    );
}

#[test]
fn an_ingress_class_that_nobody_serves_is_named() {
    let mut world = World::latest();
    world.configuration("hello-1", "True", "");
    world.revision("hello-1", "True", "");
    world.step();
    world.step();
    assert_eq!(
        world.ready(),
        "Unknown IngressNotConfigured Ingress has not yet been reconciled. Nobody serves the ingress class \
         \"x.ingress\"; the class served here is \"kinglet.ingress.networking.knative.dev\"."
    );
    world.acknowledge();
    world.step();
    assert_eq!(world.ready(), "True");
}
