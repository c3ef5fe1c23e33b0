//! The value of an attribute: text, a number or a boolean.

use std::io::Write as _;

/// A value as it is seen by filters. Only extensions of structured events are numbers and booleans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Text in UTF-8.
    Text(&'a [u8]),
    /// A number of 32 bits.
    Integer(i32),
    /// A boolean.
    Boolean(bool),
}

/// The longest text of a number: `-2147483648`.
pub(super) const INTEGER_BYTES: usize = 11;

impl Value<'_> {
    /// Calls a function with the text form, which needs no memory of its own.
    pub fn with_text<R>(self, read: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Self::Text(text) => read(text),
            Self::Boolean(true) => read(b"true"),
            Self::Boolean(false) => read(b"false"),
            Self::Integer(number) => {
                let mut digits = [0; INTEGER_BYTES];
                let mut rest = &mut digits[..];
                // It always fits.
                let _ = write!(rest, "{number}");
                let free = rest.len();
                read(&digits[..INTEGER_BYTES - free])
            }
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.as_bytes())
    }
}

impl From<i32> for Value<'_> {
    fn from(number: i32) -> Self {
        Self::Integer(number)
    }
}
