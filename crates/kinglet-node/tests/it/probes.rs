//! Probes of real containers.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::world::{World, is_ready, processes_with, ready_message, until};

const SERVE: &str = "printf hi > /tmp/index.html; exec httpd -f -p 8080 -h /tmp";

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).sum()
}

/// Events of a reason about one pod, as their messages.
pub(crate) async fn events(world: &World, pod: &str, reason: &str) -> Vec<String> {
    let all = event_objects(world, pod, reason).await;
    all.iter().map(message_of).collect()
}

/// How often something was told about a pod.
async fn count_of(world: &World, pod: &str, reason: &str, part: &str) -> u64 {
    let all = event_objects(world, pod, reason).await;
    let told = all.iter().filter(|event| message_of(event).contains(part));
    told.filter_map(|event| event["count"].as_u64()).sum()
}

fn message_of(event: &Value) -> String {
    event["message"].as_str().unwrap_or_default().to_owned()
}

async fn event_objects(world: &World, pod: &str, reason: &str) -> Vec<Value> {
    let list = world
        .context
        .call(http::Method::GET, "/api/v1/namespaces/default/events", None)
        .await
        .expect("events");
    let list: Value = serde_json::from_slice(&list).expect("list");
    let mut all = list["items"].as_array().cloned().unwrap_or_default();
    all.retain(|event| event["involvedObject"]["name"] == pod && event["reason"] == reason);
    all
}

/// Waits for an Event whose message holds `part`.
pub(crate) async fn event(world: &World, pod: &str, reason: &str, part: &str) -> String {
    let give_up = Instant::now() + Duration::from_secs(20);
    loop {
        let all = events(world, pod, reason).await;
        if let Some(found) = all.iter().find(|message| message.contains(part)) {
            return found.clone();
        }
        assert!(
            Instant::now() < give_up,
            "no Event {reason} with {part:?}: {all:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn http() {
    let world = World::new("http").await;
    let get = |more: Value| {
        let mut probe =
            json!({"httpGet": {"path": "/index.html?x=1", "port": 8080}, "periodSeconds": 1});
        for (key, value) in more.as_object().expect("object") {
            probe[key] = value.clone();
        }
        probe
    };
    // Answers without a length, before it reads, and closes: `nc` in a loop.
    let blurts = "while true; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\nhello' | nc -l -p 8081; done";
    world
        .create(
            "good",
            json!({"containers": [
                {"name": "a", "command": ["sh", "-c", SERVE], "ports": [{"name": "web", "containerPort": 8080}],
                 "startupProbe": get(json!({})), "livenessProbe": get(json!({})),
                 "readinessProbe": get(json!({"httpGet": {"path": "/", "port": "web", "httpHeaders": [{"name": "Host", "value": "x.example"}]}}))},
                {"name": "b", "command": ["sh", "-c", blurts], "readinessProbe": {"httpGet": {"port": 8081}, "periodSeconds": 1}},
                {"name": "c", "command": ["sh", "-c", "touch /tmp/x; sleep 1000"], "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/x"]}, "periodSeconds": 1}},
            ]}),
        )
        .await;
    world.ready("good").await;
    assert!(events(&world, "good", "Unhealthy").await.is_empty());
    // Every container's readiness counts.
    world
        .create(
            "half",
            json!({"containers": [
                {"name": "a", "command": ["sh", "-c", SERVE], "readinessProbe": get(json!({}))},
                {"name": "b", "command": ["sleep", "1000"], "readinessProbe": {"httpGet": {"path": "/none", "port": 8080}, "periodSeconds": 1}},
            ]}),
        )
        .await;
    event(
        &world,
        "half",
        "Unhealthy",
        "HTTP probe failed with statuscode: 404",
    )
    .await;
    let half = world
        .wait("half", "says what its probe heard", |pod| {
            ready_message(pod).contains("statuscode: 404")
        })
        .await;
    assert!(!is_ready(&half) && ready_message(&half).contains("[b]"));
    world.close().await;
}

