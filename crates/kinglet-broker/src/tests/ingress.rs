//! What strangers send to the stages: statuses as recorded, and why in the body.

use std::time::Duration;

use http::{Request, StatusCode};

use super::world::*;
use crate::feed::{Access, BrokerRoute, Key, TransportEncryption, Update};

/// traces/eventing/01-broker-triggers/log.txt
#[tokio::test(start_paused = true)]
async fn the_ingress_answers_as_recorded_and_says_why() {
    for shortcuts in [true, false] {
        let world = Setup::new(shortcuts).start(|_, _| answer(200, &[], ""));
        world
            .broker("InMemoryChannel", &[trigger("all", None, "http://sink/")])
            .await;
        let post = || event_request("/ns/default", "1", "foo");
        let path = |path: &str| event_request(path, "1", "foo");
        let structured =
            || Request::post("/ns/default").header("content-type", "application/cloudevents+json");
        let bare = || Request::post("/ns/default").header("content-type", "application/json");
        let without = |name: &str| {
            let mut request = post();
            request.headers_mut().unwrap().remove(name);
            request
        };
        let with = |name: &str, value: &str| {
            let mut request = post();
            let name: http::HeaderName = name.parse().unwrap();
            request
                .headers_mut()
                .unwrap()
                .insert(name, value.parse().unwrap());
            request
        };
        let json = "{\"specversion\":\"1.0\",\"id\":\"s1\",\"type\":\"foo\",\"source\":\"/s\",\"ext1\":7,\"data\":{\"x\":1}}";
        let large = "x".repeat((16 << 20) + 1);
        let cases: Vec<(&str, http::request::Builder, &str, u16, &str)> = vec![
            ("binary", post(), "{}", 202, ""),
            ("structured", structured(), json, 202, ""),
            (
                "batch",
                Request::post("/ns/default")
                    .header("content-type", "application/cloudevents-batch+json"),
                "[]",
                400,
                "batch",
            ),
            ("no id", without("ce-id"), "{}", 400, "id"),
            ("no type", without("ce-type"), "{}", 400, "type"),
            ("empty source", with("ce-source", ""), "{}", 400, "source"),
            (
                "bad specversion",
                with("ce-specversion", "9.9"),
                "{}",
                400,
                "9.9",
            ),
            ("0.3", with("ce-specversion", "0.3"), "{}", 202, ""),
            ("not an event", bare(), "{}", 400, "not a CloudEvent"),
            ("broken structured", structured(), "{\"a\"", 400, "JSON"),
            (
                "bad extension name",
                with("ce-bad_name", "v"),
                "{}",
                400,
                "bad_name",
            ),
            ("bad time", with("ce-time", "yesterday"), "{}", 400, "time"),
            ("no content type", without("content-type"), "abc", 202, ""),
            ("empty body", post(), "", 202, ""),
            ("bad json in the data", post(), "{nope", 202, ""),
            (
                "ttl 1",
                with("ce-knativebrokerttl", "1"),
                "{}",
                400,
                "knativebrokerttl",
            ),
            (
                "ttl 0",
                with("ce-knativebrokerttl", "0"),
                "{}",
                400,
                "knativebrokerttl",
            ),
            (
                "ttl of words",
                with("ce-knativebrokerttl", "many"),
                "{}",
                202,
                "",
            ),
            (
                "unknown broker",
                path("/ns/nothere"),
                "{}",
                404,
                "no Broker nothere in namespace ns",
            ),
            (
                "unknown broker and no event",
                Request::post("/ns/nothere"),
                "{}",
                400,
                "not a CloudEvent",
            ),
            ("bad path", path("/x"), "{}", 400, "/NAMESPACE/BROKER"),
            (
                "longer path",
                path("/ns/default/more"),
                "{}",
                400,
                "/NAMESPACE/BROKER",
            ),
            ("root", path("/"), "{}", 404, "/NAMESPACE/BROKER"),
            ("trailing slash", path("/ns/default/"), "{}", 202, ""),
            ("GET", Request::get("/ns/default"), "", 405, "GET"),
            ("PUT", Request::put("/ns/default"), "{}", 405, "POST"),
            ("DELETE", Request::delete("/"), "", 405, "POST"),
            ("OPTIONS", Request::options("/ns/default"), "", 200, ""),
            ("too large", post(), &large, 413, "16777216"),
            (
                "too large for nobody",
                path("/ns/nothere"),
                &large,
                404,
                "no Broker",
            ),
        ];
        for (name, request, body, status, words) in cases {
            let (got, headers, why) = world
                .post(world.handle.ingress(false), request, body.to_owned())
                .await;
            assert_eq!(got, status, "{name}: {why}");
            assert!(why.contains(words), "{name}: {why}");
            assert_eq!(why.is_empty(), status < 300, "{name}: {why}");
            assert_eq!(headers["allow"], "POST, OPTIONS", "{name}");
            if name == "OPTIONS" {
                assert_eq!(headers["webhook-allowed-origin"], "*");
                assert_eq!(headers["webhook-allowed-rate"], "*");
            }
        }
        // Structured extensions are text from here on; 0.3 stays 0.3.
        let got = world.sinks.at("sink");
        let one = got
            .iter()
            .find(|one| one.header("ce-id") == Some("s1"))
            .unwrap();
        assert_eq!(one.header("ce-ext1"), Some("7"));
        assert!(
            got.iter()
                .any(|one| one.header("ce-specversion") == Some("0.3"))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn channels_and_filters_answer_as_recorded() {
    let world = Setup::new(false).start(|_, _| answer(200, &[], ""));
    world
        .broker(
            "InMemoryChannel",
            &[trigger("t", Some("foo"), "http://sink/")],
        )
        .await;
    let channels = world.handle.channels("InMemoryChannel", false);
    let filter = world.handle.filter(false);
    let host = "default-kne-trigger-kn-channel.ns.svc.cluster.local";
    let at = |host: &str, path: &str| {
        event_request(path, "1", "foo")
            .header("host", host)
            .header("ce-knativebrokerttl", "255")
    };
    let trigger = |path: &str| at("broker-filter", path);
    let with_ttl = "/triggers/ns/t/t-uid";
    let mut no_ttl = trigger(with_ttl);
    no_ttl.headers_mut().unwrap().remove("ce-knativebrokerttl");
    let mut other_type = trigger(with_ttl);
    other_type
        .headers_mut()
        .unwrap()
        .insert("ce-type", "bar".parse().unwrap());
    for (name, service, request, status, allow) in [
        (
            "by host",
            &channels,
            at(host, "/"),
            202,
            Some("POST, OPTIONS"),
        ),
        (
            "by host and port",
            &channels,
            at(&format!("{host}:8080"), "/"),
            202,
            Some("POST, OPTIONS"),
        ),
        (
            "by path",
            &channels,
            at("imc-dispatcher", "/ns/default-kne-trigger"),
            202,
            Some("POST, OPTIONS"),
        ),
        ("host and path", &channels, at(host, "/more"), 400, None),
        (
            "unknown host",
            &channels,
            at("nothere-kn-channel.ns.svc.cluster.local", "/"),
            500,
            None,
        ),
        ("no name", &channels, at("imc-dispatcher", "/"), 500, None),
        (
            "PUT",
            &channels,
            Request::put("/").header("host", host),
            405,
            Some("POST, OPTIONS"),
        ),
        (
            "OPTIONS",
            &channels,
            Request::options("/").header("host", host),
            200,
            Some("POST, OPTIONS"),
        ),
        (
            "no event",
            &channels,
            Request::post("/").header("host", host),
            400,
            Some("POST, OPTIONS"),
        ),
        ("filter", &filter, trigger(with_ttl), 200, Some("POST")),
        ("held back", &filter, other_type, 200, Some("POST")),
        ("no ttl", &filter, no_ttl, 400, Some("POST")),
        (
            "other uid",
            &filter,
            trigger("/triggers/ns/t/other"),
            400,
            Some("POST"),
        ),
        (
            "unknown Trigger",
            &filter,
            trigger("/triggers/ns/u/t-uid"),
            404,
            Some("POST"),
        ),
        (
            "bad path",
            &filter,
            trigger("/triggers/ns"),
            400,
            Some("POST"),
        ),
        (
            "no dls",
            &filter,
            trigger("/triggers/ns/t/t-uid/dls"),
            404,
            Some("POST"),
        ),
        (
            "OPTIONS of the filter",
            &filter,
            Request::options("/"),
            405,
            Some("POST"),
        ),
    ] {
        let (got, headers, why) = world.post(service.clone(), request, "").await;
        assert_eq!(got, status, "{name}: {why}");
        let allowed = headers.get("allow").map(|value| value.to_str().unwrap());
        assert_eq!(allowed, allow, "{name}");
        assert_eq!(why.is_empty(), status < 300, "{name}: {why}");
    }
}

#[tokio::test(start_paused = true)]
async fn probes_encryption_and_the_end() {
    let world = Setup::new(true).start(|_, _| answer(200, &[], ""));
    world.broker("InMemoryChannel", &[]).await;
    let handle = &world.handle;
    let probe = |name: &str, value: &str| Request::get("/healthz").header(name, value);
    let network = || probe("k-network-probe", "probe");
    let ask = |request, secured: bool| world.post(handle.ingress(secured), request, "");
    assert_eq!(
        ask(probe("user-agent", "kube-probe/1.34"), false).await.0,
        200
    );
    assert_eq!(ask(network(), false).await.0, 400);
    let (status, headers, _) = ask(network().header("k-network-hash", "h"), false).await;
    assert_eq!(
        (status, &headers["k-network-hash"]),
        (StatusCode::OK, &"h".parse().unwrap())
    );
    for (mode, plain, secured) in [
        (TransportEncryption::Disabled, 202, 404),
        (TransportEncryption::Permissive, 202, 202),
        (TransportEncryption::Strict, 404, 202),
    ] {
        world.apply(Update::TransportEncryption(mode)).await;
        for (is_secured, status) in [(false, plain), (true, secured)] {
            let request = event_request("/ns/default", "1", "foo");
            let (got, _, why) = ask(request, is_secured).await;
            assert_eq!(got, status, "{mode:?} {is_secured} {why}");
        }
    }
    handle.drain(Duration::from_secs(1)).await;
    assert_eq!(
        ask(probe("user-agent", "kube-probe/1.34"), true).await.0,
        503
    );
    assert_eq!(
        ask(event_request("/ns/default", "1", "foo"), true).await.0,
        503
    );
}

#[tokio::test(start_paused = true)]
async fn a_broker_without_channel_and_a_full_channel_say_so() {
    let world = Setup::new(true).start(|_, _| Act::Hang);
    let route = BrokerRoute {
        uid: "u".into(),
        channel: None,
        address: None,
        access: Access::default(),
        auto_event_types: false,
    };
    world
        .apply(Update::Broker(Key::new("ns", "default"), Some(route)))
        .await;
    let (status, why) = world.send("1", "foo").await;
    assert_eq!(status, 500);
    assert!(why.contains("has no channel yet"), "{why}");
    // One tenant's dead subscriber fills its own channel and no other one.
    for name in ["full", "other"] {
        let mut route = channel_of(vec![subscriber("hangs", Some("http://sink/"))]);
        route.asynchronous = true;
        route.retention = Some(crate::engine::Retention {
            bytes_max: 4096,
            ..Default::default()
        });
        world
            .apply(Update::Channel(
                channel_id("InMemoryChannel", name),
                Some(route),
            ))
            .await;
    }
    let mut statuses = Vec::new();
    for number in 0..30 {
        statuses.push(
            world
                .send_to_channel("InMemoryChannel", "full", &number.to_string())
                .await,
        );
    }
    assert_eq!(statuses[0].0, 202);
    let (status, why) = statuses.last().unwrap();
    assert_eq!(*status, StatusCode::TOO_MANY_REQUESTS);
    assert!(why.contains("full") && why.contains("4096"), "{why}");
    assert_eq!(
        world
            .send_to_channel("InMemoryChannel", "other", "1")
            .await
            .0,
        202
    );
}

/// Whoever waits for deliveries that a stop drops is told to send again.
#[tokio::test(start_paused = true)]
async fn a_stop_answers_those_who_wait() {
    let world = Setup::new(true).start(|_, _| Act::Hang);
    world
        .broker("InMemoryChannel", &[trigger("t", None, "http://sink/")])
        .await;
    let send = world.send("1", "foo");
    let stop = async {
        until("the attempt", || !world.sinks.at("sink").is_empty()).await;
        world.handle.drain(Duration::from_secs(3)).await;
    };
    let ((status, why), ()) = tokio::join!(send, stop);
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(why.contains("send the event again"), "{why}");
}

/// A body that comes byte by byte is given up, however patient its sender is.
#[tokio::test(start_paused = true)]
async fn a_slow_body_is_given_up() {
    use http_body::Frame;
    use kinglet_decide::call::{BoxError, CallBody};

    let world = Setup::new(true).start(|_, _| answer(200, &[], ""));
    world.broker("InMemoryChannel", &[]).await;
    let drips = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_secs(9)).await;
        Some((
            Ok::<_, BoxError>(Frame::data(bytes::Bytes::from_static(b"x"))),
            (),
        ))
    });
    let body: CallBody = Box::pin(http_body_util::StreamBody::new(drips));
    let request = event_request("/ns/default", "1", "foo").body(body).unwrap();
    let answer = world.handle.ingress(false).call(request).await;
    assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
}
