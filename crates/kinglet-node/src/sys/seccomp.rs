//! The `RuntimeDefault` system call filter: an allow-list, as containerd has it.
//!
//! Two filters are installed. The first allows what [`profile`] lists and answers EPERM to everything else. The second
//! turns the answer for `clone3` and for calls newer than the list into ENOSYS, so that C libraries fall back to the
//! calls they used before: of two filters that refuse, the kernel takes the error of the one installed last.

mod profile;

use std::collections::BTreeMap;
use std::io;

use rustix::thread::CapabilitySet;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use profile::{Argument, Comparison};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The compiled filters for one set of capabilities.
pub(crate) struct Filters {
    capabilities: CapabilitySet,
    programs: [BpfProgram; 2],
}

impl Filters {
    /// Compiles the filters for a container whose bounding set is `capabilities`.
    pub(crate) fn compile(capabilities: CapabilitySet) -> io::Result<Self> {
        let (eperm, enosys) = (errno(libc::EPERM), errno(libc::ENOSYS));
        Ok(Self {
            capabilities,
            programs: [
                program(allowed(capabilities)?, eperm, SeccompAction::Allow)?,
                program(unknown(capabilities), SeccompAction::Allow, enosys)?,
            ],
        })
    }

    /// Whether they were compiled for this set.
    pub(crate) fn fit(&self, capabilities: CapabilitySet) -> bool {
        self.capabilities == capabilities
    }

    /// Installs the filters; this process needs CAP_SYS_ADMIN or "no new privileges".
    pub(crate) fn install(&self) -> io::Result<()> {
        self.programs.iter().try_for_each(install)
    }
}

fn errno(number: i32) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> io::Result<BpfProgram> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let filter =
        SeccompFilter::new(rules, otherwise, matched, architecture).map_err(io::Error::other)?;
    BpfProgram::try_from(filter).map_err(io::Error::other)
}

/// What the container may call; several rules for one call are alternatives.
fn allowed(capabilities: CapabilitySet) -> io::Result<Rules> {
    let mut rules: Rules = profile::ALWAYS
        .iter()
        .map(|call| (*call, Vec::new()))
        .collect();
    for (call, arguments) in profile::WITH_ARGUMENTS {
        let alternatives = rules.entry(*call).or_default();
        for argument in *arguments {
            alternatives.push(rule(argument)?);
        }
    }
    for (capability, calls) in profile::WITH_CAPABILITY {
        if capabilities.contains(*capability) {
            // No rule at all means: whatever the arguments are.
            rules.extend(calls.iter().map(|call| (*call, Vec::new())));
        }
    }
    Ok(rules)
}

/// What is answered with "no such call".
fn unknown(capabilities: CapabilitySet) -> Rules {
    let clone3 = (!capabilities.contains(CapabilitySet::SYS_ADMIN)).then_some(libc::SYS_clone3);
    profile::NEWER_THAN_THE_LIST
        .chain(clone3)
        .map(|call| (call, Vec::new()))
        .collect()
}

fn rule(argument: &Argument) -> io::Result<SeccompRule> {
    let comparison = match argument.comparison {
        Comparison::Is => SeccompCmpOp::Eq,
        Comparison::IsNot => SeccompCmpOp::Ne,
        Comparison::HasNone => SeccompCmpOp::MaskedEq(argument.value),
    };
    let value = match argument.comparison {
        Comparison::HasNone => 0,
        Comparison::Is | Comparison::IsNot => argument.value,
    };
    SeccompCondition::new(argument.index, SeccompCmpArgLen::Dword, comparison, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(io::Error::other)
}

fn install(program: &BpfProgram) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `filter` points at `program`, which lives to the end of this function, has the layout of the kernel's
    // `sock_filter` (repr(C) in seccompiler) and is only read by the kernel.
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

    #[test]
    fn what_reaches_beyond_a_container_is_not_on_the_list() {
        let rules = allowed(CapabilitySet::CHOWN | CapabilitySet::NET_RAW).expect("rules");
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
            libc::SYS_clone3,
        ] {
            assert!(!rules.contains_key(&call), "{call}");
        }
        for call in [
            libc::SYS_read,
            libc::SYS_execve,
            libc::SYS_futex,
            libc::SYS_openat2,
        ] {
            assert_eq!(rules.get(&call), Some(&Vec::new()), "{call}");
        }
        for call in [libc::SYS_clone, libc::SYS_socket, libc::SYS_personality] {
            assert!(!rules[&call].is_empty(), "{call} depends on its arguments");
        }
    }

    #[test]
    fn capabilities_bring_their_calls_with_them() {
        let rules = allowed(CapabilitySet::SYS_ADMIN).expect("rules");
        for call in [
            libc::SYS_mount,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_setns,
        ] {
            assert_eq!(rules.get(&call), Some(&Vec::new()), "{call}");
        }
        assert!(!unknown(CapabilitySet::SYS_ADMIN).contains_key(&libc::SYS_clone3));
        assert!(unknown(CapabilitySet::CHOWN).contains_key(&libc::SYS_clone3));
    }

    #[test]
    fn what_is_newer_than_the_list_is_no_such_call() {
        let (known, newer) = (
            allowed(CapabilitySet::all()).expect("rules"),
            unknown(CapabilitySet::all()),
        );
        // open_tree_attr, file_getattr, file_setattr: the same number everywhere.
        for call in [467, 468, 469, 500] {
            assert!(newer.contains_key(&call), "{call}");
        }
        assert!(newer.keys().all(|call| !known.contains_key(call)));
    }

    #[test]
    fn the_filters_compile_and_fit_their_capabilities() {
        let filters = Filters::compile(CapabilitySet::CHOWN).expect("compiles");
        assert!(filters.fit(CapabilitySet::CHOWN) && !filters.fit(CapabilitySet::all()));
        assert!(filters.programs.iter().all(|program| !program.is_empty()));
    }
}
