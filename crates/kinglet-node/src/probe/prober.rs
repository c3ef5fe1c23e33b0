//! One attempt of a probe.

use std::sync::Arc;
use std::time::Duration;

use kinglet_process::Egress;

use crate::container::Container;
use crate::engine::{Engine, Sandbox};
use crate::probe::connect::connect;
use crate::probe::spec::ProbeAction;
use crate::probe::{exec, grpc, http};
use crate::wire::Process;

/// What is kept of an answer, for the message (a kubelet's bound).
pub(crate) const ANSWER_BYTES_MAX: usize = 10 << 10;
/// The user agent of probes; Knative's queue-proxy looks at its beginning.
pub(crate) const USER_AGENT: &str = "kube-probe/1.34";

/// Whom a probe or hook is run against.
#[derive(Clone)]
pub(crate) struct ProbeTarget {
    pub(crate) engine: Engine,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) container: Option<Arc<Container>>,
    /// Environment, directory and user for programs that run inside.
    pub(crate) process: Option<Process>,
    /// The way to hosts that the Pod names itself.
    pub(crate) egress: Egress,
}

/// The result of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProbeResult {
    /// The probe passed.
    Success(Success),
    /// The probe failed, in a kubelet's words.
    Failure(String),
    /// Nobody listens on the port: the program may not be that far yet.
    Refused(String),
}

/// How a probe passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Success {
    /// The port that was reachable only from inside the pod.
    pub(crate) loopback_only: Option<u16>,
    /// Passed, but worth an Event.
    pub(crate) warning: Option<String>,
}

/// Runs a probe once.
pub(crate) async fn probe_once(
    target: &ProbeTarget,
    action: &ProbeAction,
    from_inside: bool,
    timeout: Duration,
) -> ProbeResult {
    let attempt = async {
        match action {
            ProbeAction::Tcp { host, port } => {
                match connect(target, host.as_deref(), *port, from_inside).await {
                    Ok(connected) => ProbeResult::Success(Success {
                        loopback_only: connected.loopback_only.then_some(*port),
                        warning: None,
                    }),
                    Err(error) if error.is_connection_refused() => {
                        ProbeResult::Refused(error.to_string())
                    }
                    Err(error) => ProbeResult::Failure(error.to_string()),
                }
            }
            ProbeAction::Http(get) => http::probe(target, get, from_inside).await,
            ProbeAction::Grpc { port, service } => {
                grpc::probe(target, *port, service, from_inside, timeout).await
            }
            ProbeAction::Exec(command) => exec::probe(target, command).await,
        }
    };
    // gRPC tells connecting and answering apart by itself.
    if matches!(action, ProbeAction::Grpc { .. }) {
        return attempt.await;
    }
    match tokio::time::timeout(timeout, attempt).await {
        Ok(result) => result,
        Err(_) => ProbeResult::Failure(timed_out(target, action, timeout)),
    }
}

fn timed_out(target: &ProbeTarget, action: &ProbeAction, timeout: Duration) -> String {
    let address = target.sandbox.address();
    match action {
        ProbeAction::Http(get) => format!(
            "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            get.url(&address.to_string())
        ),
        ProbeAction::Tcp { port, .. } => format!("dial tcp {address}:{port}: i/o timeout"),
        ProbeAction::Exec(command) => format!(
            "command timed out: {:?} timed out after {}s",
            command.join(" "),
            timeout.as_secs().max(1)
        ),
        ProbeAction::Grpc { port, .. } => {
            format!("timeout: failed to connect service \"{address}:{port}\" within {timeout:?}")
        }
    }
}
