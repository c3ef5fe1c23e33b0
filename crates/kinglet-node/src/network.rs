//! The pod network: one gateway address per data directory, on a bridge without ports, and one link and address per pod.
//!
//! Flow: [`Network::open`] clears an earlier life away and makes the bridge -> [`Network::connect`] for each sandbox;
//! [`follow`] keeps the packet filter's table equal to the Services and their endpoints.
//! Always: a pod's link lives in its namespace, so it goes when the namespace goes; nothing has to be undone by hand
//! after a crash but the bridge, the links still in use and the packet filter's table. Each pod's link is a wire of its
//! own to the host: whatever a pod sends passes the host's packet filter.

mod addresses;
mod conntrack;
mod filter;
pub(crate) mod follow;
mod forwarding;
mod host_ports;
mod links;
mod netfilter;
mod nftables;
mod ruleset;
mod service_range;
mod services;
mod subnet;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use kinglet_process::Tasks;
use kinglet_process::egress::is_own_address;
use parking_lot::Mutex;
use rtnetlink::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub(crate) use addresses::{Addresses, Lease};
pub(crate) use host_ports::{HostPort, PublishedPorts};
pub use service_range::{ServiceRange, service_range};
pub(crate) use services::cluster_address;
use subnet::{free_subnet, gateway_of};

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
    /// A port of this machine that a Pod asks for.
    #[error("listening on {port} for a hostPort: {source}")]
    HostPort {
        /// Address, port and protocol.
        port: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A port of this machine that another Pod has.
    #[error("hostPort {0} is taken by another Pod of this node")]
    HostPortTaken(String),
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
    /// Where the gateway really listens on the bridge, when another program of the host has port 80 on every address.
    pub gateway_port: Option<u16>,
    /// Where the gateway listens for https on the bridge, usually 443; `None` when it does not.
    pub gateway_https: Option<u16>,
    /// Activators and queue-proxies are processes: a Revision's own Services lead to them, as their endpoints say.
    pub by_components: bool,
}

/// An address of the pod network that belongs to this machine, beside the gateway's: of an activator. It is given back when
/// dropped, and gone from the machine when the node stops.
#[derive(Debug)]
pub struct MachineAddress(Lease);

impl MachineAddress {
    /// The address.
    pub fn ip(&self) -> Ipv4Addr {
        self.0.address()
    }
}

/// The pod network of one data directory.
#[derive(Clone)]
pub(crate) struct Network(Arc<Inner>);

