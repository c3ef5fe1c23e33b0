//! Two instances side by side do not touch each other.

use anyhow::ensure;
use kinglet_testkit::api::{sample_service, serving};
use kinglet_testkit::web;

use crate::{READY_MAX, run, start};

#[test]
fn one_crashing_does_not_touch_the_other() {
    run(async {
        let (mut first, first_api) = start().await?;
        let (second, second_api) = start().await?;
        for api in [&first_api, &second_api] {
            let services = serving("default", "services");
            api.create(&services, &sample_service("hello", "default", "helloworld"))
                .await?;
            api.condition(&format!("{services}/hello"), "Ready", "True", READY_MAX)
                .await?;
        }
        first.kill();
        let again = kinglet_testkit::Setup {
            data: Some(first.data.clone()),
            ..crate::setup()
        }
        .start()
        .await?;
        for instance in [&second, &again] {
            let answer = web::get(instance.gateway(), "hello.default.localhost", "/").await?;
            ensure!(answer.status == 200, "{answer:?}");
        }
        again.stop().await?;
        let answer = web::get(second.gateway(), "hello.default.localhost", "/").await?;
        ensure!(answer.status == 200, "{answer:?}");
        second.stop().await
    });
}
