//! Ports of this machine that lead to pods (`hostPort`).
//!
//! Flow: a Pod's ports -> [`HostPort::of`] -> [`HostPorts::publish`] when its sandbox is made: nobody else may have the port,
//! neither another pod nor a program of this machine -> [`add`]: rules beside those of node ports.
//! Always: a port stays bound by a socket of ours as long as it leads to a pod, so that no program of this machine takes it
//! and finds itself cut off; it comes free with the guard.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerPort, Pod};
use kinglet_reconcile::pod;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::NetworkError;
use super::ruleset::{Expression, Protocol, Ruleset, SetKey};
use super::services::{HAIRPIN, NODE_PORTS};
use crate::sys::netns;

/// Map of addresses and ports of this machine that lead to pods.
pub(super) const HOST_PORTS: &str = "host_ports";

/// One port of this machine that leads to a port of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostPort {
    /// `hostIP`; without it, where node ports listen.
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) container_port: u16,
}

impl HostPort {
    /// The host ports of a Pod.
    pub(crate) fn of(pod: &Pod) -> Result<Vec<Self>, String> {
        let mut all = pod::host_ports(pod)
            .map(Self::parse)
            .collect::<Result<Vec<_>, _>>()?;
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    fn parse(port: &ContainerPort) -> Result<Self, String> {
        let address = pod::host_ip(port).map(|text| {
            text.parse::<Ipv4Addr>()
                .map_err(|_| format!("hostIP {text:?} is no IPv4 address, and Pods have IPv4 only"))
        });
        let in_range = |number| {
            u16::try_from(number).map_err(|_| format!("{number} is not the number of a port"))
        };
        let Some(protocol) = Protocol::named(port.protocol.as_deref()) else {
            return Err(format!("protocol {:?} is not known", port.protocol));
        };
        Ok(Self {
            address: address.transpose()?,
            protocol,
            port: in_range(port.host_port.unwrap_or(0))?,
            container_port: in_range(port.container_port)?,
        })
    }

    /// Whether both cannot be had at once.
    fn conflicts(&self, other: &Self) -> bool {
        pod::host_ports_conflict(
            (self.address, (self.protocol, self.port)),
            (other.address, (other.protocol, other.port)),
        )
    }
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(address) = self.address {
            write!(f, "{address}:")?;
        }
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

/// Where host ports without an address listen, and what is never theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listening {
    /// Besides loopback; the unspecified address is every one. The same as for node ports.
    pub(super) on: Option<Ipv4Addr>,
    /// The address that Pods see as their host's (`status.hostIP`).
    pub(super) gateway: Ipv4Addr,
    /// Ports of the gateway's address that Kinglet itself answers.
    pub(super) own_ports: Vec<u16>,
}

/// All host ports in force.
#[derive(Clone, Debug, Default)]
pub(super) struct HostPorts {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// By publication, with the pod's address. A node holds a thousand pods.
    published: BTreeMap<u64, (Ipv4Addr, Vec<HostPort>)>,
}

/// Host ports of one pod; they come free when this is dropped.
#[derive(Debug)]
pub(crate) struct PublishedPorts {
    number: u64,
    ports: HostPorts,
    /// Keeps programs of this machine from taking the ports.
    _bound: Vec<OwnedFd>,
}

impl Drop for PublishedPorts {
    fn drop(&mut self) {
        self.ports.state.lock().published.remove(&self.number);
        self.ports.changed.notify_one();
    }
}

impl HostPorts {
    /// `changed` is told about every change.
    pub(super) fn new(changed: Arc<Notify>) -> Self {
        Self {
            state: Arc::default(),
            changed,
        }
    }

    /// What is in force: pod's address and port, in order.
    pub(super) fn all(&self) -> Vec<(Ipv4Addr, HostPort)> {
        let state = self.state.lock();
        let all = state.published.values();
        all.flat_map(|(pod, ports)| ports.iter().map(|port| (*pod, *port)))
            .collect()
    }

