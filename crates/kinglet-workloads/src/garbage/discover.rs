//! Which kinds the API server offers.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kinglet_reconcile::ReconcileError;
use tokio::sync::watch;

/// A kind that can be listed, watched and deleted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ResourceKind {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) namespaced: bool,
    /// Whether all objects of a namespace can be deleted in one call.
    pub(crate) delete_collection: bool,
}

impl ResourceKind {
    /// Path of the collection, of one namespace or of all.
    pub(crate) fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace.filter(|namespace| self.namespaced && !namespace.is_empty()) {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{}", self.plural),
        }
    }

    /// Whether an owner reference means this kind, whatever its version.
    pub(crate) fn is(&self, api_version: &str, kind: &str) -> bool {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        self.kind == kind && self.group == group
    }

    /// ResourceKinds that nobody owns and that change all the time are left out of the graph.
    pub(crate) fn is_ignored(&self) -> bool {
        matches!(
            (self.group.as_str(), self.plural.as_str()),
            ("" | "events.k8s.io", "events")
                | ("coordination.k8s.io", "leases")
                | ("metrics.k8s.io", _)
        )
    }
}

/// The kinds found, collector. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ResourceKinds(Arc<watch::Sender<Arc<[Arc<ResourceKind>]>>>);

impl Default for ResourceKinds {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Arc::from([]))))
    }
}

impl ResourceKinds {
    pub(crate) fn set(&self, found: Vec<Arc<ResourceKind>>) {
        self.0.send_if_modified(|known| {
            if **known == *found {
                return false;
            }
            *known = found.into();
            true
        });
    }

    /// The kinds at present; empty before the first discovery.
    pub(crate) fn all(&self) -> Arc<[Arc<ResourceKind>]> {
        self.0.borrow().clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<[Arc<ResourceKind>]>> {
        self.0.subscribe()
    }

    /// The kind that an owner reference means.
    pub(crate) fn find(&self, api_version: &str, kind: &str) -> Option<Arc<ResourceKind>> {
        self.0
            .borrow()
            .iter()
            .find(|known| known.is(api_version, kind))
            .cloned()
    }
}

/// Asks for everything; a kind served in several versions is taken once, in the preferred one.
pub(crate) async fn all(client: &kube::Client) -> Result<Vec<Arc<ResourceKind>>, ReconcileError> {
    let ask = |attempt: &str, source: kube::Error| ReconcileError::Unreachable {
        attempt: attempt.to_owned(),
        source: source.into(),
    };
    let mut out: Vec<Arc<ResourceKind>> = Vec::new();
    let core = client
        .list_core_api_resources("v1")
        .await
        .map_err(|source| ask("discovering the core kinds", source))?;
    take(&mut out, "", "v1", core);
    let groups = client
        .list_api_groups()
        .await
        .map_err(|source| ask("discovering the API groups", source))?;
    for group in groups.groups {
        let preferred = group
            .preferred_version
            .as_ref()
            .map(|version| version.version.clone());
        let mut versions: Vec<String> = group
            .versions
            .iter()
            .map(|version| version.version.clone())
            .collect();
        versions.sort_by_key(|version| Some(version) != preferred.as_ref());
        for version in versions {
            let name = format!("{}/{version}", group.name);
            match client.list_api_group_resources(&name).await {
                Ok(list) => take(&mut out, &group.name, &version, list),
                // One group that is down must not blind us to the others.
                Err(source) => {
                    tracing::debug!(group = name, error = %source, "a group could not be discovered")
                }
            }
        }
    }
    Ok(out)
}

fn take(out: &mut Vec<Arc<ResourceKind>>, group: &str, version: &str, list: APIResourceList) {
    for resource in list.resources {
        let can = |verb: &str| resource.verbs.iter().any(|known| known == verb);
        let known = out
            .iter()
            .any(|known| known.group == group && known.plural == resource.name);
        if known || resource.name.contains('/') || !(can("list") && can("watch") && can("delete")) {
            continue;
        }
        let delete_collection = can("deletecollection");
        out.push(Arc::new(ResourceKind {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: resource.kind,
            plural: resource.name,
            namespaced: resource.namespaced,
            delete_collection,
        }));
    }
}