pub(crate) async fn startup_once() {
    let world = World::new("startup").await;
    let late = format!("sleep 1.5; {SERVE}");
    world
        .create(
            "once",
            json!({"containers": [{"name": "c", "command": ["sh", "-c", late],
                "startupProbe": {"tcpSocket": {"port": 8080}, "timeoutSeconds": 240, "periodSeconds": 240, "failureThreshold": 1},
                "livenessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1}}]}),
        )
        .await;
    let pod = world.ready("once").await;
    assert_eq!(restarts(&pod), 0);
    assert!(events(&world, "once", "Killing").await.is_empty());
    assert!(events(&world, "once", "Unhealthy").await.is_empty());
    world.close().await;
}

pub(crate) async fn exec_timeout() {
    let world = World::new("exec").await;
    // The probe hangs with children of its own, under another user and in a session of their own.
    let hang = "sleep 98701 & (sleep 98701 & sleep 98701) & sleep 98701";
    let probe =
        json!({"exec": {"command": ["sh", "-c", hang]}, "periodSeconds": 1, "timeoutSeconds": 1});
    world
        .create(
            "hangs",
            json!({"containers": [
                {"name": "root", "command": ["sleep", "1000000"], "readinessProbe": probe, "livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1}},
                {"name": "user", "command": ["sleep", "1000000"], "securityContext": {"runAsUser": 1000}, "readinessProbe": probe},
            ]}),
        )
        .await;
    // Repeated Events are counted in one object, for each of the two containers.
    let give_up = Instant::now() + Duration::from_secs(40);
    while count_of(&world, "hangs", "Unhealthy", "timed out after 1s").await < 2 * 3 {
        assert!(Instant::now() < give_up, "six probes that timed out");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Two probes may be under way; what earlier ones started is gone.
    until("what timed-out probes started is gone", || {
        processes_with("98701") <= 2 * 5
    })
    .await;
    let before = Instant::now();
    world.delete("hangs").await;
    world.gone("hangs").await;
    assert!(
        before.elapsed() < Duration::from_secs(10),
        "{:?}",
        before.elapsed()
    );
    until("nothing of the probes runs", || {
        processes_with("98701") == 0
    })
    .await;
    // A hook that hangs is bounded by the grace period.
    world
        .create(
            "hook",
            json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "command": ["sleep", "1000000"],
                "lifecycle": {"preStop": {"exec": {"command": ["sleep", "98702"]}}}}]}),
        )
        .await;
    world.ready("hook").await;
    let before = Instant::now();
    world.delete("hook").await;
    world.gone("hook").await;
    assert!(
        before.elapsed() < Duration::from_secs(15),
        "{:?}",
        before.elapsed()
    );
    until("the hook is gone", || processes_with("98702") == 0).await;
    world.close().await;
}

/// Connections that a listener of the host sees.
async fn watched(address: IpAddr) -> (u16, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind((address, 0)).await.expect("listener");
    let port = listener.local_addr().expect("address").port();
    let seen = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
    let count = std::sync::Arc::clone(&seen);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    });
    (port, seen)
}

