//! The autoscaler's decisions as Knative makes them.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of pods, rounded"
)]

use super::*;
use proptest::prelude::*;

fn policy() -> DeciderSpec {
    DeciderSpec {
        max_up_rate: 1000.0,
        max_down_rate: 2.0,
        target: 70.0,
        total: 100.0,
        target_burst_capacity: 211.0,
        panic_threshold: 2.0,
        stable_window: Duration::from_secs(60),
        scale_down_delay: Duration::ZERO,
        initial_scale: 1,
        activation_scale: 0,
        reachable: true,
    }
}

fn seen(ready: u32, stable: f64, panic: f64) -> ObservedMetrics {
    ObservedMetrics {
        ready,
        stable,
        panic,
    }
}

/// Decides once from a quiet start; answers with (desired, burst capacity, panicking).
fn once(policy: &DeciderSpec, seen: ObservedMetrics) -> (u32, i32, bool) {
    let now = Moment::from_secs(1000);
    let mut autoscaler = Autoscaler {
        mode: Mode::Stable,
        delay: None,
    };
    let answer = autoscaler.decide(policy, seen, now);
    (
        answer.desired,
        answer.excess_burst_capacity,
        autoscaler.is_panicking(),
    )
}

#[test]
fn decides_as_knative_with_defaults() {
    let rows = [
        (0, 1.0, 1.0, 1, -212, false),
        (1, 0.0, 0.0, 0, -111, false),
        (3, 0.0, 0.0, 1, 89, false),
        (10, 0.0, 0.0, 5, 789, false),
        (11, 0.0, 0.0, 5, 889, false),
        (1, 70.0, 70.0, 1, -181, false),
        (1, 70.000_001, 70.0, 2, -181, false),
        (1, 10.0, 71.0, 2, -182, true),
        (1, 70.0, 140.0, 2, -251, true),
        (1, 71.0, 141.0, 3, -252, true),
        (3, 100.0, 100.0, 2, -11, false),
        (4, 100.0, 100.0, 2, 89, false),
        (4, 189.0, 189.0, 3, 0, false),
        (4, 189.5, 189.5, 3, -1, false),
    ];
    for (ready, stable, panic, desired, burst, panicking) in rows {
        assert_eq!(
            once(&policy(), seen(ready, stable, panic)),
            (desired, burst, panicking),
            "ready {ready}, stable {stable}, panic {panic}"
        );
    }
}

#[test]
fn decides_as_knative_in_variations() {
    let unreachable = DeciderSpec {
        reachable: false,
        ..policy()
    };
    assert_eq!(once(&unreachable, seen(10, 0.0, 0.0)), (0, 789, false));
    let single = DeciderSpec {
        target: 0.7,
        total: 1.0,
        ..policy()
    };
    assert_eq!(once(&single, seen(0, 5.0, 5.0)), (8, -216, true));
    let never = DeciderSpec {
        target_burst_capacity: 0.0,
        ..policy()
    };
    assert_eq!(once(&never, seen(3, 5.0, 5.0)).1, 0);
    let always = DeciderSpec {
        target_burst_capacity: -1.0,
        ..policy()
    };
    assert_eq!(once(&always, seen(3, 5.0, 5.0)).1, -1);
    let slow = DeciderSpec {
        max_up_rate: 10.0,
        target: 10.0,
        ..policy()
    };
    assert_eq!(once(&slow, seen(1, 10_000.0, 10_000.0)).0, 10);
    let slower = DeciderSpec {
        max_up_rate: 1.1,
        target: 1.0,
        ..policy()
    };
    assert_eq!(once(&slower, seen(2, 3.0, 3.0)).0, 3);
    let requests = DeciderSpec {
        target: 140.0,
        total: 200.0,
        ..policy()
    };
    assert_eq!(once(&requests, seen(2, 600.0, 600.0)), (5, -411, true));
}

#[test]
fn activation_scale_is_a_floor_while_there_is_demand() {
    let five = DeciderSpec {
        activation_scale: 5,
        ..policy()
    };
    assert_eq!(once(&five, seen(0, 1.0, 1.0)).0, 5);
    assert_eq!(once(&five, seen(5, 0.0, 0.0)).0, 2);
    assert_eq!(once(&five, seen(8, 70.0, 70.0)).0, 5);
}

#[test]
fn growth_is_limited_by_rate_step_by_step() {
    let policy = DeciderSpec {
        target: 1.0,
        max_up_rate: 6.0,
        ..policy()
    };
    let mut autoscaler = Autoscaler::new(&policy, 1, Moment::from_secs(0));
    let mut ready = 1;
    for (step, expected) in [6, 36, 216, 1296].into_iter().enumerate() {
        let now = Moment::from_secs(2 * step as u64);
        ready = autoscaler
            .decide(&policy, seen(ready, 10_000.0, 10_000.0), now)
            .desired;
        assert_eq!(ready, expected);
    }
}

