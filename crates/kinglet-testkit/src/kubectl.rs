//! The real kubectl.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, bail};

/// The one built for the tests (`KINGLET_PEERS`), else the machine's own, else none.
pub fn program() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("KINGLET_PEERS") {
        let built = PathBuf::from(folder).join("kubectl");
        if built.is_file() {
            return Some(built);
        }
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join("kubectl"))
        .find(|file| file.is_file())
}

/// Runs it with a kubeconfig, a cache folder of its own and no other environment of the user's.
pub fn run(kubeconfig: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    let program = program().context("there is no kubectl")?;
    let cache = kubeconfig.with_extension("kubectl-cache");
    Command::new(program)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env("KUBECACHEDIR", &cache)
        .output()
        .context("running kubectl")
}

/// [`run`], with its standard output; an error holds what it said.
pub fn expect(kubeconfig: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = run(kubeconfig, arguments)?;
    if !output.status.success() {
        bail!(
            "kubectl {}: {}{}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