pub(crate) async fn to_host() {
    let world = World::new("tohost").await;
    let gateway = IpAddr::V4(world.node.gateway_ip());
    let mut listeners = Vec::new();
    for (number, (listen, host)) in [
        (IpAddr::V4(Ipv4Addr::LOCALHOST), "127.0.0.1".to_owned()),
        (IpAddr::V4(Ipv4Addr::LOCALHOST), "127.1".to_owned()),
        (IpAddr::V4(Ipv4Addr::UNSPECIFIED), "localhost".to_owned()),
        (IpAddr::V4(Ipv4Addr::UNSPECIFIED), "0.0.0.0".to_owned()),
        (
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            "::ffff:127.0.0.1".to_owned(),
        ),
        (IpAddr::V4(Ipv4Addr::UNSPECIFIED), "2130706433".to_owned()),
        (gateway, gateway.to_string()),
    ]
    .into_iter()
    .enumerate()
    {
        let (port, seen) = watched(listen).await;
        let name = format!("host-{number}");
        world
            .create(
                &name,
                json!({"containers": [{"name": "c", "command": ["sleep", "1000000"],
                    "readinessProbe": {"httpGet": {"host": host, "port": port}, "periodSeconds": 1},
                    "lifecycle": {"preStop": {"httpGet": {"host": host, "port": port, "path": "/hook"}}}}]}),
            )
            .await;
        listeners.push((name, host, seen));
    }
    let (port, seen) = watched(IpAddr::V4(Ipv4Addr::LOCALHOST)).await;
    world
        .create(
            "hook",
            json!({"restartPolicy": "Never", "containers": [{"name": "c", "command": ["sleep", "1000000"],
                "lifecycle": {"postStart": {"httpGet": {"host": "127.0.0.1", "port": port}}}}]}),
        )
        .await;
    event(
        &world,
        "hook",
        "FailedPostStartHook",
        "this machine's loopback",
    )
    .await;
    for (name, host, seen) in &listeners {
        let told = event(&world, name, "Unhealthy", "not reached on behalf of a Pod").await;
        world
            .wait(name, "says why", |pod| {
                ready_message(pod).contains("not reached on behalf")
            })
            .await;
        world.delete(name).await;
        world.gone(name).await;
        assert_eq!(
            seen.load(std::sync::atomic::Ordering::SeqCst),
            0,
            "{host}: {told}"
        );
    }
    assert_eq!(seen.load(std::sync::atomic::Ordering::SeqCst), 0);
    // Another pod is reached by its address.
    world
        .create(
            "web",
            json!({"containers": [{"name": "c", "command": ["sh", "-c", SERVE]}]}),
        )
        .await;
    let address = world
        .ready("web")
        .await
        .status
        .as_ref()
        .and_then(|status| status.pod_ip.clone());
    world
        .create(
            "neighbour",
            json!({"containers": [{"name": "c", "command": ["sleep", "1000000"],
                "readinessProbe": {"httpGet": {"host": address, "port": 8080}, "periodSeconds": 1}}]}),
        )
        .await;
    world.ready("neighbour").await;
    world.close().await;
}

