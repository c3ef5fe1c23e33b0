//! What our own names resolve to: pure, given what the caches say.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;

use crate::names::overlap;

/// `ExternalName`s that point at each other end here.
const HOPS_MAX: u32 = 4;

/// One endpoint of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EndpointRecord {
    pub(crate) address: IpAddr,
    pub(crate) hostname: Option<String>,
    pub(crate) ports: Vec<PortRecord>,
}

/// One port by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortRecord {
    /// Empty where a Service has one port without a name.
    pub(crate) name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub(crate) protocol: String,
    pub(crate) port: u16,
}

/// Reads what names are about.
pub(crate) trait Records: Send + Sync {
    /// A Service.
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    /// A Service's ready endpoints, in order.
    fn endpoints(&self, namespace: &str, name: &str) -> Vec<EndpointRecord>;
    /// Namespace and name of the Service that has this address, or of the Services without one that have it as an endpoint.
    fn services_at(&self, address: Ipv4Addr) -> Vec<(String, String)>;
    /// Whether there is such a namespace.
    fn has_namespace(&self, name: &str) -> bool;
}

/// The cluster's zone.
pub(crate) struct Zone {
    /// `cluster.local`.
    pub(crate) domain: String,
    /// The local gateway.
    pub(crate) gateway: Ipv4Addr,
    /// Networks whose addresses are ours to name: of pods and of Services.
    pub(crate) networks: Vec<(Ipv4Addr, u8)>,
    pub(crate) records: Box<dyn Records>,
}

/// Where a port of a Service is found (an SRV record).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// What a name resolves to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// These addresses; none when nobody is ready.
    Addresses(Vec<IpAddr>),
    /// These ports on other names of ours.
    Targets(Vec<Target>),
    /// These names of an address.
    Names(Vec<String>),
    /// Another name, which is not ours.
    Alias(String),
    /// Ours, and there is no such name.
    Missing,
    /// Not ours.
    Foreign,
}

/// On Knative's own Services of a Revision: the gateway answers for them.
const SERVICE_TYPE: &str = "networking.internal.knative.dev/serviceType";
/// The names that Ingresses announce are the gateway itself.
const GATEWAY_NAMESPACE: &str = "kinglet-system";
const GATEWAYS: [&str; 2] = ["gateway", "gateway-internal"];

impl Zone {
    /// Resolves a name to addresses, or `_port._protocol.` names to targets. The final dot may be there or not.
    pub(crate) fn resolve(&self, name: &str) -> Resolved {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.resolve_hop(&name, 0)
    }

    /// Resolves a question for SRV records: a Service's own name has all its ports.
    pub(crate) fn resolve_ports(&self, name: &str) -> Resolved {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let labels: Vec<&str> = self
            .inside(&name)
            .map(|inside| inside.split('.').collect())
            .unwrap_or_default();
        match labels.as_slice() {
            [service, namespace, "svc"] if self.records.service(namespace, service).is_some() => {
                self.targets(namespace, service, |_| true)
            }
            _ => self.resolve_hop(&name, 0),
        }
    }

    /// Resolves a question for the names of an address (`4.3.2.1.in-addr.arpa`).
    pub(crate) fn resolve_reverse(&self, name: &str) -> Resolved {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let Some(address) = reversed(&name) else {
            return self.resolve_hop(&name, 0);
        };
        let mut names = Vec::new();
        for (namespace, service) in self.records.services_at(address) {
            let own = format!("{service}.{namespace}.svc.{}", self.domain);
            let found = self.records.service(&namespace, &service);
            if !found.is_some_and(|service| is_headless(&service)) {
                names.push(own);
                continue;
            }
            let endpoints = self.records.endpoints(&namespace, &service);
            let endpoints = endpoints.iter().filter(|one| one.address == address);
            names.extend(endpoints.map(|one| format!("{}.{own}", host_of(one))));
        }
        names.sort();
        names.dedup();
        let is_ours = |network: &(Ipv4Addr, u8)| overlap(*network, (address, 32));
        if !names.is_empty() {
            Resolved::Names(names)
        } else if self.networks.iter().any(is_ours) {
            Resolved::Missing
        } else {
            Resolved::Foreign
        }
    }

