//! The node itself: which pods it has, and what others may ask of it.

mod logs;
mod sessions;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::Method;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kinglet_process::egress::is_own_address;
use kinglet_process::{Egress, Tasks, Trash};
use kinglet_reconcile::{Change, controller_of, is_deleting, key_of};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;

use crate::dns;
use crate::engine::{Engine, EngineError, Sandbox, preflight};
use crate::names::HostNames;
use crate::network::{self, MachineAddress, NetworkError};
use crate::options::Options;
use crate::pod::start::{Shared, uid};
use crate::pod::worker::{PodLogs, PodUpdate, TaskPanicked, Worker};
use crate::registration;
use crate::sys::netns::SocketMaker;
use crate::volumes::{self, disk, memory};

/// Between a fault in a pod's worker and its next life, so that one that comes again at once does not keep a core busy.
const FAULT_PAUSE: Duration = Duration::from_secs(1);
/// What programs are given when the node stops, where the deadline leaves as much.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// After their grace, killed containers are gone at once; this is for their files and comes out of the deadline.
const AFTER_GRACE: Duration = Duration::from_secs(5);
/// Pods of an earlier life go with one call each; an API server that refuses it does not keep all others from being served.
const CLEARED_MAX: Duration = Duration::from_secs(10);
/// The node's own loops end at their next await.
const LOOPS_STOP_MAX: Duration = Duration::from_secs(2);

