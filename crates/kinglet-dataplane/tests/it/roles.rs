//! Gateway, activator and queue-proxy each alone: who answers what, and what the next one sees (spec/cluster.md 3.6).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use kinglet_dataplane::queue::{QueueConfig, QueueProxy};
use kinglet_dataplane::{Health, Options, Role};
use kinglet_decide::feed::{Key, Report, ServiceBackend, Source, Stat, Update};
use kinglet_decide::wire;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::world::*;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(crate) fn role(role: Role) -> Options {
    Options {
        role,
        unknown_backend_wait: match role {
            Role::Gateway => Duration::ZERO,
            _ => Options::default().unknown_backend_wait,
        },
        ..Options::default()
    }
}

/// The environment of a queue-proxy whose user container listens on `port`.
fn environment(port: u16) -> BTreeMap<&'static str, String> {
    let port = port.to_string();
    [
        ("SERVING_NAMESPACE", "ns"),
        ("SERVING_SERVICE", "one"),
        ("SERVING_CONFIGURATION", "one"),
        ("SERVING_REVISION", "one"),
        ("QUEUE_SERVING_PORT", "8012"),
        ("QUEUE_SERVING_TLS_PORT", "8112"),
        ("CONTAINER_CONCURRENCY", "0"),
        ("REVISION_TIMEOUT_SECONDS", "30"),
        ("SERVING_POD", "pod"),
        ("SERVING_POD_IP", "127.0.0.1"),
        ("SERVING_LOGGING_CONFIG", ""),
        ("SERVING_LOGGING_LEVEL", ""),
        ("USER_PORT", &port),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}

pub(crate) async fn queue_with(
    port: u16,
    change: impl FnOnce(&mut BTreeMap<&'static str, String>),
) -> (World, QueueProxy) {
    let mut variables = environment(port);
    change(&mut variables);
    let config = QueueConfig::from_environment(|name| variables.get(name).cloned()).unwrap();
    let mut world = World::with(role(Role::Queue)).await;
    let quiet = Duration::from_millis(300);
    let proxy = QueueProxy::new(
        world.handle.clone(),
        config,
        LOCAL,
        &world.updates.clone(),
        quiet,
    )
    .await;
    world.settle().await;
    (world, proxy)
}

async fn queue(port: u16) -> (World, QueueProxy) {
    queue_with(port, |_| {}).await
}

/// An activator with Revision `one` behind it.
async fn activator(address: std::net::SocketAddr) -> World {
    let mut world = World::with(role(Role::Activator)).await;
    world.revision(backend("one", &[address])).await;
    world.settle().await;
    world
}

/// A gateway with Service `one` behind it, on host `one.test`.
async fn gateway(address: std::net::SocketAddr) -> World {
    let mut world = World::with(role(Role::Gateway)).await;
    let service = ServiceBackend {
        ports: vec![(80, vec![address])],
        ..ServiceBackend::default()
    };
    world
        .updates
        .send(Update::Service(
            Key::new("ns", "one"),
            Some(Arc::new(service)),
        ))
        .await
        .unwrap();
    world
        .route(vec![rule("one.test", vec![to(&[(100, "one")])])])
        .await;
    world
}

pub(crate) async fn ask(address: std::net::SocketAddr, headers: &[(&str, &str)]) -> Got {
    let mut request = Request::get("/path?a=b");
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "one.test");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(empty()).unwrap();
    collect(H1::to(address).await.send(request).await).await
}

/// What a component does with a request.
enum Does {
    Answers(u16, &'static str),
    /// The next one sees these lines, and none that begins like the others.
    Forwards(&'static [&'static str], &'static [&'static str]),
}

use Does::{Answers, Forwards};

async fn table(address: std::net::SocketAddr, rows: &[(&[(&str, &str)], Does)]) {
    for (headers, does) in rows {
        let got = ask(address, headers).await;
        match does {
            Answers(status, text) => {
                assert_eq!(got.status.as_u16(), *status, "{headers:?}: {}", got.body);
                assert_eq!(got.body.trim_end(), *text, "{headers:?}");
            }
            Forwards(lines, without) => {
                assert_eq!(got.status, StatusCode::OK, "{headers:?}: {}", got.body);
                for line in *lines {
                    assert!(
                        got.body.lines().any(|seen| seen == *line),
                        "{headers:?}: no {line} in\n{}",
                        got.body
                    );
                }
                for name in *without {
                    assert!(
                        !got.body.lines().any(|seen| seen.starts_with(name)),
                        "{headers:?}: {name} in\n{}",
                        got.body
                    );
                }
            }
        }
    }
}

