//! What the node is made of on this machine: pod network, cgroups, parked containers; without any Kubernetes.
//!
//! Flow: [`Engine::open`] clears an earlier life of the same data directory away -> [`Engine::sandbox`] per pod ->
//! [`Engine::start`] per container. [`Engine::close`] leaves nothing behind.

mod leftovers;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kinglet_process::Tasks;
use tokio::time::{Instant, timeout_at};

use leftovers::{ENTER_MAX, clear_dead, clear_own, end_leftovers, enter};

use crate::cgroup::{Cgroup, Hierarchy, Limits};
use crate::container::{Container, Containers, Output, ParkedContainer, Running, StartError};
use crate::instances::{Instance, Record};
use crate::names::HostNames;
use crate::network::{Connection, HostPort, Network, NetworkError, NetworkOptions, PublishedPorts};
use crate::pool::Pool;
use crate::session::{self, Session};
use crate::sys::user_namespace;
use crate::user_ids::{IdRanges, Lease};
use crate::wire::{Isolation, Mount, Process, Root, Start, Streams, UserNamespace};

/// What the network needs at the end: a few requests to the kernel.
const NETWORK_CLOSE_TIME: Duration = Duration::from_millis(500);

/// Why the machine cannot run containers.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Not root.
    #[error(
        "Kinglet runs containers and needs root for it: start it as root, for example with sudo"
    )]
    NotRoot,
    /// Another process has the record of this instance.
    #[error(
        "{} has been locked by another Kinglet for {} s, which still clears up after an earlier life of this data directory, or whose own directory happens to have the same names: end it (fuser {} tells which it is), or choose another data directory",
        record.display(),
        ENTER_MAX.as_secs(),
        record.display()
    )]
    RecordLocked {
        /// The record that it holds.
        record: PathBuf,
    },
    /// Control groups.
    #[error("setting up control groups: {0}")]
    Cgroups(io::Error),
    /// What containers are made with.
    #[error("preparing to make containers: {0}")]
    Containers(io::Error),
    /// Network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The thread whose sockets leave on a tenant's behalf.
    #[error("opening the way out for probes and hooks that name a host: {0}")]
    Egress(io::Error),
    /// Directories.
    #[error("{attempt} {}: {source}", path.display())]
    Directory {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Says in one sentence why this process cannot be a node, if it cannot.
pub fn preflight() -> Result<(), EngineError> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(EngineError::NotRoot)
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    /// Says that this instance lives.
    instance: Option<Instance>,
    network: Network,
    containers: Containers,
    ids: IdRanges,
    parked: Pool<ParkedContainer, StartError>,
    connections: Pool<Connection, NetworkError>,
}

/// A pod's namespaces and address. Dropping it takes them away, once no process is left in them.
#[derive(Debug)]
pub struct Sandbox {
    connection: Connection,
    user: Option<OwnUsers>,
}

/// A pod's own user namespace.
#[derive(Debug)]
struct OwnUsers {
    namespace: OwnedFd,
    ids: Lease,
}

/// One container to start.
#[derive(Clone, Debug)]
pub struct ContainerStart {
    /// The pod's name, as the container sees its host.
    pub hostname: String,
    /// An empty directory on a disk, for the container's own files.
    pub directory: PathBuf,
    /// Unpacked layers, topmost first.
    pub layers: Vec<PathBuf>,
    /// What is mounted beyond the image.
    pub mounts: Vec<Mount>,
    /// Nothing but volumes may be written.
    pub read_only_root: bool,
    /// How far it is kept apart from the host.
    pub isolation: Isolation,
    /// The program.
    pub process: Process,
    /// What it may use.
    pub limits: Limits,
    /// The read end of a pipe that is its standard input.
    pub stdin: Option<Arc<OwnedFd>>,
    /// Its streams are a terminal.
    pub terminal: bool,
}

