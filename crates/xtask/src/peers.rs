//! Builds the Go programs under tests/peers into a folder keyed by their versions.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Instant;

use anyhow::{Context as _, bail};

const KUBERNETES: &str = "1.34.4";
const PROGRAMS: [&str; 6] = [
    "kubectl",
    "informer",
    "probed",
    "clients",
    "kube-apiserver",
    "kube-controller-manager",
];

/// Where the programs lie.
pub(crate) fn folder() -> PathBuf {
    crate::target().join("peers").join(KUBERNETES)
}

/// Whether Go is here.
pub(crate) fn available() -> bool {
    Command::new("go")
        .arg("version")
        .output()
        .is_ok_and(|output| output.status.success())
}

/// A build under way.
pub(crate) struct Build {
    child: Child,
    began: Instant,
}

/// Starts building in the background, at low priority so that cargo goes first.
pub(crate) fn start() -> anyhow::Result<Build> {
    let folder = folder();
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let (major, minor) = KUBERNETES
        .split_once('.')
        .and_then(|(major, rest)| Some((major, rest.split('.').next()?)))
        .context("the version has three parts")?;
    let package = "k8s.io/component-base/version";
    let flags = format!(
        "-X {package}.gitVersion=v{KUBERNETES} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    );
    let mut command = Command::new("nice");
    command
        .args(["-n", "10", "go", "build", "-ldflags", &flags, "-o"])
        .arg(format!("{}/", folder.display()));
    command.args(PROGRAMS.map(|program| format!("./{program}")));
    let child = command
        .current_dir(crate::root().join("tests/peers"))
        .env("CGO_ENABLED", "0")
        .spawn()
        .context("starting the Go build")?;
    Ok(Build {
        child,
        began: Instant::now(),
    })
}

impl Build {
    /// Waits for the end.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        let status = self.child.wait().context("waiting for the Go build")?;
        if !status.success() {
            bail!("building the Kubernetes peers failed: {status}");
        }
        eprintln!(
            "peers: built in {} after {:.0} s",
            folder().display(),
            self.began.elapsed().as_secs_f64()
        );
        Ok(())
    }
}

/// Builds and waits.
pub(crate) fn run() -> anyhow::Result<()> {
    if !available() {
        bail!(
            "Go is not installed; it is needed to build kubectl and the other Kubernetes peers (Go 1.24 or newer)"
        );
    }
    eprintln!(
        "peers: building {} (minutes when cold, seconds afterwards)",
        PROGRAMS.join(", ")
    );
    start()?.finish()
}
