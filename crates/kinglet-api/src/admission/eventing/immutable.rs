//! Fields that never change.

use serde_json::Value;

use super::Judge;
use crate::admission::{differences, look};
use crate::field::Findings;

impl Judge<'_> {
    /// The spec never changes, but for the fields named. `root` is the Go type in the words of a difference.
    pub(super) fn immutable_but(&self, mutable: &[&str], root: &str) -> Findings {
        let Some(old) = self.old_spec() else {
            return Findings::none();
        };
        let (old, new) = (without(old, mutable), without(self.spec, mutable));
        changed(&old, &new, root, &["spec"])
    }

    /// One field of the spec never changes.
    pub(super) fn immutable_field(&self, field: &str, root: &str) -> Findings {
        let Some(old) = self.old_spec() else {
            return Findings::none();
        };
        let (old, new) = (look::at(old, field), look::at(self.spec, field));
        changed(old, new, root, &["spec", field])
    }

    /// One annotation never changes.
    pub(super) fn immutable_annotation(&self, key: &str) -> Findings {
        let Some(old) = &self.old else {
            return Findings::none();
        };
        let annotation = |object: &Value| -> Value {
            let annotations = look::map(look::at(object, "metadata"), "annotations");
            Value::from(annotations.get(key).cloned().unwrap_or_default())
        };
        let difference =
            differences::between(&annotation(old), &annotation(self.object), "{string}");
        if difference.is_empty() {
            return Findings::none();
        }
        Findings::error("Immutable annotations changed (-old +new)", "annotations")
            .details(difference)
    }
}

fn changed(old: &Value, new: &Value, root: &str, paths: &[&str]) -> Findings {
    let difference = differences::between(old, new, root);
    if difference.is_empty() {
        return Findings::none();
    }
    paths
        .iter()
        .map(|path| {
            Findings::error("Immutable fields changed (-old +new)", path).details(&difference)
        })
        .collect()
}

fn without(spec: &Value, fields: &[&str]) -> Value {
    let mut spec = spec.clone();
    if let Some(map) = spec.as_object_mut() {
        map.retain(|field, _| !fields.contains(&field.as_str()));
    }
    spec
}