impl Engine {
    /// Clears away what an earlier life left and gets ready; keeps `parked` containers and networks ready ahead of need.
    ///
    /// `state` is the data directory that `names` derive from. It remembers where control groups were, because the next life may
    /// be started from another session and so find its own place elsewhere. What killed instances of other data directories
    /// left is cleared away as well.
    pub async fn open(
        names: &HostNames,
        state: &Path,
        helper: PathBuf,
        parked: usize,
        network: NetworkOptions,
        tasks: &Tasks,
    ) -> Result<Self, EngineError> {
        preflight()?;
        let mut instance = enter(names).await?;
        let hierarchy = Hierarchy::discover(&names.cgroup()).map_err(EngineError::Cgroups)?;
        let roots = clear_own(names, state, hierarchy.roots()).await?;
        if let Some(instance) = &mut instance {
            let written = instance.write(&Record {
                data: state.to_owned(),
                cgroups: roots,
            });
            if let Err(error) = written {
                tracing::warn!(%error, "what this instance uses is not written down: if it is killed, only its own next start clears up");
            }
        }
        clear_dead().await;
        let network = Network::open(names, network, tasks).await?;
        let containers = tokio::task::spawn_blocking(move || Containers::new(&helper, hierarchy))
            .await
            .map_err(io::Error::other)
            .and_then(|made| made)
            .map_err(EngineError::Containers)?;
        tasks.component_cancellable("orphans", Containers::reap_orphans());
        let maker = containers.clone();
        let container_pool = Pool::start(tasks, "containers", parked, move || {
            let maker = maker.clone();
            async move { maker.park().await }
        });
        let maker = network.clone();
        let connections = Pool::start(tasks, "pod-networks", parked, move || {
            let maker = maker.clone();
            async move { maker.connect().await }
        });
        Ok(Self(Arc::new(Inner {
            instance,
            network,
            containers,
            ids: IdRanges::new(names),
            parked: container_pool,
            connections,
        })))
    }

    /// The pod network.
    pub(crate) fn network(&self) -> &Network {
        &self.0.network
    }

    /// The host's address on the pod network.
    pub fn gateway(&self) -> Ipv4Addr {
        self.0.network.gateway()
    }

    /// Whether a pod of this node may have that address.
    pub fn is_pod_address(&self, address: Ipv4Addr) -> bool {
        self.0.network.contains(address)
    }

    /// Namespaces for one pod.
    pub async fn sandbox(&self) -> Result<Sandbox, NetworkError> {
        let connection = self.0.connections.take().await?;
        Ok(Sandbox {
            connection,
            user: None,
        })
    }

    /// Namespaces for one pod whose users are nobody on the host (`hostUsers: false`). They are made now: about as long as a
    /// process takes to start.
    pub async fn sandbox_with_own_users(&self) -> Result<Sandbox, NetworkError> {
        let ids = self.0.ids.lease().ok_or_else(|| {
            NetworkError::UserNamespace(io::Error::other("every range of ids is taken"))
        })?;
        let (spawner, first_id) = (self.0.containers.spawner().clone(), ids.first_id());
        let made = tokio::task::spawn_blocking(move || user_namespace::create(&spawner, first_id));
        let (namespace, namespaces) = made
            .await
            .map_err(io::Error::other)
            .and_then(|made| made)
            .map_err(NetworkError::UserNamespace)?;
        Ok(Sandbox {
            connection: self.0.network.connect_namespaces(Some(namespaces)).await?,
            user: Some(OwnUsers { namespace, ids }),
        })
    }

    /// Makes ports of this machine lead to a pod until the guard is dropped.
    pub(crate) async fn publish(
        &self,
        ports: &[HostPort],
        pod: Ipv4Addr,
    ) -> Result<PublishedPorts, NetworkError> {
        self.0.network.publish(ports, pod).await
    }

