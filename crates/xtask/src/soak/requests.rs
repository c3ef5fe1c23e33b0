//! No failed request in a long run of rollouts, traffic changes, scale up and scale down.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::Args;
use kinglet_testkit::api::{sample_service, serving};
use kinglet_testkit::{Api, Setup, load};
use serde_json::{Value, json};

const READY_MAX: Duration = Duration::from_secs(60);

/// How long a soak.
#[derive(Args)]
pub(crate) struct Requests {
    /// Requests to send at least.
    #[arg(long, default_value_t = 100_000)]
    requests: u64,
    /// Connections.
    #[arg(long, default_value_t = 16)]
    connections: usize,
}

pub(crate) async fn run(args: &Requests) -> anyhow::Result<()> {
    let instance = Setup::of(&crate::release_binary()?).start().await?;
    let api = Api::open(instance.ready.kubeconfig.as_ref()).await?;
    let services = serving("default", "services");
    let path = format!("{services}/hello");
    api.apply(&services, &version("v0", 1)).await?;
    api.condition(&path, "Ready", "True", READY_MAX).await?;
    let began = Instant::now();
    let load = load::start(
        instance.gateway(),
        "hello.default.localhost",
        "/",
        args.connections,
        Duration::from_millis(1),
    );
    let mut changes = 0_u32;
    while load.finished() < args.requests {
        changes += 1;
        let (step, target) = (changes % 4, format!("v{changes}"));
        match step {
            // v1 -> v2, up, and down again.
            0 => api.apply(&services, &version(&target, 1)).await?,
            1 => api.apply(&services, &version(&target, 4)).await?,
            2 => api.apply(&services, &version(&target, 2)).await?,
            // Traffic between the last two revisions, without a new one.
            _ => split_traffic(&api, &path).await?,
        };
        api.condition(&path, "Ready", "True", READY_MAX).await?;
        if step == 3 {
            api.merge(
                &path,
                &json!({"spec": {"traffic": [{"latestRevision": true, "percent": 100}]}}),
            )
            .await?;
            api.condition(&path, "Ready", "True", READY_MAX).await?;
        }
        eprintln!(
            "soak: {changes} changes, {} requests, {:.0} s",
            load.finished(),
            began.elapsed().as_secs_f64()
        );
    }
    let tally = load.stop().await;
    println!(
        "soak: {} requests during {changes} changes: {} failed; p50 {:.2} ms, p99 {:.2} ms",
        tally.good + tally.failed(),
        tally.failed(),
        tally.percentile_ms(50.0),
        tally.percentile_ms(99.0)
    );
    ensure!(tally.failed() == 0, "failed requests: {:?}", tally.bad);
    instance.stop().await
}

fn version(target: &str, min_scale: u32) -> Value {
    let mut service = sample_service("hello", "default", "helloworld");
    service["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "TARGET", "value": target}]);
    service["spec"]["template"]["metadata"]["annotations"] = json!({"autoscaling.knative.dev/min-scale": min_scale.to_string(), "autoscaling.knative.dev/target": "5", "autoscaling.knative.dev/window": "6s"});
    service
}

/// Splits the traffic between the last two revisions.
async fn split_traffic(api: &Api, path: &str) -> anyhow::Result<Value> {
    let list = api
        .get(&format!(
            "{}?labelSelector=serving.knative.dev/service=hello",
            serving("default", "revisions")
        ))
        .await?;
    let mut names: Vec<String> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|revision| Some(revision["metadata"]["name"].as_str()?.to_owned()))
        .collect();
    names.sort();
    let [.., old, new] = names.as_slice() else {
        bail!("two revisions are expected")
    };
    api.merge(path, &json!({"spec": {"traffic": [{"revisionName": old, "percent": 40}, {"revisionName": new, "percent": 60}]}})).await
}