/// Files of the last pods are mostly gone by then; more is left to the next start.
const CLEANING_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The machine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The node's own directory.
    #[error("preparing {}: {source}", path.display())]
    Data {
        /// The directory.
        path: std::path::PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// Starts nodes.
pub struct Node;

/// A running node. Cheap to clone.
#[derive(Clone)]
pub struct NodeHandle(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    /// The node's own loops.
    loops: Tasks,
    /// Pods, apart from the loops: they outlive them at the stop.
    pods: Tasks,
    /// Removes files of pods that are gone; ends last.
    cleaning: Tasks,
    workers: Mutex<HashMap<(String, String), Entry>>,
    /// Whether the Pods of an earlier life, whose containers are gone, are gone from the API as well.
    cleared: watch::Sender<bool>,
    /// The namespace that [`Shared::egress`] connects from.
    _egress_sandbox: Sandbox,
}

struct Entry {
    uid: String,
    signal: watch::Sender<PodUpdate>,
    logs: Arc<Mutex<PodLogs>>,
}

impl Node {
    /// Says in one sentence why this process cannot run a node, if it cannot.
    pub fn preflight() -> Result<(), EngineError> {
        preflight()
    }

    /// Clears away what an earlier life of this data directory left, then runs the pods that are bound to this node.
    ///
    /// Guarantees: when this returns, DNS answers on [`NodeHandle::gateway_ip`], and the first listing of Pods is taken in as
    /// soon as the caches have it. Assumes: one node per data directory (the caller holds its lock).
    pub async fn start(mut options: Options) -> Result<NodeHandle, NodeError> {
        preflight()?;
        options.data_dir = crate::canonical(&options.data_dir);
        let data = options.data_dir.clone();
        let prepared = tokio::task::spawn_blocking({
            let data = data.clone();
            move || prepare(&data)
        });
        let trash = prepared
            .await
            .map_err(std::io::Error::other)
            .and_then(|done| done)
            .map_err(|source| NodeError::Data {
                path: data.clone(),
                source,
            })?;
        let loops = options.context.tasks().child();
        // Pods are not children of anybody's tasks: they end by themselves when the node is stopped.
        let pods = loops.beside();
        let engine = Engine::open(
            &HostNames::new(&data),
            &data,
            options.helper.clone(),
            options.parked,
            options.network.clone(),
            &loops,
        )
        .await?;
        let (egress_sandbox, egress) = open_egress(&engine, &loops).await?;
        let (node_cpu_milli, node_memory_bytes) = registration::capacity();
        let shared = Arc::new(Shared {
            engine,
            egress,
            node_cpu_milli,
            node_memory_bytes,
            resolv_conf: std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
            trash,
            options,
        });
        warm_caches(&shared);
        let cleaning = loops.beside();
        shared.trash.start(&cleaning);
        network::follow::start(shared.engine.network(), shared.context(), &loops);
        dns::start(&shared, &loops).await;
        registration::start(&shared, &loops);
        let node = NodeHandle(Arc::new(Inner {
            shared,
            loops: loops.clone(),
            pods,
            cleaning,
            workers: Mutex::default(),
            cleared: watch::Sender::new(false),
            _egress_sandbox: egress_sandbox,
        }));
        let this = node.clone();
        loops.component_cancellable("pods", async move { this.follow_pods().await });
        let this = node.clone();
        loops.component_cancellable("volume-sources", async move { this.follow_sources().await });
        Ok(node)
    }
}

/// A network like a pod's, in which nothing listens, and the way out through it.
async fn open_egress(engine: &Engine, loops: &Tasks) -> Result<(Sandbox, Egress), EngineError> {
    let sandbox = engine.sandbox().await.map_err(EngineError::Network)?;
    let sockets = sandbox
        .network()
        .try_clone_to_owned()
        .and_then(SocketMaker::start)
        .map_err(EngineError::Egress)?;
    let thread = sockets.clone();
    loops.component_cancellable("egress", async move { thread.ended().await });
    let egress = Egress::new(
        move |v6| {
            let sockets = sockets.clone();
            Box::pin(async move { sockets.tcp(v6).await })
        },
        is_own_address,
    );
    Ok((sandbox, egress))
}

/// Their first listing is complete before the first pod needs it.
fn warm_caches(shared: &Shared) {
    let context = shared.context();
    context.cache::<Pod>();
    context.cache::<ConfigMap>();
    context.cache::<Secret>();
    context.cache::<ServiceAccount>();
    context.cache::<Service>();
    context.cache::<EndpointSlice>();
}

fn prepare(data: &Path) -> std::io::Result<Arc<Trash>> {
    std::fs::create_dir_all(data)?;
    memory::open_memory(data)?;
    let trash = Trash::open(&volumes::trash(data))?;
    disk::clear_pods(data, &trash)?;
    Ok(trash)
}

/// Whether a Pod that has no worker was started by an earlier life of the node and has a controller that replaces it.
fn is_of_earlier_life(pod: &Pod) -> bool {
    let started = pod
        .status
        .as_ref()
        .and_then(|status| status.start_time.as_ref());
    started.is_some() && controller_of(pod).is_some()
}

impl NodeHandle {
    /// The host's address on the pod network: the local gateway (port 80), the DNS server (53) and the API (its port) belong there.
    pub fn gateway_ip(&self) -> Ipv4Addr {
        self.0.shared.engine.gateway()
    }

    /// One more address of this machine on the pod network.
    pub async fn machine_address(&self) -> Result<MachineAddress, NetworkError> {
        self.0.shared.engine.network().machine_address().await
    }

    /// Whether a pod of this node may have that address.
    pub fn is_pod_address(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(address) if self.0.shared.engine.is_pod_address(address))
    }

    /// The way to hosts that somebody else names (webhooks, sinks): never to this machine itself.
    pub fn egress(&self) -> Egress {
        self.0.shared.egress.clone()
    }

    /// Whether no Pod of an earlier life of this node is left in the API: until then one may look ready that does not run.
    pub fn cleared(&self) -> watch::Receiver<bool> {
        self.0.cleared.subscribe()
    }

    /// Pods that this node runs now.
    pub fn pod_count(&self) -> usize {
        self.0.workers.lock().len()
    }

    /// Ends all containers and takes everything off the host, until `deadline` at the latest: what programs are given to
    /// end shrinks with the time that is left. The Pods stay in the API; the next life replaces them.
    pub async fn stop(&self, deadline: tokio::time::Instant) {
        let left = || deadline.saturating_duration_since(tokio::time::Instant::now());
        self.0.loops.shutdown(LOOPS_STOP_MAX.min(left() / 4)).await;
        // Where little is left, half of it is theirs.
        let grace = STOP_GRACE.min(left().saturating_sub(AFTER_GRACE).max(left() / 2));
        for entry in self.0.workers.lock().values() {
            entry.signal.send_modify(|signal| signal.stop = Some(grace));
        }
        if !self
            .0
            .pods
            .shutdown(left().saturating_sub(CLEANING_TIMEOUT).max(left() * 3 / 4))
            .await
        {
            tracing::warn!("some pods did not end in time; the next start ends them");
        }
        self.0.workers.lock().clear();
        self.0.shared.engine.close(deadline).await;
        let data = self.0.shared.options.data_dir.clone();
        let closed = tokio::task::spawn_blocking(move || memory::close_memory(&data));
        match tokio::time::timeout_at(deadline, closed).await {
            Ok(Ok(Ok(()))) => {}
            other => {
                tracing::warn!(result = ?other, "volumes in memory are still mounted; the next start lets them go");
            }
        }
        // What is left after that is removed by the next start.
        let trash = Arc::clone(&self.0.shared.trash);
        let emptied = async {
            while !trash.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(CLEANING_TIMEOUT.min(left()), emptied).await;
        self.0
            .cleaning
            .shutdown(Duration::from_secs(1).min(left()))
            .await;
    }

    async fn follow_pods(&self) {
        let cache = self.0.shared.context().cache::<Pod>();
        cache.wait_synced().await;
        let mut left: Vec<Arc<Pod>> = cache.all();
        left.retain(|pod| self.is_ours(pod) && is_of_earlier_life(pod));
        let give_up = tokio::time::Instant::now() + CLEARED_MAX;
        let mut changes = cache.subscribe();
        loop {
            if !*self.0.cleared.borrow() {
                left.retain(|pod| {
                    let key = key_of(&**pod);
                    let now = cache.find(&key);
                    now.is_some_and(|now| uid(&now) == uid(pod))
                });
                let is_over = left.is_empty() || tokio::time::Instant::now() >= give_up;
                self.0.cleared.send_replace(is_over);
            }
            let change = tokio::select! {
                change = changes.recv() => change,
                () = tokio::time::sleep_until(give_up), if !*self.0.cleared.borrow() => continue,
            };
            let Some(change) = change else { return };
            match change {
                Change::Applied { new, .. } => self.offer(&new).await,
                Change::Deleted(last) => self.forget(&last),
                Change::Resync => {
                    let all = cache.all();
                    let gone: Vec<_> = {
                        let workers = self.0.workers.lock();
                        let alive = |key: &(String, String), entry: &Entry| {
                            cache
                                .get(&key.0, &key.1)
                                .is_some_and(|pod| uid(&pod) == entry.uid)
                        };
                        workers
                            .iter()
                            .filter(|(key, entry)| !alive(key, entry))
                            .map(|(_, entry)| entry.signal.clone())
                            .collect()
                    };
                    for signal in gone {
                        signal.send_modify(|signal| signal.pod = None);
                    }
                    for pod in &all {
                        self.offer(pod).await;
                    }
                }
            }
        }
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref())
            == Some(&self.0.shared.options.node_name)
    }

    /// Takes in a Pod as the API has it now.
    async fn offer(&self, pod: &Arc<Pod>) {
        if !self.is_ours(pod) {
            return;
        }
        let key = key_of(&**pod);
        let key = (key.namespace.to_string(), key.name.to_string());
        {
            let workers = self.0.workers.lock();
            if let Some(entry) = workers.get(&key) {
                if entry.uid == uid(pod) {
                    entry
                        .signal
                        .send_modify(|signal| signal.pod = Some(Arc::clone(pod)));
                    return;
                }
                // Its successor came before we heard that it is gone.
                entry.signal.send_modify(|signal| signal.pod = None);
            }
        }
        let status = pod.status.as_ref();
        if is_deleting(&**pod) {
            self.delete(pod).await;
            return;
        }
        if status
            .and_then(|status| status.phase.as_deref())
            .is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
        {
            return;
        }
        if is_of_earlier_life(pod) {
            self.delete(pod).await;
            return;
        }
        self.adopt(key, pod);
    }

    fn adopt(&self, key: (String, String), pod: &Arc<Pod>) {
        let (signal, receiver) = watch::channel(PodUpdate {
            pod: Some(Arc::clone(pod)),
            refresh: 0,
            stop: None,
        });
        let logs = Arc::<Mutex<PodLogs>>::default();
        let worker = Worker::new(
            Arc::clone(&self.0.shared),
            Arc::clone(pod),
            receiver,
            Arc::clone(&logs),
            Tasks::new(),
        );
        let own = uid(pod).to_owned();
        self.0.workers.lock().insert(
            key.clone(),
            Entry {
                uid: own.clone(),
                signal,
                logs,
            },
        );
        let this = self.clone();
        self.0.pods.spawn("pod", async move {
            let ended = AssertUnwindSafe(Box::pin(worker.run()))
                .catch_unwind()
                .await;
            {
                let mut workers = this.0.workers.lock();
                if workers.get(&key).is_some_and(|entry| entry.uid == own) {
                    workers.remove(&key);
                }
            }
            let fault = match ended {
                Ok(Ok(())) => return,
                Ok(Err(TaskPanicked(task))) => task,
                Err(_) => "pod",
            };
            this.look_again(&key, &own, fault).await;
        });
    }

    /// A fault of ours ended what looked after a Pod, and its containers with it: it is taken in like one of an earlier life.
    async fn look_again(&self, (namespace, name): &(String, String), own: &str, task: &str) {
        tracing::error!(
            namespace,
            name,
            task,
            "a fault of Kinglet ended the worker of a pod; its containers were killed, and it begins anew"
        );
        tokio::time::sleep(FAULT_PAUSE).await;
        let found = self.0.shared.context().cache::<Pod>().get(namespace, name);
        if let Some(pod) = found.filter(|pod| uid(pod) == own)
            && !self.0.pods.token().is_cancelled()
        {
            self.offer(&pod).await;
        }
    }

    fn forget(&self, pod: &Pod) {
        let key = key_of(pod);
        let workers = self.0.workers.lock();
        if let Some(entry) = workers.get(&(key.namespace.to_string(), key.name.to_string()))
            && entry.uid == uid(pod)
        {
            entry.signal.send_modify(|signal| signal.pod = None);
        }
    }

    /// Lets a Pod go whose containers are not (or no longer) here.
    async fn delete(&self, pod: &Pod) {
        let key = key_of(pod);
        let path = format!("/api/v1/namespaces/{}/pods/{}", key.namespace, key.name);
        let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": uid(pod)}});
        if let Err(error) = self
            .0
            .shared
            .context()
            .call(Method::DELETE, &path, Some(&body))
            .await
        {
            tracing::debug!(pod = %key, %error, "a pod of an earlier life could not be deleted");
        }
    }

    /// Tells workers when something that volumes are made of changes.
    async fn follow_sources(&self) {
        let context = self.0.shared.context();
        let mut maps = context.cache::<ConfigMap>().subscribe();
        let mut secrets = context.cache::<Secret>().subscribe();
        loop {
            let namespace = tokio::select! {
                Some(change) = maps.recv() => change.object().and_then(|map| map.metadata.namespace.clone()),
                Some(change) = secrets.recv() => change.object().and_then(|secret| secret.metadata.namespace.clone()),
                else => return,
            };
            let Some(namespace) = namespace else { continue };
            for (_, entry) in self
                .0
                .workers
                .lock()
                .iter()
                .filter(|((of, _), _)| *of == namespace)
            {
                entry.signal.send_modify(|signal| signal.refresh += 1);
            }
        }
    }
}
