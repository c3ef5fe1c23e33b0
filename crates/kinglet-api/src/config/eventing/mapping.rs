//! `config-kreference-mapping`: URLs of objects that have no address, by templates.

use std::collections::BTreeMap;

use serde_json::json;

use crate::config::Data;
use crate::template::Template;

/// `config-kreference-mapping`: `Kind.version.group` (`Kind.version` for the core) to template.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KReferenceMapping(BTreeMap<String, Template>);

/// The object that a URL is made of.
#[derive(Clone, Copy, Debug)]
pub struct Mapped<'a> {
    /// Name of the object.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its UID.
    pub uid: &'a str,
}

impl KReferenceMapping {
    /// Reads the map.
    pub fn parse(data: &Data) -> Result<Self, String> {
        data.iter()
            .filter(|(key, _)| !key.starts_with('_'))
            .map(|(key, text)| Ok((key.clone(), Template::parse(key, text.trim())?)))
            .collect::<Result<_, String>>()
            .map(Self)
    }

    /// Returns the URL of an object, if its kind has a template.
    pub fn url(
        &self,
        group: &str,
        version: &str,
        kind: &str,
        object: Mapped<'_>,
    ) -> Option<Result<String, String>> {
        let key = if group.is_empty() {
            format!("{kind}.{version}")
        } else {
            format!("{kind}.{version}.{group}")
        };
        Some(self.0.get(&key)?.render(&json!({
            "Name": object.name,
            "Namespace": object.namespace,
            "SystemNamespace": super::SYSTEM_NAMESPACE,
            "UID": object.uid,
        })))
    }
}
