//! Frames of SPDY/3.1 and their compressed headers.

use std::io;

use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};

/// The bit of control frames.
pub(super) const CONTROL: u32 = 1 << 31;
pub(super) const SYN_STREAM: u32 = 1;
const SYN_REPLY: u32 = 2;
pub(super) const RST_STREAM: u32 = 3;
pub(super) const PING: u32 = 6;
pub(super) const GOAWAY: u32 = 7;
const VERSION: u32 = 3 << 16;
/// Flag of the last frame of a stream.
pub(super) const FIN: u8 = 1;
/// Status of a stream that is not wanted.
pub(super) const REFUSED: u32 = 3;

/// Headers of a stream are a few words.
pub(super) const CONTROL_BYTES_MAX: usize = 16 << 10;
const HEADER_BYTES_MAX: usize = 64 << 10;
/// What both sides know before the first header (the protocol's own dictionary).
pub(super) const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");

/// Name and value pairs of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Headers(Vec<(String, String)>);

impl Headers {
    pub(in super::super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// A control frame.
pub(super) fn control(kind: u32, flags: u8, body: &[u8]) -> Bytes {
    frame(CONTROL | VERSION | kind, flags, body)
}

/// A data frame.
pub(super) fn data(id: u32, bytes: &[u8], last: bool) -> Bytes {
    frame(id, if last { FIN } else { 0 }, bytes)
}

fn frame(first: u32, flags: u8, body: &[u8]) -> Bytes {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(body.len() + 8);
    frame.extend_from_slice(&first.to_be_bytes());
    frame.push(flags);
    frame.extend_from_slice(&length.to_be_bytes()[1..]);
    frame.extend_from_slice(body);
    frame.into()
}

/// Agrees to a stream, without headers. All replies are one compressed stream; blocks that are stored as they are need no
/// compressor, and the empty one at the end makes the reader give out what came before.
pub(super) fn empty_reply(id: u32, is_first: bool) -> Bytes {
    const ZLIB_HEADER: [u8; 2] = [0x78, 0x01];
    const NO_HEADERS: [u8; 4] = [0; 4];
    const STORED_FOUR: [u8; 5] = [0, 4, 0, 0xfb, 0xff];
    const STORED_NONE: [u8; 5] = [0, 0, 0, 0xff, 0xff];
    let mut body = id.to_be_bytes().to_vec();
    if is_first {
        body.extend_from_slice(&ZLIB_HEADER);
    }
    body.extend_from_slice(&STORED_FOUR);
    body.extend_from_slice(&NO_HEADERS);
    body.extend_from_slice(&STORED_NONE);
    control(SYN_REPLY, 0, &body)
}

/// A big-endian number at a place of a frame.
pub(super) fn number(body: &[u8], at: usize) -> Option<u32> {
    let bytes = body.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_be_bytes)
}

/// Takes the headers of one connection's streams apart: they are one compressed stream.
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn headers(&mut self, packed: &[u8]) -> io::Result<Headers> {
        let invalid = |why: &str| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("headers of a SPDY stream: {why}"),
            )
        };
        let mut plain = vec![0; HEADER_BYTES_MAX];
        let (mut read, mut written) = (0, 0);
        loop {
            let (in_before, out_before) = (self.0.total_in(), self.0.total_out());
            let outcome = self.0.decompress(
                &packed[read..],
                &mut plain[written..],
                FlushDecompress::Sync,
            );
            let moved = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(0);
            read += moved(self.0.total_in(), in_before);
            written += moved(self.0.total_out(), out_before);
            match outcome {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(DICTIONARY)
                        .map_err(|error| invalid(&error.to_string()))?;
                }
                Err(error) => return Err(invalid(&error.to_string())),
                Ok(Status::StreamEnd) => return Err(invalid("the compressed stream ends")),
                Ok(_) if written == plain.len() => return Err(invalid("too long")),
                Ok(_) if read >= packed.len() => break,
                Ok(Status::BufError) => return Err(invalid("incomplete")),
                Ok(Status::Ok) => {}
            }
        }
        parse(&plain[..written]).ok_or_else(|| invalid("malformed"))
    }
}

fn parse(plain: &[u8]) -> Option<Headers> {
    let count = number(plain, 0)?;
    let mut at = 4;
    let mut word = || {
        let length = usize::try_from(number(plain, at)?).ok()?;
        let bytes = plain.get(at + 4..at.checked_add(4)?.checked_add(length)?)?;
        at += 4 + length;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    let mut headers = Vec::new();
    for _ in 0..count {
        headers.push((word()?, word()?));
    }
    Some(Headers(headers))
}
