//! The node: runs the Pods that are bound to this machine.
//!
//! Flow: a bound Pod (cache) -> its worker: image -> sandbox -> containers -> probes -> status -> API. Beside it: logs, DNS and
//! the pod network.
//! Always: nothing on a cold start waits for what could be made ahead of need (namespaces, cgroups, processes are
//! parked); every name on the host derives from the data directory; what an earlier life left is cleared away at the
//! start, and nothing is left at the stop; unsafe code lives in `sys` alone.
//! Absent: other crates' parts of the road. Binding is done by `workloads`, requests are the data plane's.

#![cfg_attr(
    test,
    allow(
        clippy::needless_pass_by_value,
        reason = "rows of a test table read best as values"
    )
)]

pub mod cgroup;
mod container;
mod dns;
pub mod engine;
mod instances;
mod logs;
pub mod names;
mod network;
mod node;
mod options;
mod pod;
mod pool;
mod probe;
mod registration;
mod session;
mod spec;
mod sys;
mod user_ids;
mod volumes;
pub mod wire;

pub use container::{Container, Output, Running, StartError};
pub use logs::read::{LogError, LogOptions};
pub use network::{MachineAddress, NetworkError, NetworkOptions, ServiceRange, service_range};
pub use node::{Node, NodeError, NodeHandle};
pub use options::{Drain, Options, PARKED_DEFAULT, ProxiedPod, QueueProxies};
pub use session::{Input, Session, SessionError, Source, Terminal};
pub use sys::heap::{give_back, limit_arenas};
pub use sys::process::Exit;
pub use sys::resident::release_start_pages;

/// The first argument of this binary when it is called as a helper.
pub const HELPER_VERB: &str = "node-helper";

/// The one way to write a directory that names derive from.
fn canonical(data_dir: &std::path::Path) -> std::path::PathBuf {
    let absolute = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    // The directory itself may not exist yet; the one above mostly does.
    match (
        absolute
            .parent()
            .and_then(|parent| parent.canonicalize().ok()),
        absolute.file_name(),
    ) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => absolute,
    }
}

/// The whole program, when its first argument is [`HELPER_VERB`]: call it first thing in `main`, before any thread
/// exists. `arguments` are those after the verb.
pub fn helper(arguments: &[String]) -> std::process::ExitCode {
    sys::helper(arguments)
}
