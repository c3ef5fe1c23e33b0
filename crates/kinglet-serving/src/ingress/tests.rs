//! Rules of a KIngress, tables published, statuses.
#![expect(
    clippy::needless_pass_by_value,
    reason = "tables read better without borrows"
)]

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kinglet_api::networking::Ingress;
use kinglet_decide::feed::{Key, Update};
use kinglet_decide::route::Visibility;
use kinglet_process::Tasks;
use kinglet_process::clock::Clock;
use kinglet_reconcile::{Caches, Context, Next, Queue, key_of};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::decide::decide;
use super::publish::{PATIENCE, ProgrammedState, Publisher};
use super::rules;
use super::{GatewayNames, Gateways};

fn ingress(name: &str, host: &str, port: Value, percents: &[i64]) -> Ingress {
    let splits: Vec<Value> = percents
        .iter()
        .enumerate()
        .map(|(at, percent)| {
            json!({"serviceNamespace": "a", "serviceName": format!("{name}-{at}"), "servicePort": port, "percent": percent, "appendHeaders": {"Knative-Serving-Revision": format!("{name}-{at}")}})
        })
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "a", "uid": name, "generation": 2, "creationTimestamp": "2026-11-21T10:00:00Z"},
        "spec": {"httpOption": "Enabled", "rules": [
            {"hosts": [host], "visibility": "ExternalIP", "http": {"paths": [{"headers": {"Knative-Serving-Tag": {"exact": "v1"}}, "splits": splits}]}},
        ]},
    }))
    .unwrap()
}

#[test]
fn rules_are_read_and_faults_name_their_field() {
    let read = |ingress: &Ingress| rules::of(ingress, &[], |_, _| None);
    let good = read(&ingress("x", "x.example.com", json!(80), &[30, 70])).unwrap();
    assert_eq!(good[0].hosts, ["x.example.com"]);
    assert_eq!(good[0].visibility, Visibility::External);
    assert_eq!(
        good[0].paths[0].headers,
        [("Knative-Serving-Tag".to_owned(), "v1".to_owned())]
    );
    assert_eq!(
        good[0].paths[0]
            .splits
            .iter()
            .map(|split| split.percent)
            .collect::<Vec<_>>(),
        [30, 70]
    );
    let alone = read(&ingress("x", "x.example.com", json!(81), &[0])).unwrap();
    assert_eq!(
        (
            alone[0].paths[0].splits[0].percent,
            alone[0].paths[0].splits[0].target.port
        ),
        (100, 81)
    );
    let wrong = read(&ingress("x", "h", json!("http"), &[100])).unwrap_err();
    assert_eq!(
        wrong,
        "spec.rules[0].http.paths[0].splits[0].serviceName: Service a/x-0 not found"
    );
    let wrong = read(&ingress("x", "h", json!(80), &[20, 180])).unwrap_err();
    assert_eq!(
        wrong,
        "spec.rules[0].http.paths[0].splits[1].percent: 180 is not between 0 and 100"
    );
}

