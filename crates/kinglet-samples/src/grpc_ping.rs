//! The gRPC ping service (`ping.PingService/Ping` and `PingStream`) and gRPC's health check.
//!
//! The messages have one string field each, so their three lines of encoding stand here.

use std::convert::Infallible;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use hyper::body::{Frame, Incoming};

use crate::serve::{Answer, Request, text};

/// One message; ours are a line of text.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

pub(crate) async fn answer(request: Request) -> Answer {
    let grpc = request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if !grpc {
        return text(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "this is a gRPC service: ping.PingService/Ping\n",
        );
    }
    let reply: fn(&[u8]) -> Bytes = match request.uri().path() {
        "/ping.PingService/Ping" | "/ping.PingService/PingStream" => {
            |message| string_message(&format!("{} - pong", string_field(message)))
        }
        // SERVING = 1
        "/grpc.health.v1.Health/Check" => |_| Bytes::from_static(&[0x08, 0x01]),
        _ => return trailers_only(12, "unknown method"),
    };
    stream(request.into_body(), reply)
}

/// Answers each message as it arrives, then says status 0.
fn stream(body: Incoming, reply: fn(&[u8]) -> Bytes) -> Answer {
    let source = BodyStream::new(body);
    let replies = futures_util::stream::unfold(
        (source, BytesMut::new(), false),
        move |(mut source, mut buffer, finished)| async move {
            if finished {
                return None;
            }
            loop {
                if buffer.len() >= 5 {
                    let length =
                        u32::from_be_bytes([buffer[1], buffer[2], buffer[3], buffer[4]]) as usize;
                    if buffer[0] != 0 || length > MESSAGE_BYTES_MAX {
                        return Some((
                            Ok::<_, Infallible>(Frame::trailers(status(12))),
                            (source, buffer, true),
                        ));
                    }
                    if buffer.len() >= 5 + length {
                        buffer.advance(5);
                        let message = buffer.split_to(length);
                        return Some((
                            Ok(Frame::data(framed(&reply(&message)))),
                            (source, buffer, false),
                        ));
                    }
                }
                match source.next().await {
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            buffer.extend_from_slice(&data);
                        }
                    }
                    Some(Err(_)) | None => {
                        return Some((Ok(Frame::trailers(status(0))), (source, buffer, true)));
                    }
                }
            }
        },
    );
    grpc(Response::new(StreamBody::new(replies).boxed_unsync()))
}

fn grpc(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    answer
}

fn trailers_only(code: u16, message: &'static str) -> Answer {
    let mut answer = grpc(text(StatusCode::OK, ""));
    answer.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    answer
        .headers_mut()
        .insert("grpc-status", HeaderValue::from(code));
    answer
        .headers_mut()
        .insert("grpc-message", HeaderValue::from_static(message));
    answer
}

fn status(code: u16) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(code));
    trailers
}

fn framed(message: &Bytes) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.extend_from_slice(&[0]);
    frame.extend_from_slice(
        &u32::try_from(message.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    frame.extend_from_slice(message);
    frame.freeze()
}

/// Field 1 as a string, empty where it is absent or broken.
fn string_field(message: &[u8]) -> String {
    let Some((0x0a, rest)) = message.split_first() else {
        return String::new();
    };
    let (mut length, mut shift, mut used) = (0_usize, 0, 0);
    for byte in rest.iter().take(4) {
        used += 1;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    rest.get(used..used + length)
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .unwrap_or_default()
}

fn string_message(text: &str) -> Bytes {
    let mut message = vec![0x0a];
    let mut length = text.len();
    while length >= 0x80 {
        message.push(length.to_le_bytes()[0] | 0x80);
        length >>= 7;
    }
    message.push(length.to_le_bytes()[0]);
    message.extend_from_slice(text.as_bytes());
    message.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_round_trip() {
        for text in ["", "hello", &"x".repeat(300)] {
            assert_eq!(string_field(&string_message(text)), text);
        }
        assert_eq!(string_field(&[0x0a, 0xff]), "");
        assert_eq!(string_field(&[0x10, 1]), "");
    }
}
