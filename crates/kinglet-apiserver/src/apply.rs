//! Server-side apply and `metadata.managedFields`.
//!
//! Flow: a PATCH of type apply goes through [`apply`]; every other write of a client goes through [`track_update`] after
//! admission and defaults, just before it is stored.
//! Always: no IO, no clock; fields and conflicts are worded as structured-merge-diff words them; applying the same again changes nothing.

mod entries;
mod path;
mod shape;
#[cfg(test)]
mod tests;
mod walk;
mod zero;

use serde_json::{Value, json};

use crate::fields::{Struct, table};
use crate::schema::Schema;
use entries::{Entries, Entry, Id};
use path::{PathElement, Set};
use shape::Shape;

/// Who writes, where and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// `fieldManager`, or what stands for it (the user agent up to the first `/`).
    pub manager: &'a str,
    /// Empty, `status` or `scale`.
    pub subresource: &'a str,
    /// RFC 3339, seconds, `Z`.
    pub now: &'a str,
}

/// How the fields of a kind merge.
#[derive(Clone, Copy, Debug)]
pub struct TypeInfo<'a> {
    of: Kind<'a>,
    status_apart: bool,
}

#[derive(Clone, Copy, Debug)]
enum Kind<'a> {
    Builtin(&'static Struct),
    Custom(&'a Schema),
    Untyped,
}

impl<'a> TypeInfo<'a> {
    /// A built-in kind; `None` if it is not one.
    pub fn builtin(group: &str, version: &str, kind: &str) -> Option<TypeInfo<'static>> {
        table().kind(group, version, kind).map(|of| TypeInfo {
            of: Kind::Builtin(of),
            status_apart: false,
        })
    }

    /// A custom resource.
    pub fn custom(schema: &'a Schema) -> Self {
        Self {
            of: Kind::Custom(schema),
            status_apart: false,
        }
    }

    /// Anything else: objects merge by field, lists are atomic.
    pub fn untyped() -> Self {
        Self {
            of: Kind::Untyped,
            status_apart: false,
        }
    }

    /// Says that the kind has a `status` subresource: writes elsewhere do not own `status`, writes there own nothing of `spec`.
    #[must_use]
    pub fn with_status_subresource(self, has: bool) -> Self {
        Self {
            status_apart: has,
            ..self
        }
    }

    fn shape(&self) -> Shape<'a> {
        match self.of {
            Kind::Builtin(of) => Shape::Struct(of),
            Kind::Custom(schema) => Shape::Resource(schema.root()),
            Kind::Untyped => Shape::Deduced,
        }
    }

    /// What an object is before anybody wrote it: in Go, a struct with its structs in place.
    fn blank(&self) -> Value {
        match self.of {
            Kind::Builtin(of) => zero::object(of),
            Kind::Custom(_) | Kind::Untyped => json!({}),
        }
    }

    /// Leaves out what a write through a subresource cannot touch.
    fn owned(&self, set: &Set, subresource: &str) -> Set {
        match (subresource, self.of) {
            ("status", Kind::Custom(_)) => set.split(&["status"], true),
            ("status", _) => set.split(&["spec"], false),
            _ if self.status_apart => set.split(&["status"], false),
            _ => set.clone(),
        }
    }
}

/// Why an apply was refused.
#[derive(Clone, Debug, PartialEq)]
pub enum ApplyError {
    /// Other managers own fields to which this one wants to give another value (409 `Conflict`).
    Conflicts(Conflicts),
    /// The applied object cannot be used (400 `BadRequest`).
    Invalid(String),
    /// The applied object does not have the shape of its kind. The real server answers 500 without a reason; the sentence is meant for users.
    Untyped(String),
}

