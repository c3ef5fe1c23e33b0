//! The little of protobuf that statistics need: fields one after the other, and writing three types of them.

use super::WireError;

/// Groups within groups that are skipped; nobody has written any since proto2.
const DEPTH_MAX: usize = 32;
const FIELD_MAX: u64 = (1 << 29) - 1;

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const GROUP: u64 = 3;
const GROUP_END: u64 = 4;
const FIXED32: u64 = 5;

/// The value of a field, as far as anybody asks for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// Eight bytes: the only fields of eight bytes here are doubles.
    Double(f64),
    /// A string or a message.
    Bytes(&'a [u8]),
    /// A type that no field here has; skipped.
    Other,
}

/// The fields of a message; ends after the first error.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), WireError> {
        let (number, kind) = self.key()?;
        if kind == GROUP {
            self.skip_group(number)?;
            return Ok((number, Value::Other));
        }
        Ok((number, self.value(kind)?))
    }

    fn key(&mut self) -> Result<(u64, u64), WireError> {
        let key = self.varint()?;
        let (number, kind) = (key >> 3, key & 7);
        if !(1..=FIELD_MAX).contains(&number) {
            return Err(WireError::Malformed);
        }
        Ok((number, kind))
    }

    fn value(&mut self, kind: u64) -> Result<Value<'a>, WireError> {
        match kind {
            VARINT => self.varint().map(|_| Value::Other),
            FIXED64 => {
                let (bytes, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated)?;
                self.rest = rest;
                Ok(Value::Double(f64::from_le_bytes(*bytes)))
            }
            BYTES => {
                let length = self.varint()?;
                self.take(length).map(Value::Bytes)
            }
            FIXED32 => self.take(4).map(|_| Value::Other),
            _ => Err(WireError::Malformed),
        }
    }

    fn skip_group(&mut self, number: u64) -> Result<(), WireError> {
        let mut open = vec![number];
        while let Some(innermost) = open.last().copied() {
            match self.key()? {
                (number, GROUP) if open.len() < DEPTH_MAX => open.push(number),
                (_, GROUP) => return Err(WireError::TooDeep),
                (number, GROUP_END) if number == innermost => {
                    open.pop();
                }
                (_, kind) => {
                    self.value(kind)?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], WireError> {
        let length = usize::try_from(length).map_err(|_| WireError::Truncated)?;
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for at in 0..10 {
            let (byte, rest) = self.rest.split_first().ok_or(WireError::Truncated)?;
            self.rest = rest;
            if at == 9 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Malformed)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// A message, also an empty one: that it is there means something.
pub(super) fn put_message(out: &mut Vec<u8>, number: u64, message: &[u8]) {
    put_varint(out, number << 3 | BYTES);
    put_varint(out, message.len() as u64);
    out.extend_from_slice(message);
}

/// A string, unless it is empty.
pub(super) fn put_string(out: &mut Vec<u8>, number: u64, text: &str) {
    if !text.is_empty() {
        put_message(out, number, text.as_bytes());
    }
}

/// A double, unless it is zero.
pub(super) fn put_double(out: &mut Vec<u8>, number: u64, value: f64) {
    if value != 0.0 {
        put_varint(out, number << 3 | FIXED64);
        out.extend_from_slice(&value.to_le_bytes());
    }
}
