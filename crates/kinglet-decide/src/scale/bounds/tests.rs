//! Limits of a desired scale, and the steps to zero, as Knative takes them.

use super::*;
use proptest::prelude::*;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn observed() -> ObservedScale {
    ObservedScale {
        desired_scale: Some(0),
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

fn order(
    want: impl Into<Option<u32>>,
    apply: bool,
    again: impl Into<Option<u64>>,
) -> ScaleDecision {
    ScaleDecision {
        want: want.into(),
        apply,
        again: again.into().map(secs),
        probe: false,
    }
}

#[test]
fn steps_toward_zero() {
    use Activity::{Activating, Active, Inactive};
    let rows: Vec<(&str, ObservedScale, ScaleDecision)> = vec![
        (
            "idle but the window is not over",
            ObservedScale {
                activity: Active(secs(20)),
                ..observed()
            },
            order(1, true, 40),
        ),
        ("idle a whole window", observed(), order(0, false, None)),
        (
            "idle a whole window, buffer already there",
            ObservedScale {
                buffered_for: Some(secs(5)),
                ..observed()
            },
            order(0, false, 3),
        ),
        (
            "a window of its own",
            ObservedScale {
                stable_window: secs(6),
                activity: Active(secs(6)),
                ..observed()
            },
            order(0, false, None),
        ),
        (
            "ten pods and no demand go to one first",
            ObservedScale {
                activity: Active(secs(1)),
                ..observed()
            },
            order(1, true, 59),
        ),
        (
            "inactive, no grace yet",
            ObservedScale {
                activity: Inactive(secs(10)),
                ..observed()
            },
            order(0, false, 30),
        ),
        (
            "inactive for the grace period",
            ObservedScale {
                activity: Inactive(secs(30)),
                ..observed()
            },
            order(0, true, None),
        ),
        (
            "long in proxy shortens the wait",
            ObservedScale {
                activity: Inactive(secs(1)),
                buffered_for: Some(secs(30)),
                ..observed()
            },
            order(0, true, None),
        ),
        (
            "not so long in proxy",
            ObservedScale {
                activity: Inactive(secs(1)),
                buffered_for: Some(secs(10)),
                ..observed()
            },
            order(0, false, 20),
        ),
        (
            "retention holds the pods",
            ObservedScale {
                activity: Inactive(secs(40)),
                retention: secs(90),
                buffered_for: Some(secs(99)),
                ..observed()
            },
            order(0, false, 50),
        ),
        (
            "retention is over",
            ObservedScale {
                activity: Inactive(secs(90)),
                retention: secs(90),
                ..observed()
            },
            order(0, true, None),
        ),
        (
            "retention is ignored when unreachable",
            ObservedScale {
                activity: Inactive(secs(30)),
                retention: secs(90),
                unreachable: true,
                ..observed()
            },
            order(0, true, None),
        ),
        (
            "the buffer must be reached first",
            ObservedScale {
                activity: Inactive(secs(99)),
                buffer: BufferPath::Unconfirmed,
                ..observed()
            },
            ScaleDecision {
                probe: true,
                ..order(0, false, None)
            },
        ),
        (
            "unless it never leaves the path",
            ObservedScale {
                activity: Inactive(secs(99)),
                buffer: BufferPath::Unconfirmed,
                always_buffered: true,
                ..observed()
            },
            order(0, true, None),
        ),
        (
            "activation past its deadline",
            ObservedScale {
                activity: Activating(secs(631)),
                ..observed()
            },
            order(0, true, None),
        ),
        (
            "activation within its deadline",
            ObservedScale {
                activity: Activating(secs(10)),
                ..observed()
            },
            order(None, false, 620),
        ),
        (
            "scale to zero switched off",
            ObservedScale {
                scale_to_zero_enabled: false,
                ..observed()
            },
            order(1, true, None),
        ),
    ];
    for (case, observed, expected) in rows {
        assert_eq!(bound(&observed), expected, "{case}");
    }
}

#[test]
fn limits() {
    use Activity::{Activating, Active};
    let rows: Vec<(&str, ObservedScale, ScaleDecision)> = vec![
        (
            "minimum",
            ObservedScale {
                min: 2,
                ..observed()
            },
            order(2, true, None),
        ),
        (
            "minimum of an unreachable revision",
            ObservedScale {
                min: 2,
                unreachable: true,
                ..observed()
            },
            order(0, false, None),
        ),
        (
            "maximum",
            ObservedScale {
                desired_scale: Some(9),
                max: 3,
                ..observed()
            },
            order(3, true, None),
        ),
        (
            "nothing known leaves replicas alone",
            ObservedScale {
                desired_scale: None,
                min: 2,
                ..observed()
            },
            order(None, false, None),
        ),
        (
            "nothing known while activating means the minimum",
            ObservedScale {
                desired_scale: None,
                min: 2,
                activity: Activating(secs(0)),
                ..observed()
            },
            order(2, true, None),
        ),
        (
            "initial scale not reached",
            ObservedScale {
                desired_scale: Some(1),
                initial_scale: 3,
                initialized: false,
                activity: Activating(secs(0)),
                ..observed()
            },
            order(3, true, None),
        ),
        (
            "initial scale reached",
            ObservedScale {
                desired_scale: Some(1),
                initial_scale: 3,
                activity: Active(secs(0)),
                ..observed()
            },
            order(1, true, None),
        ),
        (
            "initial scale of an unreachable revision",
            ObservedScale {
                desired_scale: None,
                initial_scale: 3,
                initialized: false,
                unreachable: true,
                activity: Activating(secs(631)),
                ..observed()
            },
            order(0, true, None),
        ),
    ];
    for (case, observed, expected) in rows {
        assert_eq!(bound(&observed), expected, "{case}");
    }
}

prop_compose! {
    fn any_facts()(
        desired_scale in prop::option::of(0_u32..50), min in 0_u32..5, more in 0_u32..5, bounded in any::<bool>(),
        initial_scale in 0_u32..6, initialized in any::<bool>(), unreachable in any::<bool>(),
        scale_to_zero_enabled in any::<bool>(), kind in 0..3, waited in 0_u64..1000, window in 6_u64..100,
        grace in 1_u64..60, retention in 0_u64..60, confirmed in any::<bool>(), always_buffered in any::<bool>(),
        buffered in prop::option::of(0_u64..100),
    ) -> ObservedScale {
        let waited = secs(waited);
        ObservedScale {
            desired_scale, min, max: if bounded { min + more } else { 0 }, initial_scale, initialized, unreachable,
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
    fn an_order_is_within_its_limits(observed in any_facts()) {
        let order = bound(&observed);
        if let Some(want) = order.want && order.apply && want > 0 {
            prop_assert!(observed.max == 0 || want <= observed.max.max(1));
            if !observed.unreachable && observed.max == 0 {
                prop_assert!(want >= observed.min);
            }
        }
        prop_assert!(!order.apply || order.want.is_some());
        prop_assert!(order.again.is_none_or(|wait| wait <= secs(1000)));
    }

    #[test]
    fn pods_go_to_zero_only_after_the_handshake(observed in any_facts()) {
        let order = bound(&observed);
        if order.want == Some(0) && order.apply {
            prop_assert!(observed.scale_to_zero_enabled);
            prop_assert!(observed.desired_scale.is_none_or(|desired_scale| desired_scale == 0));
            prop_assert!(observed.unreachable || observed.min == 0);
            match observed.activity {
                Activity::Active(_) => prop_assert!(false, "an active revision must become inactive first"),
                Activity::Activating(waited) => prop_assert!(waited > observed.progress_deadline),
                Activity::Inactive(waited) => {
                    prop_assert!(observed.always_buffered || observed.buffer == BufferPath::Confirmed);
                    prop_assert!(waited >= observed.grace || observed.buffered_for.is_some_and(|time| time >= observed.grace));
                    prop_assert!(observed.unreachable || waited >= observed.retention);
                }
            }
        }
    }
}
