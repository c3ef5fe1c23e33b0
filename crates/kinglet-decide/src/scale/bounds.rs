//! From a wish to an order: minimum and maximum, initial scale, and the handshake before zero.
//!
//! Zero is reached in steps that each need time: active for a whole stable window without demand, then
//! inactive (requests already go through the buffer) for the grace period, then no pods. A request on
//! the way stops it at any step.

use std::time::Duration;

/// After the progress deadline an activation gets this much longer before it is given up.
pub const ACTIVATION_TIMEOUT_BUFFER: Duration = Duration::from_secs(30);

/// How soon to look again after a revision became inactive while its buffer is already in the path.
const RECHECK_IN_PROXY: Duration = Duration::from_secs(3);

/// What the PodAutoscaler's `Active` condition says, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// `Unknown`: pods are being brought up.
    Activating(Duration),
    /// `True`.
    Active(Duration),
    /// `False`.
    Inactive(Duration),
}

/// Whether requests are known to reach the buffer (the activator) before pods go away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferPath {
    /// They do: it is always in the path, or a probe said so.
    Confirmed,
    /// Not known yet: a probe must be made before pods may go.
    Unconfirmed,
}

/// Facts that turn a wish into an order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoundFacts {
    /// The autoscaler's wish; `None` while it knows nothing.
    pub wish: Option<u32>,
    /// Annotation or config `min-scale`.
    pub min: u32,
    /// Annotation or config `max-scale`; 0 means unlimited.
    pub max: u32,
    /// Annotation or config `initial-scale`.
    pub initial_scale: u32,
    /// `ScaleTargetInitialized` is True.
    pub initialized: bool,
    /// `spec.reachability` is `Unreachable`.
    pub unreachable: bool,
    /// `enable-scale-to-zero`.
    pub scale_to_zero_enabled: bool,
    /// The `Active` condition.
    pub activity: Activity,
    /// Stable window of this revision.
    pub stable_window: Duration,
    /// `scale-to-zero-grace-period`.
    pub grace: Duration,
    /// Annotation or config `scale-to-zero-pod-retention-period`.
    pub retention: Duration,
    /// Progress deadline of this revision.
    pub progress_deadline: Duration,
    /// `target-burst-capacity` is -1: the buffer never leaves the path.
    pub always_buffered: bool,
    /// Whether the buffer is reached.
    pub buffer: BufferPath,
    /// How long the ServerlessService has pointed at the buffer; `None` when it does not.
    pub buffered_for: Option<Duration>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The scale that counts from here on; `None` when still nothing is known.
    pub want: Option<u32>,
    /// Write `want` to the scale target. Only meaningful with a known `want`.
    pub apply: bool,
    /// Look again after this time.
    pub again: Option<Duration>,
    /// Find out whether the buffer is reached.
    pub probe: bool,
}

impl Order {
    fn apply(want: u32) -> Self {
        Self {
            want: Some(want),
            apply: true,
            again: None,
            probe: false,
        }
    }

    fn hold(want: Option<u32>) -> Self {
        Self {
            want,
            apply: false,
            again: None,
            probe: false,
        }
    }

    fn again_in(self, wait: Duration) -> Self {
        Self {
            again: Some(wait),
            ..self
        }
    }
}

/// Fewest pods that are kept, apart from a first start.
pub fn minimum(min: u32, unreachable: bool) -> u32 {
    if unreachable { 0 } else { min }
}

/// Applies limits and the handshake before zero.
pub fn bound(facts: &BoundFacts) -> Order {
    let activating = matches!(facts.activity, Activity::Activating(_));
    if facts.wish.is_none() && !activating {
        return Order::hold(None);
    }
    let mut min = minimum(facts.min, facts.unreachable);
    if facts.initial_scale > 1 && !facts.initialized && !facts.unreachable {
        min = min.max(facts.initial_scale);
    }
    // An unknown wish counts as less than any minimum, so an activation keeps what it needs.
    let wish = facts.wish.unwrap_or(0).max(min);
    let limited = if facts.max == 0 {
        wish
    } else {
        wish.min(facts.max)
    };
    if limited > 0 {
        Order::apply(limited)
    } else {
        toward_zero(facts)
    }
}

fn toward_zero(facts: &BoundFacts) -> Order {
    if !facts.scale_to_zero_enabled {
        return Order::apply(1);
    }
    match facts.activity {
        Activity::Activating(waited) => {
            let deadline = facts.progress_deadline + ACTIVATION_TIMEOUT_BUFFER;
            if waited > deadline {
                Order::apply(0)
            } else {
                Order::hold(None)
                    .again_in(deadline.saturating_sub(waited).max(Duration::from_secs(1)))
            }
        }
        Activity::Active(waited) if waited >= facts.stable_window => {
            let inactive = Order::hold(Some(0));
            if facts.buffered_for.is_some() {
                inactive.again_in(RECHECK_IN_PROXY)
            } else {
                inactive
            }
        }
        Activity::Active(waited) => Order::apply(1).again_in(facts.stable_window - waited),
        Activity::Inactive(waited) => let_go(facts, waited),
    }
}

