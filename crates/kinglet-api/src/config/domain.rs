//! `config-domain`: under which domain a Route is published.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::keys;

use super::{Data, read};

/// Domain where nothing else is configured: it reaches this machine without any set-up.
pub const DEFAULT_DOMAIN: &str = "localhost";

/// `config-domain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Domain to the labels that select it; none selects every Route.
    domains: BTreeMap<String, BTreeMap<String, String>>,
    /// Used while no domain selects every Route.
    fallback: String,
}

impl Default for Domain {
    fn default() -> Self {
        Self::fallback(DEFAULT_DOMAIN)
    }
}

impl Domain {
    /// No key, only the fallback.
    pub fn fallback(domain: &str) -> Self {
        Self {
            domains: BTreeMap::new(),
            fallback: domain.to_owned(),
        }
    }

    /// Reads the map.
    pub fn parse(data: &Data, fallback: &str) -> Result<Self, String> {
        let mut domains = BTreeMap::new();
        for (domain, value) in data.iter().filter(|(domain, _)| *domain != "_example") {
            let entry = read::yaml(value)?;
            let mut labels = BTreeMap::new();
            match entry.get("selector") {
                None | Some(Value::Null) => {}
                Some(Value::Object(selector)) => {
                    for (key, value) in selector {
                        let value = value.as_str().ok_or_else(|| {
                            format!("error unmarshaling JSON: while decoding JSON: selector {} of {domain} must be text", crate::go::quote(key))
                        })?;
                        labels.insert(key.clone(), value.to_owned());
                    }
                }
                Some(_) => {
                    return Err(format!(
                        "error unmarshaling JSON: while decoding JSON: selector of {domain} must be a map"
                    ));
                }
            }
            domains.insert(domain.clone(), labels);
        }
        Ok(Self {
            domains,
            fallback: fallback.to_owned(),
        })
    }

    /// The domain used while no key selects every Route.
    pub fn fallback_name(&self) -> &str {
        &self.fallback
    }

    /// All domains, whatever selects them.
    pub fn names(&self) -> Vec<String> {
        let fallback = self.domains.values().all(|selector| !selector.is_empty());
        let fallback = fallback.then(|| self.fallback.clone());
        self.domains.keys().cloned().chain(fallback).collect()
    }

    /// Domain of a Route with these labels; cluster-local ones are under `svc.{cluster_domain}`.
    pub fn lookup(&self, labels: &BTreeMap<String, String>, cluster_domain: &str) -> String {
        if labels
            .get(keys::VISIBILITY)
            .is_some_and(|value| value == keys::VISIBILITY_CLUSTER_LOCAL)
        {
            return format!("svc.{cluster_domain}");
        }
        self.domains
            .iter()
            .filter(|(_, selector)| {
                selector
                    .iter()
                    .all(|(key, value)| labels.get(key) == Some(value))
            })
            .max_by(|(a, left), (b, right)| left.len().cmp(&right.len()).then(b.cmp(a)))
            .map_or_else(|| self.fallback.clone(), |(domain, _)| domain.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_most_specific_domain_wins() {
        let data = Data::from([
            ("example.com".to_owned(), String::new()),
            ("zoo.example.com".to_owned(), String::new()),
            (
                "prod.example.com".to_owned(),
                "selector:\n  app: prod\n".to_owned(),
            ),
            ("_example".to_owned(), "not: [yaml".to_owned()),
        ]);
        let domain = Domain::parse(&data, "localhost").unwrap();
        for (given, want) in [
            (labels(&[]), "example.com"),
            (labels(&[("app", "prod")]), "prod.example.com"),
            (
                labels(&[(keys::VISIBILITY, "cluster-local"), ("app", "prod")]),
                "svc.cluster.local",
            ),
        ] {
            assert_eq!(domain.lookup(&given, "cluster.local"), want);
        }
    }

    #[test]
    fn without_a_default_the_fallback_serves() {
        assert_eq!(
            Domain::default().lookup(&labels(&[]), "cluster.local"),
            "localhost"
        );
        let data = Data::from([(
            "prod.example.com".to_owned(),
            "selector: {app: prod}".to_owned(),
        )]);
        assert_eq!(
            Domain::parse(&data, "here.test")
                .unwrap()
                .lookup(&labels(&[]), "cluster.local"),
            "here.test"
        );
    }
}
