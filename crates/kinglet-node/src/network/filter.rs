//! What pods may reach and how packets are translated on their way, apart from single Services: pure.
//!
//! Always: from a pod, the host is the gateway's port 80, names, and the API server by its Service address; other
//! instances' pods, link-local addresses and the host's loopback are not there.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::ruleset::{Chain, Expression, Hook, Interface, Protocol, Ruleset, Subnet};
use super::services::{self, Gateway, HAIRPIN, NODE_PORTS, Observed, SERVICES};
use crate::names::LINK_PREFIX;

/// Port of the local gateway on the bridge, for every host name.
const GATEWAY_PORT: u16 = 80;
/// Where the gateway answers in place of activators and queue-proxies, HTTP/1.1 and HTTP/2.
const REVISION_PORTS: [u16; 2] = [8012, 8013];
/// Port of names on the bridge.
const DNS_PORT: u16 = 53;
const LINK_LOCAL: Subnet = Subnet::new(Ipv4Addr::new(169, 254, 0, 0), 16);
const LOOPBACK: Subnet = Subnet::new(Ipv4Addr::new(127, 0, 0, 0), 8);

/// What the rules are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// What the host's ends of all our pods' links begin with.
    pub(super) links: String,
    pub(super) pods: Subnet,
    pub(super) gateway: Ipv4Addr,
    /// Addresses of Services, where they are ours to give.
    pub(super) services: Option<Subnet>,
    /// The API server's port; `None` when it is another's.
    pub(super) api_port: Option<u16>,
    /// The address of the Service `kubernetes`.
    pub(super) api_address: Option<Ipv4Addr>,
    /// Where node ports listen besides loopback; the unspecified address is every one.
    pub(super) node_ports_on: Option<Ipv4Addr>,
}

/// The whole table.
pub(super) fn ruleset(around: &Surroundings, observed: &[Observed]) -> Ruleset {
    let mut ruleset = Ruleset::default();
    for (name, hook) in [
        ("prerouting", Hook::NatPrerouting),
        ("output", Hook::NatOutput),
        ("postrouting", Hook::NatPostrouting),
        ("input", Hook::FilterInput),
        ("forward", Hook::FilterForward),
        ("leave", Hook::FilterOutput),
    ] {
        let chain = Chain {
            hook: Some(hook),
            rules: Vec::new(),
        };
        ruleset.chains.insert(name.to_owned(), chain);
    }
    let gateway = Gateway {
        address: SocketAddrV4::new(around.gateway, GATEWAY_PORT),
    };
    services::add(&mut ruleset, observed, gateway);
    translate(around, &mut ruleset);
    input(around, &mut ruleset);
    forward(around, &mut ruleset);
    if let Some(services) = around.services {
        refuse(
            &mut ruleset,
            "leave",
            &[Expression::DestinationIn(services)],
        );
    }
    ruleset
}

fn from_pods(around: &Surroundings) -> Expression {
    Expression::From(Interface::Prefix(around.links.clone()))
}

fn to_pods(around: &Surroundings) -> Expression {
    Expression::To(Interface::Prefix(around.links.clone()))
}

fn translate(around: &Surroundings, ruleset: &mut Ruleset) {
    let dispatch = Expression::DispatchAddress(SERVICES);
    ruleset.add_rule("prerouting", [from_pods(around), dispatch.clone()]);
    ruleset.add_rule("output", [dispatch]);
    let node_port = |address: Subnet| {
        [
            Expression::DestinationIn(address),
            Expression::DispatchPort(NODE_PORTS),
        ]
    };
    ruleset.add_rule("output", node_port(Subnet::one(Ipv4Addr::LOCALHOST)));
    match around.node_ports_on {
        None => {}
        Some(address) if address.is_loopback() => {}
        Some(address) if address.is_unspecified() => {
            for chain in ["prerouting", "output"] {
                let dispatch = Expression::DispatchPort(NODE_PORTS);
                ruleset.add_rule(chain, [Expression::DestinationIsLocal, dispatch]);
            }
        }
        Some(address) => {
            for chain in ["prerouting", "output"] {
                ruleset.add_rule(chain, node_port(Subnet::one(address)));
            }
        }
    }
    let masquerade = Expression::Masquerade;
    let hairpin = [Expression::PairInSet(HAIRPIN), masquerade.clone()];
    ruleset.add_rule("postrouting", hairpin);
    let from_loopback = [
        Expression::SourceIn(LOOPBACK),
        to_pods(around),
        masquerade.clone(),
    ];
    ruleset.add_rule("postrouting", from_loopback);
    let beyond = [
        Expression::SourceIn(around.pods),
        Expression::DestinationNotIn(around.pods),
        masquerade,
    ];
    ruleset.add_rule("postrouting", beyond);
}