    /// Takes the ports for a pod; all or none. `addresses` are those of this machine.
    pub(super) fn publish(
        &self,
        pod: Ipv4Addr,
        wanted: &[HostPort],
        listening: &Listening,
        addresses: &[Ipv4Addr],
    ) -> Result<PublishedPorts, NetworkError> {
        let number = {
            let mut state = self.state.lock();
            let mut taken = state.published.values().flat_map(|(_, ports)| ports);
            let conflict = taken.find_map(|one| wanted.iter().find(|port| port.conflicts(one)));
            if let Some(port) = conflict {
                return Err(NetworkError::HostPortTaken(port.to_string()));
            }
            let number = state.next;
            state.next += 1;
            state.published.insert(number, (pod, wanted.to_vec()));
            number
        };
        let mut published = PublishedPorts {
            number,
            ports: self.clone(),
            _bound: Vec::new(),
        };
        for port in wanted {
            for address in port.bound_to(listening, addresses) {
                let to = SocketAddrV4::new(address, port.port);
                let failed = |source| NetworkError::HostPort {
                    port: format!("{to}/{}", port.protocol),
                    source,
                };
                if address == listening.gateway && listening.own_ports.contains(&port.port) {
                    return Err(failed(io::ErrorKind::AddrInUse.into()));
                }
                let socket = match port.protocol {
                    Protocol::Tcp => netns::reserve_tcp(to).map_err(failed)?,
                    Protocol::Udp => netns::reserve_udp(to).map_err(failed)?,
                    // Hardly any program of a host listens on SCTP, and not every kernel has it.
                    Protocol::Sctp => continue,
                };
                published._bound.push(socket);
            }
        }
        self.changed.notify_one();
        Ok(published)
    }
}

impl HostPort {
    /// Where a socket keeps the port from others.
    fn bound_to(&self, listening: &Listening, addresses: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
        match (self.address, listening.on) {
            (Some(address), _) => vec![address],
            (None, Some(on)) if on.is_unspecified() => addresses.to_vec(),
            (None, Some(on)) if !on.is_loopback() => vec![Ipv4Addr::LOCALHOST, on],
            (None, _) => vec![Ipv4Addr::LOCALHOST],
        }
    }
}

/// Adds the chains and elements of all host ports. Node ports come first: they are objects that everybody sees.
pub(super) fn add(
    ruleset: &mut Ruleset,
    published: &[(Ipv4Addr, HostPort)],
    listening: &Listening,
) {
    for (pod, host_port) in published {
        let HostPort {
            address,
            protocol,
            port,
            container_port,
        } = *host_port;
        let to = SocketAddrV4::new(*pod, container_port);
        let dashed = pod.to_string().replace('.', "-");
        let chain = format!("host_{protocol}_{port}_{dashed}_{container_port}");
        let mut lead = |map: &str, key: SetKey| {
            if let Some(set) = ruleset.sets.get_mut(map) {
                set.elements
                    .entry(key)
                    .or_insert_with(|| Some(chain.clone()));
            }
        };
        let mut at = |address| lead(HOST_PORTS, SetKey::Address(address, protocol, port));
        match address {
            Some(address) => at(address),
            None => {
                at(Ipv4Addr::LOCALHOST);
                // By the address that Pods are told is their host's; what Kinglet answers there stays Kinglet's.
                if !listening.own_ports.contains(&port) {
                    at(listening.gateway);
                }
                match listening.on {
                    Some(on) if on.is_unspecified() => {
                        lead(NODE_PORTS, SetKey::Port(protocol, port));
                    }
                    Some(on) => at(on),
                    None => {}
                }
            }
        }
        if !ruleset.chains.contains_key(&chain) {
            ruleset.add_rule(&chain, [Expression::TranslateDestination(to)]);
        }
        if let Some(hairpin) = ruleset.sets.get_mut(HAIRPIN) {
            hairpin.elements.insert(SetKey::Pair(*pod, *pod), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::network::ruleset::{Set, SetKind};

    const POD: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 7);

    fn ports(ports: Value) -> Result<Vec<HostPort>, String> {
        let pod = json!({"metadata": {}, "spec": {"containers": [{"name": "c", "ports": ports}]}});
        HostPort::of(&serde_json::from_value(pod).expect("pod"))
    }

    fn listening(on: Option<Ipv4Addr>) -> Listening {
        Listening {
            on,
            gateway: Ipv4Addr::new(10, 1, 0, 1),
            own_ports: vec![80, 53],
        }
    }

    #[test]
    fn ports_of_a_pod() {
        let found = ports(json!([
            {"containerPort": 8080},
            {"containerPort": 8080, "hostPort": 0},
            {"containerPort": 80, "hostPort": 8000, "hostIP": "0.0.0.0"},
            {"containerPort": 53, "hostPort": 5300, "protocol": "UDP", "hostIP": "192.0.2.1"}
        ]))
        .expect("ports");
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["8000/tcp", "192.0.2.1:5300/udp"]);
        let refused = ports(json!([{"containerPort": 80, "hostPort": 80, "hostIP": "::1"}]));
        assert!(refused.expect_err("no IPv6").contains("IPv4 only"));
        let sidecar = json!({"metadata": {}, "spec": {"containers": [{"name": "c"}], "initContainers": [
            {"name": "stays", "restartPolicy": "Always", "ports": [{"containerPort": 1, "hostPort": 1001}]},
            {"name": "ends", "ports": [{"containerPort": 2, "hostPort": 1002}]}
        ]}});
        let found = HostPort::of(&serde_json::from_value(sidecar).expect("pod")).expect("ports");
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn rules_by_where_they_listen() {
        let one = ports(
            json!([{"containerPort": 80, "hostPort": 8000}, {"containerPort": 80, "hostPort": 80}]),
        )
        .expect("ports");
        let at = ports(json!([{"containerPort": 80, "hostPort": 8000, "hostIP": "192.0.2.1"}]))
            .expect("ports");
        for (on, wanted, expected) in [
            (
                None,
                &one,
                "@host_ports: 10.1.0.1 . tcp . 8000 @host_ports: 127.0.0.1 . tcp . 80 @host_ports: 127.0.0.1 . tcp . 8000",
            ),
            (
                Some(Ipv4Addr::new(192, 0, 2, 9)),
                &one,
                "@host_ports: 10.1.0.1 . tcp . 8000 @host_ports: 127.0.0.1 . tcp . 80 @host_ports: 127.0.0.1 . tcp . 8000 @host_ports: 192.0.2.9 . tcp . 80 @host_ports: 192.0.2.9 . tcp . 8000",
            ),
            (
                Some(Ipv4Addr::UNSPECIFIED),
                &one,
                "@host_ports: 10.1.0.1 . tcp . 8000 @host_ports: 127.0.0.1 . tcp . 80 @host_ports: 127.0.0.1 . tcp . 8000 @node_ports: tcp . 80 @node_ports: tcp . 8000",
            ),
            (
                Some(Ipv4Addr::UNSPECIFIED),
                &at,
                "@host_ports: 192.0.2.1 . tcp . 8000",
            ),
        ] {
            let mut ruleset = Ruleset::default();
            for (name, kind) in [
                (HOST_PORTS, SetKind::AddressDispatch),
                (NODE_PORTS, SetKind::PortDispatch),
                (HAIRPIN, SetKind::Pairs),
            ] {
                ruleset.sets.insert(name.to_owned(), Set::new(kind));
            }
            let published: Vec<_> = wanted.iter().map(|port| (POD, *port)).collect();
            add(&mut ruleset, &published, &listening(on));
            let text = ruleset.to_string();
            let keys: Vec<&str> = text
                .lines()
                .filter(|line| line.starts_with("@host") || line.starts_with("@node"))
                .filter_map(|line| line.split(" : ").next())
                .collect();
            assert_eq!(keys.join(" "), expected, "{text}");
            assert!(text.contains("@hairpin: 10.1.0.7 . 10.1.0.7"), "{text}");
            assert!(text.contains(": dnat to 10.1.0.7:80\n"), "{text}");
        }
    }

    #[test]
    fn a_port_is_had_once_and_comes_free() {
        let all = HostPorts::default();
        // A port of this machine that is free at this moment, and stays known to the test alone.
        let program = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let taken = program.local_addr().expect("bound").port();
        let want = |port| ports(json!([{"containerPort": 80, "hostPort": port}])).expect("ports");
        let publish = |wanted: &[HostPort]| all.publish(POD, wanted, &listening(None), &[]);
        let error = publish(&want(taken)).expect_err("a program has it");
        assert!(error.to_string().contains("in use"), "{error}");
        assert!(all.all().is_empty(), "nothing is left of what failed");
        drop(program);
        let first = publish(&want(taken)).expect("free");
        assert!(
            std::net::TcpListener::bind(("127.0.0.1", taken)).is_err(),
            "no program takes the port of a pod"
        );
        let again = publish(&want(taken)).expect_err("a pod has it");
        assert!(matches!(again, NetworkError::HostPortTaken(_)), "{again}");
        drop(first);
        publish(&want(taken)).expect("free again");
        let own = ports(json!([{"containerPort": 80, "hostPort": 80, "hostIP": "10.1.0.1"}]));
        publish(&own.expect("ports")).expect_err("Kinglet's own");
    }
}
