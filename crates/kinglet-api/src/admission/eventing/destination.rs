//! References and destinations (spec/eventing.md 1.3).

use serde_json::Value;
use url::Url;

use super::certificate;
use crate::admission::look;
use crate::field::Findings;

/// What references may say.
#[derive(Clone, Copy)]
pub(super) struct References<'a> {
    /// Whether `group` may take the place of `apiVersion`.
    pub(super) features_group: bool,
    /// The only namespace that may be named.
    pub(super) only_namespace: Option<&'a str>,
}

impl References<'_> {
    /// Judges a reference to an object.
    pub(super) fn reference(&self, reference: &Value) -> Findings {
        let has = |field: &str| !look::text(reference, field).is_empty();
        let mut found = Findings::none();
        if !has("name") {
            found.add(Findings::missing("name"));
        }
        found.add(self.group(reference));
        if !has("kind") {
            found.add(Findings::missing("kind"));
        }
        let namespace = look::text(reference, "namespace");
        let only = self.only_namespace.filter(|only| !only.is_empty());
        if let Some(only) = only
            && !namespace.is_empty()
            && namespace != only
        {
            found.add(
                Findings::error("mismatched namespaces", "namespace").details(format!(
                    "parent namespace: {only:?} does not match ref: {namespace:?}"
                )),
            );
        }
        found
    }

    fn group(&self, reference: &Value) -> Findings {
        let (api_version, group) = (
            look::text(reference, "apiVersion"),
            look::text(reference, "group"),
        );
        let mut found = Findings::none();
        if !self.features_group {
            if !group.is_empty() {
                found.add(Findings::disallowed("group"));
            }
            if api_version.is_empty() {
                found.add(Findings::missing("apiVersion"));
            }
        } else if api_version.is_empty() && group.is_empty() {
            found.add(Findings::missing("apiVersion"));
            found.add(Findings::missing("group"));
        } else if !api_version.is_empty() && !group.is_empty() && !api_version.starts_with(group) {
            for path in ["apiVersion", "group"] {
                found.add(
                    Findings::error(
                        "both apiVersion and group are specified and they refer to different API groups",
                        path,
                    )
                    .details("Only one of them must be specified"),
                );
            }
        }
        found
    }

    /// Judges a destination that must be there.
    pub(super) fn destination(&self, destination: &Value) -> Findings {
        let reference = look::at(destination, "ref");
        let uri = Some(look::text(destination, "uri")).filter(|uri| !uri.is_empty());
        let parsed = uri.map(|uri| Url::parse(uri).ok());
        let has_host = parsed
            .as_ref()
            .and_then(Option::as_ref)
            .and_then(Url::host_str)
            .is_some_and(|host| !host.is_empty());
        match (reference.is_null(), parsed) {
            (true, None) => at_least_one(),
            (false, Some(Some(_))) => absolute_beside_reference(),
            (true, Some(_)) if !has_host => Findings::invalid(
                "Relative URI is not allowed when Ref and [apiVersion, kind, name] is absent",
                "uri",
            ),
            (false, None) => self.reference(reference).under("ref"),
            _ => certificates(destination),
        }
    }

    /// Judges a destination if there is one.
    pub(super) fn optional(&self, parent: &Value, field: &str) -> Findings {
        let destination = look::at(parent, field);
        if destination.is_null() {
            return Findings::none();
        }
        self.destination(destination).under(field)
    }
}

fn at_least_one() -> Findings {
    ["ref", "uri"]
        .into_iter()
        .map(|path| Findings::error("expected at least one, got none", path))
        .collect()
}

fn absolute_beside_reference() -> Findings {
    ["[apiVersion, kind, name]", "ref", "uri"]
        .into_iter()
        .map(|path| {
            Findings::error(
                "Absolute URI is not allowed when Ref or [apiVersion, kind, name] is present",
                path,
            )
        })
        .collect()
}

fn certificates(destination: &Value) -> Findings {
    look::at(destination, "CACerts")
        .as_str()
        .and_then(certificate::problem)
        .map_or_else(Findings::none, |problem| {
            Findings::invalid(problem, "caCert")
        })
}
