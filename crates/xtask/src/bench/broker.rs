//! Events through ingress, filter and one subscriber, beside the same requests sent plainly and through two nginx: an example
//! of `kinglet-broker` is senders, broker and sink.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use kinglet_testkit::instance;

use super::throughput;

pub(super) fn run(seconds: u32, dir: Option<&Path>) -> anyhow::Result<()> {
    throughput::require_programs()?;
    let dir = dir.map_or_else(crate::target, Path::to_owned);
    let log = dir.join(format!("bench-broker-{}", std::process::id()));
    std::fs::create_dir_all(&log).with_context(|| format!("making {}", log.display()))?;
    let sink = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let folders = ["nginx-near", "nginx-far"].map(instance::scratch);
    let near = throughput::nginx(&folders[0], &sink.to_string())?;
    let far = throughput::nginx(&folders[1], &format!("127.0.0.1:{}", near.port))?;
    let rates = [
        "rates".to_owned(),
        sink.port().to_string(),
        format!("127.0.0.1:{}", far.port),
        seconds.to_string(),
        log.display().to_string(),
    ];
    let measured =
        example(&rates).and_then(|()| example(&["triggers".to_owned(), TRIGGERS.to_string()]));
    drop((near, far));
    for folder in folders.iter().chain([&log]) {
        let _ = std::fs::remove_dir_all(folder);
    }
    measured
}

/// Triggers of one Broker, of which one in a hundred matches.
const TRIGGERS: usize = 10_000;

fn example(arguments: &[String]) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--release", "--package", "kinglet-broker"])
        .args(["--example", "events", "--"])
        .args(arguments)
        .current_dir(crate::root())
        .status()
        .context("running the example events")?;
    anyhow::ensure!(
        status.success(),
        "the example events {arguments:?}: {status}"
    );
    Ok(())
}
