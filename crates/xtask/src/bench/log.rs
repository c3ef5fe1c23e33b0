//! The event log alone: an example of `kinglet-broker` does the work, in processes of its own, so that memory is its own.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

pub(super) fn run(backlog: u64, dir: Option<&Path>) -> anyhow::Result<()> {
    let dir = dir.map_or_else(crate::target, Path::to_owned);
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let backlog = backlog.to_string();
    for arguments in [
        &["storage"][..],
        &["log", "rates"],
        &["log", "backlog", &backlog],
    ] {
        let (example, what) = (arguments[0], &arguments[1..]);
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args(["run", "--quiet", "--release", "--package", "kinglet-broker"])
            .args(["--example", example, "--"])
            .args(what)
            .arg(&dir)
            .current_dir(crate::root())
            .status()
            .with_context(|| format!("running the example {example}"))?;
        anyhow::ensure!(status.success(), "the example {example} {what:?}: {status}");
    }
    Ok(())
}
