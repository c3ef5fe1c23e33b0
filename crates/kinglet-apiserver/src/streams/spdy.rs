//! SPDY/3.1, as far as Kubernetes' clients use it: streams over one connection, opened by the client.
//!
//! Flow: [`serve`] reads frames and hands out each new [`Stream`]; what streams send goes through one queue to the connection.
//! There is no flow control beyond that of TCP, as in the clients' own implementation: a stream that nobody reads holds up the
//! others. Always: frames, headers and streams are bounded.

mod frame;
pub(super) mod session;
#[cfg(test)]
pub(super) mod test_client;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::PING_EVERY;
use frame::{Headers, Inflater, control, data};

/// Streams of one connection; more are refused with `RST_STREAM`. A port-forward has two for each of its 256 connections, and
/// some more for those that it refuses in words.
const STREAMS_MAX: usize = 768;
/// Chunks of one stream, and frames of the connection, that wait.
const WAITING_MAX: usize = 16;
/// Clients send 32 kB at a time; longer frames come in pieces.
const READ_BYTES: usize = 32 << 10;
/// The number of our pings: even, as the other side's are odd.
const OWN_PING: u32 = 2;
/// What waits on all streams of a connection together; whoever sends more waits.
const WAITING_BYTES_MAX: usize = 512 << 10;
/// How long a client that has been sent everything may take to close: until then what it still sends is read.
const LINGER_MAX: Duration = Duration::from_secs(60);

/// A stream that the client has opened.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) headers: Headers,
    /// What the client sends; ends when it has sent all.
    pub(super) input: mpsc::Receiver<Piece>,
    pub(super) output: Output,
    /// Comes when the client resets the stream: it neither sends nor reads any more.
    pub(super) reset: oneshot::Receiver<()>,
}

/// Bytes that the client has sent, with their share of what may wait.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

/// The way back.
#[derive(Clone, Debug)]
pub(super) struct Output {
    id: u32,
    frames: mpsc::Sender<Bytes>,
}

impl Output {
    /// Sends bytes; fails when the client is gone.
    pub(super) async fn send(&self, bytes: &[u8]) -> Result<(), ()> {
        for piece in bytes.chunks(READ_BYTES) {
            self.frame(data(self.id, piece, false)).await?;
        }
        Ok(())
    }

    /// Says that nothing more will come.
    pub(super) async fn finish(&self) -> Result<(), ()> {
        self.frame(data(self.id, &[], true)).await
    }

    /// Says that the stream is not wanted.
    pub(super) async fn refuse(&self) -> Result<(), ()> {
        self.frame(refusal(self.id)).await
    }

    async fn frame(&self, frame: Bytes) -> Result<(), ()> {
        self.frames.send(frame).await.map_err(|_| ())
    }
}

fn refusal(id: u32) -> Bytes {
    let body = [id.to_be_bytes(), frame::REFUSED.to_be_bytes()].concat();
    control(frame::RST_STREAM, 0, &body)
}

/// Serves a connection: gives out streams as the client opens them. Ends when the client has gone, or when all streams and
/// their receiver are dropped and everything is sent.
pub(super) async fn serve(
    connection: impl AsyncRead + AsyncWrite + Unpin,
    opened: mpsc::Sender<Stream>,
) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(connection);
    let (frames, mut waiting) = mpsc::channel(WAITING_MAX);
    let weak = frames.downgrade();
    let wanted = opened.clone();
    // From then on the streams that there are hold the connection open.
    let no_more = async move {
        wanted.closed().await;
        drop(frames);
        std::future::pending::<()>().await;
    };
    let reading = async {
        let mut streams = Streams {
            open: HashMap::new(),
            opened,
            frames: weak,
            share: Arc::new(Semaphore::new(WAITING_BYTES_MAX)),
            inflater: Inflater::new(),
            has_replied: false,
        };
        while streams.read(&mut reader).await? {}
        Ok(())
    };
    let writing = async {
        let mut pings = tokio::time::interval(PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let frame = tokio::select! {
                frame = waiting.recv() => frame,
                _ = pings.tick() => Some(control(frame::PING, 0, &OWN_PING.to_be_bytes())),
            };
            let Some(frame) = frame else { break };
            writer.write_all(&frame).await?;
            if waiting.is_empty() {
                writer.flush().await?;
            }
        }
        Ok(())
    };
    tokio::pin!(reading);
    let written: io::Result<()> = tokio::select! {
        ended = &mut reading => return ended,
        ended = writing => ended,
        () = no_more => Ok(()),
    };
    written?;
    // Closing over bytes that nobody has read resets the connection, and the client loses what it has not read yet.
    let goodbye = async {
        writer.shutdown().await?;
        reading.await
    };
    let ended = tokio::time::timeout(LINGER_MAX, goodbye).await;
    ended.unwrap_or(Ok(()))
}

