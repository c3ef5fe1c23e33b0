//! What a container may use, and the files of its groups that say so: pure.

/// The period that quotas are measured in.
const CPU_PERIOD_MICROSECONDS: u64 = 100_000;

/// A million cores: a larger quota is none, and the kernel refuses numbers that it cannot count in.
const CPU_MILLI_MAX: u64 = 1_000_000_000;

/// A kubelet's least number of shares.
const CPU_SHARES_MIN: u64 = 2;

const CPU_SHARES_MAX: u64 = 262_144;

/// What a container may use; `None` is without bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requested CPU in thousandths of a core: its weight against others.
    pub cpu_request_milli: u64,
    /// Bound of CPU in thousandths of a core.
    pub cpu_limit_milli: Option<u64>,
    /// Bound of memory in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// Bound of processes and threads.
    pub pids_max: Option<u64>,
    /// Every device of the host may be opened (privileged containers).
    pub all_devices: bool,
}

/// Which files say what: (version 1 controller, file, value).
pub(super) fn settings(
    version2: bool,
    limits: &Limits,
) -> Vec<(&'static str, &'static str, String)> {
    let shares = (limits.cpu_request_milli.saturating_mul(1024) / 1000)
        .clamp(CPU_SHARES_MIN, CPU_SHARES_MAX);
    // At least a millisecond per period, as a kubelet has it: less is refused by the kernel.
    let quota = limits
        .cpu_limit_milli
        .map(|milli| (milli.min(CPU_MILLI_MAX) * CPU_PERIOD_MICROSECONDS / 1000).max(1000));
    let mut files = Vec::new();
    if version2 {
        // The kernel's mapping of shares 2..=262144 to weights 1..=10000.
        let weight = 1 + (shares - CPU_SHARES_MIN) * 9_999 / (CPU_SHARES_MAX - CPU_SHARES_MIN);
        files.push(("", "cpu.weight", weight.to_string()));
        if let Some(quota) = quota {
            files.push(("", "cpu.max", format!("{quota} {CPU_PERIOD_MICROSECONDS}")));
        }
        if let Some(bytes) = limits.memory_limit_bytes {
            files.push(("", "memory.max", bytes.to_string()));
            // One process out of memory ends the container, not a random part of it.
            files.push(("", "memory.oom.group", "1".to_owned()));
        }
        if let Some(pids) = limits.pids_max {
            files.push(("", "pids.max", pids.to_string()));
        }
    } else {
        files.push(("cpu", "cpu.shares", shares.to_string()));
        if let Some(quota) = quota {
            files.push((
                "cpu",
                "cpu.cfs_period_us",
                CPU_PERIOD_MICROSECONDS.to_string(),
            ));
            files.push(("cpu", "cpu.cfs_quota_us", quota.to_string()));
        }
        if let Some(bytes) = limits.memory_limit_bytes {
            files.push(("memory", "memory.limit_in_bytes", bytes.to_string()));
        }
        if let Some(pids) = limits.pids_max {
            files.push(("pids", "pids.max", pids.to_string()));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_files() {
        let limits = Limits {
            cpu_request_milli: 100,
            cpu_limit_milli: Some(500),
            memory_limit_bytes: Some(128 << 20),
            pids_max: Some(64),
            ..Limits::default()
        };
        let v1: Vec<_> = settings(false, &limits)
            .into_iter()
            .map(|(_, file, value)| format!("{file}={value}"))
            .collect();
        assert_eq!(
            v1,
            [
                "cpu.shares=102",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "memory.limit_in_bytes=134217728",
                "pids.max=64"
            ]
        );
        let v2: Vec<_> = settings(true, &limits)
            .into_iter()
            .map(|(_, file, value)| format!("{file}={value}"))
            .collect();
        assert_eq!(
            v2,
            [
                "cpu.weight=4",
                "cpu.max=50000 100000",
                "memory.max=134217728",
                "memory.oom.group=1",
                "pids.max=64"
            ]
        );
        assert_eq!(settings(false, &Limits::default()).len(), 1);
        // As much as a quantity can say.
        let endless = Limits {
            cpu_request_milli: u64::MAX,
            cpu_limit_milli: Some(u64::MAX),
            ..Limits::default()
        };
        for version2 in [false, true] {
            let files = settings(version2, &endless);
            assert!(
                files
                    .iter()
                    .any(|(_, _, value)| value.starts_with("100000000000")),
                "{files:?}"
            );
        }
    }
}
