//! Pods from the API to the kernel and back.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kinglet_node::LogOptions;
use serde_json::json;

use crate::world::{World, is_ready, until};

fn status<'a>(pod: &'a Pod, name: &str) -> &'a ContainerStatus {
    let all = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref())
        .expect("statuses");
    all.iter().find(|one| one.name == name).expect("container")
}

fn has_statuses(pod: &Pod) -> bool {
    pod.status
        .as_ref()
        .is_some_and(|status| status.container_statuses.is_some())
}

fn waiting_reason(pod: &Pod, name: &str) -> Option<String> {
    has_statuses(pod)
        .then(|| {
            status(pod, name)
                .state
                .as_ref()?
                .waiting
                .as_ref()?
                .reason
                .clone()
        })
        .flatten()
}

fn queue_proxy(port: u16) -> serde_json::Value {
    let probe = json!({"tcpSocket": {"port": port, "host": "127.0.0.1"}, "successThreshold": 1})
        .to_string();
    json!({"name": "queue-proxy", "image": "test/queue:1", "env": [{"name": "SERVING_READINESS_PROBE", "value": probe}],
        "readinessProbe": {"httpGet": {"port": 8012, "path": "/"}}})
}

fn of(container: &str) -> LogOptions {
    LogOptions {
        container: Some(container.to_owned()),
        ..LogOptions::default()
    }
}

const SERVE: &str = "printf hi > /tmp/index.html; exec httpd -f -p 8080 -h /tmp";

pub(crate) async fn ready() {
    let world = World::new("ready").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut times = Vec::new();
    for number in 0..10 {
        let name = format!("hello-{number}");
        let before = Instant::now();
        let user = json!({"name": "user-container", "command": ["sh", "-c", SERVE], "ports": [{"containerPort": 8080, "name": "user-port"}],
            "lifecycle": {"preStop": {"httpGet": {"port": 8022, "path": "/wait-for-drain"}}}});
        world
            .create(&name, json!({"containers": [user, queue_proxy(8080)]}))
            .await;
        let pod = world.ready(&name).await;
        times.push(before.elapsed());
        assert_eq!(
            pod.status
                .as_ref()
                .and_then(|status| status.phase.as_deref()),
            Some("Running")
        );
        assert!(status(&pod, "queue-proxy").ready && status(&pod, "user-container").ready);
        if number == 0 {
            assert!(
                status(&pod, "user-container")
                    .image_id
                    .starts_with("sha256:")
            );
            let text = world.logs(&name, of("queue-proxy")).await;
            assert_eq!(text.lines().count(), 1);
        }
        world.delete(&name).await;
        world.gone(&name).await;
    }
    times.sort();
    eprintln!(
        "   pod created to Ready in the cache: median {:?}, slowest {:?}",
        times[5], times[9]
    );
    world.close().await;
}

