//! Services that are created, called, put to sleep, woken and deleted, over and over.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::api::{sample_service, serving};
use crate::footprint::{Footprint, Slack};
use crate::{Api, Instance, until, web};

/// Long enough for a machine that does much else.
const STEP_MAX: Duration = Duration::from_secs(120);
/// Nothing is given back for so long: all is. Trees of deleted pods are removed within a second.
const AT_REST_FOR: Duration = Duration::from_secs(3);
const AUTOSCALER: &str = "/api/v1/namespaces/knative-serving/configmaps/config-autoscaler";

/// Where a Service has children, grandchildren and what follows from them.
const CHILDREN: [&str; 14] = [
    "/apis/serving.knative.dev/v1/namespaces/default/services",
    "/apis/serving.knative.dev/v1/namespaces/default/configurations",
    "/apis/serving.knative.dev/v1/namespaces/default/routes",
    "/apis/serving.knative.dev/v1/namespaces/default/revisions",
    "/apis/autoscaling.internal.knative.dev/v1alpha1/namespaces/default/podautoscalers",
    "/apis/autoscaling.internal.knative.dev/v1alpha1/namespaces/default/metrics",
    "/apis/networking.internal.knative.dev/v1alpha1/namespaces/default/ingresses",
    "/apis/networking.internal.knative.dev/v1alpha1/namespaces/default/serverlessservices",
    "/apis/caching.internal.knative.dev/v1alpha1/namespaces/default/images",
    "/apis/apps/v1/namespaces/default/deployments",
    "/apis/apps/v1/namespaces/default/replicasets",
    "/api/v1/namespaces/default/pods",
    "/api/v1/namespaces/default/services",
    "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
];

/// Makes services sleep as soon as Knative allows.
pub async fn sleep_soon(api: &Api) -> anyhow::Result<()> {
    let data = json!({"data": {"scale-to-zero-grace-period": "6s", "stable-window": "6s", "scale-to-zero-pod-retention-period": "0s"}});
    api.merge(AUTOSCALER, &data).await?;
    Ok(())
}

/// Some cycles side by side.
pub async fn batch(instance: &Instance, api: &Api, cycles: u32) -> anyhow::Result<()> {
    let mut services = JoinSet::new();
    for number in 0..cycles {
        let (api, gateway) = (api.clone(), instance.gateway().to_owned());
        services.spawn(async move {
            let name = format!("cycle-{number}");
            cycle(&api, &gateway, &name).await.context(name)
        });
    }
    while let Some(done) = services.join_next().await {
        done??;
    }
    Ok(())
}

/// Deletes what batches that a crash cut off have left in the API.
pub async fn delete_all(api: &Api) -> anyhow::Result<()> {
    let services = serving("default", "services");
    for service in items(api, &services).await? {
        let name = service["metadata"]["name"].as_str().unwrap_or_default();
        api.delete(&format!("{services}/{name}")).await?;
    }
    Ok(())
}

async fn items(api: &Api, path: &str) -> anyhow::Result<Vec<Value>> {
    let mut list = api.get(path).await?;
    Ok(match list["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    })
}

/// Objects of deleted Services that are still there, by path.
async fn left_objects(api: &Api) -> anyhow::Result<Vec<String>> {
    let mut left = Vec::new();
    for collection in CHILDREN {
        for object in items(api, collection).await? {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            // The API server's own Service, its endpoints and what every namespace has.
            if name.starts_with("cycle-") {
                left.push(format!("{collection}/{name}"));
            }
        }
    }
    Ok(left)
}

async fn cycle(api: &Api, gateway: &str, name: &str) -> anyhow::Result<()> {
    let services = serving("default", "services");
    let path = format!("{services}/{name}");
    let host = format!("{name}.default.localhost");
    api.create(&services, &sample_service(name, "default", "helloworld"))
        .await?;
    api.condition(&path, "Ready", "True", STEP_MAX).await?;
    answers(gateway, &host).await?;
    no_pods(api, name).await.context("asleep")?;
    if let Err(error) = answers(gateway, &host).await {
        let found = state(api, name).await?;
        return Err(error.context(format!("awake again; found: {found}")));
    }
    api.delete(&path).await?;
    no_pods(api, name).await.context("deleted")?;
    until("the service to be gone", STEP_MAX, || async {
        let found = api.find(&path).await?;
        ensure!(
            found.is_none(),
            "{}",
            found.unwrap_or(Value::Null)["metadata"]
        );
        Ok(Some(()))
    })
    .await
}

/// What the objects of a Service say, for an error.
async fn state(api: &Api, name: &str) -> anyhow::Result<Value> {
    let of = format!("labelSelector=serving.knative.dev/service={name}");
    let mut found = serde_json::Map::new();
    for collection in [
        "/api/v1/namespaces/default/pods",
        "/apis/apps/v1/namespaces/default/deployments",
        "/apis/autoscaling.internal.knative.dev/v1alpha1/namespaces/default/podautoscalers",
        "/apis/networking.internal.knative.dev/v1alpha1/namespaces/default/serverlessservices",
    ] {
        for object in items(api, &format!("{collection}?{of}")).await? {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let told = json!({"replicas": object["spec"]["replicas"], "mode": object["spec"]["mode"], "status": object["status"]});
            found.insert(format!("{collection}/{name}"), told);
        }
    }
    Ok(Value::Object(found))
}

async fn answers(gateway: &str, host: &str) -> anyhow::Result<()> {
    let answer = web::get(gateway, host, "/").await?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}

async fn no_pods(api: &Api, name: &str) -> anyhow::Result<()> {
    let path =
        format!("/api/v1/namespaces/default/pods?labelSelector=serving.knative.dev/service={name}");
    until("no pod", STEP_MAX, || async {
        let pods = api.get(&path).await?;
        let left = pods["items"].as_array().map_or(0, Vec::len);
        ensure!(left == 0, "{left} pods");
        Ok(Some(()))
    })
    .await
}

/// What the instance occupies once it has given back what the last pods had: a footprint that is taken too early would
/// excuse a leak of the same size.
pub async fn at_rest(instance: &Instance) -> anyhow::Result<Footprint> {
    let counts = |footprint: &Footprint| {
        [
            footprint.processes.len(),
            footprint.mounts.len(),
            footprint.links.len(),
            footprint.cgroups.len(),
            footprint.files.len(),
        ]
    };
    let deadline = tokio::time::Instant::now() + STEP_MAX;
    let mut before = Footprint::of(instance.ready.pid, &instance.data);
    loop {
        tokio::time::sleep(AT_REST_FOR).await;
        let now = Footprint::of(instance.ready.pid, &instance.data);
        if counts(&now) == counts(&before) {
            return Ok(now);
        }
        ensure!(
            tokio::time::Instant::now() < deadline,
            "the instance does not come to rest: {before}, then {now}"
        );
        before = now;
    }
}

/// Waits until the instance occupies no more than `before` and the slack, and no object of a cycle is left; an error lists
/// what is too much, by name.
pub async fn settled(
    instance: &Instance,
    api: &Api,
    before: &Footprint,
    slack: Slack,
) -> anyhow::Result<Footprint> {
    until("everything to be given back", STEP_MAX, || async {
        let left = left_objects(api).await?;
        ensure!(
            left.is_empty(),
            "{} objects: {}",
            left.len(),
            left.join(", ")
        );
        let now = Footprint::of(instance.ready.pid, &instance.data);
        let grown = now.grown(before, slack);
        ensure!(grown.is_empty(), "{}", grown.join("; "));
        Ok(Some(now))
    })
    .await
}
