//! Chores of the project: `cargo xtask NAME`.

#![expect(clippy::print_stdout, reason = "chores report on standard output")]

mod bench;
mod compare;
mod crash;
mod order;
mod peers;
mod protobuf_table;
mod soak;
mod suite;
mod tidy;
mod v2;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of the project")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check house rules: arrows between crates, licences, banned and double crates, file headers, documents
    Tidy {
        /// Write the block of arrows in ARCHITECTURE.md and docs/reference/limits.md first
        #[arg(long)]
        write: bool,
    },
    /// Build the real Kubernetes programs that tests use (Go), into target/peers
    Peers,
    /// Measure speed and memory side by side with a rival
    #[command(subcommand)]
    Bench(bench::Bench),
    /// List the functions that components of the data plane run, for the linker (needs valgrind)
    Order,
    /// Replay recorded inputs and list every difference from what real Knative did
    Compare(compare::Compare),
    /// Long runs: requests, cycles, fuzzing
    #[command(subcommand)]
    Soak(soak::Soak),
    /// Kill at random moments during applies; nothing acknowledged may be lost
    Crash(crash::Crash),
    /// Generate the field table of built-in kinds from Kubernetes' published Go types (needs Go)
    ProtobufTable {
        /// Where to write it, if not to its place in the tree
        to: Vec<String>,
    },
    /// Run every test, installing what they need (the README's second command)
    Test {
        /// Only the container suites, in Debian's cloud kernel under qemu with cgroup v2 and nothing else
        #[arg(long)]
        v2: bool,
        /// With --v2: the host's virtualisation instead of software emulation
        #[arg(long, requires = "v2")]
        kvm: bool,
        /// With --v2: cases whose names have this word, in both suites
        #[arg(long, requires = "v2")]
        only: Option<String>,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Tidy { write } => tidy::run(write),
        Chore::ProtobufTable { to } => protobuf_table::run(&to),
        Chore::Order => block_on(order::run()),
        Chore::Peers => peers::run(),
        Chore::Test {
            v2: true,
            kvm,
            only,
        } => v2::run(kvm, only.as_deref()),
        Chore::Test { v2: false, .. } => suite::run(),
        Chore::Bench(bench) => block_on(bench::run(&bench)),
        Chore::Compare(compare) => block_on(compare::run(&compare)),
        Chore::Soak(soak) => block_on(soak::run(&soak)),
        Chore::Crash(crash) => block_on(crash::run(&crash)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(work)
}

/// The release build of the product, made now if need be; `KINGLET_BIN` names another one.
fn release_binary() -> anyhow::Result<String> {
    if let Some(named) = std::env::var_os("KINGLET_BIN") {
        return Ok(named.to_string_lossy().into_owned());
    }
    let mut cargo =
        std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let status = cargo
        .args(["build", "--quiet", "--release", "--bin", "kinglet"])
        .current_dir(root())
        .status()
        .context("building the release binary")?;
    anyhow::ensure!(
        status.success(),
        "building the release binary failed: {status}"
    );
    Ok(target().join("release/kinglet").display().to_string())
}

/// The workspace's root folder.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("crates/xtask lies two levels down")
        .to_owned()
}

/// Where cargo puts things.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
