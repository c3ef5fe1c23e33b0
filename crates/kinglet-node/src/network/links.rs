//! The bridge, and the wire of each pod: addresses, routes and settings, over netlink.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use super::service_range::ServiceRange;
use super::{NetworkError, netlink, system};
use crate::names::{BRIDGE_PREFIX, HostNames, LINK_PREFIX, SUBNET_BITS};

/// Makes the bridge that has the gateway's address, and the way of the host's own programs to Service addresses.
pub(super) async fn make_bridge(
    handle: &Handle,
    names: &HostNames,
    gateway: Ipv4Addr,
    services: Option<ServiceRange>,
) -> Result<(), NetworkError> {
    handle
        .link()
        .add(LinkBridge::new(&names.bridge()).up().build())
        .execute()
        .await
        .map_err(netlink(
            "making the pod bridge (is this process root, with CAP_NET_ADMIN?)",
        ))?;
    without_ipv6(&names.bridge());
    let bridge = link_index(handle, &names.bridge()).await?;
    handle
        .address()
        .add(bridge, gateway.into(), SUBNET_BITS)
        .execute()
        .await
        .map_err(netlink("giving the pod bridge its address"))?;
    if let Some(range) = services {
        route_services(handle, bridge, gateway, range).await;
    }
    Ok(())
}

/// Gives the bridge one more address.
pub(super) async fn add_address(
    handle: &Handle,
    names: &HostNames,
    address: Ipv4Addr,
) -> Result<(), NetworkError> {
    let bridge = link_index(handle, &names.bridge()).await?;
    handle
        .address()
        .add(bridge, address.into(), 32)
        .execute()
        .await
        .map_err(netlink("giving the pod bridge one more address"))
}

/// Makes the host's end of a pod's link the way to the pod, and to the gateway from it. Pods share no wire: what one
/// sends passes the host's packet filter, whoever else filters bridges on this machine.
pub(super) async fn attach(
    handle: &Handle,
    link: &str,
    address: Ipv4Addr,
    gateway: Ipv4Addr,
) -> Result<(), NetworkError> {
    // Only senders with that very address are heard; node ports lead from the host's loopback to the pod.
    write_setting(&format!("{link}/rp_filter"), "1");
    write_setting(&format!("{link}/route_localnet"), "1");
    without_ipv6(link);
    let index = link_index(handle, link).await?;
    handle
        .link()
        .change(LinkUnspec::new_with_index(index).up().build())
        .execute()
        .await
        .map_err(netlink("switching a pod's link on"))?;
    handle
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
    handle
        .route()
        .add(route)
        .execute()
        .await
        .map_err(netlink("making the route to a pod"))
}

/// The IPv4 addresses of this machine that no pod network has.
pub(super) async fn host_addresses(handle: &Handle) -> Result<Vec<Ipv4Addr>, NetworkError> {
    let attempt = "listing this machine's addresses";
    let all: Vec<_> = handle
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(netlink(attempt))?;
    let found = all.into_iter().filter_map(|message| {
        let mut address = None;
        for attribute in &message.attributes {
            match attribute {
                // The name of the link; bridges and wires of pods are not this machine's own.
                AddressAttribute::Label(name)
                    if name.starts_with(LINK_PREFIX) || name.starts_with(BRIDGE_PREFIX) =>
                {
                    return None;
                }
                AddressAttribute::Local(IpAddr::V4(local)) => address = Some(*local),
                _ => {}
            }
        }
        address
    });
    let mut found: Vec<_> = found.collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Switches IPv6 off on a link of the host. Pods have IPv4 only, and the packet filter's table has no rules for it: a frame that
/// a pod makes by hand must neither reach what listens on `::` nor make the host believe in a router (CVE-2020-10749).
fn without_ipv6(link: &str) {
    let file = format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
    match std::fs::write(&file, "1") {
        Ok(()) => {}
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(file, %error, "IPv6 stays on between a pod and this machine");
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

/// Makes a pod's end of its link, inside the pod's new namespace.
pub(super) async fn configure(
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

/// Removes every link that has a name of this data directory: all it can, and says why the first of the rest stays.
pub(super) async fn remove_links(handle: &Handle, names: &HostNames) -> Result<(), NetworkError> {
    let attempt = "listing network links";
    let links: Vec<_> = handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(netlink(attempt))?;
    let mut done = Ok(());
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
            match handle.link().del(link.header.index).execute().await {
                // A link whose namespace is being torn down at this moment may already be gone.
                Err(error) if !is_gone(&error) => {
                    tracing::debug!(name, %error, "link not removed");
                    done = done.and(Err(netlink("removing a network link")(error)));
                }
                _ => {}
            }
        }
    }
    done
}

fn is_gone(error: &rtnetlink::Error) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(answer) if answer.to_io().raw_os_error() == Some(libc::ENODEV))
}

/// Writes one of this namespace's settings of an interface.
fn write_setting(setting: &str, value: &str) {
    let file = format!("/proc/sys/net/ipv4/conf/{setting}");
    if let Err(error) = std::fs::write(&file, value) {
        tracing::warn!(file, value, %error, "a setting of the network was not made");
    }
}

/// Switches on IP forwarding, which pods need to reach beyond this machine.
pub(super) fn forward_packets() {
    let file = "/proc/sys/net/ipv4/ip_forward";
    if std::fs::read_to_string(file).is_ok_and(|text| text.trim() == "1") {
        return;
    }
    if let Err(error) = std::fs::write(file, "1") {
        tracing::warn!(%error, "cannot switch on IP forwarding: pods reach this machine, but nothing beyond it");
    }
}
