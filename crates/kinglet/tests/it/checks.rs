//! What must hold whoever serves the API: over our own server and over a real Kubernetes control plane.
//!
//! Objects are sent as admission leaves them, because a control plane that is not ours has no webhook (yet).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kinglet_api::admission::{self, Operation, Review};
use kinglet_api::config::Configs;
use kinglet_testkit::api::{sample_service, serving};
use kinglet_testkit::{Api, Instance, load, until, web};
use serde_json::{Value, json};

use crate::READY_MAX;

const AUTOSCALER: &str = "/api/v1/namespaces/knative-serving/configmaps/config-autoscaler";

/// The system under test: its API and the instance that works on it.
#[derive(Clone, Copy)]
pub(crate) struct System<'a> {
    pub(crate) api: &'a Api,
    pub(crate) instance: &'a Instance,
}

impl System<'_> {
    /// Applies a Service in its stored form and waits until it is ready.
    async fn apply(&self, service: &Value) -> anyhow::Result<Value> {
        let services = serving("default", "services");
        self.api.apply(&services, &complete(service)?).await?;
        let name = service["metadata"]["name"].as_str().context("a name")?;
        self.api
            .condition(&format!("{services}/{name}"), "Ready", "True", READY_MAX)
            .await
    }

    async fn ask(&self, host: &str) -> anyhow::Result<web::Response> {
        let answer = web::get(self.instance.gateway(), host, "/").await?;
        ensure!(answer.status == 200, "{host}: {answer:?}");
        Ok(answer)
    }

    async fn items(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        Ok(self.api.get(path).await?["items"]
            .as_array()
            .cloned()
            .unwrap_or_default())
    }
}

/// The Service with defaults, by the function that every admission uses.
fn complete(service: &Value) -> anyhow::Result<Value> {
    let mut object = service.clone();
    let review = Review {
        group: "serving.knative.dev",
        version: "v1",
        kind: "Service",
        operation: Operation::Create,
        subresource: None,
        namespace: "default",
        name: service["metadata"]["name"].as_str().unwrap_or_default(),
        user: "tests",
        user_is_controller: false,
        dry_run: None,
        now: kinglet_process::Clock::system().now(),
        old: None,
    };
    admission::review(&review, &mut object, &Configs::default())?;
    // Who made it is for the server to say.
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|key, _| {
            ![
                "serving.knative.dev/creator",
                "serving.knative.dev/lastModifier",
            ]
            .contains(&key.as_str())
        });
    }
    Ok(object)
}

fn hello(name: &str, target: &str) -> Value {
    let mut service = sample_service(name, "default", "helloworld");
    service["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "TARGET", "value": target}]);
    service
}

/// Apply, ask, scale to zero, wake up: the first thing anyone does.
pub(crate) async fn story(system: System<'_>) -> anyhow::Result<()> {
    // The shortest grace that Knative allows; also shows that the ConfigMap is followed.
    system
        .api
        .merge(
            AUTOSCALER,
            &json!({"data": {"scale-to-zero-grace-period": "6s"}}),
        )
        .await?;
    let mut service = hello("story", "test");
    service["spec"]["template"]["metadata"]["annotations"] =
        json!({"autoscaling.knative.dev/window": "6s"});
    let ready = system.apply(&service).await?;
    ensure!(
        ready["status"]["url"] == "http://story.default.localhost",
        "url is {}",
        ready["status"]["url"]
    );
    let answer = system.ask("story.default.localhost").await?;
    ensure!(answer.body == "Hello test!\n", "{answer:?}");

    until("scale to zero", Duration::from_secs(60), || async {
        let pods = system
            .items(
                "/api/v1/namespaces/default/pods?labelSelector=serving.knative.dev/service=story",
            )
            .await?;
        Ok(pods.is_empty().then_some(()))
    })
    .await?;
    // Twenty at once: all wait for the one cold start, none is refused.
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let gateway = system.instance.gateway().to_owned();
        requests.spawn(async move { web::get(&gateway, "story.default.localhost", "/").await });
    }
    while let Some(answer) = requests.join_next().await {
        let answer = answer??;
        ensure!(answer.status == 200, "{answer:?}");
    }
    Ok(())
}

/// Cluster-local names are not served to the outside.
pub(crate) async fn private_names(system: System<'_>) -> anyhow::Result<()> {
    let mut service = hello("private", "inside");
    service["metadata"]["labels"] = json!({"networking.knative.dev/visibility": "cluster-local"});
    let ready = system.apply(&service).await?;
    ensure!(
        ready["status"]["url"] == "http://private.default.svc.cluster.local",
        "url is {}",
        ready["status"]["url"]
    );
    let answer = web::get(
        system.instance.gateway(),
        "private.default.svc.cluster.local",
        "/",
    )
    .await?;
    ensure!(
        answer.status == 404,
        "the external gateway must not know cluster-local names: {answer:?}"
    );
    Ok(())
}

/// No request fails while one revision takes over from another. The long run is `cargo xtask soak`.
pub(crate) async fn rollout(system: System<'_>) -> anyhow::Result<()> {
    system.apply(&hello("rollout", "v1")).await?;
    let load = load::start(
        system.instance.gateway(),
        "rollout.default.localhost",
        "/",
        8,
        Duration::from_millis(1),
    );
    for target in ["v2", "v3", "v4"] {
        system.apply(&hello("rollout", target)).await?;
    }
    let answered = load.finished();
    until("requests after the last change", READY_MAX, || async {
        Ok((load.finished() > answered + 100).then_some(()))
    })
    .await?;
    let tally = load.stop().await;
    ensure!(
        tally.failed() == 0,
        "{:?} of {} requests failed",
        tally.bad,
        tally.good
    );
    ensure!(
        tally.bodies.contains_key("Hello v1!") && tally.bodies.contains_key("Hello v4!"),
        "{:?}",
        tally.bodies
    );
    Ok(())
}

