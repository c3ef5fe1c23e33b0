//! Which container a request reaches, and what it looks like there.

use kinglet_dataplane::Options;
use kinglet_decide::feed::{Key, ServiceBackend, Update};
use kinglet_decide::route::{HttpOption, Visibility};

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_container_sees_what_knative_shows_it() {
    let mut world = World::start().await;
    world.one(backend("one", &[mirror().await])).await;
    let seen = get(world.external, "one.test", "/a?b=c").await.body;
    assert!(seen.starts_with("GET /a?b=c HTTP/1.1\n"), "{seen}");
    for line in [
        "host: one.test",
        "k-proxy-request: activator",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "forwarded: for=127.0.0.1;proto=http",
    ] {
        assert!(seen.contains(&format!("\n{line}\n")), "{line} in {seen}");
    }
    assert!(seen.contains("x-request-id: "), "{seen}");
    assert!(!seen.contains("knative-serving"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_says_is_kept_or_overwritten() {
    let mut world = World::start().await;
    let mut path = to(&[(100, "one")]);
    path.append_headers = vec![("X-Set".into(), "by ingress".into())];
    world.revision(backend("one", &[mirror().await])).await;
    world.route(vec![rule("one.test", vec![path])]).await;
    let seen = raw(
        world.external,
        "GET / HTTP/1.1\r\nHost: ONE.test:8080\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nX-Set: by client\r\n\
         X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Request-Id: abc\r\nKnative-Serving-Revision: other\r\n\
         K-Network-Hash: x\r\nTE: trailers, gzip\r\nUpgrade: h2c\r\n\r\n",
    )
    .await;
    for line in [
        "host: ONE.test:8080",
        "x-set: by ingress",
        "x-forwarded-for: 1.2.3.4, 127.0.0.1",
        "forwarded: for=1.2.3.4",
        "x-request-id: abc",
        "te: trailers",
    ] {
        assert!(seen.contains(&format!("\n{line}\n")), "{line} in {seen}");
    }
    for name in [
        "x-hop",
        "keep-alive",
        "knative-serving",
        "k-network-hash",
        "upgrade",
        "\nconnection",
    ] {
        let body = seen.split("\r\n\r\n").nth(1).unwrap();
        assert!(!body.contains(name), "{name} in {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_hosts_and_paths_are_told_so() {
    let mut world = World::start().await;
    let mut path = to(&[(100, "one")]);
    path.path = Some("/in".into());
    world.revision(backend("one", &[says("one").await])).await;
    world.route(vec![rule("one.test", vec![path])]).await;
    let got = get(world.external, "other.test", "/").await;
    assert_eq!(got.status, 404);
    assert!(
        got.body.contains("\"other.test\"") && got.body.contains("kubectl get ksvc"),
        "{}",
        got.body
    );
    let got = get(world.external, "one.test", "/out").await;
    assert_eq!(
        (got.status.as_u16(), got.body.trim()),
        (404, "no route for path \"/out\" of host \"one.test\"")
    );
    assert_eq!(
        get(world.external, "one.test", "/in/deeper").await.body,
        "one"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn private_hosts_answer_only_inside() {
    let mut world = World::start().await;
    world.revision(backend("one", &[says("one").await])).await;
    let mut private = rule("one.ns.svc.cluster.local", vec![to(&[(100, "one")])]);
    private.visibility = Visibility::ClusterLocal;
    world
        .route(vec![private, rule("one.test", vec![to(&[(100, "one")])])])
        .await;
    assert_eq!(
        get(world.external, "one.ns.svc.cluster.local", "/")
            .await
            .status,
        404
    );
    assert_eq!(
        get(world.local, "one.ns.svc.cluster.local", "/")
            .await
            .status,
        200
    );
    assert_eq!(get(world.local, "one.test", "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_redirected_where_asked_and_https_is_served() {
    for (https_port, location) in [
        (Some(443), Some("https://one.test/a?b")),
        (Some(8443), Some("https://one.test:8443/a?b")),
        (None, None),
    ] {
        redirects(https_port, location).await;
    }
}

async fn redirects(https_port: Option<u16>, location: Option<&str>) {
    let mut world = World::with(Options {
        https_port,
        ..Options::default()
    })
    .await;
    world.revision(backend("one", &[says("one").await])).await;
    let mut redirected = rule("one.test", vec![to(&[(100, "one")])]);
    redirected.http_option = HttpOption::Redirected;
    world.route(vec![redirected]).await;
    let got = get(world.external, "one.test:8080", "/a?b").await;
    let status = if location.is_some() { 301 } else { 200 };
    assert_eq!(got.status.as_u16(), status);
    let told = got.headers.get("location");
    assert_eq!(told.map(|told| told.to_str().unwrap()), location);
    assert_eq!(get(world.local, "one.test", "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn splits_are_even_over_many_connections_and_protocols() {
    let mut world = World::start().await;
    for name in ["a", "b", "c"] {
        let address = says(name).await;
        world.revision(backend(name, &[address])).await;
    }
    world
        .route(vec![
            rule("half.test", vec![to(&[(50, "a"), (50, "b")])]),
            rule("fifth.test", vec![to(&[(20, "a"), (80, "b"), (0, "c")])]),
        ])
        .await;
    for (host, wanted) in [("half.test", [500, 500, 0]), ("fifth.test", [200, 800, 0])] {
        let clients = (0..10).map(|_| async {
            let mut h1 = H1::to(world.external).await;
            let mut h2 = h2(world.external).await;
            let mut seen = [0i32; 3];
            for _ in 0..50 {
                let first = h1.get(host, "/").await.body;
                let request = http::Request::get(format!("http://{host}/"))
                    .body(empty())
                    .unwrap();
                let second = collect(h2.send_request(request).await.unwrap()).await.body;
                for answer in [first, second] {
                    seen[(answer.as_bytes()[0] - b'a') as usize] += 1;
                }
            }
            seen
        });
        let mut total = [0; 3];
        for seen in futures_util::future::join_all(clients).await {
            total
                .iter_mut()
                .zip(seen)
                .for_each(|(total, seen)| *total += seen);
        }
        assert!(
            total
                .iter()
                .zip(wanted)
                .all(|(got, wanted)| (got - wanted).abs() <= 20)
                && total[2] == 0,
            "{host}: {total:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_services_are_backends_too() {
    let mut world = World::start().await;
    world
        .route(vec![rule("svc.test", vec![to(&[(100, "svc")])])])
        .await;
    let waiting = tokio::spawn({
        let address = world.external;
        async move { get(address, "svc.test", "/").await }
    });
    eventually("the request waits", || world.handle.in_flight() == 1).await;
    let ports = vec![(80, vec![mirror().await])];
    let service = ServiceBackend {
        ports,
        ..ServiceBackend::default()
    };
    world
        .updates
        .send(Update::Service(Key::new("ns", "svc"), Some(service.into())))
        .await
        .unwrap();
    let seen = within(waiting).await.unwrap().body;
    // Headers that a Revision's container must not see reach everybody else.
    assert!(
        seen.contains("knative-serving-revision: svc") && !seen.contains("k-proxy-request"),
        "{seen}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapped_domain_is_served_by_what_is_behind_it() {
    let mut world = World::start().await;
    world.revision(backend("one", &[mirror().await])).await;
    let mut private = rule("one.ns.svc.cluster.local", vec![to(&[(100, "one")])]);
    private.visibility = Visibility::ClusterLocal;
    let mut mapping = to(&[(100, "placeholder")]);
    mapping.rewrite_host = Some("one.ns.svc.cluster.local".into());
    mapping.append_headers = vec![("K-Original-Host".into(), "my.domain".into())];
    let mut domain = rule("my.domain", vec![mapping]);
    domain.ingress = Key::new("ns", "my.domain");
    world.route(vec![private, domain]).await;
    let seen = get(world.external, "my.domain", "/").await.body;
    assert!(
        seen.contains("\nhost: my.domain\n") && !seen.contains("k-original-host"),
        "{seen}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_are_answered_without_waking_anything() {
    let mut world = World::start().await;
    world.one(backend("one", &[])).await;
    let probe = async |headers: &str| {
        raw(
            world.external,
            &format!("GET / HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n{headers}\r\n"),
        )
        .await
    };
    let answer = probe("K-Network-Probe: probe\r\nK-Network-Hash: override\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("k-network-hash: ourhash"),
        "{answer}"
    );
    let answer = probe("K-Network-Probe: probe\r\nK-Network-Hash: mine\r\n").await;
    assert!(answer.contains("k-network-hash: mine"), "{answer}");
    let answer = probe("K-Network-Probe: probe\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("a probe request must contain"),
        "{answer}"
    );
    let answer = probe("K-Network-Probe: activator\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("activator"),
        "{answer}"
    );
    let answer = probe("K-Network-Probe: queue\r\n").await;
    assert!(
        answer.contains("unexpected probe header value: \"queue\""),
        "{answer}"
    );
    assert!(
        probe("User-Agent: kube-probe/1.34\r\n")
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(world.reports.try_recv().is_err(), "nothing was poked");
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_refused() {
    let mut world = World::start().await;
    world.one(backend("one", &[mirror().await])).await;
    let cases = [
        (
            "no host",
            "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
            "400",
        ),
        (
            "two hosts",
            "GET / HTTP/1.1\r\nHost: one.test\r\nHost: two.test\r\nConnection: close\r\n\r\n",
            "400",
        ),
        (
            "two lengths",
            "POST / HTTP/1.1\r\nHost: one.test\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            "400",
        ),
        (
            "a bad chunked",
            "POST / HTTP/1.1\r\nHost: one.test\r\nTransfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (
            "connect",
            "CONNECT one.test:80 HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n",
            "405",
        ),
        ("not HTTP", "HELO there\r\n\r\n", "400"),
    ];
    for (what, request, status) in cases {
        let answer = raw(world.external, request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{what}: {answer}"
        );
    }
    // Length and chunks at once: chunks win and the length does not travel on, or the connection is refused.
    let smuggled = "POST / HTTP/1.1\r\nHost: one.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n";
    let answer = raw(world.external, smuggled).await;
    assert!(
        answer.starts_with("HTTP/1.1 400") || !answer.contains("content-length: 4"),
        "{answer}"
    );
    let long = format!(
        "GET / HTTP/1.1\r\nHost: one.test\r\nX-Long: {}\r\n\r\n",
        "x".repeat(200_000)
    );
    assert!(raw(world.external, &long).await.starts_with("HTTP/1.1 431"));
}

/// As Knative's activator takes them from pods.
#[tokio::test(flavor = "multi_thread")]
async fn pods_reach_a_revision_by_the_name_of_its_service() {
    let mut world = World::start().await;
    world.one(backend("one", &[mirror().await])).await;
    for host in [
        "one.ns.svc.cluster.local",
        "one.ns.svc.cluster.local:80",
        "one.ns.svc",
        "one.ns",
        "one-private.ns.svc.cluster.local",
        "one-private.ns:8012",
    ] {
        let got = get(world.local, host, "/").await;
        assert_eq!(got.status, 200, "{host}: {}", got.body);
        assert!(
            got.body.contains(&format!("host: {host}\n")),
            "{}",
            got.body
        );
        assert!(
            got.body.contains("k-proxy-request: activator"),
            "{}",
            got.body
        );
        assert_eq!(get(world.external, host, "/").await.status, 404, "{host}");
    }
    for host in [
        "two.ns.svc.cluster.local",
        "one.other.svc",
        "one",
        "-private.ns",
    ] {
        assert_eq!(get(world.local, host, "/").await.status, 404, "{host}");
    }
    for (name, status, body) in [
        ("one", 200, "GET /"),
        (
            "two",
            404,
            "Error getting active endpoint: revision.serving.knative.dev \"two\" not found",
        ),
    ] {
        let request = http::Request::get("/")
            .header(
                "host",
                "activator-service.knative-serving.svc.cluster.local",
            )
            .header("knative-serving-namespace", "ns")
            .header("knative-serving-revision", name)
            .body(empty())
            .unwrap();
        let got = collect(H1::to(world.local).await.send(request).await).await;
        assert_eq!(got.status, status, "{name}");
        assert!(got.body.starts_with(body), "{}", got.body);
        assert!(
            !got.body.contains("knative-serving-revision"),
            "{}",
            got.body
        );
    }
}
