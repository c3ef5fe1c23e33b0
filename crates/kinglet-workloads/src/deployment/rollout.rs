//! How many Pods each ReplicaSet of a Deployment shall have: pure arithmetic.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The bounds of a rollout, percentages resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) replicas: i32,
    pub(super) max_surge: i32,
    pub(super) max_unavailable: i32,
}

/// One ReplicaSet as far as sizes go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// In its spec.
    pub(super) wanted: i32,
    /// Available Pods in its status.
    pub(super) available: i32,
    /// The whole size the Deployment had when this one was last scaled (its annotation).
    pub(super) desired_then: Option<i32>,
    /// The most Pods allowed then.
    pub(super) max_then: Option<i32>,
}

impl Limits {
    pub(super) fn of(deployment: &Deployment) -> Self {
        let spec = deployment.spec.as_ref();
        let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let strategy = spec.and_then(|spec| spec.strategy.as_ref());
        if super::decide::is_recreate(deployment) {
            return Self {
                replicas,
                max_surge: 0,
                max_unavailable: 0,
            };
        }
        let rolling =
            strategy.and_then(|strategy: &DeploymentStrategy| strategy.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".to_owned());
        let surge = rolling
            .and_then(|rolling| rolling.max_surge.as_ref())
            .unwrap_or(&quarter);
        let unavailable = rolling
            .and_then(|rolling| rolling.max_unavailable.as_ref())
            .unwrap_or(&quarter);
        let max_surge = resolve(surge, replicas, true);
        let mut max_unavailable = resolve(unavailable, replicas, false);
        // Both zero would never move; Kubernetes lets one be missing then.
        if max_surge == 0 && max_unavailable == 0 {
            max_unavailable = 1;
        }
        Self {
            replicas,
            max_surge,
            max_unavailable: max_unavailable.min(replicas),
        }
    }

    /// The most Pods at any time.
    pub(super) fn max_total(&self) -> i32 {
        if self.replicas == 0 {
            0
        } else {
            self.replicas + self.max_surge
        }
    }
}

fn resolve(value: &IntOrString, of: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let exact = percent.max(0) * i64::from(of);
            let whole = if round_up {
                (exact + 99) / 100
            } else {
                exact / 100
            };
            i32::try_from(whole).unwrap_or(i32::MAX)
        }
    }
}

/// The sizes after one step of a rolling update. `old` is sorted by age, oldest first.
pub(super) fn rolling(limits: &Limits, new: Size, old: &[Size]) -> (i32, Vec<i32>) {
    let unchanged: Vec<i32> = old.iter().map(|size| size.wanted).collect();
    let total = new.wanted + unchanged.iter().sum::<i32>();
    let grown = grow(limits, new.wanted, total);
    if grown != new.wanted {
        return (grown, unchanged);
    }
    (new.wanted, shrink(limits, new, old, total))
}

/// The size of the new ReplicaSet as far as the surge allows.
pub(super) fn grow(limits: &Limits, new: i32, total: i32) -> i32 {
    if new >= limits.replicas {
        return limits.replicas;
    }
    let room = limits.replicas + limits.max_surge - total;
    if room <= 0 {
        new
    } else {
        new + room.min(limits.replicas - new)
    }
}

/// The sizes of the old ReplicaSets: first without what is not available anyway, then as availability allows.
fn shrink(limits: &Limits, new: Size, old: &[Size], total: i32) -> Vec<i32> {
    let mut sizes: Vec<i32> = old.iter().map(|size| size.wanted).collect();
    let min_available = limits.replicas - limits.max_unavailable;
    let new_unavailable = new.wanted - new.available;
    let mut may_go = total - min_available - new_unavailable;
    if may_go <= 0 {
        return sizes;
    }
    for (size, seen) in sizes.iter_mut().zip(old) {
        let unhealthy = (*size - seen.available).clamp(0, may_go);
        *size -= unhealthy;
        may_go -= unhealthy;
    }
    let available: i32 = new.available + old.iter().map(|size| size.available).sum::<i32>();
    let mut spare = (available - min_available).max(0);
    for size in &mut sizes {
        let gone = spare.min(*size);
        *size -= gone;
        spare -= gone;
    }
    sizes
}