/// The last step: the revision is marked inactive, its pods still run.
fn let_go(facts: &BoundFacts, waited: Duration) -> Order {
    if !facts.always_buffered && facts.buffer == BufferPath::Unconfirmed {
        return Order {
            probe: true,
            ..Order::hold(Some(0))
        };
    }
    let retention = if facts.unreachable {
        Duration::ZERO
    } else {
        facts.retention
    };
    if waited >= facts.grace.max(retention) {
        return Order::apply(0);
    }
    if waited < retention {
        return Order::hold(Some(0)).again_in(retention - waited);
    }
    let buffered = facts.buffered_for.unwrap_or(Duration::ZERO);
    if buffered >= facts.grace && facts.buffered_for.is_some() {
        Order::apply(0)
    } else {
        Order::hold(Some(0)).again_in(facts.grace - buffered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn facts() -> BoundFacts {
        BoundFacts {
            wish: Some(0),
            min: 0,
            max: 0,
            initial_scale: 1,
            initialized: true,
            unreachable: false,
            scale_to_zero_enabled: true,
            activity: Activity::Active(secs(100)),
            stable_window: secs(60),
            grace: secs(30),
            retention: Duration::ZERO,
            progress_deadline: secs(600),
            always_buffered: false,
            buffer: BufferPath::Confirmed,
            buffered_for: None,
        }
    }

    fn order(want: impl Into<Option<u32>>, apply: bool, again: impl Into<Option<u64>>) -> Order {
        Order {
            want: want.into(),
            apply,
            again: again.into().map(secs),
            probe: false,
        }
    }

    #[test]
    fn steps_toward_zero() {
        use Activity::{Activating, Active, Inactive};
        let rows: Vec<(&str, BoundFacts, Order)> = vec![
            (
                "idle but the window is not over",
                BoundFacts {
                    activity: Active(secs(20)),
                    ..facts()
                },
                order(1, true, 40),
            ),
            ("idle a whole window", facts(), order(0, false, None)),
            (
                "idle a whole window, buffer already there",
                BoundFacts {
                    buffered_for: Some(secs(5)),
                    ..facts()
                },
                order(0, false, 3),
            ),
            (
                "a window of its own",
                BoundFacts {
                    stable_window: secs(6),
                    activity: Active(secs(6)),
                    ..facts()
                },
                order(0, false, None),
            ),
            (
                "ten pods and no demand go to one first",
                BoundFacts {
                    activity: Active(secs(1)),
                    ..facts()
                },
                order(1, true, 59),
            ),
            (
                "inactive, no grace yet",
                BoundFacts {
                    activity: Inactive(secs(10)),
                    ..facts()
                },
                order(0, false, 30),
            ),
            (
                "inactive for the grace period",
                BoundFacts {
                    activity: Inactive(secs(30)),
                    ..facts()
                },
                order(0, true, None),
            ),
            (
                "long in proxy shortens the wait",
                BoundFacts {
                    activity: Inactive(secs(1)),
                    buffered_for: Some(secs(30)),
                    ..facts()
                },
                order(0, true, None),
            ),
            (
                "not so long in proxy",
                BoundFacts {
                    activity: Inactive(secs(1)),
                    buffered_for: Some(secs(10)),
                    ..facts()
                },
                order(0, false, 20),
            ),
            (
                "retention holds the pods",
                BoundFacts {
                    activity: Inactive(secs(40)),
                    retention: secs(90),
                    buffered_for: Some(secs(99)),
                    ..facts()
                },
                order(0, false, 50),
            ),
            (
                "retention is over",
                BoundFacts {
                    activity: Inactive(secs(90)),
                    retention: secs(90),
                    ..facts()
                },
                order(0, true, None),
            ),
            (
                "retention is ignored when unreachable",
                BoundFacts {
                    activity: Inactive(secs(30)),
                    retention: secs(90),
                    unreachable: true,
                    ..facts()
                },
                order(0, true, None),
            ),
            (
                "the buffer must be reached first",
                BoundFacts {
                    activity: Inactive(secs(99)),
                    buffer: BufferPath::Unconfirmed,
                    ..facts()
                },
                Order {
                    probe: true,
                    ..order(0, false, None)
                },
            ),
            (
                "unless it never leaves the path",
                BoundFacts {
                    activity: Inactive(secs(99)),
                    buffer: BufferPath::Unconfirmed,
                    always_buffered: true,
                    ..facts()
                },
                order(0, true, None),
            ),
            (
                "activation past its deadline",
                BoundFacts {
                    activity: Activating(secs(631)),
                    ..facts()
                },
                order(0, true, None),
            ),
            (
                "activation within its deadline",
                BoundFacts {
                    activity: Activating(secs(10)),
                    ..facts()
                },
                order(None, false, 620),
            ),
            (
                "scale to zero switched off",
                BoundFacts {
                    scale_to_zero_enabled: false,
                    ..facts()
                },
                order(1, true, None),
            ),
        ];
        for (case, facts, expected) in rows {
            assert_eq!(bound(&facts), expected, "{case}");
        }
    }

    #[test]
    fn limits() {
        use Activity::{Activating, Active};
        let rows: Vec<(&str, BoundFacts, Order)> = vec![
            (
                "minimum",
                BoundFacts { min: 2, ..facts() },
                order(2, true, None),
            ),
            (
                "minimum of an unreachable revision",
                BoundFacts {
                    min: 2,
                    unreachable: true,
                    ..facts()
                },
                order(0, false, None),
            ),
            (
                "maximum",
                BoundFacts {
                    wish: Some(9),
                    max: 3,
                    ..facts()
                },
                order(3, true, None),
            ),
            (
                "nothing known leaves replicas alone",
                BoundFacts {
                    wish: None,
                    min: 2,
                    ..facts()
                },
                order(None, false, None),
            ),
            (
                "nothing known while activating means the minimum",
                BoundFacts {
                    wish: None,
                    min: 2,
                    activity: Activating(secs(0)),
                    ..facts()
                },
                order(2, true, None),
            ),
            (
                "initial scale not reached",
                BoundFacts {
                    wish: Some(1),
                    initial_scale: 3,
                    initialized: false,
                    activity: Activating(secs(0)),
                    ..facts()
                },
                order(3, true, None),
            ),
            (
                "initial scale reached",
                BoundFacts {
                    wish: Some(1),
                    initial_scale: 3,
                    activity: Active(secs(0)),
                    ..facts()
                },
                order(1, true, None),
            ),
            (
                "initial scale of an unreachable revision",
                BoundFacts {
                    wish: None,
                    initial_scale: 3,
                    initialized: false,
                    unreachable: true,
                    activity: Activating(secs(631)),
                    ..facts()
                },
                order(0, true, None),
            ),
        ];
        for (case, facts, expected) in rows {
            assert_eq!(bound(&facts), expected, "{case}");
        }
    }

    prop_compose! {
        fn any_facts()(
            wish in prop::option::of(0_u32..50), min in 0_u32..5, more in 0_u32..5, bounded in any::<bool>(),
            initial_scale in 0_u32..6, initialized in any::<bool>(), unreachable in any::<bool>(),
            scale_to_zero_enabled in any::<bool>(), kind in 0..3, waited in 0_u64..1000, window in 6_u64..100,
            grace in 1_u64..60, retention in 0_u64..60, confirmed in any::<bool>(), always_buffered in any::<bool>(),
            buffered in prop::option::of(0_u64..100),
        ) -> BoundFacts {
            let waited = secs(waited);
            BoundFacts {
                wish, min, max: if bounded { min + more } else { 0 }, initial_scale, initialized, unreachable,
                scale_to_zero_enabled,
                activity: match kind { 0 => Activity::Activating(waited), 1 => Activity::Active(waited), _ => Activity::Inactive(waited) },
                stable_window: secs(window), grace: secs(grace), retention: secs(retention), progress_deadline: secs(600),
                always_buffered, buffer: if confirmed { BufferPath::Confirmed } else { BufferPath::Unconfirmed },
                buffered_for: buffered.map(secs),
            }
        }
    }

    proptest! {
        #[test]
        fn an_order_is_within_its_limits(facts in any_facts()) {
            let order = bound(&facts);
            if let Some(want) = order.want && order.apply && want > 0 {
                prop_assert!(facts.max == 0 || want <= facts.max.max(1));
                if !facts.unreachable && facts.max == 0 {
                    prop_assert!(want >= facts.min);
                }
            }
            prop_assert!(!order.apply || order.want.is_some());
            prop_assert!(order.again.is_none_or(|wait| wait <= secs(1000)));
        }

        #[test]
        fn pods_go_to_zero_only_after_the_handshake(facts in any_facts()) {
            let order = bound(&facts);
            if order.want == Some(0) && order.apply {
                prop_assert!(facts.scale_to_zero_enabled);
                prop_assert!(facts.wish.is_none_or(|wish| wish == 0));
                prop_assert!(facts.unreachable || facts.min == 0);
                match facts.activity {
                    Activity::Active(_) => prop_assert!(false, "an active revision must become inactive first"),
                    Activity::Activating(waited) => prop_assert!(waited > facts.progress_deadline),
                    Activity::Inactive(waited) => {
                        prop_assert!(facts.always_buffered || facts.buffer == BufferPath::Confirmed);
                        prop_assert!(waited >= facts.grace || facts.buffered_for.is_some_and(|time| time >= facts.grace));
                        prop_assert!(facts.unreachable || waited >= facts.retention);
                    }
                }
            }
        }
    }
}
