//! What pods may reach and how packets are translated on their way, apart from single Services: pure.
//!
//! Always: from a pod, the host is the gateway's ports 80 and, where it serves https, 443, names, and the API server by its Service address; other
//! instances' pods, link-local addresses and the host's loopback are not there.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::host_ports::{self, HOST_PORTS, HostPort, Listening};
use super::ruleset::{Chain, Expression, Hook, Interface, Protocol, Ruleset, Set, SetKind, Subnet};
use super::services::{self, Gateway, HAIRPIN, NODE_PORTS, Observed, SERVICES};
use crate::names::LINK_PREFIX;

/// Port of the local gateway on the bridge, for every host name.
const GATEWAY_PORT: u16 = 80;
/// The same for https.
const GATEWAY_HTTPS_PORT: u16 = 443;
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
    /// Ports of this machine that lead to pods, with the pods' addresses.
    pub(super) host_ports: Vec<(Ipv4Addr, HostPort)>,
    /// Where the gateway really listens, when another program has its port.
    pub(super) gateway_port: Option<u16>,
    /// Where it listens for https, if it does.
    pub(super) gateway_https: Option<u16>,
    /// See [`super::NetworkOptions::by_components`].
    pub(super) by_components: bool,
}

impl Surroundings {
    /// Where host ports listen.
    fn listening(&self) -> Listening {
        listening(self.gateway, self.api_port, self.node_ports_on)
    }
}

/// Where host ports listen on a machine with that gateway.
pub(super) fn listening(
    gateway: Ipv4Addr,
    api_port: Option<u16>,
    on: Option<Ipv4Addr>,
) -> Listening {
    let own_ports = [GATEWAY_PORT, GATEWAY_HTTPS_PORT, DNS_PORT]
        .into_iter()
        .chain(REVISION_PORTS);
    Listening {
        on,
        gateway,
        own_ports: own_ports.chain(api_port).collect(),
    }
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
        address: SocketAddrV4::new(around.gateway, around.gateway_port.unwrap_or(GATEWAY_PORT)),
        answers_revisions: !around.by_components,
    };
    services::add(&mut ruleset, observed, gateway);
    let host_ports = Set::new(SetKind::AddressDispatch);
    ruleset.sets.insert(HOST_PORTS.to_owned(), host_ports);
    host_ports::add(&mut ruleset, &around.host_ports, &around.listening());
    if around.gateway_port.is_some() {
        services::move_port(&mut ruleset, around.gateway, GATEWAY_PORT, gateway);
    }
    if let Some(port) = around
        .gateway_https
        .filter(|port| *port != GATEWAY_HTTPS_PORT)
    {
        let https = Gateway {
            address: SocketAddrV4::new(around.gateway, port),
            ..gateway
        };
        services::move_port(&mut ruleset, around.gateway, GATEWAY_HTTPS_PORT, https);
    }
    translate(around, &mut ruleset);
    input(around, &mut ruleset);
    forward(around, &mut ruleset);
    if let Some(services) = around.services {
        refuse(&mut ruleset, "leave", &nobodys(services));
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
        Some(address) if address.is_unspecified() => node_ports_everywhere(around, ruleset),
        Some(address) => {
            for chain in ["prerouting", "output"] {
                ruleset.add_rule(chain, node_port(Subnet::one(address)));
            }
        }
    }
    for chain in ["prerouting", "output"] {
        ruleset.add_rule(chain, [Expression::DispatchAddress(HOST_PORTS)]);
    }
    masquerade(around, ruleset);
}

/// Ports on every address of this machine but the gateway's, where pods ask for names. What other instances' pods send to
/// their own gateway is none of ours.
fn node_ports_everywhere(around: &Surroundings, ruleset: &mut Ruleset) {
    let here = [
        Expression::DestinationIsLocal,
        Expression::DestinationNotIn(around.pods),
        Expression::DispatchPort(NODE_PORTS),
    ];
    let no_pod = Expression::From(Interface::NotPrefix(LINK_PREFIX.to_owned()));
    for from in [no_pod, from_pods(around)] {
        ruleset.add_rule("prerouting", [from].into_iter().chain(here.clone()));
    }
    ruleset.add_rule("output", here);
}

