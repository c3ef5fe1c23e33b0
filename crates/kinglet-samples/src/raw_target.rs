//! Request targets that hyper refuses.
//!
//! Go's servers take `"`, `<`, `>` and backtick in a target as they are, and so do the programs that these samples stand
//! for; `http::Uri` does not. A request line that comes at the beginning of what is read, as proxies and clients send it, is
//! given to hyper with those bytes percent-encoded.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A client's connection.
pub(crate) struct RawTargets<S> {
    stream: S,
    /// Rewritten, not yet read by hyper.
    rest: Vec<u8>,
}

impl<S> RawTargets<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            rest: Vec::new(),
        }
    }
}

/// What is read, with its request line made acceptable; `None` when it has none or needs no change.
fn encoded(read: &[u8]) -> Option<Vec<u8>> {
    let end = read.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, rest) = read.split_at(end);
    let target = line.strip_suffix(b" HTTP/1.1")?;
    let method = target.iter().position(|byte| *byte == b' ')?;
    let is_method = target[..method].iter().all(u8::is_ascii_uppercase);
    if !is_method || !target.iter().any(is_refused) {
        return None;
    }
    let mut made = Vec::with_capacity(read.len() + 16);
    for byte in line {
        if is_refused(byte) {
            made.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            made.push(*byte);
        }
    }
    made.extend_from_slice(rest);
    Some(made)
}

fn is_refused(byte: &u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'`' | 0x80..)
}

impl<S: AsyncRead + Unpin> AsyncRead for RawTargets<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            let Some(made) = encoded(&buffer.filled()[before..]) else {
                return Poll::Ready(Ok(()));
            };
            buffer.set_filled(before);
            this.rest = made;
        }
        let count = this.rest.len().min(buffer.remaining());
        buffer.put_slice(&this.rest[..count]);
        this.rest.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RawTargets<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_targets_of_request_lines_are_encoded() {
        for (read, expected) in [
            (
                "GET /?a=\"<b>\" HTTP/1.1\r\nHost: <h>\r\n\r\n",
                Some("GET /?a=%22%3Cb%3E%22 HTTP/1.1\r\nHost: <h>\r\n\r\n"),
            ),
            ("GET /a HTTP/1.1\r\nHost: <h>\r\n\r\n", None),
            ("say \"<b>\" HTTP/1.1\r\n", None),
            ("{\"a\": \"<b>\"}", None),
            ("", None),
        ] {
            let made = encoded(read.as_bytes());
            assert_eq!(made.as_deref(), expected.map(str::as_bytes), "{read}");
        }
    }
}