    fn inside<'n>(&self, name: &'n str) -> Option<&'n str> {
        name.strip_suffix(&self.domain)?.strip_suffix('.')
    }

    fn resolve_hop(&self, name: &str, hop: u32) -> Resolved {
        let Some(inside) = self.inside(name) else {
            return if name == self.domain {
                Resolved::Addresses(Vec::new())
            } else {
                Resolved::Foreign
            };
        };
        let labels: Vec<&str> = inside.split('.').collect();
        match labels.as_slice() {
            [service, namespace, "svc"] => self.service(namespace, service, hop),
            [hostname, service, namespace, "svc"] => self.host(namespace, service, hostname),
            [port, protocol, service, namespace, "svc"] => {
                let (Some(port), Some(protocol)) =
                    (port.strip_prefix('_'), protocol.strip_prefix('_'))
                else {
                    return Resolved::Missing;
                };
                let named = |found: &PortRecord| {
                    found.name.eq_ignore_ascii_case(port)
                        && found.protocol.eq_ignore_ascii_case(protocol)
                };
                match self.targets(namespace, service, named) {
                    Resolved::Targets(found) if found.is_empty() => Resolved::Missing,
                    found => found,
                }
            }
            // `1-2-3-4.namespace.pod` is the address it spells.
            [address, _, "pod"] => address
                .replace('-', ".")
                .parse()
                .map_or(Resolved::Missing, |address| {
                    Resolved::Addresses(vec![address])
                }),
            // There are names below these, so they are there themselves, without records.
            ["svc" | "pod"] => Resolved::Addresses(Vec::new()),
            [namespace, "svc"] if self.records.has_namespace(namespace) => {
                Resolved::Addresses(Vec::new())
            }
            _ => Resolved::Missing,
        }
    }

    /// One pod behind a Service: by its `hostname` and `subdomain`, or by its address with dashes where it has none.
    fn host(&self, namespace: &str, service: &str, hostname: &str) -> Resolved {
        let Some(found) = self.records.service(namespace, service) else {
            return Resolved::Missing;
        };
        if !is_headless(&found) {
            return Resolved::Missing;
        }
        let endpoints = self.records.endpoints(namespace, service);
        let mut own = endpoints
            .iter()
            .filter(|one| host_of(one) == hostname)
            .peekable();
        if own.peek().is_none() {
            return Resolved::Missing;
        }
        Resolved::Addresses(own.map(|one| one.address).collect())
    }

    fn service(&self, namespace: &str, name: &str, hop: u32) -> Resolved {
        let gateway = || Resolved::Addresses(vec![IpAddr::V4(self.gateway)]);
        if namespace == GATEWAY_NAMESPACE && GATEWAYS.contains(&name) {
            return gateway();
        }
        let Some(service) = self.records.service(namespace, name) else {
            return Resolved::Missing;
        };
        let labels = service.metadata.labels.as_ref();
        if labels.is_some_and(|labels| labels.contains_key(SERVICE_TYPE)) {
            return gateway();
        }
        let spec = service.spec.clone().unwrap_or_default();
        if spec.type_.as_deref() == Some("ExternalName") {
            return self.external(spec.external_name.as_deref().unwrap_or(""), hop);
        }
        if let Some(address) = crate::network::cluster_address(&service) {
            return Resolved::Addresses(vec![address.into()]);
        }
        let endpoints = self.records.endpoints(namespace, name);
        Resolved::Addresses(endpoints.into_iter().map(|one| one.address).collect())
    }

    /// What an `ExternalName` leads to.
    fn external(&self, target: &str, hop: u32) -> Resolved {
        let target = target.trim_end_matches('.').to_ascii_lowercase();
        let full = if target.ends_with(".svc") {
            format!("{target}.{}", self.domain)
        } else {
            target
        };
        if hop >= HOPS_MAX || full.is_empty() {
            return Resolved::Missing;
        }
        match self.resolve_hop(&full, hop + 1) {
            Resolved::Foreign => Resolved::Alias(full),
            known => known,
        }
    }

    fn targets(
        &self,
        namespace: &str,
        name: &str,
        wanted: impl Fn(&PortRecord) -> bool,
    ) -> Resolved {
        let Some(service) = self.records.service(namespace, name) else {
            return Resolved::Missing;
        };
        let own = format!("{name}.{namespace}.svc.{}", self.domain);
        let mut out = Vec::new();
        if is_headless(&service) {
            for endpoint in self.records.endpoints(namespace, name) {
                let host = format!("{}.{own}", host_of(&endpoint));
                let ports = endpoint.ports.iter().filter(|port| wanted(port));
                out.extend(ports.map(|found| Target {
                    host: host.clone(),
                    port: found.port,
                }));
            }
        } else {
            let ports = service
                .spec
                .iter()
                .flat_map(|spec| spec.ports.iter().flatten());
            let ports = ports.filter_map(|port| {
                Some(PortRecord {
                    name: port.name.clone().unwrap_or_default(),
                    protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                    port: u16::try_from(port.port).ok()?,
                })
            });
            out.extend(ports.filter(wanted).map(|found| Target {
                host: own.clone(),
                port: found.port,
            }));
        }
        out.sort();
        out.dedup();
        Resolved::Targets(out)
    }
}

