//! Flags of `up`, and of `attach`, which is the same over another API server.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::DataArgs;

/// Shape of the data plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DataPlane {
    /// Gateway, activator and queue-proxy in one pass, in the process of `up`.
    #[default]
    Whole,
    /// Gateways, activators, and a queue-proxy for each pod, each in a process of its own, as on a cluster. For tests.
    Apart,
}

/// Flags of `up`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  kinglet up                                  in this terminal, until Ctrl-C\n  kinglet up --detach                         in the background, until `kinglet down`\n  kinglet up --data /tmp/k2 --api-port 0 --http-port 0 --kubeconfig k2.yaml\n                                              a second one beside the first"
)]
pub struct UpArgs {
    /// Where the data lies.
    #[command(flatten)]
    pub data: DataArgs,
    /// Address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    pub listen: IpAddr,
    /// Port of the Kubernetes API (0: any free one)
    #[arg(long, value_name = "N", default_value_t = 6443)]
    pub api_port: u16,
    /// Port for HTTP to services (0: any free one) [default: 80 if free and allowed, else 8080]
    #[arg(long, value_name = "N")]
    pub http_port: Option<u16>,
    /// Port for HTTPS to services (0: any free one) [default: 443 if free and allowed, else 8443; any with --http-port 0]
    #[arg(long, value_name = "N")]
    pub https_port: Option<u16>,
    /// Port of the image registry; not served yet
    #[arg(long, value_name = "N", hide = true)]
    pub registry_port: Option<u16>,
    /// Write a kubeconfig of its own here, instead of merging a context into ~/.kube/config
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Make `kinglet` the current context even when another one is set
    #[arg(long, conflicts_with = "kubeconfig")]
    pub use_context: bool,
    /// Write addresses as JSON here once everything serves
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Default domain of services
    #[arg(long, value_name = "NAME", default_value = "localhost", value_parser = parse_domain)]
    pub domain: String,
    /// Registry mirrors and rewrites (containers-registries.conf) [default: DATA/registries.conf]
    #[arg(long, value_name = "FILE")]
    pub registries: Option<PathBuf>,
    /// Return when everything serves, and keep running in the background
    #[arg(long)]
    pub detach: bool,
    /// What to log, as tracing directives
    #[arg(
        long,
        value_name = "FILTER",
        env = "KINGLET_LOG",
        default_value = "warn,kinglet=info",
        value_parser = parse_log
    )]
    pub log: String,
    /// Shape of the data plane: all in this process, or its components in processes of their own (for tests)
    #[arg(long, value_name = "SHAPE", default_value = "whole", hide = true)]
    pub data_plane: DataPlane,
    /// Gateways with `--data-plane apart`
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=8), hide = true)]
    pub gateways: u16,
    /// Activators with `--data-plane apart`
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=8), hide = true)]
    pub activators: u16,
    /// Flags that were typed, as opposed to left at their defaults; filled in by [`crate::usage`].
    #[arg(skip)]
    pub given: Vec<String>,
}

/// Ports on the bridge that are the gateway's and the DNS server's for pods, where the API server listens, too.
const PORTS_INSIDE: [(u16, &str); 5] = [
    (80, "the gateway"),
    (443, "the gateway"),
    (8012, "the gateway"),
    (8013, "the gateway"),
    (53, "DNS"),
];

