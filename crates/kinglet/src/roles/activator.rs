//! `kinglet activator`: between gateways and queue-proxies, with statistics for the autoscaler.

use kinglet_cli::{ActivatorArgs, MetricsProtocol};
use kinglet_dataplane::activator::Backends;
use kinglet_dataplane::stats::{StatClient, StatClientOptions};
use kinglet_dataplane::{Health, Listener, MetricsOptions, Options, Role, StatConnection};
use kinglet_decide::feed::{Report, Source};
use tokio::sync::mpsc;

use super::{Component, begin, say_ready, serve_metrics, serve_profiling};
use crate::listeners;

/// Serves as an activator until it is told to stop.
pub(super) async fn activator(args: &ActivatorArgs) -> anyhow::Result<()> {
    begin(&args.common, None)?;
    let mut component = Component::new(Options {
        role: Role::Activator,
        source: Source::itself(args.pod_name.as_str()),
        cluster_domain: args.cluster_domain.clone(),
        idle_connections_max: args.max_idle_proxy_conns_per_host,
        ..Options::default()
    })?;
    let reports = component.take_reports();
    let handle = component.handle.clone();
    let autoscaler = args
        .autoscaler
        .as_ref()
        .map(|autoscaler| send_statistics(&component, autoscaler, reports));
    let feed = component.follow_feed(&args.feed).await?;
    let listen = args.common.listen;
    let http = listeners::bind(listen, args.http_port, "activator", "--http-port").await?;
    let h2c = listeners::bind(listen, args.h2c_port, "activator", "--h2c-port").await?;
    let mut addresses = vec![("http", http.local_addr()?), ("h2c", h2c.local_addr()?)];
    if args.metrics_protocol == MetricsProtocol::Prometheus {
        let resource = vec![
            ("service_name", "activator".to_owned()),
            ("k8s_pod_name", args.pod_name.clone()),
        ];
        let options = MetricsOptions {
            resource,
            autoscaler,
        };
        let at = serve_metrics(&handle, (listen, args.metrics_port), "activator", options).await?;
        addresses.push(("metrics", at));
    }
    let port = (listen, args.profiling_port);
    let profiling = serve_profiling(&handle, port, "activator", args.profiling).await?;
    addresses.push(("profiling", profiling));
    let backends = Backends {
        own: args.pod_ip,
        timeout: args.probe_timeout,
        every: args.probe_frequency,
    };
    component.tasks.component_cancellable(
        "queue-proxy-probes",
        backends.run(feed, component.updates.clone()),
    );
    for listener in [http, h2c] {
        handle.serve(listener, Listener::ClusterLocal);
    }
    say_ready(&args.common, "activator", &addresses)?;
    component
        .serve_until_stopped(&args.common, args.drain)
        .await
}

/// Reports go to the autoscaler; while they cannot, the activator is not ready.
fn send_statistics(
    component: &Component,
    autoscaler: &str,
    reports: mpsc::Receiver<Report>,
) -> StatConnection {
    component.handle.set_health(Health::NotConnected);
    let client = StatClient::new(StatClientOptions::new(autoscaler));
    let mut connected = client.is_connected();
    let connection = client.connection();
    let tasks = &component.tasks;
    tasks.component("statistics", client.run(reports, tasks.token()));
    let handle = component.handle.clone();
    tasks.component_cancellable("autoscaler-health", async move {
        loop {
            let health = match *connected.borrow_and_update() {
                true => Health::Ready,
                false => Health::NotConnected,
            };
            handle.set_health(health);
            if connected.changed().await.is_err() {
                // The client has ended, which its owner notices.
                return std::future::pending().await;
            }
        }
    });
    connection
}