/// The address that a name below `in-addr.arpa` spells.
fn reversed(name: &str) -> Option<Ipv4Addr> {
    let labels: Vec<&str> = name.strip_suffix(".in-addr.arpa")?.split('.').collect();
    let [d, c, b, a] = labels.as_slice() else {
        return None;
    };
    format!("{a}.{b}.{c}.{d}").parse().ok()
}

fn is_headless(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// The name of an endpoint below its Service.
fn host_of(endpoint: &EndpointRecord) -> String {
    match &endpoint.hostname {
        Some(hostname) => hostname.to_ascii_lowercase(),
        None => endpoint.address.to_string().replace(['.', ':'], "-"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Fixed;

    impl Records for Fixed {
        fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
            let labels = if name == "revision" {
                json!({SERVICE_TYPE: "Public"})
            } else {
                json!({})
            };
            let spec = match (namespace, name) {
                ("ns", "route") => {
                    json!({"type": "ExternalName", "externalName": "gateway-internal.kinglet-system.svc.cluster.local"})
                }
                ("ns", "short") => json!({"type": "ExternalName", "externalName": "app.ns.svc"}),
                ("ns", "loop") => {
                    json!({"type": "ExternalName", "externalName": "loop.ns.svc.cluster.local"})
                }
                ("ns", "away") => json!({"type": "ExternalName", "externalName": "Example.com."}),
                ("ns", "revision") => json!({"clusterIP": "10.9.0.8"}),
                ("ns", "headless" | "empty") => json!({"clusterIP": "None"}),
                ("ns", "app") => json!({"clusterIP": "10.9.0.7", "ports": [
                    {"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}
                ]}),
                ("default", "kubernetes") => json!({"clusterIP": "10.9.0.1"}),
                _ => return None,
            };
            Some(Arc::new(
                serde_json::from_value(json!({"metadata": {"labels": labels}, "spec": spec}))
                    .expect("service"),
            ))
        }

        fn endpoints(&self, _: &str, name: &str) -> Vec<EndpointRecord> {
            if name == "empty" {
                return Vec::new();
            }
            let one = |last, hostname: Option<&str>| EndpointRecord {
                address: IpAddr::from([10, 1, 0, last]),
                hostname: hostname.map(str::to_owned),
                ports: vec![PortRecord {
                    name: "http".to_owned(),
                    protocol: "TCP".to_owned(),
                    port: 8080,
                }],
            };
            vec![one(4, None), one(5, Some("zero"))]
        }

        fn services_at(&self, address: Ipv4Addr) -> Vec<(String, String)> {
            let name = match address.octets() {
                [10, 9, 0, 7] => "app",
                [10, 1, 0, 4 | 5] => "headless",
                _ => return Vec::new(),
            };
            vec![("ns".to_owned(), name.to_owned())]
        }

        fn has_namespace(&self, name: &str) -> bool {
            name == "ns"
        }
    }

    fn zone() -> Zone {
        Zone {
            domain: "cluster.local".to_owned(),
            gateway: Ipv4Addr::new(10, 1, 0, 1),
            networks: vec![
                (Ipv4Addr::new(10, 1, 0, 0), 22),
                (Ipv4Addr::new(10, 9, 0, 0), 16),
            ],
            records: Box::new(Fixed),
        }
    }

    #[test]
    fn a_row_per_name() {
        let zone = zone();
        let addresses = |all: &[[u8; 4]]| {
            Resolved::Addresses(all.iter().map(|one| IpAddr::from(*one)).collect())
        };
        let gateway = addresses(&[[10, 1, 0, 1]]);
        for (name, expected) in [
            (
                "kubernetes.default.svc.cluster.local",
                addresses(&[[10, 9, 0, 1]]),
            ),
            ("Route.ns.svc.cluster.local.", gateway.clone()),
            (
                "gateway-internal.kinglet-system.svc.cluster.local",
                gateway.clone(),
            ),
            ("revision.ns.svc.cluster.local", gateway),
            ("app.ns.svc.cluster.local", addresses(&[[10, 9, 0, 7]])),
            ("short.ns.svc.cluster.local", addresses(&[[10, 9, 0, 7]])),
            (
                "headless.ns.svc.cluster.local",
                addresses(&[[10, 1, 0, 4], [10, 1, 0, 5]]),
            ),
            ("empty.ns.svc.cluster.local", addresses(&[])),
            (
                "zero.headless.ns.svc.cluster.local",
                addresses(&[[10, 1, 0, 5]]),
            ),
            (
                "10-1-0-4.headless.ns.svc.cluster.local",
                addresses(&[[10, 1, 0, 4]]),
            ),
            ("one.headless.ns.svc.cluster.local", Resolved::Missing),
            ("zero.app.ns.svc.cluster.local", Resolved::Missing),
            (
                "away.ns.svc.cluster.local",
                Resolved::Alias("example.com".to_owned()),
            ),
            ("none.ns.svc.cluster.local", Resolved::Missing),
            ("loop.ns.svc.cluster.local", Resolved::Missing),
            ("10-1-2-3.ns.pod.cluster.local", addresses(&[[10, 1, 2, 3]])),
            ("ns.svc.cluster.local", addresses(&[])),
            ("nowhere.svc.cluster.local", Resolved::Missing),
            ("cluster.local", addresses(&[])),
            ("notcluster.local", Resolved::Foreign),
            ("example.com", Resolved::Foreign),
            ("", Resolved::Foreign),
        ] {
            assert_eq!(zone.resolve(name), expected, "{name}");
        }
    }

    #[test]
    fn names_of_addresses() {
        let names =
            |all: &[&str]| Resolved::Names(all.iter().map(|one| (*one).to_owned()).collect());
        for (name, expected) in [
            (
                "7.0.9.10.in-addr.arpa.",
                names(&["app.ns.svc.cluster.local"]),
            ),
            (
                "4.0.1.10.in-addr.arpa",
                names(&["10-1-0-4.headless.ns.svc.cluster.local"]),
            ),
            (
                "5.0.1.10.IN-ADDR.arpa",
                names(&["zero.headless.ns.svc.cluster.local"]),
            ),
            ("9.0.1.10.in-addr.arpa", Resolved::Missing),
            ("1.2.0.192.in-addr.arpa", Resolved::Foreign),
            ("0.1.10.in-addr.arpa", Resolved::Foreign),
            ("x.0.1.10.in-addr.arpa", Resolved::Foreign),
        ] {
            assert_eq!(zone().resolve_reverse(name), expected, "{name}");
        }
    }

    #[test]
    fn ports_by_name() {
        let zone = zone();
        let targets = |all: &[(&str, u16)]| {
            let target = |(host, port): &(&str, u16)| Target {
                host: (*host).to_owned(),
                port: *port,
            };
            Resolved::Targets(all.iter().map(target).collect())
        };
        let own = "app.ns.svc.cluster.local";
        for (name, expected) in [
            ("_http._tcp.app.ns.svc.cluster.local", targets(&[(own, 80)])),
            ("_dns._UDP.app.ns.svc.cluster.local", targets(&[(own, 53)])),
            ("_http._udp.app.ns.svc.cluster.local", Resolved::Missing),
            ("_http._tcp.none.ns.svc.cluster.local", Resolved::Missing),
            ("http.tcp.app.ns.svc.cluster.local", Resolved::Missing),
            (own, targets(&[(own, 53), (own, 80)])),
            (
                "_http._tcp.headless.ns.svc.cluster.local",
                targets(&[
                    ("10-1-0-4.headless.ns.svc.cluster.local", 8080),
                    ("zero.headless.ns.svc.cluster.local", 8080),
                ]),
            ),
        ] {
            assert_eq!(zone.resolve_ports(name), expected, "{name}");
        }
    }
}
