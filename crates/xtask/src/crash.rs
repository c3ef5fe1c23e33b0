//! `kill -9` at random moments during applies: every acknowledged object is there after the restart.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use kinglet_testkit::api::{sample_service, serving};
use kinglet_testkit::{Api, Instance, Setup, instance, until, web};
use serde_json::json;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Deploying, and the first answer after a restart, on a machine that does much else.
const STEP_MAX: Duration = Duration::from_secs(60);

/// How many crashes.
#[derive(Args)]
pub(crate) struct Crash {
    /// Kills.
    #[arg(long, default_value_t = 200)]
    rounds: u32,
    /// Seed of the moments; printed, so that a failure can be run again.
    #[arg(long)]
    seed: Option<u64>,
}

/// A small generator of moments; quality does not matter here.
struct Random(u64);

impl Random {
    fn next_below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

pub(crate) async fn run(args: &Crash) -> anyhow::Result<()> {
    let seed = args
        .seed
        .unwrap_or(u64::from(std::process::id()) * 2_654_435_761 + 1);
    println!("crash: seed {seed}");
    let data = instance::scratch("crash");
    let base = Setup {
        data: Some(data.clone()),
        ..Setup::of(&crate::release_binary()?)
    };
    let outcome = rounds(&base, args.rounds, &mut Random(seed)).await;
    let cleaned = match base.start().await {
        Ok(instance) => instance.stop().await,
        Err(error) => Err(error),
    };
    let _ = std::fs::remove_dir_all(&data);
    outcome.and(cleaned)
}

async fn rounds(base: &Setup, rounds: u32, random: &mut Random) -> anyhow::Result<()> {
    // Name -> value that was acknowledged last.
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    let mut ca = None;
    let mut restart_ms = Vec::new();
    for round in 0..rounds {
        let began = Instant::now();
        let mut instance = base
            .start()
            .await
            .with_context(|| format!("round {round}"))?;
        restart_ms.push(began.elapsed().as_millis());
        let kubeconfig = std::fs::read_to_string(&instance.ready.kubeconfig)?;
        let authority = kubeconfig
            .lines()
            .find(|line| line.contains("certificate-authority-data"))
            .map(str::to_owned);
        ensure!(
            ca.is_none() || ca == authority,
            "round {round}: the certificate authority changed"
        );
        ca = authority;
        let api = Api::open(Path::new(&instance.ready.kubeconfig)).await?;
        nothing_is_lost(&api, &acknowledged)
            .await
            .with_context(|| format!("round {round}"))?;
        if round == 0 {
            deploy(&api).await?;
        } else if round % 10 == 0 {
            answers(&instance).await?;
        }
        let stopped = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..4_u32)
            .map(|writer| {
                let (api, stopped) = (api.clone(), Arc::clone(&stopped));
                let known = acknowledged.clone();
                tokio::task::spawn(write(
                    api,
                    stopped,
                    format!("map-{writer}-{}", round % 5),
                    known,
                ))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(5 + random.next_below(300))).await;
        instance.kill();
        stopped.store(true, Ordering::Relaxed);
        for writer in writers {
            acknowledged.extend(writer.await?);
        }
        eprintln!(
            "crash: round {} of {rounds}, {} objects acknowledged, restart took {} ms",
            round + 1,
            acknowledged.len(),
            restart_ms.last().unwrap_or(&0)
        );
    }
    restart_ms.sort_unstable();
    println!(
        "crash: {rounds} kills, {} objects acknowledged, none lost; restart median {} ms",
        acknowledged.len(),
        restart_ms.get(restart_ms.len() / 2).unwrap_or(&0)
    );
    Ok(())
}

async fn nothing_is_lost(api: &Api, acknowledged: &BTreeMap<String, u64>) -> anyhow::Result<()> {
    for (name, value) in acknowledged {
        let found = api
            .find(&format!("{MAPS}/{name}"))
            .await?
            .with_context(|| format!("{name} was acknowledged and is lost"))?;
        let stored: u64 = found["data"]["n"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        // One more than acknowledged may have been written without the answer reaching us.
        ensure!(
            stored >= *value,
            "{name} was acknowledged with {value} and holds {stored}"
        );
    }
    Ok(())
}

async fn deploy(api: &Api) -> anyhow::Result<()> {
    let services = serving("default", "services");
    api.create(&services, &sample_service("hello", "default", "helloworld"))
        .await?;
    api.condition(&format!("{services}/hello"), "Ready", "True", STEP_MAX)
        .await?;
    Ok(())
}

/// The Service of the first life still answers.
async fn answers(instance: &Instance) -> anyhow::Result<()> {
    until("an answer", STEP_MAX, || async {
        let answer = web::get(instance.gateway(), "hello.default.localhost", "/").await?;
        if answer.status != 200 {
            bail!("{answer:?}");
        }
        Ok(Some(()))
    })
    .await
}

/// Counts up in one object until the server is gone; answers what was acknowledged.
async fn write(
    api: Api,
    stopped: Arc<AtomicBool>,
    name: String,
    known: BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let mut written = BTreeMap::new();
    let mut number = known.get(&name).copied().unwrap_or(0);
    while !stopped.load(Ordering::Relaxed) {
        number += 1;
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"n": number.to_string()}});
        if api.apply(MAPS, &object).await.is_err() {
            break;
        }
        written.insert(name.clone(), number);
    }
    written
}
