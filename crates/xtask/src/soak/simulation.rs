//! The simulation of all controllers with many seeds; a failing one prints its number.

use std::process::Command;

use anyhow::{Context as _, ensure};
use clap::Args;

/// How many seeds.
#[derive(Args)]
pub(crate) struct Simulation {
    /// Seeds, from 1 on.
    #[arg(long, default_value_t = 500)]
    seeds: u32,
}

pub(crate) fn run(simulation: &Simulation) -> anyhow::Result<()> {
    let status = Command::new("cargo")
        .args(["test", "--quiet", "-p", "kinglet", "--test", "sim"])
        .env("KINGLET_SIM_SEEDS", simulation.seeds.to_string())
        .current_dir(crate::root())
        .status()
        .context("starting the simulation")?;
    ensure!(status.success(), "the simulation failed: {status}");
    Ok(())
}
