//! A client-go program that does what operators' programs do, each in its own way (`tests/peers/clients`).

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::{not_run, run, start};

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "where the programs lie is told in the environment"
)]
fn what_go_programs_do() {
    run(async {
        let Some(program) = std::env::var_os("KINGLET_PEERS")
            .map(|folder| PathBuf::from(folder).join("clients"))
            .filter(|path| path.is_file())
        else {
            return not_run("the client-go program is not built (cargo xtask peers)");
        };
        let (instance, _api) = start().await?;
        let kubeconfig = instance.ready.kubeconfig.clone();
        let output = tokio::task::spawn_blocking(move || {
            Command::new(program)
                .args(["-kubeconfig", &kubeconfig])
                .output()
        })
        .await?
        .context("running the client-go program")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{}:\n{said}", output.status);
        Ok(())
    });
}
