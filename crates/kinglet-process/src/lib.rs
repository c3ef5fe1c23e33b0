//! Being a good process: supervised tasks, clock, tracing, shutdown, certificates.
//!
//! Flow: the root starts it first and stops it last; every other crate spawns through it.
//! Always: no task without an owner; wall-clock time is read in one place.

pub mod clock;
pub mod tasks;

pub use tasks::Tasks;
