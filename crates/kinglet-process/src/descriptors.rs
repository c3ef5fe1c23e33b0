//! File descriptors: each connection, container and watch holds some, and the soft limit that shells give (1,024) is for programs of another age.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More than this nobody needs, and old programs in containers, which inherit the limit, close as many at their start. As containerd's own.
const ENOUGH: u64 = 1 << 20;

/// How many files may be open (none: any number).
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Raises the soft limit of open files as far as the hard one allows; answers how many may be open now (none: any number).
pub fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(ENOUGH, |most| most.min(ENOUGH));
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "raising the limit of open files to its maximum");
        }
    }
    self::limit()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_limit_is_as_high_as_allowed() {
        let now = super::raise_limit();
        let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let wanted = hard.map_or(super::ENOUGH, |most| most.min(super::ENOUGH));
        assert!(now.is_none_or(|now| now >= wanted), "{now:?} of {hard:?}");
    }
}
