//! The Deployment of a Revision, and its hash that decides whether one that is there must be rolled.

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kinglet_api::go::GoDuration;
use kinglet_api::serving::Revision;
use kinglet_api::{keys, names};
use kinglet_reconcile::{owner_reference, uid_of};

use super::pod::{self, PodInputs};
use crate::metadata::{self, Pairs};

/// Annotations of a Revision that are its own business.
const PRIVATE: [&str; 4] = [
    "serving.knative.dev/lastPinned",
    keys::NO_GC,
    keys::ROUTING_STATE_MODIFIED,
    keys::ROUTES,
];

/// Labels of everything that belongs to a Revision.
pub(super) fn labels(revision: &Revision) -> Pairs {
    let mut labels = metadata::without(revision.metadata.labels.as_ref(), |key| {
        matches!(key, keys::ROUTE | keys::ROUTING_STATE)
    });
    metadata::put(&mut labels, keys::REVISION, revision.name());
    metadata::put(&mut labels, keys::REVISION_UID, uid_of(revision));
    labels
        .entry(keys::APP.to_owned())
        .or_insert_with(|| revision.name().to_owned());
    labels
}

/// Annotations of everything that belongs to a Revision, without those for the autoscaler.
pub(super) fn annotations(revision: &Revision) -> Pairs {
    metadata::without(revision.metadata.annotations.as_ref(), |key| {
        PRIVATE.contains(&key) || key.starts_with("autoscaling.knative.dev")
    })
}

/// Annotations of the PodAutoscaler: all that are not private.
pub(super) fn annotations_for_autoscaler(revision: &Revision) -> Pairs {
    metadata::without(revision.metadata.annotations.as_ref(), |key| {
        PRIVATE.contains(&key)
    })
}

/// Pods that a new Revision starts with.
pub(super) fn initial_scale(inputs: PodInputs<'_>) -> i32 {
    let autoscaler = &inputs.configs.autoscaler;
    let own = keys::INITIAL_SCALE.get(inputs.revision.metadata.annotations.as_ref());
    own.and_then(|text| text.trim().parse().ok())
        .filter(|scale| *scale > 0 || (*scale == 0 && autoscaler.allow_zero_initial_scale))
        .unwrap_or(autoscaler.initial_scale)
}

/// The Deployment as it shall be when it is new.
pub(super) fn build(inputs: PodInputs<'_>) -> Deployment {
    let revision = inputs.revision;
    let labels = labels(revision);
    let annotations = annotations(revision);
    let mut pod_annotations = annotations.clone();
    if let Some(serving) = revision.spec.serving_container() {
        metadata::put(
            &mut pod_annotations,
            keys::DEFAULT_CONTAINER,
            serving.name.as_str(),
        );
    }
    let selector = LabelSelector {
        match_labels: Some([(keys::REVISION_UID.to_owned(), uid_of(revision).to_owned())].into()),
        ..LabelSelector::default()
    };
    let spec = DeploymentSpec {
        replicas: Some(initial_scale(inputs)),
        selector,
        progress_deadline_seconds: Some(progress_deadline(inputs)),
        revision_history_limit: Some(0),
        strategy: Some(DeploymentStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(RollingUpdateDeployment {
                max_unavailable: Some(IntOrString::Int(0)),
                max_surge: Some(IntOrString::String("25%".to_owned())),
            }),
        }),
        template: PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: metadata::some(labels.clone()),
                annotations: metadata::some(pod_annotations),
                ..ObjectMeta::default()
            }),
            spec: Some(pod::spec(inputs)),
        },
        ..DeploymentSpec::default()
    };
    let hash = hash(&spec, &labels, &annotations);
    let mut labels = labels;
    metadata::put(&mut labels, keys::DEPLOYMENT_HASH, hash);
    Deployment {
        metadata: ObjectMeta {
            name: Some(names::deployment(revision.name())),
            namespace: revision.metadata.namespace.clone(),
            labels: metadata::some(labels),
            annotations: metadata::some(annotations),
            owner_references: Some(vec![owner_reference(revision)]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

/// What to write over the Deployment that is there; `None` when it was made from the same Revision and settings.
///
/// Replicas belong to the autoscaler, the selector cannot change, and what others noted on it stays.
pub(super) fn renewed(present: &Deployment, desired: &Deployment) -> Option<Deployment> {
    let hash = |deployment: &Deployment| {
        deployment
            .metadata
            .labels
            .as_ref()?
            .get(keys::DEPLOYMENT_HASH)
            .cloned()
    };
    if hash(present) == hash(desired) {
        return None;
    }
    let mut next = desired.clone();
    keep_foreign(&mut next.metadata.labels, present.metadata.labels.as_ref());
    keep_foreign(
        &mut next.metadata.annotations,
        present.metadata.annotations.as_ref(),
    );
    if let (Some(spec), Some(live)) = (&mut next.spec, &present.spec) {
        spec.replicas = live.replicas;
        spec.selector = live.selector.clone();
        if let (Some(meta), Some(live)) = (&mut spec.template.metadata, &live.template.metadata) {
            keep_foreign(&mut meta.labels, live.labels.as_ref());
            keep_foreign(&mut meta.annotations, live.annotations.as_ref());
        }
    }
    Some(next)
}

fn keep_foreign(next: &mut Option<Pairs>, live: Option<&Pairs>) {
    let foreign = metadata::without(live, |key| key == keys::APP || key.contains("knative.dev/"));
    if !foreign.is_empty() {
        let next = next.get_or_insert_default();
        for (key, value) in foreign {
            next.entry(key).or_insert(value);
        }
    }
}

fn progress_deadline(inputs: PodInputs<'_>) -> i32 {
    let own = inputs
        .revision
        .annotation(keys::PROGRESS_DEADLINE)
        .and_then(|text| GoDuration::parse(text).ok());
    let deadline = own.map_or(
        inputs.configs.deployment.progress_deadline,
        GoDuration::to_std,
    );
    i32::try_from(deadline.as_secs()).unwrap_or(i32::MAX)
}

/// FNV-1a over the JSON of everything wanted, in base 36.
fn hash(spec: &DeploymentSpec, labels: &Pairs, annotations: &Pairs) -> String {
    let bytes = serde_json::to_vec(&(spec, annotations, labels))
        .expect("a Deployment has string keys only");
    let sum = bytes.iter().fold(0x811c_9dc5_u32, |sum, byte| {
        (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    base36(sum)
}

fn base36(mut number: u32) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize]);
        number /= 36;
        if number == 0 {
            break;
        }
    }
    digits
        .iter()
        .rev()
        .map(|digit| char::from(*digit))
        .collect()
}
