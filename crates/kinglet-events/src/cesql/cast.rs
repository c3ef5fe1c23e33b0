//! Types and casts (spec/eventing.md 9.3).

use std::borrow::Cow;

use super::CesqlValue;
use super::error::Fault;
use crate::event::{Value, shorten};

/// Text while it is evaluated: the event's or the expression's where it can be.
pub(crate) type Text<'a> = Cow<'a, [u8]>;

/// A value while it is evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scalar<'a> {
    Text(Text<'a>),
    Integer(i32),
    Boolean(bool),
}

/// A type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Boolean,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "String",
            Self::Integer => "Integer",
            Self::Boolean => "Boolean",
        }
    }

    /// What stands beside an error.
    pub(super) fn zero(self) -> CesqlValue {
        match self {
            Self::Text => CesqlValue::String(Vec::new()),
            Self::Integer => CesqlValue::Integer(0),
            Self::Boolean => CesqlValue::Boolean(false),
        }
    }
}

impl<'a> From<Value<'a>> for Scalar<'a> {
    fn from(value: Value<'a>) -> Self {
        match value {
            Value::Text(text) => Self::Text(Cow::Borrowed(text)),
            Value::Integer(number) => Self::Integer(number),
            Value::Boolean(boolean) => Self::Boolean(boolean),
        }
    }
}

impl<'a> Scalar<'a> {
    /// Never fails.
    pub(super) fn into_text(self) -> Text<'a> {
        match self {
            Self::Text(text) => text,
            Self::Integer(number) => Cow::Owned(number.to_string().into_bytes()),
            Self::Boolean(true) => Cow::Borrowed(b"true"),
            Self::Boolean(false) => Cow::Borrowed(b"false"),
        }
    }

    pub(super) fn to_integer(&self) -> Option<i32> {
        match self {
            Self::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            Self::Integer(number) => Some(*number),
            Self::Boolean(boolean) => Some(i32::from(*boolean)),
        }
    }

    pub(super) fn to_boolean(&self) -> Option<bool> {
        match self {
            Self::Text(text) if text.eq_ignore_ascii_case(b"true") => Some(true),
            Self::Text(text) if text.eq_ignore_ascii_case(b"false") => Some(false),
            Self::Text(_) => None,
            Self::Integer(number) => Some(*number != 0),
            Self::Boolean(boolean) => Some(*boolean),
        }
    }

    pub(super) fn into_integer(self) -> Result<i32, Fault<'a>> {
        self.to_integer().ok_or(Fault::Cast(self, Kind::Integer))
    }

    pub(super) fn into_boolean(self) -> Result<bool, Fault<'a>> {
        self.to_boolean().ok_or(Fault::Cast(self, Kind::Boolean))
    }

    /// Whether this value, cast to the other's type, is the other.
    pub(super) fn equals(self, other: &Scalar<'_>) -> Result<bool, Fault<'a>> {
        Ok(match other {
            // Text against text is by far the most frequent, and copies nothing.
            Scalar::Text(text) => match &self {
                Self::Text(own) => own == text,
                _ => self.into_text() == *text,
            },
            Scalar::Integer(number) => self.into_integer()? == *number,
            Scalar::Boolean(boolean) => self.into_boolean()? == *boolean,
        })
    }

    pub(super) fn into_value(self) -> CesqlValue {
        match self {
            Self::Text(text) => CesqlValue::String(text.into_owned()),
            Self::Integer(number) => CesqlValue::Integer(number),
            Self::Boolean(boolean) => CesqlValue::Boolean(boolean),
        }
    }

    /// For an error.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("{:?}", shorten(&String::from_utf8_lossy(text))),
            Self::Integer(number) => number.to_string(),
            Self::Boolean(boolean) => boolean.to_string(),
        }
    }
}
