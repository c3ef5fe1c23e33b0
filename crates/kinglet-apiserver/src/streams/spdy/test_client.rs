//! What a client of SPDY sends and reads, for tests.

use flate2::Compress;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::frame::{self, control, data};

/// The compression of one connection's headers.
pub(in super::super) fn compressor() -> Compress {
    let mut compress = Compress::new(flate2::Compression::best(), true);
    compress
        .set_dictionary(frame::DICTIONARY)
        .expect("dictionary");
    compress
}

/// A stream with these headers, compressed as a client does it.
pub(in super::super) fn syn_stream(
    id: u32,
    headers: &[(&str, &str)],
    compress: &mut Compress,
) -> Vec<u8> {
    let number = |number: usize| u32::try_from(number).expect("short").to_be_bytes();
    let mut plain = number(headers.len()).to_vec();
    for word in headers.iter().flat_map(|(name, value)| [name, value]) {
        plain.extend_from_slice(&number(word.len()));
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

/// What came on a stream.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Heard {
    Bytes(u32, Vec<u8>),
    End(u32),
    Reset(u32),
}

/// A client that opens streams and listens to them.
pub(in super::super) struct Client<C> {
    connection: C,
    compress: Compress,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Client<C> {
    pub(in super::super) fn new(connection: C) -> Self {
        Self {
            connection,
            compress: compressor(),
        }
    }

    pub(in super::super) async fn open(&mut self, id: u32, headers: &[(&str, &str)]) {
        let frame = syn_stream(id, headers, &mut self.compress);
        self.write(&frame).await;
    }

    /// The two streams of a connection to a port: `id` carries errors, the next odd number the data.
    pub(in super::super) async fn forward(&mut self, id: u32, port: &str) {
        let request = id.to_string();
        for (id, kind) in [(id, "error"), (id + 2, "data")] {
            let headers = [
                ("streamtype", kind),
                ("port", port),
                ("requestid", request.as_str()),
            ];
            self.open(id, &headers).await;
        }
        // As clients do: nothing is said on the error stream.
        self.finish(id).await;
    }

    pub(in super::super) async fn send(&mut self, id: u32, bytes: &[u8]) {
        self.write(&data(id, bytes, false)).await;
    }

    pub(in super::super) async fn finish(&mut self, id: u32) {
        self.write(&data(id, &[], true)).await;
    }

    pub(in super::super) async fn reset(&mut self, id: u32) {
        self.write(&super::refusal(id)).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.connection.write_all(bytes).await.expect("write");
        self.connection.flush().await.expect("flush");
    }

    /// The next that comes on any stream; replies and pings are passed over. Nothing once the connection has ended.
    pub(in super::super) async fn hear(&mut self) -> Option<Heard> {
        loop {
            let first = self.connection.read_u32().await.ok()?;
            let flags_and_length = self.connection.read_u32().await.expect("head");
            let length = usize::try_from(flags_and_length & 0xff_ffff).expect("short");
            let mut body = vec![0; length];
            self.connection.read_exact(&mut body).await.expect("body");
            if first & frame::CONTROL == 0 {
                if !body.is_empty() {
                    return Some(Heard::Bytes(first, body));
                }
                let flags = flags_and_length >> 24;
                assert_eq!(flags, u32::from(frame::FIN), "an empty frame says the end");
                return Some(Heard::End(first));
            }
            if first & 0xffff == frame::RST_STREAM {
                return Some(Heard::Reset(frame::number(&body, 0).expect("id")));
            }
        }
    }
}
