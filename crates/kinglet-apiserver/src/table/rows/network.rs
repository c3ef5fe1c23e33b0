//! The cells of Services and their endpoints.

use serde_json::Value;

use super::{Row, or_none};
use crate::object::{items, number, text};

/// Most endpoints or ports that a cell lists.
const LISTED_MAX: usize = 3;

pub(super) fn service(row: Row<'_>) -> Vec<Value> {
    let spec = &row.object["spec"];
    let cluster = match text(spec, &["clusterIP"]) {
        "" => "<none>",
        ip => ip,
    };
    let external = external_addresses(row.object);
    let selector: Vec<String> = spec
        .get("selector")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    vec![
        row.name,
        text(spec, &["type"]).into(),
        cluster.into(),
        external.into(),
        or_none(&service_ports(spec)).into(),
        row.age,
        or_none(&selector).into(),
    ]
}

/// Returns the external addresses of a Service.
fn external_addresses(object: &Value) -> String {
    let spec = &object["spec"];
    let own: Vec<String> = items(spec, &["externalIPs"])
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    match text(spec, &["type"]) {
        "LoadBalancer" => {
            let mut list: Vec<String> = items(object, &["status", "loadBalancer", "ingress"])
                .iter()
                .map(|ingress| match text(ingress, &["ip"]) {
                    "" => text(ingress, &["hostname"]).to_owned(),
                    ip => ip.to_owned(),
                })
                .collect();
            list.extend(own);
            if list.is_empty() {
                "<pending>".to_owned()
            } else {
                list.join(",")
            }
        }
        "ExternalName" => text(spec, &["externalName"]).to_owned(),
        _ => or_none(&own),
    }
}

/// Returns `PORT/PROTOCOL` or `PORT:NODEPORT/PROTOCOL` of each port.
fn service_ports(spec: &Value) -> Vec<String> {
    items(spec, &["ports"])
        .iter()
        .map(|port| {
            let (number_, protocol) = (
                number(port, &["port"]).unwrap_or(0),
                text(port, &["protocol"]),
            );
            match number(port, &["nodePort"]).unwrap_or(0) {
                0 => format!("{number_}/{protocol}"),
                node => format!("{number_}:{node}/{protocol}"),
            }
        })
        .collect()
}

pub(super) fn endpoints(row: Row<'_>) -> Vec<Value> {
    let all = addresses(row.object);
    vec![row.name, listed(&all, "<none>").into(), row.age]
}

pub(super) fn endpoint_slice(row: Row<'_>) -> Vec<Value> {
    let kind = row.field(&["addressType"]);
    let ports = slice_ports(row.object);
    let endpoints = slice_endpoints(row.object);
    vec![row.name, kind, ports.into(), endpoints.into(), row.age]
}

/// Returns each address with each port of an Endpoints object.
fn addresses(object: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for subset in items(object, &["subsets"]) {
        let addresses = items(subset, &["addresses"]);
        let ports = items(subset, &["ports"]);
        if ports.is_empty() {
            all.extend(
                addresses
                    .iter()
                    .map(|address| text(address, &["ip"]).to_owned()),
            );
        }
        for port in ports {
            all.extend(addresses.iter().map(|address| {
                host_port(text(address, &["ip"]), number(port, &["port"]).unwrap_or(0))
            }));
        }
    }
    all
}

fn slice_ports(object: &Value) -> String {
    let all: Vec<String> = items(object, &["ports"])
        .iter()
        .map(|port| {
            number(port, &["port"]).map_or_else(|| "*".to_owned(), |number| number.to_string())
        })
        .collect();
    listed(&all, "<unset>")
}

fn slice_endpoints(object: &Value) -> String {
    let all: Vec<String> = items(object, &["endpoints"])
        .iter()
        .flat_map(|endpoint| items(endpoint, &["addresses"]))
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    listed(&all, "<unset>")
}

/// Joins the first few entries and counts the rest.
fn listed(all: &[String], none: &str) -> String {
    match all.len() {
        0 => none.to_owned(),
        count if count > LISTED_MAX => format!(
            "{} + {} more...",
            all[..LISTED_MAX].join(","),
            count - LISTED_MAX
        ),
        _ => all.join(","),
    }
}

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}