/// Percentages are kept, and tags have names of their own.
pub(crate) async fn splits(system: System<'_>) -> anyhow::Result<()> {
    let version = |name: &str, target: &str, traffic: &Value| {
        let mut service = hello("canary", target);
        service["spec"]["template"]["metadata"]["name"] = json!(name);
        service["spec"]["traffic"] = traffic.clone();
        service
    };
    system
        .apply(&version(
            "canary-v1",
            "one",
            &json!([{"revisionName": "canary-v1", "percent": 100}]),
        ))
        .await?;
    let split = json!([
        {"revisionName": "canary-v1", "percent": 80, "tag": "stable"},
        {"revisionName": "canary-v2", "percent": 20, "tag": "next"},
        {"latestRevision": true, "percent": 0, "tag": "latest"}
    ]);
    system.apply(&version("canary-v2", "two", &split)).await?;
    let mut counts = BTreeMap::new();
    for _ in 0..1000 {
        let answer = system.ask("canary.default.localhost").await?;
        *counts.entry(answer.body.trim().to_owned()).or_insert(0_u32) += 1;
    }
    let one = counts.get("Hello one!").copied().unwrap_or(0);
    ensure!(
        (780..=820).contains(&one),
        "80/20 within two points, got {counts:?}"
    );
    for (tag, body) in [
        ("stable", "Hello one!"),
        ("next", "Hello two!"),
        ("latest", "Hello two!"),
    ] {
        let answer = system
            .ask(&format!("{tag}-canary.default.localhost"))
            .await?;
        ensure!(answer.body.trim() == body, "tag {tag}: {answer:?}");
    }
    Ok(())
}

/// Deleting a Service leaves nothing of its chain behind.
pub(crate) async fn deletion(system: System<'_>) -> anyhow::Result<()> {
    const CHAIN: [&str; 12] = [
        "/apis/serving.knative.dev/v1/namespaces/default/configurations",
        "/apis/serving.knative.dev/v1/namespaces/default/routes",
        "/apis/serving.knative.dev/v1/namespaces/default/revisions",
        "/apis/autoscaling.internal.knative.dev/v1alpha1/namespaces/default/podautoscalers",
        "/apis/autoscaling.internal.knative.dev/v1alpha1/namespaces/default/metrics",
        "/apis/networking.internal.knative.dev/v1alpha1/namespaces/default/serverlessservices",
        "/apis/networking.internal.knative.dev/v1alpha1/namespaces/default/ingresses",
        "/apis/caching.internal.knative.dev/v1alpha1/namespaces/default/images",
        "/apis/apps/v1/namespaces/default/deployments",
        "/apis/apps/v1/namespaces/default/replicasets",
        "/api/v1/namespaces/default/services",
        "/api/v1/namespaces/default/pods",
    ];
    let ours = |items: Vec<Value>| -> Vec<String> {
        let names = items
            .iter()
            .filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned));
        names
            .filter(|name| name == "leaving" || name.starts_with("leaving-"))
            .collect()
    };
    system.apply(&hello("leaving", "soon")).await?;
    for path in CHAIN {
        ensure!(
            !ours(system.items(path).await?).is_empty(),
            "{path} has nothing of the Service"
        );
    }
    system
        .api
        .delete(&format!("{}/leaving", serving("default", "services")))
        .await?;
    until("everything to be gone", READY_MAX, || async {
        for path in CHAIN {
            let left = ours(system.items(path).await?);
            ensure!(left.is_empty(), "{path} still has {left:?}");
        }
        Ok(Some(()))
    })
    .await?;
    let answer = web::get(system.instance.gateway(), "leaving.default.localhost", "/").await?;
    ensure!(
        answer.status == 404,
        "the gateway has forgotten it: {answer:?}"
    );
    Ok(())
}

/// A crashing container and a missing image show with their cause, within seconds.
pub(crate) async fn failures(system: System<'_>) -> anyhow::Result<()> {
    let services = serving("default", "services");
    let missing = sample_service("missing", "default", "nosuchsample");
    let mut crashing = sample_service("crashing", "default", "helloworld");
    crashing["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["nosuchname"]);
    crashing["spec"]["template"]["spec"]["containers"][0]["command"] = json!(["/sample"]);
    for (name, service, expected) in [
        ("missing", missing, "nosuchsample"),
        ("crashing", crashing, "Container failed with"),
    ] {
        system.api.apply(&services, &complete(&service)?).await?;
        let failed = system
            .api
            .condition(
                &format!("{services}/{name}"),
                "Ready",
                "False",
                Duration::from_secs(30),
            )
            .await?;
        let text = failed["status"]["conditions"].to_string();
        ensure!(text.contains(expected), "{name}: {text}");
    }
    Ok(())
}

/// After a restart of ours the Services of before answer again.
pub(crate) async fn still_serves(system: System<'_>) -> anyhow::Result<()> {
    until("an answer after the restart", READY_MAX, || async {
        system.ask("story.default.localhost").await.map(Some)
    })
    .await?;
    Ok(())
}
