//! What our own names resolve to: pure, given what the caches say.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;

/// `ExternalName`s that point at each other end here.
const HOPS_MAX: u32 = 4;

/// Reads what names are about.
pub(crate) trait Records: Send + Sync {
    /// A Service.
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    /// Addresses of a Service's ready endpoints, in order.
    fn endpoints(&self, namespace: &str, name: &str) -> Vec<IpAddr>;
    /// The pod of that `hostname` and `subdomain`.
    fn pod_of(&self, namespace: &str, service: &str, hostname: &str) -> Option<IpAddr>;
}

/// The cluster's zone.
pub(crate) struct Zone {
    /// `cluster.local`.
    pub(crate) domain: String,
    /// The local gateway, which also leads to the API server.
    pub(crate) gateway: Ipv4Addr,
    pub(crate) records: Box<dyn Records>,
}

/// What a name resolves to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// These addresses; none when nobody is ready.
    Addresses(Vec<IpAddr>),
    /// Another name, which is not ours.
    Alias(String),
    /// Ours, and there is no such name.
    Missing,
    /// Not ours.
    Foreign,
}

impl Zone {
    /// Resolves a name without its final dot.
    pub(crate) fn resolve(&self, name: &str) -> Resolved {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.resolve_hop(&name, 0)
    }

    fn resolve_hop(&self, name: &str, hop: u32) -> Resolved {
        let Some(inside) = name
            .strip_suffix(&self.domain)
            .and_then(|rest| rest.strip_suffix('.'))
        else {
            return if name == self.domain {
                Resolved::Addresses(Vec::new())
            } else {
                Resolved::Foreign
            };
        };
        let labels: Vec<&str> = inside.split('.').collect();
        match labels.as_slice() {
            [service, namespace, "svc"] => self.service(namespace, service, hop),
            [hostname, service, namespace, "svc"] => {
                if let Some(address) = self.records.pod_of(namespace, service, hostname) {
                    return Resolved::Addresses(vec![address]);
                }
                // Names below a Route (a tag's) are Services of their own; anything else below a Service is nobody's.
                Resolved::Missing
            }
            // `1-2-3-4.namespace.pod` is the address it spells.
            [address, _, "pod"] => address
                .replace('-', ".")
                .parse()
                .map_or(Resolved::Missing, |address| {
                    Resolved::Addresses(vec![address])
                }),
            ["svc"] | [_, "svc"] => Resolved::Addresses(Vec::new()),
            _ => Resolved::Missing,
        }
    }

    fn service(&self, namespace: &str, name: &str, hop: u32) -> Resolved {
        let gateway = || Resolved::Addresses(vec![IpAddr::V4(self.gateway)]);
        if (namespace, name) == ("default", "kubernetes") {
            return gateway();
        }
        let Some(service) = self.records.service(namespace, name) else {
            return Resolved::Missing;
        };
        let Some(spec) = &service.spec else {
            return gateway();
        };
        if spec.type_.as_deref() == Some("ExternalName") {
            let target = spec
                .external_name
                .as_deref()
                .unwrap_or("")
                .trim_end_matches('.')
                .to_ascii_lowercase();
            let full = if target.ends_with(".svc") {
                format!("{target}.{}", self.domain)
            } else {
                target
            };
            if hop >= HOPS_MAX {
                return Resolved::Missing;
            }
            return match self.resolve_hop(&full, hop + 1) {
                // The gateway's own name need not exist as an object.
                Resolved::Missing => gateway(),
                Resolved::Foreign if full.is_empty() => Resolved::Missing,
                Resolved::Foreign => Resolved::Alias(full),
                known => known,
            };
        }
        if spec
            .selector
            .as_ref()
            .is_none_or(std::collections::BTreeMap::is_empty)
        {
            return gateway();
        }
        Resolved::Addresses(self.records.endpoints(namespace, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Fixed;

    impl Records for Fixed {
        fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
            let spec = match (namespace, name) {
                ("ns", "route") => {
                    json!({"type": "ExternalName", "externalName": "gateway-internal.system.svc.cluster.local"})
                }
                ("ns", "short") => json!({"type": "ExternalName", "externalName": "app.ns.svc"}),
                ("ns", "loop") => {
                    json!({"type": "ExternalName", "externalName": "loop.ns.svc.cluster.local"})
                }
                ("ns", "away") => json!({"type": "ExternalName", "externalName": "Example.com."}),
                ("ns", "public") => json!({"clusterIP": "None"}),
                ("ns", "app") => json!({"selector": {"app": "x"}}),
                _ => return None,
            };
            Some(Arc::new(
                serde_json::from_value(json!({"spec": spec})).expect("service"),
            ))
        }

        fn endpoints(&self, _: &str, _: &str) -> Vec<IpAddr> {
            vec![IpAddr::from([10, 0, 0, 9])]
        }

        fn pod_of(&self, _: &str, service: &str, hostname: &str) -> Option<IpAddr> {
            ((service, hostname) == ("app", "zero")).then(|| IpAddr::from([10, 0, 0, 5]))
        }
    }

    #[test]
    fn a_row_per_name() {
        let zone = Zone {
            domain: "cluster.local".to_owned(),
            gateway: Ipv4Addr::new(10, 0, 0, 1),
            records: Box::new(Fixed),
        };
        let one = |last| Resolved::Addresses(vec![IpAddr::from([10, 0, 0, last])]);
        for (name, expected) in [
            ("kubernetes.default.svc.cluster.local", one(1)),
            ("Route.ns.svc.cluster.local.", one(1)),
            ("public.ns.svc.cluster.local", one(1)),
            ("app.ns.svc.cluster.local", one(9)),
            ("short.ns.svc.cluster.local", one(9)),
            ("zero.app.ns.svc.cluster.local", one(5)),
            ("one.app.ns.svc.cluster.local", Resolved::Missing),
            (
                "away.ns.svc.cluster.local",
                Resolved::Alias("example.com".to_owned()),
            ),
            ("none.ns.svc.cluster.local", Resolved::Missing),
            ("loop.ns.svc.cluster.local", one(1)),
            (
                "10-1-2-3.ns.pod.cluster.local",
                Resolved::Addresses(vec![IpAddr::from([10, 1, 2, 3])]),
            ),
            ("ns.svc.cluster.local", Resolved::Addresses(Vec::new())),
            ("cluster.local", Resolved::Addresses(Vec::new())),
            ("notcluster.local", Resolved::Foreign),
            ("example.com", Resolved::Foreign),
            ("", Resolved::Foreign),
        ] {
            assert_eq!(zone.resolve(name), expected, "{name}");
        }
    }
}
