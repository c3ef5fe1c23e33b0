//! The API server, everything that works on it, and a user.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Request;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kinglet_api::config::Configs;
use kinglet_apiserver::{ApiServer, Identity, Options};
use kinglet_decide::feed::{Report, Update};
use kinglet_image::Credentials;
use kinglet_process::{Clock, Tasks};
use kinglet_reconcile::{
    Caches, Cascade, Context, Controller, Gate, GateOpener, Next, Plan, Verb, Write,
};
use kinglet_serving::ResolveDigest;
use kinglet_serving::configs::LiveConfigs;
use kinglet_serving::ingress::GatewayNames;
use kinglet_serving::{INDEXED_LABELS, ServingOptions};
use kinglet_store::Store;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::admission::Rules;
use crate::bootstrap;
use crate::faults::{self, Odds, Switch};
use crate::random::Random;

/// Room for messages between the parts; far more than one run produces.
const CHANNEL_MAX: usize = 4096;
/// Images of this name do not exist.
pub(crate) const MISSING_IMAGE: &str = "registry.example/missing";

/// A cluster in one process.
pub(crate) struct World {
    pub(crate) api: ApiServer,
    /// The user's way to the API server: nothing goes wrong on it.
    user: kube::Client,
    /// One whose fields nobody looks at, like the controllers.
    insider: kube::Client,
    clock: Clock,
    rules: Arc<Rules>,
    random: Random,
    odds: Odds,
    pub(crate) faults: Switch,
    controllers: Option<Tasks>,
    /// What the gateway tells the autoscaler.
    pub(crate) reports: Option<mpsc::Sender<Report>>,
    pub(crate) caches: Option<Caches>,
    /// Hosts in the first route table after the last start, and what the controllers had called by then.
    pub(crate) first_table: Arc<Mutex<(usize, Vec<String>)>>,
}

impl World {
    /// A fresh cluster with its controllers running.
    pub(crate) async fn start(seed: u64, odds: Odds) -> Self {
        let clock = Clock::simulated(Timestamp::from_second(1_795_000_000).unwrap());
        let random = Random::new(seed);
        let rules = Arc::new(Rules {
            configs: RwLock::new(LiveConfigs::fixed(Configs::for_domain("example.com"))),
            eventing: RwLock::default(),
            clock: clock.clone(),
        });
        let entropy = random.clone();
        let options = Options {
            clock: clock.clone(),
            entropy: Arc::new(move |bytes| entropy.fill(bytes)),
            admission: Some(rules.clone()),
            ..Options::default()
        };
        let api = ApiServer::new(Store::in_memory(ApiServer::store_options()), options);
        bootstrap::definitions(&api).await.unwrap();
        let in_process =
            |name: &str| kube::Client::new(api.service(Identity::in_process(name)), "default");
        let controller = in_process("system:serviceaccount:knative-serving:controller");
        bootstrap::run(&controller).await.unwrap();
        bootstrap::endpoints(
            &controller,
            Ipv4Addr::new(10, 1, 0, 1),
            &[Ipv4Addr::new(10, 1, 0, 1)],
            None,
        )
        .await
        .unwrap();
        let remote = Identity::remote("ada", vec!["system:masters".to_owned()]);
        let user = kube::Client::new(api.service(remote), "default");
        let insider = in_process("system:serviceaccount:kube-system:newer");
        let mut world = Self {
            api,
            user,
            insider,
            clock,
            rules,
            random,
            odds,
            faults: Switch::default(),
            controllers: None,
            reports: None,
            caches: None,
            first_table: Arc::default(),
        };
        world.start_controllers();
        world
    }

    /// Ends all controllers where they stand and starts new ones with empty caches.
    pub(crate) async fn restart_controllers(&mut self) {
        self.stop_controllers().await;
        self.start_controllers();
    }

    /// Ends all controllers where they stand.
    pub(crate) async fn stop_controllers(&mut self) {
        if let Some(tasks) = self.controllers.take() {
            tasks.shutdown(Duration::from_secs(60)).await;
        }
    }

