//! `kubectl port-forward`: connections to ports of a pod, over SPDY, itself carried in a WebSocket by newer clients.

use std::collections::HashMap;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use http::{HeaderValue, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::idle::{Activity, GOODBYE_MAX};
use super::spdy::{self, Stream};
use super::{Connection, Upgrade, channels, websocket};
use crate::status::Status;

const PROTOCOL: &str = "portforward.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// What is read of a port at once.
const READ_BYTES: usize = 32 << 10;
/// Streams that wait for the other one of their connection: the client opens both at once. More are refused.
const PAIRS_WAITING_MAX: usize = 128;
/// Connections to the pod at once, of one client; also those count of which the client has ended its half.
const FORWARDS_MAX: usize = 256;
const STREAMS_WAITING_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Tunnel,
    Spdy,
}

pub(super) fn negotiate(upgrade: &Upgrade) -> Result<Protocol, Status> {
    let refused = |offered: Vec<&str>, accepted: &str| {
        Err(Status::bad_request(format!(
            "unable to negotiate protocol: client supports {offered:?}, server accepts [{accepted}]"
        )))
    };
    if upgrade.wants("websocket") {
        let offered = upgrade.list("sec-websocket-protocol");
        return if offered.contains(&TUNNEL) {
            Ok(Protocol::Tunnel)
        } else {
            refused(offered, TUNNEL)
        };
    }
    let offered = upgrade.list(channels::SPDY_HEADER);
    if upgrade.wants(channels::SPDY_VERSION) && (offered.is_empty() || offered.contains(&PROTOCOL))
    {
        Ok(Protocol::Spdy)
    } else {
        refused(offered, PROTOCOL)
    }
}

impl Protocol {
    pub(super) fn headers(
        self,
        upgrade: &Upgrade,
    ) -> Result<Vec<(header::HeaderName, HeaderValue)>, Status> {
        match self {
            Self::Tunnel => websocket::headers(upgrade, TUNNEL),
            Self::Spdy => Ok(channels::spdy_headers(PROTOCOL)),
        }
    }

    /// Serves a client until it is gone.
    pub(super) async fn speak<D, F>(self, connection: Upgraded, pod: &str, dial: D)
    where
        D: Fn(u16) -> F + Sync,
        F: Future<Output = Result<Connection, String>> + Send,
    {
        let connection = TokioIo::new(connection);
        match self {
            Self::Tunnel => {
                let tunnel = websocket::Tunnel::new(websocket::accept(connection).await);
                serve(tunnel, pod, dial).await;
            }
            Self::Spdy => serve(connection, pod, dial).await,
        }
    }
}

async fn serve<D, F>(connection: impl AsyncRead + AsyncWrite + Unpin, pod: &str, dial: D)
where
    D: Fn(u16) -> F + Sync,
    F: Future<Output = Result<Connection, String>> + Send,
{
    let (opened, mut streams) = mpsc::channel::<Stream>(STREAMS_WAITING_MAX);
    let activity = Activity::begin();
    let forwards = async {
        let mut pairs = Pairs::default();
        let mut running: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        loop {
            let stream = tokio::select! {
                stream = streams.recv() => stream,
                Some(()) = running.next() => continue,
            };
            let Some(stream) = stream else { return };
            activity.note();
            match pairs.add(stream) {
                Added::Waits => {}
                Added::Pair { data, error } if running.len() < FORWARDS_MAX => {
                    running.push(forward(data, error, pod, &dial, &activity).boxed());
                }
                Added::Pair { data, error } => {
                    let words = format!("{FORWARDS_MAX} connections are open already");
                    refuse(&data, &error, &words).await;
                }
                Added::Unwanted(stream) => {
                    let _ = stream.output.refuse().await;
                }
            }
        }
    };
    let serving = spdy::serve(connection, opened);
    tokio::pin!(serving);
    tokio::select! {
        // The client is gone, and with it all connections.
        _ = &mut serving => return,
        () = forwards => {}
        // Also while a refusal waits for a client that reads nothing.
        () = activity.has_ceased() => {}
    }
    // The streams are dropped with their receiver, so the connection ends in good order.
    drop(streams);
    let _ = tokio::time::timeout(GOODBYE_MAX, serving).await;
}

/// Streams that wait for their other half, by the number of their connection.
#[derive(Default)]
struct Pairs(HashMap<String, Stream>);

enum Added {
    Waits,
    Pair { data: Stream, error: Stream },
    Unwanted(Stream),
}

