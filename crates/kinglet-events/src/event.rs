//! The CloudEvent: attributes and extensions as header values, data as the bytes that arrived.
//!
//! Always: every attribute is valid for its version, is text in UTF-8 without control characters, and so can be sent as
//! a header. A clone copies no text: header values and data are shared.

mod attribute;
mod extension;
mod media_type;
mod rules;
mod timestamp;
mod uri;
mod value;

use bytes::Bytes;
use http::HeaderValue;

pub use attribute::{Attribute, SpecVersion};
pub(crate) use attribute::{PREFIX, SPEC_VERSION_HEADER};
pub use extension::{Extension, ExtensionName};
pub(crate) use media_type::{essence, is_json};
#[cfg(test)]
pub(crate) use rules::OWN_EXTENSIONS;
pub(crate) use rules::shorten;
pub use rules::{ATTRIBUTE_NAME_BYTES_MAX, ATTRIBUTES_BYTES_MAX, EXTENSIONS_MAX, InvalidAttribute};
pub use timestamp::format as format_timestamp;
pub use value::Value;

/// An event that keeps the rules of CloudEvents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    version: SpecVersion,
    attributes: [Option<HeaderValue>; Attribute::COUNT],
    /// Sorted by name, each name once.
    extensions: Vec<Extension>,
    data: Option<Bytes>,
}

impl Event {
    /// An event of version 1.0 with the attributes that each must have.
    pub fn new(id: &str, source: &str, kind: &str) -> Result<Self, Vec<InvalidAttribute>> {
        let mut event = Self::empty(SpecVersion::V1);
        let mut problems = Vec::new();
        for (attribute, text) in [
            (Attribute::Id, id),
            (Attribute::Source, source),
            (Attribute::Type, kind),
        ] {
            if let Err(problem) = event.set(attribute, text) {
                problems.push(problem);
            }
        }
        problems.extend(event.missing());
        if problems.is_empty() {
            Ok(event)
        } else {
            Err(problems)
        }
    }

    pub(crate) fn empty(version: SpecVersion) -> Self {
        Self {
            version,
            attributes: Default::default(),
            extensions: Vec::new(),
            data: None,
        }
    }

    /// Required attributes that are not set.
    pub(crate) fn missing(&self) -> impl Iterator<Item = InvalidAttribute> + '_ {
        [Attribute::Id, Attribute::Source, Attribute::Type]
            .into_iter()
            .filter(|attribute| self.attributes[*attribute as usize].is_none())
            .map(|attribute| {
                InvalidAttribute::new(attribute.name(self.version), "is required and not empty")
            })
    }

    /// The version it was written in; it is never changed on the way.
    pub fn version(&self) -> SpecVersion {
        self.version
    }

    /// Identifies the event within its source.
    pub fn id(&self) -> &str {
        self.text(Attribute::Id)
    }

    /// Who produced it: a URI reference.
    pub fn source(&self) -> &str {
        self.text(Attribute::Source)
    }

    /// What happened (attribute `type`).
    pub fn kind(&self) -> &str {
        self.text(Attribute::Type)
    }

    /// An attribute's text, empty when it is absent.
    pub fn text(&self, attribute: Attribute) -> &str {
        self.attribute(attribute)
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }

    /// An attribute's bytes, which are UTF-8.
    pub fn attribute(&self, attribute: Attribute) -> Option<&[u8]> {
        self.attributes[attribute as usize]
            .as_ref()
            .map(HeaderValue::as_bytes)
    }

    /// An attribute as a header value, without a copy.
    pub(crate) fn header(&self, attribute: Attribute) -> Option<&HeaderValue> {
        self.attributes[attribute as usize].as_ref()
    }

    /// Sets an attribute, or removes an optional one with the empty text.
    pub fn set(&mut self, attribute: Attribute, text: &str) -> Result<(), InvalidAttribute> {
        let value = rules::header_value(attribute.name(self.version), text.to_owned())?;
        self.set_header(attribute, value)
    }

    pub(crate) fn set_header(
        &mut self,
        attribute: Attribute,
        value: HeaderValue,
    ) -> Result<(), InvalidAttribute> {
        let checked = rules::attribute(self.version, attribute, value)?;
        self.attributes[attribute as usize] = checked;
        Ok(())
    }

    /// The extensions, sorted by name.
    pub fn extensions(&self) -> &[Extension] {
        &self.extensions
    }

    /// The extension of a name in lower case.
    pub fn extension(&self, name: &str) -> Option<Value<'_>> {
        // Few and sorted; up to a dozen a walk is quicker than halving.
        self.extensions
            .iter()
            .find(|extension| extension.name() == name)
            .map(Extension::value)
    }

    /// Sets an extension. More than [`EXTENSIONS_MAX`] are refused.
    pub fn set_extension(
        &mut self,
        name: ExtensionName,
        value: Value<'_>,
    ) -> Result<(), InvalidAttribute> {
        let extension = Extension::new(name, value)?;
        self.put_extension(extension)
    }

    pub(crate) fn put_extension(&mut self, extension: Extension) -> Result<(), InvalidAttribute> {
        match self
            .extensions
            .binary_search_by(|other| other.name().cmp(extension.name()))
        {
            Ok(at) => self.extensions[at] = extension,
            Err(_) if self.is_full_for(extension.name()) => {
                return Err(InvalidAttribute::new(
                    extension.name(),
                    format!("is one extension too many: an event has at most {EXTENSIONS_MAX}"),
                ));
            }
            Err(at) => self.extensions.insert(at, extension),
        }
        Ok(())
    }

    /// Whether there is no room for one more extension of this name.
    fn is_full_for(&self, name: &str) -> bool {
        let is_own = |name: &str| rules::OWN_EXTENSIONS.contains(&name);
        let counted = |extension: &&Extension| !is_own(extension.name());
        self.extensions.len() >= EXTENSIONS_MAX
            && !is_own(name)
            && self.extensions.iter().filter(counted).count() >= EXTENSIONS_MAX
    }

    /// Removes an extension, and says whether it was there.
    pub fn remove_extension(&mut self, name: &str) -> bool {
        let before = self.extensions.len();
        self.extensions.retain(|extension| extension.name() != name);
        before != self.extensions.len()
    }

    /// The data; `None` when there is none.
    pub fn data(&self) -> Option<&Bytes> {
        self.data.as_ref()
    }

    /// Replaces the data.
    pub fn set_data(&mut self, data: Option<Bytes>) {
        self.data = data;
    }

    /// Turns numbers and booleans into text, as sending the event in binary mode and reading it again does. Knative's
    /// broker does so between ingress and filter, so filters of Triggers see texts only.
    pub fn stringify_extensions(&mut self) {
        for extension in &mut self.extensions {
            extension.stringify();
        }
    }

    /// Bytes of all attributes and extensions with their names, apart from those that a Broker sets itself.
    pub(crate) fn attributes_bytes(&self) -> usize {
        let fixed: usize = Attribute::ALL
            .iter()
            .filter_map(|attribute| self.attribute(*attribute))
            .map(<[u8]>::len)
            .sum();
        let extensions: usize = self.extensions.iter().map(Extension::bytes).sum();
        fixed + extensions
    }
}

#[cfg(test)]
mod tests;
