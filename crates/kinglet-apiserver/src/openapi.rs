//! `/openapi/v3`: what kubectl needs for `apply`, `explain`, `diff` and `create`.
//!
//! Flow: served kinds, schemas of CRDs and of built-in kinds → one document per group and version.
//! Always: documents are built when asked for and written straight into bytes, one kind at a time; nothing is kept here.

mod paths;
mod schemas;
#[cfg(test)]
mod tests;
pub(crate) mod v2;

use std::collections::BTreeSet;
use std::io::Write as _;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

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
pub type Builtin<'a> =
    &'a (dyn Fn(&str, &str, &str) -> Option<(String, Map<String, Value>)> + Send + Sync);

/// The answer to `/openapi/v3`: `(group-version path such as "api/v1" or "apis/apps/v1", fingerprint)` of each document.
pub fn index(documents: &[(String, String)]) -> Value {
    let paths: Map<String, Value> = documents
        .iter()
        .map(|(path, print)| {
            (
                path.clone(),
                json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={print}")}),
            )
        })
        .collect();
    json!({"paths": paths})
}

/// Changes whenever [`document`] would answer otherwise; cheap.
pub fn fingerprint(group: &str, version: &str, served: &[Served<'_>]) -> String {
    let mut hash = Hashing(Sha256::new());
    for text in [env!("CARGO_PKG_VERSION"), group, version] {
        hash.text(text);
    }
    for kind in served {
        hash.text(kind.kind);
        hash.text(kind.plural);
        hash.text(if kind.namespaced { "n" } else { "c" });
        kind.subresources.iter().for_each(|sub| hash.text(sub));
        if let Some(schema) = kind.schema {
            serde_json::to_writer(&mut hash, schema).expect("a hash takes everything");
        }
    }
    hash.0
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect()
}

struct Hashing(Sha256);

impl Hashing {
    fn text(&mut self, text: &str) {
        self.0.update(text.len().to_le_bytes());
        self.0.update(text.as_bytes());
    }
}

impl std::io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The document of one group and version, as JSON.
pub fn document(
    group: &str,
    version: &str,
    served: &[Served<'_>],
    builtin: Builtin<'_>,
) -> Vec<u8> {
    let mut out = Members::open(
        Vec::new(),
        r#"{"openapi":"3.0.0","info":{"title":"Kubernetes","version":"v1.34.4"},"paths":{"#,
    );
    for kind in served {
        let name = schemas::name_of(group, version, kind);
        for (path, operations) in paths::of(group, version, kind, &name) {
            out.member(&path, &operations);
        }
    }
    let mut out = out.next(r#"},"components":{"schemas":{"#);
    let mut written = BTreeSet::new();
    for kind in served {
        schemas::write(group, version, kind, builtin, &mut |name, schema| {
            if written.insert(name.to_owned()) {
                out.member(name, schema);
            }
        });
    }
    // Custom resources refer to the metadata of Kubernetes.
    if served.iter().any(|kind| kind.schema.is_some()) {
        schemas::write_metadata(builtin, &mut |name, schema| {
            if written.insert(name.to_owned()) {
                out.member(name, schema);
            }
        });
    }
    out.close("}}}")
}

/// Writes the members of a JSON object, one by one.
struct Members {
    bytes: Vec<u8>,
    first: bool,
}

impl Members {
    fn open(mut bytes: Vec<u8>, text: &str) -> Self {
        bytes.extend_from_slice(text.as_bytes());
        Self { bytes, first: true }
    }

    fn member(&mut self, name: &str, value: &Value) {
        let comma = if std::mem::take(&mut self.first) {
            ""
        } else {
            ","
        };
        write!(self.bytes, "{comma}{}:{value}", Value::from(name))
            .expect("memory takes everything");
    }

    fn next(self, text: &str) -> Self {
        Self::open(self.bytes, text)
    }

    fn close(mut self, text: &str) -> Vec<u8> {
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.shrink_to_fit();
        self.bytes
    }
}
