//! What admission would have filled in, for objects that were stored without it (a cluster without our webhook).
//!
//! As in Knative, the defaults are applied in memory before an object is looked at and are not written back. Objects
//! that were admitted pass through untouched, at the price of looking at a few fields.

use std::sync::Arc;

use jiff::Timestamp;
use kinglet_api::admission::{Operation, Review, mutate};
use kinglet_api::config::Configs;
use kinglet_api::serving::{Configuration, RevisionSpec, Service};
use kinglet_reconcile::{Object, name_of, namespace_of};

/// A Service as admission would have stored it.
pub(crate) fn service(service: Arc<Service>, configs: &Configs, now: Timestamp) -> Arc<Service> {
    let complete = is_complete(&service.spec.template.spec)
        && !service.spec.traffic.is_empty()
        && service
            .spec
            .traffic
            .iter()
            .all(|target| target.latest_revision.is_some());
    if complete {
        service
    } else {
        defaulted(&*service, configs, now).map_or(service, Arc::new)
    }
}

/// A Configuration as admission would have stored it.
pub(crate) fn configuration(
    found: Arc<Configuration>,
    configs: &Configs,
    now: Timestamp,
) -> Arc<Configuration> {
    if is_complete(&found.spec.template.spec) {
        found
    } else {
        defaulted(&*found, configs, now).map_or(found, Arc::new)
    }
}

fn is_complete(spec: &RevisionSpec) -> bool {
    let probed = spec
        .serving_container()
        .is_some_and(|container| container.readiness_probe.is_some());
    probed
        && spec.timeout_seconds.is_some()
        && spec
            .pod
            .containers
            .iter()
            .all(|container| !container.name.is_empty())
}

/// The object with its defaults; `None` when admission would refuse it, which is then for the API server to say.
fn defaulted<K: Object>(object: &K, configs: &Configs, now: Timestamp) -> Option<K> {
    let before = serde_json::to_value(object).ok()?;
    let mut after = before.clone();
    let (group, version, kind) = (K::group(&()), K::version(&()), K::kind(&()));
    let review = Review {
        group: &group,
        version: &version,
        kind: &kind,
        operation: Operation::Update,
        subresource: None,
        namespace: namespace_of(object),
        name: name_of(object),
        user: "",
        user_is_controller: true,
        dry_run: None,
        now,
        old: Some(&before),
    };
    mutate(&review, &mut after, configs).ok()?;
    after["metadata"] = before["metadata"].clone();
    serde_json::from_value(after).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_not_admitted_gets_its_defaults_in_memory() {
        let raw: Service = serde_json::from_value(json!({
            "metadata": {"name": "hello", "namespace": "a", "annotations": {"mine": "too"}},
            "spec": {"template": {"spec": {"containers": [{"image": "x:1"}]}}},
        }))
        .unwrap();
        let raw = Arc::new(raw);
        let configs = Configs::default();
        let now = Timestamp::from_second(0).unwrap();
        let full = service(Arc::clone(&raw), &configs, now);
        let spec = serde_json::to_value(&full.spec).unwrap();
        assert_eq!(
            spec["traffic"],
            json!([{"latestRevision": true, "percent": 100}])
        );
        assert_eq!(spec["template"]["spec"]["timeoutSeconds"], 300);
        let container = &spec["template"]["spec"]["containers"][0];
        assert_eq!(
            (
                &container["name"],
                &container["readinessProbe"]["tcpSocket"]["port"]
            ),
            (&json!("user-container"), &json!(0))
        );
        assert_eq!(full.metadata, raw.metadata);
        assert!(
            Arc::ptr_eq(&service(Arc::clone(&full), &configs, now), &full),
            "once is enough"
        );
    }
}
