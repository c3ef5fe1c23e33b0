//! What an activator or a queue-proxy answers itself, and where each of them sends the rest (spec/cluster.md 3.6).

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use kinglet_decide::route::{Visibility, bare_host};

use super::by_name;
use super::find::Routed;
use crate::headers::{self, HeaderFlags};
use crate::listen::Peer;
use crate::plane::Plane;
use crate::response::{self, ProxyError, ResponseBody};
use crate::role::{Health, Role};

/// Host and path by which the kubelet asks Kourier's gateway pods.
const GATEWAY_PROBE: (&str, &str) = ("internalkourier", "/ready");

pub(super) fn is_gateway_probe(peer: &Peer, role: Role, host: &str, path: &str) -> bool {
    role == Role::Gateway
        && peer.visibility == Visibility::ClusterLocal
        && (bare_host(host), path) == GATEWAY_PROBE
}

/// A gateway is ready once it has its first route table.
pub(super) fn gateway_ready(plane: &Plane) -> Result<Response<ResponseBody>, ProxyError> {
    match plane.health.get() {
        Health::Ready => Ok(response::ok()),
        Health::NotConnected => Err(ProxyError::NotReady),
        Health::Stopping => Err(ProxyError::ShuttingDown),
    }
}

/// Probes first: they need no Revision. Everything else names one.
pub(super) fn activator(
    plane: &Plane,
    parts: &Parts,
    flags: HeaderFlags,
    host: &str,
) -> Result<Routed, ProxyError> {
    if flags.has(HeaderFlags::KUBELET_PROBE) {
        return match plane.health.get() {
            Health::Ready => Ok(Routed::LocalReply(response::ok())),
            Health::NotConnected => Err(ProxyError::NotConnected),
            Health::Stopping => Err(ProxyError::Terminating),
        };
    }
    if let Some(answer) = probe(&parts.headers, flags, None) {
        return answer.map(Routed::LocalReply);
    }
    match by_name::revision_at_activator(plane, &parts.headers, host) {
        Ok(destination) => Ok(Routed::To(destination)),
        Err(key) => Err(ProxyError::UnknownBackend { key }),
    }
}

/// Readiness and hash probes are answered; all else goes to the user container, what the kubelet marks by a header uncounted.
pub(super) fn queue(
    plane: &Plane,
    parts: &Parts,
    flags: HeaderFlags,
) -> Result<Routed, ProxyError> {
    let queue = &plane.queue;
    let probe = parts.headers.get(headers::NETWORK_PROBE);
    if flags.has(HeaderFlags::QUEUE_PROBE) {
        if queue.is_draining() {
            return Err(ProxyError::ShuttingDown);
        }
        if probe.is_none_or(|probe| probe != "queue") {
            let value = probe.map_or_else(Default::default, HeaderValue::as_bytes);
            return Err(ProxyError::UnexpectedQueueProbe(response::echo(
                &String::from_utf8_lossy(value),
            )));
        }
        return Ok(Routed::ReadinessCheck);
    }
    if probe.is_some_and(|probe| probe == "probe") {
        if queue.is_draining() {
            return Err(ProxyError::ShuttingDown);
        }
        let echo = hash_echo(&parts.headers, None);
        return match queue.user_container(true) {
            Some(user) => Ok(Routed::Probe(echo, user)),
            None => echo.map(Routed::LocalReply),
        };
    }
    queue.request_came(plane.context.now());
    let counted = !flags.has(HeaderFlags::KUBELET_PROBE);
    match queue.user_container(counted) {
        Some(destination) => Ok(Routed::To(destination)),
        None => Err(ProxyError::NotReady),
    }
}

/// Probes that an activator answers itself (spec/serving.md 6.2.1): they wake nothing and are not counted.
pub(super) fn probe(
    headers: &HeaderMap,
    flags: HeaderFlags,
    ours: Option<&HeaderValue>,
) -> Option<Result<Response<ResponseBody>, ProxyError>> {
    if flags.has(HeaderFlags::KUBELET_PROBE) {
        return Some(Ok(response::ok()));
    }
    if !flags.has(HeaderFlags::NETWORK_PROBE) {
        return None;
    }
    let probe = headers.get(headers::NETWORK_PROBE)?;
    Some(match probe.as_bytes() {
        b"probe" => hash_echo(headers, ours),
        b"activator" => Ok(response::text(StatusCode::OK, "activator")),
        other => Err(ProxyError::UnexpectedProbe(response::echo(
            &String::from_utf8_lossy(other),
        ))),
    })
}

/// The hash comes back; `override` becomes `ours` where a gateway is part of this.
fn hash_echo(
    headers: &HeaderMap,
    ours: Option<&HeaderValue>,
) -> Result<Response<ResponseBody>, ProxyError> {
    let asked = headers
        .get(headers::NETWORK_HASH)
        .filter(|hash| !hash.is_empty())
        .ok_or(ProxyError::ProbeWithoutHash)?;
    let ours = ours.filter(|_| asked == "override");
    let mut response = response::ok();
    response
        .headers_mut()
        .insert(headers::NETWORK_HASH, ours.unwrap_or(asked).clone());
    Ok(response)
}
