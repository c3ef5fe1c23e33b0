//! An event as a channel keeps it: headers and body as the bytes that came.

use bytes::{BufMut as _, Bytes, BytesMut};
use jiff::Timestamp;

/// An event with what the channel knows of its arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// When the channel took it in.
    pub arrived: Timestamp,
    /// Attributes, extensions and the headers that pass through.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
}

impl StoredEvent {
    /// Headers and body together.
    pub fn bytes(&self) -> usize {
        self.headers.packed().len() + self.body.len()
    }
}

/// Names and values of headers in one piece, so that an event from the disk costs no allocation per header.
///
/// Packed: for each header the length of its name (2 bytes) and of its value (4 bytes), little-endian, then both.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Headers(Bytes);

/// What stands before each name and value.
const LENGTHS: usize = 6;

impl Headers {
    /// Headers in the order given.
    pub fn new<'a>(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut builder = HeadersBuilder::default();
        for (name, value) in headers {
            builder.push(name, value);
        }
        builder.build()
    }

    /// Headers from their packed form; none when it is not one.
    pub fn unpack(packed: Bytes) -> Option<Self> {
        let mut rest: &[u8] = &packed;
        while !rest.is_empty() {
            rest = split(rest)?.1;
        }
        Some(Self(packed))
    }

    /// The packed form.
    pub fn packed(&self) -> &Bytes {
        &self.0
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut rest: &[u8] = &self.0;
        std::iter::from_fn(move || {
            let (header, after) = split(rest)?;
            rest = after;
            Some(header)
        })
    }

    /// The first header of this name; names are kept as they were given.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }
}

/// Name and value.
type Header<'a> = (&'a str, &'a [u8]);

/// Takes one header from the front. Answers with what follows it, too.
fn split(packed: &[u8]) -> Option<(Header<'_>, &[u8])> {
    let (lengths, rest) = packed.split_first_chunk::<LENGTHS>()?;
    let [n0, n1, v0, v1, v2, v3] = *lengths;
    let name_bytes = usize::from(u16::from_le_bytes([n0, n1]));
    let value_bytes = usize::try_from(u32::from_le_bytes([v0, v1, v2, v3])).ok()?;
    let (name, rest) = rest.split_at_checked(name_bytes)?;
    let (value, rest) = rest.split_at_checked(value_bytes)?;
    Some(((std::str::from_utf8(name).ok()?, value), rest))
}

/// Packs headers one after the other.
#[derive(Debug, Default)]
pub struct HeadersBuilder(BytesMut);

impl HeadersBuilder {
    /// Adds a header. A name over 64 KiB or a value over 4 GiB is none that a server takes; it is left out.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        let (Ok(name_bytes), Ok(value_bytes)) =
            (u16::try_from(name.len()), u32::try_from(value.len()))
        else {
            return;
        };
        self.0.reserve(LENGTHS + name.len() + value.len());
        self.0.put_u16_le(name_bytes);
        self.0.put_u32_le(value_bytes);
        self.0.put_slice(name.as_bytes());
        self.0.put_slice(value);
    }

    /// The headers.
    pub fn build(self) -> Headers {
        Headers(self.0.freeze())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packed_and_unpacked_are_equal(headers in proptest::collection::vec(("[a-z-]{0,12}", proptest::collection::vec(any::<u8>(), 0..40)), 0..9)) {
            let packed = Headers::new(headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
            let again = Headers::unpack(packed.packed().clone()).expect("well formed");
            let listed: Vec<(String, Vec<u8>)> = again.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
            prop_assert_eq!(listed, headers);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Headers::unpack(Bytes::from(bytes));
        }
    }

    #[test]
    fn the_first_of_a_name_is_found() {
        let headers = Headers::new([("ce-id", &b"1"[..]), ("ce-type", b"foo"), ("ce-id", b"2")]);
        assert_eq!(headers.get("ce-id"), Some(&b"1"[..]));
        assert_eq!(headers.get("ce-source"), None);
    }
}
