//! Runs every fuzz target for some minutes, from the committed seeds.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Args;

/// An input that takes longer is a finding.
const INPUT_SECONDS_MAX: u32 = 20;
/// Memory of one target; the API server of `api_request` with the objects of 256 inputs needs most of it.
const MEMORY_MB_MAX: u32 = 2048;

/// How long.
#[derive(Args)]
pub(crate) struct Fuzz {
    /// Minutes for each target
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Only these targets
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
}

pub(crate) fn run(args: &Fuzz) -> anyhow::Result<()> {
    let fuzz = crate::root().join("fuzz");
    let mut targets: Vec<String> = std::fs::read_dir(fuzz.join("seeds"))
        .context("reading fuzz/seeds")?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| args.target.is_empty() || args.target.contains(name))
        .collect();
    targets.sort();
    if targets.is_empty() {
        bail!("there is no such target; fuzz/seeds has a folder for each");
    }
    let mut broken = Vec::new();
    for target in &targets {
        eprintln!("fuzz: {target} for {} minutes", args.minutes);
        if !one(&fuzz, target, args.minutes)? {
            broken.push(target.as_str());
        }
    }
    if broken.is_empty() {
        println!("fuzz: {} targets, nothing found", targets.len());
        return Ok(());
    }
    bail!(
        "found something: {}; the inputs are in fuzz/artifacts (shrink one with `cargo fuzz tmin`, put it into fuzz/seeds with the fix)",
        broken.join(", ")
    )
}

fn one(fuzz: &Path, target: &str, minutes: f64) -> anyhow::Result<bool> {
    let corpus = fuzz.join("corpus").join(target);
    std::fs::create_dir_all(&corpus).with_context(|| format!("making {}", corpus.display()))?;
    let status = cargo_fuzz(fuzz)
        .args(["run", "--sanitizer", "none", "--fuzz-dir"])
        .arg(fuzz)
        .arg(target)
        .arg(&corpus)
        .arg(fuzz.join("seeds").join(target))
        .args(["--", &format!("-max_total_time={:.0}", minutes * 60.0)])
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MB_MAX}"))
        // What clap, axum and serde print is not of interest.
        .args(["-print_final_stats=1", "-close_fd_mask=1"])
        .status()
        .context("starting cargo fuzz (cargo install cargo-fuzz)")?;
    Ok(status.success())
}

/// `cargo fuzz` with nightly where there is one; the pinned toolchain does as well, since only the coverage flags of the
/// compiler are unstable. Without a sanitizer: the parsers are safe Rust, what can go wrong in them is a panic, a hang or
/// memory, and without one they run several times as many inputs.
fn cargo_fuzz(fuzz: &Path) -> Command {
    let nightly = Command::new("rustc")
        .args(["+nightly", "--version"])
        .env_remove("RUSTUP_TOOLCHAIN")
        .output()
        .is_ok_and(|output| output.status.success());
    let mut command = Command::new("cargo");
    if nightly {
        command.arg("+nightly");
    } else {
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    command
        .arg("fuzz")
        .current_dir(fuzz)
        // Set for us by `cargo run`: they would choose our toolchain and our folder.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO_MANIFEST_DIR")
        .env("CARGO_TARGET_DIR", crate::target().join("fuzz"));
    command
}