impl Pairs {
    fn add(&mut self, stream: Stream) -> Added {
        let kind = |stream: &Stream| match stream.headers.get("streamtype") {
            Some("data") => Some(true),
            Some("error") => Some(false),
            _ => None,
        };
        let Some(is_data) = kind(&stream) else {
            return Added::Unwanted(stream);
        };
        let request = stream.headers.get("requestid").unwrap_or_default();
        match self.0.get(request).map(kind) {
            None if self.0.len() < PAIRS_WAITING_MAX => {
                self.0.insert(request.to_owned(), stream);
                Added::Waits
            }
            Some(Some(other_is_data)) if other_is_data != is_data => {
                match (self.0.remove(request), is_data) {
                    (Some(error), true) => Added::Pair {
                        data: stream,
                        error,
                    },
                    (Some(data), false) => Added::Pair {
                        data,
                        error: stream,
                    },
                    (None, _) => Added::Unwanted(stream),
                }
            }
            _ => Added::Unwanted(stream),
        }
    }
}

/// Carries one connection. A failure is told on the error stream, which ends with the connection.
async fn forward<D, F>(data: Stream, error: Stream, pod: &str, dial: &D, activity: &Activity)
where
    D: Fn(u16) -> F + Sync,
    F: Future<Output = Result<Connection, String>> + Send,
{
    let asked = data.headers.get("port").unwrap_or_default().to_owned();
    let dialled = match asked.parse::<u16>() {
        Ok(port) if port > 0 => dial(port).await,
        _ => Err(format!("{asked:?} is no port")),
    };
    match dialled {
        Ok(connection) => carry(data, connection, activity).await,
        Err(why) => {
            let words = format!("error forwarding port {asked} to pod {pod}: {why}");
            return refuse(&data, &error, &words).await;
        }
    }
    let _ = error.output.finish().await;
}

/// Ends a connection that was not made, with the reason on its error stream.
async fn refuse(data: &Stream, error: &Stream, words: &str) {
    let _ = error.output.send(words.as_bytes()).await;
    let _ = data.output.finish().await;
    let _ = error.output.finish().await;
}

