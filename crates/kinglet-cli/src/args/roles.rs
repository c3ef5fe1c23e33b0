//! Flags of the components that run in a process of their own: `gateway`, `activator`, `queue`.
//!
//! Where Knative's manifests set an environment variable, it is the flag's; a queue-proxy has no flags but those of tests,
//! since all it goes by is its environment (spec/cluster.md 1.12, 3.5).

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::objects::parse_duration;
use super::up::parse_log;

/// What all components take.
#[derive(Clone, Debug, Args)]
pub struct ComponentArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0")]
    pub listen: IpAddr,
    /// Write addresses as JSON here once everything serves
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// What to log, as tracing directives [default: warn,kinglet=info]
    #[arg(long, value_name = "FILTER", env = "KINGLET_LOG", value_parser = parse_log)]
    pub log: Option<String>,
    /// End at once when the process of this id does, which started this one
    #[arg(long, value_name = "PID", hide = true)]
    pub parent: Option<u32>,
    /// How long requests may go on once nothing is accepted any more
    #[arg(long, value_name = "TIME", default_value = "600s", value_parser = parse_duration, hide = true)]
    pub requests_max: Duration,
    /// Write what a stop had to cut here, as JSON
    #[arg(long, value_name = "FILE", hide = true)]
    pub stop_report: Option<PathBuf>,
}

/// How an activator's metrics leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum MetricsProtocol {
    /// They do not.
    #[default]
    None,
    /// Prometheus asks for them.
    Prometheus,
}

/// Flags of `gateway`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "The feed holds one JSON object a line: {\"rule\":…}, {\"service\":…} and\n{\"certificate\":…}; with certificates in it, it holds private keys: mode 0600. Replace the file by renaming another over it, then\nsend SIGHUP; a feed that cannot be read is refused in words, and what was in force stays.\nSIGTERM: /ready says 503, connections are accepted for --drain more, then requests under way end."
)]
pub struct GatewayArgs {
    /// Routes and Services, as JSON lines: a file, or a Unix socket that tells them
    #[arg(long, value_name = "FILE")]
    pub feed: PathBuf,
    /// Port for requests from outside (0: any free one)
    #[arg(long, value_name = "N", default_value_t = 8080)]
    pub http_port: u16,
    /// Port for requests of pods, private hosts too (0: any free one)
    #[arg(long, value_name = "N", default_value_t = 8081)]
    pub local_port: u16,
    /// Address for requests of pods, where it is another one
    #[arg(long, value_name = "ADDR", hide = true)]
    pub local_listen: Option<IpAddr>,
    /// Other gateways listen on the same ports, and the kernel spreads connections; one more port of its own is for probes
    #[arg(long, hide = true)]
    pub shared_ports: bool,
    /// Port for requests from outside over TLS [default: 8443; any free one with --http-port 0]
    #[arg(long, value_name = "N")]
    pub https_port: Option<u16>,
    /// Port for requests of pods over TLS [default: 8444; any free one with --local-port 0]
    #[arg(long, value_name = "N")]
    pub local_https_port: Option<u16>,
    /// Port of GET /ready and POST /drain_listeners (0: any free one)
    #[arg(long, value_name = "N", default_value_t = 9000)]
    pub status_port: u16,
    /// How long to go on accepting after SIGTERM
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_duration)]
    pub drain: Duration,
    /// What all components take.
    #[command(flatten)]
    pub common: ComponentArgs,
}