pub(crate) const BY_NAME: [(&str, &str); 2] = [
    ("knative-serving-revision", "one"),
    ("knative-serving-namespace", "ns"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_answers_and_passes_on() {
    let world = gateway(mirror().await).await;
    let forwarded: &[&str] = &[
        "GET /path?a=b HTTP/1.1",
        "host: one.test",
        "knative-serving-revision: one",
        "knative-serving-namespace: ns",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "forwarded: for=127.0.0.1;proto=http",
    ];
    table(
        world.external,
        &[
            (
                &[],
                Forwards(forwarded, &["k-proxy-request", "k-original-host"]),
            ),
            (
                &[("user-agent", "kube-probe/1.34")],
                Forwards(&["user-agent: kube-probe/1.34"], &[]),
            ),
            (
                &[("k-kubelet-probe", "x")],
                Forwards(&["k-kubelet-probe: x"], &[]),
            ),
            (
                &[("k-network-probe", "probe"), ("k-network-hash", "override")],
                Forwards(&["k-network-probe: probe", "k-network-hash: ourhash"], &[]),
            ),
            (
                &[("k-network-probe", "activator")],
                Forwards(&["k-network-probe: activator"], &[]),
            ),
            (
                &[("k-network-probe", "other"), ("k-network-hash", "h")],
                Forwards(&["k-network-probe: other", "k-network-hash: h"], &[]),
            ),
            (
                // What a client says of itself is overwritten by the split.
                &[("knative-serving-revision", "mine")],
                Forwards(&["knative-serving-revision: one"], &[]),
            ),
        ],
    )
    .await;
    let got = ask(world.local, &[("host", "one.ns.svc.cluster.local")]).await;
    assert_eq!(got.status, 404, "a gateway finds by its table only");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_an_endpoint_says_so_at_once() {
    let mut world = World::with(role(Role::Gateway)).await;
    world
        .route(vec![rule("one.test", vec![to(&[(100, "one")])])])
        .await;
    let began = tokio::time::Instant::now();
    let got = ask(world.external, &[]).await;
    assert_eq!(got.status, 503, "nobody has described it: {}", got.body);
    let empty = ServiceBackend {
        ports: vec![(80, Vec::new())],
        ..ServiceBackend::default()
    };
    for described in [Some(Arc::new(empty)), None] {
        world
            .updates
            .send(Update::Service(Key::new("ns", "one"), described))
            .await
            .unwrap();
        world.settle().await;
        let got = ask(world.external, &[]).await;
        assert_eq!(got.status, 503, "{}", got.body);
        assert_eq!(got.body, "no ready endpoint for service ns/one\n");
    }
    assert!(began.elapsed() < Options::default().unknown_backend_wait);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_activator_answers_and_passes_on() {
    let queue_proxy = mirror().await;
    let world = activator(queue_proxy).await;
    let host = format!("host: {queue_proxy}");
    let host: &'static str = Box::leak(host.into_boxed_str());
    let forwarded: &'static [&'static str] = Box::leak(Box::new([
        "GET /path?a=b HTTP/1.1",
        host,
        "k-original-host: one.test",
        "k-proxy-request: activator",
        "x-forwarded-for: 127.0.0.1",
    ]));
    let gone: &[&str] = &[
        "knative-serving-",
        "k-network-hash",
        "forwarded",
        "x-forwarded-proto",
        "x-request-id",
    ];
    let with = |more: &[(&'static str, &'static str)]| -> &'static [(&'static str, &'static str)] {
        let mut all = BY_NAME.to_vec();
        all.extend_from_slice(more);
        Vec::leak(all)
    };
    let rows: &[(&[(&str, &str)], Does)] = &[
        (with(&[]), Forwards(forwarded, gone)),
        (
            &[("host", "one.ns.svc.cluster.local")],
            Forwards(&["k-original-host: one.ns.svc.cluster.local"], gone),
        ),
        (
            with(&[("k-original-host", "first.test"), ("k-network-hash", "h")]),
            Forwards(&["k-original-host: first.test"], gone),
        ),
        (
            with(&[("x-forwarded-for", "1.2.3.4"), ("x-request-id", "abc")]),
            Forwards(
                &["x-forwarded-for: 1.2.3.4, 127.0.0.1", "x-request-id: abc"],
                &[],
            ),
        ),
        (&[("user-agent", "kube-probe/1.34")], Answers(200, "")),
        (&[("k-kubelet-probe", "x")], Answers(200, "")),
        (
            &[("k-network-probe", "activator")],
            Answers(200, "activator"),
        ),
        (
            &[("k-network-probe", "probe")],
            Answers(
                400,
                "a probe request must contain a non-empty \"K-Network-Hash\" header",
            ),
        ),
        (
            &[("k-network-probe", "queue")],
            Answers(400, "unexpected probe header value: \"queue\""),
        ),
        (
            // By its header only.
            with(&[("user-agent", "Knative-Activator-Probe")]),
            Forwards(forwarded, gone),
        ),
        (
            &[
                ("knative-serving-revision", "other"),
                ("knative-serving-namespace", "ns"),
            ],
            Answers(
                404,
                "Error getting active endpoint: revision.serving.knative.dev \"other\" not found",
            ),
        ),
        (
            &[("host", "other.ns.svc.cluster.local")],
            Answers(
                404,
                "Error getting active endpoint: revision.serving.knative.dev \"other\" not found",
            ),
        ),
        (
            &[],
            Answers(
                404,
                "Error getting active endpoint: revision.serving.knative.dev \"\" not found",
            ),
        ),
    ];
    for listener in [world.external, world.local] {
        table(listener, rows).await;
        let got = ask(
            listener,
            &[("k-network-probe", "probe"), ("k-network-hash", "override")],
        )
        .await;
        assert_eq!(got.status, 200);
        assert_eq!(got.headers["k-network-hash"], "override", "echoed as it is");
    }
    world.handle.set_health(Health::NotConnected);
    let probe: &[(&str, &str)] = &[("user-agent", "kube-probe/1.34")];
    table(
        world.local,
        &[(
            probe,
            Answers(500, "connection has not yet been established"),
        )],
    )
    .await;
    world.handle.set_health(Health::Stopping);
    table(
        world.local,
        &[
            (probe, Answers(500, "received SIGTERM from kubelet")),
            (with(&[]), Forwards(forwarded, gone)),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_activator_passes_on_the_version_it_is_spoken_to_in() {
    let queue_proxy = mirror().await;
    let world = activator(queue_proxy).await;
    let request = Request::get(format!("http://one.test:{}/a", world.local.port()))
        .header(BY_NAME[0].0, BY_NAME[0].1)
        .header(BY_NAME[1].0, BY_NAME[1].1)
        .body(empty())
        .unwrap();
    let got = collect(
        within(h2(world.local).await.send_request(request))
            .await
            .unwrap(),
    )
    .await;
    assert!(
        got.body
            .starts_with(&format!("GET http://{queue_proxy}/a HTTP/2.0\n")),
        "{}",
        got.body
    );
    let original = format!("k-original-host: one.test:{}", world.local.port());
    assert!(got.body.contains(&original), "{}", got.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_activator_names_the_queue_proxy_that_it_reaches() {
    let dead = listen().await.local_addr().unwrap();
    let alive = mirror().await;
    let mut world = World::with(role(Role::Activator)).await;
    let mut both = backend("one", &[dead, alive]);
    both.container_concurrency = 1; // the first one first
    world.revision(both).await;
    world.settle().await;
    for _ in 0..3 {
        let got = ask(world.local, &BY_NAME).await;
        assert!(
            got.body.contains(&format!("\nhost: {alive}\n")),
            "{}",
            got.body
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_queue_proxy_answers_and_passes_on() {
    let (world, proxy) = queue(mirror().await.port()).await;
    let gone: &[&str] = &["knative-serving-", "k-original-host", "x-request-id"];
    let probe = ("k-network-probe", "probe");
    let rows: &[(&[(&str, &str)], Does)] = &[
        (
            &[],
            Forwards(
                &[
                    "GET /path?a=b HTTP/1.1",
                    "host: one.test",
                    "x-forwarded-for: 127.0.0.1",
                ],
                &[
                    "k-proxy-request",
                    "x-forwarded-proto",
                    "forwarded",
                    "x-request-id",
                ],
            ),
        ),
        (
            &[
                BY_NAME[0],
                BY_NAME[1],
                ("k-original-host", "first.test"),
                ("k-proxy-request", "activator"),
                ("k-network-hash", "h"),
                ("x-forwarded-for", "1.2.3.4, fe80::1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "h.test"),
            ],
            Forwards(
                &[
                    "host: first.test",
                    "k-proxy-request: activator",
                    "k-network-hash: h",
                    "x-forwarded-for: 1.2.3.4, fe80::1, 127.0.0.1",
                    "forwarded: for=1.2.3.4;host=h.test;proto=https, for=\"[fe80::1]\"",
                ],
                gone,
            ),
        ),
        (
            &[("forwarded", "for=1.2.3.4"), ("x-forwarded-for", "5.6.7.8")],
            Forwards(&["forwarded: for=1.2.3.4"], gone),
        ),
        (
            &[
                ("user-agent", "kube-probe/1.34"),
                ("k-network-probe", "queue"),
            ],
            Answers(200, "queue"),
        ),
        (
            &[
                ("user-agent", "Knative-Activator-Probe"),
                ("k-network-probe", "queue"),
            ],
            Answers(200, "queue"),
        ),
        (
            &[
                ("user-agent", "Knative-Autoscaling-Probe"),
                ("k-network-probe", "queue"),
            ],
            Answers(200, "queue"),
        ),
        (
            &[("user-agent", "kube-probe/1.34")],
            Answers(400, "unexpected probe header value:"),
        ),
        (
            &[
                ("user-agent", "kube-probe/1.34"),
                ("k-network-probe", "activator"),
            ],
            Answers(400, "unexpected probe header value: activator"),
        ),
        (
            &[probe],
            Answers(
                400,
                "a probe request must contain a non-empty \"K-Network-Hash\" header",
            ),
        ),
        (&[probe, ("k-network-hash", "h")], Answers(200, "")),
        (
            &[("k-network-probe", "activator")],
            Forwards(&["k-network-probe: activator"], &[]),
        ),
        (
            &[("k-network-probe", "queue")],
            Forwards(&["k-network-probe: queue"], &[]),
        ),
        (
            &[("k-kubelet-probe", "x")],
            Forwards(&["k-kubelet-probe: x"], &[]),
        ),
    ];
    for listener in [world.external, world.local] {
        table(listener, rows).await;
    }
    let admin = listen().await;
    let admin_address = admin.local_addr().unwrap();
    proxy.serve_admin(admin);
    let other = ask(admin_address, &[]).await;
    assert_eq!(other.status, 404);
    // A SIGTERM follows; until it has been quiet, requests are served and probes refused.
    let stopping = tokio::spawn(async move { proxy.stop().await });
    let hash: &[(&str, &str)] = &[probe, ("k-network-hash", "h")];
    let ready: &[(&str, &str)] = &[
        ("user-agent", "kube-probe/1.34"),
        ("k-network-probe", "queue"),
    ];
    eventually_draining(world.local).await;
    table(
        world.local,
        &[
            (ready, Answers(503, "shutting down")),
            (hash, Answers(503, "shutting down")),
            (&[], Forwards(&["host: one.test"], &[])),
        ],
    )
    .await;
    assert!(within(stopping).await.unwrap().is_empty());
}

async fn eventually_draining(address: std::net::SocketAddr) {
    let hash = [("k-network-probe", "probe"), ("k-network-hash", "h")];
    within(async {
        while ask(address, &hash).await.status != 503 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_proxy_is_ready_when_its_container_is() {
    let listener = listen().await;
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let probe =
        format!(r#"{{"tcpSocket":{{"port":{port},"host":"127.0.0.1"}},"periodSeconds":1}}"#);
    let (world, _proxy) = queue_with(port, |variables| {
        variables.insert("SERVING_READINESS_PROBE", probe);
    })
    .await;
    let ready = [
        ("user-agent", "kube-probe/1.34"),
        ("k-network-probe", "queue"),
    ];
    let got = ask(world.local, &ready).await;
    assert_eq!(got.status, 503, "{}", got.body);
    let _listener = tokio::net::TcpListener::bind((LOCAL, port)).await.unwrap();
    let got = ask(world.local, &ready).await;
    assert_eq!((got.status.as_u16(), got.body.as_str()), (200, "queue"));
}

#[tokio::test(flavor = "multi_thread")]
async fn http_readiness_says_who_asks_and_judges_the_status() {
    let healthy = Arc::new(AtomicBool::new(false));
    let told = healthy.clone();
    let user = container(move |request: Request<hyper::body::Incoming>| {
        let fine = told.load(Ordering::SeqCst)
            && request.uri().path() == "/health"
            && request.headers()["user-agent"]
                .to_str()
                .unwrap()
                .starts_with("kube-probe/")
            && request.headers()["x-mine"] == "1";
        async move {
            let mut reply = reply("");
            if !fine {
                *reply.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            }
            reply
        }
    })
    .await;
    let probe = format!(
        r#"{{"httpGet":{{"path":"/health","port":{},"scheme":"HTTP","httpHeaders":[{{"name":"X-Mine","value":"1"}}]}},"periodSeconds":1}}"#,
        user.port()
    );
    for detect in ["false", "true"] {
        healthy.store(false, Ordering::SeqCst);
        let (world, _proxy) = queue_with(user.port(), |variables| {
            variables.insert("SERVING_READINESS_PROBE", probe.clone());
            variables.insert("ENABLE_HTTP2_AUTO_DETECTION", detect.to_owned());
        })
        .await;
        let ready = [
            ("user-agent", "kube-probe/1.34"),
            ("k-network-probe", "queue"),
        ];
        assert_eq!(ask(world.local, &ready).await.status, 503);
        healthy.store(true, Ordering::SeqCst);
        assert_eq!(ask(world.local, &ready).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_proxy_holds_the_limit_and_ten_times_as_many_wait() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let user = container(move |_| {
        let gate = opened.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            reply("done")
        }
    })
    .await;
    let (world, _proxy) = queue_with(user.port(), |variables| {
        variables.insert("CONTAINER_CONCURRENCY", "1".to_owned());
    })
    .await;
    let address = world.local;
    let requests: Vec<_> = (0..11)
        .map(|_| tokio::spawn(async move { ask(address, &[]).await }))
        .collect();
    eventually("eleven are there", || world.handle.in_flight() == 11).await;
    let got = ask(address, &[]).await;
    assert_eq!(got.status, 503);
    assert_eq!(got.body, "pending request queue full\n");
    // What the kubelet marks passes by the limit.
    let probe = tokio::spawn(async move { ask(address, &[("k-kubelet-probe", "x")]).await });
    gate.add_permits(12);
    for request in requests {
        assert_eq!(within(request).await.unwrap().body, "done");
    }
    assert_eq!(within(probe).await.unwrap().body, "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_activator_has_counted_is_told_apart() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let user = container(move |_| {
        let gate = opened.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            reply("done")
        }
    })
    .await;
    let (mut world, proxy) = queue(user.port()).await;
    let address = world.local;
    let requests: Vec<_> = [
        &[("k-proxy-request", "activator")][..],
        &[("k-proxy-request", "other")],
        &[("k-kubelet-probe", "x")],
    ]
    .into_iter()
    .map(|headers: &'static [(&str, &str)]| {
        tokio::spawn(async move { ask(address, headers).await })
    })
    .collect();
    let stat = loop {
        match within(world.reports.recv()).await.unwrap() {
            Report::Stat { stat, .. } if stat.in_flight == Some(2) => break stat,
            _ => {}
        }
    };
    assert!(
        stat.average_proxied_concurrent_requests < stat.average_concurrent_requests,
        "{stat:?}"
    );
    let next = loop {
        if let Report::Stat { stat, .. } = within(world.reports.recv()).await.unwrap() {
            break stat;
        }
    };
    assert!(
        (next.average_concurrent_requests - 2.0).abs() < 0.01,
        "{next:?}"
    );
    assert!(
        (next.average_proxied_concurrent_requests - 1.0).abs() < 0.01,
        "{next:?}"
    );
    // The autoscaler scrapes the same.
    let (reports, taken) = tokio::sync::mpsc::channel(1);
    let listener = listen().await;
    let scraped = listener.local_addr().unwrap();
    proxy.serve_statistics(listener, taken);
    let revision = Key::new("ns", "one");
    let source = Source::itself("pod");
    reports
        .send(Report::Stat {
            revision,
            source,
            stat: next,
        })
        .await
        .unwrap();
    let stat = within(async {
        loop {
            let request = Request::get("/metrics")
                .header("host", "a")
                .body(empty())
                .unwrap();
            let answer = H1::to(scraped).await.send(request).await;
            assert_eq!(answer.headers()["content-type"], "application/protobuf");
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let (pod, stat) = wire::decode_stat(&body).unwrap();
            assert_eq!(pod.as_ref(), "pod");
            if stat.average_concurrent_requests > 0.0 {
                return stat;
            }
        }
    })
    .await;
    assert_eq!(
        Stat {
            process_uptime: 0.0,
            in_flight: next.in_flight,
            ..stat
        },
        next
    );
    assert!(stat.process_uptime > 0.0);
    gate.add_permits(3);
    for request in requests {
        within(request).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_component_has_its_own_words_when_time_is_up() {
    let silent = listen().await;
    let address = silent.local_addr().unwrap();
    let mut world = World::with(role(Role::Activator)).await;
    for endpoints in [vec![], vec![address]] {
        let mut slow = backend("one", &endpoints);
        slow.timeout = Duration::from_millis(200);
        world.revision(slow).await;
        world.settle().await;
        let got = ask(world.local, &BY_NAME).await;
        assert_eq!(got.status, 504);
        assert_eq!(got.body, "activator request timeout\n");
    }
    let (world, _proxy) = queue_with(address.port(), |variables| {
        variables.insert("CONTAINER_CONCURRENCY", "1".to_owned());
        variables.insert("REVISION_TIMEOUT_SECONDS", "1".to_owned());
    })
    .await;
    // The first has a slot, the second waits for one.
    let (one, other) = tokio::join!(ask(world.local, &[]), ask(world.local, &[]));
    for got in [one, other] {
        assert_eq!(got.status, 504);
        assert_eq!(got.body, "request timeout\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pre_stop_hook_waits_for_quiet_and_a_restart_calls_it_off() {
    let (world, proxy) = queue(says("ok").await.port()).await;
    let admin = listen().await;
    let address = admin.local_addr().unwrap();
    proxy.serve_admin(admin);
    let mut hook = TcpStream::connect(address).await.unwrap();
    hook.write_all(b"GET /wait-for-drain HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    eventually_draining(world.local).await;
    assert_eq!(ask(world.local, &[]).await.body, "ok");
    let answer = read_until(&mut hook, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // No SIGTERM came within a second: ready again.
    let hash = [("k-network-probe", "probe"), ("k-network-hash", "h")];
    within(async {
        while ask(world.local, &hash).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Breaks off after each head, on every connection; counts them.
async fn dying() -> (std::net::SocketAddr, Arc<std::sync::atomic::AtomicUsize>) {
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    let seen = Arc::<std::sync::atomic::AtomicUsize>::default();
    let counted = seen.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_until(&mut stream, "\r\n\r\n").await;
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dying_component_had_goes_to_another_one_if_it_may() {
    let (dead, seen) = dying().await;
    let alive = says("ok").await;
    let mut world = World::with(role(Role::Activator)).await;
    let mut both = backend("one", &[dead, alive]);
    both.container_concurrency = 1; // the first one first
    world.revision(both).await;
    world.settle().await;
    let got = ask(world.local, &BY_NAME).await;
    assert_eq!(got.body, "ok");
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    // It may have been acted on. The dead one is passed over for a moment.
    let got = within(async {
        loop {
            let post = Request::post("/")
                .header("host", "one.test")
                .header(BY_NAME[0].0, BY_NAME[0].1)
                .header(BY_NAME[1].0, BY_NAME[1].1)
                .body(full("a body"))
                .unwrap();
            let got = collect(H1::to(world.local).await.send(post).await).await;
            if seen.load(Ordering::SeqCst) == 2 {
                return got;
            }
        }
    })
    .await;
    assert_eq!(got.status, 502, "{}", got.body);
    assert_eq!(seen.load(Ordering::SeqCst), 2);
    // Once: where all of them die of it, it ends.
    let world = gateway(dead).await;
    let got = ask(world.external, &[]).await;
    assert_eq!(got.status, 502, "{}", got.body);
    assert_eq!(seen.load(Ordering::SeqCst), 4);
}
