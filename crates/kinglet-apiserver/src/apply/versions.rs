//! The versions in which managers have written: a field set of another version is compared in that version.

use std::borrow::Cow;

use serde_json::Value;

use super::api_version;
use super::types::TypeInfo;

/// The versions of a kind. Conversions may have to wait for somebody else: then [`Versions::convert`] fails, and the whole
/// merge is done again when the converted object is there.
pub trait Versions: std::fmt::Debug + Sync {
    /// How the fields of a version merge; none where the kind has no such version any more.
    fn types(&self, api_version: &str) -> Option<TypeInfo<'_>>;

    /// The object in another version.
    fn convert(&self, object: &Value, api_version: &str) -> Result<Value, Unconverted>;
}

/// Why an object is not there in another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unconverted(pub String);

impl<'a> TypeInfo<'a> {
    /// Managers may have written in each of these versions.
    #[must_use]
    pub fn with_versions(self, versions: &'a dyn Versions) -> Self {
        Self {
            versions: Some(versions),
            ..self
        }
    }

    /// The version by which entries are told apart when sets are compared; all are one where the kind has one version.
    pub(super) fn version_of<'v>(&self, api_version: &'v str) -> &'v str {
        if self.versions.is_some() {
            api_version
        } else {
            ""
        }
    }

    /// An object in a manager's version, and how fields merge there; none where there is no such version any more.
    pub(super) fn at<'v>(
        &self,
        object: &'v Value,
        version: &str,
    ) -> Result<Option<(Cow<'v, Value>, TypeInfo<'a>)>, Unconverted> {
        let Some(versions) = self.versions.filter(|_| !version.is_empty()) else {
            return Ok(Some((Cow::Borrowed(object), *self)));
        };
        let Some(found) = versions.types(version) else {
            return Ok(None);
        };
        let there = found.with_versions(versions);
        // What has no version yet has no fields, either.
        if matches!(api_version(object), "") || api_version(object) == version {
            return Ok(Some((Cow::Borrowed(object), there)));
        }
        let converted = versions.convert(object, version)?;
        Ok(Some((Cow::Owned(converted), there)))
    }
}
