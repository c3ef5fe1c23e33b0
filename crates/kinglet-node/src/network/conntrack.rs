//! Forgetting UDP connections that lead to endpoints which are gone.
//!
//! The kernel translates a connection as its first packet was translated. A UDP client that goes on sending from one port
//! never begins a new one, so without this it would talk to a dead pod for as long as it sends. TCP needs none of it: its
//! connections end with their pod, and those of a pod that is ending are finished.
//!
//! Flow: [`Translations::of`] the ruleset that is in force -> [`forget_stale`] compares what the kernel tracks with it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, IPTuple, ProtoTuple, Protocol as IpProtocol, Tuple,
};

use super::netfilter;
use super::ruleset::{Expression, Protocol, Ruleset, SetKey, Subnet};

/// Connections forgotten at one time, in memory until the list has been read; what is left goes with the next change.
const FORGOTTEN_MAX: usize = 65_536;

/// Where UDP packets are translated to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Translations {
    by_address: BTreeMap<SocketAddrV4, BTreeSet<SocketAddrV4>>,
    /// On addresses of this machine.
    by_port: BTreeMap<u16, BTreeSet<SocketAddrV4>>,
}

impl Translations {
    /// What a ruleset does to UDP packets.
    pub(super) fn of(ruleset: &Ruleset) -> Self {
        let mut out = Self::default();
        let elements = ruleset.sets.values().flat_map(|set| &set.elements);
        for (key, target) in elements {
            let Some(chain) = target else { continue };
            match key {
                SetKey::Address(address, Protocol::Udp, port) => {
                    let at = SocketAddrV4::new(*address, *port);
                    out.by_address
                        .entry(at)
                        .or_default()
                        .extend(endpoints(ruleset, chain));
                }
                SetKey::Port(Protocol::Udp, port) => {
                    out.by_port
                        .entry(*port)
                        .or_default()
                        .extend(endpoints(ruleset, chain));
                }
                SetKey::Address(..) | SetKey::Port(..) | SetKey::Pair(..) => {}
            }
        }
        out
    }
}

/// Every destination that a chain translates to, itself or in the chains it goes on to.
fn endpoints(ruleset: &Ruleset, chain: &str) -> BTreeSet<SocketAddrV4> {
    let mut found = BTreeSet::new();
    let mut chains = vec![chain];
    // A chain of a Service goes on to chains of endpoints, and those go nowhere.
    while let Some(chain) = chains.pop() {
        let rules = ruleset.chains.get(chain).map(|chain| &chain.rules);
        for expression in rules.into_iter().flatten().flat_map(|rule| &rule.0) {
            match expression {
                Expression::TranslateDestination(to) => {
                    found.insert(*to);
                }
                Expression::Goto(next) if next != chain => chains.push(next),
                _ => {}
            }
        }
    }
    found
}

/// One tracked UDP connection: where its first packet was sent to, and who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Connection {
    to: SocketAddrV4,
    answered_by: SocketAddrV4,
}

/// The addresses of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnAddresses {
    pub(super) pods: Subnet,
    pub(super) services: Option<Subnet>,
}

/// Whether a connection leads elsewhere than a new one would.
fn is_stale(
    connection: Connection,
    translations: &Translations,
    own: OwnAddresses,
    is_local: impl Fn(Ipv4Addr) -> bool,
) -> bool {
    let Connection { to, answered_by } = connection;
    // The gateway's address and pods' own are translated for nobody but by their full address.
    let by_port = || {
        let found = translations.by_port.get(&to.port())?;
        (!own.pods.contains(*to.ip()) && is_local(*to.ip())).then_some(found)
    };
    match translations.by_address.get(&to).or_else(by_port) {
        Some(endpoints) => !endpoints.contains(&answered_by),
        // Nothing is translated there any more; what was not translated by us is not ours.
        None => {
            let of_service = own.services.is_some_and(|range| range.contains(*to.ip()));
            to != answered_by && (of_service || own.pods.contains(*answered_by.ip()))
        }
    }
}