pub(crate) async fn liveness() {
    let world = World::new("alive").await;
    let sick = "touch /tmp/ok; printf hi > /tmp/index.html; httpd -f -p 8080 -h /tmp & sleep 2; busybox rm /tmp/index.html; wait";
    world
        .create(
            "sick",
            json!({"containers": [{"name": "c", "command": ["sh", "-c", sick],
                "livenessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "failureThreshold": 2, "terminationGracePeriodSeconds": 1}}]}),
        )
        .await;
    event(
        &world,
        "sick",
        "Unhealthy",
        "Liveness probe failed: HTTP probe failed with statuscode: 404",
    )
    .await;
    event(
        &world,
        "sick",
        "Killing",
        "Container c failed liveness probe, will be restarted",
    )
    .await;
    let pod = world
        .wait("sick", "restarted", |pod| {
            restarts(pod) >= 1 && is_ready(pod)
        })
        .await;
    let last = pod
        .status
        .as_ref()
        .and_then(|status| {
            status
                .container_statuses
                .as_ref()?
                .first()?
                .last_state
                .clone()
        })
        .and_then(|state| state.terminated)
        .expect("last state");
    assert_eq!(last.exit_code, 137, "{last:?}");
    world.close().await;
}

/// A file tree of the host that a container sees at the same place.
fn of_host(paths: &[&str]) -> (Vec<Value>, Vec<Value>) {
    let named = paths.iter().enumerate();
    let volumes = named
        .clone()
        .map(|(number, path)| json!({"name": format!("h{number}"), "hostPath": {"path": path}}))
        .collect();
    let mounts = named
        .map(|(number, path)| json!({"name": format!("h{number}"), "mountPath": path, "readOnly": true}))
        .collect();
    (volumes, mounts)
}

/// HTTPS and gRPC as Go serves them (`tests/peers/probed`), and HTTPS as nginx does.
pub(crate) async fn real_servers() {
    go_server().await;
    nginx().await;
}

/// One pod for each probe, so that each has readiness of its own; the Events about one pod have a bound, as a kubelet's do.
async fn probed(
    world: &World,
    volumes: &[Value],
    mounts: &[Value],
    server: &Value,
    rows: impl Iterator<Item = (&str, Value)>,
) {
    for (row, mut probe) in rows {
        probe["periodSeconds"] = json!(1);
        // Generous, for a machine that is busy: what is tested is the answer.
        probe["timeoutSeconds"] = json!(10);
        let containers = json!([
            {"name": "server", "command": server, "volumeMounts": mounts},
            {"name": "c", "command": ["sleep", "1000000"], "readinessProbe": probe},
        ]);
        world
            .create(row, json!({"containers": containers, "volumes": volumes}))
            .await;
    }
}

fn passes(pod: &Pod) -> bool {
    let statuses = pod.status.iter();
    let mut statuses = statuses.flat_map(|status| status.container_statuses.iter().flatten());
    statuses.any(|status| status.name == "c" && status.ready)
}

/// Volumes of the host need the administrator's word.
async fn allow_host_paths(world: &World) {
    let label =
        json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}});
    world
        .context
        .merge_patch("/api/v1/namespaces/default", &label)
        .await
        .expect("label");
}

async fn go_server() {
    let Some(program) = std::env::var_os("KINGLET_PEERS")
        .map(|folder| std::path::Path::new(&folder).join("probed"))
        .filter(|program| program.is_file())
    else {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI runs every test: cargo xtask peers"
        );
        eprintln!("not run: KINGLET_PEERS does not name a folder with probed (cargo xtask peers)");
        return;
    };
    let world = World::new("go").await;
    allow_host_paths(&world).await;
    let folder = program.parent().expect("folder").display().to_string();
    let (volumes, mounts) = of_host(&[&folder]);
    let get = |path: &str, port: u16, scheme: &str| json!({"httpGet": {"path": path, "port": port, "scheme": scheme}});
    let grpc = |port: u16, service: &str| json!({"grpc": {"port": port, "service": service}});
    let good = [
        ("https", get("/ok", 8443, "HTTPS")),
        ("https-12", get("/ok", 8444, "HTTPS")),
        ("same", get("/same", 8080, "HTTP")),
        ("same-https", get("/same", 8443, "HTTPS")),
        ("other", get("/other", 8080, "HTTP")),
        ("grpc", json!({"grpc": {"port": 9000}})),
        ("grpc-service", grpc(9000, "ready")),
        ("tcp", json!({"tcpSocket": {"port": 9000}})),
    ];
    let bad = [
        (
            "same-bad",
            get("/same-bad", 8080, "HTTP"),
            "HTTP probe failed with statuscode: 404",
        ),
        (
            "loop",
            get("/loop", 8080, "HTTP"),
            "stopped after 10 redirects",
        ),
        (
            "plain",
            get("/ok", 8443, "HTTP"),
            "HTTP probe failed with statuscode: 400",
        ),
        (
            "grpc-sick",
            grpc(9000, "sick"),
            "service unhealthy (responded with \"NOT_SERVING\")",
        ),
        (
            "grpc-unknown",
            grpc(9000, "nobody"),
            "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service",
        ),
        (
            "grpc-none",
            grpc(9001, ""),
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown service grpc.health.v1.Health",
        ),
        ("grpc-http", grpc(8080, ""), "failed to connect service"),
    ];
    let server = json!([program.display().to_string()]);
    let sick = bad.iter().map(|(name, probe, _)| (*name, probe.clone()));
    let rows = good.iter().cloned().chain(sick);
    probed(&world, &volumes, &mounts, &server, rows).await;
    for (name, _) in &good {
        world.wait(name, "its probe has passed", passes).await;
    }
    for (name, _, words) in &bad {
        event(&world, name, "Unhealthy", words).await;
        let pod = world.wait(name, "is there", |_| true).await;
        assert!(!passes(&pod), "{name}");
    }
    event(
        &world,
        "other",
        "ProbeWarning",
        "Readiness probe warning: Probe terminated redirects",
    )
    .await;
    world.close().await;
}

