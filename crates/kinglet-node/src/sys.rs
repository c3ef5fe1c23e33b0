//! The part that speaks to the kernel about processes and namespaces; the only unsafe code of the node.
//!
//! Flow: Kinglet starts its own binary, as a file that nobody can write to ([`binary`]), as `node-helper spawner`; helpers
//! are forks of that single-threaded process ([`spawner`]) and run [`container`] or [`exec`]. Inside Kinglet itself only
//! [`binary`], [`devices`], [`heap`], [`netns`], [`process`], [`resident`] and [`spawner`] are used.
//! Always: helpers never start a thread; the first thing they do is to close every descriptor that they were not given;
//! every unsafe block says why it is sound.
#![allow(unsafe_code, reason = "fork, unshare and seccomp have no safe wrapper")]

pub(crate) mod beneath;
pub(crate) mod binary;
pub(crate) mod container;
pub(crate) mod devices;
pub(crate) mod exec;
pub(crate) mod execute;
pub(crate) mod filesystem;
pub(crate) mod heap;
mod keyring;
mod masks;
mod mount_attributes;
pub(crate) mod mount_target;
pub(crate) mod netns;
mod new_mount;
pub(crate) mod privileges;
pub(crate) mod process;
pub(crate) mod resident;
pub(crate) mod seccomp;
pub(crate) mod spawner;
pub(crate) mod terminal;
pub(crate) mod user;
pub(crate) mod user_namespace;

use std::process::ExitCode;

use rustix::process::DumpableBehavior;

use self::seccomp::Filter;

/// Exit code of a helper that was called with arguments nobody gives.
const MISUSED: u8 = 64;

/// Entry of the re-executed binary: `argv` after `node-helper`.
pub(crate) fn helper(arguments: &[String]) -> ExitCode {
    if process::close_inherited().is_err() {
        return ExitCode::FAILURE;
    }
    // Nobody who shares a namespace with a helper may look into it, nor find its binary by its descriptors. Forked
    // helpers inherit it.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = rustix::thread::set_name(c"kinglet-helper");
    ExitCode::from(match arguments {
        [verb] if verb == "spawner" => {
            let filter = Filter::compile(container::default_capabilities());
            spawner::run(|arguments| forked_helper(arguments, &filter))
        }
        // Of a session, which lasts: started from the binary.
        [verb, cgroups @ ..] if verb == "exec" => {
            exec::run(cgroups, &Filter::compile(container::default_capabilities()))
        }
        _ => MISUSED,
    })
}

/// What a fork of the spawner does.
fn forked_helper(arguments: &[String], filter: &Filter) -> u8 {
    match arguments.split_first() {
        Some((verb, cgroups)) if verb == "container" => container::run(cgroups, filter),
        Some((verb, cgroups)) if verb == "container-to-order" => {
            container::run_to_order(cgroups, filter)
        }
        Some((verb, [])) if verb == "user-namespace" => user_namespace::run(),
        Some((verb, cgroups)) if verb == "exec" => exec::run(cgroups, filter),
        _ => MISUSED,
    }
}
