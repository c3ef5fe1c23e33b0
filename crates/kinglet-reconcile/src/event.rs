//! Events as controllers record them: what happened to an object, in one word and one sentence.

use k8s_openapi::api::core::v1::ObjectReference;

use crate::object::Object;

/// How serious an Event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Something happened as it should.
    Normal,
    /// Something needs attention.
    Warning,
}

impl Severity {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// An Event to be recorded about an object.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRecord {
    /// What it is about.
    pub about: ObjectReference,
    /// Normal or Warning.
    pub severity: Severity,
    /// One CamelCase word.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

impl EventRecord {
    /// An Event about `object`.
    pub fn new<K: Object>(
        object: &K,
        severity: Severity,
        reason: &str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            about: reference_to(object),
            severity,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

/// The reference that Events and statuses use for `object`.
pub fn reference_to<K: Object>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}
