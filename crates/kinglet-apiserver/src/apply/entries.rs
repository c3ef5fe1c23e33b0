//! `metadata.managedFields`: who manages which fields, since when.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::path::Set;

/// Who, how, in which version (updates only) and through which subresource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) name: String,
    /// False for those that apply, which come first.
    pub(super) updates: bool,
    /// Part of the identity of updates only.
    pub(super) api_version: String,
    pub(super) subresource: String,
}

impl Id {
    pub(super) fn new(name: &str, applies: bool, api_version: &str, subresource: &str) -> Self {
        let api_version = if applies {
            String::new()
        } else {
            api_version.to_owned()
        };
        Self {
            name: name.to_owned(),
            updates: !applies,
            api_version,
            subresource: subresource.to_owned(),
        }
    }

    /// As conflicts name a manager.
    pub(super) fn shown(&self) -> String {
        let mut text = Value::from(self.name.as_str()).to_string();
        if !self.subresource.is_empty() {
            text = format!(
                "{text} with subresource {}",
                Value::from(self.subresource.as_str())
            );
        }
        if self.updates {
            format!("{text} using {}", self.api_version)
        } else {
            text
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) api_version: String,
    pub(super) time: Option<String>,
    pub(super) set: Set,
}

pub(super) type Entries = BTreeMap<Id, Entry>;

/// Name of the entry that stands for what was there before the first apply.
pub(super) const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Managers that update; older ones are folded into `ancient-changes`.
const UPDATERS_MAX: usize = 10;

/// Reads an object's entries; none if there is one that cannot be understood.
pub(super) fn read(object: &Value) -> Option<Entries> {
    let mut entries = Entries::new();
    let listed = object
        .get("metadata")
        .and_then(|m| m.get("managedFields"))
        .and_then(Value::as_array);
    for entry in listed.into_iter().flatten() {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or("");
        let applies = match text("operation") {
            "Apply" => true,
            "Update" => false,
            _ => return None,
        };
        let set = match entry.get("fieldsV1") {
            None | Some(Value::Null) => Set::default(),
            Some(fields) => Set::decode(fields)?,
        };
        let id = Id::new(
            text("manager"),
            applies,
            text("apiVersion"),
            text("subresource"),
        );
        let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
        let read = Entry {
            api_version: text("apiVersion").to_owned(),
            time,
            set,
        };
        match entries.remove(&id) {
            Some(twin) => {
                entries.insert(
                    id,
                    Entry {
                        set: twin.set.union(&read.set),
                        ..read
                    },
                );
            }
            None => {
                entries.insert(id, read);
            }
        }
    }
    Some(entries)
}

/// Has the client asked to forget all managers (an empty list, or one empty entry)?
pub(super) fn is_reset(object: &Value) -> bool {
    match object.get("metadata").and_then(|m| m.get("managedFields")) {
        Some(Value::Array(items)) => match items.as_slice() {
            [] => true,
            [one] => one.as_object().is_some_and(Map::is_empty),
            _ => false,
        },
        _ => false,
    }
}

/// Writes entries into an object, oldest first, those that apply before those that update.
pub(super) fn write(object: &mut Value, entries: &Entries) {
    let Some(metadata) = object
        .as_object_mut()
        .map(|o| o.entry("metadata").or_insert_with(|| json!({})))
    else {
        return;
    };
    let Some(metadata) = metadata.as_object_mut() else {
        return;
    };
    let mut sorted: Vec<(&Id, &Entry)> = entries
        .iter()
        .filter(|(_, entry)| !entry.set.is_empty())
        .collect();
    sorted.sort_by(|(a, x), (b, y)| {
        (
            a.updates,
            x.time.as_deref().unwrap_or(""),
            &a.name,
            &x.api_version,
            &a.subresource,
        )
            .cmp(&(
                b.updates,
                y.time.as_deref().unwrap_or(""),
                &b.name,
                &y.api_version,
                &b.subresource,
            ))
    });
    if sorted.is_empty() {
        metadata.remove("managedFields");
        return;
    }
    let listed = sorted.into_iter().map(|(id, entry)| {
        let mut out = json!({
            "manager": id.name, "operation": if id.updates { "Update" } else { "Apply" },
            "apiVersion": entry.api_version, "fieldsType": "FieldsV1", "fieldsV1": entry.set.encode(),
        });
        if let Some(time) = &entry.time {
            out["time"] = time.as_str().into();
        }
        if !id.subresource.is_empty() {
            out["subresource"] = id.subresource.as_str().into();
        }
        out
    });
    metadata.insert("managedFields".to_owned(), Value::Array(listed.collect()));
}

/// Takes the entries out of an object.
pub(super) fn remove(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// Folds the oldest updaters into one when there are too many.
pub(super) fn cap(entries: &mut Entries) {
    let mut updaters: Vec<(Option<String>, Id)> = entries
        .iter()
        .filter(|(id, _)| id.updates)
        .map(|(id, entry)| (entry.time.clone(), id.clone()))
        .collect();
    if updaters.len() <= UPDATERS_MAX {
        return;
    }
    updaters.sort();
    let mut first_of: BTreeMap<String, Id> = BTreeMap::new();
    let mut left = updaters.len();
    for (_, id) in updaters {
        if left <= UPDATERS_MAX {
            return;
        }
        let bucket = Id::new("ancient-changes", false, &id.api_version, "");
        let Some(first) = first_of.get(&id.api_version) else {
            first_of.insert(id.api_version.clone(), id);
            continue;
        };
        if !entries.contains_key(&bucket)
            && let Some(entry) = entries.remove(first)
        {
            entries.insert(bucket.clone(), entry);
        }
        if let (Some(old), Some(into)) = (entries.remove(&id), entries.get_mut(&bucket)) {
            into.set = std::mem::take(&mut into.set).union(&old.set);
            into.time = old.time;
            left -= 1;
        }
    }
}
