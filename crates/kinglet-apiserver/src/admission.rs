//! The hook through which the root brings defaults and rules of kinds that this crate does not know.

use serde_json::Value;

use crate::identity::Identity;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A changed object; also a patch.
    Update,
    /// A removal; `object` is null, `old` is what goes.
    Delete,
}

/// Something else that whoever asks may or may not do, as in a SubjectAccessReview.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessQuestion<'a> {
    /// Verb, also one that is no request (`knsubscribe`).
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// Plural.
    pub resource: &'a str,
    /// Namespace.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
}

/// What else whoever asks may do.
#[derive(Clone, Copy)]
pub struct Rights<'a>(pub(crate) &'a dyn Fn(&AccessQuestion<'_>) -> bool);

impl Rights<'_> {
    /// Answers a question as a SubjectAccessReview would.
    pub fn may(&self, question: &AccessQuestion<'_>) -> bool {
        (self.0)(question)
    }
}

impl std::fmt::Debug for Rights<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rights")
    }
}

/// One object on its way in. Only whole objects pass here, not subresources: an admission webhook that names a resource does not see its `/status` either.
#[derive(Debug)]
pub struct AdmissionRequest<'a> {
    /// What is being done.
    pub operation: Operation,
    /// API group of the request.
    pub group: &'a str,
    /// Version of the request.
    pub version: &'a str,
    /// Kind of the object.
    pub kind: &'a str,
    /// Plural.
    pub resource: &'a str,
    /// Namespace, empty for cluster-wide kinds.
    pub namespace: &'a str,
    /// Name; empty when it is to be generated.
    pub name: &'a str,
    /// Who asks.
    pub user: &'a Identity,
    /// What else they may do.
    pub rights: Rights<'a>,
    /// Nothing will be stored.
    pub dry_run: bool,
    /// The object; [`Admission::admit`] may change it.
    pub object: &'a mut Value,
    /// What is there now.
    pub old: Option<&'a Value>,
}

/// A refusal, as an admission webhook gives one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// HTTP code; 400 is what webhooks that say nothing else get.
    pub code: u16,
    /// The whole sentence, including a prefix like `admission webhook "…" denied the request: `.
    pub message: String,
    /// Warnings that go to the client with it.
    pub warnings: Vec<String>,
}

/// Defaults and rules. Both calls may return warnings for the client.
pub trait Admission: Send + Sync + 'static {
    /// Comes before schema validation and may change the object.
    fn admit(&self, request: &mut AdmissionRequest<'_>) -> Result<Vec<String>, Denied>;

    /// Comes after schema validation; changes made here are not kept.
    fn check(&self, _request: &mut AdmissionRequest<'_>) -> Result<Vec<String>, Denied> {
        Ok(Vec::new())
    }
}
