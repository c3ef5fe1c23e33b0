//! A panic of each component ends the process with the component's name, or the component is back within a moment
//! (docs/decisions/0018). There is no state in which half of Kinglet works.
//!
//! A debug build makes a component panic when its control socket is asked to; so this test runs the debug build also where
//! the other tests run a release build.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::Method;
use kinglet_cli::control::{Health, Status, call, send};
use kinglet_cli::location::control_socket;
use kinglet_testkit::api::{sample_service, serving};
use kinglet_testkit::{Api, Instance, Setup, instance::scratch, until, web};

use crate::{READY_MAX, run};

/// Instances at a time; each is a whole Kinglet.
const AT_ONCE: usize = 4;
/// A stop after a fault takes ten seconds at most; the rest is for a busy machine.
const END_MAX: Duration = Duration::from_secs(40);
/// Components that are made again (docs/decisions/0018 says why); the panic of any other one ends the process.
const RESTARTED: [&str; 6] = [
    "certificates",
    "event-retention",
    "events",
    "node-registration",
    "request-logs",
    "trash",
];

fn debug_build() -> Setup {
    Setup {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_kinglet")),
        ..Setup::default()
    }
}

async fn components(instance: &Instance) -> anyhow::Result<Vec<Health>> {
    let status: Status = call(&control_socket(&instance.data), Method::GET, "/status", &()).await?;
    let mut parts = status.health;
    parts.retain(|health| health.part != "Store");
    Ok(parts)
}

async fn make_panic(instance: &Instance, component: &str) -> anyhow::Result<()> {
    let path = format!("/panic/{component}");
    let socket = control_socket(&instance.data);
    // The control socket itself may end before it has answered.
    match send(&socket, Method::POST, &path, &()).await {
        Err(error) if component != "control-socket" => Err(error),
        _ => Ok(()),
    }
}

#[test]
fn a_component_that_is_restarted_is_back_and_kinglet_serves_on() {
    run(async {
        let instance = debug_build().start().await?;
        let api = Api::open(instance.ready.kubeconfig.as_ref()).await?;
        for name in RESTARTED {
            make_panic(&instance, name).await?;
            until(&format!("{name} to be back"), READY_MAX, || async {
                let all = components(&instance).await?;
                let health = all.iter().find(|health| health.part == name);
                let health = health.with_context(|| format!("{name} is not known"))?;
                let is_back = health.healthy && health.detail.starts_with("restarted ");
                Ok(is_back.then_some(()))
            })
            .await?;
        }
        let services = serving("default", "services");
        api.create(&services, &sample_service("hello", "default", "helloworld"))
            .await?;
        api.condition(&format!("{services}/hello"), "Ready", "True", READY_MAX)
            .await?;
        let answer = web::get(instance.gateway(), "hello.default.localhost", "/").await?;
        ensure!(answer.status == 200, "{answer:?}");
        let ready = api.text("/readyz?verbose").await?;
        ensure!(
            ready.contains("[+]autoscaler ok") && ready.ends_with("readyz check passed\n"),
            "{ready}"
        );
        instance.stop().await
    });
}

#[test]
fn any_other_component_takes_the_process_down_with_its_name() {
    run(async {
        let first = debug_build().start().await?;
        let all = components(&first).await?;
        let fatal: Vec<String> = all
            .into_iter()
            .map(|health| health.part)
            .filter(|part| !RESTARTED.contains(&part.as_str()))
            .collect();
        for name in [
            "api-listener",
            "autoscaler",
            "cluster-local-listener",
            "connection-watch",
            "control-socket",
            "data-plane",
            "egress",
            "http-listener",
            "netlink",
            "pods",
            "route-tables",
            "store-writer",
        ] {
            ensure!(fatal.iter().any(|part| part == name), "{name}: {fatal:?}");
        }
        first.stop().await?;
        for names in fatal.chunks(AT_ONCE) {
            // To the end of all, also when one fails: an instance that is being started would be left alone.
            let ended = futures_util::future::join_all(names.iter().map(|name| ends_with(name)));
            ended
                .await
                .into_iter()
                .collect::<anyhow::Result<Vec<()>>>()?;
        }
        Ok(())
    });
}

async fn ends_with(name: &str) -> anyhow::Result<()> {
    let data = scratch("supervision");
    let setup = Setup {
        data: Some(data.clone()),
        ..debug_build()
    };
    let outcome = async {
        let mut instance = setup.start().await?;
        make_panic(&instance, name).await?;
        let status = instance.ended(END_MAX).await?;
        let log = instance.log();
        ensure!(
            status.code() == Some(1)
                && log.contains(&format!("component \"{name}\" panicked at "))
                && log.contains("supervise.rs"),
            "{status}: {log}"
        );
        // What it left behind does not keep the next life from starting.
        setup.start().await?.stop().await
    }
    .await
    .with_context(|| name.to_owned());
    let _ = std::fs::remove_dir_all(&data);
    outcome
}
