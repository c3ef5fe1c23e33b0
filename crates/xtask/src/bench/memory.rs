//! Resident memory of the one process, and of whatever it keeps running beside containers.

use std::time::Duration;

use kinglet_testkit::api::{sample_service, serving};
use serde_json::json;

use super::{allow_zero, annotated, start};

const IDLE: u32 = 100;
const PODS: u32 = 20;
/// For freed memory to go back and caches to settle.
const SETTLE: Duration = Duration::from_secs(3);

pub(crate) async fn run() -> anyhow::Result<()> {
    let (instance, api) = start().await?;
    allow_zero(&api).await?;
    tokio::time::sleep(SETTLE).await;
    let pid = instance.ready.pid;
    let nothing = family_bytes(pid);
    println!(
        "memory (Pss), nothing deployed: {:.1} MB (of it helpers {:.1} MB)",
        mb(nothing),
        mb(nothing - proportional_bytes(pid))
    );
    let services = serving("default", "services");
    for number in 0..IDLE {
        api.create(
            &services,
            &annotated(
                sample_service(&format!("idle-{number}"), "default", "helloworld"),
                &json!({"autoscaling.knative.dev/initial-scale": "0"}),
            ),
        )
        .await?;
    }
    for number in 0..IDLE {
        api.condition(
            &format!("{services}/idle-{number}"),
            "Ready",
            "True",
            Duration::from_secs(60),
        )
        .await?;
    }
    tokio::time::sleep(SETTLE).await;
    let idle = family_bytes(pid);
    println!(
        "memory (Pss), {IDLE} idle services: {:.1} MB ({:.0} kB each)",
        mb(idle),
        mb(idle.saturating_sub(nothing)) * 1e3 / f64::from(IDLE)
    );
    api.create(
        &services,
        &annotated(
            sample_service("many", "default", "helloworld"),
            &json!({"autoscaling.knative.dev/min-scale": PODS.to_string()}),
        ),
    )
    .await?;
    api.condition(
        &format!("{services}/many"),
        "Ready",
        "True",
        Duration::from_secs(120),
    )
    .await?;
    tokio::time::sleep(SETTLE).await;
    let running = family_bytes(pid);
    println!(
        "memory (Pss), {PODS} pods more: {:.1} MB ({:.0} kB of our own for each pod)",
        mb(running),
        mb(running.saturating_sub(idle)) * 1e3 / f64::from(PODS)
    );
    instance.stop().await
}

/// What processes call themselves that wait to become containers, and the one they are forked from.
const HELPER: &str = "kinglet-helper\n";

/// The process and its children that run our own program (containers run theirs). Their `exe` may be a copy of it.
fn family_bytes(pid: u32) -> u64 {
    let own = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let children = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|child| {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            let parent = stat
                .rsplit_once(')')
                .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
            let name = std::fs::read_to_string(format!("/proc/{child}/comm"));
            let is_ours = std::fs::read_link(format!("/proc/{child}/exe")).ok() == own
                || name.is_ok_and(|name| name == HELPER);
            parent == Some(pid) && is_ours
        });
    proportional_bytes(pid) + children.map(proportional_bytes).sum::<u64>()
}

/// `Pss` of a process: a page that several processes have counts for each by its part, as helpers are forks that share
/// nearly all of theirs.
fn proportional_bytes(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kilobytes = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

#[expect(
    clippy::cast_precision_loss,
    reason = "printed with a few digits; memory is far below 2^52 bytes"
)]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
