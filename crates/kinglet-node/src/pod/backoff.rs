//! How long to wait before trying again (a kubelet's numbers).

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
/// A container that has run this long starts with a clean slate.
pub(crate) const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// After the first crash at once, then 10 s, 20 s, … 5 min.
pub(crate) fn after_crash(crashes: u32) -> Duration {
    if crashes <= 1 {
        Duration::ZERO
    } else {
        after_failure(crashes - 1)
    }
}

/// After a failure to begin with: 10 s, 20 s, … 5 min.
pub(crate) fn after_failure(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(8);
    (FIRST * (1 << doublings)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_five_minutes() {
        let seconds: Vec<u64> = (1..=8)
            .map(|crashes| after_crash(crashes).as_secs())
            .collect();
        assert_eq!(seconds, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(after_failure(1).as_secs(), 10);
        assert_eq!(after_failure(u32::MAX).as_secs(), 300);
    }
}