pub(crate) async fn volumes() {
    let world = World::new("volumes").await;
    let post = |path: &'static str, body: serde_json::Value| {
        let context = world.context.clone();
        async move {
            context
                .call(http::Method::POST, path, Some(&body))
                .await
                .expect("create")
        }
    };
    post("/api/v1/namespaces/default/configmaps", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"colour": "red"}})).await;
    post("/api/v1/namespaces/default/secrets", json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"password": "hunter2"}})).await;
    let script = "echo env $COLOUR $PASSWORD $POD $FROM_IMAGE; cat /settings/colour; echo; cat /keys/p/w; echo; id -u; \
        touch /scratch/x && echo scratch; touch /settings/x 2>/dev/null || echo readonly; cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max; \
        test -e /etc/resolv.conf && echo resolv; hostname; echo mem > /shared/m; while true; do cat /settings/colour; echo; sleep 0.2; done";
    world
        .create(
            "vol",
            json!({
                "securityContext": {"runAsUser": 1000, "fsGroup": 2000},
                "containers": [{
                    "name": "c", "command": ["sh", "-c", script],
                    "resources": {"limits": {"memory": "64Mi"}},
                    "env": [
                        {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
                        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
                        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    ],
                    "volumeMounts": [
                        {"name": "settings", "mountPath": "/settings", "readOnly": true},
                        {"name": "keys", "mountPath": "/keys"},
                        {"name": "scratch", "mountPath": "/scratch"},
                        {"name": "shared", "mountPath": "/shared"},
                    ],
                }, {
                    "name": "other", "command": ["sh", "-c", "until test -e /shared/m; do sleep 0.05; done; cat /shared/m; sleep 1000"],
                    "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
                }],
                "volumes": [
                    {"name": "settings", "configMap": {"name": "settings"}},
                    {"name": "keys", "secret": {"secretName": "keys", "items": [{"key": "password", "path": "p/w"}]}},
                    {"name": "scratch", "emptyDir": {}},
                    {"name": "shared", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                ],
            }),
        )
        .await;
    world.ready("vol").await;
    let mut text = String::new();
    for _ in 0..200 {
        text = world.logs("vol", of("c")).await;
        if text.lines().count() > 10 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..9],
        [
            "env red hunter2 vol yes",
            "red",
            "hunter2",
            "1000",
            "scratch",
            "readonly",
            "67108864",
            "resolv",
            "vol"
        ],
        "{text}"
    );
    let patch = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"colour": "blue"}});
    world
        .context
        .call(
            http::Method::PUT,
            "/api/v1/namespaces/default/configmaps/settings",
            Some(&patch),
        )
        .await
        .expect("update");
    let mut changed = false;
    for _ in 0..400 {
        if world
            .logs("vol", of("c"))
            .await
            .lines()
            .any(|line| line == "blue")
        {
            changed = true;
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(changed, "a changed ConfigMap reaches the volume");
    assert_eq!(world.logs("vol", of("other")).await, "mem\n");
    world.close().await;
}

pub(crate) async fn init_and_end() {
    let world = World::new("init").await;
    let spec = json!({
        "restartPolicy": "Never",
        "initContainers": [{"name": "first", "image": "test/busybox:1", "command": ["sh", "-c", "echo done > /work/x"], "volumeMounts": [{"name": "work", "mountPath": "/work"}]}],
        "containers": [{"name": "main", "command": ["sh", "-c", "cat /work/x; echo bye > /dev/termination-log"], "volumeMounts": [{"name": "work", "mountPath": "/work"}]}],
        "volumes": [{"name": "work", "emptyDir": {}}],
    });
    world.create("job", spec).await;
    let pod = world
        .wait("job", "succeeded", |pod| {
            pod.status
                .as_ref()
                .and_then(|status| status.phase.as_deref())
                == Some("Succeeded")
        })
        .await;
    assert_eq!(world.logs("job", LogOptions::default()).await, "done\n");
    let ended = status(&pod, "main")
        .state
        .as_ref()
        .and_then(|state| state.terminated.clone())
        .expect("ended");
    assert_eq!(
        (
            ended.exit_code,
            ended.message.as_deref(),
            ended.reason.as_deref()
        ),
        (0, Some("bye\n"), Some("Completed"))
    );
    world.delete("job").await;
    world.gone("job").await;
    world.close().await;
}

pub(crate) async fn crash() {
    let world = World::new("crash").await;
    let container = json!({"name": "c", "command": ["sh", "-c", "echo alas; exit 7"], "terminationMessagePolicy": "FallbackToLogsOnError"});
    world
        .create("crash", json!({"containers": [container]}))
        .await;
    let pod = world
        .wait("crash", "in CrashLoopBackOff", |pod| {
            waiting_reason(pod, "c").as_deref() == Some("CrashLoopBackOff")
        })
        .await;
    let one = status(&pod, "c");
    let last = one
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.clone())
        .expect("last state");
    assert_eq!(
        (last.exit_code, last.message.as_deref(), one.restart_count),
        (7, Some("alas"), 1)
    );
    let previous = LogOptions {
        previous: true,
        ..LogOptions::default()
    };
    assert_eq!(world.logs("crash", previous).await, "alas\n");
    world
        .create(
            "nostart",
            json!({"containers": [{"name": "c", "command": ["/none"]}]}),
        )
        .await;
    let pod = world
        .wait("nostart", "in CrashLoopBackOff", |pod| {
            waiting_reason(pod, "c").as_deref() == Some("CrashLoopBackOff")
        })
        .await;
    let last = status(&pod, "c")
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.clone())
        .expect("last state");
    assert_eq!(
        (last.exit_code, last.reason.as_deref()),
        (128, Some("StartError"))
    );
    assert!(
        last.message
            .is_some_and(|message| message.contains("no such file"))
    );
    for name in ["crash", "nostart"] {
        world.delete(name).await;
        world.gone(name).await;
    }
    world.close().await;
}