/// The client's side of a stream.
struct Incoming {
    /// Where what it sends goes, until it has sent all.
    pieces: Option<mpsc::Sender<Piece>>,
    /// Tells that it has reset the stream; closed once nobody here has the stream any more.
    reset: oneshot::Sender<()>,
}

struct Streams {
    open: HashMap<u32, Incoming>,
    opened: mpsc::Sender<Stream>,
    /// Streams, not this, hold the connection open.
    frames: mpsc::WeakSender<Bytes>,
    share: Arc<Semaphore>,
    inflater: Inflater,
    has_replied: bool,
}

impl Streams {
    /// Reads one frame; `false` when there are no more.
    async fn read(&mut self, reader: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
        let mut head = [0; 8];
        match reader.read_exact(&mut head).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
        let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let flags = head[4];
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        if first & frame::CONTROL == 0 {
            self.take_data(reader, first, flags, length).await?;
            return Ok(true);
        }
        if length > frame::CONTROL_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a SPDY control frame is too long",
            ));
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).await?;
        match first & 0xffff {
            frame::SYN_STREAM => self.open(&body, flags).await?,
            frame::RST_STREAM => {
                let stream = frame::number(&body, 0).and_then(|id| self.open.remove(&id));
                if let Some(stream) = stream {
                    let _ = stream.reset.send(());
                }
            }
            // An even number is the answer to one of ours.
            frame::PING if frame::number(&body, 0).is_some_and(|id| id % 2 == 1) => {
                self.send(control(frame::PING, 0, &body[..4])).await;
            }
            frame::GOAWAY => return Ok(false),
            // Settings and windows change nothing here.
            _ => {}
        }
        Ok(true)
    }

    async fn open(&mut self, body: &[u8], flags: u8) -> io::Result<()> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "a SPDY stream is malformed");
        let id = frame::number(body, 0).ok_or_else(invalid)?;
        let headers = self.inflater.headers(body.get(10..).ok_or_else(invalid)?)?;
        self.open.retain(|_, stream| !stream.reset.is_closed());
        if self.open.len() >= STREAMS_MAX || id == 0 || self.open.contains_key(&id) {
            self.send(refusal(id)).await;
            return Ok(());
        }
        let (sender, input) = mpsc::channel(WAITING_MAX);
        let (resets, reset) = oneshot::channel();
        let incoming = Incoming {
            pieces: (flags & frame::FIN == 0).then_some(sender),
            reset: resets,
        };
        self.open.insert(id, incoming);
        let reply = frame::empty_reply(id, !std::mem::replace(&mut self.has_replied, true));
        self.send(reply).await;
        let Some(frames) = self.frames.upgrade() else {
            return Ok(());
        };
        let output = Output { id, frames };
        let stream = Stream {
            headers,
            input,
            output,
            reset,
        };
        // Nobody may want more streams.
        let _ = self.opened.send(stream).await;
        Ok(())
    }

    async fn take_data(
        &mut self,
        reader: &mut (impl AsyncRead + Unpin),
        id: u32,
        flags: u8,
        length: usize,
    ) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            let mut piece = vec![0; left.min(READ_BYTES)];
            reader.read_exact(&mut piece).await?;
            left -= piece.len();
            let stream = self.open.get_mut(&id);
            let Some(stream) = stream.filter(|stream| stream.pieces.is_some()) else {
                continue;
            };
            let count = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            let share = Arc::clone(&self.share).acquire_many_owned(count).await;
            let piece = Piece {
                bytes: piece.into(),
                _share: share.map_err(io::Error::other)?,
            };
            if let Some(pieces) = &stream.pieces
                && pieces.send(piece).await.is_err()
            {
                stream.pieces = None;
            }
        }
        if flags & frame::FIN != 0
            && let Some(stream) = self.open.get_mut(&id)
        {
            stream.pieces = None;
        }
        Ok(())
    }

    async fn send(&self, frame: Bytes) {
        // The writing side ends the connection by itself.
        if let Some(frames) = self.frames.upgrade() {
            let _ = frames.send(frame).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::test_client::{compressor, syn_stream};
    use super::*;

    #[tokio::test]
    async fn streams_are_opened_read_and_answered() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let (opened, mut streams) = mpsc::channel::<Stream>(4);
        let mut compress = compressor();
        for id in [1, 3] {
            client
                .write_all(&syn_stream(id, &[("streamtype", "data")], &mut compress))
                .await
                .expect("write");
        }
        client
            .write_all(&data(3, b"hello", true))
            .await
            .expect("write");
        client
            .write_all(&control(frame::PING, 0, &[0, 0, 0, 9]))
            .await
            .expect("write");
        let work = async {
            let first = streams.recv().await.expect("stream");
            let mut second = streams.recv().await.expect("stream");
            assert_eq!(second.headers.get("streamtype"), Some("data"));
            let piece = second.input.recv().await.expect("input");
            assert_eq!(&piece.bytes[..], b"hello");
            assert!(second.input.recv().await.is_none());
            first.output.send(b"back").await.expect("send");
            first.output.finish().await.expect("send");
            // With a ping of the server's own.
            let mut got = [0; 12 + 8 + 4 + 2 + 18 + 8 + 4 + 18 + 12 + 12 + 8];
            let mut known = 0;
            while !got[..known].windows(4).any(|four| four == b"back")
                || !got[..known].windows(4).any(|four| four == [0, 0, 0, 9])
            {
                known += client.read(&mut got[known..]).await.expect("read");
            }
        };
        tokio::select! {
            ended = serve(server, opened) => panic!("{ended:?}"),
            () = work => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_with_its_streams() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let (opened, mut streams) = mpsc::channel::<Stream>(4);
        client
            .write_all(&syn_stream(1, &[("streamtype", "data")], &mut compressor()))
            .await
            .expect("write");
        let session = async {
            let stream = streams.recv().await.expect("stream");
            drop(streams);
            stream.output.send(b"bye").await.expect("send");
        };
        // The client stays, and says nothing.
        let whole = async { tokio::join!(serve(server, opened), session) };
        let ended = tokio::time::timeout(4 * PING_EVERY + LINGER_MAX, whole).await;
        ended.expect("ends").0.expect("in peace");
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.expect("read");
        assert!(got.ends_with(b"bye"), "{got:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded_over_all_streams() {
        const STREAMS: u32 = 40;
        let (client, server) = tokio::io::duplex(1 << 10);
        let (mut from_server, mut client) = tokio::io::split(client);
        let (opened, mut streams) = mpsc::channel::<Stream>(4);
        let mut compress = compressor();
        let mut sent = 0;
        let flood = async {
            for id in (0..STREAMS).map(|number| 2 * number + 1) {
                let frame = syn_stream(id, &[("streamtype", "data")], &mut compress);
                client.write_all(&frame).await.expect("write");
                for _ in 1..WAITING_MAX {
                    let frame = data(id, &[0; READ_BYTES], false);
                    client.write_all(&frame).await.expect("write");
                    sent += READ_BYTES;
                }
            }
        };
        let mut unread = Vec::new();
        let keep = async {
            while let Some(stream) = streams.recv().await {
                unread.push(stream);
            }
        };
        let mut answers = tokio::io::sink();
        let all = async {
            tokio::select! {
                () = flood => {}
                ended = serve(server, opened) => panic!("{ended:?}"),
                _ = tokio::io::copy(&mut from_server, &mut answers) => {}
                () = keep => {}
            }
        };
        tokio::time::timeout(4 * PING_EVERY, all)
            .await
            .expect_err("the client has to wait");
        assert!(sent <= WAITING_BYTES_MAX + 2 * READ_BYTES, "{sent}");
    }

    #[tokio::test]
    async fn answers_to_pings_are_not_answered() {
        let (mut client, server) = tokio::io::duplex(1 << 10);
        let (opened, _streams) = mpsc::channel::<Stream>(4);
        let talk = async {
            for id in [OWN_PING, 7] {
                let ping = control(frame::PING, 0, &id.to_be_bytes());
                client.write_all(&ping).await.expect("write");
            }
            // The server's own first ping, and the answer to the client's.
            let mut got = [0; 24];
            client.read_exact(&mut got).await.expect("read");
            let mut ids = [got[11], got[23]];
            ids.sort_unstable();
            assert_eq!(ids, [2, 7], "{got:?}");
        };
        tokio::select! {
            ended = serve(server, opened) => panic!("{ended:?}"),
            () = talk => {}
        }
    }

    #[tokio::test]
    async fn nonsense_ends_the_connection() {
        for nonsense in [
            &b"\x80\x03\x00\x01\x00\xff\xff\xff"[..],
            b"\x80\x03\x00\x01\x00\x00\x00\x02xx",
            b"\x80\x03\x00\x01\x00\x00\x00\x0c\0\0\0\x01\0\0\0\0\0\0\xff\xff",
        ] {
            let (opened, _streams) = mpsc::channel::<Stream>(4);
            let (mut client, server) = tokio::io::duplex(1 << 10);
            client.write_all(nonsense).await.expect("write");
            serve(server, opened).await.expect_err("malformed");
        }
    }

    /// More than what the buffers of a connection hold.
    const LATE_BYTES: usize = 16 << 20;

    /// A client that goes on sending after the program's end hears its last words all the same.
    #[tokio::test]
    async fn the_last_words_reach_a_client_that_goes_on_sending() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("bind");
        let address = listener.local_addr().expect("bound");
        let server = async {
            let (connection, _) = listener.accept().await.expect("accept");
            let (opened, mut streams) = mpsc::channel::<Stream>(4);
            let session = async {
                let stream = streams.recv().await.expect("stream");
                drop(streams);
                stream.output.send(b"last words").await.expect("send");
                stream.output.finish().await.expect("send");
            };
            tokio::join!(serve(connection, opened), session)
                .0
                .expect("in peace");
        };
        let client = async {
            let mut client = tokio::net::TcpStream::connect(address)
                .await
                .expect("connect");
            let stream = syn_stream(1, &[("streamtype", "stdin")], &mut compressor());
            client.write_all(&stream).await.expect("write");
            let frame = data(1, &[0; READ_BYTES], false);
            for _ in 0..LATE_BYTES / READ_BYTES {
                client.write_all(&frame).await.expect("it is read");
            }
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.expect("read");
            let heard = got.windows(10).any(|ten| ten == b"last words");
            assert!(heard, "{got:?}");
        };
        let both = async { tokio::join!(server, client) };
        tokio::time::timeout(LINGER_MAX / 2, both)
            .await
            .expect("the connection ends as the client closes it");
    }

    #[tokio::test]
    async fn a_reset_is_told_also_after_the_client_has_sent_all() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let (opened, mut streams) = mpsc::channel::<Stream>(4);
        let mut compress = compressor();
        for id in [1, 3] {
            let frame = syn_stream(id, &[("streamtype", "data")], &mut compress);
            client.write_all(&frame).await.expect("write");
        }
        client.write_all(&data(1, &[], true)).await.expect("write");
        client.write_all(&refusal(1)).await.expect("write");
        let work = async {
            let mut first = streams.recv().await.expect("stream");
            let mut second = streams.recv().await.expect("stream");
            (&mut first.reset).await.expect("reset");
            assert!(first.input.recv().await.is_none());
            second.reset.try_recv().expect_err("that one was not");
        };
        tokio::select! {
            ended = serve(server, opened) => panic!("{ended:?}"),
            () = work => {}
        }
    }
}
