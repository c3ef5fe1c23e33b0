//! Walks over objects by their shapes: the fields an object sets, how two differ, what both together are, what is left without some.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::path::{PathElement, Set, shown};
use super::shape::{Form, Shape};

/// How two objects differ.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub(super) added: Set,
    pub(super) modified: Set,
    pub(super) removed: Set,
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// The fields that an object sets.
pub(super) fn fields_of(object: &Value, shape: Shape<'_>) -> Set {
    let mut set = Set::default();
    collect(object, shape, &mut Vec::new(), &mut set);
    set
}

fn collect(value: &Value, shape: Shape<'_>, path: &mut Vec<PathElement>, set: &mut Set) {
    match (shape.form(value), value) {
        (Form::Map, Value::Object(fields)) => {
            for (name, value) in fields {
                let (below, declared) = shape.member(name);
                path.push(PathElement::Field(name.clone()));
                collect(value, below, path, set);
                if !declared || value.is_null() || value.as_object().is_some_and(Map::is_empty) {
                    set.insert(path);
                }
                path.pop();
            }
        }
        (form @ (Form::Set | Form::Keyed), Value::Array(items)) => {
            for (element, same) in by_step(shape, form, items) {
                path.push(element);
                if let [one] = same.as_slice() {
                    collect(one, shape.item(), path, set);
                }
                set.insert(path);
                path.pop();
            }
        }
        _ => set.insert(path),
    }
}

/// Groups items by their path element; a list with duplicates has several items under one.
fn by_step<'v>(
    shape: Shape<'_>,
    form: Form,
    items: &'v [Value],
) -> BTreeMap<PathElement, Vec<&'v Value>> {
    let mut found: BTreeMap<PathElement, Vec<&Value>> = BTreeMap::new();
    for (at, item) in items.iter().enumerate() {
        found
            .entry(shape.live_step(form, at, item))
            .or_default()
            .push(item);
    }
    found
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// How `new` differs from `old`.
pub(super) fn difference(old: &Value, new: &Value, shape: Shape<'_>) -> Difference {
    let mut found = Difference::default();
    compare(Some(old), Some(new), shape, &mut Vec::new(), &mut found);
    found
}

fn compare(
    old: Option<&Value>,
    new: Option<&Value>,
    shape: Shape<'_>,
    path: &mut Vec<PathElement>,
    found: &mut Difference,
) {
    let form = match (old, new) {
        (Some(one), None | Some(Value::Null)) | (None | Some(Value::Null), Some(one)) => {
            shape.form(one)
        }
        (Some(old), Some(new)) if shape.form(old) == shape.form(new) => shape.form(new),
        // A list became an object or the like: one change.
        (Some(_), Some(_)) => Form::Leaf,
        (None, None) => return,
    };
    if form == Form::Leaf || (old.is_none_or(is_nothing) && new.is_none_or(is_nothing)) {
        match (old, new) {
            (None, _) => found.added.insert(path),
            (_, None) => found.removed.insert(path),
            (Some(old), Some(new)) if old != new => found.modified.insert(path),
            (Some(_), Some(_)) => {}
        }
        return;
    }
    if form == Form::Map {
        compare_fields(old, new, shape, path, found);
    } else {
        compare_items(old, new, shape, form, path, found);
    }
    match (old, new) {
        (None, _) => found.added.insert(path),
        (_, None) => found.removed.insert(path),
        (Some(_), Some(_)) => {}
    }
}

fn compare_fields(
    old: Option<&Value>,
    new: Option<&Value>,
    shape: Shape<'_>,
    path: &mut Vec<PathElement>,
    found: &mut Difference,
) {
    let empty = Map::new();
    let olds = old.and_then(Value::as_object).unwrap_or(&empty);
    let news = new.and_then(Value::as_object).unwrap_or(&empty);
    for name in olds
        .keys()
        .chain(news.keys().filter(|name| !olds.contains_key(*name)))
    {
        path.push(PathElement::Field(name.clone()));
        compare(
            olds.get(name),
            news.get(name),
            shape.member(name).0,
            path,
            found,
        );
        path.pop();
    }
}

/// Compares the items of a set or of a list with keys.
fn compare_items(
    old: Option<&Value>,
    new: Option<&Value>,
    shape: Shape<'_>,
    form: Form,
    path: &mut Vec<PathElement>,
    found: &mut Difference,
) {
    let olds = by_step(shape, form, items(old));
    let news = by_step(shape, form, items(new));
    for element in olds
        .keys()
        .chain(news.keys().filter(|element| !olds.contains_key(*element)))
    {
        path.push(element.clone());
        match (
            olds.get(element).map(Vec::as_slice),
            news.get(element).map(Vec::as_slice),
        ) {
            (Some([old]), Some([new])) => compare(Some(old), Some(new), shape.item(), path, found),
            (Some([old]), None) => compare(Some(old), None, shape.item(), path, found),
            (None, Some([new])) => compare(None, Some(new), shape.item(), path, found),
            (Some(old), Some(new)) if old != new => found.modified.insert(path),
            (Some(_), None) => found.removed.insert(path),
            (None, Some(_)) => found.added.insert(path),
            _ => {}
        }
        path.pop();
    }
}

