//! Thousands of cycles of create, call, sleep, wake, delete, with a `kill -9` in the middle of them now and then.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use kinglet_testkit::footprint::{Footprint, Slack};
use kinglet_testkit::{Api, Instance, Setup, cycles, instance};

/// Batches before anything is measured: caches, parked sandboxes, the allocator.
const WARM_UP: u32 = 2;
/// What ten thousand cycles may cost beside nothing: [`Slack`] says of what.
const SLACK: Slack = Slack {
    descriptors: 16,
    threads: 64,
    files: 16,
    disk_kb: 16 << 10,
    memory_kb: 32 << 10,
};
/// A cycle takes this long: a kill falls on any moment of it.
const KILL_WITHIN_MS: u64 = 16_000;

/// How many.
#[derive(Args)]
pub(crate) struct Cycles {
    /// Cycles; the full form is ten thousand
    #[arg(long, alias = "rounds", default_value_t = 10_000)]
    cycles: u32,
    /// A kill -9 in the middle of a batch, and a restart, after so many cycles
    #[arg(long, default_value_t = 500)]
    kill_every: u32,
    /// Services side by side: one batch. A node has room for 110 pods
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
    at_once: u32,
    /// End in good order after so many minutes, whatever is done by then
    #[arg(long)]
    minutes: Option<f64>,
}

pub(crate) async fn run(args: &Cycles) -> anyhow::Result<()> {
    let data = instance::scratch("cycles");
    let setup = Setup {
        data: Some(data.clone()),
        ..Setup::of(&crate::release_binary()?)
    };
    let outcome = Soak::new(&setup, args).run().await;
    let left = Footprint::of_stopped(&data).left_behind();
    if outcome.is_ok() {
        let _ = std::fs::remove_dir_all(&data);
    } else {
        eprintln!("cycles: data and log (test.log) stay in {}", data.display());
    }
    outcome?;
    ensure!(left.is_empty(), "left behind: {}", left.join("; "));
    println!("cycles: nothing left behind");
    Ok(())
}

struct Soak<'a> {
    setup: &'a Setup,
    args: &'a Cycles,
    began: Instant,
    done: u32,
    kills: u32,
}

impl<'a> Soak<'a> {
    fn new(setup: &'a Setup, args: &'a Cycles) -> Self {
        Self {
            setup,
            args,
            began: Instant::now(),
            done: 0,
            kills: 0,
        }
    }

    async fn run(&mut self) -> anyhow::Result<()> {
        let (mut instance, mut api) = start(self.setup).await?;
        cycles::sleep_soon(&api).await?;
        for _ in 0..WARM_UP {
            cycles::batch(&instance, &api, self.args.at_once)
                .await
                .context("while warming up")?;
        }
        // Compared with for ever: what a later life has more than the first is a leak as well.
        let warm = cycles::at_rest(&instance).await?;
        eprintln!("cycles: warm: {warm}");
        self.began = Instant::now();
        let mut since_kill = 0;
        while self.done < self.args.cycles && !self.time_is_up() {
            let batch = self.args.at_once.min(self.args.cycles - self.done);
            cycles::batch(&instance, &api, batch)
                .await
                .with_context(|| format!("after {} cycles", self.done))?;
            self.done += batch;
            since_kill += batch;
            if since_kill >= self.args.kill_every {
                since_kill = 0;
                (instance, api) = self.crash(instance, &api).await?;
            }
            let now = self.settled(&instance, &api, &warm).await?;
            self.report(&now);
        }
        let last = self.settled(&instance, &api, &warm).await?;
        println!(
            "cycles: {} and {} kills in {:.0} s, {:.2} cycles/s\n  warm:       {warm}\n  at the end: {last}",
            self.done,
            self.kills,
            self.began.elapsed().as_secs_f64(),
            self.rate()
        );
        instance.stop().await
    }

    async fn settled(
        &self,
        instance: &Instance,
        api: &Api,
        warm: &Footprint,
    ) -> anyhow::Result<Footprint> {
        cycles::settled(instance, api, warm, SLACK)
            .await
            .with_context(|| format!("after {} cycles and {} kills", self.done, self.kills))
    }

    /// Kills the instance in the middle of a batch, and starts it again on what is left.
    async fn crash(
        &mut self,
        mut instance: Instance,
        api: &Api,
    ) -> anyhow::Result<(Instance, Api)> {
        self.kills += 1;
        // Another moment each time, and the same ones in every run.
        let moment = u64::from(self.kills) * 2_654_435_761 % KILL_WITHIN_MS;
        // What the batch says does not matter: it is cut off.
        let _ = tokio::time::timeout(
            Duration::from_millis(moment),
            cycles::batch(&instance, api, self.args.at_once),
        )
        .await;
        instance.kill();
        drop(instance);
        let (instance, api) = start(self.setup)
            .await
            .with_context(|| format!("kill {}, {moment} ms into a batch", self.kills))?;
        cycles::delete_all(&api).await?;
        eprintln!("cycles: kill {}, {moment} ms into a batch", self.kills);
        Ok((instance, api))
    }

    fn time_is_up(&self) -> bool {
        let limit = self.args.minutes.map(|minutes| minutes * 60.0);
        limit.is_some_and(|seconds| self.began.elapsed().as_secs_f64() >= seconds)
    }

    fn rate(&self) -> f64 {
        f64::from(self.done) / self.began.elapsed().as_secs_f64().max(0.001)
    }

    fn report(&self, now: &Footprint) {
        let left = f64::from(self.args.cycles - self.done) / self.rate().max(0.001);
        eprintln!(
            "cycles: {} of {} in {:.0} s, {:.2}/s, about {:.0} min to go; {now}",
            self.done,
            self.args.cycles,
            self.began.elapsed().as_secs_f64(),
            self.rate(),
            left / 60.0
        );
    }
}

async fn start(setup: &Setup) -> anyhow::Result<(Instance, Api)> {
    let instance = setup.start().await?;
    let api = Api::open(Path::new(&instance.ready.kubeconfig)).await?;
    Ok((instance, api))
}
