//! A restart with many idle Services: from the start of the process to the first answer of one that sleeps and of one
//! that runs, after a stop in good order and after `kill -9`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use kinglet_testkit::api::{sample_service, serving};
use kinglet_testkit::{Api, Instance, Setup, instance, until, web};
use serde_json::json;

use super::{allow_zero, annotated};

/// Services that are made at a time.
const TOGETHER: u32 = 16;
/// Making one Service, on a machine that does much else.
const READY_MAX: Duration = Duration::from_secs(120);
/// A restarted instance, until the Services that were asked sleep again: window, grace period and more.
const ASLEEP_MAX: Duration = Duration::from_secs(180);
/// A first answer that takes longer is a failure of its own.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Before the port is bound, connections are refused.
const KNOCK_EVERY: Duration = Duration::from_millis(1);
const RUNNING: &str = "running";

/// How many, and where.
#[derive(Args)]
pub(crate) struct Restart {
    /// Idle Services.
    #[arg(long, default_value_t = 2000)]
    services: u32,
    /// Starts after a stop in good order, and as many after `kill -9`.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// A data directory that is kept; Services that are there are not made again.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Another release build, which takes turns with the first one.
    #[arg(long)]
    beside: Option<PathBuf>,
}

/// What one start took.
struct Start {
    idle: Answered,
    running: Answered,
    /// Processor time of the process until both had answered and "Kinglet is up" was said.
    cpu: Duration,
    up: Duration,
}

/// The first 200 of a Service.
struct Answered {
    after: Duration,
    /// Answers before it that were no 200: a request that comes early must wait, not fail.
    failures: u32,
}

pub(crate) async fn run(args: &Restart) -> anyhow::Result<()> {
    let data = args.data.clone();
    let kept = data.is_some();
    let data = data.unwrap_or_else(|| instance::scratch("restart"));
    let base = Setup {
        data: Some(data.clone()),
        http_port: free_port()?,
        ..Setup::of(&crate::release_binary()?)
    };
    let outcome = measure(&base, args).await;
    if !kept {
        let _ = std::fs::remove_dir_all(&data);
    }
    outcome
}

async fn measure(base: &Setup, args: &Restart) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut running = base.start().await?;
    prepare(&running, args.services).await?;
    println!(
        "{} idle services and a running one, made in {:.0} s",
        args.services,
        began.elapsed().as_secs_f64()
    );
    let mut binaries = vec![base.binary.clone()];
    binaries.extend(args.beside.clone());
    for kill in [false, true] {
        let mut starts: Vec<Vec<Start>> = binaries.iter().map(|_| Vec::new()).collect();
        for round in 0..args.rounds {
            for (binary, starts) in binaries.iter().zip(&mut starts) {
                asleep(&running).await?;
                if kill {
                    running.kill();
                } else {
                    running.stop().await?;
                }
                let setup = Setup {
                    binary: binary.clone(),
                    ..base.clone()
                };
                let idle = format!("idle-{}", round % args.services);
                let (next, start) = start(&setup, &idle).await?;
                running = next;
                eprintln!("{}", line(binary, &start));
                starts.push(start);
            }
        }
        let end = if kill { "kill -9" } else { "a stop" };
        for (binary, starts) in binaries.iter().zip(&starts) {
            report(binary, end, starts);
        }
    }
    running.stop().await
}

