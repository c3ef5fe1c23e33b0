//! The socket under a client's HTTP/1 connection, which makes request targets acceptable to hyper.
//!
//! Go and Envoy pass `"`, `<`, `>` and backtick in a request target as they are; `http::Uri`, and hyper with it, refuses
//! the whole request. Here those bytes are percent-encoded before hyper reads the request line, and the target as it was
//! sent is kept for the way to the container (`pool::io`). docs/decisions/0015-raw-request-targets.md has the
//! alternatives.
//!
//! Guarantees: only a request line is ever changed, never another line, never a body. To know where one begins, the
//! socket gives hyper no byte beyond the end of a head until hyper has begun with that request and said how long its
//! body is ([`HeadLog`]). Where that cannot be told (chunked bodies, upgrades, heads with bare line feeds), everything
//! passes as it is from there on, and a target that hyper refuses is answered with 400.

mod closing;
#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body;
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use self::closing::{Linger, PatientEnd};
use super::registry::ConnectionActivity;
use crate::pool::RawTarget;

/// What an HTTP/2 client sends first (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A request line is no longer than this, or hyper is left to refuse it (`Options::header_bytes_max` by default).
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Bytes read at once where hyper's own buffer cannot be used.
const READ_BYTES: usize = 8 * 1024;

/// Enough for the head of most requests.
const FIRST_READ_BYTES: usize = 512;

/// Nothing is known of the request yet.
const NOT_BEGUN: u64 = 0;
/// It has a body whose end cannot be told from here.
const UNKNOWN: u64 = 1;
/// It asks to leave HTTP behind.
const UPGRADE: u64 = 2;
/// From here on the length of its body.
const LENGTH: u64 = 3;

/// What the service tells the socket about the request it was given, and the socket the service.
#[derive(Default)]
pub(super) struct HeadLog {
    body: AtomicU64,
    raw_target: Mutex<Option<RawTarget>>,
}

impl HeadLog {
    /// Called as soon as hyper gives a request to the service, before it reads on. Returns the request's target as it
    /// was sent, if hyper was given another one.
    pub(super) fn begin(
        &self,
        request: &http::Request<hyper::body::Incoming>,
    ) -> Option<RawTarget> {
        let body = if request.extensions().get::<OnUpgrade>().is_some() {
            UPGRADE
        } else if request.body().is_end_stream() {
            LENGTH
        } else {
            match request.body().size_hint().exact() {
                Some(length) => length.saturating_add(LENGTH),
                None => UNKNOWN,
            }
        };
        self.body.store(body, Ordering::Relaxed);
        self.raw_target.lock().take()
    }
}

/// Where in the stream of requests the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// At the beginning of a request line.
    Line,
    /// Behind a request line, in the head: how long the line here is already, and whether it ends with a carriage return.
    Head { line: usize, returned: bool },
    /// Behind a head that hyper has not begun with, as far as is known.
    Begun,
    /// In a body of which so much is left.
    Body(u64),
    /// Unknown from here on.
    Opaque,
    /// Perhaps not HTTP from here on.
    Upgrade,
}

/// The socket.
pub(super) struct ClientIo<S> {
    stream: S,
    log: Arc<HeadLog>,
    activity: Arc<ConnectionActivity>,
    framing: Framing,
    end: PatientEnd,
    linger: Linger,
    /// The socket did not take all that hyper has to write.
    blocked: bool,
    /// Read from the socket, not yet looked at.
    unframed: BytesMut,
    /// Looked at, not yet read by hyper.
    framed: BytesMut,
}

impl<S> ClientIo<S> {
    pub(super) fn new(stream: S, log: Arc<HeadLog>, activity: Arc<ConnectionActivity>) -> Self {
        Self {
            stream,
            log,
            activity,
            framing: Framing::Line,
            end: PatientEnd::default(),
            linger: Linger::default(),
            blocked: false,
            unframed: BytesMut::new(),
            framed: BytesMut::new(),
        }
    }
}

