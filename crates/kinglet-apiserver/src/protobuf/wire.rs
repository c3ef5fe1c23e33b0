//! The wire format: numbered fields, one after another.

use super::{ProtobufError, broken};

/// What follows a field's number.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

impl<'a> Payload<'a> {
    pub(super) fn varint(self, path: &str) -> Result<u64, ProtobufError> {
        match self {
            Payload::Varint(number) => Ok(number),
            Payload::Fixed64(_) | Payload::Fixed32(_) | Payload::Bytes(_) => {
                Err(broken("wrong wireType, expected varint", path))
            }
        }
    }

    pub(super) fn float(self, path: &str) -> Result<f64, ProtobufError> {
        match self {
            Payload::Fixed64(bits) => Ok(f64::from_bits(bits)),
            Payload::Fixed32(bits) => Ok(f64::from(f32::from_bits(bits))),
            Payload::Varint(_) | Payload::Bytes(_) => {
                Err(broken("wrong wireType, expected a float", path))
            }
        }
    }

    pub(super) fn bytes(self, path: &str) -> Result<&'a [u8], ProtobufError> {
        match self {
            Payload::Bytes(bytes) => Ok(bytes),
            Payload::Varint(_) | Payload::Fixed64(_) | Payload::Fixed32(_) => {
                Err(broken("wrong wireType, expected bytes", path))
            }
        }
    }

    pub(super) fn text(self, path: &str) -> Result<&'a str, ProtobufError> {
        std::str::from_utf8(self.bytes(path)?).map_err(|_| broken("text is not UTF-8", path))
    }
}

/// The low half of a varint as a signed number.
pub(super) fn signed32(number: u64) -> i32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "protobuf defines int32 as the low half"
    )]
    let low = number as u32;
    low.cast_signed()
}

/// Walks the fields of a message.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    place: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], place: &'static str) -> Self {
        Self { rest: bytes, place }
    }

    /// The next field, none at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Payload<'a>)>, ProtobufError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3)
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| broken("illegal tag", self.place))?;
        let payload = match tag & 7 {
            0 => Payload::Varint(self.varint()?),
            1 => Payload::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| self.short())?;
                Payload::Bytes(self.take(length)?)
            }
            5 => Payload::Fixed32(u32::from_le_bytes(self.fixed()?)),
            _ => return Err(broken("illegal wireType", self.place)),
        };
        Ok(Some((number, payload)))
    }

    /// A bare varint (packed lists), none at the end.
    pub(super) fn varint_or_end(&mut self) -> Result<Option<u64>, ProtobufError> {
        if self.rest.is_empty() {
            Ok(None)
        } else {
            self.varint().map(Some)
        }
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut number = 0u64;
        for (at, byte) in self.rest.iter().enumerate().take(10) {
            number |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok(number);
            }
        }
        if self.rest.len() < 10 {
            Err(self.short())
        } else {
            Err(broken("integer overflow", self.place))
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], ProtobufError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(*taken)
    }

    fn short(&self) -> ProtobufError {
        broken("unexpected EOF", self.place)
    }
}