/// Makes what is missing, and waits until it is Ready and asleep.
async fn prepare(instance: &Instance, services: u32) -> anyhow::Result<()> {
    let api = Api::open(Path::new(&instance.ready.kubeconfig)).await?;
    allow_zero(&api).await?;
    // The shortest that Knative allows: a Service that was asked soon sleeps again.
    api.merge(
        "/api/v1/namespaces/knative-serving/configmaps/config-autoscaler",
        &json!({"data": {"scale-to-zero-grace-period": "6s"}}),
    )
    .await?;
    let mut making = tokio::task::JoinSet::new();
    for first in 0..TOGETHER {
        let api = api.clone();
        making.spawn(async move {
            for number in (first..services).step_by(TOGETHER as usize) {
                let idle = json!({"autoscaling.knative.dev/initial-scale": "0", "autoscaling.knative.dev/window": "6s"});
                make(&api, &format!("idle-{number}"), &idle).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(made) = making.join_next().await {
        made??;
    }
    let always = json!({"autoscaling.knative.dev/min-scale": "1"});
    make(&api, RUNNING, &always).await
}

async fn make(api: &Api, name: &str, annotations: &serde_json::Value) -> anyhow::Result<()> {
    let services = serving("default", "services");
    let path = format!("{services}/{name}");
    if api.find(&path).await?.is_none() {
        let service = annotated(sample_service(name, "default", "helloworld"), annotations);
        api.create(&services, &service).await?;
    }
    api.condition(&path, "Ready", "True", READY_MAX).await?;
    Ok(())
}

/// Waits until nothing runs but what always runs, and nothing is left to do.
async fn asleep(instance: &Instance) -> anyhow::Result<()> {
    let api = Api::open(Path::new(&instance.ready.kubeconfig)).await?;
    until("the idle Services to sleep", ASLEEP_MAX, || async {
        let pods = api.get("/api/v1/namespaces/default/pods").await?;
        let pods = pods["items"].as_array().map_or(0, Vec::len);
        ensure!(pods == 1, "{pods} pods");
        let before = cpu(instance.ready.pid)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let used = cpu(instance.ready.pid)?.saturating_sub(before);
        ensure!(used < Duration::from_millis(200), "{used:?} of a second");
        Ok(Some(()))
    })
    .await
}

async fn start(setup: &Setup, idle: &str) -> anyhow::Result<(Instance, Start)> {
    let began = Instant::now();
    let up = async {
        let instance = setup.start().await?;
        anyhow::Ok((instance, began.elapsed()))
    };
    let (started, idle, running) = tokio::join!(
        up,
        answered(setup.http_port, idle, began),
        answered(setup.http_port, RUNNING, began)
    );
    let (instance, up) = started?;
    let start = Start {
        idle: idle?,
        running: running?,
        cpu: cpu(instance.ready.pid)?,
        up,
    };
    Ok((instance, start))
}

/// Asks until the first 200.
async fn answered(port: u16, service: &str, began: Instant) -> anyhow::Result<Answered> {
    let (gateway, host) = (
        format!("127.0.0.1:{port}"),
        format!("{service}.default.localhost"),
    );
    let mut failures = 0;
    loop {
        let last = match web::get(&gateway, &host, "/").await {
            Ok(answer) if answer.status == 200 => {
                return Ok(Answered {
                    after: began.elapsed(),
                    failures,
                });
            }
            Ok(answer) => {
                failures += 1;
                let said = format!("{} {}", answer.status, answer.body.trim_end());
                eprintln!("{service} after {:.0} ms: {said}", ms(began.elapsed()));
                said
            }
            Err(error) => format!("{error:#}"),
        };
        ensure!(
            began.elapsed() < ANSWER_MAX,
            "{service} did not answer; last: {last}"
        );
        tokio::time::sleep(KNOCK_EVERY).await;
    }
}

/// Processor time of a process so far.
fn cpu(pid: u32) -> anyhow::Result<Duration> {
    // The unit of /proc/PID/stat on Linux, whatever the kernel's own.
    const TICKS_PER_SECOND: u64 = 100;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').context("a stat line")?.1;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn line(binary: &Path, start: &Start) -> String {
    format!(
        "{}: idle {:.0} ms, running {:.0} ms, up {:.0} ms, processor {:.0} ms, failures {}",
        name(binary),
        ms(start.idle.after),
        ms(start.running.after),
        ms(start.up),
        ms(start.cpu),
        start.idle.failures + start.running.failures
    )
}

fn report(binary: &Path, end: &str, starts: &[Start]) {
    let mut text = format!("{}, start after {end}:", name(binary));
    let times = |start: &Start| {
        let (idle, running) = (start.idle.after, start.running.after);
        [idle, running, start.up, start.cpu].map(ms)
    };
    for (at, what) in ["idle", "running", "up", "processor"].iter().enumerate() {
        let mut all: Vec<f64> = starts.iter().map(|start| times(start)[at]).collect();
        all.sort_by(f64::total_cmp);
        let (min, max) = (all.first(), all.last());
        text.push_str(&format!(
            " {what} {:.0}/{:.0}/{:.0} ms,",
            min.unwrap_or(&0.0),
            all.get(all.len() / 2).unwrap_or(&0.0),
            max.unwrap_or(&0.0)
        ));
    }
    let failures: u32 = starts
        .iter()
        .map(|start| start.idle.failures + start.running.failures)
        .sum();
    println!("{text} min/median/max, {failures} failures");
}

fn name(binary: &Path) -> String {
    binary
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