/// Where the other side must see an address of this machine in place of the sender's.
fn masquerade(around: &Surroundings, ruleset: &mut Ruleset) {
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
    let more = [around.gateway_port, around.gateway_https];
    let more = more.into_iter().flatten().map(tcp);
    for allowed in gateway
        .map(tcp)
        .into_iter()
        .chain(more)
        .chain([udp(DNS_PORT)])
    {
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
    let link_local = [from_pods(around), Expression::DestinationIn(LINK_LOCAL)];
    refuse(ruleset, "forward", &link_local);
    // Whoever sends there, another instance's pod or the neighbourhood.
    if let Some(services) = around.services {
        refuse(ruleset, "forward", &nobodys(services));
    }
}

/// Service addresses that no rule translated belong to nobody, unless a pod of another instance got one of them while this one
/// was stopped: those are its own.
fn nobodys(services: Subnet) -> [Expression; 2] {
    [
        Expression::To(Interface::NotPrefix(LINK_PREFIX.to_owned())),
        Expression::DestinationIn(services),
    ]
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

    fn around() -> Surroundings {
        Surroundings {
            links: "kv1".to_owned(),
            pods: Subnet::new(Ipv4Addr::new(10, 1, 0, 0), 22),
            gateway: Ipv4Addr::new(10, 1, 0, 1),
            services: Some(Subnet::new(Ipv4Addr::new(10, 9, 0, 0), 16)),
            api_port: Some(6443),
            api_address: Some(Ipv4Addr::new(10, 9, 0, 1)),
            node_ports_on: None,
            host_ports: Vec::new(),
            gateway_port: None,
            gateway_https: None,
            by_components: false,
        }
    }

    #[test]
    fn what_pods_may_reach() {
        let text = ruleset(&around(), &[]).to_string();
        let expected = "\
forward: iifname kv1* oifname kv* oifname != kv1* meta l4proto tcp reject with tcp reset
forward: iifname kv1* oifname kv* oifname != kv1* reject
forward: oifname kv1* iifname kv* iifname != kv1* meta l4proto tcp reject with tcp reset
forward: oifname kv1* iifname kv* iifname != kv1* reject
forward: iifname kv1* ip daddr 169.254.0.0/16 meta l4proto tcp reject with tcp reset
forward: iifname kv1* ip daddr 169.254.0.0/16 reject
forward: oifname != kv* ip daddr 10.9.0.0/16 meta l4proto tcp reject with tcp reset
forward: oifname != kv* ip daddr 10.9.0.0/16 reject
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
leave: oifname != kv* ip daddr 10.9.0.0/16 meta l4proto tcp reject with tcp reset
leave: oifname != kv* ip daddr 10.9.0.0/16 reject
output: ip daddr . meta l4proto . th dport vmap @services
output: ip daddr 127.0.0.1/32 meta l4proto . th dport vmap @node_ports
output: ip daddr . meta l4proto . th dport vmap @host_ports
postrouting: ip saddr . ip daddr @hairpin masquerade
postrouting: ip saddr 127.0.0.0/8 oifname kv1* masquerade
postrouting: ip saddr 10.1.0.0/22 ip daddr != 10.1.0.0/22 masquerade
prerouting: iifname kv1* ip daddr . meta l4proto . th dport vmap @services
prerouting: ip daddr . meta l4proto . th dport vmap @host_ports
";
        assert_eq!(text, expected);
    }

    #[test]
    fn node_ports_on_every_address_of_this_machine() {
        let everywhere = Surroundings {
            node_ports_on: Some(Ipv4Addr::UNSPECIFIED),
            ..around()
        };
        let text = ruleset(&everywhere, &[]).to_string();
        // Neither the gateway's own ports nor another instance's are led to pods.
        for open in [
            "prerouting: iifname != kv* ",
            "prerouting: iifname kv1* ",
            "output: ",
        ] {
            let open = format!(
                "{open}fib daddr type local ip daddr != 10.1.0.0/22 meta l4proto . th dport vmap @node_ports\n"
            );
            assert!(text.contains(&open), "{open} in {text}");
        }
    }

    #[test]
    fn a_gateway_whose_port_a_web_server_of_the_host_has() {
        let moved = Surroundings {
            gateway_port: Some(4080),
            ..around()
        };
        let text = ruleset(&moved, &[]).to_string();
        for line in [
            "moved-80: dnat to 10.1.0.1:4080\n",
            "input: iifname kv1* ip daddr 10.1.0.1/32 meta l4proto tcp th dport 4080 accept\n",
            "10.1.0.1 . tcp . 80 : goto moved-80",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn https_is_reached_where_the_gateway_listens_for_it_and_nobody_elses_is() {
        let text = |https| {
            let around = Surroundings {
                gateway_https: https,
                ..around()
            };
            ruleset(&around, &[]).to_string()
        };
        assert!(
            !text(None).contains("443 accept"),
            "a web server of the host"
        );
        let open =
            "input: iifname kv1* ip daddr 10.1.0.1/32 meta l4proto tcp th dport 443 accept\n";
        assert!(text(Some(443)).contains(open));
        let moved = text(Some(4443));
        assert!(!moved.contains(open), "{moved}");
        for line in [
            "moved-443: dnat to 10.1.0.1:4443\n",
            "th dport 4443 accept\n",
            "10.1.0.1 . tcp . 443 : goto moved-443",
        ] {
            assert!(moved.contains(line), "{line} is missing in\n{moved}");
        }
    }
}
