//! A stable choice of few among many: which activators serve a revision, which bucket owns a key.
//!
//! Deterministic, and a change of the candidates moves as few choices as possible. The hashes are
//! Knative's, so ours and upstream's agree on a mixed cluster.

use std::collections::BTreeMap;

const UNIVERSE: u64 = 2048;

/// Chooses `count` of `from` for `target`, sorted.
pub fn choose<'a>(from: &[&'a str], count: usize, target: &str) -> Vec<&'a str> {
    let mut sorted: Vec<&'a str> = from.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    if count >= sorted.len() {
        return sorted;
    }
    let pool = place(&sorted, target);
    let mut angle = hash(format!("{target}start-angle-salt").as_bytes()) % UNIVERSE;
    let step = hash(format!("{target}step-angle-salt").as_bytes()) % UNIVERSE;
    let mut taken = vec![false; pool.len()];
    let mut chosen = Vec::with_capacity(count);
    for _ in 0..count {
        let mut at = pool.partition_point(|(place, _)| *place < angle) % pool.len();
        while taken[at] {
            at = (at + 1) % pool.len();
        }
        taken[at] = true;
        chosen.push(pool[at].1);
        angle = (angle + step) % UNIVERSE;
    }
    chosen.sort_unstable();
    chosen
}

/// Each element at its place on the circle, in order of place.
fn place<'a>(sorted: &[&'a str], target: &str) -> Vec<(u64, &'a str)> {
    let mut places = BTreeMap::new();
    // More elements than places would search for a free one forever.
    for element in sorted.iter().take(index(UNIVERSE)) {
        let mut text = format!("{element}{target}");
        let mut full = hash(text.as_bytes());
        while places.contains_key(&(full % UNIVERSE)) {
            text.push_str(&format!("{full:x}"));
            full = hash(text.as_bytes());
        }
        places.insert(full % UNIVERSE, *element);
    }
    places.into_iter().collect()
}

/// FNV-1a, 64 bits.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |state, byte| {
        (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn chooses_as_knative() {
        let sky = ["sun", "moon", "mars", "mercury"];
        let addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"];
        let buckets = [
            "autoscaler-bucket-00-of-03",
            "autoscaler-bucket-01-of-03",
            "autoscaler-bucket-02-of-03",
        ];
        let rows: Vec<(&[&str], &str, usize, &[&str])> = vec![
            (&sky, "a target!", 2, &["mercury", "moon"]),
            (&sky, "something else entirely", 2, &["mars", "mercury"]),
            (
                &sky,
                "something else entirely",
                3,
                &["mars", "mercury", "sun"],
            ),
            (&addresses, "hello-00001", 2, &["10.0.0.4", "10.0.0.5"]),
            (
                &addresses,
                "hello-00001",
                3,
                &["10.0.0.2", "10.0.0.4", "10.0.0.5"],
            ),
            (&addresses, "hello-00002", 2, &["10.0.0.2", "10.0.0.5"]),
            (
                &buckets,
                "default/hello-00001",
                1,
                &["autoscaler-bucket-00-of-03"],
            ),
            (&sky, "all of them", 9, &["mars", "mercury", "moon", "sun"]),
            (&sky, "none", 0, &[]),
            (&[], "nothing there", 2, &[]),
        ];
        for (from, target, count, expected) in rows {
            assert_eq!(
                choose(from, count, target),
                expected,
                "{count} for {target}"
            );
        }
    }

    #[test]
    fn angles_as_knative() {
        assert_eq!(hash(b"hello-00001start-angle-salt") % UNIVERSE, 1116);
        assert_eq!(hash(b"hello-00001step-angle-salt") % UNIVERSE, 1380);
    }

    proptest! {
        #[test]
        fn always_the_wanted_number(names in prop::collection::btree_set("[a-z]{1,6}", 0..40), count in 0_usize..50, target in "[a-z]{1,8}") {
            let from: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut reversed = from.clone();
            reversed.reverse();
            let chosen = choose(&from, count, &target);
            prop_assert_eq!(chosen.len(), count.min(from.len()));
            prop_assert_eq!(chosen, choose(&reversed, count, &target));
        }
    }
}