/// Flags of `activator`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "The feed holds one JSON object a line: {\"revision\":…}. Replace the file by renaming another over it, then send SIGHUP.\nSIGTERM: kubelet probes get 500, requests are accepted for --drain more, then those under way end."
)]
pub struct ActivatorArgs {
    /// Revisions and their pods, as JSON lines: a file, or a Unix socket that tells them
    #[arg(long, value_name = "FILE")]
    pub feed: PathBuf,
    /// Port for HTTP/1.1; HTTP/2 is understood, too (0: any free one)
    #[arg(long, value_name = "N", default_value_t = 8012)]
    pub http_port: u16,
    /// Port for HTTP/2 without TLS; HTTP/1.1 is understood, too (0: any free one)
    #[arg(long, value_name = "N", default_value_t = 8013)]
    pub h2c_port: u16,
    /// Where statistics go, autoscaler.knative-serving.svc.cluster.local:8080 on a cluster [default: nowhere]
    #[arg(long, value_name = "HOST:PORT")]
    pub autoscaler: Option<String>,
    /// Name of this pod, under which its statistics go
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub pod_name: String,
    /// Address of this pod, by which Endpoints name it
    #[arg(long, value_name = "ADDR", env = "POD_IP")]
    pub pod_ip: IpAddr,
    /// End of the names of Services, after svc
    #[arg(
        long,
        value_name = "NAME",
        env = "CLUSTER_DOMAIN",
        default_value = "cluster.local"
    )]
    pub cluster_domain: String,
    /// How long a probe of a queue-proxy may take
    #[arg(long, value_name = "TIME", env = "PROBE_TIMEOUT", default_value = "300ms", value_parser = parse_duration)]
    pub probe_timeout: Duration,
    /// How often queue-proxies that are not ready are probed
    #[arg(long, value_name = "TIME", env = "PROBE_FREQUENCY", default_value = "200ms", value_parser = parse_pace)]
    pub probe_frequency: Duration,
    /// Idle connections kept to each queue-proxy
    #[arg(
        long,
        value_name = "N",
        env = "MAX_IDLE_PROXY_CONNS_PER_HOST",
        default_value_t = 100
    )]
    pub max_idle_proxy_conns_per_host: usize,
    /// How metrics leave
    #[arg(long, value_name = "PROTOCOL", default_value = "none")]
    pub metrics_protocol: MetricsProtocol,
    /// Port of GET /metrics, with the protocol prometheus (0: any free one)
    #[arg(
        long,
        value_name = "N",
        env = "METRICS_PROMETHEUS_PORT",
        default_value_t = 9090
    )]
    pub metrics_port: u16,
    /// Port of GET /debug/pprof/ (0: any free one)
    #[arg(long, value_name = "N", env = "PROFILING_PORT", default_value_t = 8008)]
    pub profiling_port: u16,
    /// Answer /debug/pprof/, which is not found otherwise
    #[arg(long)]
    pub profiling: bool,
    /// How long to go on accepting after SIGTERM
    #[arg(long, value_name = "TIME", default_value = "45s", value_parser = parse_duration)]
    pub drain: Duration,
    /// What all components take.
    #[command(flatten)]
    pub common: ComponentArgs,
}

/// Flags of `queue`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Settings come from the environment, as Knative's controller sets it: SERVING_NAMESPACE, SERVING_REVISION,\nSERVING_CONFIGURATION, SERVING_POD, SERVING_POD_IP, QUEUE_SERVING_PORT, QUEUE_SERVING_TLS_PORT, USER_PORT,\nCONTAINER_CONCURRENCY, REVISION_TIMEOUT_SECONDS, SERVING_LOGGING_CONFIG and SERVING_LOGGING_LEVEL must be set;\nREVISION_RESPONSE_START_TIMEOUT_SECONDS, REVISION_IDLE_TIMEOUT_SECONDS, SERVING_READINESS_PROBE,\nENABLE_MULTI_CONTAINER_PROBES and ENABLE_HTTP2_AUTO_DETECTION may be.\nSIGTERM: probes get 503; once no request has come for 30 s, those under way end."
)]
pub struct QueueArgs {
    /// Port of GET /wait-for-drain, the preStop hook of user containers (0: any free one)
    #[arg(long, value_name = "N", default_value_t = 8022)]
    pub admin_port: u16,
    /// Port of GET /metrics, which the autoscaler scrapes (0: any free one)
    #[arg(long, value_name = "N", default_value_t = 9090)]
    pub stat_port: u16,
    /// Port of GET /metrics for Prometheus, where OBSERVABILITY_CONFIG asks for it (0: any free one)
    #[arg(
        long,
        value_name = "N",
        env = "METRICS_PROMETHEUS_PORT",
        default_value_t = 9091
    )]
    pub metrics_port: u16,
    /// Port of GET /debug/pprof/, where OBSERVABILITY_CONFIG asks for it (0: any free one)
    #[arg(long, value_name = "N", env = "PROFILING_PORT", default_value_t = 8008)]
    pub profiling_port: u16,
    /// Address of the user container
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1", hide = true)]
    pub user_address: IpAddr,
    /// How long no request may have come before it stops
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration, hide = true)]
    pub quiet: Duration,
    /// What all components take.
    #[command(flatten)]
    pub common: ComponentArgs,
}

/// A pace that is not zero.
fn parse_pace(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("it must be more than nothing".to_owned()),
        pace => Ok(pace),
    }
}

/// What the environment says; for components whose settings are variables by the hundred.
pub fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}
