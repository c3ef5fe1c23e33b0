//! All kinds that are served at a moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::kinds::custom::Converters;
use crate::kinds::{Kind, builtin, custom};

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
    pub(crate) fn new<'a>(
        definitions: impl Iterator<Item = &'a Value>,
        converters: Converters<'_>,
    ) -> Self {
        let mut registry = Self::default();
        for kind in builtin::table().chain(builtin::absent()) {
            registry.add(kind);
        }
        for definition in definitions {
            for kind in custom::kinds(definition, converters) {
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
