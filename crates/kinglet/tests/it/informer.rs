//! A client-go program with shared informers sees every change.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::{not_run, run, start};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "where the programs lie is told in the environment"
)]
fn sees_every_change() {
    run(async {
        let Some(program) = std::env::var_os("KINGLET_PEERS")
            .map(|folder| PathBuf::from(folder).join("informer"))
            .filter(|path| path.is_file())
        else {
            return not_run("the client-go informer program is not built (cargo xtask peers)");
        };
        let (instance, api) = start().await?;
        let mut child = Command::new(program)
            .args(["-kubeconfig", &instance.ready.kubeconfig, "-until", "last"])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
        for line in lines.by_ref() {
            if line? == "SYNCED" {
                break;
            }
        }
        let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"n": "0"}});
        for number in 0..50 {
            let name = format!("map-{number}");
            api.create(MAPS, &map(&name)).await?;
            api.merge(&format!("{MAPS}/{name}"), &json!({"data": {"n": "1"}}))
                .await?;
            api.delete(&format!("{MAPS}/{name}")).await?;
        }
        api.create(MAPS, &map("last")).await?;
        api.delete(&format!("{MAPS}/last")).await?;
        let events: Vec<String> =
            tokio::task::spawn_blocking(move || lines.map_while(Result::ok).collect()).await?;
        let status = child.wait()?;
        ensure!(status.success(), "the informer ended with {status}");
        let count = |verb: &str| {
            events
                .iter()
                .filter(|line| line.starts_with(verb) && line.contains(" map-"))
                .count()
        };
        // An informer may fold a change into the next one, but additions and removals are all there.
        ensure!(
            (count("ADDED configmap"), count("DELETED configmap")) == (50, 50),
            "{events:#?}"
        );
        Ok(())
    });
}
