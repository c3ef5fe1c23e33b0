//! Labels and annotations that children take from their parents.

use std::collections::BTreeMap;

/// Labels or annotations.
pub(crate) type Pairs = BTreeMap<String, String>;

/// kubectl's own note; it describes the parent, never the child.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What `from` holds, without the keys that `unwanted` names.
pub(crate) fn without(from: Option<&Pairs>, unwanted: impl Fn(&str) -> bool) -> Pairs {
    let all = from.into_iter().flatten();
    all.filter(|(key, _)| !unwanted(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Adds one pair.
pub(crate) fn put(pairs: &mut Pairs, key: &str, value: impl Into<String>) {
    pairs.insert(key.to_owned(), value.into());
}

/// `None` for nothing, as the API leaves empty maps out.
pub(crate) fn some(pairs: Pairs) -> Option<Pairs> {
    (!pairs.is_empty()).then_some(pairs)
}

/// The names in a comma-joined list (`serving.knative.dev/routes`), sorted.
pub(crate) fn names(list: Option<&str>) -> std::collections::BTreeSet<String> {
    list.into_iter()
        .flat_map(|list| list.split(','))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The reverse of [`names`].
pub(crate) fn joined(names: &std::collections::BTreeSet<String>) -> String {
    names
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(",")
}
