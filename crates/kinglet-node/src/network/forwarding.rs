//! Passing packets on for pods where iptables is in the way, or where nf_tables is missing.
//!
//! Our own table does all that is needed; but where another program's iptables drops what is forwarded (a host with
//! Docker), an accepting table of ours would not help, so we ask there too, if iptables is installed.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::NetworkError;
use crate::names::{HostNames, SUBNET_BITS};

/// A packet filter program that hangs must not keep the node from starting.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(10);

/// Lets pods reach beyond this machine. `filter_error` says why our own table is missing, if it is.
pub(super) async fn open(names: &HostNames, subnet: Ipv4Addr, filter_error: Option<&NetworkError>) {
    close(names, subnet).await;
    let mut iptables = Ok(());
    for rule in iptables_rules(names, subnet, filter_error.is_some()) {
        let arguments: Vec<&str> = ["-w", "5"].into_iter().chain(rule.split(' ')).collect();
        iptables = run("iptables", &arguments).await;
        if iptables.is_err() {
            break;
        }
    }
    if let Some(error) = filter_error {
        tracing::warn!(
            %error,
            "Service addresses do not work, and pods are not kept off this machine's own ports: the kernel's nf_tables cannot be used"
        );
        if let Err(iptables) = iptables {
            tracing::warn!(iptables, "pods cannot reach beyond this machine");
        }
    }
}

/// Takes the rules away again.
pub(super) async fn close(names: &HostNames, subnet: Ipv4Addr) {
    for rule in iptables_rules(names, subnet, true) {
        let removal = rule.replace(" -A ", " -D ").replace("-I ", "-D ");
        let arguments: Vec<&str> = ["-w", "5"].into_iter().chain(removal.split(' ')).collect();
        if run("iptables", &arguments)
            .await
            .is_err_and(|error| error.starts_with("starting"))
        {
            return;
        }
    }
}

fn iptables_rules(names: &HostNames, subnet: Ipv4Addr, translate: bool) -> Vec<String> {
    // A plus sign is what iptables has for an asterisk.
    let links = names.link_prefix();
    let mut rules = vec![
        format!("-I FORWARD -i {links}+ -j ACCEPT"),
        format!("-I FORWARD -o {links}+ -j ACCEPT"),
    ];
    if translate {
        rules.push(format!("-t nat -A POSTROUTING -s {subnet}/{SUBNET_BITS} ! -d {subnet}/{SUBNET_BITS} -j MASQUERADE"));
    }
    rules
}

async fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PROGRAM_TIMEOUT, output)
        .await
        .map_err(|_| format!("{program} did not answer"))?
        .map_err(|error| format!("starting {program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_names_the_instance() {
        let names = HostNames::new(std::path::Path::new("/data"));
        let subnet = Ipv4Addr::new(10, 1, 0, 0);
        assert!(
            iptables_rules(&names, subnet, true)
                .iter()
                .all(|rule| rule.contains(&names.link_prefix()) || rule.contains("10.1.0.0/22"))
        );
    }
}