impl<S: AsyncRead + Unpin> ClientIo<S> {
    /// Reads until it is clear whether the client speaks HTTP/2. What was read is given to hyper later.
    pub(super) async fn begins_with_preface(&mut self) -> io::Result<bool> {
        self.unframed.reserve(FIRST_READ_BYTES);
        while self.unframed.len() < PREFACE.len() {
            if self.stream.read_buf(&mut self.unframed).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let seen = self.unframed.len().min(PREFACE.len());
            if self.unframed[..seen] != PREFACE[..seen] {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Passes everything as it is: this is not HTTP/1.
    pub(super) fn set_opaque(&mut self) {
        self.framing = Framing::Opaque;
    }
}

impl<S> ClientIo<S> {
    /// Where the stream is, now that hyper asks for more.
    fn settle(&mut self) {
        if self.framing != Framing::Begun {
            return;
        }
        self.framing = match self.log.body.swap(NOT_BEGUN, Ordering::Relaxed) {
            NOT_BEGUN | UNKNOWN => Framing::Opaque,
            UPGRADE => Framing::Upgrade,
            LENGTH => Framing::Line,
            body => Framing::Body(body - LENGTH),
        };
    }

    /// Looks at bytes that came; returns how many of them hyper may have as they are. None when the request line among
    /// them is not complete, or must be rewritten.
    fn pass(&mut self, bytes: &[u8]) -> usize {
        match self.framing {
            Framing::Begun => 0,
            Framing::Opaque | Framing::Upgrade => bytes.len(),
            Framing::Body(left) => {
                let passed = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                self.framing = match left - passed as u64 {
                    0 => Framing::Line,
                    left => Framing::Body(left),
                };
                passed
            }
            Framing::Head { line, returned } => self.pass_head(bytes, line, returned),
            Framing::Line => {
                let Some(end) = memchr::memchr(b'\n', bytes) else {
                    return 0;
                };
                let line = &bytes[..end];
                match line.strip_suffix(b"\r") {
                    // An empty line before a request (RFC 9112, 2.2).
                    Some([]) => end + 1,
                    None => {
                        self.framing = Framing::Opaque;
                        bytes.len()
                    }
                    Some(line) if line.iter().any(|byte| is_refused(*byte)) => 0,
                    Some(_) => end + 1 + self.pass_head(&bytes[end + 1..], 0, false),
                }
            }
        }
    }

    /// The client has shut its side down: whether it may still wait for the response to a whole request. Where a chunked
    /// body ends is not known here, so that part of one is taken for a whole one.
    fn awaits_response(&self) -> bool {
        matches!(self.framing, Framing::Line | Framing::Opaque)
            && self.unframed.is_empty()
            && (self.blocked || self.activity.has_request())
    }

    fn wrote(&mut self, written: &Poll<io::Result<usize>>, bytes: usize) {
        self.blocked = match written {
            Poll::Pending => true,
            Poll::Ready(Ok(count)) => *count < bytes,
            Poll::Ready(Err(_)) => false,
        };
        if written.is_ready() {
            self.end.put_off();
        }
    }

    fn pass_head(&mut self, bytes: &[u8], mut line: usize, mut returned: bool) -> usize {
        let mut from = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            if end > from {
                line += end - from;
                returned = bytes[end - 1] == b'\r';
            }
            if !returned {
                self.framing = Framing::Opaque;
                return bytes.len();
            }
            if line == 1 {
                self.framing = Framing::Begun;
                return end + 1;
            }
            (from, line, returned) = (end + 1, 0, false);
        }
        if let Some(last) = bytes[from..].last() {
            line += bytes.len() - from;
            returned = *last == b'\r';
        }
        self.framing = Framing::Head { line, returned };
        bytes.len()
    }

    /// Moves what can be passed from `unframed` to `framed`; `false` when more must be read first.
    fn frame(&mut self) -> bool {
        let unframed = std::mem::take(&mut self.unframed);
        let passed = self.pass(&unframed);
        self.unframed = unframed;
        if passed > 0 {
            self.framed = self.unframed.split_to(passed);
            return true;
        }
        match memchr::memchr(b'\n', &self.unframed) {
            Some(end) => {
                let line = self.unframed.split_to(end - 1);
                self.framed = self.rewritten(&line);
                self.framing = Framing::Head {
                    line: line.len(),
                    returned: false,
                };
                true
            }
            None if self.unframed.len() > LINE_BYTES_MAX => {
                self.framing = Framing::Opaque;
                self.framed = std::mem::take(&mut self.unframed);
                true
            }
            None => false,
        }
    }

    /// A request line with a target that hyper accepts. Other parts of the line are left for hyper to refuse.
    fn rewritten(&self, line: &[u8]) -> BytesMut {
        let mut parts = line.splitn(3, |byte| *byte == b' ');
        let (Some(method), Some(target), Some(version)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return line.into();
        };
        let encoded = encode(target);
        *self.log.raw_target.lock() = Some(RawTarget {
            raw: Bytes::copy_from_slice(target),
            encoded: Bytes::copy_from_slice(&encoded),
        });
        let mut rewritten = BytesMut::with_capacity(line.len() + encoded.len() - target.len());
        for part in [method, b" ", &encoded, b" ", version] {
            rewritten.extend_from_slice(part);
        }
        rewritten
    }
}

/// Whether `http::Uri` refuses a byte that Go and Envoy accept in a target. Bytes outside ASCII are among them, since
/// they need not be UTF-8.
fn is_refused(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'`' | 0x80..)
}

fn encode(target: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(target.len() + 16);
    for byte in target {
        if is_refused(*byte) {
            let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value)];
            encoded.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        } else {
            encoded.push(*byte);
        }
    }
    encoded
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.framed.is_empty() && this.unframed.is_empty() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            this.settle();
            let bytes = &buffer.filled()[before..];
            if bytes.is_empty() && this.awaits_response() {
                return this.end.poll(cx);
            }
            let passed = this.pass(bytes);
            if passed == bytes.len() {
                return Poll::Ready(Ok(()));
            }
            this.unframed.extend_from_slice(&bytes[passed..]);
            buffer.set_filled(before + passed);
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        loop {
            if !this.framed.is_empty() {
                let count = this.framed.len().min(buffer.remaining());
                buffer.put_slice(&this.framed[..count]);
                this.framed.advance(count);
                return Poll::Ready(Ok(()));
            }
            this.settle();
            if !this.unframed.is_empty() && this.frame() {
                continue;
            }
            this.unframed.reserve(READ_BYTES);
            let mut part = [0; READ_BYTES];
            let mut part = ReadBuf::new(&mut part);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
            if part.filled().is_empty() {
                if this.awaits_response() {
                    return this.end.poll(cx);
                }
                // The client has ended within a request line: hyper may have what there is.
                this.framing = Framing::Opaque;
                this.framed = std::mem::take(&mut this.unframed);
                if this.framed.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
            this.unframed.extend_from_slice(part.filled());
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(&written, bytes.len());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(&written, slices.iter().map(|slice| slice.len()).sum());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        this.settle();
        let nothing_to_come = this.framing == Framing::Line && this.unframed.is_empty();
        if nothing_to_come || this.framing == Framing::Upgrade {
            return Poll::Ready(Ok(()));
        }
        this.linger.poll(cx, &mut this.stream).map(Ok)
    }
}
