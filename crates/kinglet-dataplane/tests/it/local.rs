//! Services of this process behind Service names, and calls into the gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use kinglet_dataplane::Listener;
use kinglet_decide::call::{Answer, BoxError, CallBody, HttpService};
use kinglet_decide::feed::{Key, ServiceBackend, Update};
use kinglet_decide::route::Visibility;
use tokio::sync::Semaphore;

use crate::world::*;

/// A service made of a function.
struct Service<F>(F);

impl<F, A> HttpService for Service<F>
where
    F: Fn(Request<CallBody>) -> A + Send + Sync + 'static,
    A: Future<Output = Response<CallBody>> + Send + 'static,
{
    fn call(&self, request: Request<CallBody>) -> Answer<'_> {
        Box::pin((self.0)(request))
    }
}

fn service<F, A>(answer: F) -> Arc<dyn HttpService>
where
    F: Fn(Request<CallBody>) -> A + Send + Sync + 'static,
    A: Future<Output = Response<CallBody>> + Send + 'static,
{
    Arc::new(Service(answer))
}

fn body(text: impl Into<Bytes>) -> CallBody {
    Box::pin(Full::new(text.into()).map_err(|never| match never {}))
}

fn nothing() -> CallBody {
    Box::pin(Empty::new().map_err(|never| match never {}))
}

/// Says what it was asked: method, path, and some headers.
fn talkative() -> Arc<dyn HttpService> {
    service(|request| async move {
        let (parts, asked) = request.into_parts();
        let asked = asked.collect().await.unwrap().to_bytes();
        let header = |name: &str| {
            let value = parts.headers.get(name);
            value.map_or("-".to_owned(), |value| value.to_str().unwrap().to_owned())
        };
        let text = format!(
            "{} {} {} {} {}",
            parts.method,
            parts.uri,
            header("host"),
            header("x-forwarded-for"),
            String::from_utf8_lossy(&asked)
        );
        let mut response = Response::new(body(text));
        *response.status_mut() = StatusCode::ACCEPTED;
        response
    })
}

/// Sends each frame back, and trailers at the end.
fn echo() -> Arc<dyn HttpService> {
    service(|request| async move {
        let frames = futures_util::stream::unfold(Some(request.into_body()), |body| async move {
            let mut body = body?;
            match body.frame().await {
                Some(Ok(frame)) => Some((Ok(frame), Some(body))),
                Some(Err(error)) => Some((Err(error), None)),
                None => {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("x-end", "yes".parse().unwrap());
                    Some((Ok::<_, BoxError>(Frame::trailers(trailers)), None))
                }
            }
        });
        Response::new(Box::pin(StreamBody::new(frames)) as CallBody)
    })
}

fn broker() -> Key {
    Key::new("knative-eventing", "broker-ingress")
}