/// Carries bytes both ways until the port closes, or the client resets its stream. A client that has only sent all may still
/// be answered.
async fn carry(data: Stream, connection: Connection, activity: &Activity) {
    let Stream {
        mut input,
        output,
        reset,
        ..
    } = data;
    let (mut from_port, mut to_port) = tokio::io::split(connection);
    let sending = async {
        while let Some(piece) = input.recv().await {
            activity.note();
            if to_port.write_all(&piece.bytes).await.is_err() {
                return;
            }
        }
        let _ = to_port.shutdown().await;
    };
    let receiving = async {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let count = from_port.read(&mut buffer).await.unwrap_or(0);
            if count == 0 || output.send(&buffer[..count]).await.is_err() {
                break;
            }
            activity.note();
        }
        let _ = output.finish().await;
    };
    let both = async {
        tokio::pin!(receiving);
        tokio::select! {
            // When the port has closed, nothing that the client still sends could arrive.
            () = &mut receiving => {}
            () = sending => receiving.await,
        }
    };
    tokio::select! {
        () = both => {}
        _ = reset => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::idle::IDLE_MAX;
    use crate::streams::spdy::test_client::{Client, Heard};
    use tokio::io::DuplexStream;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    const BUFFER_BYTES: usize = 64 << 10;
    /// Many times what all buffers on the way hold.
    const FLOOD_WRITES: usize = 10_000;

    /// A port of the pod: hands out the program's ends of its connections.
    fn port(
        count: usize,
    ) -> (
        impl Fn(u16) -> BoxFuture<'static, Result<Connection, String>> + Sync,
        mpsc::Receiver<DuplexStream>,
    ) {
        let (accepted, accepts) = mpsc::channel(count);
        let dial = move |port: u16| {
            let accepted = accepted.clone();
            async move {
                if port != 80 {
                    return Err("connect: connection refused".to_owned());
                }
                let (ours, program) = tokio::io::duplex(BUFFER_BYTES);
                accepted.send(program).await.expect("somebody accepts");
                Ok(Box::new(ours) as Connection)
            }
            .boxed()
        };
        (dial, accepts)
    }

    /// Runs a talk with a server over SPDY.
    async fn talk<T>(
        count: usize,
        talk: impl AsyncFnOnce(Client<DuplexStream>, mpsc::Receiver<DuplexStream>) -> T,
    ) -> T {
        let (client, server) = tokio::io::duplex(BUFFER_BYTES);
        let (dial, accepts) = port(count);
        let both =
            async { tokio::join!(talk(Client::new(client), accepts), serve(server, "p", dial)) };
        let ended = tokio::time::timeout(IDLE_MAX * 2, both).await;
        ended.expect("both end").0
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_close_lets_the_answer_finish() {
        talk(1, async |mut client, mut accepts| {
            client.forward(1, "80").await;
            client.send(3, b"question").await;
            client.finish(3).await;
            let mut program = accepts.recv().await.expect("connection");
            let mut question = String::new();
            program.read_to_string(&mut question).await.expect("read");
            assert_eq!(question, "question");
            program.write_all(b"answer").await.expect("write");
            drop(program);
            assert_eq!(
                client.hear().await,
                Some(Heard::Bytes(3, b"answer".to_vec()))
            );
            assert_eq!(client.hear().await, Some(Heard::End(3)));
            assert_eq!(client.hear().await, Some(Heard::End(1)));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_reset_ends_the_connection_both_ways() {
        for has_sent_all in [false, true] {
            talk(1, async |mut client, mut accepts| {
                client.forward(1, "80").await;
                client.send(3, b"question").await;
                if has_sent_all {
                    client.finish(3).await;
                }
                client.reset(3).await;
                let mut program = accepts.recv().await.expect("connection");
                // The program goes on writing until it is told that nobody reads.
                let flood = async {
                    for _ in 0..FLOOD_WRITES {
                        if program.write_all(&[0; 1024]).await.is_err() {
                            return;
                        }
                    }
                    panic!("the program is never told");
                };
                let (end, ()) = tokio::join!(
                    async {
                        loop {
                            match client.hear().await {
                                Some(Heard::Bytes(3, _)) => {}
                                other => break other,
                            }
                        }
                    },
                    flood
                );
                assert_eq!(end, Some(Heard::End(1)), "{has_sent_all}");
            })
            .await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_websocket_that_closes_ends_all_connections() {
        let (client, server) = tokio::io::duplex(BUFFER_BYTES);
        let (dial, mut accepts) = port(1);
        let serving = async {
            serve(
                websocket::Tunnel::new(websocket::accept(server).await),
                "p",
                dial,
            )
            .await;
        };
        let talking = async {
            let socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
            let mut tunnel = websocket::Tunnel::new(socket);
            let mut client = Client::new(&mut tunnel);
            client.forward(1, "80").await;
            let mut program = accepts.recv().await.expect("connection");
            tunnel.shutdown().await.expect("close");
            assert_eq!(program.read(&mut [0]).await.expect("read"), 0);
            program
                .write_all(b"x")
                .await
                .expect_err("nobody hears it any more");
        };
        tokio::join!(serving, talking);
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_nobody_listens_on_is_told_on_the_error_stream() {
        talk(1, async |mut client, _accepts| {
            for (id, port, why) in [
                (1, "81", "connect: connection refused"),
                (5, "0", "\"0\" is no port"),
            ] {
                client.forward(id, port).await;
                let words = format!("error forwarding port {port} to pod p: {why}");
                assert_eq!(
                    client.hear().await,
                    Some(Heard::Bytes(id, words.into_bytes()))
                );
                assert_eq!(client.hear().await, Some(Heard::End(id + 2)));
                assert_eq!(client.hear().await, Some(Heard::End(id)));
            }
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn connections_of_one_client_are_bounded_in_words() {
        let most = u32::try_from(FORWARDS_MAX).expect("small");
        talk(FORWARDS_MAX, async |mut client, mut accepts| {
            let mut open = Vec::new();
            for number in 0..most {
                let id = 4 * number + 1;
                client.forward(id, "80").await;
                // Those of which the client has sent all count as well.
                client.finish(id + 2).await;
                open.push(accepts.recv().await.expect("connection"));
            }
            let (over, next) = (4 * most + 1, 4 * most + 5);
            client.forward(over, "80").await;
            let words = format!("{FORWARDS_MAX} connections are open already");
            assert_eq!(
                client.hear().await,
                Some(Heard::Bytes(over, words.into_bytes()))
            );
            assert_eq!(client.hear().await, Some(Heard::End(over + 2)));
            assert_eq!(client.hear().await, Some(Heard::End(over)));
            // One that ends leaves its place.
            drop(open.pop());
            assert_eq!(client.hear().await, Some(Heard::End(4 * most - 1)));
            assert_eq!(client.hear().await, Some(Heard::End(4 * most - 3)));
            client.forward(next, "80").await;
            accepts.recv().await.expect("connection");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn streams_find_each_other_in_any_order_and_others_are_refused() {
        talk(1, async |mut client, mut accepts| {
            let stream = |kind| [("streamtype", kind), ("port", "80"), ("requestid", "7")];
            client.open(1, &stream("data")).await;
            client.open(3, &stream("data")).await;
            assert_eq!(client.hear().await, Some(Heard::Reset(3)));
            client.open(5, &stream("other")).await;
            assert_eq!(client.hear().await, Some(Heard::Reset(5)));
            client.open(7, &stream("error")).await;
            accepts.recv().await.expect("connection");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_in_which_nothing_is_said_ends() {
        talk(1, async |mut client, mut accepts| {
            client.forward(1, "80").await;
            let mut program = accepts.recv().await.expect("connection");
            assert_eq!(client.hear().await, None, "the connection ends");
            assert_eq!(program.read(&mut [0]).await.expect("read"), 0);
        })
        .await;
    }

    /// Its connection ends as well, although what waits for it cannot be sent.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_idle() {
        let _client = talk(1, async |mut client, mut accepts| {
            client.forward(1, "80").await;
            let mut program = accepts.recv().await.expect("connection");
            while program.write_all(&[0; 1024]).await.is_ok() {}
            client
        })
        .await;
    }
}
