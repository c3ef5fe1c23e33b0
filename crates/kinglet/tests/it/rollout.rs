//! No failed request while revisions, traffic and scale change. The long run is `cargo xtask soak`.

use std::time::Duration;

use anyhow::ensure;
use kinglet_testkit::api::{sample_service, serving};
use kinglet_testkit::load;
use serde_json::json;

use crate::{READY_MAX, run, start};

#[test]
fn no_request_fails_during_a_rollout() {
    run(async {
        let (instance, api) = start().await?;
        let services = serving("default", "services");
        let path = format!("{services}/hello");
        let version = |target: &str| {
            let mut service = sample_service("hello", "default", "helloworld");
            service["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "TARGET", "value": target}]);
            service
        };
        api.apply(&services, &version("v1")).await?;
        api.condition(&path, "Ready", "True", READY_MAX).await?;
        let load = load::start(instance.gateway(), "hello.default.localhost", "/", 8, Duration::from_millis(1));
        for target in ["v2", "v3", "v4"] {
            api.apply(&services, &version(target)).await?;
            api.condition(&path, "Ready", "True", READY_MAX).await?;
        }
        let tally = load.stop().await;
        ensure!(tally.failed() == 0, "{:?} of {} requests failed", tally.bad, tally.good);
        ensure!(tally.bodies.contains_key("Hello v1!") && tally.bodies.contains_key("Hello v4!"), "{:?}", tally.bodies);
        Ok(())
    });
}
