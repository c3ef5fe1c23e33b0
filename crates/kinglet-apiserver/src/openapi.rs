//! `/openapi/v3`: what kubectl needs for `apply`, `explain`, `diff` and `create`.
//!
//! Documents are built when asked for and given back as bytes; nothing is kept here.

use serde_json::Value;

/// One served kind of a group and version.
#[derive(Clone, Copy, Debug)]
pub struct Served<'a> {
    /// As in `kind:`.
    pub kind: &'a str,
    /// As in the path.
    pub plural: &'a str,
    /// Lives in namespaces.
    pub namespaced: bool,
    /// Such as `status`.
    pub subresources: &'a [&'a str],
    /// `openAPIV3Schema` of a custom resource; none for built-in kinds.
    pub schema: Option<&'a Value>,
}

/// Schema of a built-in kind by group, version and kind: its name (`io.k8s.api.core.v1.Pod`) and all definitions it reaches by name,
/// with references in the form `#/components/schemas/NAME`, `#/$defs/NAME` or `#/definitions/NAME`.
pub type Builtin<'a> = &'a (dyn Fn(&str, &str, &str) -> Option<(String, serde_json::Map<String, Value>)> + Send + Sync);

/// The answer to `/openapi/v3`: `(group-version path such as "api/v1" or "apis/apps/v1", fingerprint)` of each document.
pub fn index(documents: &[(String, String)]) -> Value {
    let _ = documents;
    Value::Null
}

/// Changes whenever [`document`] would answer otherwise; cheap.
pub fn fingerprint(group: &str, version: &str, served: &[Served<'_>]) -> String {
    let _ = (group, version, served);
    String::new()
}

/// The document of one group and version, as JSON.
pub fn document(group: &str, version: &str, served: &[Served<'_>], builtin: Builtin<'_>) -> Vec<u8> {
    let _ = (group, version, served, builtin);
    Vec::new()
}
