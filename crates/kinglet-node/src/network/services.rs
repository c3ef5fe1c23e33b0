//! From Services and their EndpointSlices to packet filter rules: pure.
//!
//! Each port of a Service that has endpoints is a chain, which the map [`SERVICES`] names for its address, protocol and
//! port; a node port is another way to the same chain. A Service without endpoints is in no map, so the packet keeps its
//! address, which belongs to nobody, and is refused.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use sha2::{Digest as _, Sha256};

use super::ruleset::{Expression, Protocol, Ruleset, Set, SetKey, SetKind};

/// Map of Service addresses.
pub(super) const SERVICES: &str = "services";
/// Map of node ports.
pub(super) const NODE_PORTS: &str = "node_ports";
/// Endpoints as source and destination: who reaches himself must see another source.
pub(super) const HAIRPIN: &str = "hairpin";
/// On Knative's own Services of a Revision; there is no queue-proxy process behind their ports, the gateway answers.
pub(super) const SERVICE_TYPE: &str = "networking.internal.knative.dev/serviceType";
/// Kubernetes' default for `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS: i32 = 10_800;
/// Endpoints that one port's rules name; a node holds a thousand pods.
const ENDPOINTS_MAX: usize = 1024;

/// Where what has no process of its own is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gateway {
    pub(super) address: SocketAddrV4,
    /// Also in place of activators and queue-proxies.
    pub(super) answers_revisions: bool,
}

/// One Service with the slices of its name.
pub(super) type Observed = (Arc<Service>, Vec<Arc<EndpointSlice>>);

/// Adds chains, maps and sets of all Services.
pub(super) fn add(ruleset: &mut Ruleset, services: &[Observed], gateway: Gateway) {
    for (name, kind) in [
        (SERVICES, SetKind::AddressDispatch),
        (NODE_PORTS, SetKind::PortDispatch),
        (HAIRPIN, SetKind::Pairs),
    ] {
        ruleset.sets.insert(name.to_owned(), Set::new(kind));
    }
    for (service, slices) in services {
        let Some(address) = cluster_address(service) else {
            continue;
        };
        for port in service
            .spec
            .iter()
            .flat_map(|spec| spec.ports.iter().flatten())
        {
            add_port(ruleset, service, address, port, slices, gateway);
        }
    }
}

/// Leads a port of the host's address on the bridge to where the gateway really listens.
pub(super) fn move_port(ruleset: &mut Ruleset, address: Ipv4Addr, port: u16, gateway: Gateway) {
    let chain = format!("moved-{port}");
    at_random(ruleset, &chain, &[gateway.address]);
    if let Some(set) = ruleset.sets.get_mut(SERVICES) {
        let key = SetKey::Address(address, Protocol::Tcp, port);
        set.elements.insert(key, Some(chain));
    }
}

/// The address of a Service that has one.
pub(crate) fn cluster_address(service: &Service) -> Option<Ipv4Addr> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.cluster_ip.as_deref()?.parse().ok()
}

fn add_port(
    ruleset: &mut Ruleset,
    service: &Service,
    address: Ipv4Addr,
    port: &ServicePort,
    slices: &[Arc<EndpointSlice>],
    gateway: Gateway,
) {
    let (Some(protocol), Ok(number)) = (
        Protocol::named(port.protocol.as_deref()),
        u16::try_from(port.port),
    ) else {
        return;
    };
    let endpoints = if gateway.answers_revisions && is_of_revision(service) {
        BTreeSet::from([gateway.address])
    } else {
        endpoints_of(port, protocol, slices)
    };
    if endpoints.is_empty() {
        return;
    }
    let endpoints: Vec<_> = endpoints.into_iter().take(ENDPOINTS_MAX).collect();
    let chain = chain_name(
        "service",
        service,
        &[&protocol.to_string(), &number.to_string()],
    );
    match affinity_seconds(service) {
        Some(seconds) => with_affinity(ruleset, &chain, service, &endpoints, seconds),
        None => at_random(ruleset, &chain, &endpoints),
    }
    let mut lead = |map: &str, key: SetKey| {
        if let Some(set) = ruleset.sets.get_mut(map) {
            set.elements.insert(key, Some(chain.clone()));
        }
    };
    lead(SERVICES, SetKey::Address(address, protocol, number));
    let node_port = port.node_port.and_then(|port| u16::try_from(port).ok());
    if let Some(node_port) = node_port.filter(|port| *port > 0) {
        lead(NODE_PORTS, SetKey::Port(protocol, node_port));
    }
    if let Some(hairpin) = ruleset.sets.get_mut(HAIRPIN) {
        let pairs = endpoints.iter().map(|endpoint| *endpoint.ip());
        hairpin
            .elements
            .extend(pairs.map(|one| (SetKey::Pair(one, one), None)));
    }
}

