//! Container logs for the API server, from the node.

use std::sync::OnceLock;

use futures_util::future::BoxFuture;
use kinglet_apiserver::{LogOptions, LogStream, PodLogs, Status};
use kinglet_node::{LogError, NodeHandle};
use kinglet_process::Clock;

/// Empty until the node runs.
pub(crate) struct Logs {
    node: OnceLock<NodeHandle>,
    clock: Clock,
}

impl Logs {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            node: OnceLock::new(),
            clock,
        }
    }

    /// The node is there.
    pub(crate) fn attach(&self, node: NodeHandle) {
        let _ = self.node.set(node);
    }

    pub(crate) fn node(&self) -> Result<NodeHandle, Status> {
        self.node
            .get()
            .cloned()
            .ok_or_else(|| Status::new(503, "ServiceUnavailable", "the node is still starting"))
    }

    fn open(&self, namespace: &str, pod: &str, asked: LogOptions) -> Result<LogStream, Status> {
        let node = self.node()?;
        let since =
            match (asked.since_time, asked.since_seconds) {
                (Some(text), _) => Some(text.parse().map_err(|error| {
                    Status::new(400, "BadRequest", format!("sinceTime: {error}"))
                })?),
                (None, Some(seconds)) => self
                    .clock
                    .now()
                    .checked_sub(jiff::SignedDuration::from_secs(seconds))
                    .ok(),
                (None, None) => None,
            };
        let options = kinglet_node::LogOptions {
            container: Some(asked.container),
            follow: asked.follow,
            tail_lines: asked.tail_lines.and_then(|lines| u64::try_from(lines).ok()),
            since,
            previous: asked.previous,
            timestamps: asked.timestamps,
            limit_bytes: asked
                .limit_bytes
                .and_then(|bytes| u64::try_from(bytes).ok()),
        };
        let stream = node
            .logs(namespace, pod, options)
            .map_err(|error| refusal(&error))?;
        Ok(Box::pin(stream))
    }
}

impl PodLogs for Logs {
    fn logs(
        &self,
        namespace: &str,
        pod: &str,
        options: LogOptions,
    ) -> BoxFuture<'static, Result<LogStream, Status>> {
        let outcome = self.open(namespace, pod, options);
        Box::pin(async move { outcome })
    }
}

fn refusal(error: &LogError) -> Status {
    match error {
        LogError::NoPod(_) => Status::new(404, "NotFound", error.to_string()),
        _ => Status::new(400, "BadRequest", error.to_string()),
    }
}
