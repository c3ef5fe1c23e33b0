//! One function per parser that eats what somebody else wrote. The property is the same for all: no panic, no hang,
//! no memory beyond a bound, whatever the bytes are.
//!
//! Flow: `cargo xtask soak fuzz` runs each for minutes under libFuzzer (nightly); the ordinary tests
//! (`crates/kinglet/tests/it/corpus.rs`) run `fuzz/seeds` through the same functions on stable.

use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use kinglet_apiserver::{ApiServer, Identity};
use serde_json::{Value, json};

/// A parser's name, which is the name of its folder of seeds, and the function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 13] = [
    ("request_head", request_head),
    ("api_request", api_request),
    ("printer_column", printer_column),
    ("json_patch", json_patch),
    ("image_layer", image_layer),
    ("image_names", image_names),
    ("registries_conf", registries_conf),
    ("log_template", log_template),
    ("event", event),
    ("cesql", cesql),
    ("filters", filters),
    ("durations", durations),
    ("cron", cron),
];

/// An answer that takes longer is a hang.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// A server is made anew after so many inputs, so that what they store does not add up.
const INPUTS_PER_SERVER: u32 = 256;

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
});

/// Bytes of a client at the gateway, before any route is known.
pub fn request_head(data: &[u8]) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    static GATEWAY: LazyLock<std::net::SocketAddr> = LazyLock::new(|| RUNTIME.block_on(gateway()));
    let address = *GATEWAY;
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream.write_all(data).await?;
        stream.shutdown().await?;
        let mut answer = Vec::new();
        stream.take(1 << 20).read_to_end(&mut answer).await?;
        std::io::Result::Ok(())
    };
    // It may hang up at any time, and does after the end of its client; a panic in its task ends the fuzzer.
    let ended = RUNTIME.block_on(async { tokio::time::timeout(ANSWER_MAX, exchange).await });
    assert!(
        ended.is_ok(),
        "the connection of a client that has ended is still open"
    );
}

async fn gateway() -> std::net::SocketAddr {
    let (updates, updates_in) = tokio::sync::mpsc::channel(1);
    let (reports, mut reports_in) = tokio::sync::mpsc::channel(1);
    let (applied, _) = tokio::sync::watch::channel(0);
    let (dataplane, handle) = kinglet_dataplane::Dataplane::new(
        kinglet_dataplane::Options::default(),
        updates_in,
        reports,
        applied,
        kinglet_process::Clock::system(),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("bound");
    handle.serve(listener, kinglet_dataplane::Listener::External);
    // Both live as long as the process.
    #[expect(clippy::disallowed_methods, reason = "lives as long as the process")]
    tokio::task::spawn(async move {
        let _updates = updates;
        tokio::join!(
            dataplane.run(tokio_util::sync::CancellationToken::new()),
            async { while reports_in.recv().await.is_some() {} }
        );
        drop(handle);
    });
    address
}

/// One request to the API server: `METHOD PATH CONTENT-TYPE`, a line's end, and the body. Paths, selectors, every kind
/// of patch, decoding and validation lie behind it.
pub fn api_request(data: &[u8]) {
    static SERVER: Mutex<Option<(u32, ApiServer)>> = Mutex::new(None);
    let server = {
        let mut slot = SERVER
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let used = slot.as_ref().map_or(u32::MAX, |(used, _)| *used);
        if used >= INPUTS_PER_SERVER {
            *slot = Some((0, server()));
        }
        let (used, server) = slot.as_mut().expect("made above");
        *used += 1;
        server.clone()
    };
    let (line, body) = match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[][..]),
    };
    let mut words = line.split(|byte| *byte == b' ');
    let request = http::Request::builder()
        .method(words.next().unwrap_or_default())
        .uri(words.next().unwrap_or_default())
        .header("content-type", words.next().unwrap_or(b"application/json"))
        .body(Full::new(Bytes::copy_from_slice(body)));
    // What the HTTP library refuses never gets to us.
    if let Ok(request) = request {
        ask(&server, request);
    }
}

fn server() -> ApiServer {
    let store = kinglet_store::Store::in_memory(ApiServer::store_options());
    let server =
        RUNTIME.block_on(async { ApiServer::new(store, kinglet_apiserver::Options::default()) });
    for object in [
        (
            "/api/v1/namespaces",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}),
        ),
        (
            "/api/v1/namespaces/default/configmaps",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"app": "a"}}, "data": {"k": "v"}}),
        ),
        (
            "/api/v1/namespaces/default/pods",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
        ),
    ] {
        let request = http::Request::post(object.0)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(object.1.to_string())))
            .expect("a request");
        ask(&server, request);
    }
    server
}

fn ask(server: &ApiServer, request: http::Request<Full<Bytes>>) {
    let service = server.service(Identity::in_process("fuzz"));
    let answer = tower::ServiceExt::oneshot(service, request);
    let ended = RUNTIME.block_on(async { tokio::time::timeout(ANSWER_MAX, answer).await });
    assert!(ended.is_ok(), "the API server did not answer");
}

/// A JSONPath of a CRD's printer column, as anybody who may make CRDs writes it, applied to an object.
pub fn printer_column(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else {
        return;
    };
    let path = kinglet_apiserver::jsonpath::JsonPath::parse(path);
    let mut deep = json!({"a.b": "c", "n": 1});
    for level in 0..40 {
        deep = json!({"list": [deep, {"type": "Ready", "n": level}], "map": {"a": null}});
    }
    for object in [
        json!(null),
        json!([]),
        json!({"spec": {"list": [{"type": "Ready", "n": 1}, "x"]}}),
        deep,
    ] {
        path.find(&object);
    }
}

