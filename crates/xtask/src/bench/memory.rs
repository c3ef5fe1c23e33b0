//! Resident memory of the one process, and of whatever it keeps running beside containers.

use std::time::Duration;

use futures_util::StreamExt as _;
use kinglet_testkit::api::{Api, sample_service, serving};
use serde_json::json;

use super::{allow_zero, annotated, start};

/// Services that are created at once.
const AT_ONCE: usize = 8;
/// For freed memory to go back and caches to settle.
const SETTLE: Duration = Duration::from_secs(3);
/// The last of thousands of Services is Ready after this.
const READY_MAX: Duration = Duration::from_secs(600);

/// How much is deployed, and how long it is left alone before it is measured.
#[derive(clap::Args)]
pub(crate) struct Memory {
    /// Idle Services.
    #[arg(long, default_value_t = 100)]
    services: u32,
    /// Running pods.
    #[arg(long, default_value_t = 10)]
    pods: u32,
    /// Seconds between the last Service's Ready and the measurement of idle Services (copies that nobody reads are
    /// dropped after one to two minutes).
    #[arg(long, default_value_t = 3)]
    rest: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            services: 100,
            pods: 10,
            rest: 3,
        }
    }
}

pub(crate) async fn run(options: &Memory) -> anyhow::Result<()> {
    let (instance, api) = start().await?;
    allow_zero(&api).await?;
    tokio::time::sleep(SETTLE).await;
    let pid = instance.ready.pid;
    let nothing = Sizes::of(pid);
    nothing.print("nothing deployed");
    create_idle(&api, options.services).await?;
    tokio::time::sleep(SETTLE).await;
    Sizes::of(pid).print(&format!("{} idle services, just made", options.services));
    tokio::time::sleep(Duration::from_secs(options.rest)).await;
    let idle = Sizes::of(pid);
    idle.print(&format!("{} idle services", options.services));
    idle.print_each(&nothing, options.services, "idle service");
    create_pods(&api, options.pods).await?;
    tokio::time::sleep(SETTLE).await;
    let running = Sizes::of(pid);
    running.print(&format!("{} pods more", options.pods));
    running.print_each(&idle, options.pods, "running pod");
    instance.stop().await
}

/// Services without pods, each Ready.
async fn create_idle(api: &Api, count: u32) -> anyhow::Result<()> {
    let services = serving("default", "services");
    let creations = (0..count).map(|number| {
        let services = &services;
        async move {
            let service = annotated(
                sample_service(&format!("idle-{number}"), "default", "helloworld"),
                &json!({"autoscaling.knative.dev/initial-scale": "0"}),
            );
            api.create(services, &service).await
        }
    });
    let mut creations = futures_util::stream::iter(creations).buffer_unordered(AT_ONCE);
    while let Some(created) = creations.next().await {
        created?;
    }
    for number in 0..count {
        let path = format!("{services}/idle-{number}");
        api.condition(&path, "Ready", "True", READY_MAX).await?;
    }
    Ok(())
}

/// One Service of so many pods, all of them running.
async fn create_pods(api: &Api, count: u32) -> anyhow::Result<()> {
    let services = serving("default", "services");
    let service = annotated(
        sample_service("many", "default", "helloworld"),
        &json!({"autoscaling.knative.dev/min-scale": count.to_string()}),
    );
    api.create(&services, &service).await?;
    api.condition(&format!("{services}/many"), "Ready", "True", READY_MAX)
        .await?;
    Ok(())
}

/// What all our processes hold, in kB.
struct Sizes {
    /// `Pss` of all.
    proportional: u64,
    /// `Pss` of the helpers among them.
    helpers: u64,
    /// `VmRSS` of the main process.
    resident: u64,
    /// Its memory of its own: heap, stacks, data.
    anonymous: u64,
}

impl Sizes {
    fn of(pid: u32) -> Self {
        let main = rollup(pid, "Pss:");
        let helpers = helpers(pid).iter().map(|pid| rollup(*pid, "Pss:")).sum();
        Self {
            proportional: main + helpers,
            helpers,
            resident: rollup(pid, "Rss:"),
            anonymous: rollup(pid, "Anonymous:"),
        }
    }

    fn print(&self, what: &str) {
        println!(
            "memory, {what}: {:.1} MB (Pss; of it helpers {:.1} MB; VmRSS of the main process {:.1} MB, of it anonymous {:.1} MB)",
            mb(self.proportional),
            mb(self.helpers),
            mb(self.resident),
            mb(self.anonymous)
        );
    }

    /// What each of `count` has added.
    fn print_each(&self, before: &Self, count: u32, what: &str) {
        let each = |now: u64, before: u64| mb(now.saturating_sub(before)) * 1e3 / f64::from(count);
        println!(
            "memory for each {what}: {:.0} kB (Pss; VmRSS {:.0} kB)",
            each(self.proportional, before.proportional),
            each(self.resident, before.resident)
        );
    }
}

/// What processes call themselves that wait to become containers, and the one they are forked from.
const HELPER: &str = "kinglet-helper\n";

/// The children of the process that run our own program (containers run theirs). Their `exe` may be a copy of it.
fn helpers(pid: u32) -> Vec<u32> {
    let own = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    std::fs::read_dir("/proc")
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
        })
        .collect()
}

/// A line of `smaps_rollup`, in kB. In `Pss` a page that several processes have counts for each by its part, as helpers are
/// forks that share nearly all of theirs.
pub(super) fn rollup(pid: u32, line: &str) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    rollup
        .lines()
        .find_map(|found| found.strip_prefix(line))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "printed with a few digits; memory is far below 2^52 bytes"
)]
fn mb(kilobytes: u64) -> f64 {
    kilobytes as f64 * 1.024e-3
}