/// Fields that others own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts {
    /// Whole sentence for `Status.message`.
    pub message: String,
    /// `(message, field)` of each cause; its reason is `FieldManagerConflict`.
    pub causes: Vec<(String, String)>,
}

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Merges `applied` into `live` for a manager. The answer carries `metadata.managedFields`; defaults and validation come after.
/// An answer equal to `live` means that nothing is to be written.
pub fn apply(
    live: Option<&Value>,
    applied: &Value,
    writer: Writer<'_>,
    force: bool,
    types: TypeInfo<'_>,
) -> Result<Value, ApplyError> {
    let version = api_version(applied);
    if let Some(live) = live
        && api_version(live) != version
    {
        return Err(ApplyError::Invalid(format!(
            "Incorrect version specified in apply patch. Specified patch version: {version}, expected: {}",
            api_version(live)
        )));
    }
    if applied
        .get("metadata")
        .and_then(|m| m.get("managedFields"))
        .is_some_and(|listed| !listed.is_null())
    {
        return Err(ApplyError::Invalid(
            "metadata.managedFields must be nil".to_owned(),
        ));
    }
    check_shape(applied, types)?;

    let mut entries = live
        .map_or_else(|| Some(Entries::new()), entries::read)
        .unwrap_or_default();
    let mut base = live.cloned().unwrap_or_else(|| json!({}));
    entries::remove(&mut base);
    if entries.is_empty() && live.is_some() {
        let before = Writer {
            manager: entries::BEFORE_FIRST_APPLY,
            ..writer
        };
        update(&types.blank(), &base, &mut entries, before, version, types);
    }

    let outcome = match merge_owned(&base, applied, &entries, writer, force, types) {
        // What kubectl applied from the client, and nobody changed since, is its own.
        Err(conflicts) if writer.manager == "kubectl" => {
            match last_applied_fields(&base, version, types) {
                None => Err(conflicts),
                Some(own) => {
                    let foreign: Vec<_> = conflicts
                        .into_iter()
                        .filter(|(_, path)| !own.has(path))
                        .collect();
                    if foreign.is_empty() {
                        merge_owned(&base, applied, &entries, writer, true, types)
                    } else {
                        Err(foreign)
                    }
                }
            }
        }
        other => other,
    };
    let (mut result, mut entries) =
        outcome.map_err(|found| ApplyError::Conflicts(conflicts(&found)))?;
    entries::cap(&mut entries);
    if writer.manager == "kubectl" {
        refresh_last_applied(&mut result, applied);
    }
    if matches!(types.of, Kind::Builtin(_)) {
        drop_nulls(&mut result);
    } else if let Some(metadata) = result.get_mut("metadata") {
        drop_nulls(metadata);
        drop_emptied(&mut result, &base);
    }
    entries::write(&mut result, &entries);
    Ok(result)
}

/// Puts `metadata.managedFields` of `new` right for an ordinary create (`live` is none), update or patch.
///
/// A client may write the list itself (kubectl does when it moves from client-side to server-side apply); an empty one forgets all.
pub fn track_update(
    live: Option<&Value>,
    new: &mut Value,
    writer: Writer<'_>,
    types: TypeInfo<'_>,
) {
    let before = live.and_then(entries::read).unwrap_or_default();
    let mut entries = if writer.subresource.is_empty() && entries::is_reset(new) {
        Entries::new()
    } else {
        match entries::read(new) {
            Some(sent) if writer.subresource.is_empty() && !sent.is_empty() => sent,
            _ => before,
        }
    };
    entries::remove(new);
    // Objects that nobody tracks are not tracked from an update on.
    if live.is_some() && entries.is_empty() {
        return;
    }
    let version = api_version(new).to_owned();
    let blank;
    let old = match live {
        Some(live) => live,
        None => {
            blank = types.blank();
            &blank
        }
    };
    update(old, new, &mut entries, writer, &version, types);
    entries::cap(&mut entries);
    entries::write(new, &entries);
}

fn api_version(object: &Value) -> &str {
    object
        .get("apiVersion")
        .and_then(Value::as_str)
        .unwrap_or("")
}

