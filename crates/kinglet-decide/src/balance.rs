//! Which of several containers takes the next request (spec/serving.md 6.2.2).
//!
//! Flow: the data plane's breaker knows each container's load -> **here** -> the container that gets the request.
//! Always: a container without a free slot is never picked, and one that is free is picked if any is.

/// How to choose among containers with a free slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Unlimited containers: of two picked at random, the one with less to do.
    LeastOfTwo,
    /// Few slots each: the first free one, so that load stays on few containers.
    FirstFree,
    /// More slots each: one after the other.
    RoundRobin,
}

impl Policy {
    /// The policy for a Revision's `containerConcurrency`.
    pub fn for_concurrency(container_concurrency: u32) -> Self {
        match container_concurrency {
            0 => Self::LeastOfTwo,
            1..=3 => Self::FirstFree,
            _ => Self::RoundRobin,
        }
    }
}

/// Where the last choice left off.
#[derive(Clone, Debug)]
pub struct Cursor {
    random: u64,
    next: usize,
}

impl Cursor {
    /// A cursor whose "random" choices follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            random: seed | 1,
            next: 0,
        }
    }

    /// Picks one of `count` containers; `load` answers what each has in flight, or `None` when it has no free slot.
    pub fn pick(
        &mut self,
        policy: Policy,
        count: usize,
        load: impl Fn(usize) -> Option<u32>,
    ) -> Option<usize> {
        if count == 0 {
            return None;
        }
        match policy {
            Policy::FirstFree => (0..count).find(|at| load(*at).is_some()),
            Policy::RoundRobin => {
                let found = free_from(self.next, count, &load)?;
                self.next = (found + 1) % count;
                Some(found)
            }
            Policy::LeastOfTwo => {
                let random = self.random();
                let first = free_from((random >> 33) as usize, count, &load)?;
                if count == 1 {
                    return Some(first);
                }
                let step = 1 + ((random & 0xffff_ffff) as usize) % (count - 1);
                let second = free_from(first + step, count, &load)?;
                let better = match load(second).cmp(&load(first)) {
                    std::cmp::Ordering::Less => true,
                    std::cmp::Ordering::Equal => random & (1 << 32) != 0,
                    std::cmp::Ordering::Greater => false,
                };
                Some(if better { second } else { first })
            }
        }
    }

    /// xorshift64*: cheap, and good enough to balance with.
    fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

fn free_from(start: usize, count: usize, load: &impl Fn(usize) -> Option<u32>) -> Option<usize> {
    (0..count)
        .map(|step| (start + step) % count)
        .find(|at| load(*at).is_some())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn policies_follow_the_concurrency() {
        for (concurrency, policy) in [
            (0, Policy::LeastOfTwo),
            (1, Policy::FirstFree),
            (3, Policy::FirstFree),
            (4, Policy::RoundRobin),
            (100, Policy::RoundRobin),
        ] {
            assert_eq!(
                Policy::for_concurrency(concurrency),
                policy,
                "{concurrency}"
            );
        }
    }

    #[test]
    fn round_robin_skips_the_busy() {
        let mut cursor = Cursor::new(1);
        let picks: Vec<_> = (0..4)
            .map(|_| cursor.pick(Policy::RoundRobin, 3, |at| (at != 1).then_some(0)))
            .collect();
        assert_eq!(picks, [Some(0), Some(2), Some(0), Some(2)]);
    }

    #[test]
    fn two_choices_keep_loads_close() {
        let mut cursor = Cursor::new(42);
        let mut loads = [0u32; 8];
        for _ in 0..8000 {
            let at = cursor
                .pick(Policy::LeastOfTwo, loads.len(), |at| Some(loads[at]))
                .expect("all are free");
            loads[at] += 1;
        }
        assert!(
            loads.iter().all(|load| (950..=1050).contains(load)),
            "{loads:?}"
        );
    }

    proptest! {
        #[test]
        fn picks_a_free_one_if_there_is_any(
            loads in proptest::collection::vec(proptest::option::of(0u32..5), 0..9), seed: u64, which in 0usize..3,
        ) {
            let policy = [Policy::LeastOfTwo, Policy::FirstFree, Policy::RoundRobin][which];
            let mut cursor = Cursor::new(seed);
            for _ in 0..20 {
                match cursor.pick(policy, loads.len(), |at| loads[at]) {
                    Some(at) => prop_assert!(loads[at].is_some()),
                    None => prop_assert!(loads.iter().all(Option::is_none)),
                }
            }
        }
    }
}
