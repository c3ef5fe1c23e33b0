//! The way out for pods: address translation by `nft`, else by `iptables`, else a warning.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::names::{HostNames, SUBNET_BITS};

/// A packet filter program that hangs must not keep the node from starting.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(10);

/// Lets pods reach beyond this machine, if it has a packet filter.
pub(super) async fn open(names: &HostNames, subnet: Ipv4Addr) {
    close(names, subnet).await;
    let script = nft_script(names, subnet);
    let nft = run("nft", &["-f", "-"], Some(&script)).await;
    // Where iptables drops what is forwarded (a host with Docker), an accepting nft table of ours would not help.
    let mut iptables = Ok(());
    for rule in iptables_rules(names, subnet, nft.is_err()) {
        let arguments: Vec<&str> = ["-w", "5"].into_iter().chain(rule.split(' ')).collect();
        iptables = run("iptables", &arguments, None).await;
        if iptables.is_err() {
            break;
        }
    }
    if let (Err(nft), Err(iptables)) = (nft, iptables) {
        tracing::warn!(
            nft,
            iptables,
            "pods cannot reach beyond this machine: install nftables or iptables, then restart Kinglet"
        );
    }
}

/// Takes the rules away again.
pub(super) async fn close(names: &HostNames, subnet: Ipv4Addr) {
    let _ = run("nft", &["delete", "table", "ip", &names.table()], None).await;
    for rule in iptables_rules(names, subnet, true) {
        let removal = rule.replace(" -A ", " -D ").replace("-I ", "-D ");
        let arguments: Vec<&str> = ["-w", "5"].into_iter().chain(removal.split(' ')).collect();
        if run("iptables", &arguments, None)
            .await
            .is_err_and(|error| error.starts_with("starting"))
        {
            return;
        }
    }
}

fn nft_script(names: &HostNames, subnet: Ipv4Addr) -> String {
    format!(
        "table ip {table} {{\n chain out {{\n  type nat hook postrouting priority 100;\n  ip saddr {subnet}/{SUBNET_BITS} ip daddr != {subnet}/{SUBNET_BITS} masquerade\n }}\n}}\n",
        table = names.table()
    )
}

fn iptables_rules(names: &HostNames, subnet: Ipv4Addr, translate: bool) -> Vec<String> {
    let bridge = names.bridge();
    let mut rules = vec![
        format!("-I FORWARD -i {bridge} -j ACCEPT"),
        format!("-I FORWARD -o {bridge} -j ACCEPT"),
    ];
    if translate {
        rules.push(format!("-t nat -A POSTROUTING -s {subnet}/{SUBNET_BITS} ! -d {subnet}/{SUBNET_BITS} -j MASQUERADE"));
    }
    rules
}

async fn run(program: &str, arguments: &[&str], input: Option<&str>) -> Result<(), String> {
    let work = async {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("starting {program}: {error}"))?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin
                .write_all(input.as_bytes())
                .await
                .map_err(|error| format!("talking to {program}: {error}"))?;
        }
        let output = child
            .wait_with_output()
            .await
            .map_err(|error| format!("waiting for {program}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!(
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    };
    tokio::time::timeout(PROGRAM_TIMEOUT, work)
        .await
        .unwrap_or_else(|_| Err(format!("{program} did not answer")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_names_the_instance() {
        let names = HostNames::new(std::path::Path::new("/data"));
        let subnet = Ipv4Addr::new(10, 1, 0, 0);
        assert!(nft_script(&names, subnet).contains(&names.table()));
        assert!(
            iptables_rules(&names, subnet, true)
                .iter()
                .all(|rule| rule.contains(&names.bridge()) || rule.contains("10.1.0.0/22"))
        );
    }
}
