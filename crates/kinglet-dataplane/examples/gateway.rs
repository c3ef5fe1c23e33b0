//! A gateway with one route to one backend, for measuring against other proxies.
//!
//! `gateway LISTEN BACKEND [CONCURRENCY] [h2c]`: serves host `bench.test` on LISTEN from BACKEND, an address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kinglet_dataplane::{Dataplane, Listener, Options};
use kinglet_decide::feed::{Endpoint, Key, Protocol, RevisionBackend, Update};
use kinglet_decide::route::{
    HttpOption, IngressRule, PathRule, RouteTable, Split, Target, Visibility,
};
use kinglet_process::clock::Clock;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, backend, options @ ..] = arguments.as_slice() else {
        return Err("usage: gateway LISTEN BACKEND [CONCURRENCY] [h2c]".into());
    };
    let concurrency = options.first().map_or(Ok(0), |number| number.parse())?;
    let protocol = if options.iter().any(|option| option == "h2c") {
        Protocol::H2c
    } else {
        Protocol::Http1
    };
    let (updates, update_queue) = mpsc::channel(16);
    let (report_queue, mut reports) = mpsc::channel(16);
    let (applied, _) = watch::channel(0);
    let (dataplane, handle) = Dataplane::new(
        Options::default(),
        update_queue,
        report_queue,
        applied,
        Clock::system(),
    );
    let key = Key::new("bench", "backend");
    let endpoints = vec![Endpoint {
        pod: "pod".into(),
        address: backend.parse::<SocketAddr>()?,
    }];
    let described = RevisionBackend {
        revision: key.clone(),
        configuration: "backend".into(),
        container_concurrency: concurrency,
        timeout: Duration::from_secs(300),
        response_start_timeout: Duration::ZERO,
        idle_timeout: Duration::ZERO,
        protocol,
        endpoints,
    };
    updates
        .send(Update::Revision(key, Some(Arc::new(described))))
        .await?;
    let target = Target {
        namespace: "bench".into(),
        service: "backend".into(),
        port: 80,
    };
    let split = Split {
        percent: 100,
        target,
        append_headers: vec![
            ("Knative-Serving-Revision".into(), "backend".into()),
            ("Knative-Serving-Namespace".into(), "bench".into()),
        ],
    };
    let rule = IngressRule {
        certificates: Vec::new(),
        ingress: Key::new("bench", "ingress"),
        hosts: vec!["bench.test".into(), "127.0.0.1".into()],
        visibility: Visibility::External,
        http_option: HttpOption::Enabled,
        probe_hash: String::new(),
        paths: vec![PathRule {
            splits: vec![split],
            ..PathRule::default()
        }],
    };
    updates
        .send(Update::Routes(Arc::new(RouteTable::build(1, vec![rule]))))
        .await?;
    handle.serve(TcpListener::bind(listen).await?, Listener::External);
    let drained = async { while reports.recv().await.is_some() {} };
    tokio::select! {
        () = dataplane.run(CancellationToken::new()) => {}
        () = drained => {}
        signal = tokio::signal::ctrl_c() => signal?,
    }
    handle.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
