//! What every cached object has in common, and small readings of its metadata.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use kinglet_decide::feed::Key;

/// A typed Kubernetes object as controllers handle it: k8s-openapi's types and our own custom resources.
pub trait Object:
    Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

impl<T> Object for T where
    T: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

/// The key of an object; the namespace is empty for cluster-scoped kinds.
pub fn key_of<K: Object>(object: &K) -> Key {
    let meta = object.meta();
    Key::new(
        Arc::from(meta.namespace.as_deref().unwrap_or("")),
        Arc::from(meta.name.as_deref().unwrap_or("")),
    )
}

/// The name, or nothing for an object that has none yet.
pub fn name_of<K: Object>(object: &K) -> &str {
    object.meta().name.as_deref().unwrap_or("")
}

/// The namespace, empty for cluster-scoped kinds.
pub fn namespace_of<K: Object>(object: &K) -> &str {
    object.meta().namespace.as_deref().unwrap_or("")
}

/// The uid, empty before the API server gave one.
pub fn uid_of<K: Object>(object: &K) -> &str {
    object.meta().uid.as_deref().unwrap_or("")
}

/// A label's value.
pub fn label<'a, K: Object>(object: &'a K, name: &str) -> Option<&'a str> {
    object
        .meta()
        .labels
        .as_ref()
        .and_then(|all| all.get(name))
        .map(String::as_str)
}

/// An annotation's value.
pub fn annotation<'a, K: Object>(object: &'a K, name: &str) -> Option<&'a str> {
    object
        .meta()
        .annotations
        .as_ref()
        .and_then(|all| all.get(name))
        .map(String::as_str)
}

/// Whether deletion was asked for.
pub fn is_deleting<K: Object>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some()
}

/// The resourceVersion as a number; versions of one kind are compared with it. Zero when it is missing or no number.
pub fn version_of(meta: &ObjectMeta) -> u64 {
    meta.resource_version
        .as_deref()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// The owner reference that is marked as controller.
pub fn controller_of<K: Object>(object: &K) -> Option<&OwnerReference> {
    object
        .meta()
        .owner_references
        .as_ref()?
        .iter()
        .find(|owner| owner.controller == Some(true))
}

/// Whether `owner` is the controller of `object`, by uid.
pub fn is_controlled_by<K: Object, O: Object>(object: &K, owner: &O) -> bool {
    let uid = uid_of(owner);
    !uid.is_empty() && controller_of(object).is_some_and(|reference| reference.uid == uid)
}

/// The controller reference to put on a child of `owner` (`controller` and `blockOwnerDeletion` set, as Knative's are).
pub fn owner_reference<O: Object>(owner: &O) -> OwnerReference {
    OwnerReference {
        api_version: O::api_version(&()).into_owned(),
        kind: O::kind(&()).into_owned(),
        name: name_of(owner).to_owned(),
        uid: uid_of(owner).to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether an owner reference points to the kind `O`, whatever the version.
pub fn refers_to<O: Object>(reference: &OwnerReference) -> bool {
    let group = reference
        .api_version
        .rsplit_once('/')
        .map_or("", |(group, _)| group);
    reference.kind == O::kind(&()) && group == O::group(&())
}
