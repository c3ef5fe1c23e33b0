//! Gateway, activator and queue-proxy behind each other, as three data planes in one process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kinglet_dataplane::Role;
use kinglet_dataplane::activator::Backends;
use kinglet_dataplane::feed::{self, Snapshot};
use kinglet_dataplane::queue::QueueProxy;
use kinglet_decide::feed::Update;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::half_closed::{half_closed, sized};
use crate::protocols::grpc;
use crate::roles::{BY_NAME, ask, queue_with, role};
use crate::world::*;

struct Chain {
    gateway: World,
    activator: World,
    queue: World,
    _proxy: QueueProxy,
    feed: watch::Sender<Arc<Snapshot>>,
    /// Pods that the activator has been told of.
    pods: watch::Receiver<usize>,
    concurrency: u32,
    timeout: u32,
    version: u64,
}

impl Chain {
    async fn to(user: SocketAddr) -> Self {
        Self::with(user, 0, 30).await
    }

    async fn with(user: SocketAddr, concurrency: u32, timeout: u32) -> Self {
        let (queue, proxy) = queue_with(user.port(), |variables| {
            variables.insert("CONTAINER_CONCURRENCY", concurrency.to_string());
            variables.insert("REVISION_TIMEOUT_SECONDS", timeout.to_string());
            let probe = format!(r#"{{"tcpSocket":{{"port":{}}}}}"#, user.port());
            variables.insert("SERVING_READINESS_PROBE", probe);
        })
        .await;
        let activator = World::with(role(Role::Activator)).await;
        let gateway = World::with(role(Role::Gateway)).await;
        let (feed, fed) = watch::channel(Arc::<Snapshot>::default());
        let backends = Backends {
            own: IpAddr::V4(Ipv4Addr::LOCALHOST),
            timeout: Duration::from_secs(1),
            every: Duration::from_millis(20),
        };
        let (told, mut updates) = tokio::sync::mpsc::channel(1);
        tokio::spawn(backends.run(fed.clone(), told));
        let (counted, pods) = watch::channel(0);
        let to_activator = activator.updates.clone();
        tokio::spawn(async move {
            while let Some(update) = updates.recv().await {
                let count = match &update {
                    Update::Revision(_, Some(backend)) => backend.endpoints.len(),
                    _ => 0,
                };
                to_activator.send(update).await.unwrap();
                counted.send_replace(count);
            }
        });
        tokio::spawn(feed::follow(fed, gateway.updates.clone()));
        let mut chain = Self {
            gateway,
            activator,
            queue,
            _proxy: proxy,
            feed,
            pods,
            concurrency,
            timeout,
            version: 0,
        };
        chain.describe(true).await;
        chain
    }

    /// With or without the pod.
    async fn describe(&mut self, pod: bool) {
        self.version += 1;
        let pods = match pod {
            true => format!(r#"{{"name":"pod","address":"{}"}}"#, self.queue.local),
            false => String::new(),
        };
        let text = format!(
            r#"{{"rule":{{"namespace":"ns","ingress":"i","hosts":["one.test"],"paths":[{{"headers":{{"X-H2":"1"}},"splits":[{{"serviceNamespace":"ns","serviceName":"one","servicePort":81,"appendHeaders":{{"Knative-Serving-Revision":"one","Knative-Serving-Namespace":"ns"}}}}]}},{{"splits":[{{"serviceNamespace":"ns","serviceName":"one","servicePort":80,"appendHeaders":{{"Knative-Serving-Revision":"one","Knative-Serving-Namespace":"ns"}}}}]}}]}}}}
{{"service":{{"namespace":"ns","name":"one","ports":[{{"port":80,"addresses":["{0}"]}},{{"port":81,"name":"h2c","addresses":["{0}"]}}]}}}}
{{"revision":{{"namespace":"ns","name":"one","timeoutSeconds":{1},"containerConcurrency":{2},"pods":[{pods}]}}}}"#,
            self.activator.local, self.timeout, self.concurrency
        );
        let snapshot = Snapshot::parse(&text, self.version).unwrap();
        self.feed.send_replace(Arc::new(snapshot));
        self.gateway.in_force(self.version).await;
        let wanted = usize::from(pod);
        within(self.pods.wait_for(|count| *count == wanted))
            .await
            .unwrap();
        self.activator.settle().await;
    }

    fn at_rest(&self) -> bool {
        [&self.gateway, &self.activator, &self.queue]
            .iter()
            .all(|world| world.handle.in_flight() == 0)
    }
}

/// A user container sees what Knative's shows (traces/runtime/container-sees.json: curl to an activator).
#[tokio::test(flavor = "multi_thread")]
async fn the_container_sees_what_it_sees_behind_knative() {
    let chain = Chain::to(mirror().await).await;
    let mut given = BY_NAME.to_vec();
    given.extend([
        ("host", "runtime.rt.example.com"),
        ("accept", "*/*"),
        ("user-agent", "curl/7.88.1"),
        ("x-request-id", "abc"),
        ("forwarded", "for=1.2.3.4"),
        ("k-network-hash", "gone"),
    ]);
    let got = within(async {
        loop {
            let got = ask(chain.activator.local, &given).await;
            if got.status == 200 {
                return got;
            }
        }
    })
    .await;
    assert_eq!(
        got.body,
        "GET /path?a=b HTTP/1.1\n\
         accept: */*\n\
         forwarded: for=1.2.3.4\n\
         host: runtime.rt.example.com\n\
         k-proxy-request: activator\n\
         user-agent: curl/7.88.1\n\
         x-forwarded-for: 127.0.0.1, 127.0.0.1\n\
         x-request-id: abc\n"
    );
    let got = ask(chain.gateway.external, &[("x-forwarded-for", "1.2.3.4")]).await;
    for line in [
        "host: one.test",
        "k-proxy-request: activator",
        "x-forwarded-for: 1.2.3.4, 127.0.0.1, 127.0.0.1, 127.0.0.1",
        "forwarded: for=1.2.3.4;proto=http, for=127.0.0.1",
        "x-forwarded-proto: http",
    ] {
        assert!(
            got.body.lines().any(|seen| seen == line),
            "{line}: {}",
            got.body
        );
    }
    for gone in ["knative-serving", "k-original-host", "k-network"] {
        assert!(!got.body.contains(gone), "{gone}: {}", got.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_streams_through_all_three_with_its_trailers() {
    let chain = Chain::to(grpc().await).await;
    let mut client = h2(chain.gateway.external).await;
    let (chunks, mut queue) = tokio::sync::mpsc::channel::<Bytes>(1);
    let stream = futures_util::stream::poll_fn(move |cx| {
        queue
            .poll_recv(cx)
            .map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    });
    let request = Request::post("http://one.test/ping.Ping/Stream")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-h2", "1")
        .body(StreamBody::new(stream).boxed())
        .unwrap();
    chunks.send(Bytes::from_static(b"0")).await.unwrap();
    let answer = within(client.send_request(request)).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    let mut answer = answer.into_body();
    for number in 0..10u8 {
        let frame = within(answer.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), Bytes::from(vec![b'0' + number]));
        chunks.send(Bytes::from(vec![b'1' + number])).await.unwrap();
    }
    drop(chunks);
    let rest = within(answer.collect()).await.unwrap();
    assert_eq!(rest.trailers().expect("trailers")["grpc-status"], "0");
    eventually("all slots are free", || chain.at_rest()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_goes_through_all_three_and_passes_half_close() {
    let chain = Chain::to(capitals().await).await;
    let mut client = TcpStream::connect(chain.gateway.external).await.unwrap();
    let head =
        "GET / HTTP/1.1\r\nHost: one.test\r\nConnection: Upgrade\r\nUpgrade: capitals\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let answer = read_until(&mut client, "HI ").await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    client.write_all(b"hello").await.unwrap();
    read_until(&mut client, "HELLO").await;
    client.shutdown().await.unwrap();
    read_until(&mut client, "BYE").await;
    eventually("all slots are free", || chain.at_rest()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shuts_down_its_side_is_answered_through_all_three() {
    let chain = Chain::to(sized().await).await;
    for path in ["/5", "/5/200", "/100000"] {
        let request =
            format!("POST {path} HTTP/1.1\r\nHost: one.test\r\nContent-Length: 3\r\n\r\nabc");
        let answer = half_closed(chain.gateway.external, &request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer:.300}");
    }
    eventually("all slots are free", || chain.at_rest()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_at_the_activator_until_a_queue_proxy_answers() {
    let mut chain = Chain::to(says("ok").await).await;
    chain.describe(false).await;
    let gateway = chain.gateway.external;
    let asked = tokio::spawn(async move { ask(gateway, &[]).await });
    assert_eq!(chain.activator.next_poke().await.name.as_ref(), "one");
    chain.describe(true).await;
    let got = within(asked).await.unwrap();
    assert_eq!((got.status.as_u16(), got.body.as_str()), (200, "ok"));
}

#[tokio::test(flavor = "multi_thread")]
async fn time_runs_from_the_arrival_at_the_activator() {
    let silent = listen().await;
    let mut chain = Chain::with(silent.local_addr().unwrap(), 0, 1).await;
    let got = ask(chain.gateway.external, &[]).await;
    assert_eq!(got.status, 504, "{}", got.body);
    assert!(got.body.ends_with("request timeout\n"), "{}", got.body);
    chain.describe(false).await;
    let got = ask(chain.gateway.external, &[]).await;
    assert_eq!(got.status, 504);
    assert_eq!(got.body, "activator request timeout\n");
    eventually("all slots are free", || chain.at_rest()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_the_revision_holds_at_its_container() {
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (counted, peak) = (running.clone(), most.clone());
    let user = container(move |_| {
        let (running, most) = (counted.clone(), peak.clone());
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            running.fetch_sub(1, Ordering::SeqCst);
            reply("ok")
        }
    })
    .await;
    let chain = Chain::with(user, 2, 30).await;
    let address = chain.gateway.external;
    let asked: Vec<_> = (0..60)
        .map(|_| tokio::spawn(async move { ask(address, &[]).await.body }))
        .collect();
    for answer in asked {
        assert_eq!(within(answer).await.unwrap(), "ok");
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
    eventually("all slots are free", || chain.at_rest()).await;
}
