//! What the cases stand on: a scratch directory, a busybox image, an API server in this process and a node.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kinglet_apiserver::{ApiServer, Identity};
use kinglet_image::{Images, Registries};
use kinglet_node::{Node, NodeHandle, Options};
use kinglet_process::{Clock, Tasks};
use kinglet_reconcile::{Caches, Context};
use kinglet_store::Store;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// As long as Kinglet itself gives a node.
const NODE_STOP_MAX: Duration = Duration::from_secs(26);
pub(crate) const BUSYBOX: &str = "/bin/busybox";
const APPLETS: &[&str] = &[
    "cat", "echo", "false", "head", "hostname", "httpd", "id", "ls", "mount", "nc", "nslookup",
    "printf", "sh", "sleep", "tail", "tr", "true", "wc", "touch", "test", "mkdir", "ln", "rm",
    "dd", "stat", "readlink", "mv", "mknod", "chmod", "umount",
];

/// Scratch directories of the current case.
static MADE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// While it holds `false`, requests are in flight.
static DRAIN_HELD: Mutex<Option<tokio::sync::watch::Receiver<bool>>> = Mutex::new(None);

/// Takes off the host what a case that failed left there.
pub(crate) async fn sweep() {
    let made = std::mem::take(&mut *MADE.lock());
    for data in made
        .iter()
        .flat_map(|path| [path.clone(), path.join("node")])
        .filter(|data| data.exists())
    {
        let tasks = Tasks::new();
        let names = kinglet_node::names::HostNames::new(&data);
        if let Ok(engine) = kinglet_node::engine::Engine::open(
            &names,
            &data,
            "/proc/self/exe".into(),
            1,
            kinglet_node::NetworkOptions::default(),
            &tasks,
        )
        .await
        {
            tasks.shutdown(Duration::from_secs(5)).await;
            engine.close(crate::engine::soon()).await;
        }
        let _ = std::process::Command::new("umount")
            .arg("-R")
            .arg(data.join("memory"))
            .stderr(std::process::Stdio::null())
            .status();
    }
    for path in made {
        let _ = kinglet_process::trash::remove_tree(&path);
    }
}

/// A directory that goes with its owner, unless the case fails.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!(
            "kinglet-node-{name}-{}-{number}",
            std::process::id()
        ));
        std::fs::create_dir_all(&path).expect("scratch directory");
        MADE.lock().push(path.clone());
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = kinglet_process::trash::remove_tree(&self.0);
        }
    }
}

/// A file tree with busybox and its names.
pub(crate) fn busybox_tree(root: &Path) {
    std::fs::create_dir_all(root.join("bin")).expect("directory");
    std::fs::create_dir_all(root.join("etc")).expect("directory");
    std::fs::copy(BUSYBOX, root.join("bin/busybox")).expect("busybox");
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).expect("link");
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n",
    )
    .expect("file");
}

/// Waits for something to become true; panics with its name after twenty seconds.
pub(crate) async fn until(what: &str, check: impl FnMut() -> bool) {
    until_within(Duration::from_secs(20), what, check).await;
}

