//! The queue-proxy of one pod: readiness, drain, and what its environment says (spec/serving.md 6.3, spec/cluster.md 3.5, 3.6).
//!
//! Flow: [`QueueConfig::from_environment`] -> [`QueueProxy::new`] tells the data plane of its one container ->
//! [`QueueProxy::serve_admin`] and [`QueueProxy::serve_statistics`] beside the listeners of the handle -> [`QueueProxy::stop`].

mod config;
mod probes;
mod state;

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use kinglet_decide::feed::{Endpoint, Protocol, Report, RevisionBackend, Stat, Update};
use kinglet_decide::wire;
use kinglet_process::Tasks;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use config::{EnvironmentError, MetricsProtocol, QueueConfig, RequestLog};
pub use probes::ReadinessProbe;
pub(crate) use state::QueueState;

use crate::admin;
use crate::plane::{Cut, Handle, Plane};

/// How long no request may have come before a draining queue-proxy stops (spec/serving.md 6.3.6).
pub const QUIET: Duration = Duration::from_secs(30);
/// A preStop hook without a SIGTERM within this is that of a container that is restarted alone.
const RESTART_GRACE: Duration = Duration::from_secs(1);
/// How long upgraded connections may go on once they alone are left, in a gateway and an activator too.
pub const UPGRADES_MAX: Duration = Duration::from_secs(60);

/// What a scraper takes, to the letter.
const STAT_TYPE: &str = "application/protobuf";

/// A running queue-proxy.
#[derive(Clone)]
pub struct QueueProxy {
    handle: Handle,
    config: Arc<QueueConfig>,
    tasks: Tasks,
    quiet: Duration,
}

impl QueueProxy {
    /// Describes the user container, at `user` and the configuration's port, to the data plane behind `updates`.
    pub async fn new(
        handle: Handle,
        config: QueueConfig,
        user: std::net::IpAddr,
        updates: &mpsc::Sender<Update>,
        quiet: Duration,
    ) -> Self {
        let backend = RevisionBackend {
            revision: config.revision.clone(),
            configuration: config.configuration.as_str().into(),
            container_concurrency: config.container_concurrency,
            timeout: config.timeout,
            response_start_timeout: config.response_start_timeout,
            idle_timeout: config.idle_timeout,
            // Passed on as it comes.
            protocol: Protocol::Http1,
            endpoints: vec![Endpoint {
                pod: config.pod.as_str().into(),
                address: (user, config.user_port).into(),
            }],
        };
        let key = config.revision.clone();
        // Fails only when the data plane has ended, which its owner notices.
        let _ = updates
            .send(Update::Revision(key, Some(Arc::new(backend))))
            .await;
        let checks = probes::Checks::new(&config, user);
        handle.plane().queue.set_checks(checks);
        Self {
            handle,
            config: Arc::new(config),
            tasks: Tasks::new(),
            quiet,
        }
    }

    /// Port 8022: the preStop hook of user containers. Answers once no request has come for the quiet time.
    pub fn serve_admin(&self, listener: TcpListener) {
        let (plane, tasks, quiet) = (self.handle.plane().clone(), self.tasks.clone(), self.quiet);
        admin::serve(
            &self.tasks,
            "queue-proxy admin listener",
            listener,
            move |request| {
                let (plane, tasks) = (plane.clone(), tasks.clone());
                async move {
                    if request.method() != Method::GET || request.uri().path() != "/wait-for-drain"
                    {
                        return admin::text(StatusCode::NOT_FOUND, "404 page not found\n");
                    }
                    wait_for_drain(&plane, &tasks, quiet).await;
                    admin::text(StatusCode::OK, "")
                }
            },
        );
    }

    /// Port 9090: what came in the last whole second, as the autoscaler scrapes it (spec/cluster.md 3.4). `reports` are
    /// the data plane's.
    pub fn serve_statistics(&self, listener: TcpListener, mut reports: mpsc::Receiver<Report>) {
        let last = Arc::new(Mutex::new(Stat::default()));
        let heard = last.clone();
        self.tasks
            .component_cancellable("queue-statistics", async move {
                while let Some(report) = reports.recv().await {
                    if let Report::Stat { stat, .. } = report {
                        *heard.lock() = stat;
                    }
                }
                // The data plane has ended; what it said last stays.
                std::future::pending().await
            });
        let (started, pod) = (Instant::now(), self.config.pod.clone());
        let answer = move |request: http::Request<hyper::body::Incoming>| {
            let stat = Stat {
                process_uptime: started.elapsed().as_secs_f64(),
                ..*last.lock()
            };
            let body = wire::encode_stat(&pod, &stat);
            async move {
                if request.method() != Method::GET || request.uri().path() != "/metrics" {
                    return admin::text(StatusCode::NOT_FOUND, "404 page not found\n");
                }
                let mut answer = admin::text(StatusCode::OK, body);
                answer
                    .headers_mut()
                    .insert(CONTENT_TYPE, HeaderValue::from_static(STAT_TYPE));
                answer
            }
        };
        admin::serve(&self.tasks, "queue-statistics-listener", listener, answer);
    }

    /// Probes are refused from now on; returns when no request has come for the quiet time and the last one has ended,
    /// upgraded connections at most a minute after the others.
    pub async fn stop(&self) -> Cut {
        let queue = &self.handle.plane().queue;
        queue.terminate(self.handle.plane().context.now());
        quiet(self.handle.plane(), self.quiet).await;
        let timeout = self.config.timeout.max(UPGRADES_MAX);
        let cut = self
            .handle
            .shutdown_with_upgrades(timeout, UPGRADES_MAX)
            .await;
        self.tasks.shutdown(RESTART_GRACE).await;
        cut
    }
}

async fn wait_for_drain(plane: &Arc<Plane>, tasks: &Tasks, quiet_time: Duration) {
    plane.queue.drain(plane.context.now());
    let resets = plane.clone();
    tasks.spawn_cancellable("queue-proxy drain reset", async move {
        tokio::time::sleep(RESTART_GRACE).await;
        resets.queue.reset_unless_terminating();
    });
    quiet(plane, quiet_time).await;
}

/// Resolves when no request has come for `most` since the drain began, or the drain was called off.
async fn quiet(plane: &Plane, most: Duration) {
    let mut changes = plane.queue.changes();
    while let Some(since) = plane.queue.quiet_since() {
        let passed = Duration::from_nanos(plane.context.now().saturating_sub(since));
        let Some(left) = most.checked_sub(passed).filter(|left| !left.is_zero()) else {
            return;
        };
        tokio::select! {
            () = tokio::time::sleep(left) => {}
            _ = changes.changed() => {}
        }
    }
}
