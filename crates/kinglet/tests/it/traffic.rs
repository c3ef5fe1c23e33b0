//! Splits, tags and domains as the examples use them.

use std::time::Duration;

use anyhow::ensure;
use kinglet_testkit::api::serving;
use kinglet_testkit::{until, web};
use serde_json::json;

use crate::checks::{self, System};
use crate::{run, start};

#[test]
fn splits_tags_and_another_domain() {
    run(async {
        let (instance, api) = start().await?;
        checks::splits(System {
            api: &api,
            instance: &instance,
        })
        .await?;

        // Another domain: visible in the status and by Host header within a second.
        api.merge(
            "/api/v1/namespaces/knative-serving/configmaps/config-domain",
            &json!({"data": {"example.org": ""}}),
        )
        .await?;
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