#[test]
fn ready_means_in_force() {
    let names = GatewayNames::new("cluster.local");
    let now = Timestamp::from_second(5).unwrap();
    let object = ingress("x", "x.example.com", json!(80), &[100]);
    let plan = decide(&object, &Ok(ProgrammedState::OnItsWay), &names, now);
    assert_eq!(plan.writes().count(), 0);
    assert!(matches!(plan.next, Next::After(_)));
    let plan = decide(&object, &Ok(ProgrammedState::InForce), &names, now);
    let status = &plan.writes().next().unwrap().body["status"];
    assert_eq!(status["observedGeneration"], 2);
    assert_eq!(
        status["privateLoadBalancer"],
        json!({"ingress": [{"domainInternal": "gateway-internal.kinglet-system.svc.cluster.local"}]})
    );
    let brief: Vec<_> = status["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| {
            format!(
                "{}={}",
                c["type"].as_str().unwrap(),
                c["status"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        brief,
        [
            "LoadBalancerReady=True",
            "NetworkConfigured=True",
            "Ready=True"
        ]
    );
    let plan = decide(
        &object,
        &Ok(ProgrammedState::Stalled {
            gateways: vec!["one".to_owned()],
        }),
        &names,
        now,
    );
    assert_eq!(
        plan.writes().next().unwrap().body["status"]["conditions"][0]["reason"],
        "Uninitialized"
    );
    assert_eq!(
        plan.writes().next().unwrap().body["status"]["conditions"][0]["message"],
        "Waiting for load balancer to be ready: gateway one does not serve it yet"
    );
}

struct Gateway {
    tasks: Tasks,
    publisher: Publisher,
    updates: mpsc::Receiver<Update>,
    applied: watch::Sender<u64>,
    queue: Queue,
}

/// A publisher whose gateway is played by the test. Nothing here talks to an API server.
fn gateway() -> Gateway {
    gateway_after(|_| std::future::ready(()))
}

/// The same, with what adds the routes of before.
fn gateway_after<F>(first: impl FnOnce(Publisher) -> F) -> Gateway
where
    F: Future<Output = ()> + Send + 'static,
{
    let tasks = Tasks::new();
    let client = kube::Client::new(Nobody, "default");
    let context = Context::new(&Caches::new(client, tasks.clone(), Clock::system()));
    let (sender, updates) = mpsc::channel(1);
    let (applied, listener) = watch::channel(0);
    let queue = Queue::default();
    let publisher = Publisher::start(
        &context,
        sender,
        Gateways::of_process("one", listener),
        queue.clone(),
        first,
    );
    Gateway {
        tasks,
        publisher,
        updates,
        applied,
        queue,
    }
}

#[derive(Clone)]
pub(super) struct Nobody;

impl tower::Service<http::Request<kube::client::Body>> for Nobody {
    type Response = http::Response<kube::client::Body>;
    type Error = std::convert::Infallible;
    type Future = std::future::Pending<Result<Self::Response, Self::Error>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<kube::client::Body>) -> Self::Future {
        std::future::pending()
    }
}

impl Gateway {
    fn set(&self, ingress: &Ingress) -> ProgrammedState {
        self.publisher.set(
            &key_of(ingress),
            ingress,
            rules::of(ingress, &[], |_, _| None).unwrap(),
        )
    }

    async fn apply(&mut self) -> usize {
        let update = tokio::time::timeout(Duration::from_secs(5), self.updates.recv())
            .await
            .unwrap();
        let Some(Update::Routes(table)) = update else {
            panic!("routes expected")
        };
        self.applied.send_replace(table.version);
        table.hosts().count()
    }

    async fn woken(&self) {
        let woken = async {
            while self.queue.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), woken)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn changes_are_published_together_and_acknowledged() {
    let mut gateway = gateway();
    let objects: Vec<Ingress> = (0..50)
        .map(|at| {
            ingress(
                &format!("i{at}"),
                &format!("i{at}.example.com"),
                json!(80),
                &[100],
            )
        })
        .collect();
    for object in &objects {
        assert_eq!(gateway.set(object), ProgrammedState::OnItsWay);
    }
    assert_eq!(gateway.apply().await, 50, "one table for all");
    gateway.woken().await;
    assert!(
        objects
            .iter()
            .all(|object| gateway.set(object) == ProgrammedState::InForce)
    );

    let changed = ingress("i7", "other.example.com", json!(80), &[100]);
    assert_eq!(gateway.set(&changed), ProgrammedState::OnItsWay);
    assert_eq!(gateway.apply().await, 50);
    assert_eq!(gateway.set(&changed), ProgrammedState::InForce);

    gateway.publisher.remove(&Key::new("a", "i8"));
    assert_eq!(gateway.apply().await, 49);
    gateway.tasks.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_host_has_one_owner_until_it_is_free() {
    let mut gateway = gateway();
    let (first, second) = (
        ingress("a", "same.example.com", json!(80), &[100]),
        ingress("b", "same.example.com", json!(80), &[100]),
    );
    gateway.set(&second);
    gateway.set(&first);
    gateway.apply().await;
    assert_eq!(gateway.set(&first), ProgrammedState::InForce);
    let ProgrammedState::Rejected(conflicts) = gateway.set(&second) else {
        panic!("rejected expected")
    };
    assert_eq!(conflicts[0].owner, key_of(&first));
    let plan = decide(
        &second,
        &Ok(ProgrammedState::Rejected(conflicts)),
        &GatewayNames::new("c"),
        Timestamp::from_second(1).unwrap(),
    );
    let condition = &plan.writes().next().unwrap().body["status"]["conditions"][0];
    assert_eq!(
        condition["message"],
        "Ingress rejected: host same.example.com belongs to Ingress a/a"
    );
    gateway.publisher.remove(&key_of(&first));
    gateway.apply().await;
    assert_eq!(gateway.set(&second), ProgrammedState::InForce);
    gateway.tasks.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn the_first_table_has_all_routes_of_before() {
    let objects: Vec<Ingress> = (0..3)
        .map(|at| {
            ingress(
                &format!("i{at}"),
                &format!("i{at}.example.com"),
                json!(80),
                &[100],
            )
        })
        .collect();
    let (complete, completed) = tokio::sync::oneshot::channel::<()>();
    let mut gateway = gateway_after(|_| async move {
        let _ = completed.await;
    });
    let known = |object: &Ingress| {
        let rules = rules::of(object, &[], |_, _| None).unwrap();
        Some((Arc::new(object.clone()), rules))
    };
    let first = |object: &Ingress| {
        let publisher = &gateway.publisher;
        publisher.set_first(&key_of(object), || known(object));
    };
    first(&objects[0]);
    // What the controller has looked at, it knows better.
    gateway.set(&objects[1]);
    gateway.publisher.set_first(&key_of(&objects[1]), || {
        panic!("its controller knows better")
    });
    // What went meanwhile is not put back.
    gateway.publisher.set_first(&key_of(&objects[2]), || None);
    tokio::task::yield_now().await;
    assert!(gateway.updates.try_recv().is_err(), "not complete yet");
    complete.send(()).unwrap();
    assert_eq!(gateway.apply().await, 2);
    gateway.tasks.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn every_gateway_must_have_it_and_one_that_stalls_is_named() {
    let tasks = Tasks::new();
    let client = kube::Client::new(Nobody, "default");
    let context = Context::new(&Caches::new(client, tasks.clone(), Clock::system()));
    let (sender, mut updates) = mpsc::channel(1);
    let (first, first_in) = watch::channel(0);
    let (second, second_in) = watch::channel(0);
    let gateways = Gateways {
        in_process: vec![("first".into(), first_in), ("second".into(), second_in)],
        probed: None,
    };
    let queue = Queue::default();
    let publisher = Publisher::start(&context, sender, gateways, queue.clone(), |_| {
        std::future::ready(())
    });
    let object = ingress("x", "x.example.com", json!(80), &[100]);
    let set = || {
        let rules = rules::of(&object, &[], |_, _| None).unwrap();
        publisher.set(&key_of(&object), &object, rules)
    };
    assert_eq!(set(), ProgrammedState::OnItsWay);
    let table = async {
        loop {
            match updates.recv().await.unwrap() {
                Update::Routes(table) if table.hosts().count() == 1 => return table.version,
                _ => {}
            }
        }
    };
    let version = tokio::time::timeout(Duration::from_secs(5), table)
        .await
        .unwrap();
    first.send_replace(version);
    tokio::time::sleep(PATIENCE / 2).await;
    assert_eq!(set(), ProgrammedState::OnItsWay);
    assert!(queue.is_empty(), "nothing is in force everywhere");
    tokio::time::sleep(PATIENCE).await;
    let stalled = ProgrammedState::Stalled {
        gateways: vec!["second".to_owned()],
    };
    assert_eq!(set(), stalled);
    second.send_replace(version);
    let woken = async {
        while queue.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), woken)
        .await
        .unwrap();
    assert_eq!(set(), ProgrammedState::InForce);
    tasks.shutdown(Duration::from_secs(5)).await;
}

#[test]
fn the_message_names_gateways_but_not_all_of_many() {
    let rows = [
        (0, "there is no gateway"),
        (1, "gateway g0 does not serve it yet"),
        (2, "gateways g0 and g1 do not serve it yet"),
        (3, "gateways g0, g1 and g2 do not serve it yet"),
        (20, "gateways g0, g1, g2 and 17 more do not serve it yet"),
    ];
    for (count, words) in rows {
        let gateways = (0..count).map(|at| format!("g{at}")).collect();
        let plan = decide(
            &ingress("x", "x.example.com", json!(80), &[100]),
            &Ok(ProgrammedState::Stalled { gateways }),
            &GatewayNames::new("c"),
            Timestamp::from_second(1).unwrap(),
        );
        let condition = &plan.writes().next().unwrap().body["status"]["conditions"][0];
        let expected = format!("Waiting for load balancer to be ready: {words}");
        assert_eq!(condition["message"], expected);
    }
}

/// A KIngress of one or two rules per group, as the Route controller makes it.
fn golden(name: &str, groups: &[(&str, Value)], private: bool) -> Ingress {
    let mut all = Vec::new();
    for (host, splits) in groups {
        let http = json!({"paths": [{"splits": splits}]});
        let local = ["", ".svc", ".svc.cluster.local"].map(|end| format!("{host}.default{end}"));
        all.push(json!({"hosts": local, "visibility": "ClusterLocal", "http": http}));
        if !private {
            all.push(json!({"hosts": [format!("{host}.default.example.com")], "visibility": "ExternalIP", "http": http}));
        }
    }
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"httpOption": "Enabled", "rules": all},
    }))
    .unwrap()
}

