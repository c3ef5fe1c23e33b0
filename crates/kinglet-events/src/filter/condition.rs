//! One attribute against one value.

use crate::event::{Attribute, Event, SpecVersion, Value, essence};

/// Where an attribute of a filter is found. Filters know names of both versions for every event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    SpecVersion,
    Attribute(Attribute),
    /// `datamediatype`: the content type without its parameters.
    MediaType,
    Extension(Box<str>),
}

impl Lookup {
    pub(super) fn new(name: &str) -> Self {
        match name {
            "specversion" => Self::SpecVersion,
            "datamediatype" => Self::MediaType,
            _ => Attribute::parse(SpecVersion::V1, name)
                .or_else(|| Attribute::parse(SpecVersion::V03, name))
                .map_or_else(|| Self::Extension(name.into()), Self::Attribute),
        }
    }

    /// The value in an event; `None` when it is absent.
    pub(super) fn of<'e>(&self, event: &'e Event) -> Option<Value<'e>> {
        match self {
            Self::SpecVersion => Some(event.version().as_str().into()),
            Self::Attribute(attribute) => event.attribute(*attribute).map(Value::Text),
            Self::MediaType => match essence(event.text(Attribute::DataContentType)) {
                "" => None,
                kind => Some(kind.into()),
            },
            Self::Extension(name) => event.extension(name),
        }
    }
}

/// A condition of the dialects `exact`, `prefix` and `suffix`: on the text form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) lookup: Lookup,
    pub(super) value: Box<[u8]>,
}

impl Condition {
    pub(super) fn compare(&self, event: &Event, compare: fn(&[u8], &[u8]) -> bool) -> bool {
        self.lookup
            .of(event)
            .is_some_and(|found| found.with_text(|text| compare(text, &self.value)))
    }
}

/// A condition of `filter.attributes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LegacyCondition {
    pub(super) lookup: Lookup,
    /// Empty: present with any value but the empty one.
    pub(super) value: Box<[u8]>,
}

/// How an absent `time` reads there: the zero of Go's time.
const ABSENT_TIME: &[u8] = b"0001-01-01T00:00:00Z";

impl LegacyCondition {
    /// Compares with the type: a number or a boolean is equal to no text, but it is there.
    pub(super) fn matches(&self, event: &Event) -> bool {
        let found = match (&self.lookup, self.lookup.of(event)) {
            (Lookup::Attribute(Attribute::Time), None) => Value::Text(ABSENT_TIME),
            (_, Some(found)) => found,
            (_, None) => return false,
        };
        match found {
            Value::Text(text) if self.value.is_empty() => !text.is_empty(),
            Value::Text(text) => *text == *self.value,
            Value::Integer(_) | Value::Boolean(_) => self.value.is_empty(),
        }
    }
}
