//! A kind as data: what is served under which path, and by which rules.

pub(crate) mod builtin;
pub(crate) mod custom;

use std::sync::Arc;

use crate::names::NameRule;
use crate::printer_columns::Columns;

pub(crate) use crate::builtin_kind::Builtin;

/// One served resource: a group, a version, a plural.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) list_kind: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    /// Which of our own rules apply; none for custom resources.
    pub(crate) builtin: Option<Builtin>,
    /// Where its objects lie, with the slash at the end.
    pub(crate) prefix: String,
    /// The `apiVersion` objects have in the store.
    pub(crate) stored_version: String,
    /// The other versions of a custom kind; none where there are no others.
    pub(crate) conversion: Option<Arc<crate::conversion::Conversion>>,
    pub(crate) has_status: bool,
    pub(crate) scale: Option<Scale>,
    /// Further subresources, for discovery: name, kind, group, version, verbs.
    pub(crate) extra: &'static [Extra],
    pub(crate) names: NameRule,
    /// Does a change of the desired state count up `metadata.generation`?
    pub(crate) generations: bool,
    pub(crate) columns: Columns,
    pub(crate) schema: Option<Arc<crate::schema::Schema>>,
    /// Name of the CRD this comes from.
    pub(crate) definition: Option<String>,
    /// Why nothing of this kind can be made: it is listed, and always empty, because clients that look through all of an application ask for it.
    pub(crate) absent: Option<&'static str>,
    /// What clients of a deprecated version are warned with.
    pub(crate) deprecation: Option<String>,
    /// Verbs for kinds that only answer to `create`.
    pub(crate) review: bool,
}

/// Paths of a scale subresource.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    pub(crate) spec_path: Vec<String>,
    pub(crate) status_path: Vec<String>,
    pub(crate) selector_path: Option<Vec<String>>,
}

/// A subresource of its own kind.
#[derive(Debug)]
pub(crate) struct Extra {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) verbs: &'static [&'static str],
}

impl Kind {
    /// `apps/v1` or `v1`.
    pub(crate) fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// The store key of an object.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced {
            format!("{}{namespace}/{name}", self.prefix)
        } else {
            format!("{}{name}", self.prefix)
        }
    }

    /// The part of the store that a listing covers.
    pub(crate) fn range(&self, namespace: &str) -> String {
        if self.namespaced && !namespace.is_empty() {
            format!("{}{namespace}/", self.prefix)
        } else {
            self.prefix.clone()
        }
    }

    pub(crate) fn is(&self, builtin: Builtin) -> bool {
        self.builtin == Some(builtin)
    }
}

pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}
