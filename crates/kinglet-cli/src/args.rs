//! Every command and flag, as typed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Parser, Subcommand};

/// Knative on one machine, in one program.
#[derive(Debug, Parser)]
#[command(
    name = "kinglet",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    after_help = "First steps:\n  kinglet up --detach                 start Kinglet\n  kinglet demo                        see a service scale to zero and wake up\n  kinglet apply -f service.yaml       deploy a Knative Service\n  kinglet get ksvc                    list services and their URLs\n  kinglet status                      what runs, where, how healthy\n  kinglet down                        stop it"
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start Kinglet: API server, node, gateway, autoscaler in one process
    Up(Box<UpArgs>),
    /// Stop a running Kinglet, finishing the requests under way
    Down(DataArgs),
    /// Wipe all data of a stopped Kinglet
    Reset(ResetArgs),
    /// What runs, where, and how healthy it is
    Status(StatusArgs),
    /// Show a sample service from first request to scale to zero and back, with timings
    Demo(DemoArgs),
    /// Work with the images on this machine
    #[command(subcommand)]
    Image(ImageCommand),
    /// Create or change objects from files (server-side apply)
    Apply(ApplyArgs),
    /// List objects
    Get(GetArgs),
    /// One object with its conditions and events
    Describe(DescribeArgs),
    /// Delete objects by file or by name
    Delete(DeleteArgs),
    /// Print the logs of a Pod or of a Service's pods
    Logs(LogsArgs),
    /// Wait until objects have a condition or are gone
    Wait(WaitArgs),
    /// Print a shell completion script
    Completion {
        /// bash, zsh, fish, elvish or powershell
        #[arg(hide_possible_values = true)]
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
    /// Run our controllers, binder, node and gateway over another API server (tests of the seam between the shapes)
    #[command(hide = true)]
    Attach(Box<AttachArgs>),
}

/// Where the data lies.
#[derive(Clone, Debug, Default, Args)]
pub struct DataArgs {
    /// Data directory [default: /var/lib/kinglet for root, else ~/.local/share/kinglet]
    #[arg(long, value_name = "DIR", env = "KINGLET_DATA")]
    pub data: Option<PathBuf>,
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
    /// Port for HTTPS to services; not served yet
    #[arg(long, value_name = "N", hide = true)]
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
    /// Flags that were typed, as opposed to left at their defaults; filled in by [`crate::usage`].
    #[arg(skip)]
    pub given: Vec<String>,
}

/// Ports on the bridge that are the gateway's and the DNS server's for pods, where the API server listens, too.
const PORTS_INSIDE: [(u16, &str); 4] = [
    (80, "the gateway"),
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

/// Flags of `reset`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// Where the data lies.
    #[command(flatten)]
    pub data: DataArgs,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// Flags of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Where the data lies.
    #[command(flatten)]
    pub data: DataArgs,
    /// json, for machines
    #[arg(long, short, value_name = "FORMAT", value_parser = ["json"], hide_possible_values = true)]
    pub output: Option<String>,
    /// Show where the time of recent cold starts went
    #[arg(long)]
    pub cold_starts: bool,
}

/// Flags of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Keep Kinglet and the service running afterwards
    #[arg(long)]
    pub keep: bool,
}

/// `kinglet image …`
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List the images on this machine
    Ls(DataArgs),
    /// Fetch an image from its registry
    Pull(PullArgs),
    /// Import an archive (docker save, OCI layout, or a root file system in a tar)
    Import {
        /// The archive
        file: PathBuf,
        /// Name for the image; needed where the archive names none
        name: Option<String>,
        /// Where the data lies.
        #[command(flatten)]
        data: DataArgs,
    },
    /// Remove an image
    Rm {
        /// Reference, as `kinglet image ls` shows it
        image: String,
        /// Where the data lies.
        #[command(flatten)]
        data: DataArgs,
    },
}

/// Flags of `image pull`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kinglet image pull ghcr.io/knative/helloworld-go\n  echo \"$USER:$TOKEN\" | kinglet image pull --creds - registry.example.com/team/app:1\n  kinglet image pull --ca company-ca.pem registry.example.com/team/app:1"
)]
pub struct PullArgs {
    /// Reference, for example ghcr.io/knative/helloworld-go
    pub image: String,
    /// Credentials, or - to read them from standard input (what is typed here, others see in `ps`) [default: what
    /// `docker login` stored]
    #[arg(
        long,
        value_name = "USER:PASS",
        env = "KINGLET_CREDS",
        hide_env_values = true
    )]
    pub creds: Option<String>,
    /// Certificate authority of the registry, in PEM
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Where the data lies.
    #[command(flatten)]
    pub data: DataArgs,
}