/// A JSON Patch or merge patch on an object; bounded growth is part of the property.
pub fn json_patch(data: &[u8]) {
    let Ok(patch) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    let mut object = json!({"a": {"b": [1, 2, 3], "c/d": "e"}, "f": null});
    let _ = kinglet_apiserver::patch::json(&mut object, &patch);
    let mut object = json!({"a": {"b": [1, 2, 3], "c/d": "e"}, "f": null});
    kinglet_apiserver::patch::merge(&mut object, &patch);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let _ = kinglet_apiserver::patch::strategic("", "v1", "Pod", &pod, &patch);
}

/// A layer of an image: nothing of it may be outside of the folder that it is unpacked to.
pub fn image_layer(data: &[u8]) {
    let folder = std::env::temp_dir().join(format!("kinglet-fuzz-{}", std::process::id()));
    let (target, outside) = (folder.join("target"), folder.join("outside"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&target).expect("a folder");
    std::fs::create_dir_all(&outside).expect("a folder");
    let _ = kinglet_image::layer::unpack_stream(std::io::Cursor::new(data), &target);
    let names: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names.len(), 2, "something was written beside: {names:?}");
    assert!(
        std::fs::read_dir(&outside).expect("there").next().is_none(),
        "something was written outside"
    );
    let _ = std::fs::remove_dir_all(&folder);
}

/// References to images.
pub fn image_names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(name) = kinglet_image::ImageName::parse(text) {
        let again = kinglet_image::ImageName::parse(&name.to_string());
        assert_eq!(
            again.map(|name| name.to_string()).ok(),
            Some(name.to_string()),
            "a name reads back"
        );
    }
}

/// containers-registries.conf(5).
pub fn registries_conf(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = kinglet_image::Registries::parse(text);
    }
}

/// The template of request logs, and docker's stored credentials.
pub fn log_template(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = kinglet_api::template::Template::parse("fuzz", text);
    }
    let _ = kinglet_image::Credentials::default().add_docker_config(data);
}

/// An event as somebody sends it: lines `NAME: VALUE`, an empty line, and the body. What is read can be sent on in both
/// modes, and is read again as the same.
pub fn event(data: &[u8]) {
    use kinglet_events::binding::{Format, decode, decode_batch, encode};
    let (headers, body) = message(data);
    let _ = decode_batch(&headers, &body);
    let Ok(mut event) = decode(&headers, body) else {
        return;
    };
    event.stringify_extensions();
    let mut headers = http::HeaderMap::new();
    let body = encode(&event, Format::Binary, &mut headers);
    let again = decode(&headers, body).expect("what was read can be sent");
    assert_eq!(again.id(), event.id(), "the same event");
    assert_eq!(
        again.data().unwrap_or(&Bytes::new()),
        event.data().unwrap_or(&Bytes::new()),
        "the same data"
    );
    let mut headers = http::HeaderMap::new();
    let body = encode(&event, Format::Json, &mut headers);
    let again = decode(&headers, body).expect("and as JSON");
    assert_eq!(again.id(), event.id(), "the same event");
}

fn message(data: &[u8]) -> (http::HeaderMap, Bytes) {
    let mut headers = http::HeaderMap::new();
    let mut rest = data;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            break;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (
            http::HeaderName::from_bytes(name),
            http::HeaderValue::from_bytes(value),
        ) {
            headers.append(name, value);
        }
    }
    (headers, Bytes::copy_from_slice(rest))
}

/// An event that filters are asked about.
fn sample_event() -> kinglet_events::event::Event {
    use kinglet_events::event::{Event, ExtensionName, Value};
    let mut event = Event::new("1", "/a/b", "com.example.created").expect("valid");
    for (name, value) in [
        ("text", Value::from("abc")),
        ("num", Value::Integer(7)),
        ("flag", Value::Boolean(true)),
    ] {
        let name = ExtensionName::parse(name).expect("a name");
        event.set_extension(name, value).expect("valid");
    }
    event
}

/// An expression of a Trigger: parsed and evaluated.
pub fn cesql(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(expression) = kinglet_events::cesql::Expression::parse(text) {
        expression.evaluate(&sample_event());
    }
}

/// `spec.filters` of a Trigger as JSON: checked, compiled, and asked directly and by an index, with the same answer.
pub fn filters(data: &[u8]) {
    use kinglet_events::filter::{Filter, FilterIndex, SubscriptionsApiFilter, validate};
    let Ok(filters) = serde_json::from_slice::<Vec<SubscriptionsApiFilter>>(data) else {
        return;
    };
    validate(None, &filters);
    let (filter, _) = Filter::compile(None, &filters, None);
    let event = sample_event();
    let says = filter.matches(&event);
    let mut matching = Vec::new();
    FilterIndex::new([std::sync::Arc::new(filter)]).matching(&event, &mut matching);
    assert_eq!(matching.len(), usize::from(says), "the index says the same");
}

/// Durations of delivery specs, and the header `Retry-After`.
pub fn durations(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(duration) = kinglet_events::duration::IsoDuration::parse(text) {
        assert_eq!(
            duration.is_negative() || duration.is_zero(),
            duration.to_wait().is_zero(),
            "only more than none is waited"
        );
    }
    let wait = kinglet_events::delivery::retry_after(text, jiff::Timestamp::UNIX_EPOCH);
    assert!(wait.unwrap_or_default() <= kinglet_events::delivery::WAIT_MAX);
}

/// Schedules of PingSources: what is taken comes after the time that was asked about, and again.
pub fn cron(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (schedule, zone) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(schedule) = kinglet_api::cron::Schedule::parse(schedule, zone) else {
        return;
    };
    let mut at = jiff::Timestamp::UNIX_EPOCH;
    for _ in 0..3 {
        let Some(next) = schedule.next_after(at) else {
            return;
        };
        assert!(next > at, "time goes on");
        at = next;
    }
}
