//! Services: cluster IPs and node ports.

use std::borrow::Cow;
use std::collections::HashSet;

use kinglet_store::Store;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::context::RequestContext;
use crate::object::{self, blank, child, fields, text};
use crate::state::ServerState;
use crate::status::{Cause, Status};

/// Addresses tried at random before the network is searched in order.
const RANDOM_TRIES: usize = 32;

/// Cluster IPs that stored Services hold.
pub(crate) fn used_addresses(store: &Store) -> HashSet<[u8; 4]> {
    let page = store.list("core/services/", None, 0, None);
    let entries = page.map(|page| page.entries).unwrap_or_default();
    entries
        .iter()
        .filter_map(|(_, entry)| stored_address(&entry.value))
        .collect()
}

/// The address of a Service as it is stored; a start reads that of every one, and nothing else of it.
fn stored_address(raw: &[u8]) -> Option<[u8; 4]> {
    #[derive(Deserialize)]
    struct Stored<'a> {
        #[serde(borrow)]
        spec: Spec<'a>,
    }
    #[derive(Deserialize)]
    struct Spec<'a> {
        #[serde(rename = "clusterIP", borrow)]
        cluster_ip: Cow<'a, str>,
    }
    let stored: Stored<'_> = serde_json::from_slice(raw).ok()?;
    let address: std::net::Ipv4Addr = stored.spec.cluster_ip.parse().ok()?;
    Some(address.octets())
}

fn address(service: &Value) -> Option<[u8; 4]> {
    text(service, &["spec", "clusterIP"])
        .parse::<std::net::Ipv4Addr>()
        .ok()
        .map(|ip| ip.octets())
}

/// The address families of a Service that has addresses: IPv4 is what there is.
pub(crate) fn families(service: &mut Value) {
    if text(service, &["spec", "type"]) == "ExternalName" {
        return;
    }
    let spec = child(fields(service), "spec");
    if blank(spec.get("ipFamilies")) {
        spec.insert("ipFamilies".to_owned(), json!(["IPv4"]));
    }
    object::default_text(spec, "ipFamilyPolicy", "SingleStack");
}

/// Gives a new (or changed) Service its address.
pub(crate) fn claim(context: &RequestContext<'_>, service: &mut Value) -> Result<(), Status> {
    let kind = text(service, &["spec", "type"]).to_owned();
    if kind == "ExternalName" {
        return Ok(());
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        node_ports(context.server, service);
    }
    match text(service, &["spec", "clusterIP"]) {
        "None" => {
            set(service, "None");
            return Ok(());
        }
        "" => {}
        wanted => {
            let wanted = wanted.to_owned();
            let network = context.server.options.service_network;
            let invalid = |detail: &str| {
                let cause = Cause::invalid("spec.clusterIPs", &json!([wanted]), detail);
                Err(Status::invalid(
                    "",
                    "Service",
                    object::name(service),
                    &[cause],
                ))
            };
            let Some(ip) = address(service) else {
                return invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
            };
            if ip[..2] != network {
                return invalid(&format!(
                    "failed to allocate IP {wanted}: the provided network does not match the current range"
                ));
            }
            let free = context.dry_run() || context.server.addresses.lock().insert(ip);
            if !free {
                return invalid(&format!(
                    "failed to allocate IP {wanted}: provided IP is already allocated"
                ));
            }
            set(service, &wanted);
            return Ok(());
        }
    }
    let Some(ip) = pick(context) else {
        return Err(Status::internal(
            "failed to allocate a serviceIP: range is full",
        ));
    };
    set(service, &std::net::Ipv4Addr::from(ip).to_string());
    Ok(())
}

fn set(service: &mut Value, ip: &str) {
    let spec = child(fields(service), "spec");
    spec.insert("clusterIP".to_owned(), ip.into());
    spec.insert("clusterIPs".to_owned(), json!([ip]));
}

fn pick(context: &RequestContext<'_>) -> Option<[u8; 4]> {
    let [a, b] = context.server.options.service_network;
    let mut used = context.server.addresses.lock();
    // Kubernetes keeps the first block for those who choose their address themselves.
    let good = |c: u8, d: u8| c != 0 && (c, d) != (255, 255);
    let mut random = [0u8; RANDOM_TRIES * 2];
    (context.server.options.entropy)(&mut random);
    let tried = random.chunks(2).map(|pair| (pair[0], pair[1]));
    let all = (0..=u16::MAX).map(|number| {
        let [c, d] = number.to_be_bytes();
        (c, d)
    });
    for (c, d) in tried.chain(all) {
        let ip = [a, b, c, d];
        if good(c, d) && !used.contains(&ip) {
            if !context.dry_run() {
                used.insert(ip);
            }
            return Some(ip);
        }
    }
    None
}

fn node_ports(server: &ServerState, service: &mut Value) {
    let spec = child(fields(service), "spec");
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) == 0 {
            let mut random = [0u8; 2];
            (server.options.entropy)(&mut random);
            let number = 30_000 + u32::from(u16::from_be_bytes(random)) % 2768;
            fields(port).insert("nodePort".to_owned(), number.into());
        }
    }
}

/// Keeps the address over an update that does not name one.
pub(crate) fn on_update(context: &RequestContext<'_>, service: &mut Value, old: &Value) {
    let (kind, before) = (
        text(service, &["spec", "type"]).to_owned(),
        text(old, &["spec", "type"]).to_owned(),
    );
    if kind == "ExternalName" {
        if before != "ExternalName" {
            let spec = child(fields(service), "spec");
            for key in [
                "clusterIP",
                "clusterIPs",
                "ipFamilies",
                "ipFamilyPolicy",
                "internalTrafficPolicy",
            ] {
                spec.remove(key);
            }
        }
        return;
    }
    if before == "ExternalName" {
        families(service);
        if blank(service["spec"].get("clusterIP")) {
            // A refusal (full network) shows as a Service without an address, which validation then names.
            let _ = claim(context, service);
        }
        return;
    }
    let spec = child(fields(service), "spec");
    for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if blank(spec.get(key))
            && let Some(value) = old["spec"].get(key)
        {
            spec.insert(key.to_owned(), value.clone());
        }
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        let known: Vec<Value> = object::items(old, &["spec", "ports"]).to_vec();
        for port in object::child(fields(service), "spec")
            .get_mut("ports")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) == 0
                && let Some(same) = known.iter().find(|each| {
                    each["port"] == port["port"] && each["protocol"] == port["protocol"]
                })
                && let Some(number) = same.get("nodePort")
            {
                fields(port).insert("nodePort".to_owned(), number.clone());
            }
        }
        node_ports(context.server, service);
    }
}

pub(crate) fn release(server: &ServerState, service: &Value) {
    if let Some(ip) = address(service) {
        server.addresses.lock().remove(&ip);
    }
}

/// A Service changed or went: its former address is free if it is no longer used.
pub(crate) fn moved(server: &ServerState, old: &Value, new: Option<&Value>) {
    let (before, now) = (address(old), new.and_then(address));
    if before != now {
        let mut used = server.addresses.lock();
        if let Some(ip) = before {
            used.remove(&ip);
        }
        if let Some(ip) = now {
            used.insert(ip);
        }
    }
}
