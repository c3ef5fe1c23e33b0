//! The components in processes of their own: requests per second after each hop beside one hop of nginx, and their memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use kinglet_testkit::component::{Component, queue_variables};
use kinglet_testkit::load::percentile;
use kinglet_testkit::{instance, until, web};

use super::memory::rollup;
use super::throughput::{Nginx, Way, nginx, require_programs, serving_nginx, wrk};

const START_MAX: Duration = Duration::from_secs(10);
const HOST: &str = "one.test";

/// Starts a component of the release build.
async fn start(
    (folder, profiled): (&Path, bool),
    name: &str,
    flags: &[&str],
    variables: &BTreeMap<&str, String>,
) -> anyhow::Result<Component> {
    let binary = crate::release_binary()?;
    let mut command = Command::new(if profiled { "valgrind" } else { &binary });
    if profiled {
        command
            .args(["--tool=callgrind", "--demangle=no"])
            .arg(format!(
                "--callgrind-out-file={}",
                profile_of(folder, name).display()
            ))
            .arg(&binary);
    }
    command
        .arg(name)
        .args(flags)
        .args(["--log", "warn"])
        .envs(variables);
    Component::start(command, folder, name).await
}

/// The container's server, and the three components before it.
struct Chain {
    container: Nginx,
    queue: Component,
    activator: Component,
    gateway: Component,
}

impl Chain {
    /// Under callgrind, if they are to be profiled.
    async fn start(folder: &Path, profiled: bool) -> anyhow::Result<Self> {
        let how = (folder, profiled);
        let container = serving_nginx(&folder.join("container"))?;
        let mut variables = queue_variables(container.port);
        variables.insert("SERVING_REVISION", "one".to_owned());
        variables.insert("CONTAINER_CONCURRENCY", "0".to_owned());
        variables.insert("REVISION_TIMEOUT_SECONDS", "300".to_owned());
        let queue = start(
            how,
            "queue",
            &["--admin-port", "0", "--stat-port", "0"],
            &variables,
        )
        .await?;
        let revisions = folder.join("revisions");
        std::fs::write(
            &revisions,
            format!(
                r#"{{"revision":{{"namespace":"ns","name":"one","timeoutSeconds":300,"pods":[{{"name":"pod","address":"{}"}}]}}}}"#,
                queue.address("http")
            ),
        )?;
        let revisions = revisions.display().to_string();
        let activator = start(
            how,
            "activator",
            &[
                "--http-port",
                "0",
                "--h2c-port",
                "0",
                "--profiling-port",
                "0",
                "--feed",
                &revisions,
            ],
            &[("POD_NAME", "activator"), ("POD_IP", "127.0.0.1")]
                .map(|(name, value)| (name, value.to_owned()))
                .into(),
        )
        .await?;
        let routes = folder.join("routes");
        std::fs::write(
            &routes,
            format!(
                r#"{{"service":{{"namespace":"ns","name":"one","ports":[{{"port":80,"addresses":["{}"]}}]}}}}
{{"rule":{{"namespace":"ns","ingress":"one","hosts":["{HOST}"],"paths":[{{"splits":[{{"serviceNamespace":"ns","serviceName":"one","servicePort":80,"appendHeaders":{{"Knative-Serving-Revision":"one","Knative-Serving-Namespace":"ns"}}}}]}}]}}}}"#,
                activator.address("http")
            ),
        )?;
        let routes = routes.display().to_string();
        let gateway = start(
            how,
            "gateway",
            &[
                "--http-port",
                "0",
                "--local-port",
                "0",
                "--status-port",
                "0",
                "--feed",
                &routes,
            ],
            &BTreeMap::new(),
        )
        .await?;
        Ok(Self {
            container,
            queue,
            activator,
            gateway,
        })
    }

    fn components(&self) -> [(&'static str, &Component); 3] {
        [
            ("queue", &self.queue),
            ("activator", &self.activator),
            ("gateway", &self.gateway),
        ]
    }
}

/// The ways to the container, each longer than the one before, once they all answer.
async fn ways(chain: &Chain, folder: &Path) -> anyhow::Result<(Nginx, [Way; 5])> {
    let container = format!("127.0.0.1:{}", chain.container.port);
    let proxy = nginx(&folder.join("proxy"), &container)?;
    let hop = format!("127.0.0.1:{}", proxy.port);
    // To the activator a request names its Revision by host.
    let way = |name, address: String, host: &str| Way::new(name, address, host);
    let ways = [
        way("container", container, HOST),
        way("nginx", hop, HOST),
        way("queue", chain.queue.address("http").to_owned(), HOST),
        way(
            "activator",
            chain.activator.address("http").to_owned(),
            "one.ns.svc.cluster.local",
        ),
        way("gateway", chain.gateway.address("http").to_owned(), HOST),
    ];
    for way in &ways {
        until(way.name, START_MAX, || async {
            let got = web::get(&way.address, &way.host, "/").await?;
            Ok((got.status == 200).then_some(()))
        })
        .await?;
    }
    Ok((proxy, ways))
}

fn profile_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.callgrind"))
}

/// Runs the chain under callgrind. Each profile is in two parts: `.1` until the component served, `.2` its requests.
pub(crate) async fn profile(folder: &Path, seconds: u32) -> anyhow::Result<Vec<PathBuf>> {
    require_programs()?;
    let chain = Chain::start(folder, true).await?;
    let dump = || {
        for (name, one) in chain.components() {
            let pid = one.id().to_string();
            let status = Command::new("callgrind_control")
                .args(["-d", &pid])
                .status();
            let status = status.context("running callgrind_control (Debian: valgrind)")?;
            anyhow::ensure!(status.success(), "the profile of {name}: {status}");
        }
        anyhow::Ok(())
    };
    dump()?;
    let (proxy, ways) = ways(&chain, folder).await?;
    for way in &ways[2..] {
        wrk(way, seconds)?;
    }
    dump()?;
    let profiles = chain.components().map(|(name, _)| profile_of(folder, name));
    drop((proxy, chain));
    Ok(profiles.into())
}

pub(super) async fn run(seconds: u32, rounds: u32) -> anyhow::Result<()> {
    require_programs()?;
    let folder = instance::scratch("bench-roles");
    std::fs::create_dir_all(&folder)?;
    let chain = Chain::start(&folder, false).await?;
    let at_rest = chain.components().map(|(_, one)| one.resident_bytes());
    let (proxy, mut ways) = ways(&chain, &folder).await?;
    for _ in 0..rounds {
        for way in &mut ways {
            let measured = wrk(way, seconds)?;
            way.add(measured);
        }
    }
    println!(
        "requests per second through all that is behind each, 32 connections, {rounds} runs of {seconds} s taking turns (median):"
    );
    let nginx_rate = percentile(&ways[1].rates, 50.0);
    for way in &ways {
        let rate = percentile(&way.rates, 50.0);
        println!(
            "  {:<10} {rate:>8.0}/s  {:.2} of one hop of nginx",
            way.name,
            rate / nginx_rate
        );
    }
    println!("resident memory (VmRSS) before and after, and Pss after, in kB:");
    for ((name, one), before) in chain.components().into_iter().zip(at_rest) {
        println!(
            "  {name:<10} {:>6} {:>6} {:>6}",
            before >> 10,
            one.resident_bytes() >> 10,
            rollup(one.id(), "Pss:")
        );
    }
    let (kept, all) = crate::order::kept(&crate::release_binary()?)?;
    println!("functions that lie beside each other (cargo xtask order): {kept} of {all}");
    drop((proxy, chain));
    let _ = std::fs::remove_dir_all(folder);
    Ok(())
}