fn is_of_revision(service: &Service) -> bool {
    let labels = service.metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key(SERVICE_TYPE))
}

fn affinity_seconds(service: &Service) -> Option<u32> {
    let spec = service.spec.as_ref()?;
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let configured = spec.session_affinity_config.as_ref();
    let configured = configured.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    u32::try_from(configured.unwrap_or(AFFINITY_SECONDS)).ok()
}

/// Each endpoint equally often: the first of n with 1/n, the next with 1/(n-1), and so on.
fn at_random(ruleset: &mut Ruleset, chain: &str, endpoints: &[SocketAddrV4]) {
    for (left, endpoint) in (1..=endpoints.len()).rev().zip(endpoints) {
        let translate = Expression::TranslateDestination(*endpoint);
        ruleset.add_rule(chain, one_in(left).into_iter().chain([translate]));
    }
}

fn one_in(left: usize) -> Option<Expression> {
    let left = u32::try_from(left).unwrap_or(u32::MAX);
    (left > 1).then_some(Expression::OneIn(left))
}

/// Who came before goes where he went; each endpoint has a set of its clients, which goes with it.
fn with_affinity(
    ruleset: &mut Ruleset,
    chain: &str,
    service: &Service,
    endpoints: &[SocketAddrV4],
    seconds: u32,
) {
    ruleset.chains.entry(chain.to_owned()).or_default();
    let lasting = seconds.to_string();
    let names = endpoints.iter().map(|endpoint| {
        let endpoint = endpoint.to_string();
        let name = |what| chain_name(what, service, &[chain, &endpoint, &lasting]);
        (name("endpoint"), name("clients"))
    });
    let names: Vec<_> = names.collect();
    for ((own_chain, clients), endpoint) in names.iter().zip(endpoints) {
        let set = Set::new(SetKind::RememberedSources(seconds));
        ruleset.sets.insert(clients.clone(), set);
        ruleset.add_rule(own_chain, [Expression::RememberSource(clients.clone())]);
        ruleset.add_rule(own_chain, [Expression::TranslateDestination(*endpoint)]);
        let known = Expression::SourceInSet(clients.clone());
        ruleset.add_rule(chain, [known, Expression::Goto(own_chain.clone())]);
    }
    for (left, (own_chain, _)) in (1..=names.len()).rev().zip(&names) {
        let go = Expression::Goto(own_chain.clone());
        ruleset.add_rule(chain, one_in(left).into_iter().chain([go]));
    }
}