/// Forgets every UDP connection that is translated otherwise than `translations` say; how many there were. Blocking.
pub(super) fn forget_stale(
    translations: &Translations,
    own: OwnAddresses,
    is_local: impl Fn(Ipv4Addr) -> bool,
) -> io::Result<usize> {
    let mut stale = Vec::new();
    netfilter::list_connections(|attributes| {
        if let Some((connection, original)) = udp(attributes)
            && is_stale(connection, translations, own, &is_local)
            && stale.len() < FORGOTTEN_MAX
        {
            stale.push(original.clone());
        }
    })?;
    let count = stale.len();
    stale
        .into_iter()
        .try_for_each(netfilter::forget_connection)?;
    Ok(count)
}

/// The parts of a tracked connection, if it is UDP over IPv4, and what names it.
fn udp(attributes: &[ConntrackAttribute]) -> Option<(Connection, &ConntrackAttribute)> {
    let mut to = None;
    let mut answered_by = None;
    let mut name = None;
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => {
                to = end(tuple, End::Destination);
                name = Some(attribute);
            }
            ConntrackAttribute::CtaTupleReply(tuple) => answered_by = end(tuple, End::Source),
            _ => {}
        }
    }
    let connection = Connection {
        to: to?,
        answered_by: answered_by?,
    };
    Some((connection, name?))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

