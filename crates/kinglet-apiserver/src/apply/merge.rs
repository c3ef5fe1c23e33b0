//! The merge of a write into the managers' entries: who owns which fields before and after it.

use serde_json::Value;

use super::entries::{Entries, Entry, Id};
use super::path::{PathElement, Set};
use super::shape::Shape;
use super::types::TypeInfo;
use super::{Writer, api_version, walk};

pub(super) type Found = Vec<(Id, Vec<PathElement>)>;

/// Merges one applied object. Returns the merged object without its entries, and the entries; or the fields in conflict and their managers.
pub(super) fn merge_owned(
    base: &Value,
    applied: &Value,
    entries: &Entries,
    writer: Writer<'_>,
    force: bool,
    types: TypeInfo<'_>,
) -> Result<(Value, Entries), Found> {
    let shape = types.shape();
    let version = api_version(applied);
    let mut entries = entries.clone();
    let id = Id::new(writer.manager, true, version, writer.subresource);
    let set = types.owned(&walk::fields_of(applied, shape), writer.subresource);
    let former = entries.remove(&id);
    let last = former
        .as_ref()
        .map(|entry| entry.set.clone())
        .unwrap_or_default();

    let mut result = walk::merged(base, applied, shape);
    entries.insert(
        id.clone(),
        Entry {
            api_version: version.to_owned(),
            time: former.and_then(|e| e.time),
            set,
        },
    );
    if !last.is_empty() {
        result = prune(&result, &entries, &last, shape);
    }

    let conflicting = settle(base, &result, &mut entries, Some(&id), writer, types);
    if !force && !conflicting.is_empty() {
        return Err(conflicting);
    }
    if result != *base
        && let Some(entry) = entries.get_mut(&id)
    {
        entry.time = Some(writer.now.to_owned());
    }
    strip(&mut entries, &id);
    Ok((result, entries))
}

/// Removes the fields that this manager applied last time and no manager owns now.
fn prune(merged: &Value, entries: &Entries, last: &Set, shape: Shape<'_>) -> Value {
    let declared = |value: &Value| walk::with_declared(&walk::fields_of(value, shape), shape);
    let last = walk::with_declared(last, shape);
    let mut left = walk::without(merged, &last, shape);

    let managed = entries
        .values()
        .fold(Set::default(), |all, entry| all.union(&entry.set));
    let managed = walk::with_declared(&managed, shape);
    let all = declared(merged);
    let keep = declared(&left).union(&managed);
    left = walk::without(merged, &all.difference(&keep), shape);
    let dangling = all.difference(&declared(&left)).intersection(&last);
    walk::without(merged, &dangling, shape)
}

/// Takes changed fields out of the entries of all managers but one. Returns the fields taken, with their former managers.
fn settle(
    old: &Value,
    new: &Value,
    entries: &mut Entries,
    but: Option<&Id>,
    writer: Writer<'_>,
    types: TypeInfo<'_>,
) -> Found {
    let difference = walk::difference(old, new, types.shape());
    let changed = types.owned(
        &difference.modified.union(&difference.added),
        writer.subresource,
    );
    let removed = types.owned(&difference.removed, writer.subresource);
    let mut lost = Found::new();
    for (id, entry) in entries.iter_mut() {
        if Some(id) == but {
            continue;
        }
        let taken = entry.set.intersection(&changed);
        if !taken.is_empty() {
            lost.extend(taken.paths().into_iter().map(|path| (id.clone(), path)));
            entry.set = entry.set.difference(&taken);
        }
        if !removed.is_empty() {
            entry.set = entry.set.difference(&removed);
        }
    }
    entries.retain(|_, entry| !entry.set.is_empty());
    lost
}

/// Records an ordinary write: its manager owns the fields that it added or changed.
pub(super) fn update(
    old: &Value,
    new: &Value,
    entries: &mut Entries,
    writer: Writer<'_>,
    version: &str,
    types: TypeInfo<'_>,
) {
    settle(old, new, entries, None, writer, types);
    let difference = walk::difference(old, new, types.shape());
    let mut taken = types.owned(
        &difference.modified.union(&difference.added),
        writer.subresource,
    );
    let id = Id::new(writer.manager, false, version, writer.subresource);
    taken = taken.difference(&unowned());
    if taken.is_empty() {
        return;
    }
    let former = entries
        .remove(&id)
        .map(|entry| entry.set)
        .unwrap_or_default();
    let entry = Entry {
        api_version: version.to_owned(),
        time: Some(writer.now.to_owned()),
        set: former.union(&taken),
    };
    entries.insert(id, entry);
}

/// Returns the fields that the server writes and no manager owns.
fn unowned() -> Set {
    let field = |name: &str| PathElement::Field(name.to_owned());
    let mut set = Set::default();
    for top in ["apiVersion", "kind", "metadata"] {
        set.insert(&[field(top)]);
    }
    for name in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ] {
        set.insert(&[field("metadata"), field(name)]);
    }
    set
}

fn strip(entries: &mut Entries, id: &Id) {
    if let Some(entry) = entries.get_mut(id) {
        entry.set = entry.set.difference(&unowned());
        if entry.set.is_empty() {
            entries.remove(id);
        }
    }
}
