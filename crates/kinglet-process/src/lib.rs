//! Being a good process: supervised tasks, clock, logging, certificates.
//!
//! Flow: the root starts it first and stops it last; every other crate spawns through it.
//! Always: no task without an owner; wall-clock time is read in one place; private keys are files only their owner reads.

#![warn(missing_docs)]

pub mod accept;
pub mod child;
pub mod clock;
pub mod descriptors;
pub mod disk;
pub mod egress;
pub mod logging;
pub mod notify;
pub mod pki;
pub mod private;
pub mod shares;
pub mod supervise;
pub mod tasks;
pub mod tls;
pub mod trash;
pub mod unverified;

pub use child::Child;
pub use clock::Clock;
pub use egress::Egress;
pub use shares::Shares;
pub use supervise::{ComponentHealth, Fault, Supervisor};
pub use tasks::Tasks;
pub use trash::Trash;