async fn alias(world: &mut World, name: &str, target: Option<&str>) {
    let backend = target.map(|target| {
        Arc::new(ServiceBackend {
            external_name: Some(target.into()),
            ..ServiceBackend::default()
        })
    });
    world
        .updates
        .send(Update::Service(Key::new("ns", name), backend))
        .await
        .unwrap();
    world.settle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_service_is_found_by_its_names_inside_only() {
    let mut world = World::start().await;
    let registered = world.handle.local_service(broker(), talkative());
    for host in [
        "broker-ingress.knative-eventing",
        "broker-ingress.knative-eventing.svc",
        "Broker-Ingress.knative-eventing.svc.cluster.local:80",
    ] {
        let got = get(world.local, host, "/ns/default?a=b").await;
        assert_eq!(got.status, 202, "{host}: {}", got.body);
        assert_eq!(got.body, format!("GET /ns/default?a=b {host} 127.0.0.1 "));
        let got = get(world.external, host, "/").await;
        assert_eq!(got.status, 404, "{host}");
    }
    let post = Request::post("http://broker-ingress.knative-eventing/x")
        .body(full("event"))
        .unwrap();
    let got = collect(
        within(h2(world.local).await.send_request(post))
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(
        got.body,
        "POST /x broker-ingress.knative-eventing 127.0.0.1 event"
    );
    // By a rule as well, and not from outside, even where the rule is public.
    let mut public = rule("public.test", vec![to(&[(100, "one")])]);
    public.visibility = Visibility::External;
    public.paths[0].splits[0].target.namespace = "knative-eventing".into();
    public.paths[0].splits[0].target.service = "broker-ingress".into();
    world.route(vec![public]).await;
    assert_eq!(get(world.local, "public.test", "/").await.status, 202);
    drop(registered);
    let got = get(world.local, "broker-ingress.knative-eventing", "/").await;
    assert_eq!(got.status, 404, "gone with its guard");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_later_takes_the_name_and_keeps_it() {
    let world = World::start().await;
    let says = |text: &'static str| service(move |_| async move { Response::new(body(text)) });
    let first = world.handle.local_service(broker(), says("first"));
    let _second = world.handle.local_service(broker(), says("second"));
    drop(first);
    let got = get(world.local, "broker-ingress.knative-eventing", "/").await;
    assert_eq!(got.body, "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_lead_to_a_local_service_but_not_in_circles() {
    let mut world = World::start().await;
    let _registered = world.handle.local_service(broker(), talkative());
    let target = "broker-ingress.knative-eventing.svc.cluster.local";
    alias(&mut world, "channel", Some(target)).await;
    let got = get(world.local, "channel.ns.svc.cluster.local", "/").await;
    assert_eq!(got.body, "GET / channel.ns.svc.cluster.local 127.0.0.1 ");
    for number in 0..10 {
        let to = format!("step-{}.ns.svc", number + 1);
        alias(&mut world, &format!("step-{number}"), Some(&to)).await;
    }
    alias(&mut world, "step-10", Some(target)).await;
    assert_eq!(
        get(world.local, "step-3.ns", "/").await.status,
        202,
        "eight steps"
    );
    assert_eq!(
        get(world.local, "step-2.ns", "/").await.status,
        404,
        "nine steps"
    );
    alias(&mut world, "step-10", Some("step-9.ns")).await;
    assert_eq!(get(world.local, "step-9.ns", "/").await.status, 404);
    assert_eq!(get(world.external, "channel.ns", "/").await.status, 404);
    alias(&mut world, "channel", None).await;
    assert_eq!(get(world.local, "channel.ns", "/").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_streams_both_ways_from_a_socket_and_from_a_caller() {
    let world = World::start().await;
    let _registered = world.handle.local_service(broker(), echo());
    let caller = world.handle.caller(Listener::ClusterLocal);
    for from_socket in [true, false] {
        let (chunks, mut queue) = tokio::sync::mpsc::channel::<Bytes>(1);
        let stream = futures_util::stream::poll_fn(move |cx| {
            queue.poll_recv(cx).map(|chunk| {
                chunk.map(|chunk| Ok::<_, std::convert::Infallible>(Frame::data(chunk)))
            })
        });
        let request = Request::post("http://broker-ingress.knative-eventing/");
        let stream = StreamBody::new(stream);
        chunks.send(Bytes::from_static(b"0")).await.unwrap();
        let mut answer: CallBody = if from_socket {
            let request = request
                .header("te", "trailers")
                .body(stream.boxed())
                .unwrap();
            let sent = within(h2(world.local).await.send_request(request)).await;
            Box::pin(sent.unwrap().into_body().map_err(BoxError::from))
        } else {
            let stream: CallBody = Box::pin(stream.map_err(|never| match never {}));
            let request = request.body(stream).unwrap();
            within(caller.call(request)).await.into_body()
        };
        for number in 0..10u8 {
            let frame = within(answer.frame()).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), Bytes::from(vec![b'0' + number]));
            chunks.send(Bytes::from(vec![b'1' + number])).await.unwrap();
        }
        drop(chunks);
        let rest = within(answer.collect()).await.unwrap();
        assert_eq!(rest.trailers().expect("trailers")["x-end"], "yes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_the_end_of_its_request_only() {
    let world = World::start().await;
    let _registered = world.handle.local_service(
        broker(),
        service(|request| async move {
            match request.uri().path() {
                "/call" => panic!("in the call"),
                "/body" => Response::new(Box::pin(Broken) as CallBody),
                _ => Response::new(body("ok")),
            }
        }),
    );
    let host = "broker-ingress.knative-eventing";
    let mut client = H1::to(world.local).await;
    assert_eq!(client.get(host, "/call").await.status, 500);
    assert_eq!(client.get(host, "/").await.body, "ok");
    let request = Request::get("/body")
        .header("host", host)
        .body(empty())
        .unwrap();
    let broken = client.send(request).await.into_body();
    assert!(
        within(broken.collect()).await.is_err(),
        "the client notices"
    );
    assert_eq!(get(world.local, host, "/").await.body, "ok");
    let caller = world.handle.caller(Listener::ClusterLocal);
    let ask = |path: &str| {
        Request::get(path)
            .header("host", host)
            .body(nothing())
            .unwrap()
    };
    assert_eq!(within(caller.call(ask("/call"))).await.status(), 500);
    let broken = within(caller.call(ask("/body"))).await.into_body();
    assert!(within(broken.collect()).await.is_err());
}

struct Broken;

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        panic!("in the body")
    }
}

async fn call(caller: &Arc<dyn HttpService>, host: &str, path: &str) -> (u16, String) {
    let request = Request::get(path)
        .header("host", host)
        .body(nothing())
        .unwrap();
    let (head, body) = within(caller.call(request)).await.into_parts();
    let body = within(body.collect()).await.unwrap().to_bytes();
    (
        head.status.as_u16(),
        String::from_utf8_lossy(&body).into_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_the_way_of_a_request_from_a_socket() {
    let mut world = World::start().await;
    world.one(backend("one", &[mirror().await])).await;
    let inside = world.handle.caller(Listener::ClusterLocal);
    let outside = world.handle.caller(Listener::External);
    for (host, path) in [
        ("one.test", "/a?b=c"),
        ("ONE.test:80", "/"),
        ("nowhere.test", "/"),
        ("one.ns.svc.cluster.local", "/by-name"),
    ] {
        for (caller, address) in [(&inside, world.local), (&outside, world.external)] {
            let got = get(address, host, path).await;
            let (status, text) = call(caller, host, path).await;
            let without_id = |text: &str| {
                let lines = text
                    .lines()
                    .filter(|line| !line.starts_with("x-request-id"));
                lines.collect::<Vec<_>>().join("\n")
            };
            assert_eq!(status, got.status.as_u16(), "{host}");
            assert_eq!(without_id(&text), without_id(&got.body), "{host}");
        }
    }
    // What only a connection can do is not asked of one.
    let request = Request::post("/")
        .header("host", "one.test")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("expect", "100-continue")
        .body(body("x"))
        .unwrap();
    let response = within(inside.call(request)).await;
    assert_eq!(response.status(), 200);
    let seen = within(response.into_body().collect())
        .await
        .unwrap()
        .to_bytes();
    let seen = String::from_utf8_lossy(&seen);
    assert!(
        !seen.contains("upgrade") && !seen.contains("expect"),
        "{seen}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_holds_its_slot_and_a_stop_waits_for_it() {
    let gate = Arc::new(Semaphore::new(0));
    let begun = Arc::new(AtomicUsize::new(0));
    let (opened, counted) = (gate.clone(), begun.clone());
    let slow = container(move |_| {
        let (gate, begun) = (opened.clone(), counted.clone());
        async move {
            begun.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            reply("done")
        }
    })
    .await;
    let mut world = World::start().await;
    let mut limited = backend("one", &[slow]);
    limited.container_concurrency = 1;
    world.one(limited).await;
    let caller = world.handle.caller(Listener::ClusterLocal);
    let calls: Vec<_> = (0..2)
        .map(|_| {
            let caller = caller.clone();
            tokio::spawn(async move { call(&caller, "one.test", "/").await })
        })
        .collect();
    eventually("both are there", || world.handle.in_flight() == 2).await;
    assert_eq!(begun.load(Ordering::SeqCst), 1, "one at a time");
    let handle = world.handle.clone();
    let stopping = tokio::spawn(async move { handle.shutdown(Duration::from_secs(10)).await });
    within(async {
        while call(&caller, "nowhere.test", "/").await.0 != 503 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert!(!stopping.is_finished());
    gate.add_permits(2);
    for answer in calls {
        assert_eq!(within(answer).await.unwrap(), (200, "done".to_owned()));
    }
    assert!(within(stopping).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_ends_the_work_of_a_local_service() {
    struct Ended(Arc<AtomicUsize>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let world = World::start().await;
    let (begun, ended) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (started, stopped) = (begun.clone(), ended.clone());
    let _registered = world.handle.local_service(
        broker(),
        service(move |_| {
            started.fetch_add(1, Ordering::SeqCst);
            let guard = Ended(stopped.clone());
            async move {
                let _guard = guard;
                std::future::pending().await
            }
        }),
    );
    let address = world.local;
    let asked =
        tokio::spawn(async move { get(address, "broker-ingress.knative-eventing", "/").await });
    eventually("it has begun", || begun.load(Ordering::SeqCst) == 1).await;
    asked.abort();
    drop(asked.await);
    let caller = world.handle.caller(Listener::ClusterLocal);
    let mut called = Box::pin(call(&caller, "broker-ingress.knative-eventing", "/"));
    eventually("the call has begun", || {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = called.as_mut().poll(&mut context);
        begun.load(Ordering::SeqCst) == 2
    })
    .await;
    drop(called);
    eventually("the dropped call has ended", || {
        ended.load(Ordering::SeqCst) >= 1
    })
    .await;
    // A stop ends what is left, if the client's connection has not yet.
    let clean = world.handle.shutdown(Duration::from_secs(10)).await;
    assert!(clean.is_empty(), "nothing is left");
    assert_eq!(ended.load(Ordering::SeqCst), 2);
}
