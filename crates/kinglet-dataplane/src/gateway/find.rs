//! The first stage: from host, path and headers to a destination, or to an answer that needs none.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, Method, Response};
use kinglet_decide::route::{NoRoute, Visibility};

use super::{by_name, component};
use crate::headers::{self, HeaderFlags, HostError};
use crate::listen::Peer;
use crate::local::LocalEntry;
use crate::plane::Plane;
use crate::response::{self, ProxyError, ResponseBody};
use crate::role::Role;
use crate::routes::{Destination, Routes};

/// Where a request goes.
pub(super) enum Routed {
    To(Arc<Destination>),
    LocalReply(Response<ResponseBody>),
    /// A probe of a Revision, with what answers it.
    Probe(Result<Response<ResponseBody>, ProxyError>, Arc<Destination>),
    /// A service of this process.
    Local(Arc<LocalEntry>),
    /// A queue-proxy is asked whether its user container is ready.
    ReadinessCheck,
}

/// Finds the route of a request, or what answers it right here.
pub(super) fn route(
    plane: &Plane,
    peer: &Peer,
    parts: &Parts,
    flags: HeaderFlags,
) -> Result<Routed, ProxyError> {
    if parts.method == Method::CONNECT {
        return Err(ProxyError::Connect);
    }
    if parts.uri.scheme().is_none() && parts.uri.authority().is_some() {
        return Err(ProxyError::Target);
    }
    if headers::has_unsupported_encoding(&parts.headers, flags) {
        return Err(ProxyError::TransferEncoding);
    }
    let host = headers::requested_host(parts).map_err(|fault| match fault {
        HostError::None => ProxyError::NoHost,
        HostError::Many => ProxyError::ManyHosts,
    })?;
    match plane.options().role {
        Role::Whole | Role::Gateway => by_table(plane, peer, parts, flags, host),
        Role::Activator => component::activator(plane, parts, flags, host),
        Role::Queue => component::queue(plane, parts, flags),
    }
}

fn by_table(
    plane: &Plane,
    peer: &Peer,
    parts: &Parts,
    flags: HeaderFlags,
    host: &str,
) -> Result<Routed, ProxyError> {
    if let Some(server_name) = peer.server_name()
        && !plane
            .certificates
            .covers(peer.visibility, server_name, host)
    {
        let host = response::echo(host);
        return Err(ProxyError::Misdirected { host });
    }
    let path = parts.uri.path();
    let routes = plane.routes.load();
    let header = |name: &str| parts.headers.get(name).map(http::HeaderValue::as_bytes);
    let role = plane.options().role;
    let matched = match routes.table.find(peer.visibility, host, path, header) {
        Ok(matched) => matched,
        Err(NoRoute::Host) if component::is_gateway_probe(peer, role, host, path) => {
            return component::gateway_ready(plane).map(Routed::LocalReply);
        }
        Err(NoRoute::Host) => {
            let inside = peer.visibility == Visibility::ClusterLocal && role == Role::Whole;
            if inside && let Some(local) = plane.locals.by_host(host, plane) {
                return Ok(Routed::Local(local));
            }
            let named = inside.then(|| by_name::revision(plane, &parts.headers, host));
            let Some(named) = named.flatten() else {
                let host = response::echo(host);
                return Err(ProxyError::UnknownHost { host });
            };
            return Ok(probe_or_to(plane, &parts.headers, flags, named?));
        }
        Err(NoRoute::Path) => {
            return Err(ProxyError::UnknownPath {
                host: response::echo(host),
                path: response::echo(path),
            });
        }
    };
    if matched.redirect
        && !peer.tls
        && let Some(https_port) = plane.options().https_port
    {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        return Ok(Routed::LocalReply(response::to_https(
            host, https_port, path,
        )));
    }
    let mut destination = routes.destination(matched.index).clone();
    // Never for requests from outside, whatever a rule says.
    if peer.visibility == Visibility::ClusterLocal
        && let Some(local) = plane.locals.by_key(destination.cluster.key())
    {
        return Ok(Routed::Local(local));
    }
    if let Some(behind) = behind_domain(&routes, &destination, path, header) {
        destination = behind;
    }
    Ok(probe_or_to(plane, &parts.headers, flags, destination))
}

/// Answers a probe of a Revision right here; everything else goes to the destination.
fn probe_or_to(
    plane: &Plane,
    headers: &HeaderMap,
    flags: HeaderFlags,
    destination: Arc<Destination>,
) -> Routed {
    let ours = plane.options().role == Role::Whole && !destination.cluster.is_service();
    if ours && let Some(answer) = component::probe(headers, flags, destination.probe_hash.as_ref())
    {
        return Routed::Probe(answer, destination);
    }
    Routed::To(destination)
}

/// A mapped domain leads to another host's name on the local gateway, which is this one: the second way is found at once.
fn behind_domain<'h>(
    routes: &Routes,
    domain: &Arc<Destination>,
    path: &str,
    header: impl Fn(&str) -> Option<&'h [u8]>,
) -> Option<Arc<Destination>> {
    let rewritten = domain
        .rewrite_host
        .as_ref()
        .filter(|_| !domain.cluster.is_known())?;
    let matched = routes
        .table
        .find(
            Visibility::ClusterLocal,
            rewritten.to_str().ok()?,
            path,
            header,
        )
        .ok()?;
    let behind = routes.destination(matched.index);
    Some(Arc::new(Destination {
        cluster: behind.cluster.clone(),
        port: behind.port,
        headers: domain
            .headers
            .iter()
            .chain(&behind.headers)
            .cloned()
            .collect(),
        service_headers: behind.service_headers.clone(),
        original_host: domain.original_host.clone(),
        rewrite_host: domain.rewrite_host.clone(),
        probe_hash: behind.probe_hash.clone(),
    }))
}
