//! Giving up what a container must not have: capabilities, user, groups, new privileges, system calls.

use std::io;

use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::sys::seccomp::Filter;
use crate::sys::user::Identity;
use crate::wire::Process;

/// Capability numbers the kernel may know; those it does not know answer EINVAL and are skipped.
const CAPABILITY_NUMBERS: u8 = 64;

/// What `process` keeps of root's power.
pub(crate) fn capabilities_of(process: &Process) -> CapabilitySet {
    process
        .capabilities
        .iter()
        .map(|number| CapabilitySet::from_bits_retain(1 << (number % CAPABILITY_NUMBERS)))
        .collect()
}

/// Drops everything but what `process` may keep. Afterwards this process can only `exec`. `filter` was
/// compiled ahead of need; another one is made where it does not fit.
pub(crate) fn drop_to(process: &Process, identity: &Identity, filter: &Filter) -> io::Result<()> {
    let keep = capabilities_of(process);
    for number in 0..CAPABILITY_NUMBERS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if !keep.contains(one) {
            match rustix::thread::remove_capability_from_bounding_set(one) {
                Ok(()) => {}
                Err(rustix::io::Errno::INVAL) if number > 30 => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    // While CAP_SYS_ADMIN is still here the filter needs no promise of "no new privileges".
    if process.filter_system_calls {
        if filter.fits(keep) {
            filter.install()?;
        } else {
            Filter::compile(keep).install()?;
        }
    }
    let groups: Vec<Gid> = identity
        .groups
        .iter()
        .map(|gid| Gid::from_raw(*gid))
        .collect();
    rustix::thread::set_thread_groups(&groups)?;
    let gid = Gid::from_raw(identity.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    let uid = Uid::from_raw(identity.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    if identity.uid == 0 {
        let sets = CapabilitySets {
            effective: keep,
            permitted: keep,
            inheritable: CapabilitySet::empty(),
        };
        rustix::thread::set_capabilities(None, sets)?;
    }
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true)?;
    }
    Ok(())
}
