//! Extension attributes: names of lower-case letters and digits, values of three types.

use http::{HeaderName, HeaderValue};

use super::attribute::PREFIX;
use super::rules::{self, InvalidAttribute};
use super::value::{INTEGER_BYTES, Value};

/// The name of an extension. It holds the header name `ce-NAME`, so that sending makes nothing new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtensionName(HeaderName);

impl ExtensionName {
    /// A name with the prefix `ce-`, in lower case; for constants, since anything else panics.
    ///
    /// # Panics
    /// When the text is no header name in lower case.
    pub const fn from_static(header: &'static str) -> Self {
        Self(HeaderName::from_static(header))
    }

    /// Letters and digits; upper case becomes lower case.
    pub fn parse(name: &str) -> Result<Self, InvalidAttribute> {
        rules::extension_name(name)?;
        let header = HeaderName::from_bytes(format!("{PREFIX}{name}").as_bytes());
        header
            .map(Self)
            .map_err(|_| InvalidAttribute::new(name, "is no name of an extension"))
    }

    /// The name of a header that begins with `ce-`.
    pub(crate) fn of_header(header: &HeaderName) -> Result<Self, InvalidAttribute> {
        let name = header.as_str().strip_prefix(PREFIX).unwrap_or_default();
        rules::extension_name(name)?;
        Ok(Self(header.clone()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        self.0.as_str().strip_prefix(PREFIX).unwrap_or_default()
    }
}

/// An extension's value as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stored {
    Text(HeaderValue),
    Integer(i32),
    Boolean(bool),
}

/// An extension attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    name: ExtensionName,
    value: Stored,
}

impl Extension {
    pub(crate) fn new(name: ExtensionName, value: Value<'_>) -> Result<Self, InvalidAttribute> {
        let value = match value {
            Value::Integer(number) => Stored::Integer(number),
            Value::Boolean(boolean) => Stored::Boolean(boolean),
            Value::Text(text) => Stored::Text(rules::header_value(name.as_str(), text.to_owned())?),
        };
        Ok(Self { name, value })
    }

    /// Shares the header's value.
    pub(crate) fn of_header(
        name: ExtensionName,
        value: HeaderValue,
    ) -> Result<Self, InvalidAttribute> {
        rules::text(name.as_str(), value.as_bytes())?;
        Ok(Self {
            name,
            value: Stored::Text(value),
        })
    }

    /// Its name, without `ce-`.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Its value.
    pub fn value(&self) -> Value<'_> {
        match &self.value {
            Stored::Text(text) => Value::Text(text.as_bytes()),
            Stored::Integer(number) => Value::Integer(*number),
            Stored::Boolean(boolean) => Value::Boolean(*boolean),
        }
    }

    /// Name and value as a header.
    pub(crate) fn header(&self) -> (HeaderName, HeaderValue) {
        let value = match &self.value {
            Stored::Text(text) => text.clone(),
            Stored::Integer(number) => HeaderValue::from(*number),
            Stored::Boolean(true) => HeaderValue::from_static("true"),
            Stored::Boolean(false) => HeaderValue::from_static("false"),
        };
        (self.name.0.clone(), value)
    }

    pub(crate) fn stringify(&mut self) {
        let (_, value) = self.header();
        self.value = Stored::Text(value);
    }

    /// What counts towards the bound of an event's attributes. A number counts as its longest text, so that an event
    /// does not grow when it is sent.
    pub(crate) fn bytes(&self) -> usize {
        let value = match &self.value {
            Stored::Text(text) => text.len(),
            Stored::Integer(_) | Stored::Boolean(_) => INTEGER_BYTES,
        };
        let is_own = rules::OWN_EXTENSIONS.contains(&self.name());
        if is_own && value <= rules::OWN_VALUE_BYTES_MAX {
            return 0;
        }
        self.name().len() + value
    }
}
