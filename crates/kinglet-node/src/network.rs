//! The pod network: one gateway address per data directory, on a bridge without ports, and one link and address per pod.
//!
//! Flow: [`Network::open`] clears an earlier life away and makes the bridge -> [`Network::connect`] for each sandbox;
//! [`follow`] keeps the packet filter's table equal to the Services and their endpoints.
//! Always: a pod's link lives in its namespace, so it goes when the namespace goes; nothing has to be undone by hand
//! after a crash but the bridge, the links still in use and the packet filter's table. Each pod's link is a wire of its
//! own to the host: whatever a pod sends passes the host's packet filter.

mod addresses;
mod filter;
pub(crate) mod follow;
mod forwarding;
mod nftables;
mod ruleset;
mod service_range;
mod services;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use parking_lot::Mutex;

pub(crate) use addresses::{Addresses, Lease};
pub use service_range::{ServiceRange, service_range};
pub(crate) use services::cluster_address;

use crate::names::{HostNames, SUBNET_BITS, overlap};
use crate::sys::netns::{self, Namespaces};

/// What could not be done on the network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A user namespace for a pod.
    #[error("making a user namespace (hostUsers: false): {0}")]
    UserNamespace(io::Error),
    /// A request to the kernel's network configuration.
    #[error("{attempt}: {source}")]
    Netlink {
        /// What was attempted.
        attempt: &'static str,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// Anything else the system refused.
    #[error("{attempt}: {source}")]
    System {
        /// What was attempted.
        attempt: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// Every network of 10.0.0.0/8 is taken.
    #[error(
        "no free /22 network in 10.0.0.0/8 for pods: every one overlaps a route or address of this machine"
    )]
    NoSubnet,
    /// No network is left for Service addresses.
    #[error(
        "no free /16 network for Service addresses in 10.0.0.0/8, 172.16.0.0/12 or 100.64.0.0/10: every one overlaps a route of this machine"
    )]
    NoServiceRange,
    /// All addresses are in use.
    #[error("all {0} pod addresses of this machine are in use")]
    NoAddress(usize),
}

fn netlink(attempt: &'static str) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    move |source| NetworkError::Netlink { attempt, source }
}

fn system(attempt: &'static str) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| NetworkError::System { attempt, source }
}

/// What the pod network needs to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Addresses of Services, where they are ours to give.
    pub services: Option<ServiceRange>,
    /// The API server's port on the gateway's address, where the API server is ours.
    pub api_port: Option<u16>,
    /// Where node ports listen besides loopback; the unspecified address is every one.
    pub node_ports_on: Option<Ipv4Addr>,
}

/// The pod network of one data directory.
#[derive(Clone)]
pub(crate) struct Network(Arc<Inner>);

struct Inner {
    names: HostNames,
    options: NetworkOptions,
    /// Our table of the packet filter.
    table: Arc<Mutex<nftables::Table>>,
    handle: Handle,
    subnet: Ipv4Addr,
    addresses: Addresses,
    host: OwnedFd,
    next_link: AtomicU16,
}

/// A pod's place on the network: namespaces and address, given back when dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) namespaces: Namespaces,
    pub(crate) lease: Lease,
}

