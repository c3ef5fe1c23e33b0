//! SPDY/3.1, as far as Kubernetes' clients use it: streams over one connection, opened by the client.
//!
//! Flow: [`serve`] reads frames and hands out each new [`Stream`]; what streams send goes through one queue to the connection.
//! There is no flow control beyond that of TCP, as in the clients' own implementation: a stream that nobody reads holds up the
//! others. Always: frames, headers and streams are bounded.

mod frame;
pub(super) mod session;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::MissedTickBehavior;

use super::PING_EVERY;
use frame::{Headers, Inflater, control, data};

/// Streams of one connection; a port-forward has two for each of its connections.
const STREAMS_MAX: usize = 512;
/// Chunks of one stream, and frames of the connection, that wait.
const WAITING_MAX: usize = 16;
/// Clients send 32 kB at a time; longer frames come in pieces.
const READ_BYTES: usize = 32 << 10;
/// The number of our pings: even, as the other side's are odd.
const OWN_PING: u32 = 2;
/// What waits on all streams of a connection together; whoever sends more waits.
const WAITING_BYTES_MAX: usize = 512 << 10;

/// A stream that the client has opened.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) headers: Headers,
    /// What the client sends; ends when it has sent all.
    pub(super) input: mpsc::Receiver<Piece>,
    pub(super) output: Output,
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

    async fn frame(&self, frame: Bytes) -> Result<(), ()> {
        self.frames.send(frame).await.map_err(|_| ())
    }
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
    tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
        () = no_more => Ok(()),
    }
}

struct Streams {
    /// Where what the client sends on a stream goes.
    open: HashMap<u32, mpsc::Sender<Piece>>,
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
                if let Some(id) = frame::number(&body, 0) {
                    self.open.remove(&id);
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
        self.open.retain(|_, stream| !stream.is_closed());
        if self.open.len() >= STREAMS_MAX || id == 0 || self.open.contains_key(&id) {
            self.send(control(
                frame::RST_STREAM,
                0,
                &[id.to_be_bytes(), frame::REFUSED.to_be_bytes()].concat(),
            ))
            .await;
            return Ok(());
        }
        let (sender, input) = mpsc::channel(WAITING_MAX);
        if flags & frame::FIN == 0 {
            self.open.insert(id, sender);
        }
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
            let Some(stream) = self.open.get(&id) else {
                continue;
            };
            let count = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            let share = Arc::clone(&self.share).acquire_many_owned(count).await;
            let piece = Piece {
                bytes: piece.into(),
                _share: share.map_err(io::Error::other)?,
            };
            if stream.send(piece).await.is_err() {
                self.open.remove(&id);
            }
        }
        if flags & frame::FIN != 0 {
            self.open.remove(&id);
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
    use super::*;

    /// A stream with the headers `a: b`, compressed as a client does it.
    fn syn_stream(id: u32, compress: &mut flate2::Compress) -> Vec<u8> {
        let mut plain = 1_u32.to_be_bytes().to_vec();
        for word in ["streamtype", "data"] {
            plain.extend_from_slice(&u32::try_from(word.len()).expect("short").to_be_bytes());
            plain.extend_from_slice(word.as_bytes());
        }
        let mut packed = Vec::with_capacity(1024);
        compress
            .compress_vec(&plain, &mut packed, flate2::FlushCompress::Sync)
            .expect("compress");
        let mut body = id.to_be_bytes().to_vec();
        body.extend_from_slice(&[0; 6]);
        body.extend_from_slice(&packed);
        control(frame::SYN_STREAM, 0, &body).to_vec()
    }

    #[tokio::test]
    async fn streams_are_opened_read_and_answered() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let (opened, mut streams) = mpsc::channel::<Stream>(4);
        let mut compress = compressor();
        for id in [1, 3] {
            client
                .write_all(&syn_stream(id, &mut compress))
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

    fn compressor() -> flate2::Compress {
        let mut compress = flate2::Compress::new(flate2::Compression::best(), true);
        compress
            .set_dictionary(frame::DICTIONARY)
            .expect("dictionary");
        compress
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_with_its_streams() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let (opened, mut streams) = mpsc::channel::<Stream>(4);
        client
            .write_all(&syn_stream(1, &mut compressor()))
            .await
            .expect("write");
        let session = async {
            let stream = streams.recv().await.expect("stream");
            drop(streams);
            stream.output.send(b"bye").await.expect("send");
        };
        // The client stays, and says nothing.
        let whole = async { tokio::join!(serve(server, opened), session) };
        let ended = tokio::time::timeout(4 * PING_EVERY, whole).await;
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
                let frame = syn_stream(id, &mut compress);
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
}