pub(crate) async fn missing_image() {
    let world = World::new("image").await;
    world.create("none", json!({"containers": [{"name": "c", "image": "test/none:1", "imagePullPolicy": "Never"}, {"name": "d", "image": "Bad Name"}]})).await;
    let pod = world
        .wait("none", "held", |pod| {
            waiting_reason(pod, "c").as_deref() == Some("ErrImageNeverPull")
                && waiting_reason(pod, "d").as_deref() == Some("InvalidImageName")
        })
        .await;
    assert_eq!(
        pod.status
            .as_ref()
            .and_then(|status| status.phase.as_deref()),
        Some("Pending")
    );
    let error = world
        .node
        .logs("default", "none", of("c"))
        .err()
        .expect("no log");
    assert_eq!(
        error.to_string(),
        "container \"c\" in pod \"none\" is waiting to start: ErrImageNeverPull"
    );
    world.delete("none").await;
    world.gone("none").await;
    world.close().await;
}

pub(crate) async fn loopback() {
    let world = World::new("loopback").await;
    let user = json!({"name": "user-container", "command": ["sh", "-c", "printf hi > /tmp/index.html; exec httpd -f -p 127.0.0.1:8080 -h /tmp"]});
    world
        .create("inside", json!({"containers": [user, queue_proxy(8080)]}))
        .await;
    let pod = world.ready("inside").await;
    let address = pod
        .status
        .as_ref()
        .and_then(|status| status.pod_ip.clone())
        .expect("address");
    let mut answer = String::new();
    for _ in 0..100 {
        if let Ok(mut stream) = tokio::net::TcpStream::connect((address.as_str(), 8080)).await {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            stream
                .write_all(b"GET / HTTP/1.0\r\n\r\n")
                .await
                .expect("request");
            stream.read_to_string(&mut answer).await.expect("answer");
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(answer.ends_with("hi"), "{answer}");
    world.close().await;
}

pub(crate) async fn deletion() {
    let world = World::new("deletion").await;
    let user = json!({"name": "user-container", "command": ["sh", "-c", "trap 'echo asked; exit 0' TERM; echo up; while true; do sleep 0.05; done"],
        "lifecycle": {"preStop": {"httpGet": {"port": 8022, "path": "/wait-for-drain"}}}});
    let proxy = json!({"name": "queue-proxy", "image": "test/queue:1"});
    world
        .create(
            "polite",
            json!({"terminationGracePeriodSeconds": 300, "containers": [user, proxy]}),
        )
        .await;
    let pod = world.ready("polite").await;
    let address: std::net::IpAddr = pod
        .status
        .as_ref()
        .and_then(|status| status.pod_ip.clone())
        .expect("address")
        .parse()
        .expect("address");
    let mut followed = world
        .node
        .logs(
            "default",
            "polite",
            LogOptions {
                follow: true,
                ..of("user-container")
            },
        )
        .expect("logs");
    let first = futures_util::StreamExt::next(&mut followed)
        .await
        .expect("more")
        .expect("bytes");
    assert_eq!(first, "up\n");
    let before = Instant::now();
    world.delete("polite").await;
    world.gone("polite").await;
    assert!(
        before.elapsed() < Duration::from_secs(5),
        "SIGTERM was heard: {:?}",
        before.elapsed()
    );
    assert_eq!(*world.drained.lock(), vec![address]);
    let said: Vec<_> = futures_util::StreamExt::collect(followed).await;
    assert_eq!(
        said.into_iter()
            .flatten()
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect::<String>(),
        "asked\n"
    );
    // The first process of a namespace that ignores nothing on purpose does not hold the pod up for its whole grace.
    world.create("deaf", json!({"terminationGracePeriodSeconds": 300, "containers": [{"name": "c", "command": ["sleep", "1000"]}]})).await;
    world.ready("deaf").await;
    let before = Instant::now();
    world.delete("deaf").await;
    world.gone("deaf").await;
    assert!(
        before.elapsed() < Duration::from_secs(5),
        "{:?}",
        before.elapsed()
    );
    until("no pod is left", || world.node.pod_count() == 0).await;
    assert!(
        std::fs::read_dir(world.scratch.path().join("node/pods")).map_or(0, Iterator::count) == 0,
        "no files are left"
    );
    world.close().await;
}

pub(crate) async fn liveness() {
    let world = World::new("liveness").await;
    let container = json!({"name": "c", "command": ["sh", "-c", "touch /tmp/alive; sleep 1.5; [ -e /kept ] || true; busybox rm /tmp/alive; sleep 1000"],
        "livenessProbe": {"exec": {"command": ["test", "-e", "/tmp/alive"]}, "initialDelaySeconds": 1, "periodSeconds": 1, "failureThreshold": 1}});
    world
        .create("sick", json!({"containers": [container]}))
        .await;
    let pod = world
        .wait("sick", "restarted", |pod| {
            has_statuses(pod) && status(pod, "c").restart_count >= 1 && status(pod, "c").ready
        })
        .await;
    assert!(is_ready(&pod));
    world.close().await;
}

pub(crate) async fn earlier_life() {
    let mut world = World::new("earlier").await;
    world
        .create("bare", json!({"containers": [{"name": "c"}]}))
        .await;
    let mut owned = json!({"metadata": {"name": "owned", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "x", "controller": true}]},
        "spec": {"nodeName": "test", "automountServiceAccountToken": false, "containers": [{"name": "c", "image": "test/busybox:1"}]}});
    owned["apiVersion"] = json!("v1");
    owned["kind"] = json!("Pod");
    world
        .context
        .call(
            http::Method::POST,
            "/api/v1/namespaces/default/pods",
            Some(&owned),
        )
        .await
        .expect("create");
    world.ready("bare").await;
    world.ready("owned").await;
    world.restart().await;
    world.gone("owned").await;
    let pod = world
        .wait("bare", "restarted", |pod| {
            is_ready(pod) && status(pod, "c").restart_count == 1
        })
        .await;
    assert_eq!(status(&pod, "c").restart_count, 1);
    world.close().await;
}