struct Inner {
    names: HostNames,
    options: NetworkOptions,
    /// Our table of the packet filter.
    table: Arc<Mutex<nftables::Table>>,
    /// The UDP translations for which stale connections were forgotten last.
    translations: Arc<Mutex<Option<conntrack::Translations>>>,
    host_ports: host_ports::HostPorts,
    /// Services, endpoints or host ports changed: the table must be written.
    changed: Arc<Notify>,
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
        tasks: &Tasks,
    ) -> Result<Self, NetworkError> {
        let (handle, connection) = connect_to_kernel()?;
        tasks.component_cancellable("netlink", async move {
            // Its panic is said by the runtime.
            let _ = connection.await;
        });
        links::remove_links(&handle, names).await?;
        let subnet = free_subnet(names, options.services.map(ServiceRange::subnet))?;
        links::make_bridge(&handle, names, gateway_of(subnet), options.services).await?;
        links::forward_packets();
        let host = netns::current().map_err(system("opening the host's network namespace"))?;
        let changed = Arc::<Notify>::default();
        let network = Self(Arc::new(Inner {
            names: names.clone(),
            options,
            table: Arc::new(Mutex::new(nftables::Table::new(names.table()))),
            translations: Arc::default(),
            host_ports: host_ports::HostPorts::new(Arc::clone(&changed)),
            changed,
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

    /// Makes the packet filter's table equal to these Services, and forgets UDP connections that it would lead elsewhere.
    async fn filter(&self, observed: &[services::Observed]) -> Result<(), NetworkError> {
        let ruleset = filter::ruleset(&self.surroundings(observed), observed);
        let translations = conntrack::Translations::of(&ruleset);
        let table = Arc::clone(&self.0.table);
        tokio::task::spawn_blocking(move || table.lock().apply(ruleset))
            .await
            .map_err(io::Error::other)
            .and_then(|applied| applied)
            .map_err(system("writing the packet filter's table"))?;
        self.forget_stale(translations).await;
        Ok(())
    }

    /// Forgets UDP connections that lead elsewhere than the table in force would lead them.
    async fn forget_stale(&self, translations: conntrack::Translations) {
        if self.0.translations.lock().as_ref() == Some(&translations) {
            return;
        }
        let own = conntrack::OwnAddresses {
            pods: ruleset::Subnet::new(self.0.subnet, SUBNET_BITS),
            services: self.0.options.services.map(ServiceRange::subnet),
        };
        let known = Arc::clone(&self.0.translations);
        let forgotten = tokio::task::spawn_blocking(move || {
            let is_local = |address: Ipv4Addr| is_own_address(address.into());
            let count = conntrack::forget_stale(&translations, own, is_local)?;
            *known.lock() = Some(translations);
            Ok(count)
        })
        .await
        .map_err(io::Error::other)
        .and_then(|done: io::Result<usize>| done);
        match forgotten {
            Ok(0) => {}
            Ok(count) => {
                tracing::debug!(count, "UDP connections to former endpoints are forgotten")
            }
            // Tried again with the next change.
            Err(error) => {
                tracing::warn!(%error, "UDP clients may go on sending to pods that are gone: the kernel's list of connections cannot be changed");
            }
        }
    }

    /// Makes ports of this machine lead to a pod until the guard is dropped.
    pub(crate) async fn publish(
        &self,
        ports: &[HostPort],
        pod: Ipv4Addr,
    ) -> Result<PublishedPorts, NetworkError> {
        let inner = &self.0;
        let on = inner.options.node_ports_on;
        let addresses = if on.is_some_and(|on| on.is_unspecified()) {
            links::host_addresses(&inner.handle).await?
        } else {
            Vec::new()
        };
        let listening = filter::listening(self.gateway(), inner.options.api_port, on);
        inner.host_ports.publish(pod, ports, &listening, &addresses)
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
            host_ports: inner.host_ports.all(),
            gateway_port: inner.options.gateway_port,
            gateway_https: inner.options.gateway_https,
            by_components: inner.options.by_components,
        }
    }

    /// The host's address on the bridge: gateway, DNS server and way to the local gateway.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        gateway_of(self.0.subnet)
    }

    /// Gives the machine one more address on the bridge.
    pub(crate) async fn machine_address(&self) -> Result<MachineAddress, NetworkError> {
        let inner = &self.0;
        let lease = inner
            .addresses
            .lease()
            .ok_or(NetworkError::NoAddress(inner.addresses.capacity()))?;
        links::add_address(&inner.handle, &inner.names, lease.address()).await?;
        Ok(MachineAddress(lease))
    }

    /// Networks whose addresses belong to pods and Services of this instance.
    pub(crate) fn named_networks(&self) -> Vec<(Ipv4Addr, u8)> {
        let services = self.0.options.services.map(ServiceRange::subnet);
        let services = services.map(|range| (range.address, range.bits));
        let pods = (self.0.subnet, SUBNET_BITS);
        services.into_iter().chain([pods]).collect()
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
                    .block_on(links::configure(host, &name, address, gateway))
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
        links::attach(&inner.handle, &link, address, gateway).await?;
        Ok(Connection { namespaces, lease })
    }

    /// Takes off the host what another instance, which is dead, left there.
    pub(crate) async fn clear(names: &HostNames) -> Result<(), NetworkError> {
        let (handle, _) = connect_to_kernel()?;
        links::remove_links(&handle, names).await?;
        let table = nftables::Table::new(names.table());
        remove_table(&Arc::new(Mutex::new(table))).await?;
        if let Ok(subnet) = free_subnet(names, None) {
            forwarding::close(names, subnet).await;
        }
        Ok(())
    }

    /// Takes everything off the host; whether that was done.
    pub(crate) async fn close(&self) -> bool {
        let mut all_gone = true;
        let mut warn_of = |error: NetworkError| {
            tracing::warn!(%error, "cleaning up the pod network");
            all_gone = false;
        };
        if let Err(error) = remove_table(&self.0.table).await {
            warn_of(error);
        }
        self.forget_stale(conntrack::Translations::default()).await;
        if let Err(error) = links::remove_links(&self.0.handle, &self.0.names).await {
            warn_of(error);
        }
        // Last, as it runs programs, which may hang.
        forwarding::close(&self.0.names, self.0.subnet).await;
        all_gone
    }
}

/// Takes our table of the packet filter away.
async fn remove_table(table: &Arc<Mutex<nftables::Table>>) -> Result<(), NetworkError> {
    let table = Arc::clone(table);
    let removed = tokio::task::spawn_blocking(move || table.lock().remove()).await;
    match removed.map_err(io::Error::other).flatten() {
        Err(error) if !nftables::is_missing(&error) => {
            Err(system("taking the packet filter's table away")(error))
        }
        _ => Ok(()),
    }
}

/// A way to the kernel's network configuration, and what moves its messages. Must run inside tokio.
fn connect_to_kernel() -> Result<(Handle, JoinHandle<()>), NetworkError> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(system("opening a netlink socket"))?;
    // Ends by itself when the last handle is dropped, which is after the network is closed, and so after all tasks.
    #[expect(
        clippy::disallowed_methods,
        reason = "the connection ends with its handle"
    )]
    let connection = tokio::spawn(connection);
    Ok((handle, connection))
}