/// Which API server, which namespace.
#[derive(Clone, Debug, Default, Args)]
// Last in each command: the heading holds for whatever follows.
#[command(next_help_heading = "Which server")]
pub struct Target {
    /// Kubeconfig file [default: the running Kinglet's, else $KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context in the kubeconfig
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace
    #[arg(long, short, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Where the data lies.
    #[command(flatten)]
    pub data: DataArgs,
}

/// Flags of `apply`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kinglet apply -f service.yaml\n  kinglet apply -f manifests/ --dry-run\n  generate | kinglet apply -f -"
)]
pub struct ApplyArgs {
    /// File, folder, or - for standard input; may be repeated
    #[arg(long, short, value_name = "FILE", required = true)]
    pub filename: Vec<PathBuf>,
    /// Take over fields that somebody else manages
    #[arg(long)]
    pub force_conflicts: bool,
    /// Ask the server what would happen, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Which API server.
    #[command(flatten)]
    pub target: Target,
}

/// Flags of `get`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kinglet get ksvc\n  kinglet get pods,revisions -A\n  kinglet get ksvc/hello -o yaml"
)]
pub struct GetArgs {
    /// TYPE, TYPE/NAME or TYPE1,TYPE2
    #[arg(value_name = "TYPE")]
    pub types: String,
    /// Names
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// All namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
    /// wide, yaml, json or name
    #[arg(long, short, value_name = "FORMAT", value_parser = ["wide", "yaml", "json", "name"], hide_possible_values = true)]
    pub output: Option<String>,
    /// Only objects with these labels
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Leave the column names out
    #[arg(long)]
    pub no_headers: bool,
    /// Which API server.
    #[command(flatten)]
    pub target: Target,
}

/// Flags of `describe`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kinglet describe ksvc/hello       why it is not ready")]
pub struct DescribeArgs {
    /// TYPE or TYPE/NAME
    #[arg(value_name = "TYPE")]
    pub types: String,
    /// Names
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Which API server.
    #[command(flatten)]
    pub target: Target,
}

/// Flags of `delete`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kinglet delete ksvc/hello\n  kinglet delete -f service.yaml")]
pub struct DeleteArgs {
    /// Delete what these files name
    #[arg(long, short, value_name = "FILE")]
    pub filename: Vec<PathBuf>,
    /// TYPE or TYPE/NAME
    #[arg(value_name = "TYPE")]
    pub types: Option<String>,
    /// Names
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Everything of that type in the namespace
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
    /// Do not mind what does not exist
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Return at once instead of waiting until it is gone
    #[arg(long)]
    pub no_wait: bool,
    /// Which API server.
    #[command(flatten)]
    pub target: Target,
}

/// Flags of `logs`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  kinglet logs ksvc/hello -f")]
pub struct LogsArgs {
    /// POD, pod/NAME, ksvc/NAME or revision/NAME (its newest pod)
    pub pod: String,
    /// Container [default: the one the Pod names, else the first]
    #[arg(long, short, value_name = "NAME")]
    pub container: Option<String>,
    /// Keep printing
    #[arg(long, short)]
    pub follow: bool,
    /// Only the last N lines
    #[arg(long, value_name = "N")]
    pub tail: Option<u64>,
    /// The container's previous life
    #[arg(long, short)]
    pub previous: bool,
    /// Which API server.
    #[command(flatten)]
    pub target: Target,
}

/// Flags of `wait`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kinglet wait ksvc/hello\n  kinglet wait pod/one pod/two --for=delete --timeout=2m"
)]
pub struct WaitArgs {
    /// TYPE/NAME, or TYPE and names
    #[arg(required = true, value_name = "OBJECT")]
    pub objects: Vec<String>,
    /// condition=NAME[=VALUE], delete or create
    #[arg(long = "for", value_name = "WHAT", default_value = "condition=Ready")]
    pub what: String,
    /// How long at most, for example 30s or 5m
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Which API server.
    #[command(flatten)]
    pub target: Target,
}

/// `90s`, `5m`, `1h30m`, or plain seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let span: jiff::SignedDuration = text
        .parse()
        .map_err(|_| format!("{text:?} is no duration; write for example 30s or 5m"))?;
    Duration::try_from(span).map_err(|_| format!("{text:?} is negative"))
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

fn parse_log(text: &str) -> Result<String, String> {
    kinglet_process::logging::check(text).map(|()| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("up --api-port 53", "DNS"),
        ] {
            let error = up(line).expect(line).check().expect_err(line).to_string();
            assert!(error.contains(word), "{line}: {error}");
        }
        for line in ["up --api-port 0 --http-port 0", "up", "up --http-port 80"] {
            up(line).expect(line).check().expect(line);
        }
    }

    #[test]
    fn flags_are_consistent() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("7"), Ok(Duration::from_secs(7)));
        assert!(parse_duration("soon").is_err());
    }
}
