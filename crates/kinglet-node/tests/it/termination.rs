//! How pods go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kinglet_node::LogOptions;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::probes::event;
use crate::world::{World, until};

const SERVE: &str = "printf hi > /tmp/index.html; exec httpd -f -p 8080 -h /tmp";

pub(crate) async fn hooks() {
    let world = World::new("hooks").await;
    // 404 to both, and no container is killed for it.
    world
        .create(
            "http",
            json!({"containers": [{"name": "c", "command": ["sh", "-c", SERVE],
                "lifecycle": {"postStart": {"httpGet": {"path": "/none", "port": 8080}}, "preStop": {"httpGet": {"path": "/none", "port": 8080}}}}]}),
        )
        .await;
    world.ready("http").await;
    world.delete("http").await;
    world.gone("http").await;
    for reason in ["FailedPostStartHook", "FailedPreStopHook"] {
        let told = crate::probes::events(&world, "http", reason).await;
        assert!(told.is_empty(), "{told:?}");
    }
    // The hook comes before SIGTERM, with the container still running.
    let script = "trap 'echo term; exit 0' TERM; echo up; while true; do sleep 0.05; done";
    world
        .create(
            "order",
            json!({"containers": [
                {"name": "c", "command": ["sh", "-c", script], "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "sleep 0.5; echo hook > /proc/1/fd/1"]}}}},
                {"name": "s", "command": ["sleep", "1000000"], "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}},
            ]}),
        )
        .await;
    world.ready("order").await;
    let mut followed = world
        .node
        .logs(
            "default",
            "order",
            LogOptions {
                container: Some("c".to_owned()),
                follow: true,
                ..LogOptions::default()
            },
        )
        .expect("logs");
    let first = futures_util::StreamExt::next(&mut followed)
        .await
        .expect("more")
        .expect("bytes");
    assert_eq!(first, "up\n");
    let before = Instant::now();
    world.delete("order").await;
    let rest: Vec<_> = futures_util::StreamExt::collect(followed).await;
    let rest: String = rest
        .into_iter()
        .flatten()
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect();
    assert_eq!(rest, "hook\nterm\n");
    world.gone("order").await;
    assert!(
        before.elapsed() >= Duration::from_secs(1),
        "the sleep of the other container was waited for"
    );
    world.close().await;
}

pub(crate) async fn drain() {
    let world = World::new("drain").await;
    let (release, held) = tokio::sync::watch::channel(false);
    world.hold_drain(held);
    let user = json!({"name": "user-container", "command": ["sh", "-c", "trap 'echo asked; exit 0' TERM; echo up; while true; do sleep 0.05; done"],
        "lifecycle": {"preStop": {"httpGet": {"port": 8022, "path": "/wait-for-drain"}}}});
    world
        .create(
            "busy",
            json!({"terminationGracePeriodSeconds": 300, "containers": [user, {"name": "queue-proxy", "image": "test/queue:1"}]}),
        )
        .await;
    world.ready("busy").await;
    world.delete("busy").await;
    let drained = Arc::clone(&world.drained);
    until("the drain is asked for", || !drained.lock().is_empty()).await;
    world
        .wait("busy", "not ready while it drains", |pod| {
            !crate::world::is_ready(pod)
        })
        .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let options = || LogOptions {
        container: Some("user-container".to_owned()),
        ..LogOptions::default()
    };
    assert_eq!(
        world.logs("busy", options()).await,
        "up\n",
        "no SIGTERM while requests are in flight"
    );
    release.send_replace(true);
    world.gone("busy").await;
    world.close().await;
}

pub(crate) async fn while_starting() {
    let world = World::new("starting").await;
    // A registry that accepts and never answers.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("listener");
    let port = listener.local_addr().expect("address").port();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    world
        .create(
            "pulls",
            json!({"containers": [{"name": "c", "image": format!("127.0.0.1:{port}/none:1")}]}),
        )
        .await;
    event(&world, "pulls", "Pulling", "none:1").await;
    world
        .create("inits", json!({"initContainers": [{"name": "i", "image": "test/busybox:1", "command": ["sleep", "1000000"]}], "containers": [{"name": "c"}]}))
        .await;
    event(&world, "inits", "Started", "Started container i").await;
    for name in ["pulls", "inits"] {
        let before = Instant::now();
        world.delete(name).await;
        world.gone(name).await;
        assert!(
            before.elapsed() < Duration::from_secs(4),
            "{name}: {:?}",
            before.elapsed()
        );
    }
    // Deleted at the very moment it is created: nothing may be left, however far it got.
    for number in 0..10 {
        let name = format!("brief-{number}");
        world
            .create(&name, json!({"containers": [{"name": "c"}]}))
            .await;
        tokio::time::sleep(Duration::from_millis(3 * number)).await;
        world.delete(&name).await;
    }
    for number in 0..10 {
        world.gone(&format!("brief-{number}")).await;
    }
    until("no pod is left", || world.node.pod_count() == 0).await;
    world.close().await;
}

pub(crate) async fn deadline_finalizer_and_force() {
    let world = World::new("deadline").await;
    world
        .create("late", json!({"activeDeadlineSeconds": 1, "containers": [{"name": "c", "command": ["sleep", "1000000"]}]}))
        .await;
    let pod = world
        .wait("late", "failed", |pod| {
            pod.status
                .as_ref()
                .and_then(|status| status.phase.as_deref())
                == Some("Failed")
        })
        .await;
    let status = pod.status.as_ref().expect("status");
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
    assert_eq!(
        status.message.as_deref(),
        Some("Pod was active on the node longer than the specified deadline")
    );
    event(&world, "late", "DeadlineExceeded", "longer than").await;
    world.delete("late").await;
    world.gone("late").await;

    world
        .create("kept", json!({"containers": [{"name": "c"}]}))
        .await;
    world.ready("kept").await;
    let finalizers =
        |list: serde_json::Value| Patch::Merge(json!({"metadata": {"finalizers": list}}));
    world
        .pods
        .patch(
            "kept",
            &PatchParams::default(),
            &finalizers(json!(["example.com/wait"])),
        )
        .await
        .expect("patch");
    world.delete("kept").await;
    until("its container has ended", || world.node.pod_count() == 0).await;
    let kept = world.pods.get("kept").await.expect("still there");
    let phase = kept.status.and_then(|status| status.phase);
    assert!(
        matches!(phase.as_deref(), Some("Failed" | "Succeeded")),
        "{phase:?}"
    );
    world
        .pods
        .patch("kept", &PatchParams::default(), &finalizers(json!([])))
        .await
        .expect("patch");
    world.gone("kept").await;

    let stubborn = "trap '' TERM; echo up; while true; do sleep 0.1; done";
    world
        .create("stubborn", json!({"terminationGracePeriodSeconds": i64::MAX, "containers": [{"name": "c", "command": ["sh", "-c", stubborn]}]}))
        .await;
    world.ready("stubborn").await;
    let give_up = Instant::now() + Duration::from_secs(20);
    while world.logs("stubborn", LogOptions::default()).await != "up\n" && Instant::now() < give_up
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.delete("stubborn").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(world.pods.get_opt("stubborn").await.expect("get").is_some());
    let force = DeleteParams {
        grace_period_seconds: Some(0),
        ..DeleteParams::default()
    };
    world.pods.delete("stubborn", &force).await.expect("force");
    world.gone("stubborn").await;
    until("its container has ended", || world.node.pod_count() == 0).await;
    world.close().await;
}
