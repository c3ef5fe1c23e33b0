//! Names of attributes and versions.

use http::HeaderName;

/// What headers of attributes begin with.
pub(crate) const PREFIX: &str = "ce-";
/// The header of `specversion`.
pub(crate) static SPEC_VERSION_HEADER: HeaderName = HeaderName::from_static("ce-specversion");

/// The version of CloudEvents an event is written in (attribute `specversion`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecVersion {
    /// 0.3: `schemaurl` and `datacontentencoding`.
    V03,
    /// 1.0.
    V1,
}

impl SpecVersion {
    /// The version of a text, if it is one that Knative knows.
    pub fn parse(text: &[u8]) -> Option<Self> {
        match text {
            b"0.3" => Some(Self::V03),
            b"1.0" => Some(Self::V1),
            _ => None,
        }
    }

    /// `0.3` or `1.0`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V03 => "0.3",
            Self::V1 => "1.0",
        }
    }
}

/// An attribute that CloudEvents names, apart from `specversion`. The order is the one they are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribute {
    /// `id`
    Id,
    /// `source`
    Source,
    /// `type`
    Type,
    /// `subject`
    Subject,
    /// `datacontenttype`, the header `Content-Type` in binary mode
    DataContentType,
    /// `dataschema`, in version 0.3 `schemaurl`
    DataSchema,
    /// `time`
    Time,
    /// `datacontentencoding`, version 0.3 only
    DataContentEncoding,
}

/// By [`Attribute`], for version 1.0.
static HEADERS: [HeaderName; Attribute::COUNT] = [
    HeaderName::from_static("ce-id"),
    HeaderName::from_static("ce-source"),
    HeaderName::from_static("ce-type"),
    HeaderName::from_static("ce-subject"),
    http::header::CONTENT_TYPE,
    HeaderName::from_static("ce-dataschema"),
    HeaderName::from_static("ce-time"),
    HeaderName::from_static("ce-datacontentencoding"),
];
static SCHEMA_URL_HEADER: HeaderName = HeaderName::from_static("ce-schemaurl");

impl Attribute {
    /// How many there are.
    pub(crate) const COUNT: usize = 8;
    /// All, in the order they are written.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Id,
        Self::Source,
        Self::Type,
        Self::Subject,
        Self::DataContentType,
        Self::DataSchema,
        Self::Time,
        Self::DataContentEncoding,
    ];

    /// Its name in a version.
    pub fn name(self, version: SpecVersion) -> &'static str {
        match (self, version) {
            (Self::Id, _) => "id",
            (Self::Source, _) => "source",
            (Self::Type, _) => "type",
            (Self::Subject, _) => "subject",
            (Self::DataContentType, _) => "datacontenttype",
            (Self::DataSchema, SpecVersion::V1) => "dataschema",
            (Self::DataSchema, SpecVersion::V03) => "schemaurl",
            (Self::Time, _) => "time",
            (Self::DataContentEncoding, _) => "datacontentencoding",
        }
    }

    /// The attribute of a name in a version; all other names are extensions.
    pub fn parse(version: SpecVersion, name: &str) -> Option<Self> {
        match (name, version) {
            ("id", _) => Some(Self::Id),
            ("source", _) => Some(Self::Source),
            ("type", _) => Some(Self::Type),
            ("subject", _) => Some(Self::Subject),
            ("datacontenttype", _) => Some(Self::DataContentType),
            ("dataschema", SpecVersion::V1) | ("schemaurl", SpecVersion::V03) => {
                Some(Self::DataSchema)
            }
            ("time", _) => Some(Self::Time),
            ("datacontentencoding", SpecVersion::V03) => Some(Self::DataContentEncoding),
            _ => None,
        }
    }

    /// The header it travels in.
    pub(crate) fn header(self, version: SpecVersion) -> &'static HeaderName {
        match (self, version) {
            (Self::DataSchema, SpecVersion::V03) => &SCHEMA_URL_HEADER,
            _ => &HEADERS[self as usize],
        }
    }
}