impl Network {
    /// Clears what an earlier life left, then makes bridge, routes and packet filter. Must run inside tokio.
    pub(crate) async fn open(
        names: &HostNames,
        options: NetworkOptions,
    ) -> Result<Self, NetworkError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(system("opening a netlink socket"))?;
        // Ends by itself when the last handle is dropped, which is after the network is closed.
        #[expect(
            clippy::disallowed_methods,
            reason = "the connection ends with its handle"
        )]
        tokio::spawn(connection);
        remove_links(&handle, names).await?;
        let subnet = free_subnet(names)?;
        let gateway = gateway_of(subnet);
        handle
            .link()
            .add(LinkBridge::new(&names.bridge()).up().build())
            .execute()
            .await
            .map_err(netlink(
                "making the pod bridge (is this process root, with CAP_NET_ADMIN?)",
            ))?;
        let bridge = link_index(&handle, &names.bridge()).await?;
        handle
            .address()
            .add(bridge, gateway.into(), SUBNET_BITS)
            .execute()
            .await
            .map_err(netlink("giving the pod bridge its address"))?;
        if let Some(range) = options.services {
            route_services(&handle, bridge, gateway, range).await;
        }
        forward_packets();
        let host = netns::current().map_err(system("opening the host's network namespace"))?;
        let network = Self(Arc::new(Inner {
            names: names.clone(),
            options,
            table: Arc::new(Mutex::new(nftables::Table::new(names.table()))),
            handle,
            subnet,
            addresses: Addresses::new(subnet, SUBNET_BITS),
            host,
            next_link: AtomicU16::new(0),
        }));
        let filtered = network.filter(&[]).await;
        forwarding::open(names, subnet, filtered.as_ref().err()).await;
        Ok(network)
    }

    /// Makes the packet filter's table equal to these Services.
    async fn filter(&self, observed: &[services::Observed]) -> Result<(), NetworkError> {
        let ruleset = filter::ruleset(&self.surroundings(observed), observed);
        let table = Arc::clone(&self.0.table);
        tokio::task::spawn_blocking(move || table.lock().apply(ruleset))
            .await
            .map_err(io::Error::other)
            .and_then(|applied| applied)
            .map_err(system("writing the packet filter's table"))
    }

    fn surroundings(&self, observed: &[services::Observed]) -> filter::Surroundings {
        let inner = &self.0;
        let api = observed.iter().map(|(service, _)| service).find(|service| {
            let metadata = &service.metadata;
            (metadata.namespace.as_deref(), metadata.name.as_deref())
                == (Some("default"), Some("kubernetes"))
        });
        filter::Surroundings {
            links: inner.names.link_prefix(),
            pods: ruleset::Subnet::new(inner.subnet, SUBNET_BITS),
            gateway: self.gateway(),
            services: inner.options.services.map(ServiceRange::subnet),
            api_port: inner.options.api_port,
            api_address: api.and_then(|service| cluster_address(service)),
            node_ports_on: inner.options.node_ports_on,
        }
    }

    /// The host's address on the bridge: gateway, DNS server and way to the local gateway.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        gateway_of(self.0.subnet)
    }

    /// Whether an address belongs to a pod of this node.
    pub(crate) fn contains(&self, address: Ipv4Addr) -> bool {
        overlap((self.0.subnet, SUBNET_BITS), (address, 32))
    }

    /// Makes namespaces with an address. Takes tens of milliseconds, so it is done ahead of need.
    pub(crate) async fn connect(&self) -> Result<Connection, NetworkError> {
        self.connect_namespaces(None).await
    }

    /// The same for namespaces that exist, or for new ones.
    pub(crate) async fn connect_namespaces(
        &self,
        given: Option<Namespaces>,
    ) -> Result<Connection, NetworkError> {
        let inner = &self.0;
        let lease = inner
            .addresses
            .lease()
            .ok_or(NetworkError::NoAddress(inner.addresses.capacity()))?;
        let link = inner
            .names
            .link(inner.next_link.fetch_add(1, Ordering::Relaxed));
        let (address, gateway) = (lease.address(), self.gateway());
        let this = self.clone();
        let name = link.clone();
        let made = tokio::task::spawn_blocking(move || {
            let inside = || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_io()
                    .build()?;
                let host = this.0.host.as_raw_fd();
                runtime
                    .block_on(configure(host, &name, address, gateway))
                    .map_err(io::Error::other)
            };
            match given {
                Some(namespaces) => {
                    netns::inside(&namespaces.network, inside)?;
                    Ok((namespaces, ()))
                }
                None => netns::create(inside),
            }
        })
        .await
        .map_err(io::Error::other)
        .and_then(|made| made);
        let (namespaces, ()) = made.map_err(system("making a pod's network"))?;
        self.attach(&link, address).await?;
        Ok(Connection { namespaces, lease })
    }

    /// Makes the host's end of a pod's link the way to the pod, and to the gateway from it. Pods share no wire: what one
    /// sends passes the host's packet filter, whoever else filters bridges on this machine.
    async fn attach(&self, link: &str, address: Ipv4Addr) -> Result<(), NetworkError> {
        let (inner, gateway) = (&self.0, self.gateway());
        // Only senders with that very address are heard; node ports lead from the host's loopback to the pod.
        write_setting(&format!("{link}/rp_filter"), "1");
        write_setting(&format!("{link}/route_localnet"), "1");
        switch_off_ipv6(link);
        let index = link_index(&inner.handle, link).await?;
        inner
            .handle
            .link()
            .change(LinkUnspec::new_with_index(index).up().build())
            .execute()
            .await
            .map_err(netlink("switching a pod's link on"))?;
        inner
            .handle
            .address()
            .add(index, gateway.into(), 32)
            .execute()
            .await
            .map_err(netlink("giving a pod's link the gateway's address"))?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .output_interface(index)
            .pref_source(gateway)
            .scope(RouteScope::Link)
            .build();
        inner
            .handle
            .route()
            .add(route)
            .execute()
            .await
            .map_err(netlink("making the route to a pod"))
    }

    /// Takes everything off the host.
    pub(crate) async fn close(&self) {
        forwarding::close(&self.0.names, self.0.subnet).await;
        let table = Arc::clone(&self.0.table);
        let removed = tokio::task::spawn_blocking(move || table.lock().remove()).await;
        if let Err(error) = removed.map_err(io::Error::other).and_then(|done| done) {
            tracing::warn!(%error, "taking the packet filter's table away");
        }
        if let Err(error) = remove_links(&self.0.handle, &self.0.names).await {
            tracing::warn!(%error, "cleaning up the pod network");
        }
    }
}

