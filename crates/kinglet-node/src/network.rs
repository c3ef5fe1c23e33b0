//! The pod network: one bridge per data directory, one link and address per pod.
//!
//! Flow: [`Network::open`] clears an earlier life away and makes the bridge -> [`Network::connect`] for each sandbox.
//! Always: a pod's link lives in its namespace, so it goes when the namespace goes; nothing has to be undone by hand
//! after a crash but the bridge, the links still in use and the packet filter's table.

mod addresses;
mod nat;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

pub(crate) use addresses::{Addresses, Lease};

use crate::names::{HostNames, SUBNET_BITS, overlap};
use crate::sys::netns::{self, Namespaces};

/// What could not be done on the network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
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

/// The pod network of one data directory.
#[derive(Clone)]
pub(crate) struct Network(Arc<Inner>);

struct Inner {
    names: HostNames,
    handle: Handle,
    bridge: u32,
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
    /// Clears what an earlier life left, then makes bridge and address translation. Must run inside tokio.
    pub(crate) async fn open(names: &HostNames) -> Result<Self, NetworkError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(system("opening a netlink socket"))?;
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
        forward_packets();
        nat::open(names, subnet).await;
        let host = netns::current().map_err(system("opening the host's network namespace"))?;
        Ok(Self(Arc::new(Inner {
            names: names.clone(),
            handle,
            bridge,
            subnet,
            addresses: Addresses::new(subnet, SUBNET_BITS),
            host,
            next_link: AtomicU16::new(0),
        })))
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
            netns::create(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_io()
                    .build()?;
                let host = this.0.host.as_raw_fd();
                runtime
                    .block_on(configure(host, &name, address, gateway))
                    .map_err(io::Error::other)
            })
        })
        .await
        .map_err(io::Error::other)
        .and_then(|made| made);
        let (namespaces, ()) = made.map_err(system("making a pod's network"))?;
        let index = link_index(&inner.handle, &link).await?;
        inner
            .handle
            .link()
            .change(
                LinkUnspec::new_with_index(index)
                    .controller(inner.bridge)
                    .up()
                    .build(),
            )
            .execute()
            .await
            .map_err(netlink("hanging a pod on the bridge"))?;
        Ok(Connection { namespaces, lease })
    }

    /// Takes everything off the host.
    pub(crate) async fn close(&self) {
        nat::close(&self.0.names, self.0.subnet).await;
        if let Err(error) = remove_links(&self.0.handle, &self.0.names).await {
            tracing::warn!(%error, "cleaning up the pod network");
        }
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
    let (connection, handle, _) = rtnetlink::new_connection()
        .map_err(|error| rtnetlink::Error::NamespaceError(error.to_string()))?;
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
    handle
        .address()
        .add(eth0, address.into(), SUBNET_BITS)
        .execute()
        .await?;
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
