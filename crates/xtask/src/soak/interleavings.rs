//! The breaker's threads in every order, by loom.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::Value;

use crate::suite::cargo;

/// Preemptions of the form that every change runs: seconds, and more than any fault found so far needed.
const SHORT_PREEMPTIONS: u32 = 2;

/// How far.
#[derive(Args)]
pub(crate) struct Interleavings {
    /// How often a thread may be interrupted within one run
    #[arg(long, default_value_t = 4)]
    preemptions: u32,
    /// Seconds for each model
    #[arg(long, default_value_t = 300)]
    seconds: u64,
}

pub(crate) fn run(options: &Interleavings) -> anyhow::Result<()> {
    models(options.preemptions, Some(options.seconds))
}

/// The form that is part of `cargo xtask test`.
pub(crate) fn short() -> anyhow::Result<()> {
    models(SHORT_PREEMPTIONS, None)
}

fn models(preemptions: u32, seconds: Option<u64>) -> anyhow::Result<()> {
    let mut models = Command::new(build()?);
    models
        .args(["breaker::interleavings::", "--test-threads=1"])
        .env("LOOM_MAX_PREEMPTIONS", preemptions.to_string());
    if let Some(seconds) = seconds {
        models.env("LOOM_MAX_DURATION", (seconds * 1000).to_string());
    }
    let status = models.status().context("starting the models")?;
    ensure!(status.success(), "a model failed: {status}");
    Ok(())
}

/// Builds the data plane's unit tests for loom. The flag is for that crate alone, so that nothing else is built anew (with
/// loom's own `cfg(loom)` in RUSTFLAGS tokio would have no sockets).
fn build() -> anyhow::Result<PathBuf> {
    let built = cargo()
        .args(["rustc", "-p", "kinglet-dataplane", "--lib"])
        .args(["--profile", "test", "--message-format=json"])
        .args(["--", "--cfg", "kinglet_loom"])
        .stderr(Stdio::inherit())
        .output()
        .context("building the models")?;
    ensure!(
        built.status.success(),
        "building the models: {}",
        built.status
    );
    String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "kinglet_dataplane")
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
        .context("cargo names no executable of the models")
}
