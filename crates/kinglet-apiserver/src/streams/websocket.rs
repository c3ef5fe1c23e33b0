//! The channel protocol over a WebSocket: the first byte of a message says which stream it belongs to.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{Sink, SinkExt as _, Stream as _, StreamExt as _};
use http::{HeaderValue, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::pump::{FromClient, ToClient};
use super::{PING_EVERY, Upgrade, Wanted};
use crate::status::Status;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// A message that says that the stream whose number follows has ended.
const CLOSE: u8 = 255;

/// kubectl sends 32 kB at a time, others whole files of this size.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Input waits in pieces of this size, so that what waits is bounded by little more than one message.
const PIECE_BYTES_MAX: usize = 32 << 10;
/// A client that does not take the goodbye is left.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The headers of the answer.
pub(super) fn headers(
    upgrade: &Upgrade,
    protocol: &'static str,
) -> Result<Vec<(header::HeaderName, HeaderValue)>, Status> {
    let key = upgrade
        .headers
        .get(header::SEC_WEBSOCKET_KEY)
        .ok_or_else(|| Status::bad_request("a WebSocket handshake needs Sec-WebSocket-Key"))?;
    let version = upgrade.headers.get(header::SEC_WEBSOCKET_VERSION);
    if version.is_none_or(|version| version != "13") {
        return Err(Status::bad_request("Sec-WebSocket-Version must be 13"));
    }
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|error| Status::internal(error.to_string()))?;
    Ok(vec![
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
        (
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(protocol),
        ),
    ])
}

pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(connection: S) -> WebSocketStream<S> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await
}

/// Speaks for a program until it has ended or the client is gone.
pub(super) async fn speak(
    connection: TokioIo<Upgraded>,
    from: mpsc::Sender<FromClient>,
    mut to: mpsc::Receiver<ToClient>,
    wanted: Wanted,
) {
    let (mut sink, mut messages) = accept(connection).await.split();
    let incoming = async {
        while let Some(Ok(message)) = messages.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => Bytes::from(text),
                Message::Close(_) => return,
                _ => continue,
            };
            for message in read(&bytes, wanted) {
                // A program that has ended hears nothing more, but what the client sends is read up to its goodbye:
                // closing over unread bytes resets the connection, and the client would lose the program's last words.
                let _ = from.send(message).await;
            }
        }
    };
    let outgoing = async {
        // An empty message tells the client that it is connected.
        let first = if wanted.stdout {
            STDOUT
        } else if wanted.stderr {
            STDERR
        } else {
            ERROR
        };
        send(&mut sink, first, &[]).await?;
        let mut pings = tokio::time::interval(PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let message = tokio::select! {
                message = to.recv() => message,
                _ = pings.tick() => {
                    sink.send(Message::Ping(Bytes::new())).await?;
                    continue;
                }
            };
            let Some(message) = message else { break };
            match message {
                ToClient::Stdout(bytes) if wanted.stdout => send(&mut sink, STDOUT, &bytes).await?,
                ToClient::Stderr(bytes) if wanted.stderr => send(&mut sink, STDERR, &bytes).await?,
                ToClient::Stdout(_) | ToClient::Stderr(_) => {}
                ToClient::End(status) => {
                    send(&mut sink, ERROR, &status).await?;
                    break;
                }
            }
        }
        // Clients take any other end than a normal one for a broken session.
        let normal = CloseFrame {
            code: CloseCode::Normal,
            reason: Utf8Bytes::default(),
        };
        let goodbye = sink.send(Message::Close(Some(normal)));
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
        Ok::<(), Error>(())
    };
    tokio::pin!(incoming);
    tokio::select! {
        () = &mut incoming => {}
        sent = outgoing => if sent.is_ok() {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, incoming).await;
        }
    }
}

fn read(message: &Bytes, wanted: Wanted) -> impl Iterator<Item = FromClient> {
    let mut rest = message.clone();
    let channel = (!rest.is_empty()).then(|| rest.get_u8());
    let (other, input) = match channel {
        Some(STDIN) if wanted.stdin => (None, rest),
        Some(RESIZE) if wanted.tty => (FromClient::resize(&rest), Bytes::new()),
        Some(CLOSE) if *rest == [STDIN] => (Some(FromClient::StdinEnd), Bytes::new()),
        _ => (None, Bytes::new()),
    };
    other.into_iter().chain(pieces(input))
}

/// The bytes in pieces that share them.
fn pieces(mut bytes: Bytes) -> impl Iterator<Item = FromClient> {
    std::iter::from_fn(move || {
        let count = bytes.len().min(PIECE_BYTES_MAX);
        (count > 0).then(|| FromClient::Stdin(bytes.split_to(count)))
    })
}

async fn send<S: Sink<Message, Error = Error> + Unpin>(
    sink: &mut S,
    channel: u8,
    bytes: &[u8],
) -> Result<(), Error> {
    let mut message = BytesMut::with_capacity(bytes.len() + 1);
    message.extend_from_slice(&[channel]);
    message.extend_from_slice(bytes);
    sink.send(Message::Binary(message.freeze())).await
}

/// The bytes of another protocol, carried in binary messages.
pub(super) struct Tunnel<S> {
    socket: WebSocketStream<S>,
    rest: Bytes,
}

impl<S> Tunnel<S> {
    pub(super) fn new(socket: WebSocketStream<S>) -> Self {
        Self {
            socket,
            rest: Bytes::new(),
        }
    }
}

fn broken(error: Error) -> std::io::Error {
    std::io::Error::other(error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tunnel<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let count = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tunnel<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let mut socket = Pin::new(&mut self.socket);
        ready!(socket.as_mut().poll_ready(context)).map_err(broken)?;
        socket
            .start_send(Message::Binary(Bytes::copy_from_slice(bytes)))
            .map_err(broken)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket)
            .poll_flush(context)
            .map_err(broken)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket)
            .poll_close(context)
            .map_err(broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_by_their_first_byte() {
        let wanted = Wanted {
            stdin: true,
            stdout: true,
            stderr: true,
            tty: true,
        };
        let read = |bytes: &'static [u8]| read(&Bytes::from_static(bytes), wanted).next();
        assert_eq!(
            read(b"\0hi"),
            Some(FromClient::Stdin(Bytes::from_static(b"hi")))
        );
        assert_eq!(read(&[CLOSE, STDIN]), Some(FromClient::StdinEnd));
        assert_eq!(
            read(b"\x04{\"Width\":1,\"Height\":2}"),
            Some(FromClient::Resize {
                columns: 1,
                rows: 2
            })
        );
        for nothing in [&b""[..], b"\x01x", b"\xff", b"\xff\x01", b"\x04x", b"\x09"] {
            assert_eq!(read(nothing), None, "{nothing:?}");
        }
        // However large a message is, what waits of it is not.
        let large: Vec<_> = super::read(&vec![0; MESSAGE_BYTES_MAX].into(), wanted).collect();
        let bytes = |message: &FromClient| match message {
            FromClient::Stdin(bytes) => bytes.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            large.iter().map(bytes).sum::<usize>(),
            MESSAGE_BYTES_MAX - 1
        );
        assert!(large.iter().all(|piece| bytes(piece) <= PIECE_BYTES_MAX));
    }
}
