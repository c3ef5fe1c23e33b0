//! Statistics between processes: both ends of the socket, each against the other and against a peer of the test, and the
//! scraper against queue-proxies of the test.

mod scrape;

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use kinglet_dataplane::stats::{StatClient, StatClientOptions, serve};
use kinglet_decide::feed::{Key, Report, Source, Stat};
use kinglet_decide::wire::{decode_stats, encode_stats};
use kinglet_process::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_util::sync::CancellationToken;

use crate::world::PATIENCE;

fn revision() -> Key {
    Key::new("default", "hello-00001")
}

fn poke() -> Report {
    Report::Poke {
        revision: revision(),
        source: Source::itself("activator-abc"),
    }
}

fn counted(concurrency: f64, in_flight: u32) -> Report {
    Report::Stat {
        revision: revision(),
        source: Source::itself("activator-abc"),
        stat: Stat {
            average_concurrent_requests: concurrency,
            request_count: concurrency,
            in_flight: Some(in_flight),
            ..Stat::default()
        },
    }
}

fn frame(concurrency: f64) -> Message {
    let stat = Stat {
        average_concurrent_requests: concurrency,
        ..Stat::default()
    };
    Message::binary(encode_stats([(&revision(), "activator-abc", &stat)]))
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

struct Autoscaler {
    address: SocketAddr,
    reports: mpsc::Receiver<Report>,
    tasks: Tasks,
}

impl Drop for Autoscaler {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

impl Autoscaler {
    async fn start() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap()).await
    }

    async fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, reports) = mpsc::channel(64);
        let tasks = Tasks::new();
        let owns = |bucket: &str| bucket == "autoscaler-bucket-00-of-02";
        tasks.spawn("statistics", serve(listener, sender, owns, tasks.clone()));
        Self {
            address,
            reports,
            tasks,
        }
    }

    async fn connect(&self) -> WebSocketStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("ws://{}/any/path", self.address);
        let request = request.into_client_request().unwrap();
        let (socket, _) = tokio_tungstenite::client_async(request, stream)
            .await
            .unwrap();
        socket
    }

    async fn next(&mut self) -> Report {
        soon("a report", self.reports.recv()).await.unwrap()
    }

    /// The concurrency of the next statistic, and who said so about which pod.
    async fn concurrency(&mut self) -> (f64, Source) {
        match self.next().await {
            Report::Stat {
                revision: of,
                source,
                stat,
            } => {
                assert_eq!(of, revision());
                assert_eq!(stat.in_flight, None, "not on the wire");
                (stat.average_concurrent_requests, source)
            }
            other => panic!("{other:?} is no statistic"),
        }
    }

    async fn gone(&mut self) -> std::sync::Arc<str> {
        match self.next().await {
            Report::Gone { reporter } => reporter,
            other => panic!("{other:?} is no end"),
        }
    }
}

