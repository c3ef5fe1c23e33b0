//! The data plane in processes of its own (`kinglet up --data-plane apart`): it decides as one process does, and any one of
//! its processes may go.
//!
//! The stories of the other files run in both shapes (`KINGLET_TEST_SHAPE`); what is here is about the difference itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kinglet_testkit::api::{sample_service, serving};
use kinglet_testkit::until::patiently;
use kinglet_testkit::{Api, Instance, Setup, until};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::roles::Load;
use crate::{READY_MAX, run, setup};

/// Requests at once for each Service. A pod is to have ten, so 2.5 pods are needed: three, with half a pod to spare on
/// either side for what a busy machine measures.
const AT_ONCE: usize = 25;
const PODS: u64 = 3;
/// Seconds over which decisions are compared, once both are at rest.
const COMPARED: usize = 15;
/// Longest that a retry may take: as long as connecting is tried (10 s in `dataplane::Options`), and the start of a process
/// on a busy machine.
const RETRY_MAX: Duration = Duration::from_secs(15);

async fn start_with(binary: Setup, flags: &[&str]) -> anyhow::Result<(Instance, Api)> {
    let setup = Setup {
        flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        ..binary
    };
    let instance = setup.start().await?;
    let api = Api::open(instance.ready.kubeconfig.as_ref()).await?;
    Ok((instance, api))
}

/// A Service whose pods are to have ten requests each. Without burst capacity, requests go past activators, and
/// queue-proxies are scraped.
async fn create(api: &Api, name: &str, burst_capacity: &str) -> anyhow::Result<()> {
    let services = serving("default", "services");
    let mut service = sample_service(name, "default", "autoscale");
    service["spec"]["template"]["metadata"]["annotations"] = json!({
        "autoscaling.knative.dev/target": "10",
        "autoscaling.knative.dev/target-utilization-percentage": "100",
        "autoscaling.knative.dev/target-burst-capacity": burst_capacity,
        "autoscaling.knative.dev/max-scale": "6",
    });
    api.create(&services, &service).await?;
    api.condition(&format!("{services}/{name}"), "Ready", "True", READY_MAX)
        .await?;
    Ok(())
}

async fn scale(api: &Api, name: &str) -> anyhow::Result<(u64, u64)> {
    let path = "/apis/autoscaling.internal.knative.dev/v1alpha1/namespaces/default/podautoscalers";
    let found = api.get(&format!("{path}/{name}-00001")).await?;
    let number = |field: &str| found["status"][field].as_i64().unwrap_or(-1);
    let positive = |number: i64| u64::try_from(number).unwrap_or(0);
    Ok((
        positive(number("desiredScale")),
        positive(number("actualScale")),
    ))
}

fn host(name: &str) -> String {
    format!("{name}.default.localhost")
}

/// Processes of the data plane by name, as their ready files say.
fn children(instance: &Instance) -> anyhow::Result<BTreeMap<String, u32>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(instance.data.join("apart"))? {
        let path = entry?.path();
        if path.extension().is_none_or(|end| end != "ready") {
            continue;
        }
        // One that ends meanwhile takes its file along.
        let Ok(text) = std::fs::read(&path) else {
            continue;
        };
        let read: Value = serde_json::from_slice(&text)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let pid = read["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        all.insert(name.into_owned(), pid.context("a process id")?);
    }
    Ok(all)
}

fn send(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("a process id")?;
    rustix::process::kill_process(pid, signal).context("the process is there")
}

/// Two activators and three queue-proxies against one process: the same load, the same decisions.
#[test]
fn components_decide_as_one_process_does() {
    run(async {
        let ((whole, whole_api), (apart, apart_api)) = tokio::try_join!(
            start_with(setup(), &["--data-plane", "whole"]),
            start_with(
                setup(),
                &[
                    "--data-plane",
                    "apart",
                    "--activators",
                    "2",
                    "--gateways",
                    "2"
                ]
            ),
        )?;
        let names = [("buffered", "-1"), ("direct", "0")];
        let mut loads = Vec::new();
        for (name, capacity) in names {
            for (instance, api) in [(&whole, &whole_api), (&apart, &apart_api)] {
                create(api, name, capacity).await?;
                let gateway = instance.gateway();
                loads.push(Load::start(gateway, &host(name), "/?sleep=500", AT_ONCE));
            }
        }
        for (name, _) in names {
            for api in [&whole_api, &apart_api] {
                until(&format!("{name} to have its pods"), READY_MAX, || async {
                    let seen = scale(api, name).await?;
                    ensure!(seen == (PODS, PODS), "{seen:?}");
                    Ok(Some(()))
                })
                .await?;
            }
        }
        two_activators_and_six_queue_proxies(&apart, &apart_api).await?;
        // Once a second, as the autoscaler decides: whatever the load on this machine does to one, it does to the other.
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        let mut seen = Vec::new();
        for _ in 0..COMPARED {
            ticks.tick().await;
            for (name, _) in names {
                let (one, many) =
                    tokio::try_join!(scale(&whole_api, name), scale(&apart_api, name))?;
                seen.push((name, one.0, many.0));
            }
        }
        for load in loads {
            load.end().await?;
        }
        let apart_by = |(_, one, many): &(&str, u64, u64)| one.abs_diff(*many);
        ensure!(seen.iter().all(|pair| apart_by(pair) <= 1), "{seen:?}");
        whole.stop().await?;
        apart.stop().await
    });
}

