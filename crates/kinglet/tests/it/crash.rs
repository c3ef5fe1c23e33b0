//! `kill -9` loses nothing acknowledged. The long run is `cargo xtask crash`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kinglet_testkit::api::{sample_service, serving};
use kinglet_testkit::{Api, Setup, instance, until, web};
use serde_json::json;

use crate::{READY_MAX, run, setup};

#[test]
fn acknowledged_objects_and_credentials_survive() {
    run(async {
        let data = instance::scratch("crash");
        let base = Setup {
            data: Some(data.clone()),
            ..setup()
        };
        let outcome = survive(&base).await;
        let _ = std::fs::remove_dir_all(&data);
        outcome
    });
}

async fn survive(base: &Setup) -> anyhow::Result<()> {
    let mut acknowledged = Vec::new();
    let services = serving("default", "services");
    for round in 0..3_u32 {
        let mut instance = base.start().await?;
        let api = Api::open(Path::new(&instance.ready.kubeconfig)).await?;
        for name in &acknowledged {
            api.find(&format!("/api/v1/namespaces/default/configmaps/{name}"))
                .await?
                .with_context(|| format!("{name} was lost"))?;
        }
        if round == 0 {
            api.create(&services, &sample_service("hello", "default", "helloworld"))
                .await?;
            api.condition(&format!("{services}/hello"), "Ready", "True", READY_MAX)
                .await?;
        }
        let answer = until("an answer after the restart", READY_MAX, || async {
            let answer = web::get(instance.gateway(), "hello.default.localhost", "/").await?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(Some(answer))
        })
        .await?;
        ensure!(answer.body.starts_with("Hello"), "{answer:?}");
        for number in 0..20 + round * 7 {
            let name = format!("map-{round}-{number}");
            api.create("/api/v1/namespaces/default/configmaps", &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})).await?;
            acknowledged.push(name);
        }
        instance.kill();
    }
    // The pods of the old lives are gone: whoever runs now is of this life.
    let instance = base.start().await?;
    let api = Api::open(Path::new(&instance.ready.kubeconfig)).await?;
    until(
        "one generation of pods",
        Duration::from_secs(60),
        || async {
            let list = api.get("/api/v1/namespaces/default/pods").await?;
            let pods = list["items"].as_array().cloned().unwrap_or_default();
            ensure!(pods.len() <= 1, "{} pods", pods.len());
            Ok(Some(()))
        },
    )
    .await?;
    instance.stop().await
}
