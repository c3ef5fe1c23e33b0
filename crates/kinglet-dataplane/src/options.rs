//! Every bound of the data plane, with where the number comes from.

use std::time::Duration;

use kinglet_decide::feed::Source;
use kinglet_process::Tasks;

use crate::role::Role;

/// What the data plane allows itself and others.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which of Knative's components this is.
    pub role: Role,
    /// Whose supervisor is told when a listener, or another part that must run, does not.
    pub owner: Tasks,
    /// Client connections at once, over all listeners; more wait in the kernel's backlog.
    pub connections_max: usize,
    /// Of these, connections of one source address (an IPv6 /64 counts as one) that is not the machine itself. At the
    /// bound, the source's own longest idle connection makes room; when none is idle, the new one is closed. A sixteenth
    /// of all: one pod with 15,000 idle connections cannot starve another.
    pub connections_per_source_max: usize,
    /// The same for the loopback address: proxies and port forwards on this machine speak for many clients.
    pub connections_loopback_max: usize,
    /// A connection on which no request started for about this long is closed (upstream's read-header timeout).
    pub client_idle: Duration,
    /// Size of a request's header lines (what Go and Envoy allow by default is between 60 KiB and 1 MiB).
    pub header_bytes_max: usize,
    /// Number of a request's or an answer's header lines. `None` is hyper's 100, which it keeps room for without
    /// allocating.
    pub headers_max: Option<usize>,
    /// Requests at once on one HTTP/2 connection (RFC 9113 advises at least 100).
    pub h2_streams_max: u32,
    /// Streams that a client may open and reset before we have seen them (rapid reset).
    pub h2_resets_max: usize,
    /// Requests that may wait for one Revision (upstream's breaker depth).
    pub queue_depth: usize,
    /// How long a request waits for a backend that no update has ever described.
    pub unknown_backend_wait: Duration,
    /// The same while a control plane starts that has not told about all backends yet; as long as its start may take.
    pub starting_wait: Duration,
    /// How long one connection attempt to a container may take.
    pub connect_timeout: Duration,
    /// How long connecting is tried again, elsewhere if possible, before the client gets 502.
    pub connect_patience: Duration,
    /// Idle connections kept per container.
    pub idle_connections_max: usize,
    /// How long an idle connection to a container is kept.
    pub idle_connection_age_max: Duration,
    /// Requests that share one HTTP/2 connection to a container before another is opened.
    pub h2_connection_streams_max: u32,
    /// Again and again while requests wait and no container is there.
    pub poke_again: Duration,
    /// Whose statistics these are: the pod that this process runs in, or the gateway of one machine.
    pub source: Source,
    /// How often statistics are reported.
    pub report_every: Duration,
    /// Cold starts remembered for `status`.
    pub cold_starts_kept: usize,
    /// Cut upgraded connections and event streams at the Revision's `timeoutSeconds`, as upstream does.
    /// Off: this is what users complain about most; `idleTimeoutSeconds` still ends them.
    pub cut_streams_at_timeout: bool,
    /// One log line per request (target `access`, level info).
    pub access_log: bool,
    /// Answer every request with a `Server-Timing` header, not only those that ask with `K-Kinglet-Trace: 1`.
    pub trace_every_request: bool,
    /// Domain of Service names inside (`svc.` and this), for requests that name a Revision by its Service.
    pub cluster_domain: String,
    /// Port that a redirect to https names. `None` where nobody serves https: then nothing is redirected.
    pub https_port: Option<u16>,
    /// TLS handshakes at once, over all listeners: each holds some 30 kB and may ask for a signature.
    pub handshakes_max: usize,
    /// Of these, handshakes of one source address, and of the loopback address, which speaks for many; the next ones are
    /// closed. The same parts as of connections, so that one that never finishes its handshakes keeps nobody out.
    pub handshakes_per_source_max: usize,
    /// The same for the loopback address.
    pub handshakes_loopback_max: usize,
    /// How long one TLS handshake may take.
    pub handshake_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            role: Role::Whole,
            owner: Tasks::default(),
            connections_max: 16_384,
            connections_per_source_max: 1024,
            connections_loopback_max: 12_288,
            client_idle: Duration::from_secs(60),
            header_bytes_max: 64 * 1024,
            headers_max: None,
            h2_streams_max: 250,
            h2_resets_max: 20,
            queue_depth: 10_000,
            unknown_backend_wait: Duration::from_secs(5),
            starting_wait: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(1),
            connect_patience: Duration::from_secs(10),
            idle_connections_max: 128,
            idle_connection_age_max: Duration::from_secs(60),
            h2_connection_streams_max: 100,
            poke_again: Duration::from_secs(1),
            source: Source::itself("gateway"),
            report_every: Duration::from_secs(1),
            cold_starts_kept: 128,
            cut_streams_at_timeout: false,
            access_log: false,
            trace_every_request: false,
            cluster_domain: "cluster.local".to_owned(),
            https_port: None,
            handshakes_max: 2048,
            handshakes_per_source_max: 256,
            handshakes_loopback_max: 1536,
            handshake_timeout: Duration::from_secs(10),
        }
    }
}