/// Refuses lists of an applied object with items that lack their key or occur twice.
pub(super) fn check(
    value: &Value,
    shape: Shape<'_>,
    path: &mut Vec<PathElement>,
) -> Result<(), String> {
    match (shape.form(value), value) {
        (Form::Map, Value::Object(fields)) => {
            for (name, value) in fields {
                path.push(PathElement::Field(name.clone()));
                check(value, shape.member(name).0, path)?;
                path.pop();
            }
        }
        (form @ (Form::Set | Form::Keyed), Value::Array(items)) => {
            let mut seen = std::collections::BTreeSet::new();
            for (at, item) in items.iter().enumerate() {
                let element = shape
                    .element(form, at, item)
                    .map_err(|detail| format!("{}: {detail}", shown(path)))?;
                if !seen.insert(element.clone()) {
                    return Err(format!(
                        "{}: duplicate entries for key {element}",
                        shown(path)
                    ));
                }
                path.push(element);
                check(item, shape.item(), path)?;
                path.pop();
            }
        }
        _ => {}
    }
    Ok(())
}

/// Merges `over` into `base`.
pub(super) fn merged(base: &Value, over: &Value, shape: Shape<'_>) -> Value {
    let form = if base.is_null() || over.is_null() {
        Form::Leaf
    } else {
        shape.form(over)
    };
    match (form, base, over) {
        // Nothing laid over something that merges leaves it as it is.
        (Form::Leaf, Value::Object(_) | Value::Array(_), Value::Null)
            if shape.form(base) != Form::Leaf =>
        {
            base.clone()
        }
        (Form::Map, Value::Object(below), Value::Object(fields)) => {
            let mut out = below.clone();
            for (name, value) in fields {
                let value = match below.get(name) {
                    Some(now) => merged(now, value, shape.member(name).0),
                    None => value.clone(),
                };
                out.insert(name.clone(), value);
            }
            Value::Object(out)
        }
        (Form::Set | Form::Keyed, Value::Array(below), Value::Array(items)) => {
            Value::Array(merged_items(below, items, shape, form))
        }
        _ => over.clone(),
    }
}

/// Items of both lists: in the order of `over`, items that only `base` has staying where they were among the others.
fn merged_items(base: &[Value], over: &[Value], shape: Shape<'_>, form: Form) -> Vec<Value> {
    let steps = |items: &[Value]| -> Vec<PathElement> {
        items
            .iter()
            .enumerate()
            .map(|(at, item)| shape.live_step(form, at, item))
            .collect()
    };
    let (base_steps, over_steps) = (steps(base), steps(over));
    let shared: Vec<&PathElement> = over_steps
        .iter()
        .filter(|element| base_steps.contains(element))
        .collect();
    let mut shared = shared.into_iter().peekable();
    let put = |at: usize| {
        let mut same = base_steps
            .iter()
            .zip(base)
            .filter(|(element, _)| **element == over_steps[at]);
        match (same.next(), same.next()) {
            (Some((_, now)), None) => merged(now, &over[at], shape.item()),
            _ => over[at].clone(),
        }
    };
    let mut out = Vec::with_capacity(base.len().max(over.len()));
    let mut next = 0;
    for (at, element) in base_steps.iter().enumerate() {
        if !over_steps.contains(element) {
            out.push(base[at].clone());
        } else if shared.peek() == Some(&element) {
            shared.next();
            while next < over.len() {
                next += 1;
                out.push(put(next - 1));
                if over_steps[next - 1] == *element {
                    break;
                }
            }
        }
    }
    out.extend((next..over.len()).map(put));
    out
}

/// What is left of an object without some fields. An object or list that loses all it had becomes null, which is not the same as gone:
/// others may own it as such.
pub(super) fn without(value: &Value, gone: &Set, shape: Shape<'_>) -> Value {
    if is_nothing(value) {
        return value.clone();
    }
    match (shape.form(value), value) {
        (Form::Map, Value::Object(fields)) => {
            let mut out = Map::new();
            for (name, value) in fields {
                let element = PathElement::Field(name.clone());
                if gone.members.contains(&element) {
                    continue;
                }
                let left = match gone.below(&element) {
                    Some(below) => without(value, below, shape.member(name).0),
                    None => value.clone(),
                };
                out.insert(name.clone(), left);
            }
            if out.is_empty() {
                Value::Null
            } else {
                Value::Object(out)
            }
        }
        (form @ (Form::Set | Form::Keyed), Value::Array(items)) => {
            let mut out = Vec::new();
            for (at, item) in items.iter().enumerate() {
                let element = shape.live_step(form, at, item);
                if gone.members.contains(&element) {
                    continue;
                }
                let left = match gone.below(&element) {
                    Some(below) => without(item, below, shape.item()),
                    None => item.clone(),
                };
                if !left.is_null() {
                    out.push(left);
                }
            }
            if out.is_empty() {
                Value::Null
            } else {
                Value::Array(out)
            }
        }
        // Part of what is replaced as a whole cannot go alone.
        _ => value.clone(),
    }
}

/// Returns the set with the declared parents of its members added.
pub(super) fn with_declared(set: &Set, shape: Shape<'_>) -> Set {
    let mut members = set.members.clone();
    let mut children = BTreeMap::new();
    for (element, child) in &set.children {
        let below = match element {
            PathElement::Field(name) => {
                let (below, declared) = shape.member(name);
                if declared && !child.is_empty() {
                    members.insert(element.clone());
                }
                below
            }
            PathElement::Key(_) | PathElement::Value(_) | PathElement::Index(_) => shape.item(),
        };
        children.insert(element.clone(), with_declared(child, below));
    }
    Set { members, children }
}
