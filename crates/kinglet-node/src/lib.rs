//! The node.
mod cell;
pub mod cgroup;
pub mod engine;
pub mod names;
mod network;
mod pool;
mod sys;
pub mod wire;

pub use sys::process::Exit;
pub use cell::{Container, Output, Running, StartError};

/// The first argument of this binary when it is called as a helper.
pub const HELPER_VERB: &str = "node-helper";

/// Entry of the binary as a helper.
pub fn helper(arguments: &[String]) -> std::process::ExitCode {
    sys::helper(arguments)
}
