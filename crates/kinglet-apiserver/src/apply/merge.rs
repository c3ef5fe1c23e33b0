//! The merge of a write into the managers' entries: who owns which fields before and after it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::entries::{Entries, Entry, Id};
use super::path::{PathElement, Set};
use super::types::TypeInfo;
use super::versions::Unconverted;
use super::{Writer, api_version, walk};

pub(super) type Found = Vec<(Id, Vec<PathElement>)>;

/// Why objects were not merged.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Fields in conflict, and their managers.
    Conflicts(Found),
    /// The object is not there in the version of a manager.
    Unconverted(Unconverted),
}

impl From<Unconverted> for Refusal {
    fn from(missing: Unconverted) -> Self {
        Self::Unconverted(missing)
    }
}

/// Merges one applied object. Returns the merged object without its entries, and the entries; or the fields in conflict and their managers.
pub(super) fn merge_owned(
    base: &Value,
    applied: &Value,
    entries: &Entries,
    writer: Writer<'_>,
    force: bool,
    types: TypeInfo<'_>,
) -> Result<(Value, Entries), Refusal> {
    let shape = types.shape();
    let version = api_version(applied);
    let mut entries = entries.clone();
    let id = Id::new(writer.manager, true, version, writer.subresource);
    let set = types.owned(&walk::fields_of(applied, shape), writer.subresource);
    let former = entries.remove(&id);
    let last = former.clone().filter(|entry| !entry.set.is_empty());

    let mut result = walk::merged(base, applied, shape);
    entries.insert(
        id.clone(),
        Entry {
            api_version: version.to_owned(),
            time: former.and_then(|e| e.time),
            set,
        },
    );
    if let Some(last) = last {
        result = prune(&result, &entries, &last, version, types)?;
    }

    let conflicting = settle(base, &result, &mut entries, Some(&id), writer, types)?;
    if !force && !conflicting.is_empty() {
        return Err(Refusal::Conflicts(conflicting));
    }
    if result != *base
        && let Some(entry) = entries.get_mut(&id)
    {
        entry.time = Some(writer.now.to_owned());
    }
    strip(&mut entries, &id);
    Ok((result, entries))
}

/// Removes the fields that this manager applied last time and no manager owns now; done in the version of that time.
fn prune(
    merged: &Value,
    entries: &Entries,
    last: &Entry,
    version: &str,
    types: TypeInfo<'_>,
) -> Result<Value, Unconverted> {
    let then = types.version_of(&last.api_version);
    let Some((in_then, of)) = types.at(merged, then)? else {
        return Ok(merged.clone());
    };
    let shape = of.shape();
    let last = walk::with_declared(&last.set, shape);
    let left = walk::without(&in_then, &last, shape);
    let left = with_managed(&in_then, left, entries, then, of)?;

    let Some((left, _)) = of.at(&left, then)? else {
        return Ok(merged.clone());
    };
    let all = declared(&in_then, of);
    let dangling = all.difference(&declared(&left, of)).intersection(&last);
    let pruned = walk::without(&in_then, &dangling, shape);
    Ok(match of.at(&pruned, of.version_of(version))? {
        Some((pruned, _)) => pruned.into_owned(),
        None => merged.clone(),
    })
}

fn declared(value: &Value, types: TypeInfo<'_>) -> Set {
    let shape = types.shape();
    walk::with_declared(&walk::fields_of(value, shape), shape)
}

/// Puts back what managers own, version by version. The version `first` comes first, since others may not convert without it.
fn with_managed(
    merged: &Value,
    left: Value,
    entries: &Entries,
    first: &str,
    types: TypeInfo<'_>,
) -> Result<Value, Unconverted> {
    let mut managed: BTreeMap<(bool, &str), Set> = BTreeMap::new();
    managed.insert((false, first), Set::default());
    for entry in entries.values() {
        let version = types.version_of(&entry.api_version);
        let set = managed.entry((version != first, version)).or_default();
        *set = std::mem::take(set).union(&entry.set);
    }
    let mut left = left;
    for ((_, version), managed) in managed {
        let (Some((merged, of)), Some((now, _))) =
            (types.at(merged, version)?, types.at(&left, version)?)
        else {
            continue;
        };
        let shape = of.shape();
        let keep = declared(&now, of).union(&walk::with_declared(&managed, shape));
        left = walk::without(&merged, &declared(&merged, of).difference(&keep), shape);
    }
    Ok(left)
}

/// What a write changed, in one version.
struct Changes {
    changed: Set,
    removed: Set,
}

/// Compares in the version of a manager; none where there is no such version any more.
fn compare(
    old: &Value,
    new: &Value,
    version: &str,
    subresource: &str,
    types: TypeInfo<'_>,
) -> Result<Option<Changes>, Unconverted> {
    let (Some((old, of)), Some((new, _))) = (types.at(old, version)?, types.at(new, version)?)
    else {
        return Ok(None);
    };
    let difference = walk::difference(&old, &new, of.shape());
    Ok(Some(Changes {
        changed: of.owned(&difference.modified.union(&difference.added), subresource),
        removed: of.owned(&difference.removed, subresource),
    }))
}

/// Takes changed fields out of the entries of all managers but one. Returns the fields taken, with their former managers.
/// Managers of versions that are gone lose their entries.
fn settle(
    old: &Value,
    new: &Value,
    entries: &mut Entries,
    but: Option<&Id>,
    writer: Writer<'_>,
    types: TypeInfo<'_>,
) -> Result<Found, Unconverted> {
    let mut compared: BTreeMap<String, Option<Changes>> = BTreeMap::new();
    let mut lost = Found::new();
    for (id, entry) in entries.iter_mut() {
        if Some(id) == but {
            continue;
        }
        let version = types.version_of(&entry.api_version);
        if !compared.contains_key(version) {
            let changes = compare(old, new, version, writer.subresource, types)?;
            compared.insert(version.to_owned(), changes);
        }
        let Some(Some(changes)) = compared.get(version) else {
            entry.set = Set::default();
            continue;
        };
        let taken = entry.set.intersection(&changes.changed);
        if !taken.is_empty() {
            lost.extend(taken.paths().into_iter().map(|path| (id.clone(), path)));
            entry.set = entry.set.difference(&taken);
        }
        if !changes.removed.is_empty() {
            entry.set = entry.set.difference(&changes.removed);
        }
    }
    entries.retain(|_, entry| !entry.set.is_empty());
    Ok(lost)
}

/// Records an ordinary write: its manager owns the fields that it added or changed.
pub(super) fn update(
    old: &Value,
    new: &Value,
    entries: &mut Entries,
    writer: Writer<'_>,
    version: &str,
    types: TypeInfo<'_>,
) -> Result<(), Unconverted> {
    settle(old, new, entries, None, writer, types)?;
    let difference = walk::difference(old, new, types.shape());
    let mut taken = types.owned(
        &difference.modified.union(&difference.added),
        writer.subresource,
    );
    let id = Id::new(writer.manager, false, version, writer.subresource);
    taken = taken.difference(&unowned());
    if taken.is_empty() {
        return Ok(());
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
    Ok(())
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
