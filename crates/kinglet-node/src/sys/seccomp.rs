//! The `RuntimeDefault` system call filter: an allow-list, as containerd has it.
//!
//! What [`profile`] lists is allowed, all else is answered with EPERM; only `clone3` and calls newer than the list are
//! answered with ENOSYS, so that C libraries fall back to the calls they used before.

mod profile;
mod program;

use std::collections::BTreeMap;
use std::io;

use libc::sock_filter;
use rustix::thread::CapabilitySet;

use program::{ENOSYS, Verdict};

/// What is answered to the calls that have an answer of their own.
type Rules = BTreeMap<u32, Verdict>;

/// The compiled filter for one set of capabilities.
pub(crate) struct Filter {
    capabilities: CapabilitySet,
    program: Vec<sock_filter>,
}

impl Filter {
    /// Compiles the filter for a container whose bounding set is `capabilities`.
    pub(crate) fn compile(capabilities: CapabilitySet) -> Self {
        Self {
            capabilities,
            program: program::program(&rules(capabilities)),
        }
    }

    /// Whether it was compiled for this set.
    pub(crate) fn fits(&self, capabilities: CapabilitySet) -> bool {
        self.capabilities == capabilities
    }

    /// Installs the filter; this process needs CAP_SYS_ADMIN or "no new privileges".
    pub(crate) fn install(&self) -> io::Result<()> {
        install(&self.program)
    }
}

fn rules(capabilities: CapabilitySet) -> Rules {
    let number = |call: &i64| u32::try_from(*call).ok();
    let mut rules: Rules = profile::NEWER_THAN_THE_LIST
        .chain([libc::SYS_clone3])
        .filter_map(|call| Some((number(&call)?, Verdict::Errno(ENOSYS))))
        .collect();
    let mut allow = |calls: &[i64]| {
        let calls = calls.iter().filter_map(number);
        rules.extend(calls.map(|call| (call, Verdict::Allow)));
    };
    allow(profile::ALWAYS);
    for (capability, calls) in profile::WITH_CAPABILITY {
        if capabilities.contains(*capability) {
            allow(calls);
        }
    }
    for (call, arguments) in profile::WITH_ARGUMENTS {
        if let Some(call) = number(call) {
            // A capability allows it whatever the arguments are.
            rules.entry(call).or_insert(Verdict::If(arguments));
        }
    }
    rules
}

fn install(program: &[sock_filter]) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `filter` points at `program`, which lives to the end of this function and is only read by the kernel.
    let answer = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const filter,
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter answers to a call.
    fn answer(capabilities: CapabilitySet, call: i64, first_argument: u64) -> Result<(), i32> {
        let filter = Filter::compile(capabilities);
        let number = u32::try_from(call).expect("a call's number");
        match program::run(&filter.program, number, first_argument) {
            libc::SECCOMP_RET_ALLOW => Ok(()),
            refused => Err(i32::try_from(refused & 0xffff).expect("an errno")),
        }
    }

    #[test]
    fn what_reaches_beyond_a_container_is_not_on_the_list() {
        let capabilities = CapabilitySet::CHOWN | CapabilitySet::NET_RAW;
        for call in [
            libc::SYS_add_key,
            libc::SYS_bpf,
            libc::SYS_finit_module,
            libc::SYS_fsopen,
            libc::SYS_io_uring_setup,
            libc::SYS_kexec_load,
            libc::SYS_keyctl,
            libc::SYS_mount,
            libc::SYS_mount_setattr,
            libc::SYS_move_mount,
            libc::SYS_open_by_handle_at,
            libc::SYS_open_tree,
            libc::SYS_perf_event_open,
            libc::SYS_pivot_root,
            libc::SYS_reboot,
            libc::SYS_request_key,
            libc::SYS_setns,
            libc::SYS_swapon,
            libc::SYS_umount2,
            libc::SYS_unshare,
            libc::SYS_userfaultfd,
            // Numbers that no call has, and those of the x32 interface.
            460_000,
            0x4000_0000 | libc::SYS_read,
        ] {
            assert_eq!(answer(capabilities, call, 0), Err(libc::EPERM), "{call}");
        }
        for call in [
            libc::SYS_read,
            libc::SYS_execve,
            libc::SYS_futex,
            libc::SYS_openat2,
        ] {
            assert_eq!(answer(capabilities, call, 0), Ok(()), "{call}");
        }
    }

    #[test]
    fn some_calls_depend_on_their_arguments() {
        let none = CapabilitySet::empty();
        let new_user = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
        let vsock = 40;
        for (call, argument, expected) in [
            (libc::SYS_clone, 0x0120_0011, Ok(())),
            (libc::SYS_clone, new_user, Err(libc::EPERM)),
            (libc::SYS_socket, 2, Ok(())),
            (libc::SYS_socket, vsock, Err(libc::EPERM)),
            (libc::SYS_personality, 0xffff_ffff, Ok(())),
            (libc::SYS_personality, 0x0040_0000, Err(libc::EPERM)),
        ] {
            assert_eq!(
                answer(none, call, argument),
                expected,
                "{call} {argument:#x}"
            );
        }
    }

    #[test]
    fn every_call_of_the_list_is_allowed() {
        for capabilities in [CapabilitySet::empty(), CapabilitySet::all()] {
            for call in profile::ALWAYS {
                assert_eq!(answer(capabilities, *call, 0), Ok(()), "{call}");
            }
        }
        for (capability, calls) in profile::WITH_CAPABILITY {
            for call in *calls {
                assert_eq!(answer(*capability, *call, u64::MAX), Ok(()), "{call}");
            }
        }
    }

    #[test]
    fn capabilities_bring_their_calls_with_them() {
        for call in [
            libc::SYS_mount,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_setns,
        ] {
            assert_eq!(
                answer(CapabilitySet::SYS_ADMIN, call, u64::MAX),
                Ok(()),
                "{call}"
            );
        }
        let without = answer(CapabilitySet::CHOWN, libc::SYS_clone3, 0);
        assert_eq!(without, Err(libc::ENOSYS));
    }

    #[test]
    fn what_is_newer_than_the_list_is_no_such_call() {
        // open_tree_attr, file_getattr, file_setattr: the same number everywhere.
        for call in [467, 468, 469, 500, 600] {
            assert_eq!(
                answer(CapabilitySet::all(), call, 0),
                Err(libc::ENOSYS),
                "{call}"
            );
        }
        assert_eq!(answer(CapabilitySet::all(), 601, 0), Err(libc::EPERM));
    }

    #[test]
    fn a_filter_fits_its_capabilities_and_is_short() {
        let filter = Filter::compile(CapabilitySet::CHOWN);
        assert!(filter.fits(CapabilitySet::CHOWN) && !filter.fits(CapabilitySet::all()));
        // One comparison for each call would be a thousand.
        assert!(filter.program.len() < 400, "{}", filter.program.len());
    }
}
