//! The readiness probe as queue-proxy gets it: JSON in the field order of Kubernetes' Go types.

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kinglet_api::config::Flag;
use serde::Serialize;

use super::PodInputs;

const LOOPBACK: &str = "127.0.0.1";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Encoded {
    #[serde(skip_serializing_if = "Option::is_none")]
    http_get: Option<HttpGet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp_socket: Option<TcpSocket>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc: Option<Grpc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initial_delay_seconds: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period_seconds: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    success_threshold: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_threshold: Option<i32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HttpGet {
    #[serde(skip_serializing_if = "String::is_empty")]
    path: String,
    port: i32,
    host: &'static str,
    scheme: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    http_headers: Vec<Header>,
}

#[derive(Serialize)]
struct Header {
    name: String,
    value: String,
}

#[derive(Serialize)]
struct TcpSocket {
    port: i32,
    host: &'static str,
}

#[derive(Serialize)]
struct Grpc {
    port: i32,
    service: String,
}

/// `SERVING_READINESS_PROBE`: one probe, or with multi-container probing a list of them.
pub(super) fn encoded(inputs: PodInputs<'_>) -> String {
    let spec = &inputs.revision.spec;
    let user_port = i32::from(spec.user_port());
    let default = Probe {
        success_threshold: Some(1),
        ..Probe::default()
    };
    let serving = spec
        .serving_container()
        .and_then(|container| container.readiness_probe.clone())
        .unwrap_or(default);
    let serving = encode(&serving, user_port);
    let json = if inputs.configs.features.multi_container_probing == Flag::Enabled {
        let all: Vec<Encoded> = std::iter::once(serving)
            .chain(spec.sidecars().filter_map(sidecar))
            .collect();
        serde_json::to_string(&all)
    } else {
        serde_json::to_string(&serving)
    };
    kinglet_api::go::escape_html(&json.expect("plain fields serialize"))
}

/// A sidecar's own probe, if queue-proxy can run it: it needs a port, and commands are run in the container.
fn sidecar(container: &Container) -> Option<Encoded> {
    let probe = container
        .readiness_probe
        .as_ref()
        .filter(|probe| probe.exec.is_none())?;
    let port = probe
        .http_get
        .as_ref()
        .map(|get| &get.port)
        .or(probe.tcp_socket.as_ref().map(|socket| &socket.port))
        .and_then(numeric)
        .or(probe
            .grpc
            .as_ref()
            .map(|grpc| grpc.port)
            .filter(|port| *port != 0))?;
    Some(encode(probe, port))
}

fn encode(probe: &Probe, user_port: i32) -> Encoded {
    let positive = |value: Option<i32>| value.filter(|value| *value != 0);
    let period_seconds = positive(probe.period_seconds);
    let timeout_seconds = match (period_seconds, probe.timeout_seconds) {
        (Some(period), timeout) if period > 0 => Some(timeout.unwrap_or(0).max(1)),
        (_, timeout) => positive(timeout),
    };
    let (mut http_get, mut tcp_socket, mut grpc) = (None, None, None);
    if let Some(get) = &probe.http_get {
        http_get = Some(http(get, user_port));
    } else if let Some(action) = &probe.grpc {
        let port = if action.port == 0 {
            user_port
        } else {
            action.port
        };
        grpc = Some(Grpc {
            port,
            service: action.service.clone().unwrap_or_default(),
        });
    } else {
        // A command is run by the kubelet; queue-proxy only sees whether anybody listens.
        let port = probe
            .tcp_socket
            .as_ref()
            .and_then(|socket| numeric(&socket.port))
            .unwrap_or(user_port);
        tcp_socket = Some(TcpSocket {
            port,
            host: LOOPBACK,
        });
    }
    Encoded {
        http_get,
        tcp_socket,
        grpc,
        initial_delay_seconds: positive(probe.initial_delay_seconds),
        timeout_seconds,
        period_seconds,
        success_threshold: positive(probe.success_threshold),
        failure_threshold: positive(probe.failure_threshold),
    }
}

fn http(get: &HTTPGetAction, user_port: i32) -> HttpGet {
    let headers = get.http_headers.iter().flatten();
    HttpGet {
        path: get.path.clone().unwrap_or_default(),
        port: numeric(&get.port).unwrap_or(user_port),
        host: LOOPBACK,
        scheme: get
            .scheme
            .clone()
            .filter(|scheme| !scheme.is_empty())
            .unwrap_or_else(|| "HTTP".to_owned()),
        http_headers: headers
            .map(|header| Header {
                name: header.name.clone(),
                value: header.value.clone(),
            })
            .collect(),
    }
}

/// A port given as a number; 0 and names stand for the user port.
fn numeric(port: &IntOrString) -> Option<i32> {
    match port {
        IntOrString::Int(number) if *number != 0 => Some(*number),
        IntOrString::Int(_) | IntOrString::String(_) => None,
    }
}