/// A short name that only this has: namespaces and names together can be longer than the kernel takes.
fn chain_name(what: &str, service: &Service, parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    let metadata = &service.metadata;
    let of = [metadata.namespace.as_deref(), metadata.name.as_deref()];
    for part in of.into_iter().flatten().chain(parts.iter().copied()) {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let hash = hash.finalize();
    let hex: String = hash.iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("{what}_{hex}")
}

/// The endpoints of one port of a Service. The slices' ports have the names of the Service's and the numbers of the
/// endpoints' own, so a `targetPort` by name or number is resolved already. While nobody is ready, those who end and
/// still serve take what comes, as with kube-proxy.
fn endpoints_of(
    port: &ServicePort,
    protocol: Protocol,
    slices: &[Arc<EndpointSlice>],
) -> BTreeSet<SocketAddrV4> {
    let wanted = port.name.as_deref().unwrap_or("");
    let (mut ready, mut ending) = (BTreeSet::new(), BTreeSet::new());
    for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
        let ports = slice.ports.iter().flatten().filter(|candidate| {
            candidate.name.as_deref().unwrap_or("") == wanted
                && Protocol::named(candidate.protocol.as_deref()) == Some(protocol)
        });
        for number in ports.filter_map(|port| u16::try_from(port.port?).ok()) {
            for endpoint in &slice.endpoints {
                let into = match state(endpoint) {
                    EndpointState::Ready => &mut ready,
                    EndpointState::ServingWhileEnding => &mut ending,
                    EndpointState::Out => continue,
                };
                // An endpoint's addresses are one and the same thing; the first is taken.
                let address = endpoint
                    .addresses
                    .first()
                    .and_then(|text| text.parse().ok());
                if let Some(address) = address.filter(|address| is_reachable(*address)) {
                    into.insert(SocketAddrV4::new(address, number));
                }
            }
        }
    }
    if ready.is_empty() { ending } else { ready }
}

enum EndpointState {
    Ready,
    ServingWhileEnding,
    Out,
}

fn state(endpoint: &Endpoint) -> EndpointState {
    let Some(conditions) = &endpoint.conditions else {
        return EndpointState::Ready;
    };
    if conditions.ready != Some(false) {
        EndpointState::Ready
    } else if conditions.serving == Some(true) && conditions.terminating == Some(true) {
        EndpointState::ServingWhileEnding
    } else {
        EndpointState::Out
    }
}

