//! What pods do to their volumes to harm the host or their neighbours (`shared/cases`), and what Kinglet makes of it.

use std::path::Path;
use std::time::Duration;

use http::Method;
use k8s_openapi::api::core::v1::Pod;
use kinglet_node::LogOptions;
use serde_json::{Value, json};

use crate::world::{World, until, until_within};

async fn call(world: &World, method: Method, path: &str, body: &Value) {
    world
        .context
        .call(method, path, Some(body))
        .await
        .expect("call");
}

/// Waits until the log of the only container has the text.
async fn said(world: &World, pod: &str, text: &str) -> String {
    let mut log = String::new();
    for _ in 0..4000 {
        log = world.logs(pod, LogOptions::default()).await;
        if log.contains(text) {
            return log;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{pod} never said {text:?}: {log}");
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

/// volume-link-swap.yaml, and the same with every other kind of volume from the API.
pub(crate) async fn link_swap() {
    let world = World::new("swap").await;
    let outside = world.scratch.path().join("outside");
    std::fs::create_dir_all(outside.join("kept")).expect("outside");
    std::fs::write(outside.join("file"), "of the host").expect("outside");
    let map = |text: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "swap"}, "data": {"file": text}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "swap"}, "stringData": {"file": "1"}});
    call(
        &world,
        Method::POST,
        "/api/v1/namespaces/default/configmaps",
        &map("1"),
    )
    .await;
    call(
        &world,
        Method::POST,
        "/api/v1/namespaces/default/secrets",
        &secret,
    )
    .await;
    let script = format!(
        "for v in cm secret projected downward; do cd /$v; rm ..data 2>/dev/null; ln -s {0} ..data 2>/dev/null; \
         for n in 1 2 3 next; do rm -rf ..$n 2>/dev/null; ln -s {0} ..$n 2>/dev/null; done; \
         ln -s {0} planted 2>/dev/null && echo PLANTED in $v; readlink ..data; done; echo done; \
         while true; do cat /cm/file; echo; sleep 0.2; done",
        outside.display()
    );
    let mount = |name: &str| json!({"name": name, "mountPath": format!("/{name}")});
    world
        .create(
            "swap",
            json!({
                "containers": [{"name": "c", "command": ["sh", "-c", script], "volumeMounts": [mount("cm"), mount("secret"), mount("projected"), mount("downward")]}],
                "volumes": [
                    {"name": "cm", "configMap": {"name": "swap"}},
                    {"name": "secret", "secret": {"secretName": "swap"}},
                    {"name": "projected", "projected": {"sources": [{"configMap": {"name": "swap"}}, {"secret": {"name": "swap", "items": [{"key": "file", "path": "other"}]}}]}},
                    {"name": "downward", "downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                ],
            }),
        )
        .await;
    world.ready("swap").await;
    let log = said(&world, "swap", "done").await;
    assert!(!log.contains("PLANTED"), "{log}");
    assert_eq!(log.matches("..1").count(), 4, "the links stay: {log}");
    for text in ["two", "three", "four"] {
        call(
            &world,
            Method::PUT,
            "/api/v1/namespaces/default/configmaps/swap",
            &map(text),
        )
        .await;
        said(&world, "swap", text).await;
    }
    world.delete("swap").await;
    world.gone("swap").await;
    until("no pod is left", || world.node.pod_count() == 0).await;
    assert_eq!(
        std::fs::read_to_string(outside.join("file")).expect("file"),
        "of the host"
    );
    assert!(outside.join("kept").is_dir());
    world.close().await;
}

/// Fills a directory with a chain that has more levels than a process has descriptors, as a pod would.
fn chain(at: &Path, depth: usize) {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory = openat(CWD, at, flags, Mode::empty()).expect("open");
    for _ in 0..depth {
        mkdirat(&directory, "d", Mode::RWXU).expect("mkdir");
        directory = openat(&directory, "d", flags, Mode::empty()).expect("open");
    }
}

/// deep-directories.yaml: made from outside here, because a shell needs minutes for so many.
pub(crate) async fn deep_directories() {
    // shared/cases has 60,000. A level costs up to 3 ms of a busy disk, so that many take minutes to remove; each is removed
    // alike, and these are more than a process has descriptors.
    const DEPTH: usize = 2_500;
    let mut world = World::new("deep").await;
    let spec = json!({
        "containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    });
    let data = world.scratch.path().join("node");
    let nothing_left = || std::fs::read_dir(data.join("trash")).map_or(0, Iterator::count) == 0;
    world.create("deep", spec.clone()).await;
    let pod = world.ready("deep").await;
    let uid = pod.metadata.uid.clone().expect("uid");
    chain(&data.join(format!("pods/{uid}/volumes/v")), DEPTH);
    chain(
        &data.join(format!("pods/{uid}/containers/c/0/upper")),
        DEPTH,
    );
    world.delete("deep").await;
    world.gone("deep").await;
    until("no pod is left", || world.node.pod_count() == 0).await;
    assert!(!data.join("pods").join(&uid).exists());
    // Others are served meanwhile.
    world.create("next", spec).await;
    let pod = world.ready("next").await;
    let uid = pod.metadata.uid.clone().expect("uid");
    until_within(REMOVAL_MAX, "space is given back", nothing_left).await;
    // Left by a life that ended in the middle: the next start takes it in its stride.
    chain(&data.join(format!("pods/{uid}/volumes/v")), DEPTH);
    world.restart().await;
    until_within(
        REMOVAL_MAX,
        "space is given back after a start",
        nothing_left,
    )
    .await;
    world.close().await;
}

/// Removing what a case made takes seconds; this is for a machine that is busy.
const REMOVAL_MAX: Duration = Duration::from_secs(180);

/// Hundreds of thousands of names: small files, hard links of one, names as long as they can be.
pub(crate) async fn crowds() {
    const FILES: usize = 100_000;
    const LINKS: usize = 30_000;
    let mut world = World::new("crowds").await;
    let spec = json!({
        "containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}],
    });
    let data = world.scratch.path().join("node");
    let nothing_left = || std::fs::read_dir(data.join("trash")).map_or(0, Iterator::count) == 0;
    let fill = |at: &Path| {
        std::fs::write(at.join("one"), "x").expect("file");
        for number in 0..LINKS {
            std::fs::hard_link(at.join("one"), at.join(format!("link-{number}"))).expect("link");
        }
        for number in 0..FILES {
            // 255 bytes, the longest that there is.
            let name = format!("{number:0>255}");
            std::fs::write(at.join(name), "").expect("file");
        }
    };
    world.create("crowd", spec.clone()).await;
    let pod = world.ready("crowd").await;
    let uid = pod.metadata.uid.clone().expect("uid");
    fill(&data.join(format!("pods/{uid}/volumes/v")));
    world.delete("crowd").await;
    world.gone("crowd").await;
    world.create("next", spec).await;
    let pod = world.ready("next").await;
    let uid = pod.metadata.uid.clone().expect("uid");
    until_within(REMOVAL_MAX, "space is given back", nothing_left).await;
    fill(&data.join(format!("pods/{uid}/volumes/v")));
    world.restart().await;
    until_within(
        REMOVAL_MAX,
        "space is given back after a start",
        nothing_left,
    )
    .await;
    world.close().await;
}

/// Nobody fills what others need: last words, `/etc/hosts` and memory volumes end at their own size.
pub(crate) async fn sizes() {
    let world = World::new("sizes").await;
    let fill = "for f in /dev/termination-log /etc/hosts /etc/resolv.conf /mem/x; do dd if=/dev/zero of=$f bs=65536 count=200 2>/dev/null; stat -c '%n %s' $f; done; \
                echo last > /dev/termination-log; exit 3";
    let spec = json!({
        "restartPolicy": "Never",
        "containers": [{"name": "c", "command": ["sh", "-c", fill], "volumeMounts": [{"name": "mem", "mountPath": "/mem"}]}],
        "volumes": [{"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
    });
    world.create("fills", spec).await;
    let pod = world
        .wait("fills", "failed", |pod| phase(pod) == Some("Failed"))
        .await;
    let log = world.logs("fills", LogOptions::default()).await;
    let size = |name: &str| -> u64 {
        let line = log
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{name}: {log}"))
            .parse()
            .expect("size")
    };
    assert!(size("/dev/termination-log") <= 64 << 10, "{log}");
    assert!(
        size("/etc/hosts") + size("/etc/resolv.conf") <= 1 << 20,
        "{log}"
    );
    assert!(size("/mem/x") <= 1 << 20, "{log}");
    let message = pod
        .status
        .as_ref()
        .expect("status")
        .container_statuses
        .as_ref()
        .expect("containers")[0]
        .state
        .as_ref()
        .and_then(|state| state.terminated.as_ref()?.message.clone());
    assert_eq!(message.as_deref(), Some("last\n"));
    // 4 KiB are read of more.
    let long = json!({"restartPolicy": "Never", "containers": [{"name": "c", "command": ["sh", "-c", "dd if=/dev/zero bs=1000 count=20 2>/dev/null | tr '\\0' x > /dev/termination-log"]}]});
    world.create("long", long).await;
    let pod = world
        .wait("long", "succeeded", |pod| phase(pod) == Some("Succeeded"))
        .await;
    let message = pod
        .status
        .as_ref()
        .expect("status")
        .container_statuses
        .as_ref()
        .expect("containers")[0]
        .state
        .as_ref()
        .and_then(|state| state.terminated.as_ref()?.message.clone());
    assert_eq!(message.map(|text| text.len()), Some(4096));
    world.close().await;
}

/// A subPath (also by expression) of an emptyDir can be written by a user who is not root.
pub(crate) async fn sub_path() {
    let world = World::new("subpath").await;
    let spec = json!({
        "restartPolicy": "Never",
        "securityContext": {"runAsUser": 1234, "fsGroup": 777},
        "containers": [{
            "name": "c",
            "env": [{"name": "NAME", "value": "from-env"}],
            "command": ["sh", "-c", "touch /a/x /b/x && stat -c '%a %g' /a /b && stat -c %g /a/x"],
            "volumeMounts": [
                {"name": "v", "mountPath": "/a", "subPath": "deep/er"},
                {"name": "v", "mountPath": "/b", "subPathExpr": "$(NAME)"},
                {"name": "v", "mountPath": "/w"},
            ],
        }],
        "volumes": [{"name": "v", "emptyDir": {}}],
    });
    world.create("sub", spec).await;
    world
        .wait("sub", "succeeded", |pod| phase(pod) == Some("Succeeded"))
        .await;
    assert_eq!(
        world.logs("sub", LogOptions::default()).await,
        "2777 777\n2777 777\n777\n"
    );
    world.close().await;
}

/// missing-volume-source.yaml: the pod waits, says for what, and starts by itself when it is there.
pub(crate) async fn missing_secret() {
    let world = World::new("absent").await;
    let spec = json!({
        "containers": [{"name": "c", "volumeMounts": [{"name": "s", "mountPath": "/s"}]}],
        "volumes": [{"name": "s", "secret": {"secretName": "absent"}}],
    });
    world.create("waits", spec).await;
    let told = "MountVolume.SetUp failed for volume \"s\" : secret \"absent\" not found";
    let events = world.context.cache::<k8s_openapi::api::core::v1::Event>();
    until("an Event names the Secret", || {
        events.all().iter().any(|event| {
            event.reason.as_deref() == Some("FailedMount") && event.message.as_deref() == Some(told)
        })
    })
    .await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "absent"}, "stringData": {"a": "b"}});
    call(
        &world,
        Method::POST,
        "/api/v1/namespaces/default/secrets",
        &secret,
    )
    .await;
    world.ready("waits").await;
    world.close().await;
}

/// A pod that fills its emptyDir beyond the limit is evicted, and the disk is given back.
pub(crate) async fn eviction() {
    let world = World::new("evict").await;
    let spec = json!({
        "containers": [{"name": "c", "command": ["sh", "-c", "dd if=/dev/zero of=/v/x bs=65536 count=64 2>/dev/null; sleep 1000"], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
    });
    world.create("fills", spec).await;
    let mut evicted = None;
    for _ in 0..10 {
        let cache = world.context.cache::<Pod>();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while evicted.is_none() && tokio::time::Instant::now() < deadline {
            evicted = cache
                .get("default", "fills")
                .filter(|pod| phase(pod) == Some("Failed"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let pod = evicted.expect("evicted");
    let status = pod.status.as_ref().expect("status");
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    assert_eq!(
        status.message.as_deref(),
        Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ")
    );
    let uid = pod.metadata.uid.clone().expect("uid");
    let data = world.scratch.path().join("node");
    until("the volume is given back", || {
        !data.join(format!("pods/{uid}/volumes/v")).exists()
            && std::fs::read_dir(data.join("trash")).map_or(0, Iterator::count) == 0
    })
    .await;
    world.close().await;
}
