//! What queue-proxy may use: the operator's values, a share of the user container's, or what the Revision says.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use kinglet_api::config::Flag;
use kinglet_api::keys::{self, Priority};
use kinglet_quantity::Quantity;

use super::PodInputs;

type Amounts = BTreeMap<String, ApiQuantity>;

/// Bounds of a share, in thousandths: cpu request, cpu limit, memory request, memory limit.
const MI: i64 = 1024 * 1024 * 1000;
const SHARES: [(&str, bool, i64, i64); 4] = [
    ("cpu", false, 25, 100),
    ("cpu", true, 40, 500),
    ("memory", false, 50 * MI, 200 * MI),
    ("memory", true, 200 * MI, 500 * MI),
];

pub(super) fn queue(inputs: PodInputs<'_>) -> ResourceRequirements {
    let (mut requests, mut limits) = configured(inputs);
    share(inputs, &mut requests, &mut limits);
    let annotations = inputs.revision.metadata.annotations.as_ref();
    let explicit: [(&str, Priority, &mut Amounts); 2] = [
        ("cpu", keys::QUEUE_CPU_REQUEST, &mut requests),
        ("cpu", keys::QUEUE_CPU_LIMIT, &mut limits),
    ];
    for (resource, key, into) in explicit {
        set(into, resource, key.get(annotations));
    }
    set(
        &mut requests,
        "memory",
        keys::QUEUE_MEMORY_REQUEST.get(annotations),
    );
    set(
        &mut limits,
        "memory",
        keys::QUEUE_MEMORY_LIMIT.get(annotations),
    );
    set(
        &mut requests,
        "ephemeral-storage",
        keys::QUEUE_EPHEMERAL_STORAGE_REQUEST.get(annotations),
    );
    set(
        &mut limits,
        "ephemeral-storage",
        keys::QUEUE_EPHEMERAL_STORAGE_LIMIT.get(annotations),
    );
    let some = |amounts: Amounts| (!amounts.is_empty()).then_some(amounts);
    ResourceRequirements {
        requests: some(requests),
        limits: some(limits),
        claims: None,
    }
}

fn configured(inputs: PodInputs<'_>) -> (Amounts, Amounts) {
    let deployment = &inputs.configs.deployment;
    let defaults = inputs.configs.features.queueproxy_resource_defaults == Flag::Enabled;
    let or = |default: &str| defaults.then(|| default.to_owned());
    let text = |quantity: Option<Quantity>| quantity.map(|quantity| quantity.to_string());
    let collect = |pairs: [(&str, Option<String>); 3]| {
        pairs
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), ApiQuantity(value?))))
            .collect::<Amounts>()
    };
    let requests = collect([
        ("cpu", text(deployment.queue_sidecar_cpu_request)),
        (
            "memory",
            text(deployment.queue_sidecar_memory_request).or_else(|| or("400Mi")),
        ),
        (
            "ephemeral-storage",
            text(deployment.queue_sidecar_ephemeral_storage_request),
        ),
    ]);
    let limits = collect([
        (
            "cpu",
            text(deployment.queue_sidecar_cpu_limit).or_else(|| or("1")),
        ),
        (
            "memory",
            text(deployment.queue_sidecar_memory_limit).or_else(|| or("800Mi")),
        ),
        (
            "ephemeral-storage",
            text(deployment.queue_sidecar_ephemeral_storage_limit),
        ),
    ]);
    (requests, limits)
}

/// The deprecated percentage of what the user container has.
fn share(inputs: PodInputs<'_>, requests: &mut Amounts, limits: &mut Amounts) {
    let annotations = inputs.revision.metadata.annotations.as_ref();
    let percentage = keys::QUEUE_RESOURCE_PERCENTAGE
        .get(annotations)
        .and_then(|text| text.trim().parse::<f64>().ok());
    let Some(fraction) = percentage
        .map(|percentage| percentage / 100.0)
        .filter(|fraction| fraction.is_finite())
    else {
        return;
    };
    let Some(user) = inputs
        .revision
        .spec
        .serving_container()
        .and_then(|container| container.resources.as_ref())
    else {
        return;
    };
    for (resource, is_limit, least, most) in SHARES {
        let (from, into) = if is_limit {
            (&user.limits, &mut *limits)
        } else {
            (&user.requests, &mut *requests)
        };
        let amount = from.as_ref().and_then(|amounts| amounts.get(resource));
        let Some(millis) = amount
            .and_then(|amount| Quantity::parse(&amount.0).ok())
            .map(Quantity::millis)
            .filter(|m| *m != 0)
        else {
            continue;
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "truncated as Knative does"
        )]
        let part = ((millis as f64 * fraction) as i64).clamp(least, most);
        into.insert(resource.to_owned(), ApiQuantity(written(resource, part)));
    }
}

/// Thousandths in Kubernetes' canonical form.
fn written(resource: &str, millis: i64) -> String {
    if resource == "memory" && millis % MI == 0 {
        return format!("{}Mi", millis / MI);
    }
    if millis % 1000 == 0 {
        (millis / 1000).to_string()
    } else {
        format!("{millis}m")
    }
}

fn set(into: &mut Amounts, resource: &str, value: Option<&str>) {
    if let Some(quantity) = value.and_then(|text| Quantity::parse(text.trim()).ok()) {
        into.insert(resource.to_owned(), ApiQuantity(quantity.to_string()));
    }
}
