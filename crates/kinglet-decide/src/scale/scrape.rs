//! Which queue-proxies are asked for their statistics, and what the answers say of all of them (spec/serving.md 5.2).

use std::time::Duration;

use super::sample::sample_size;
use crate::feed::Stat;

/// `pod_name` of what a scraper reports.
pub const SCRAPER: &str = "service-scraper";

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrapePlan<T> {
    /// Answers that are needed.
    pub needed: usize,
    /// Pods in the order in which they are asked; those past the first `needed` stand in for pods that do not answer.
    pub order: Vec<T>,
}

/// Plans a round over the ready pods and their ages.
///
/// Pods older than the stable window are asked first, since a young one has little to tell. Whichever group the sample
/// ends in is shuffled. `random` answers with a number below its argument.
pub fn plan<T>(
    ready: impl IntoIterator<Item = (T, Duration)>,
    stable: Duration,
    mut random: impl FnMut(usize) -> usize,
) -> ScrapePlan<T> {
    let (mut old, mut young) = (Vec::new(), Vec::new());
    for (pod, age) in ready {
        if age >= stable {
            old.push(pod);
        } else {
            young.push(pod);
        }
    }
    let total = u32::try_from(old.len() + young.len()).unwrap_or(u32::MAX);
    let needed = usize::try_from(sample_size(total)).unwrap_or(usize::MAX);
    let partly = if old.len() < needed {
        &mut young
    } else {
        &mut old
    };
    for last in (1..partly.len()).rev() {
        partly.swap(last, random(last + 1).min(last));
    }
    old.append(&mut young);
    ScrapePlan { needed, order: old }
}

/// What all `total` pods do, if the samples are like the others. `None` without any sample.
pub fn combine(samples: &[Stat], total: usize) -> Option<Stat> {
    if samples.is_empty() {
        return None;
    }
    let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    let all = |field: fn(&Stat) -> f64| {
        samples.iter().map(field).sum::<f64>() / number(samples.len()) * number(total)
    };
    Some(Stat {
        average_concurrent_requests: all(|stat| stat.average_concurrent_requests),
        average_proxied_concurrent_requests: all(|stat| stat.average_proxied_concurrent_requests),
        request_count: all(|stat| stat.request_count),
        proxied_request_count: all(|stat| stat.proxied_request_count),
        // How long all of them together have run would say nothing.
        process_uptime: 0.0,
        in_flight: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STABLE: Duration = Duration::from_secs(60);

    fn pods(old: usize, young: usize) -> Vec<(String, Duration)> {
        let old = (0..old).map(|at| (format!("old-{at}"), STABLE));
        let young = (0..young).map(|at| (format!("young-{at}"), Duration::from_secs(59)));
        young.chain(old).collect()
    }

    #[test]
    fn the_old_are_asked_first() {
        // Numbers that leave every pod where it is.
        let still = |below: usize| below - 1;
        let plan = plan(pods(2, 2), STABLE, still);
        assert_eq!(plan.needed, 4);
        assert_eq!(plan.order, ["old-0", "old-1", "young-0", "young-1"]);
    }

    #[test]
    fn only_the_group_in_which_the_sample_ends_is_shuffled() {
        let first = |_: usize| 0;
        // 4 of 5 are asked: both old ones, and two of three young ones.
        let mixed = plan(pods(2, 3), STABLE, first);
        assert_eq!(mixed.needed, 4);
        assert_eq!(
            mixed.order,
            ["old-0", "old-1", "young-1", "young-2", "young-0"]
        );
        let old = plan(pods(5, 1), STABLE, first);
        assert_eq!(old.needed, 5);
        assert_eq!(old.order[5], "young-0");
        assert_ne!(old.order[0], "old-0");
        let nobody = plan(pods(0, 0), STABLE, first);
        assert_eq!((nobody.needed, nobody.order.len()), (0, 0));
    }

    #[test]
    fn the_mean_stands_for_all() {
        let sample = |concurrent, requests| Stat {
            average_concurrent_requests: concurrent,
            average_proxied_concurrent_requests: concurrent / 2.0,
            request_count: requests,
            proxied_request_count: requests / 4.0,
            process_uptime: 100.0,
            in_flight: Some(3),
        };
        let all = combine(&[sample(2.0, 10.0), sample(4.0, 30.0)], 10).unwrap();
        let expected = Stat {
            average_concurrent_requests: 30.0,
            average_proxied_concurrent_requests: 15.0,
            request_count: 200.0,
            proxied_request_count: 50.0,
            process_uptime: 0.0,
            in_flight: None,
        };
        assert_eq!(all, expected);
        assert_eq!(combine(&[], 10), None);
    }

    proptest! {
        #[test]
        fn everybody_is_asked_at_most_once(old in 0_usize..40, young in 0_usize..40, seed in any::<usize>()) {
            let mut state = seed;
            let plan = plan(pods(old, young), STABLE, |below| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) % below
            });
            let mut order = plan.order.clone();
            order.sort_unstable();
            order.dedup();
            prop_assert_eq!(order.len(), old + young);
            prop_assert!(plan.needed <= old + young);
            prop_assert!(plan.order[..old].iter().all(|pod| pod.starts_with("old")));
        }
    }
}
