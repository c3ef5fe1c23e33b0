//! `kinglet queue`: the queue-proxy of one pod, as its environment has it.

use std::net::{IpAddr, SocketAddr};

use kinglet_cli::QueueArgs;
use kinglet_dataplane::queue::{self, QueueConfig, QueueProxy};
use kinglet_dataplane::{Handle, Listener, MetricsOptions, Options, Role};
use kinglet_decide::feed::Source;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::{
    Component, TASKS_STOP_MAX, begin, report_stop, say_ready, serve_metrics, serve_profiling,
};
use crate::{listeners, request_logs};

/// The two ports that a pod of a Revision may be reached by; a queue-proxy listens on both.
const SERVING_PORTS: [u16; 2] = [8012, 8013];

/// What of a queue-proxy's environment asks for ports of their own.
async fn serve_observability(
    handle: &Handle,
    config: &QueueConfig,
    args: &QueueArgs,
) -> anyhow::Result<Vec<(&'static str, SocketAddr)>> {
    let (listen, what) = (args.common.listen, "queue-proxy");
    let mut addresses = Vec::new();
    match &config.request_metrics {
        queue::MetricsProtocol::None => {}
        queue::MetricsProtocol::Prometheus => {
            let revision = &config.revision;
            let resource = vec![
                ("service_name", config.configuration.clone()),
                ("k8s_namespace_name", revision.namespace.to_string()),
                ("k8s_pod_name", config.pod.clone()),
                ("k8s_container_name", what.to_owned()),
                ("kn_configuration_name", config.configuration.clone()),
                ("kn_revision_name", revision.name.to_string()),
            ];
            let options = MetricsOptions {
                resource,
                autoscaler: None,
            };
            let at = serve_metrics(handle, (listen, args.metrics_port), what, options).await?;
            addresses.push(("metrics", at));
        }
        queue::MetricsProtocol::Other(protocol) => {
            tracing::warn!(
                protocol,
                "OBSERVABILITY_CONFIG asks for request metrics over a protocol that is not served; choose prometheus"
            );
        }
    }
    if config.profiling {
        let at = serve_profiling(handle, (listen, args.profiling_port), what, true).await?;
        addresses.push(("profiling", at));
    }
    Ok(addresses)
}

/// Serves as a queue-proxy until it is told to stop.
pub(super) async fn queue(args: &QueueArgs) -> anyhow::Result<()> {
    let config = QueueConfig::from_environment(kinglet_cli::environment)?;
    begin(&args.common, Some(&config.logging_level))?;
    let mut component = Component::new(Options {
        role: Role::Queue,
        source: Source::itself(config.pod.as_str()),
        ..Options::default()
    })?;
    let reports = component.take_reports();
    let handle = component.handle.clone();
    let listen = args.common.listen;
    let serving = serving_listeners(listen, config.serving_port).await?;
    let admin = listeners::bind(listen, args.admin_port, "queue-proxy", "--admin-port").await?;
    let stat = listeners::bind(listen, args.stat_port, "queue-proxy", "--stat-port").await?;
    let mut addresses = vec![("admin", admin.local_addr()?), ("stat", stat.local_addr()?)];
    for (name, listener) in ["http", "other"].into_iter().zip(&serving) {
        addresses.push((name, listener.local_addr()?));
    }
    addresses.extend(serve_observability(&handle, &config, args).await?);
    if config.request_log.enabled {
        let log = &config.request_log;
        request_logs::to_standard_output(&log.template, log.probes, &handle, &component.tasks)
            .map_err(|error| {
                anyhow::anyhow!("environment variable OBSERVABILITY_CONFIG: {error}")
            })?;
    }
    let proxy = QueueProxy::new(
        handle.clone(),
        config,
        args.user_address,
        &component.updates,
        args.quiet,
    )
    .await;
    for listener in serving {
        handle.serve(listener, Listener::ClusterLocal);
    }
    proxy.serve_admin(admin);
    proxy.serve_statistics(stat, reports);
    say_ready(&args.common, "queue-proxy", &addresses)?;
    let outcome = component.stopped().await;
    if outcome.is_ok() {
        let began = Instant::now();
        report_stop(&args.common, &proxy.stop().await, began.elapsed());
    }
    component.tasks.shutdown(TASKS_STOP_MAX).await;
    outcome
}

/// The port that the controller named, and where it is one of the usual two, the other as well.
async fn serving_listeners(listen: IpAddr, port: u16) -> anyhow::Result<Vec<TcpListener>> {
    let bind = |port| listeners::bind(listen, port, "queue-proxy", "QUEUE_SERVING_PORT");
    let mut bound = vec![bind(port).await?];
    if SERVING_PORTS.contains(&port) {
        for other in SERVING_PORTS.into_iter().filter(|other| *other != port) {
            bound.push(bind(other).await?);
        }
    }
    Ok(bound)
}
