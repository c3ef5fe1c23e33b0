//! Apply, ask, scale to zero, wake up: the first thing anyone does.

use std::time::Duration;

use anyhow::ensure;
use kinglet_testkit::api::{sample_service, serving};
use kinglet_testkit::{until, web};
use serde_json::json;

use crate::{READY_MAX, run, start};

#[test]
fn a_service_answers_goes_to_zero_and_wakes_up() {
    run(async {
        let (instance, api) = start().await?;
        let services = serving("default", "services");
        let mut service = sample_service("hello", "default", "helloworld");
        service["spec"]["template"]["metadata"]["annotations"] = json!({"autoscaling.knative.dev/window": "6s"});
        service["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "TARGET", "value": "test"}]);
        api.create(&services, &service).await?;
        let ready = api.condition(&format!("{services}/hello"), "Ready", "True", READY_MAX).await?;
        ensure!(ready["status"]["url"] == "http://hello.default.localhost", "url is {}", ready["status"]["url"]);

        let answer = web::get(instance.gateway(), "hello.default.localhost", "/").await?;
        ensure!((answer.status, answer.body.as_str()) == (200, "Hello test!\n"), "{answer:?}");

        let pods = "/api/v1/namespaces/default/pods?labelSelector=serving.knative.dev/service=hello";
        until("scale to zero", Duration::from_secs(90), || async {
            let list = api.get(pods).await?;
            Ok(list["items"].as_array().is_some_and(Vec::is_empty).then_some(()))
        })
        .await?;
        // Twenty at once: all wait for the one cold start, none is refused.
        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let gateway = instance.gateway().to_owned();
            requests.spawn(async move { web::get(&gateway, "hello.default.localhost", "/").await });
        }
        while let Some(answer) = requests.join_next().await {
            let answer = answer??;
            ensure!(answer.status == 200, "{answer:?}");
        }
        instance.stop().await
    });
}

#[test]
fn cluster_local_names_work_only_inside() {
    run(async {
        let (instance, api) = start().await?;
        let services = serving("default", "services");
        let mut service = sample_service("private", "default", "helloworld");
        service["metadata"]["labels"] = json!({"networking.knative.dev/visibility": "cluster-local"});
        api.create(&services, &service).await?;
        let ready = api.condition(&format!("{services}/private"), "Ready", "True", READY_MAX).await?;
        ensure!(ready["status"]["url"] == "http://private.default.svc.cluster.local", "url is {}", ready["status"]["url"]);
        let answer = web::get(instance.gateway(), "private.default.svc.cluster.local", "/").await?;
        ensure!(answer.status == 404, "the external gateway must not know cluster-local names: {answer:?}");
        Ok(())
    });
}