/// Lets the host's own programs find Service addresses, with the gateway as their source. What no rule translates is
/// refused before it gets to the bridge.
async fn route_services(handle: &Handle, bridge: u32, gateway: Ipv4Addr, range: ServiceRange) {
    let subnet = range.subnet();
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(subnet.address, subnet.bits)
        .output_interface(bridge)
        .pref_source(gateway)
        .scope(RouteScope::Link)
        .build();
    if let Err(error) = handle.route().add(route).execute().await {
        tracing::warn!(%error, range = %subnet, "Service addresses are not reachable from this machine itself, only from pods: another route takes them");
    }
}

/// The host's address in a pod network.
pub(crate) fn gateway_of(subnet: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet) + 1)
}

/// Runs inside the new namespace.
async fn configure(
    host: i32,
    link: &str,
    address: Ipv4Addr,
    gateway: Ipv4Addr,
) -> Result<(), rtnetlink::Error> {
    // Quiet: no duplicate address detection on a link that has one address by construction.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    // As other runtimes have it: low ports and ping without privileges, since the whole port space is the pod's own.
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    let _ = std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
    // All traffic passes the host; a hint that a neighbour is nearer must not be believed.
    for which in ["all", "default"] {
        write_setting(&format!("{which}/accept_redirects"), "0");
    }
    let (connection, handle, _) = rtnetlink::new_connection()
        .map_err(|error| rtnetlink::Error::NamespaceError(error.to_string()))?;
    #[expect(
        clippy::disallowed_methods,
        reason = "the connection ends with its handle"
    )]
    tokio::spawn(connection);
    let peer = LinkUnspec::new_with_name(link)
        .append_extra_attribute(LinkAttribute::NetNsFd(host))
        .build();
    let veth = LinkMessageBuilder::<LinkVeth>::new("eth0", link)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .up()
        .build();
    handle.link().add(veth).execute().await?;
    handle
        .link()
        .change(LinkUnspec::new_with_name("lo").up().build())
        .execute()
        .await?;
    let eth0 = index_by_name(&handle, "eth0")
        .await?
        .ok_or(rtnetlink::Error::RequestFailed)?;
    // An address of its own, without a network: every way leads over the gateway.
    handle
        .address()
        .add(eth0, address.into(), 32)
        .execute()
        .await?;
    let to_gateway = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(gateway, 32)
        .output_interface(eth0)
        .scope(RouteScope::Link)
        .build();
    handle.route().add(to_gateway).execute().await?;
    handle
        .route()
        .add(
            RouteMessageBuilder::<Ipv4Addr>::new()
                .gateway(gateway)
                .build(),
        )
        .execute()
        .await
}

