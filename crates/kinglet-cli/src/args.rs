//! Every command and flag, as typed.

mod objects;
mod roles;
mod up;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use objects::{ApplyArgs, DeleteArgs, DescribeArgs, GetArgs, LogsArgs, Target, WaitArgs};
pub use roles::{
    ActivatorArgs, ComponentArgs, GatewayArgs, MetricsProtocol, QueueArgs, environment,
};
pub use up::{AttachArgs, DataPlane, UpArgs};

/// Knative on one machine, in one program.
#[derive(Debug, Parser)]
#[command(
    name = "kinglet",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    after_help = "First steps:\n  kinglet up --detach                 start Kinglet\n  kinglet demo                        see a service scale to zero and wake up\n  kinglet apply -f service.yaml       deploy a Knative Service\n  kinglet get ksvc                    list services and their URLs\n  kinglet status                      what runs, where, how healthy\n  kinglet down                        stop it\n\nComponents, each in a process of its own:\n  kinglet gateway                     from clients to Services, by routes from a file\n  kinglet activator                   hold requests until a pod is ready\n  kinglet queue                       the queue-proxy of one pod"
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
    /// Component: from clients to Services, by routes from a file
    #[command(hide = true)]
    Gateway(Box<GatewayArgs>),
    /// Component: holds requests for Revisions until a pod is ready, and limits them
    #[command(hide = true)]
    Activator(Box<ActivatorArgs>),
    /// Component: the queue-proxy of one pod, set up by Knative's environment variables
    #[command(hide = true)]
    Queue(Box<QueueArgs>),
}

/// Where the data lies.
#[derive(Clone, Debug, Default, Args)]
pub struct DataArgs {
    /// Data directory [default: /var/lib/kinglet for root, else ~/.local/share/kinglet]
    #[arg(long, value_name = "DIR", env = "KINGLET_DATA")]
    pub data: Option<PathBuf>,
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
    /// Show what the objects of each kind hold in memory
    #[arg(long)]
    pub memory: bool,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_consistent() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }
}
