//! Everything that must pass: rules, lints, unit tests, and the tests of the real binary with real clients.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::peers;

pub(crate) fn run() -> anyhow::Result<()> {
    let began = Instant::now();
    // Said before anything is built; the tests that make containers fail without root under CI, too.
    if !is_root() && std::env::var_os("CI").is_some() {
        bail!("CI runs every test, and tests that make containers need root");
    }
    debian_packages(&PACKAGES)?;
    let peers = if peers::available() {
        eprintln!("peers: building in the background");
        Some(peers::start()?)
    } else if std::env::var_os("CI").is_some() {
        bail!("Go is not installed, and CI requires the tests against real Kubernetes clients");
    } else {
        eprintln!(
            "not run: tests with real kubectl and kube-apiserver (Go 1.24 or newer is not installed)"
        );
        None
    };
    crate::tidy::run(false)?;
    step(
        "the release binary",
        cargo().args(["build", "--release", "--bin", "kinglet"]),
    )?;
    step(
        "lints",
        cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    )?;
    // Compiling while Go still builds; running when it is done.
    step(
        "compiling the tests",
        cargo().args(["test", "--workspace", "--no-run"]),
    )?;
    if let Some(peers) = peers {
        peers.finish()?;
    }
    let mut tests = cargo();
    tests
        .args(["test", "--workspace"])
        .env("KINGLET_BIN", crate::target().join("release/kinglet"));
    if peers::folder().join("kubectl").exists() {
        tests.env("KINGLET_PEERS", peers::folder());
    }
    step("tests", &mut tests)?;
    let mut apart = cargo();
    apart
        .args(["test", "--package", "kinglet", "--test", "it", "--"])
        .args(SERVING_STORIES)
        // Each instance is a dozen processes: one at a time on a small machine.
        .arg("--test-threads=1")
        .env("KINGLET_BIN", crate::target().join("release/kinglet"))
        .env("KINGLET_TEST_SHAPE", "apart");
    step("the stories of Serving with the roles apart", &mut apart)?;
    let loom = Instant::now();
    eprintln!("==> the breaker's threads in every order");
    crate::soak::interleavings::short()?;
    eprintln!(
        "==> the breaker's threads in every order: {:.0} s",
        loom.elapsed().as_secs_f64()
    );
    eprintln!(
        "everything passed after {:.0} s",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Names of the tests that run once more with the data plane in processes of its own.
const SERVING_STORIES: [&str; 5] = [
    "story::",
    "traffic::",
    "rollout::",
    "in_flight::",
    "services::",
];

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// Cargo in the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::root());
    // Set for us by `cargo run`; the children find their own.
    command
        .env_remove("CARGO_MANIFEST_DIR")
        .env_remove("CARGO_PKG_NAME");
    command
}

fn step(name: &str, command: &mut Command) -> anyhow::Result<()> {
    let began = Instant::now();
    eprintln!("==> {name}");
    let status = command
        .status()
        .with_context(|| format!("starting {name}"))?;
    if !status.success() {
        bail!("{name} failed: {status}");
    }
    eprintln!("==> {name}: {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// What the tests use beside Rust and Go, by Debian package: program and package.
const PACKAGES: [(&str, &str); 5] = [
    ("etcd", "etcd-server"),
    ("iptables", "iptables"),
    ("busybox", "busybox-static"),
    ("openssl", "openssl"),
    // `setpriv`: tests that act as another user.
    ("setpriv", "util-linux"),
];

/// Installs what is missing, where there is apt.
pub(crate) fn debian_packages(packages: &[(&str, &'static str)]) -> anyhow::Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|(program, _)| which(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if which("apt-get").is_none() {
        if std::env::var_os("CI").is_some() {
            bail!(
                "not installed, and CI runs every test: {}",
                missing.join(", ")
            );
        }
        eprintln!(
            "not installed, tests that need them are not run: {}",
            missing.join(", ")
        );
        return Ok(());
    }
    let mut install = Command::new("apt-get");
    install
        .args(["install", "-y", "-q", "--no-install-recommends"])
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive");
    let mut update = Command::new("apt-get");
    step(
        "package lists",
        update
            .args(["update", "-q"])
            .stdout(std::process::Stdio::null()),
    )?;
    step(
        "Debian packages",
        install.stdout(std::process::Stdio::null()),
    )
}

/// Where a program lies.
pub(crate) fn which(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}