async fn index_by_name(handle: &Handle, name: &str) -> Result<Option<u32>, rtnetlink::Error> {
    let mut found = Box::pin(handle.link().get().match_name(name.to_owned()).execute());
    Ok(found.try_next().await?.map(|link| link.header.index))
}

async fn link_index(handle: &Handle, name: &str) -> Result<u32, NetworkError> {
    index_by_name(handle, name)
        .await
        .map_err(netlink("looking for a pod link"))?
        .ok_or_else(|| system("looking for a pod link")(io::Error::from(io::ErrorKind::NotFound)))
}

async fn remove_links(handle: &Handle, names: &HostNames) -> Result<(), NetworkError> {
    let attempt = "listing network links";
    let links: Vec<_> = handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(netlink(attempt))?;
    for link in links {
        let name = link.attributes.iter().find_map(|one| {
            if let LinkAttribute::IfName(name) = one {
                Some(name.as_str())
            } else {
                None
            }
        });
        let Some(name) = name else { continue };
        if name == names.bridge() || name.starts_with(&names.link_prefix()) {
            // A link whose namespace is being torn down at this moment may already be gone.
            if let Err(error) = handle.link().del(link.header.index).execute().await {
                tracing::debug!(name, %error, "link not removed");
            }
        }
    }
    Ok(())
}

/// The pod network of a data directory: its first choice that overlaps no route of this machine. The bridge of an earlier
/// life does not count.
pub(crate) fn free_subnet(names: &HostNames) -> Result<Ipv4Addr, NetworkError> {
    let routes = std::fs::read_to_string("/proc/net/route")
        .map_err(system("reading the routes of this machine"))?;
    let taken = routes_in(&routes, &names.bridge());
    names
        .subnets()
        .find(|subnet| {
            taken
                .iter()
                .all(|other| !overlap((*subnet, SUBNET_BITS), *other))
        })
        .ok_or(NetworkError::NoSubnet)
}

/// Networks in the text of `/proc/net/route` but the default route.
fn routes_in(text: &str, own_bridge: &str) -> Vec<(Ipv4Addr, u8)> {
    let lines = text.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let address = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::from_be);
        let (destination, mask) = (address(fields.get(1)?)?, address(fields.get(7)?)?);
        let bits = u8::try_from(mask.leading_ones()).ok()?;
        (fields[0] != own_bridge && bits > 0).then_some((Ipv4Addr::from(destination), bits))
    });
    lines.collect()
}

/// Writes one of this namespace's settings of an interface.
fn write_setting(setting: &str, value: &str) {
    let file = format!("/proc/sys/net/ipv4/conf/{setting}");
    if let Err(error) = std::fs::write(&file, value) {
        tracing::warn!(file, value, %error, "a setting of the network was not made");
    }
}

/// Pods have no IPv6, and the packet filter's table has no rules for it: a frame that a pod makes by hand must neither
/// reach what listens on `::` nor make the host believe in a router (CVE-2020-10749).
fn switch_off_ipv6(link: &str) {
    let file = format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
    match std::fs::write(&file, "1") {
        Ok(()) => {}
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(file, %error, "a pod may send IPv6 packets to this machine, which nothing filters");
        }
    }
}

fn forward_packets() {
    let file = "/proc/sys/net/ipv4/ip_forward";
    if std::fs::read_to_string(file).is_ok_and(|text| text.trim() == "1") {
        return;
    }
    if let Err(error) = std::fs::write(file, "1") {
        tracing::warn!(%error, "cannot switch on IP forwarding: pods reach this machine, but nothing beyond it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_that_count() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
eth0\t00000000\t0102000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
kb12345678\t00588C0A\t00000000\t0001\t0\t0\t0\t00FCFFFF\t0\t0\t0\n";
        if cfg!(target_endian = "little") {
            assert_eq!(
                routes_in(text, "kb12345678"),
                vec![(Ipv4Addr::new(10, 0, 2, 0), 24)]
            );
            assert_eq!(
                routes_in(text, "other")[1],
                (Ipv4Addr::new(10, 140, 88, 0), 22)
            );
        }
    }
}