#[test]
fn panic_never_scales_down_and_ends_a_stable_window_after_its_cause() {
    let policy = DeciderSpec {
        target: 10.0,
        ..policy()
    };
    let mut autoscaler = Autoscaler {
        mode: Mode::Panic {
            since: Moment::from_secs(0),
            most_pods: 5,
        },
        delay: None,
    };
    assert_eq!(
        autoscaler
            .decide(&policy, seen(5, 10.0, 10.0), Moment::from_secs(2))
            .desired,
        5
    );
    assert_eq!(
        autoscaler
            .decide(&policy, seen(5, 10.0, 10.0), Moment::from_secs(60))
            .desired,
        5
    );
    assert!(autoscaler.is_panicking());
    assert_eq!(
        autoscaler
            .decide(&policy, seen(5, 10.0, 10.0), Moment::from_secs(61))
            .desired,
        2
    );
    assert!(!autoscaler.is_panicking());
}

#[test]
fn starts_in_panic_when_it_finds_several_pods() {
    let fresh = |ready| Autoscaler::new(&policy(), ready, Moment::from_secs(0));
    assert!(!fresh(0).is_panicking());
    assert!(!fresh(1).is_panicking());
    let mut restarted = fresh(4);
    assert_eq!(
        restarted
            .decide(&policy(), seen(4, 0.0, 0.0), Moment::from_secs(2))
            .desired,
        4
    );
}

#[test]
fn scale_down_waits_for_the_delay_but_not_when_unreachable() {
    let delayed = DeciderSpec {
        scale_down_delay: Duration::from_secs(10),
        ..policy()
    };
    let mut autoscaler = Autoscaler::new(&delayed, 1, Moment::from_secs(0));
    let mut decide = |policy: &DeciderSpec, second, load| {
        autoscaler
            .decide(policy, seen(3, load, load), Moment::from_secs(second))
            .desired
    };
    assert_eq!(decide(&delayed, 0, 210.0), 3);
    assert_eq!(decide(&delayed, 2, 100.0), 3);
    assert_eq!(decide(&delayed, 8, 100.0), 3);
    assert_eq!(decide(&delayed, 10, 100.0), 2);
    assert_eq!(decide(&delayed, 12, 210.0), 3);
    assert_eq!(
        decide(
            &DeciderSpec {
                reachable: false,
                ..delayed
            },
            14,
            0.0
        ),
        0
    );
}

#[test]
fn burst_capacity_before_any_measurement() {
    assert_eq!(initial_burst_capacity(&policy()), -111);
    assert_eq!(
        initial_burst_capacity(&DeciderSpec {
            target_burst_capacity: 0.0,
            ..policy()
        }),
        0
    );
    assert_eq!(
        initial_burst_capacity(&DeciderSpec {
            target_burst_capacity: -1.0,
            ..policy()
        }),
        -1
    );
    assert_eq!(
        initial_burst_capacity(&DeciderSpec {
            initial_scale: 3,
            ..policy()
        }),
        89
    );
}

prop_compose! {
    fn any_policy()(
        up in 1.01_f64..1000.0, down in 1.01_f64..10.0, target in 0.01_f64..200.0,
        burst in prop::sample::select(vec![-1.0, 0.0, 10.0, 211.0]),
        delay in prop::sample::select(vec![0_u64, 3, 10]), activation in 0_u32..10, reachable in any::<bool>(),
    ) -> DeciderSpec {
        DeciderSpec {
            max_up_rate: up, max_down_rate: down, target, total: target / 0.7, target_burst_capacity: burst,
            panic_threshold: 2.0, stable_window: Duration::from_secs(60),
            scale_down_delay: Duration::from_secs(delay), initial_scale: 1, activation_scale: activation, reachable,
        }
    }
}

proptest! {
    #[test]
    fn one_decision_respects_its_rates(policy in any_policy(), ready in 0_u32..500, stable in 0.0_f64..1e5, panic in 0.0_f64..1e5) {
        let (desired, _, _) = once(&policy, seen(ready, stable, panic));
        let rp = f64::from(ready.max(1));
        let most = ((policy.max_up_rate * rp).ceil() as u32).max(policy.activation_scale);
        prop_assert!(desired <= most);
        if policy.reachable {
            prop_assert!(desired >= (rp / policy.max_down_rate).floor() as u32);
        }
    }

    #[test]
    fn more_load_never_asks_for_fewer(policy in any_policy(), ready in 0_u32..200, load in 0.0_f64..1e4, more in 0.0_f64..1e4) {
        let less = once(&policy, seen(ready, load, load));
        let greater = once(&policy, seen(ready, load + more, load + more));
        prop_assert!(greater.0 >= less.0);
        prop_assert!(greater.1 <= less.1);
    }

    #[test]
    fn any_sequence_stays_finite_and_repeats(policy in any_policy(), steps in prop::collection::vec((0_u32..50, any::<f64>(), any::<f64>(), 0_u64..90), 1..40)) {
        let mut left = Autoscaler::new(&policy, steps[0].0, Moment::from_secs(0));
        let mut right = left.clone();
        let mut now = 0;
        for (ready, stable, panic, wait) in steps {
            now += wait;
            let one = left.decide(&policy, seen(ready, stable, panic), Moment::from_secs(now));
            let two = right.decide(&policy, seen(ready, stable, panic), Moment::from_secs(now));
            prop_assert_eq!(one, two);
            prop_assert!(one.desired <= i32::MAX.unsigned_abs());
        }
    }
}