async fn two_activators_and_six_queue_proxies(
    instance: &Instance,
    api: &Api,
) -> anyhow::Result<()> {
    // One pod more than needed may be on its way out.
    until("the processes", READY_MAX, || async {
        let all = children(instance)?;
        let count = |part: &str| all.keys().filter(|name| name.starts_with(part)).count();
        let counts = (count("gateway-"), count("activator-"), count("queue-"));
        ensure!(counts == (2, 2, 6), "{all:?}");
        Ok(Some(()))
    })
    .await?;
    let endpoints = "/api/v1/namespaces/default/endpoints";
    let buffered = api.get(&format!("{endpoints}/buffered-00001")).await?;
    let activators = api
        .get("/api/v1/namespaces/knative-serving/endpoints/activator-service")
        .await?;
    let addresses = |endpoints: &Value| -> Vec<String> {
        let all = endpoints["subsets"][0]["addresses"].as_array();
        let ips = all
            .into_iter()
            .flatten()
            .filter_map(|one| one["ip"].as_str());
        let mut ips: Vec<String> = ips.map(str::to_owned).collect();
        ips.sort_unstable();
        ips
    };
    ensure!(addresses(&buffered).len() == 2, "{buffered}");
    ensure!(
        addresses(&buffered) == addresses(&activators),
        "{activators}"
    );
    let direct = api.get(&format!("{endpoints}/direct-00001")).await?;
    ensure!(addresses(&direct).len() == 3, "{direct}");
    Ok(())
}

/// Each process in turn is killed under load: no request is lost, none waits longer than a retry takes, and the autoscaler
/// goes on as before.
#[test]
fn any_process_may_be_killed_under_load() {
    run(async {
        let flags = [
            "--data-plane",
            "apart",
            "--activators",
            "2",
            "--gateways",
            "2",
        ];
        let (instance, api) = start_with(setup(), &flags).await?;
        create(&api, "killed", "-1").await?;
        let load = Load::start(instance.gateway(), &host("killed"), "/?sleep=100", AT_ONCE);
        until("the pods", READY_MAX, || async {
            let seen = scale(&api, "killed").await?;
            ensure!(seen == (PODS, PODS), "{seen:?}");
            Ok(Some(()))
        })
        .await?;
        for (name, pid) in children(&instance)? {
            load.answers(100).await?;
            send(pid, Signal::KILL)?;
            until(&format!("{name} to be back"), READY_MAX, || async {
                let now = children(&instance)?.get(&name).copied();
                Ok(now.filter(|now| *now != pid).map(|_| ()))
            })
            .await?;
            load.answers(100).await?;
            let (desired, _) = scale(&api, "killed").await?;
            ensure!(desired.abs_diff(PODS) <= 1, "{desired} after {name}");
        }
        let longest = load.end().await?;
        ensure!(longest < patiently(RETRY_MAX), "{longest:?}");
        instance.stop().await
    });
}

/// A panic ends the process of a component with the component's name, and it is started again. Only a debug build has a way
/// to make one, so that is run whatever the other tests run.
#[test]
fn a_panic_in_a_process_is_named_and_it_is_back() {
    run(async {
        let debug_build = Setup {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_kinglet")),
            ..Setup::default()
        };
        let (instance, api) = start_with(debug_build, &["--data-plane", "apart"]).await?;
        create(&api, "panics", "-1").await?;
        let load = Load::start(instance.gateway(), &host("panics"), "/?sleep=20", 4);
        load.answers(20).await?;
        for (name, pid) in children(&instance)? {
            send(pid, Signal::USR1)?;
            until(&format!("{name} to be back"), READY_MAX, || async {
                let now = children(&instance)?.get(&name).copied();
                Ok(now.filter(|now| *now != pid).map(|_| ()))
            })
            .await?;
            load.answers(20).await?;
            let log = instance.log();
            let said = "component \"data-plane\" panicked";
            let count = log.lines().filter(|line| line.contains(said)).count();
            ensure!(count > 0, "{log}");
            ensure!(
                log.contains(&format!("{name} (process {pid}) ended with status 1")),
                "{log}"
            );
        }
        load.end().await?;
        instance.stop().await
    });
}
