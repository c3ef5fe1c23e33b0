//! The part that speaks to the kernel about processes and namespaces; the only unsafe code of the node.
//!
//! Flow: Kinglet starts a sealed copy of its own binary ([`binary`]) as `node-helper …`; that process is single-threaded
//! and runs [`container`] or [`exec`]. Inside Kinglet itself only [`binary`], [`devices`], [`netns`] and [`process`] are
//! used.
//! Always: helpers never start a thread before `fork`; the first thing they do is to close every descriptor that they
//! were not given; every unsafe block says why it is sound.
#![allow(unsafe_code, reason = "fork, unshare and seccomp have no safe wrapper")]

pub(crate) mod beneath;
pub(crate) mod binary;
pub(crate) mod container;
pub(crate) mod devices;
pub(crate) mod exec;
pub(crate) mod filesystem;
mod keyring;
mod masks;
mod mount_attributes;
pub(crate) mod mount_target;
pub(crate) mod netns;
mod new_mount;
pub(crate) mod privileges;
pub(crate) mod process;
pub(crate) mod seccomp;
pub(crate) mod terminal;
pub(crate) mod user;
pub(crate) mod user_namespace;

use std::process::ExitCode;

use rustix::process::DumpableBehavior;

/// Exit code of a helper that was called with arguments nobody gives.
const MISUSED: u8 = 64;

/// Entry of the re-executed binary: `argv` after `node-helper`.
pub(crate) fn helper(arguments: &[String]) -> ExitCode {
    if process::close_inherited().is_err() {
        return ExitCode::FAILURE;
    }
    // Nobody who shares a namespace with a helper may look into it, nor find its binary by its descriptors.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = rustix::thread::set_name(c"kinglet-helper");
    match arguments.split_first() {
        Some((verb, cgroups)) if verb == "container" => container::run(cgroups),
        Some((verb, cgroups)) if verb == "container-to-order" => container::run_to_order(cgroups),
        Some((verb, [])) if verb == "user-namespace" => user_namespace::run(),
        Some((verb, cgroups)) if verb == "exec" => exec::run(cgroups),
        _ => ExitCode::from(MISUSED),
    }
}
