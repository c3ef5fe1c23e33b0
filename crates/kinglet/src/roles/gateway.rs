//! `kinglet gateway`: its listeners, and what serves on them once the routes are known.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context as _;
use kinglet_cli::GatewayArgs;
use kinglet_dataplane::{Health, Listener, Options, Role, feed};
use tokio::net::TcpListener;

use super::{Component, begin, say_ready};
use crate::listeners;

/// Serves as a gateway until it is told to stop.
pub(super) async fn gateway(args: &GatewayArgs) -> anyhow::Result<()> {
    begin(&args.common, None)?;
    let mut component = Component::new(Options {
        role: Role::Gateway,
        // The Service in front of it listens on the usual port; where ports are shared, nothing is in front.
        https_port: if args.shared_ports {
            args.https_port
        } else {
            Some(443)
        },
        unknown_backend_wait: Duration::ZERO,
        ..Options::default()
    })?;
    drop(component.take_reports());
    let handle = component.handle.clone();
    handle.set_health(Health::NotConnected);
    let feed = component.follow_feed(&args.feed).await?;
    let listen = args.common.listen;
    let Bound {
        external,
        local,
        own,
    } = gateway_listeners(args).await?;
    let status = listeners::bind(listen, args.status_port, "gateway", "--status-port").await?;
    let (https, local_https) = https_listeners(args).await?;
    let mut addresses = vec![
        ("http", external.local_addr()?),
        ("local", local.local_addr()?),
        ("status", status.local_addr()?),
    ];
    let named = [
        ("own", &own),
        ("https", &https),
        ("localHttps", &local_https),
    ];
    for (name, listener) in named {
        if let Some(listener) = listener {
            addresses.push((name, listener.local_addr()?));
        }
    }
    component.tasks.component_cancellable(
        "route-tables",
        feed::follow(feed, component.updates.clone()),
    );
    handle.serve_gateway_status(status);
    let first = component.applied.wait_for(|version| *version > 0).await;
    first.context("the data plane ended")?;
    handle.serve(external, Listener::External);
    for local in [Some(local), own].into_iter().flatten() {
        handle.serve(local, Listener::ClusterLocal);
    }
    for (listener, kind) in [
        (https, Listener::External),
        (local_https, Listener::ClusterLocal),
    ] {
        if let Some(listener) = listener {
            handle.serve_tls(listener, kind)?;
        }
    }
    handle.set_health(Health::Ready);
    say_ready(&args.common, "gateway", &addresses)?;
    component
        .serve_until_stopped(&args.common, args.drain)
        .await
}

/// What a gateway listens on.
struct Bound {
    external: TcpListener,
    local: TcpListener,
    /// Its own alone, where it shares the others: by it this one is asked what it serves.
    own: Option<TcpListener>,
}

async fn gateway_listeners(args: &GatewayArgs) -> anyhow::Result<Bound> {
    let listen = args.common.listen;
    let local_listen = args.local_listen.unwrap_or(listen);
    if args.shared_ports {
        let loopback = Ipv4Addr::LOCALHOST.into();
        return Ok(Bound {
            external: listeners::bind_shared(listen, args.http_port, "gateway")?,
            local: listeners::bind_shared(local_listen, args.local_port, "gateway")?,
            own: Some(listeners::bind(loopback, 0, "gateway's probes", "--shared-ports").await?),
        });
    }
    Ok(Bound {
        external: listeners::bind(listen, args.http_port, "gateway", "--http-port").await?,
        local: listeners::bind(local_listen, args.local_port, "gateway", "--local-port").await?,
        own: None,
    })
}

/// Kourier's ports for https, unless others were asked for. Where ports are shared, only those that were.
async fn https_listeners(
    args: &GatewayArgs,
) -> anyhow::Result<(Option<TcpListener>, Option<TcpListener>)> {
    let listen = args.common.listen;
    let local_listen = args.local_listen.unwrap_or(listen);
    if args.shared_ports {
        let shared = |address, port: Option<u16>| {
            port.map(|port| listeners::bind_shared(address, port, "gateway"))
                .transpose()
        };
        return Ok((
            shared(listen, args.https_port)?,
            shared(local_listen, args.local_https_port)?,
        ));
    }
    let beside = |plain: u16, usual: u16| if plain == 0 { 0 } else { usual };
    let port = args.https_port;
    let port = port.unwrap_or_else(|| beside(args.http_port, 8443));
    let local = args.local_https_port;
    let local = local.unwrap_or_else(|| beside(args.local_port, 8444));
    Ok((
        Some(listeners::bind(listen, port, "gateway", "--https-port").await?),
        Some(listeners::bind(local_listen, local, "gateway", "--local-https-port").await?),
    ))
}
