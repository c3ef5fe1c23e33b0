//! What the allocator keeps of memory that nobody uses.
//!
//! glibc's allocator is the process's. It makes up to eight arenas for each core, each with free memory of its own, and gives
//! back to the system only what lies at an arena's end (docs/decisions/0025).

use std::num::NonZero;

/// Bounds the arenas from now on. Threads share them; one that waits for a lock is rarer than one that allocates. To be
/// called before there are threads.
pub fn limit_arenas(count: NonZero<usize>) {
    #[cfg(target_env = "gnu")]
    {
        let count = i32::try_from(count.get()).unwrap_or(i32::MAX);
        // SAFETY: mallopt takes two numbers and changes a setting of the allocator, under its lock.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, count) };
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = count;
}

/// Gives whole pages that are free back to the system. Blocking: takes milliseconds for each hundred megabytes, and threads
/// of the arena under work wait as long.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time, from any thread; it touches free memory only.
    unsafe {
        libc::malloc_trim(0)
    };
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    fn resident_kilobytes() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").expect("status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number.expect("RssAnon").parse().expect("a number")
    }

    #[test]
    fn free_memory_between_what_is_used_goes_back() {
        let mut all: Vec<Option<Box<[u8]>>> =
            (0..20_000).map(|_| Some(vec![1; 3000].into())).collect();
        // What stays lies in between, so that nothing at the end of the arena is free.
        for (_, one) in all
            .iter_mut()
            .enumerate()
            .filter(|(number, _)| number % 100 != 99)
        {
            one.take();
        }
        let before = resident_kilobytes();
        give_back();
        let after = resident_kilobytes();
        assert!(after + 30_000 < before, "{before} kB, then {after} kB");
        assert_eq!(all.iter().flatten().count(), 200);
    }
}
