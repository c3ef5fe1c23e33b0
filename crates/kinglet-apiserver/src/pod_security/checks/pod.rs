//! The parts of a pod that checks read, and the words for the containers that violate one.

use serde_json::Value;

use crate::object::text;

/// The parts of a pod that checks read.
pub(super) struct Pod<'a> {
    pub(super) metadata: &'a Value,
    pub(super) spec: &'a Value,
    pub(super) containers: Vec<&'a Value>,
}

impl<'a> Pod<'a> {
    /// Names of the containers for which something holds.
    pub(super) fn containers_where(&self, test: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers
            .iter()
            .filter(|container| test(container))
            .map(|container| text(container, &["name"]))
            .collect()
    }

    /// The security contexts: the pod's (no name) and those of containers.
    pub(super) fn contexts(&self) -> impl Iterator<Item = (Option<&'a str>, &'a Value)> {
        let of_containers = self.containers.iter().map(|container| {
            (
                Some(text(container, &["name"])),
                &container["securityContext"],
            )
        });
        std::iter::once((None, &self.spec["securityContext"])).chain(of_containers)
    }

    /// Returns whether the pod's context and which containers set forbidden values, and the values.
    pub(super) fn forbidden(
        &self,
        find: impl Fn(&'a Value) -> Vec<String>,
    ) -> Option<(bool, Vec<&'a str>, Vec<String>)> {
        let (mut pod, mut names, mut values) = (false, Vec::new(), Vec::new());
        for (name, context) in self.contexts() {
            let found = find(context);
            if found.is_empty() {
                continue;
            }
            match name {
                None => pod = true,
                Some(name) => names.push(name),
            }
            for value in found {
                if !values.contains(&value) {
                    values.push(value);
                }
            }
        }
        (!values.is_empty()).then_some((pod, names, values))
    }
}

/// `container "a"` or `containers "a", "b"`.
pub(super) fn named(kind: &str, names: &[&str]) -> String {
    let plural = if names.len() == 1 { "" } else { "s" };
    format!("{kind}{plural} {}", quoted(names))
}

pub(super) fn quoted(names: &[&str]) -> String {
    let list: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    list.join(", ")
}

/// `pod and container "a"`, for what both may set.
pub(super) fn setters(pod: bool, containers: &[&str]) -> String {
    match (pod, containers) {
        (true, []) => "pod".to_owned(),
        (true, names) => format!("pod and {}", named("container", names)),
        (false, names) => named("container", names),
    }
}

pub(super) fn some(names: &[&str], words: impl Fn(&[&str]) -> String) -> Option<String> {
    (!names.is_empty()).then(|| words(names))
}
