//! Which kinds a server knows, found by any of the names people use.

use anyhow::bail;
use serde_json::Value;

use crate::client::Connection;

const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// One kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
}

impl Resource {
    /// The collection's path, or an object's.
    pub(crate) fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if let Some(namespace) = namespace.filter(|_| self.namespaced) {
            path.push_str(&format!("/namespaces/{namespace}"));
        }
        path.push_str(&format!("/{}", self.plural));
        if let Some(name) = name {
            path.push_str(&format!("/{name}"));
        }
        path
    }

    /// `apiVersion`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `service.serving.knative.dev`, as kubectl prints it.
    pub(crate) fn display(&self) -> String {
        if self.group.is_empty() {
            self.singular.clone()
        } else {
            format!("{}.{}", self.singular, self.group)
        }
    }

    fn called(&self, word: &str) -> bool {
        let (name, group) = word
            .split_once('.')
            .map_or((word, None), |(name, group)| (name, Some(group)));
        let lower = name.to_lowercase();
        let named = self.plural == lower
            || self.singular == lower
            || self.kind.to_lowercase() == lower
            || self.short_names.contains(&lower);
        named
            && group.is_none_or(|group| {
                group == self.group || group == format!("{}.{}", self.version, self.group)
            })
    }
}

/// Everything the server knows.
pub(crate) struct Discovery {
    resources: Vec<Resource>,
}

impl Discovery {
    /// Asks the server (two requests).
    pub(crate) async fn load(connection: &Connection) -> anyhow::Result<Self> {
        let mut resources = Vec::new();
        for root in ["/api", "/apis"] {
            let answer = connection
                .call(
                    http::Method::GET,
                    root,
                    "application/json",
                    AGGREGATED,
                    Vec::new(),
                )
                .await?;
            parse(&answer, &mut resources);
        }
        Ok(Self { resources })
    }

    /// The kinds a word means: one, or all of a category such as `all` or `knative`.
    pub(crate) fn find(&self, word: &str) -> anyhow::Result<Vec<&Resource>> {
        // Core wins over Knative for `service`, as with kubectl, since the list is in that order.
        if let Some(found) = self.resources.iter().find(|resource| resource.called(word)) {
            return Ok(vec![found]);
        }
        let category: Vec<&Resource> = self
            .resources
            .iter()
            .filter(|resource| resource.categories.iter().any(|name| name == word))
            .collect();
        if category.is_empty() {
            bail!("the server has no resource type {word:?}");
        }
        Ok(category)
    }

    /// The kind of a manifest.
    pub(crate) fn of_manifest(&self, manifest: &Value) -> anyhow::Result<&Resource> {
        let (Some(api_version), Some(kind)) =
            (manifest["apiVersion"].as_str(), manifest["kind"].as_str())
        else {
            bail!("a document has no apiVersion or no kind");
        };
        match self
            .resources
            .iter()
            .find(|resource| resource.api_version() == api_version && resource.kind == kind)
        {
            Some(found) => Ok(found),
            None => bail!("the server does not know {kind} in {api_version}"),
        }
    }
}

fn parse(answer: &Value, resources: &mut Vec<Resource>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| {
        value
            .as_array()
            .map(|list| list.iter().map(text).collect())
            .unwrap_or_default()
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for group in list(&answer["items"]) {
        for version in list(&group["versions"]) {
            for resource in list(&version["resources"]) {
                let plural = text(&resource["resource"]);
                let singular = text(&resource["singularResource"]);
                resources.push(Resource {
                    group: text(&group["metadata"]["name"]),
                    version: text(&version["version"]),
                    kind: text(&resource["responseKind"]["kind"]),
                    singular: if singular.is_empty() {
                        plural.clone()
                    } else {
                        singular
                    },
                    plural,
                    short_names: texts(&resource["shortNames"]),
                    categories: texts(&resource["categories"]),
                    namespaced: resource["scope"] == "Namespaced",
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_name_of_a_kind_finds_it() {
        let mut resources = Vec::new();
        let answer = json!({"items": [{"metadata": {"name": "serving.knative.dev"}, "versions": [{"version": "v1", "resources": [{
            "resource": "services", "singularResource": "service", "scope": "Namespaced", "shortNames": ["ksvc", "kservice"],
            "categories": ["all", "knative"], "responseKind": {"kind": "Service"}
        }]}]}]});
        parse(&answer, &mut resources);
        let discovery = Discovery { resources };
        for word in [
            "ksvc",
            "services",
            "Service",
            "service.serving.knative.dev",
            "knative",
        ] {
            assert_eq!(
                discovery.find(word).expect(word)[0].path(Some("ns"), Some("x")),
                "/apis/serving.knative.dev/v1/namespaces/ns/services/x"
            );
        }
        assert!(discovery.find("service.other").is_err());
    }
}