/// One end of a UDP tuple.
fn end(tuple: &[Tuple], which: End) -> Option<SocketAddrV4> {
    let (mut address, mut port, mut is_udp) = (None, None, false);
    for part in tuple {
        match part {
            Tuple::Ip(parts) => {
                for part in parts {
                    match (part, which) {
                        (IPTuple::SourceAddress(IpAddr::V4(found)), End::Source)
                        | (IPTuple::DestinationAddress(IpAddr::V4(found)), End::Destination) => {
                            address = Some(*found);
                        }
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match (part, which) {
                        (ProtoTuple::Protocol(protocol), _) => {
                            is_udp = *protocol == IpProtocol::Udp;
                        }
                        (ProtoTuple::SourcePort(found), End::Source)
                        | (ProtoTuple::DestinationPort(found), End::Destination) => {
                            port = Some(*found);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    is_udp.then_some(SocketAddrV4::new(address?, port?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::ruleset::{Set, SetKind};

    fn at(text: &str) -> SocketAddrV4 {
        text.parse().expect("an address with a port")
    }

    /// 10.9.0.5:53 and node port 30053 lead to `to`, over a chain per endpoint as with session affinity.
    fn ruleset(to: &[&str]) -> Ruleset {
        let mut out = Ruleset::default();
        for (name, kind, key) in [
            (
                "services",
                SetKind::AddressDispatch,
                SetKey::Address(Ipv4Addr::new(10, 9, 0, 5), Protocol::Udp, 53),
            ),
            (
                "node_ports",
                SetKind::PortDispatch,
                SetKey::Port(Protocol::Udp, 30053),
            ),
        ] {
            let mut set = Set::new(kind);
            if !to.is_empty() {
                set.elements.insert(key, Some("svc".to_owned()));
            }
            out.sets.insert(name.to_owned(), set);
        }
        for endpoint in to {
            let own = format!("endpoint_{endpoint}");
            out.add_rule("svc", [Expression::Goto(own.clone())]);
            out.add_rule(&own, [Expression::TranslateDestination(at(endpoint))]);
        }
        out
    }

    #[test]
    fn a_row_per_connection() {
        let own = OwnAddresses {
            pods: Subnet::new(Ipv4Addr::new(10, 1, 0, 0), 22),
            services: Some(Subnet::new(Ipv4Addr::new(10, 9, 0, 0), 16)),
        };
        let local =
            |address: Ipv4Addr| address.is_loopback() || address == Ipv4Addr::new(10, 1, 0, 1);
        let here = Translations::of(&ruleset(&["10.1.0.7:5353", "10.1.0.8:5353"]));
        let nowhere = Translations::of(&ruleset(&[]));
        assert_ne!(here, nowhere);
        for (what, translations, to, answered_by, stale) in [
            ("an endpoint", &here, "10.9.0.5:53", "10.1.0.8:5353", false),
            (
                "an endpoint that went",
                &here,
                "10.9.0.5:53",
                "10.1.0.9:5353",
                true,
            ),
            (
                "another port of it",
                &here,
                "10.9.0.5:53",
                "10.1.0.8:5354",
                true,
            ),
            (
                "nobody is left",
                &nowhere,
                "10.9.0.5:53",
                "10.1.0.8:5353",
                true,
            ),
            (
                "before anybody was there",
                &here,
                "10.9.0.5:53",
                "10.9.0.5:53",
                true,
            ),
            (
                "a port of a Service that has none",
                &here,
                "10.9.0.5:99",
                "10.1.0.8:99",
                true,
            ),
            (
                "by node port",
                &here,
                "127.0.0.1:30053",
                "10.1.0.7:5353",
                false,
            ),
            (
                "by node port, gone",
                &here,
                "127.0.0.1:30053",
                "10.1.0.9:5353",
                true,
            ),
            (
                "sent before the node port was there",
                &here,
                "127.0.0.1:30053",
                "127.0.0.1:30053",
                true,
            ),
            (
                "a node port that went",
                &nowhere,
                "127.0.0.1:30053",
                "10.1.0.7:5353",
                true,
            ),
            (
                "the same number elsewhere",
                &here,
                "192.0.2.1:30053",
                "192.0.2.1:30053",
                false,
            ),
            (
                "the same number at the gateway",
                &here,
                "10.1.0.1:30053",
                "10.1.0.1:30053",
                false,
            ),
            (
                "a pod asks for names",
                &here,
                "10.1.0.1:53",
                "10.1.0.1:53",
                false,
            ),
            (
                "to a pod itself",
                &nowhere,
                "10.1.0.9:5353",
                "10.1.0.9:5353",
                false,
            ),
            (
                "a pod and the world",
                &here,
                "192.0.2.1:53",
                "192.0.2.1:53",
                false,
            ),
            (
                "another program's translation",
                &here,
                "192.0.2.9:53",
                "172.17.0.2:53",
                false,
            ),
        ] {
            let connection = Connection {
                to: at(to),
                answered_by: at(answered_by),
            };
            assert_eq!(
                is_stale(connection, translations, own, local),
                stale,
                "{what}"
            );
        }
    }

    #[test]
    fn parts_of_a_connection() {
        let tuple = |from: [u8; 4], from_port, to: [u8; 4], to_port, protocol| {
            vec![
                Tuple::Ip(vec![
                    IPTuple::SourceAddress(from.into()),
                    IPTuple::DestinationAddress(to.into()),
                ]),
                Tuple::Proto(vec![
                    ProtoTuple::Protocol(protocol),
                    ProtoTuple::SourcePort(from_port),
                    ProtoTuple::DestinationPort(to_port),
                ]),
            ]
        };
        let tracked = |protocol| {
            [
                ConntrackAttribute::CtaTupleOrig(tuple(
                    [10, 1, 0, 2],
                    4000,
                    [10, 9, 0, 5],
                    53,
                    protocol,
                )),
                ConntrackAttribute::CtaTupleReply(tuple(
                    [10, 1, 0, 7],
                    5353,
                    [10, 1, 0, 2],
                    4000,
                    protocol,
                )),
            ]
        };
        let all = tracked(IpProtocol::Udp);
        let (connection, name) = udp(&all).expect("UDP");
        assert_eq!(
            (connection.to, connection.answered_by, name),
            (at("10.9.0.5:53"), at("10.1.0.7:5353"), &all[0])
        );
        assert!(udp(&tracked(IpProtocol::Tcp)).is_none());
        assert!(udp(&all[..1]).is_none());
        assert!(netfilter::forget_connection(all[1].clone()).is_err());
    }
}