/// What reaches the host.
fn input(around: &Surroundings, ruleset: &mut Ruleset) {
    let mut add = |rule: Vec<Expression>| ruleset.add_rule("input", rule);
    // Answers to the host's own connections by node port come back to loopback; nothing else may.
    add(vec![
        from_pods(around),
        Expression::DestinationIn(LOOPBACK),
        Expression::OriginalDirection,
        Expression::Drop,
    ]);
    let own = Expression::DestinationIn(Subnet::one(around.gateway));
    let asked = [from_pods(around), own.clone()];
    let tcp = |port| {
        [
            Expression::Protocol(Protocol::Tcp),
            Expression::DestinationPort(port),
        ]
    };
    let udp = |port| {
        [
            Expression::Protocol(Protocol::Udp),
            Expression::DestinationPort(port),
        ]
    };
    let rule = |parts: &[&[Expression]]| parts.concat();
    let gateway = [GATEWAY_PORT, REVISION_PORTS[0], REVISION_PORTS[1], DNS_PORT];
    for allowed in gateway.map(tcp).into_iter().chain([udp(DNS_PORT)]) {
        add(rule(&[&asked, &allowed, &[Expression::Accept]]));
    }
    add(rule(&[
        &asked,
        &[Expression::EchoRequest, Expression::Accept],
    ]));
    if let (Some(port), Some(address)) = (around.api_port, around.api_address) {
        let by_service = [Expression::OriginalDestination(address), Expression::Accept];
        add(rule(&[&[from_pods(around)], &tcp(port), &by_service]));
    }
    if let Some(port) = around.api_port {
        let direct = [from_pods(around), Expression::RejectWithReset];
        add(rule(&[&direct[..1], &tcp(port), &direct[1..]]));
    }
    let answers = vec![
        from_pods(around),
        Expression::DestinationIn(Subnet::one(around.gateway)),
        Expression::OriginalDirection,
    ];
    refuse(ruleset, "input", &answers);
    // Neither other instances' pods nor the neighbourhood get at the bridge; what was translated came by a node port.
    let stranger = [
        Expression::From(Interface::NotPrefix(around.links.clone())),
        Expression::From(Interface::NotNamed("lo")),
        own,
    ];
    ruleset.add_rule(
        "input",
        stranger
            .iter()
            .cloned()
            .chain([Expression::Translated, Expression::Accept]),
    );
    refuse(ruleset, "input", &stranger);
}

/// What passes through the host.
fn forward(around: &Surroundings, ruleset: &mut Ruleset) {
    let other_pods = |direction: fn(Interface) -> Expression| {
        [
            direction(Interface::Prefix(LINK_PREFIX.to_owned())),
            direction(Interface::NotPrefix(around.links.clone())),
        ]
    };
    let to_others = [&[from_pods(around)], &other_pods(Expression::To)[..]].concat();
    let from_others = [&[to_pods(around)], &other_pods(Expression::From)[..]].concat();
    refuse(ruleset, "forward", &to_others);
    refuse(ruleset, "forward", &from_others);
    for network in [Some(LINK_LOCAL), around.services].into_iter().flatten() {
        let matched = [from_pods(around), Expression::DestinationIn(network)];
        refuse(ruleset, "forward", &matched);
    }
}

