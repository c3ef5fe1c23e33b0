//! Measurements, side by side with a named rival in one run. Results go to docs/benchmarks.md by hand.

mod broker;
mod cold_start;
mod filters;
mod log;
mod memory;
mod ready;
mod restart;
pub(crate) mod roles;
mod throughput;

use clap::Subcommand;
use kinglet_testkit::{Api, Instance, Setup};
use serde_json::{Value, json};

/// What to measure.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Request to answer from zero, one at a time and twenty at once
    ColdStart {
        /// Cold starts, one after the other.
        #[arg(long, default_value_t = 40)]
        rounds: u32,
    },
    /// Requests per second at 32 connections: gateway, nginx as a plain proxy, the container directly
    Throughput {
        /// Seconds per run.
        #[arg(long, default_value_t = 8)]
        seconds: u32,
        /// Runs of each, taking turns.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
    },
    /// Resident memory: nothing deployed, for each idle service, for each running pod
    Memory(memory::Memory),
    /// Apply to Ready with the image cached: one at a time and twenty at once
    Ready,
    /// Start of a process with many idle Services to the first answer of an idle one and of a running one
    Restart(restart::Restart),
    /// Gateway, activator and queue-proxy as processes: requests per second behind each, beside nginx, and their memory
    Roles {
        /// Seconds per run.
        #[arg(long, default_value_t = 5)]
        seconds: u32,
        /// Runs of each, taking turns.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
    },
    /// Events: reading, filters of each dialect, the index over ten thousand Triggers
    Filters,
    /// The event log: appends/s durable and in memory, deliveries, memory with a backlog, time of a restart
    Log {
        /// Events of the backlog.
        #[arg(long, default_value_t = 10_000_000)]
        backlog: u64,
        /// A folder on the disk that is meant, if not the target folder; 13 GB for ten million events.
        #[arg(long)]
        dir: Option<std::path::PathBuf>,
    },
    /// Events of 1 kB through ingress, filter and one subscriber, in memory and durable, beside plain HTTP and two nginx
    Broker {
        /// Seconds per run.
        #[arg(long, default_value_t = 5)]
        seconds: u32,
        /// A folder on the disk that is meant, if not the target folder.
        #[arg(long)]
        dir: Option<std::path::PathBuf>,
    },
    /// All of them
    All,
}

pub(crate) async fn run(bench: &Bench) -> anyhow::Result<()> {
    match bench {
        Bench::ColdStart { rounds } => cold_start::run(*rounds).await,
        Bench::Throughput { seconds, rounds } => throughput::run(*seconds, *rounds).await,
        Bench::Roles { seconds, rounds } => roles::run(*seconds, *rounds).await,
        Bench::Log { backlog, dir } => log::run(*backlog, dir.as_deref()),
        Bench::Broker { seconds, dir } => broker::run(*seconds, dir.as_deref()),
        Bench::Memory(options) => memory::run(options).await,
        Bench::Ready => ready::run().await,
        Bench::Filters => filters::run(),
        Bench::Restart(args) => restart::run(args).await,
        Bench::All => {
            cold_start::run(40).await?;
            throughput::run(8, 3).await?;
            memory::run(&memory::Memory::default()).await?;
            ready::run().await?;
            roles::run(5, 3).await?;
            filters::run()?;
            broker::run(5, None)?;
            log::run(10_000_000, None)
        }
    }
}

async fn start() -> anyhow::Result<(Instance, Api)> {
    let instance = Setup::of(&crate::release_binary()?).start().await?;
    let api = Api::open(instance.ready.kubeconfig.as_ref()).await?;
    Ok((instance, api))
}

/// Lets a Service start its life at zero, so that its first request is a cold start.
async fn allow_zero(api: &Api) -> anyhow::Result<()> {
    api.merge(
        "/api/v1/namespaces/knative-serving/configmaps/config-autoscaler",
        &json!({"data": {"allow-zero-initial-scale": "true"}}),
    )
    .await?;
    Ok(())
}

fn annotated(mut service: Value, annotations: &Value) -> Value {
    service["spec"]["template"]["metadata"]["annotations"] = annotations.clone();
    service
}