async fn nginx() {
    const NGINX: &str = "/usr/sbin/nginx";
    let openssl = std::process::Command::new("openssl")
        .arg("version")
        .output();
    if !std::path::Path::new(NGINX).exists() || openssl.is_err() {
        eprintln!(
            "not run: the HTTPS probe of nginx needs nginx and openssl (apt-get install nginx-light openssl)"
        );
        return;
    }
    let world = World::new("nginx").await;
    allow_host_paths(&world).await;
    let folder = world.scratch.path().join("conf");
    std::fs::create_dir_all(&folder).expect("folder");
    let conf = "error_log stderr; pid /tmp/nginx.pid; daemon off; master_process off; user root;
        events {}
        http { access_log off; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
          server { listen 8443 ssl; ssl_certificate /conf/cert.pem; ssl_certificate_key /conf/key.pem; ssl_protocols TLSv1.2; location / { return 200 ok; } }
          server { listen 8444 ssl http2; ssl_certificate /conf/cert.pem; ssl_certificate_key /conf/key.pem; location / { return 301 /end; } location /end { return 204; } } }";
    std::fs::write(folder.join("nginx.conf"), conf).expect("conf");
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=nobody",
            "-days",
            "1",
        ])
        .arg("-keyout")
        .arg(folder.join("key.pem"))
        .arg("-out")
        .arg(folder.join("cert.pem"))
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{made:?}");
    let (mut volumes, mut mounts) = of_host(&["/usr", "/etc/ssl"]);
    // Debian's /lib and /lib64 are links into /usr.
    for (name, host, inside) in [
        ("lib", "/usr/lib", "/lib"),
        ("lib64", "/usr/lib64", "/lib64"),
        ("conf", &*folder.display().to_string(), "/conf"),
    ] {
        volumes.push(json!({"name": name, "hostPath": {"path": host}}));
        mounts.push(json!({"name": name, "mountPath": inside, "readOnly": true}));
    }
    let get = |port: u16| json!({"httpGet": {"path": "/", "port": port, "scheme": "HTTPS"}});
    let rows = [("tls-12", get(8443)), ("redirect", get(8444))];
    let server = json!([
        "sh",
        "-c",
        // nginx looks its user up.
        format!(
            "mkdir -p /tmp /var/log/nginx /var/lib/nginx; echo root:x:0:0::/:/bin/sh > /etc/passwd; echo root:x:0: > /etc/group; exec {NGINX} -c /conf/nginx.conf"
        )
    ]);
    probed(&world, &volumes, &mounts, &server, rows.iter().cloned()).await;
    for (name, _) in &rows {
        world.ready(name).await;
    }
    world.close().await;
}

/// successThreshold, a startup probe before the others, what an exec probe says, and the grace that a probe gives.
pub(crate) async fn thresholds() {
    let world = World::new("thresholds").await;
    let count = "n=$(cat /tmp/n 2>/dev/null || echo 0); n=$((n+1)); echo $n > /tmp/n; echo said $n; echo errs >&2; test $n -ge 3";
    let gated = "test -e /tmp/started || { echo asked too early >> /tmp/early; exit 1; }";
    world
        .create(
            "counts",
            json!({"containers": [
                {"name": "c", "command": ["sleep", "1000000"],
                 "startupProbe": {"exec": {"command": ["sh", "-c", "sleep 1; touch /tmp/started"]}, "periodSeconds": 1, "timeoutSeconds": 20},
                 "livenessProbe": {"exec": {"command": ["sh", "-c", gated]}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 20},
                 "readinessProbe": {"exec": {"command": ["sh", "-c", count]}, "periodSeconds": 1, "successThreshold": 3, "failureThreshold": 1, "timeoutSeconds": 20}},
            ]}),
        )
        .await;
    let told = event(
        &world,
        "counts",
        "Unhealthy",
        "Readiness probe failed: said 1",
    )
    .await;
    assert!(told.contains("errs"), "{told}");
    let pod = world.ready("counts").await;
    assert_eq!(restarts(&pod), 0);
    let read = |file: &'static str| {
        let node = world.node.clone();
        async move {
            let command = ["cat", file].map(str::to_owned).to_vec();
            let session = node
                .exec("default", "counts", "c", command, false, false)
                .await
                .expect("exec");
            let mut text = String::new();
            use tokio::io::AsyncReadExt as _;
            let mut stdout = session.stdout.expect("stdout");
            let (_, _) = tokio::join!(session.exit, stdout.read_to_string(&mut text));
            text
        }
    };
    let asked: u32 = read("/tmp/n").await.trim().parse().expect("number");
    assert!(
        asked >= 5,
        "ready after three in a row, not after {asked} attempts"
    );
    assert_eq!(
        read("/tmp/early").await,
        "",
        "the startup probe gates the others"
    );
    world.close().await;
}