/// The sizes after the Deployment itself was scaled in the middle of a rollout: in proportion to what each has.
/// What rounding leaves goes to the largest (the first of equals). `sizes` holds every ReplicaSet, the new one first.
pub(super) fn proportional(limits: &Limits, sizes: &[Size]) -> Vec<i32> {
    let total: i32 = sizes.iter().map(|size| size.wanted).sum();
    let allowed = limits.max_total();
    let mut left = allowed - total;
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(sizes[*index].wanted));
    let mut out: Vec<i32> = sizes.iter().map(|size| size.wanted).collect();
    for index in &order {
        let size = sizes[*index];
        let before = size.max_then.filter(|max| *max > 0).unwrap_or(total).max(1);
        let share = (f64::from(size.wanted) * f64::from(allowed) / f64::from(before)).round();
        // Within i32: both factors are sizes, the divisor is at least one.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a rounded product of replica counts, clamped below"
        )]
        let change = (share as i64).clamp(0, i64::from(i32::MAX)) as i32 - size.wanted;
        let change = if left >= 0 {
            change.clamp(0, left)
        } else {
            change.clamp(left, 0)
        };
        out[*index] += change;
        left -= change;
    }
    if let Some(first) = order.first() {
        out[*first] = (out[*first] + left).max(0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits(replicas: i32, max_surge: i32, max_unavailable: i32) -> Limits {
        Limits {
            replicas,
            max_surge,
            max_unavailable,
        }
    }

    fn size(wanted: i32, available: i32) -> Size {
        Size {
            wanted,
            available,
            ..Size::default()
        }
    }

    #[test]
    fn percentages_round_surge_up_and_unavailable_down() {
        assert_eq!(resolve(&IntOrString::String("25%".into()), 10, true), 3);
        assert_eq!(resolve(&IntOrString::String("25%".into()), 10, false), 2);
        assert_eq!(resolve(&IntOrString::Int(4), 10, false), 4);
    }

    #[test]
    fn a_rollout_steps_as_availability_allows() {
        let cases = [
            (
                "surge first",
                limits(4, 1, 0),
                size(0, 0),
                vec![size(4, 4)],
                (1, vec![4]),
            ),
            (
                "the new one is not available yet",
                limits(4, 1, 0),
                size(1, 0),
                vec![size(4, 4)],
                (1, vec![4]),
            ),
            (
                "one old may go",
                limits(4, 1, 0),
                size(1, 1),
                vec![size(4, 4)],
                (1, vec![3]),
            ),
            (
                "unavailable old ones go first",
                limits(4, 1, 1),
                size(1, 0),
                vec![size(4, 2)],
                (1, vec![3]),
            ),
            (
                "old ones that never came up go at once",
                limits(1, 1, 0),
                size(1, 1),
                vec![size(1, 0)],
                (1, vec![0]),
            ),
            (
                "scale to zero",
                limits(0, 0, 0),
                size(2, 2),
                vec![],
                (0, vec![]),
            ),
            ("wake", limits(1, 1, 0), size(0, 0), vec![], (1, vec![])),
        ];
        for (name, limits, new, old, expected) in cases {
            assert_eq!(rolling(&limits, new, &old), expected, "{name}");
        }
    }

    proptest! {
        /// However a rollout starts, it ends with the new ReplicaSet alone and never breaks its bounds.
        #[test]
        fn a_rollout_converges_within_its_bounds(replicas in 0i32..20, surge in 0i32..5, unavailable in 0i32..5, old in 0i32..20) {
            let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable }.min(replicas.max(1));
            let limits = limits(replicas, surge, unavailable);
            let old = old.min(replicas);
            let mut new = size(0, 0);
            let mut olds = vec![size(old, old)];
            for _ in 0..200 {
                let (wanted, sizes) = rolling(&limits, new, &olds);
                prop_assert!(wanted + sizes.iter().sum::<i32>() <= (replicas + surge).max(new.wanted + olds[0].wanted));
                let steady = wanted == new.wanted && sizes[0] == olds[0].wanted && new.available == wanted;
                if steady { break; }
                new = size(wanted, wanted);
                olds = vec![size(sizes[0], sizes[0])];
            }
            prop_assert_eq!((new.wanted, olds[0].wanted), (replicas, 0));
        }

        /// Scaling in the middle of a rollout uses exactly what is allowed.
        #[test]
        fn proportions_add_up(replicas in 1i32..50, surge in 0i32..5, a in 1i32..30, b in 1i32..30) {
            let limits = limits(replicas, surge, 0);
            let out = proportional(&limits, &[size(a, a), size(b, b)]);
            prop_assert_eq!(out.iter().sum::<i32>(), limits.max_total());
            prop_assert!(out.iter().all(|size| *size >= 0));
        }
    }
}