/// Refuses at once, so that nobody waits for a timeout.
fn refuse(ruleset: &mut Ruleset, chain: &str, matched: &[Expression]) {
    let tcp = [
        Expression::Protocol(Protocol::Tcp),
        Expression::RejectWithReset,
    ];
    ruleset.add_rule(chain, matched.iter().cloned().chain(tcp));
    let rest = [Expression::RejectUnreachable];
    ruleset.add_rule(chain, matched.iter().cloned().chain(rest));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pods_may_reach() {
        let around = Surroundings {
            links: "kv1".to_owned(),
            pods: Subnet::new(Ipv4Addr::new(10, 1, 0, 0), 22),
            gateway: Ipv4Addr::new(10, 1, 0, 1),
            services: Some(Subnet::new(Ipv4Addr::new(10, 9, 0, 0), 16)),
            api_port: Some(6443),
            api_address: Some(Ipv4Addr::new(10, 9, 0, 1)),
            node_ports_on: None,
        };
        let text = ruleset(&around, &[]).to_string();
        let expected = "\
forward: iifname kv1* oifname kv* oifname != kv1* meta l4proto tcp reject with tcp reset
forward: iifname kv1* oifname kv* oifname != kv1* reject
forward: oifname kv1* iifname kv* iifname != kv1* meta l4proto tcp reject with tcp reset
forward: oifname kv1* iifname kv* iifname != kv1* reject
forward: iifname kv1* ip daddr 169.254.0.0/16 meta l4proto tcp reject with tcp reset
forward: iifname kv1* ip daddr 169.254.0.0/16 reject
forward: iifname kv1* ip daddr 10.9.0.0/16 meta l4proto tcp reject with tcp reset
forward: iifname kv1* ip daddr 10.9.0.0/16 reject
input: iifname kv1* ip daddr 127.0.0.0/8 ct direction original drop
input: iifname kv1* ip daddr 10.1.0.1/32 meta l4proto tcp th dport 80 accept
input: iifname kv1* ip daddr 10.1.0.1/32 meta l4proto tcp th dport 8012 accept
input: iifname kv1* ip daddr 10.1.0.1/32 meta l4proto tcp th dport 8013 accept
input: iifname kv1* ip daddr 10.1.0.1/32 meta l4proto tcp th dport 53 accept
input: iifname kv1* ip daddr 10.1.0.1/32 meta l4proto udp th dport 53 accept
input: iifname kv1* ip daddr 10.1.0.1/32 icmp type echo-request accept
input: iifname kv1* meta l4proto tcp th dport 6443 ct original ip daddr 10.9.0.1 accept
input: iifname kv1* meta l4proto tcp th dport 6443 reject with tcp reset
input: iifname kv1* ip daddr 10.1.0.1/32 ct direction original meta l4proto tcp reject with tcp reset
input: iifname kv1* ip daddr 10.1.0.1/32 ct direction original reject
input: iifname != kv1* iifname != lo ip daddr 10.1.0.1/32 ct status dnat accept
input: iifname != kv1* iifname != lo ip daddr 10.1.0.1/32 meta l4proto tcp reject with tcp reset
input: iifname != kv1* iifname != lo ip daddr 10.1.0.1/32 reject
leave: ip daddr 10.9.0.0/16 meta l4proto tcp reject with tcp reset
leave: ip daddr 10.9.0.0/16 reject
output: ip daddr . meta l4proto . th dport vmap @services
output: ip daddr 127.0.0.1/32 meta l4proto . th dport vmap @node_ports
postrouting: ip saddr . ip daddr @hairpin masquerade
postrouting: ip saddr 127.0.0.0/8 oifname kv1* masquerade
postrouting: ip saddr 10.1.0.0/22 ip daddr != 10.1.0.0/22 masquerade
prerouting: iifname kv1* ip daddr . meta l4proto . th dport vmap @services
";
        assert_eq!(text, expected);
        let everywhere = Surroundings {
            node_ports_on: Some(Ipv4Addr::UNSPECIFIED),
            ..around
        };
        let text = ruleset(&everywhere, &[]).to_string();
        let open = "prerouting: fib daddr type local meta l4proto . th dport vmap @node_ports\n";
        assert!(text.contains(open), "{text}");
    }
}