struct Activator {
    reports: mpsc::Sender<Report>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Drop for Activator {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Activator {
    fn start(options: StatClientOptions) -> Self {
        let (reports, receiver) = mpsc::channel(64);
        let stop = CancellationToken::new();
        let running = tokio::spawn(StatClient::new(options).run(receiver, stop.clone()));
        Self {
            reports,
            stop,
            running,
        }
    }

    async fn say(&self, report: Report) {
        soon("room for a report", self.reports.send(report))
            .await
            .unwrap();
    }
}

fn quick(address: SocketAddr) -> StatClientOptions {
    StatClientOptions {
        ping_every: Duration::from_millis(50),
        pong_timeout: Duration::from_secs(5),
        first_retry: Duration::from_millis(10),
        ..StatClientOptions::new(address.to_string())
    }
}

#[tokio::test]
async fn what_an_activator_counts_reaches_the_autoscaler() {
    let mut autoscaler = Autoscaler::start().await;
    let activator = Activator::start(quick(autoscaler.address));
    activator.say(poke()).await;
    let (concurrency, source) = autoscaler.concurrency().await;
    assert_eq!((concurrency, &*source.pod), (1.0, "activator-abc"));
    activator.say(counted(3.5, 3)).await;
    assert_eq!(autoscaler.concurrency().await.0, 2.5, "one was told before");
    activator.say(counted(3.5, 3)).await;
    assert_eq!(autoscaler.concurrency().await.0, 3.5);
    activator.stop.cancel();
    assert_eq!(autoscaler.gone().await, source.reporter);
}

#[tokio::test]
async fn an_activator_ends_with_what_it_reports_for() {
    let autoscaler = Autoscaler::start().await;
    let mut activator = Activator::start(quick(autoscaler.address));
    let (reports, _) = mpsc::channel(1);
    activator.reports = reports;
    soon("the end", &mut activator.running).await.unwrap();
}

#[tokio::test]
async fn pings_are_answered_and_what_is_no_statistic_is_ignored() {
    let mut autoscaler = Autoscaler::start().await;
    let mut socket = autoscaler.connect().await;
    socket.send(Message::Ping("x".into())).await.unwrap();
    let pong = soon("a pong", socket.next()).await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong("x".into()));
    socket.send(Message::text("hello")).await.unwrap();
    socket.send(Message::binary("<html>")).await.unwrap();
    socket.send(Message::binary("")).await.unwrap();
    socket.send(Message::Pong("y".into())).await.unwrap();
    socket.send(frame(2.0)).await.unwrap();
    let (concurrency, source) = autoscaler.concurrency().await;
    assert_eq!(concurrency, 2.0);
    drop(socket);
    assert_eq!(autoscaler.gone().await, source.reporter);
}

#[tokio::test]
async fn a_goodbye_is_answered_and_is_the_end() {
    let mut autoscaler = Autoscaler::start().await;
    let mut socket = autoscaler.connect().await;
    socket.close(None).await.unwrap();
    let answer = soon("a goodbye", socket.next()).await.unwrap().unwrap();
    assert!(matches!(answer, Message::Close(_)), "{answer:?}");
    autoscaler.gone().await;
}

#[tokio::test]
async fn a_frame_beyond_the_bound_ends_the_connection_in_words() {
    let mut autoscaler = Autoscaler::start().await;
    let mut socket = autoscaler.connect().await;
    // The length alone is enough: nothing of it is read.
    let head = [0x82, 0xff, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 1, 2, 3, 4];
    socket.get_mut().write_all(&head).await.unwrap();
    assert_eq!(close_code(&mut socket).await, 1009);
    autoscaler.gone().await;
    let mut other = autoscaler.connect().await;
    other.send(frame(1.0)).await.unwrap();
    assert_eq!(autoscaler.concurrency().await.0, 1.0);
}

#[tokio::test]
async fn bytes_that_are_no_frames_end_their_connection_only() {
    let mut autoscaler = Autoscaler::start().await;
    let mut socket = autoscaler.connect().await;
    socket.get_mut().write_all(&[0xff; 64]).await.unwrap();
    autoscaler.gone().await;
    let mut other = autoscaler.connect().await;
    other.send(frame(1.0)).await.unwrap();
    assert_eq!(autoscaler.concurrency().await.0, 1.0);
}

async fn close_code(socket: &mut WebSocketStream<TcpStream>) -> u16 {
    loop {
        match soon("a goodbye", socket.next()).await {
            Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
            Some(Ok(_)) => {}
            other => panic!("{other:?} instead of a goodbye"),
        }
    }
}

#[tokio::test]
async fn an_autoscaler_that_stops_sends_its_clients_elsewhere() {
    let autoscaler = Autoscaler::start().await;
    let mut socket = autoscaler.connect().await;
    autoscaler.tasks.cancel();
    assert_eq!(close_code(&mut socket).await, 1012);
    soon("its tasks' end", autoscaler.tasks.shutdown(PATIENCE)).await;
}

#[tokio::test]
async fn other_requests_are_answered_as_what_they_are() {
    let autoscaler = Autoscaler::start().await;
    let upgrade = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let rows = [
        ("Host: x\r\nUser-Agent: kube-probe/1.34\r\n".to_owned(), 200),
        ("Host: x\r\n".to_owned(), 400),
        (format!("Host: x\r\n{upgrade}"), 101),
        (
            format!("Host: autoscaler.knative-serving:8080\r\n{upgrade}"),
            101,
        ),
        (
            format!(
                "Host: autoscaler-bucket-00-of-02.knative-serving.svc.cluster.local:8080\r\n{upgrade}"
            ),
            101,
        ),
        (
            format!(
                "Host: autoscaler-bucket-01-of-02.knative-serving.svc.cluster.local:8080\r\n{upgrade}"
            ),
            503,
        ),
        (
            format!("Host: x\r\nOrigin: http://evil.example\r\n{upgrade}"),
            403,
        ),
        (format!("Host: x\r\n{}", upgrade.replace("13", "8")), 400),
    ];
    for (head, expected) in rows {
        let mut stream = TcpStream::connect(autoscaler.address).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\n{head}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        soon("an answer", stream.read_exact(&mut status))
            .await
            .unwrap();
        let status = std::str::from_utf8(&status[9..]).unwrap();
        assert_eq!(status, expected.to_string(), "{head}");
    }
}

/// The other end of an activator's socket, by hand.
async fn accept(listener: &TcpListener) -> WebSocketStream<TcpStream> {
    let (stream, _) = soon("a connection", listener.accept()).await.unwrap();
    tokio_tungstenite::accept_async(stream).await.unwrap()
}

async fn heard(socket: &mut WebSocketStream<TcpStream>) -> f64 {
    soon("a statistic", async {
        loop {
            match socket.next().await.unwrap().unwrap() {
                Message::Binary(frame) => {
                    let all = decode_stats(&frame).unwrap();
                    return all.stats[0].stat.average_concurrent_requests;
                }
                Message::Ping(_) => {}
                other => panic!("{other:?} from a client"),
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_request_that_waits_is_told_to_the_next_autoscaler_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let activator = Activator::start(quick(listener.local_addr().unwrap()));
    let mut first = accept(&listener).await;
    activator.say(poke()).await;
    assert_eq!(heard(&mut first).await, 1.0);
    drop(first);
    let mut second = accept(&listener).await;
    assert_eq!(heard(&mut second).await, 1.0);
    activator.say(counted(4.0, 4)).await;
    assert_eq!(heard(&mut second).await, 3.0);
}

#[tokio::test]
async fn an_autoscaler_that_answers_no_ping_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = StatClientOptions {
        pong_timeout: Duration::from_secs(1),
        ..quick(listener.local_addr().unwrap())
    };
    let activator = Activator::start(options);
    // It is never read from, so it sends no pongs.
    let silent = accept(&listener).await;
    activator.say(poke()).await;
    let mut other = accept(&listener).await;
    assert_eq!(heard(&mut other).await, 1.0);
    drop(silent);
}

#[tokio::test]
async fn an_autoscaler_that_comes_late_hears_what_still_waits() {
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let activator = Activator::start(quick(address));
    activator.say(poke()).await;
    // Many more than there is room for: they are dropped, and nobody waits.
    for _ in 0..1000 {
        activator.say(counted(9.0, 9)).await;
    }
    let mut autoscaler = Autoscaler::at(address).await;
    assert_eq!(autoscaler.concurrency().await.0, 1.0);
    activator.say(counted(9.0, 9)).await;
    assert_eq!(autoscaler.concurrency().await.0, 8.0);
}