/// Refuses an applied object that has fields its kind does not have, or list items without their keys.
fn check_shape(applied: &Value, types: TypeInfo<'_>) -> Result<(), ApplyError> {
    let text = |value: &Value, name: &str| {
        value
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    let unknown = match types.of {
        Kind::Builtin(of) => crate::schema::unknown_fields_of(of, applied)
            .into_iter()
            .next(),
        Kind::Custom(schema) => schema.unknown_fields(applied).into_iter().next(),
        Kind::Untyped => None,
    };
    let found = match unknown {
        Some(path) => Err(format!(".{path}: field not declared in schema")),
        None => walk::check(applied, types.shape(), &mut Vec::new()),
    };
    found.map_err(|detail| {
        let metadata = applied.get("metadata").unwrap_or(&Value::Null);
        ApplyError::Untyped(format!(
            "failed to create typed patch object ({}/{}; {}, Kind={}): {detail}",
            text(metadata, "namespace"),
            text(metadata, "name"),
            api_version(applied),
            text(applied, "kind")
        ))
    })
}

type Found = Vec<(Id, Vec<PathElement>)>;

/// One apply: the merged object without its entries, and the entries; or who else wants what.
fn merge_owned(
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

/// Takes out what this manager applied last time and nobody claims now.
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

/// Lets the difference between two objects work on the entries of everybody but one; answers who lost fields.
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

/// One ordinary write: whoever writes owns what it added or changed.
fn update(
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

/// Fields that the server writes; nobody owns them.
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

/// Fields that kubectl's client-side apply set and that still are what it set.
fn last_applied_fields(live: &Value, version: &str, types: TypeInfo<'_>) -> Option<Set> {
    let text = live
        .get("metadata")?
        .get("annotations")?
        .get(LAST_APPLIED)?
        .as_str()?;
    let last: Value = serde_json::from_str(text).ok()?;
    if api_version(&last) != version {
        return None;
    }
    let changed = walk::difference(&last, live, types.shape());
    let fields = walk::fields_of(&last, types.shape());
    Some(
        fields
            .difference(&changed.modified)
            .difference(&changed.added)
            .difference(&changed.removed),
    )
}

/// Keeps kubectl's annotation true, where there is one, so that one may go back to client-side apply.
fn refresh_last_applied(result: &mut Value, applied: &Value) {
    let Some(annotations) = result
        .get_mut("metadata")
        .and_then(|m| m.get_mut("annotations"))
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    if annotations
        .get(LAST_APPLIED)
        .and_then(Value::as_str)
        .is_none_or(str::is_empty)
    {
        return;
    }
    let mut bare = applied.clone();
    if let Some(own) = bare
        .get_mut("metadata")
        .and_then(|m| m.get_mut("annotations"))
        .and_then(Value::as_object_mut)
    {
        own.remove(LAST_APPLIED);
    }
    // kubectl and the server end the text with a line feed.
    annotations.insert(LAST_APPLIED.to_owned(), format!("{bare}\n").into());
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, v| !v.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Drops the nulls that stand where something was before.
fn drop_emptied(value: &mut Value, before: &Value) {
    if let (Value::Object(fields), Value::Object(before)) = (value, before) {
        fields
            .retain(|name, value| !value.is_null() || before.get(name).is_none_or(Value::is_null));
        for (name, value) in fields {
            if let Some(before) = before.get(name) {
                drop_emptied(value, before);
            }
        }
    }
}

/// The refusal in the real server's words.
fn conflicts(found: &Found) -> Conflicts {
    let causes = found
        .iter()
        .map(|(id, path)| (format!("conflict with {}", id.shown()), path::shown(path)))
        .collect();
    let message = match found.as_slice() {
        [(id, path)] => format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            id.shown(),
            path::shown(path)
        ),
        many => {
            let mut lines = Vec::new();
            let mut last = None;
            for (id, path) in many {
                if last != Some(id) {
                    lines.push(format!("conflicts with {}:", id.shown()));
                    last = Some(id);
                }
                lines.push(format!("- {}", path::shown(path)));
            }
            format!(
                "Apply failed with {} conflicts: {}",
                many.len(),
                lines.join("\n")
            )
        }
    };
    Conflicts { message, causes }
}