/// Whoever writes EndpointSlices by hand may not lead pods to the host's loopback or to the cloud's metadata.
fn is_reachable(address: Ipv4Addr) -> bool {
    !(address.is_loopback()
        || address.is_link_local()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn compiled(service: Value, slices: &[Value]) -> String {
        let mut service = service;
        service["metadata"]["name"] = json!("web");
        service["metadata"]["namespace"] = json!("ns");
        let slices = slices
            .iter()
            .map(|slice| Arc::new(serde_json::from_value(slice.clone()).expect("slice")));
        let observed = (
            Arc::new(serde_json::from_value(service).expect("service")),
            slices.collect(),
        );
        let gateway = Gateway {
            address: SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 1), 80),
            answers_revisions: true,
        };
        let mut ruleset = Ruleset::default();
        add(&mut ruleset, &[observed], gateway);
        let names = ruleset.chains.keys().chain(ruleset.sets.keys());
        let hashed: Vec<String> = names
            .filter(|name| name.contains("_") && *name != NODE_PORTS)
            .cloned()
            .collect();
        let mut text = ruleset.to_string();
        for (index, name) in hashed.iter().enumerate() {
            let what = name.split('_').next().unwrap_or_default();
            text = text.replace(name, &format!("{what}{index}"));
        }
        text
    }

    fn slice(ports: Value, endpoints: Value) -> Value {
        json!({"metadata": {}, "addressType": "IPv4", "ports": ports, "endpoints": endpoints})
    }

    #[test]
    fn ports_lead_to_the_endpoints_own_ports_by_name() {
        let text = compiled(
            json!({"spec": {"clusterIP": "10.9.0.5", "ports": [
                {"name": "by-number", "port": 80, "targetPort": 8080},
                {"name": "by-name", "port": 81, "targetPort": "plain", "nodePort": 30081},
                {"name": "dns", "port": 53, "protocol": "UDP"}
            ]}}),
            &[slice(
                json!([{"name": "by-number", "port": 8080}, {"name": "by-name", "port": 9090, "protocol": "TCP"}, {"name": "dns", "port": 5353, "protocol": "UDP"}]),
                json!([{"addresses": ["10.1.0.7"]}, {"addresses": ["10.1.0.8"], "conditions": {"ready": false}}]),
            )],
        );
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        for expected in [
            "@hairpin: 10.1.0.7 . 10.1.0.7",
            "@services: 10.9.0.5 . tcp . 80 : goto service",
            "@services: 10.9.0.5 . tcp . 81 : goto service",
            "@services: 10.9.0.5 . udp . 53 : goto service",
            "@node_ports: tcp . 30081 : goto service",
        ] {
            assert!(
                lines.iter().any(|line| line.starts_with(expected)),
                "{expected} in {text}"
            );
        }
        for (map, to) in [
            ("tcp . 80 ", "8080"),
            ("tcp . 81 ", "9090"),
            ("udp . 53 ", "5353"),
        ] {
            let chain = lines
                .iter()
                .find_map(|line| line.split_once(map)?.1.split_once("goto "))
                .expect("a chain")
                .1;
            assert!(
                lines.contains(&format!("{chain}: dnat to 10.1.0.7:{to}").as_str()),
                "{map}: {text}"
            );
        }
    }

    #[test]
    fn endpoints_take_turns_and_clients_stay() {
        let ports = json!([{"name": "", "port": 8080}]);
        let endpoints = json!([{"addresses": ["10.1.0.7"]}, {"addresses": ["10.1.0.8"]}]);
        let service = |affinity: &str| json!({"spec": {"clusterIP": "10.9.0.5", "sessionAffinity": affinity, "ports": [{"port": 80}]}});
        let plain = compiled(service("None"), &[slice(ports.clone(), endpoints.clone())]);
        assert!(
            plain.contains("numgen random mod 2 0 dnat to 10.1.0.7:8080\n"),
            "{plain}"
        );
        assert!(
            plain.contains("service0: dnat to 10.1.0.8:8080\n"),
            "{plain}"
        );
        let sticky = compiled(service("ClientIP"), &[slice(ports, endpoints)]);
        assert!(sticky.contains("ip saddr @clients"), "{sticky}");
        assert_eq!(sticky.matches("update @clients").count(), 2, "{sticky}");
        assert_eq!(sticky.matches("numgen").count(), 1, "{sticky}");
    }

    #[test]
    fn who_is_led_where() {
        let ports = json!([{"port": 8080}]);
        let ending = json!({"ready": false, "serving": true, "terminating": true});
        let rows = [
            // While nobody is ready, those who end take what comes.
            (
                json!([{"addresses": ["10.1.0.7"], "conditions": ending}]),
                Some("10.1.0.7:8080"),
            ),
            (
                json!([{"addresses": ["10.1.0.7"], "conditions": {"ready": false, "serving": false}}]),
                None,
            ),
            // By hand, but not everywhere.
            (
                json!([{"addresses": ["192.0.2.1"]}]),
                Some("192.0.2.1:8080"),
            ),
            (json!([{"addresses": ["127.0.0.1"]}]), None),
            (json!([{"addresses": ["169.254.169.254"]}]), None),
            (json!([]), None),
        ];
        for (endpoints, expected) in rows {
            let text = compiled(
                json!({"spec": {"clusterIP": "10.9.0.5", "ports": [{"port": 80}]}}),
                &[slice(ports.clone(), endpoints.clone())],
            );
            let dnat = text.lines().find_map(|line| line.split_once("dnat to "));
            assert_eq!(dnat.map(|(_, to)| to), expected, "{endpoints}");
            assert_eq!(
                text.contains("@services"),
                expected.is_some(),
                "{endpoints}"
            );
        }
        for spec in [
            json!({"clusterIP": "None", "ports": [{"port": 80}]}),
            json!({"type": "ExternalName", "externalName": "example.com", "ports": [{"port": 80}]}),
            json!({"ports": [{"port": 80}]}),
        ] {
            let text = compiled(
                json!({"spec": spec}),
                &[slice(ports.clone(), json!([{"addresses": ["10.1.0.7"]}]))],
            );
            assert_eq!(text, "", "{spec}");
        }
    }

    #[test]
    fn a_revisions_own_services_lead_to_the_gateway() {
        let text = compiled(
            json!({"metadata": {"labels": {SERVICE_TYPE: "Private"}}, "spec": {"clusterIP": "10.9.0.5", "ports": [{"name": "http", "port": 80}]}}),
            &[slice(
                json!([{"name": "http", "port": 8012}]),
                json!([{"addresses": ["10.1.0.7"]}]),
            )],
        );
        assert!(text.contains("dnat to 10.1.0.1:80"), "{text}");
    }
}
