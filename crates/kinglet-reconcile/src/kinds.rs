//! Which kinds the API server offers, as they come and go.
//!
//! Flow: CustomResourceDefinitions that change, and a timer -> discovery -> [`ResourceKinds`], which the garbage collector and
//! readers of duck types follow with [`crate::Caches::dynamic`] and [`crate::Caches::release`].

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use tokio::sync::{Notify, watch};

use crate::cache::Change;
use crate::context::Context;
use crate::error::ReconcileError;

/// How often the server's kinds are looked at although no CustomResourceDefinition changed.
const REDISCOVER: Duration = Duration::from_secs(300);
/// How long after a changed CustomResourceDefinition they are looked at once more.
const REDISCOVER_AFTER_CHANGE: Duration = Duration::from_secs(2);
/// How long after a failure.
const REDISCOVER_AFTER_FAILURE: Duration = Duration::from_secs(2);

/// A kind that can be listed, watched and deleted.
#[derive(Debug, PartialEq, Eq)]
pub struct ResourceKind {
    /// Group, empty for the core kinds.
    pub group: String,
    /// The version in which it is read.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Plural, as in paths.
    pub plural: String,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
    /// Whether all objects of a namespace can be deleted in one call.
    pub delete_collection: bool,
}

impl ResourceKind {
    /// Path of the collection, of one namespace or of all.
    pub fn path(&self, namespace: Option<&str>) -> String {
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
    pub fn is(&self, api_version: &str, kind: &str) -> bool {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        self.kind == kind && self.group == group
    }
}

/// The kinds found. Cheap to clone.
#[derive(Clone)]
pub struct ResourceKinds(Arc<watch::Sender<Arc<[Arc<ResourceKind>]>>>);

impl Default for ResourceKinds {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Arc::from([]))))
    }
}

impl ResourceKinds {
    fn set(&self, found: Vec<Arc<ResourceKind>>) {
        self.0.send_if_modified(|known| {
            if **known == *found {
                return false;
            }
            *known = found.into();
            true
        });
    }

    /// The kinds at present; empty before the first discovery.
    pub fn all(&self) -> Arc<[Arc<ResourceKind>]> {
        self.0.borrow().clone()
    }

    /// The kinds as they come and go.
    pub fn subscribe(&self) -> watch::Receiver<Arc<[Arc<ResourceKind>]>> {
        self.0.subscribe()
    }

    /// The kind that an owner reference means.
    pub fn find(&self, api_version: &str, kind: &str) -> Option<Arc<ResourceKind>> {
        self.0
            .borrow()
            .iter()
            .find(|known| known.is(api_version, kind))
            .cloned()
    }
}

/// Keeps the list of kinds current.
pub fn discover(context: &Context) -> ResourceKinds {
    let kinds = ResourceKinds::default();
    let changed = Arc::new(Notify::new());
    let bell = Arc::clone(&changed);
    context
        .cache::<CustomResourceDefinition>()
        .observe_heads(move |_: &Change<_>| bell.notify_one());
    let (found, client) = (kinds.clone(), context.client().clone());
    let gate = context.gate().clone();
    context
        .tasks()
        .component_cancellable("discovery", async move {
            gate.pass().await;
            // The server may offer a kind a moment after its definition has changed, so a change is looked at twice.
            let mut just_changed = false;
            loop {
                let pause = match all(&client).await {
                    Ok(all) => {
                        found.set(all);
                        if just_changed {
                            REDISCOVER_AFTER_CHANGE
                        } else {
                            REDISCOVER
                        }
                    }
                    Err(error) => {
                        tracing::debug!(error = %error, "discovery failed, trying again");
                        REDISCOVER_AFTER_FAILURE
                    }
                };
                just_changed = tokio::select! {
                    () = changed.notified() => true,
                    () = tokio::time::sleep(pause) => false,
                };
            }
        });
    kinds
}

/// Asks for everything; a kind served in several versions is taken once, in the preferred one.
async fn all(client: &kube::Client) -> Result<Vec<Arc<ResourceKind>>, ReconcileError> {
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