    /// Starts a container; when this returns, its program runs.
    pub async fn start(
        &self,
        sandbox: &Sandbox,
        container: ContainerStart,
    ) -> Result<Running, StartError> {
        let ContainerStart {
            hostname,
            directory,
            layers,
            mounts,
            read_only_root,
            isolation,
            process,
            limits,
            stdin,
            terminal,
        } = container;
        make_directories(&directory)?;
        let own =
            |namespace: &str| PathBuf::from(format!("/proc/{}/ns/{namespace}", std::process::id()));
        let namespaces = &sandbox.connection.namespaces;
        let user_namespace = sandbox.user.as_ref().map(|user| UserNamespace {
            path: openable(&user.namespace),
            first_id: user.ids.first_id(),
        });
        let to_order = user_namespace.is_some() || isolation.host_pid;
        let order = |cgroup: &Cgroup| Start {
            network_namespace: openable(&namespaces.network),
            ipc_namespace: if isolation.host_ipc {
                own("ipc")
            } else {
                openable(&namespaces.ipc)
            },
            pid_namespace: isolation.host_pid.then(|| own("pid")),
            user_namespace,
            hostname,
            root: Root { directory, layers },
            mounts,
            cgroups: cgroup.views(),
            read_only_root,
            isolation,
            process,
            streams: Streams {
                stdin: stdin.as_deref().map(openable),
                terminal,
            },
        };
        if to_order {
            return self.0.containers.start_to_order(order, &limits).await;
        }
        let parked = self.0.parked.take().await?;
        let start = match parked.cgroup() {
            Some(cgroup) => order(cgroup),
            None => {
                return Err(StartError::Setup(
                    "a container has no control group".to_owned(),
                ));
            }
        };
        parked.start(&start, &limits).await
    }

    /// Runs one program inside a running container. Dropping the future kills it.
    pub async fn exec(
        &self,
        container: &Container,
        process: Process,
        output_bytes_max: usize,
    ) -> Result<Output, StartError> {
        self.0
            .containers
            .exec(container, process, output_bytes_max)
            .await
    }

    /// Starts a program inside a running container that somebody talks to. Dropping its [`Session`] kills it.
    pub(crate) async fn open_session(
        &self,
        container: &Container,
        process: Process,
        stdin: bool,
        terminal: bool,
    ) -> Result<Session, StartError> {
        session::open(
            self.0.containers.helper(),
            container,
            process,
            stdin,
            terminal,
        )
        .await
    }

    /// Lets everything go, until `deadline` at the latest. Containers must have been dropped before. What is left then is
    /// cleared away by the next start, on whose behalf the record of this instance stays.
    pub async fn close(&self, deadline: Instant) {
        self.0.parked.drain();
        self.0.connections.drain();
        let containers_deadline = deadline.checked_sub(NETWORK_CLOSE_TIME).unwrap_or(deadline);
        let containers = async {
            self.0.containers.close().await;
            let roots = self.0.containers.hierarchy().roots();
            end_leftovers(&roots, containers_deadline).await && Hierarchy::remove(&roots)
        };
        let containers = timeout_at(containers_deadline, containers).await;
        let network = timeout_at(deadline, self.0.network.close()).await;
        match (containers, network, &self.0.instance) {
            (Ok(true), Ok(true), Some(instance)) => instance.leave(),
            (Ok(true), Ok(true), None) => {}
            _ => tracing::warn!(
                "not everything was taken off this machine in time; the next start of any instance clears up"
            ),
        }
    }
}

impl Sandbox {
    /// The pod's address.
    pub fn address(&self) -> Ipv4Addr {
        self.connection.lease.address()
    }

    /// The pod's network namespace.
    pub fn network(&self) -> BorrowedFd<'_> {
        self.connection.namespaces.network.as_fd()
    }
}

/// A path under which helpers, who share neither descriptors nor process ids with us, can open our descriptor.
pub(crate) fn openable(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        fd.as_raw_fd()
    ))
}

fn make_directories(directory: &Path) -> io::Result<()> {
    for part in ["rootfs", "upper", "work"] {
        std::fs::create_dir_all(directory.join(part))?;
    }
    Ok(())
}