pub(crate) async fn names() {
    let world = World::new("names").await;
    for service in [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hello"},
            "spec": {"type": "ExternalName", "externalName": "gateway-internal.kinglet-system.svc.cluster.local"}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "addressed"}, "spec": {"ports": [{"port": 443}]}}),
    ] {
        world
            .context
            .call(
                http::Method::POST,
                "/api/v1/namespaces/default/services",
                Some(&service),
            )
            .await
            .expect("create");
    }
    let cache = world.context.cache::<k8s_openapi::api::core::v1::Service>();
    until("the Services are known", || {
        cache.get("default", "hello").is_some() && cache.get("default", "addressed").is_some()
    })
    .await;
    let address = cache
        .get("default", "addressed")
        .and_then(|service| service.spec.as_ref()?.cluster_ip.clone())
        .expect("an address of the Service range");
    let gateway = world.node.gateway_ip().to_string();
    let script = "nslookup hello.default.svc.cluster.local; nslookup addressed.default.svc.cluster.local; nslookup none.default.svc.cluster.local 2>&1; echo end; sleep 1000";
    world
        .create(
            "asks",
            json!({"containers": [{"name": "c", "command": ["sh", "-c", script]}]}),
        )
        .await;
    world.ready("asks").await;
    let mut text = String::new();
    for _ in 0..1000 {
        text = world.logs("asks", LogOptions::default()).await;
        if text.contains("end") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for expected in [gateway, address] {
        assert!(text.contains(&format!("Address: {expected}\n")), "{text}");
    }
    assert!(text.contains("NXDOMAIN"), "{text}");
    world.close().await;
}