impl UpArgs {
    /// Refuses flags that cannot hold together.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.api_port != 0 && self.http_port == Some(self.api_port) {
            bail!(
                "--api-port and --http-port are both {}; the Kubernetes API and the gateway need a port each",
                self.api_port
            );
        }
        if self.data_plane == DataPlane::Whole && (self.gateways, self.activators) != (1, 1) {
            bail!(
                "--gateways and --activators are numbers of processes and need --data-plane apart"
            );
        }
        let https = self.https_port.filter(|port| *port != 0);
        let others = [
            ("--api-port", Some(self.api_port)),
            ("--http-port", self.http_port),
        ];
        if let Some((flag, _)) = others
            .into_iter()
            .find(|(_, port)| https.is_some() && *port == https)
        {
            bail!(
                "{flag} and --https-port are both {}; each needs a port of its own",
                https.unwrap_or_default()
            );
        }
        if let Some((port, owner)) = PORTS_INSIDE.iter().find(|(port, _)| *port == self.api_port) {
            bail!("--api-port {port} is the port of {owner} for pods; choose another one");
        }
        Ok(())
    }

    /// What a running Kinglet was started with, flag by flag, to compare with a later command.
    pub fn flags(&self) -> BTreeMap<String, String> {
        let path = |path: &Option<PathBuf>| {
            let absolute = path
                .as_ref()
                .map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
            absolute.unwrap_or_default().display().to_string()
        };
        let port = |port: Option<u16>| port.map(|port| port.to_string()).unwrap_or_default();
        [
            ("listen", self.listen.to_string()),
            ("api-port", self.api_port.to_string()),
            ("http-port", port(self.http_port)),
            ("https-port", port(self.https_port)),
            ("kubeconfig", path(&self.kubeconfig)),
            ("ready-file", path(&self.ready_file)),
            ("domain", self.domain.clone()),
            ("registries", path(&self.registries)),
            ("log", self.log.clone()),
        ]
        .into_iter()
        .map(|(flag, value)| (flag.to_owned(), value))
        .collect()
    }
}

/// Flags of `attach`.
#[derive(Clone, Debug, Args)]
pub struct AttachArgs {
    /// Administrator's kubeconfig of the API server
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: PathBuf,
    /// Where images and pods lie
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Address of the gateway
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    pub listen: IpAddr,
    /// Port of the gateway (0: any free one)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub http_port: u16,
    /// Write addresses as JSON here once everything serves
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Default domain of services
    #[arg(long, value_name = "NAME", default_value = "localhost", value_parser = parse_domain)]
    pub domain: String,
    /// Registry mirrors and rewrites (containers-registries.conf) [default: DATA/registries.conf]
    #[arg(long, value_name = "FILE")]
    pub registries: Option<PathBuf>,
    /// What to log, as tracing directives
    #[arg(
        long,
        value_name = "FILTER",
        env = "KINGLET_LOG",
        default_value = "warn,kinglet=info",
        value_parser = parse_log
    )]
    pub log: String,
}

/// A DNS name, as it becomes the end of every service's host name.
fn parse_domain(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(label) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{text:?} is no domain name: labels of small letters, digits and '-', with dots between them, for example example.com"
        ))
    }
}

pub(super) fn parse_log(text: &str) -> Result<String, String> {
    kinglet_process::logging::check(text).map(|()| text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{Arguments, Command};

    fn up(line: &str) -> Result<UpArgs, String> {
        let words = std::iter::once("kinglet").chain(line.split_whitespace());
        match Arguments::try_parse_from(words)
            .map_err(|error| error.to_string())?
            .command
        {
            Command::Up(args) => Ok(*args),
            _ => Err("not up".to_owned()),
        }
    }

    #[test]
    fn bad_values_are_refused_with_their_flag() {
        for (line, words) in [
            ("up --domain UPPER", &["--domain", "no domain name"][..]),
            ("up --domain a..b", &["--domain"]),
            ("up --domain=-a.b", &["--domain"]),
            ("up --domain http://x", &["--domain"]),
            ("up --log debgu", &["--log", "no level"]),
        ] {
            let error = up(line).expect_err(line);
            assert!(
                words.iter().all(|word| error.contains(word)),
                "{line}: {error}"
            );
        }
        for line in [
            "up --domain example.com",
            "up --domain 127.0.0.1.sslip.io --log debug",
        ] {
            up(line).expect(line);
        }
    }

    #[test]
    fn two_flags_with_one_port() {
        for (line, word) in [
            ("up --api-port 7000 --http-port 7000", "both 7000"),
            ("up --api-port 80", "the gateway"),
            ("up --api-port 443", "the gateway"),
            ("up --https-port 6443", "both 6443"),
            ("up --http-port 8443 --https-port 8443", "both 8443"),
            ("up --api-port 53", "DNS"),
        ] {
            let error = up(line).expect(line).check().expect_err(line).to_string();
            assert!(error.contains(word), "{line}: {error}");
        }
        for line in [
            "up --api-port 0 --http-port 0 --https-port 0",
            "up",
            "up --http-port 80",
        ] {
            up(line).expect(line).check().expect(line);
        }
    }
}