/// The same with another patience.
pub(crate) async fn until_within(longest: Duration, what: &str, mut check: impl FnMut() -> bool) {
    let give_up = std::time::Instant::now() + longest;
    while std::time::Instant::now() < give_up {
        if check() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain: {what}");
}

/// An API server in this process and a node on it.
pub(crate) struct World {
    pub(crate) scratch: Scratch,
    pub(crate) context: Context,
    pub(crate) node: NodeHandle,
    pub(crate) pods: Api<Pod>,
    pub(crate) drained: Arc<Mutex<Vec<IpAddr>>>,
    pub(crate) images: Images,
    tasks: Tasks,
    defunct_before: Vec<String>,
}

impl World {
    pub(crate) async fn new(name: &str) -> Self {
        let defunct_before = defunct_children();
        let scratch = Scratch::new(name);
        let store =
            Store::open(&scratch.path().join("store"), ApiServer::store_options()).expect("store");
        let services = service_range(&scratch);
        let api = ApiServer::new(
            store,
            kinglet_apiserver::Options {
                service_network: services.network(),
                ..Default::default()
            },
        );
        let client = kube::Client::new(api.service(Identity::in_process("system:test")), "default");
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
        for name in ["default", "kube-node-lease"] {
            let namespace =
                serde_json::from_value(json!({"metadata": {"name": name}})).expect("namespace");
            namespaces
                .create(&PostParams::default(), &namespace)
                .await
                .expect("namespace");
        }
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
            Api::namespaced(client.clone(), "default");
        let account =
            serde_json::from_value(json!({"metadata": {"name": "default"}})).expect("account");
        accounts
            .create(&PostParams::default(), &account)
            .await
            .expect("account");
        let images = Images::open(
            &scratch.path().join("images"),
            Registries::default(),
            Vec::new(),
        )
        .expect("images");
        let archive = busybox_archive(scratch.path());
        images
            .import(&archive, Some("test/busybox:1"))
            .await
            .expect("image");
        let tasks = Tasks::new();
        let context = Context::new(&Caches::new(client.clone(), tasks.clone(), Clock::system()));
        let drained = Arc::<Mutex<Vec<IpAddr>>>::default();
        let node = start_node(&scratch, &context, &images, &drained).await;
        Self {
            pods: Api::namespaced(client, "default"),
            scratch,
            context,
            node,
            drained,
            images,
            tasks,
            defunct_before,
        }
    }

    /// Stops the node and starts another on the same directory.
    pub(crate) async fn restart(&mut self) {
        self.node
            .stop(tokio::time::Instant::now() + NODE_STOP_MAX)
            .await;
        self.node = start_node(&self.scratch, &self.context, &self.images, &self.drained).await;
    }

    /// Requests are in flight until `held` becomes true.
    pub(crate) fn hold_drain(&self, held: tokio::sync::watch::Receiver<bool>) {
        *DRAIN_HELD.lock() = Some(held);
    }

    /// Creates a pod that is bound already.
    pub(crate) async fn create(&self, name: &str, spec: Value) -> Pod {
        let mut pod = json!({"metadata": {"name": name}, "spec": spec});
        pod["spec"]["nodeName"] = json!("test");
        pod["spec"]["terminationGracePeriodSeconds"] = pod["spec"]
            .get("terminationGracePeriodSeconds")
            .cloned()
            .unwrap_or(json!(5));
        pod["spec"]["automountServiceAccountToken"] = json!(false);
        for container in pod["spec"]["containers"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            if container.get("image").is_none() {
                container["image"] = json!("test/busybox:1");
            }
        }
        let pod = serde_json::from_value(pod).expect("pod");
        self.pods
            .create(&PostParams::default(), &pod)
            .await
            .expect("create")
    }

    /// Waits until the pod is as wished.
    pub(crate) async fn wait(
        &self,
        name: &str,
        what: &str,
        check: impl Fn(&Pod) -> bool,
    ) -> Arc<Pod> {
        let cache = self.context.cache::<Pod>();
        let mut last = None;
        for _ in 0..6000 {
            last = cache.get("default", name);
            if let Some(pod) = &last
                && check(pod)
            {
                return Arc::clone(pod);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!(
            "waited in vain: {name} {what}; it is {}",
            serde_json::to_string_pretty(&last.and_then(|pod| pod.status.clone())).expect("status")
        );
    }

    pub(crate) async fn ready(&self, name: &str) -> Arc<Pod> {
        self.wait(name, "ready", is_ready).await
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.pods
            .delete(name, &DeleteParams::default())
            .await
            .expect("delete");
    }

    pub(crate) async fn gone(&self, name: &str) {
        let cache = self.context.cache::<Pod>();
        until(&format!("{name} is gone"), || {
            cache.get("default", name).is_none()
        })
        .await;
    }

    pub(crate) async fn logs(&self, name: &str, options: kinglet_node::LogOptions) -> String {
        use futures_util::StreamExt as _;
        let chunks: Vec<_> = self
            .node
            .logs("default", name, options)
            .expect("logs")
            .collect()
            .await;
        chunks
            .into_iter()
            .map(|bytes| String::from_utf8_lossy(&bytes.expect("bytes")).into_owned())
            .collect()
    }

    pub(crate) async fn close(self) {
        self.node
            .stop(tokio::time::Instant::now() + NODE_STOP_MAX)
            .await;
        *DRAIN_HELD.lock() = None;
        self.tasks.shutdown(Duration::from_secs(5)).await;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        // One case forgets a container on purpose; what was defunct before this one began is not its doing.
        let new = || {
            let mut all = defunct_children();
            all.retain(|stat| !self.defunct_before.contains(stat));
            all
        };
        let give_up = std::time::Instant::now() + Duration::from_secs(20);
        while !new().is_empty() && std::time::Instant::now() < give_up {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let defunct = new();
        assert!(
            defunct.is_empty(),
            "defunct children stay behind: {defunct:?}"
        );
        assert!(
            !mounts.contains(&self.scratch.path().display().to_string()),
            "mounts stay behind"
        );
    }
}

/// Children of this process that have ended and were not reaped.
pub(crate) fn defunct_children() -> Vec<String> {
    let own = std::process::id().to_string();
    let all = std::fs::read_dir("/proc").expect("proc").flatten();
    all.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
        .filter(|stat| {
            let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
            fields.first() == Some(&"Z") && fields.get(1) == Some(&own.as_str())
        })
        .collect()
}

/// Processes of this machine with that argument.
pub(crate) fn processes_with(argument: &str) -> usize {
    let all = std::fs::read_dir("/proc").expect("proc").flatten();
    all.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok())
        .filter(|line| line.split('\0').any(|one| one == argument))
        .count()
}

/// The message of the pod's condition `Ready`.
pub(crate) fn ready_message(pod: &Pod) -> String {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .filter(|condition| condition.type_ == "Ready")
        .filter_map(|condition| condition.message.clone())
        .collect()
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The Service addresses of a world, which stay when its node starts again.
fn service_range(scratch: &Scratch) -> kinglet_node::ServiceRange {
    kinglet_node::service_range(scratch.path(), false).expect("a free range")
}

async fn start_node(
    scratch: &Scratch,
    context: &Context,
    images: &Images,
    drained: &Arc<Mutex<Vec<IpAddr>>>,
) -> NodeHandle {
    let drained = Arc::clone(drained);
    Node::start(Options {
        data_dir: scratch.path().join("node"),
        node_name: "test".to_owned(),
        context: context.named("kubelet"),
        images: images.clone(),
        drain: Arc::new(move |address| {
            drained.lock().push(address);
            let held = DRAIN_HELD.lock().clone();
            Box::pin(async move {
                if let Some(mut held) = held {
                    let _ = held.wait_for(|released| *released).await;
                }
            })
        }),
        queue_image_prefixes: vec!["test/queue".to_owned()],
        queue_proxies: None,
        network: kinglet_node::NetworkOptions {
            services: Some(service_range(scratch)),
            ..Default::default()
        },
        ca_pem: "PEM".to_owned(),
        helper: "/proc/self/exe".into(),
        parked: 2,
        cluster_domain: "cluster.local".to_owned(),
    })
    .await
    .expect("node")
}

/// An image archive as `docker save` writes it, made with tar.
fn busybox_archive(scratch: &Path) -> PathBuf {
    use sha2::{Digest as _, Sha256};
    let tree = scratch.join("tree");
    busybox_tree(&tree);
    let parts = scratch.join("parts");
    std::fs::create_dir_all(&parts).expect("directory");
    let tar = |directory: &Path, to: &Path, what: &[&str]| {
        let status = std::process::Command::new("tar")
            .arg("-C")
            .arg(directory)
            .arg("-cf")
            .arg(to)
            .args(what)
            .status()
            .expect("tar");
        assert!(status.success());
    };
    tar(&tree, &parts.join("layer.tar"), &["."]);
    let digest: String = Sha256::digest(std::fs::read(parts.join("layer.tar")).expect("layer"))
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": ["sleep", "1000000"], "Env": ["PATH=/bin", "FROM_IMAGE=yes"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    std::fs::write(parts.join("config.json"), config.to_string()).expect("config");
    let manifest =
        json!([{"Config": "config.json", "RepoTags": ["test/busybox:1"], "Layers": ["layer.tar"]}]);
    std::fs::write(parts.join("manifest.json"), manifest.to_string()).expect("manifest");
    let archive = scratch.join("busybox.tar");
    tar(
        &parts,
        &archive,
        &["manifest.json", "config.json", "layer.tar"],
    );
    archive
}
