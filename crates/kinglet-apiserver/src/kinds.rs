//! Kinds as data: what is served under which path, and by which rules.

pub(crate) mod builtin;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::names::NameRule;
use crate::table::Columns;

pub(crate) use builtin::Builtin;

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
    /// More than one version is served, so answers may need another `apiVersion` than the stored one.
    pub(crate) converts: bool,
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

/// Everything that is served at a moment. Replaced whole when a CRD changes.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// Group -> versions, preferred first, each with its kinds by plural.
    pub(crate) groups: BTreeMap<String, Vec<Version>>,
}

/// A version of a group.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) name: String,
    pub(crate) kinds: BTreeMap<String, Arc<Kind>>,
}

impl Registry {
    /// The built-in kinds and those of the CRDs given.
    pub(crate) fn new<'a>(definitions: impl Iterator<Item = &'a Value>) -> Self {
        let mut registry = Self::default();
        for kind in builtin::table() {
            registry.add(kind);
        }
        for definition in definitions {
            for kind in crate::crd::kinds(definition) {
                registry.add(kind);
            }
        }
        for versions in registry.groups.values_mut() {
            versions.sort_by(|a, b| {
                version_rank(&b.name)
                    .cmp(&version_rank(&a.name))
                    .then(a.name.cmp(&b.name))
            });
        }
        registry
    }

    fn add(&mut self, kind: Kind) {
        let versions = self.groups.entry(kind.group.clone()).or_default();
        let at = versions
            .iter()
            .position(|version| version.name == kind.version)
            .unwrap_or_else(|| {
                versions.push(Version {
                    name: kind.version.clone(),
                    kinds: BTreeMap::new(),
                });
                versions.len() - 1
            });
        versions[at]
            .kinds
            .entry(kind.plural.clone())
            .or_insert_with(|| Arc::new(kind));
    }

    /// The kind served at a path.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.version(group, version)?.kinds.get(plural)
    }

    pub(crate) fn version(&self, group: &str, version: &str) -> Option<&Version> {
        self.groups
            .get(group)?
            .iter()
            .find(|candidate| candidate.name == version)
    }

    /// All kinds.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.groups
            .values()
            .flatten()
            .flat_map(|version| version.kinds.values())
    }
}

/// Kubernetes' order of versions: v2 before v1 before v1beta2 before v1alpha1 before anything else.
fn version_rank(version: &str) -> (u8, u64, u64) {
    let parse = || {
        let rest = version.strip_prefix('v')?;
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let major: u64 = rest[..digits].parse().ok()?;
        let (stage, minor) = match &rest[digits..] {
            "" => (3, 0),
            beta if beta.starts_with("beta") => (2, beta[4..].parse().ok()?),
            alpha if alpha.starts_with("alpha") => (1, alpha[5..].parse().ok()?),
            _ => return None,
        };
        Some((stage, major, minor))
    };
    parse().unwrap_or((0, 0, 0))
}

#[cfg(test)]
mod tests {
    use super::version_rank;

    #[test]
    fn versions_sort_like_kubernetes() {
        let mut versions = ["foo1", "v1alpha1", "v1beta2", "v10", "v2", "v1", "v1beta10"];
        versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "foo1"]
        );
    }
}
