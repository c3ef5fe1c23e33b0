//! Flags of the commands that work on objects through the Kubernetes API.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::DataArgs;

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

/// `90s`, `300ms`, `5m`, `1h30m`, or plain seconds.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let span: jiff::SignedDuration = text
        .parse()
        .map_err(|_| format!("{text:?} is no duration; write for example 30s or 5m"))?;
    Duration::try_from(span).map_err(|_| format!("{text:?} is negative"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("7"), Ok(Duration::from_secs(7)));
        assert!(parse_duration("soon").is_err());
    }
}