fn golden_split(revision: &str, percent: i64) -> Value {
    json!({
        "serviceNamespace": "default", "serviceName": revision, "servicePort": 80, "percent": percent,
        "appendHeaders": {"Knative-Serving-Revision": revision, "Knative-Serving-Namespace": "default"},
    })
}

/// The golden values of spec/cluster.md section 3.8.
#[test]
fn the_hash_that_probers_compare_is_knatives() {
    let whole = |name: &str| json!([golden_split(&format!("{name}-00001"), 100)]);
    let hello = golden("hello", &[("hello", whole("hello"))], false);
    assert_eq!(
        rules::probe_hash(&hello, &[]),
        "0878975ddb3e11427b140f810d15eb3cc2993d744e2f689514280dd8e43b24c5"
    );
    let private = golden("private", &[("private", whole("private"))], true);
    assert_eq!(
        rules::probe_hash(&private, &[]),
        "63eff1a3aa19fa2afaac0d2a4c09ce22d17dce99050a647a117aac0bb488b944"
    );
    let shares = json!([
        golden_split("split-00001", 90),
        golden_split("split-00002", 10)
    ]);
    let split = golden(
        "split",
        &[("split", shares), ("blue-split", whole("split"))],
        false,
    );
    assert_eq!(
        rules::probe_hash(&split, &[]),
        "3ca9bd9ab0c31f6e205a4917126ca77f9f1d28005bed13a2d2f088882650904a"
    );
    let mut redirected = hello;
    redirected.spec.tls = serde_json::from_value(json!([{
        "hosts": ["hello.default.example.com"],
        "secretName": "route-11111111-1111-1111-1111-111111111111", "secretNamespace": "default",
    }]))
    .unwrap();
    redirected.spec.http_option = kinglet_api::networking::HttpOption::Redirected;
    assert_eq!(
        rules::probe_hash(&redirected, &[]),
        "8769c4e6faeeadb16e353a88513bcb20a497bf0fb20f2d6cc72a48e69249a02f"
    );
}
