//! Thousands of cycles of create, call, sleep, wake, delete, with a `kill -9` now and then.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use clap::Args;
use kinglet_testkit::footprint::{Footprint, Slack};
use kinglet_testkit::{Api, Instance, Setup, cycles, instance};

/// Batches before anything is measured: caches, parked sandboxes, the allocator.
const WARM_UP: u32 = 3;
/// What ten thousand cycles may cost beside nothing: [`Slack`] says of what.
const SLACK: Slack = Slack {
    descriptors: 16,
    disk_kb: 16 << 10,
    memory_kb: 32 << 10,
};

/// How many.
#[derive(Args)]
pub(crate) struct Cycles {
    /// Cycles; the full form is ten thousand
    #[arg(long, default_value_t = 10_000)]
    rounds: u32,
    /// A kill -9 and a restart after so many cycles
    #[arg(long, default_value_t = 500)]
    kill_every: u32,
}

pub(crate) async fn run(args: &Cycles) -> anyhow::Result<()> {
    let data = instance::scratch("cycles");
    let setup = Setup {
        data: Some(data.clone()),
        ..Setup::of(&crate::release_binary()?)
    };
    let outcome = rounds(&setup, &data, args).await;
    let left = Footprint::of_stopped(&data);
    let _ = std::fs::remove_dir_all(&data);
    outcome?;
    let on_the_host = (left.mounts, left.links, left.cgroups);
    ensure!(on_the_host == (0, 0, 0), "left behind: {left:?}");
    println!("cycles: nothing left behind");
    Ok(())
}

async fn rounds(setup: &Setup, data: &Path, args: &Cycles) -> anyhow::Result<()> {
    let (mut instance, mut api, mut warm) = start(setup).await?;
    let began = Instant::now();
    let mut since_kill = 0;
    for done in (0..args.rounds).step_by(cycles::BATCH as usize) {
        cycles::batch(&instance, &api)
            .await
            .with_context(|| format!("after {done} cycles"))?;
        since_kill += cycles::BATCH;
        if done % 100 == 0 {
            let now = cycles::settled(&instance, &warm, SLACK)
                .await
                .with_context(|| format!("after {done} cycles"))?;
            eprintln!(
                "cycles: {} of {}, {:.0} s, {now:?}",
                done + cycles::BATCH,
                args.rounds,
                began.elapsed().as_secs_f64()
            );
        }
        if since_kill >= args.kill_every {
            since_kill = 0;
            instance.kill();
            let disk_before = warm.disk_kb;
            (instance, api, warm) = start(setup).await?;
            ensure!(
                warm.disk_kb <= disk_before + SLACK.disk_kb,
                "{} kB of disk after a kill, {disk_before} before",
                warm.disk_kb
            );
        }
    }
    let last = cycles::settled(&instance, &warm, SLACK).await?;
    println!(
        "cycles: {} in {:.0} s; warm {warm:?}; at the end {last:?}",
        args.rounds,
        began.elapsed().as_secs_f64()
    );
    instance.stop().await?;
    ensure!(data.exists(), "the data stays");
    Ok(())
}

/// A warm instance and what it occupies.
async fn start(setup: &Setup) -> anyhow::Result<(Instance, Api, Footprint)> {
    let instance = setup.start().await?;
    let api = Api::open(instance.ready.kubeconfig.as_ref()).await?;
    cycles::sleep_soon(&api).await?;
    for _ in 0..WARM_UP {
        cycles::batch(&instance, &api).await?;
    }
    let warm = Footprint::of(instance.ready.pid, &instance.data);
    Ok((instance, api, warm))
}
