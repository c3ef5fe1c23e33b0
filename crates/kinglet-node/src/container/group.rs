//! The control group of one container, which goes with its owner.

use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::cgroup::Cgroup;

/// How often an emptied cgroup is tried to be removed; the kernel lets go within milliseconds, on a busy machine seconds.
const CGROUP_REMOVE_ATTEMPTS: u32 = 500;

/// A container's control group. Dropping it removes the group, in the background; [`Containers::close`](super::Containers::close) waits for that.
#[derive(Debug)]
pub(super) struct OwnedGroup {
    pub(super) cgroup: Cgroup,
    pub(super) cleaning: TaskTracker,
}

impl Drop for OwnedGroup {
    fn drop(&mut self) {
        let (cgroup, token) = (self.cgroup.clone(), self.cleaning.token());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            cgroup.remove();
            return;
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "`Containers::close` waits for its token"
        )]
        runtime.spawn(async move {
            for attempt in 0..CGROUP_REMOVE_ATTEMPTS {
                if cgroup.remove() {
                    drop(token);
                    return;
                }
                tokio::time::sleep(Duration::from_millis(u64::from(attempt.min(20)) + 1)).await;
            }
            tracing::warn!("a container's control group is still in use and stays behind");
        });
    }
}
