//! Splits, tags and domains as the examples use them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use kinglet_testkit::api::{sample_service, serving};
use kinglet_testkit::{Api, Instance, until, web};
use serde_json::{Value, json};

use crate::{READY_MAX, run, start};

fn version(name: &str, target: &str, traffic: &Value) -> Value {
    let mut service = sample_service("canary", "default", "helloworld");
    service["spec"]["template"]["metadata"]["name"] = json!(name);
    service["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "TARGET", "value": target}]);
    service["spec"]["traffic"] = traffic.clone();
    service
}

async fn share(instance: &Instance, host: &str, requests: u32) -> anyhow::Result<BTreeMap<String, u32>> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        let answer = web::get(instance.gateway(), host, "/").await?;
        ensure!(answer.status == 200, "{answer:?}");
        *counts.entry(answer.body.trim().to_owned()).or_default() += 1;
    }
    Ok(counts)
}

async fn apply(api: &Api, object: &Value) -> anyhow::Result<()> {
    let services = serving("default", "services");
    api.apply(&services, object).await?;
    api.condition(&format!("{services}/canary"), "Ready", "True", READY_MAX).await?;
    Ok(())
}

#[test]
fn splits_are_even_and_tags_have_names_of_their_own() {
    run(async {
        let (instance, api) = start().await?;
        apply(&api, &version("canary-v1", "one", &json!([{"revisionName": "canary-v1", "percent": 100}]))).await?;
        let split = json!([
            {"revisionName": "canary-v1", "percent": 80, "tag": "stable"},
            {"revisionName": "canary-v2", "percent": 20, "tag": "next"},
            {"latestRevision": true, "percent": 0, "tag": "latest"}
        ]);
        apply(&api, &version("canary-v2", "two", &split)).await?;
        let counts = share(&instance, "canary.default.localhost", 1000).await?;
        let one = counts.get("Hello one!").copied().unwrap_or(0);
        ensure!((780..=820).contains(&one), "80/20 within two points, got {counts:?}");
        for (tag, body) in [("stable", "Hello one!"), ("next", "Hello two!"), ("latest", "Hello two!")] {
            let answer = web::get(instance.gateway(), &format!("{tag}-canary.default.localhost"), "/").await?;
            ensure!(answer.body.trim() == body, "tag {tag}: {answer:?}");
        }

        // Another domain: visible in the status and by Host header within a second.
        api.merge("/api/v1/namespaces/knative-serving/configmaps/config-domain", &json!({"data": {"example.org": ""}})).await?;
        let path = format!("{}/canary", serving("default", "services"));
        until("the new domain", Duration::from_secs(10), || async {
            let url = api.get(&path).await?["status"]["url"].clone();
            ensure!(url == "http://canary.default.example.org", "url is {url}");
            let answer = web::get(instance.gateway(), "canary.default.example.org", "/").await?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(Some(()))
        })
        .await
    });
}
