//! What an event costs before it is sent: the example `filter_cost` of `kinglet-events`, which xtask is not linked with.

use anyhow::Context as _;

const ARGUMENTS: [&str; 7] = [
    "run",
    "--quiet",
    "--release",
    "--package",
    "kinglet-events",
    "--example",
    "filter_cost",
];

pub(crate) fn run() -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = std::process::Command::new(cargo)
        .args(ARGUMENTS)
        .current_dir(crate::root())
        .status()
        .context("starting cargo for the example filter_cost")?;
    anyhow::ensure!(
        status.success(),
        "the example filter_cost ended with {status}"
    );
    Ok(())
}