    fn start_controllers(&mut self) {
        let tasks = Tasks::new();
        let client = faults::client(
            &self.api,
            Identity::in_process("system:serviceaccount:knative-serving:controller"),
            self.odds,
            self.random.clone(),
            self.faults.clone(),
        );
        let caches =
            Caches::with_indexed_labels(client, tasks.clone(), self.clock.clone(), &INDEXED_LABELS);
        let (opener, gate) = Gate::closed();
        let context = Context::new(&caches).behind(gate);
        *self.rules.configs.write() =
            LiveConfigs::follow(&context, Configs::for_domain("example.com"));
        let (updates, updates_in) = mpsc::channel(CHANNEL_MAX);
        let (reports, reports_in) = mpsc::channel(CHANNEL_MAX);
        self.reports = Some(reports.clone());
        self.caches = Some(caches.clone());
        let (applied, applied_in) = watch::channel(0);
        let first = FirstTable {
            opener,
            faults: self.faults.clone(),
            seen: Arc::clone(&self.first_table),
        };
        tasks.spawn_cancellable("gateway", async move {
            // Held so that the autoscaler sees an idle gateway and not one that is gone.
            let _reports = reports;
            acknowledge(updates_in, applied, first).await;
        });
        let gateways = kinglet_serving::ingress::Gateways::of_process("sim", applied_in);
        let routes =
            kinglet_serving::start_routes(&context, updates, gateways, watch::channel(true).1);
        kinglet_workloads::run(
            &context,
            kinglet_workloads::Options {
                node_name: "sim".to_owned(),
                capacity: kinglet_workloads::Capacity {
                    cpu_millis: 1_000_000,
                    memory_bytes: 1 << 40,
                    pods: 10_000,
                    not_started: vec!["queue-proxy".to_owned()],
                },
                root_ca_pem: None,
                parts: kinglet_workloads::Parts::ALL,
            },
        );
        play_node(&context, self.random.clone());
        kinglet_serving::start(
            &context,
            ServingOptions {
                configs: LiveConfigs::follow(&context, Configs::for_domain("example.com")),
                cluster_domain: "cluster.local".to_owned(),
                gateway: GatewayNames::new("cluster.local"),
                digests: Arc::new(Registry(self.random.clone())),
                reports: reports_in,
                browsers: None,
                routes,
            },
        );
        self.controllers = Some(tasks);
    }

