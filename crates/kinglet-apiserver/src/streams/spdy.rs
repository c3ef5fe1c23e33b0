//! SPDY/3.1, as far as Kubernetes' clients use it: streams over one connection, opened by the client.
//!
//! Flow: [`serve`] reads frames and hands out each new [`Stream`]; what streams send goes through one queue to the connection.
//! There is no flow control beyond that of TCP, as in the clients' own implementation: a stream that nobody reads holds up the
//! others. Always: frames, headers and streams are bounded.

mod frame;
pub(super) mod session;

use std::collections::HashMap;
use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use frame::{Headers, Inflater, control, data};

/// Streams of one connection; a port-forward has two for each of its connections.
const STREAMS_MAX: usize = 512;
/// Chunks of one stream, and frames of the connection, that wait.
const WAITING_MAX: usize = 16;
/// Clients send 32 kB at a time; longer frames come in pieces.
const READ_BYTES: usize = 32 << 10;

/// A stream that the client has opened.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) headers: Headers,
    /// What the client sends; ends when it has sent all.
    pub(super) input: mpsc::Receiver<Bytes>,
    pub(super) output: Output,
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
    let reading = async {
        let mut streams = Streams {
            open: HashMap::new(),
            opened,
            frames,
            inflater: Inflater::new(),
            has_replied: false,
        };
        while streams.read(&mut reader).await? {}
        Ok(())
    };
    let writing = async {
        while let Some(frame) = waiting.recv().await {
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
    }
}

struct Streams {
    /// Where what the client sends on a stream goes.
    open: HashMap<u32, mpsc::Sender<Bytes>>,
    opened: mpsc::Sender<Stream>,
    frames: mpsc::Sender<Bytes>,
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
            frame::PING => self.send(control(frame::PING, 0, &body)).await,
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
        let output = Output {
            id,
            frames: self.frames.clone(),
        };
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
            if let Some(stream) = self.open.get(&id)
                && stream.send(piece.into()).await.is_err()
            {
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
        let _ = self.frames.send(frame).await;
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
        let mut compress = flate2::Compress::new(flate2::Compression::best(), true);
        compress
            .set_dictionary(frame::DICTIONARY)
            .expect("dictionary");
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
            assert_eq!(second.input.recv().await.as_deref(), Some(&b"hello"[..]));
            assert_eq!(second.input.recv().await, None);
            first.output.send(b"back").await.expect("send");
            first.output.finish().await.expect("send");
            let mut got = vec![0; 8 + 4 + 2 + 18 + 8 + 4 + 18 + 12 + 12 + 8];
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
