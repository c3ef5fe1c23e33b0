//! The Revision of a Configuration's template.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kinglet_api::serving::{Configuration, Revision};
use kinglet_api::{keys, names};
use kinglet_reconcile::{owner_reference, uid_of};

use crate::metadata;

pub(super) fn revision(configuration: &Configuration, now: Timestamp) -> Revision {
    let template = &configuration.spec.template;
    let wanted = template
        .metadata
        .name
        .clone()
        .filter(|name| !name.is_empty());
    let name =
        wanted.unwrap_or_else(|| names::revision(configuration.name(), configuration.generation()));

    let mut labels = metadata::without(template.metadata.labels.as_ref(), |_| false);
    metadata::put(&mut labels, keys::CONFIGURATION, configuration.name());
    metadata::put(
        &mut labels,
        keys::CONFIGURATION_GENERATION,
        configuration.generation().to_string(),
    );
    metadata::put(&mut labels, keys::CONFIGURATION_UID, uid_of(configuration));
    for key in [keys::SERVICE, keys::SERVICE_UID] {
        if let Some(value) = configuration.label(key) {
            metadata::put(&mut labels, key, value);
        }
    }
    let mut annotations = metadata::without(template.metadata.annotations.as_ref(), |_| false);
    if let Some(author) = configuration.annotation(keys::LAST_MODIFIER) {
        metadata::put(&mut annotations, keys::CREATOR, author);
    }
    // A Configuration that some Route already leads to makes Revisions that count as reachable from the start.
    let routes = configuration
        .annotation(keys::ROUTES)
        .filter(|routes| !routes.is_empty());
    if let Some(routes) = routes {
        metadata::put(&mut annotations, keys::ROUTES, routes);
    }
    metadata::put(
        &mut labels,
        keys::ROUTING_STATE,
        if routes.is_some() {
            "active"
        } else {
            "pending"
        },
    );
    metadata::put(
        &mut annotations,
        keys::ROUTING_STATE_MODIFIED,
        crate::stamp(now),
    );

    Revision {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: configuration.metadata.namespace.clone(),
            labels: metadata::some(labels),
            annotations: metadata::some(annotations),
            owner_references: Some(vec![owner_reference(configuration)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        ..Revision::default()
    }
}
