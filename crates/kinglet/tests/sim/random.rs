//! Chance that follows from a seed (SplitMix64).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A source of chance. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Random(Arc<AtomicU64>);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }

    pub(crate) fn next(&self) -> u64 {
        let mut z = self
            .0
            .fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed)
            .wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// An index into a list of so many.
    pub(crate) fn index(&self, length: usize) -> usize {
        let end = u64::try_from(length).expect("lists are short");
        usize::try_from(self.below(end)).expect("below the length of a list")
    }

    /// True once in `n`.
    pub(crate) fn once_in(&self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }

    /// A duration of up to so many milliseconds.
    pub(crate) fn up_to_ms(&self, ms: u64) -> Duration {
        Duration::from_micros(self.below(ms.saturating_mul(1000) + 1))
    }

    pub(crate) fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}