    /// One call of the user's; the error is the API server's status.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> kube::Result<Value> {
        let kind = if method == "PATCH" {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind)
            .body(if body.is_null() {
                Vec::new()
            } else {
                body.to_string().into_bytes()
            })
            .unwrap();
        self.user.request(request).await
    }

    /// Changes an object as a newer controller would, with fields that ours do not know.
    pub(crate) async fn change_inside(
        &self,
        path: &str,
        subresource: &str,
        change: impl Fn(&mut Value),
    ) -> kube::Result<Value> {
        loop {
            let mut object = self.get(path).await.expect("the object is there");
            change(&mut object);
            let request = Request::put(format!("{path}{subresource}"))
                .header("content-type", "application/json")
                .body(object.to_string().into_bytes())
                .unwrap();
            match self.insider.request(request).await {
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                answer => return answer,
            }
        }
    }

    /// Creates an object as a newer client would, past what checks fields.
    pub(crate) async fn create_inside(&self, path: &str, body: Value) -> kube::Result<Value> {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes())
            .unwrap();
        self.insider.request(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Option<Value> {
        self.call("GET", path, Value::Null).await.ok()
    }

    /// The items of a list.
    pub(crate) async fn list(&self, path: &str) -> Vec<Value> {
        let list = self.get(path).await.unwrap_or_default();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Reads a watch until `wanted` finds what it looks for in an event.
    pub(crate) async fn watch_until(
        &self,
        path: &str,
        deadline: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Option<Value> {
        use futures_util::AsyncBufReadExt as _;
        let request = Request::get(path).body(Vec::new()).unwrap();
        let mut lines = std::pin::pin!(self.user.request_stream(request).await.unwrap());
        let read = async {
            let mut line = String::new();
            loop {
                line.clear();
                if lines.read_line(&mut line).await.ok()? == 0 {
                    return None;
                }
                let event: Value = serde_json::from_str(&line).unwrap();
                if wanted(&event) {
                    return Some(event);
                }
            }
        };
        tokio::time::timeout(deadline, read).await.ok().flatten()
    }

    /// Waits until `done` holds, looking every hundred milliseconds of the simulation.
    pub(crate) async fn until(&self, what: &str, max: Duration, done: impl AsyncFn() -> bool) {
        let began = tokio::time::Instant::now();
        while !done().await {
            assert!(began.elapsed() < max, "not within {max:?}: {what}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// A Service of `name` whose container has this environment.
pub(crate) fn service(name: &str, image: &str, text: &str) -> Value {
    json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": {"spec": {"containers": [{"image": image, "env": [{"name": "TEXT", "value": text}]}]}}},
    })
}

/// Where Services live.
pub(crate) const SERVICES: &str = "/apis/serving.knative.dev/v1/namespaces/default/services";

/// The condition of this type.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let all = object["status"]["conditions"].as_array();
    all.into_iter()
        .flatten()
        .find(|condition| condition["type"] == kind)
        .unwrap_or(&Value::Null)
}

/// What follows from the first table after a start.
struct FirstTable {
    opener: GateOpener,
    faults: Switch,
    seen: Arc<Mutex<(usize, Vec<String>)>>,
}

/// Plays the gateway: every route table is in force as soon as it comes, and the first one lets the controllers begin.
async fn acknowledge(
    mut updates: mpsc::Receiver<Update>,
    applied: watch::Sender<u64>,
    first: FirstTable,
) {
    let mut first = Some(first);
    while let Some(update) = updates.recv().await {
        if let Update::Routes(table) = update {
            applied.send_replace(table.version);
            if let Some(first) = first.take() {
                *first.seen.lock() = (table.hosts().count(), first.faults.calls());
                first.opener.open();
            }
        }
    }
}

/// Plays the registry: every tag has a digest, except those of [`MISSING_IMAGE`].
struct Registry(Random);

impl ResolveDigest for Registry {
    fn resolve<'a>(
        &'a self,
        image: &'a str,
        _: &'a Credentials,
    ) -> BoxFuture<'a, Result<String, String>> {
        async move {
            tokio::time::sleep(self.0.up_to_ms(20)).await;
            if image.starts_with(MISSING_IMAGE) {
                return Err("MANIFEST_UNKNOWN: manifest unknown".to_owned());
            }
            let name = image.split(':').next().unwrap_or_default();
            Ok(format!("{name}@sha256:{}", "0".repeat(64)))
        }
        .boxed()
    }
}

/// Plays the node: bound Pods run and are ready soon, deleted ones end soon.
fn play_node(context: &Context, random: Random) {
    let addresses = Arc::new(AtomicU32::new(1));
    Controller::<Pod>::new("fake-node").run(context, move |context, key| {
        let (random, addresses) = (random.clone(), Arc::clone(&addresses));
        async move {
            let Some(pod) = context.cache::<Pod>().find(&key) else {
                return Ok(Next::Done);
            };
            let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
            if pod.metadata.deletion_timestamp.is_some() {
                tokio::time::sleep(random.up_to_ms(300)).await;
                let mut write = Write::delete(&*pod, Cascade::Background);
                if let Verb::Delete { grace_seconds, .. } = &mut write.verb {
                    *grace_seconds = Some(0);
                }
                context.perform(&write).await?;
                return Ok(Next::Done);
            }
            let bound = spec.is_some_and(|spec| spec.node_name.is_some());
            let running = status.is_some_and(|status| status.phase.as_deref() == Some("Running"));
            if !bound || running {
                return Ok(Next::Done);
            }
            tokio::time::sleep(random.up_to_ms(200)).await;
            let number = addresses.fetch_add(1, Ordering::Relaxed);
            let ip = format!("10.9.{}.{}", number / 250, number % 250 + 1);
            let containers: Vec<Value> = spec
                .iter()
                .flat_map(|spec| &spec.containers)
                .map(|container| json!({"name": container.name, "image": container.image, "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}}))
                .collect();
            let now = context.now().to_string();
            let mut plan = Plan::new();
            plan.status(
                &*pod,
                &json!({
                    "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "containerStatuses": containers,
                    "conditions": [
                        {"type": "PodScheduled", "status": "True", "lastTransitionTime": now},
                        {"type": "ContainersReady", "status": "True", "lastTransitionTime": now},
                        {"type": "Ready", "status": "True", "lastTransitionTime": now},
                    ],
                }),
            );
            context.apply(plan).await
        }
    });
}
