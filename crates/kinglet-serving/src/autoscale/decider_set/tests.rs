//! The set as a simulation: seconds pass, load comes and goes, pods follow.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "loads of a test are small whole numbers"
)]

use std::time::Duration;

use super::*;

fn key() -> Key {
    Key::new("load", "hello-00001")
}

fn request(burst: f64, stable_s: u32, target: f64, ready: u32) -> DeciderRequest {
    DeciderRequest {
        policy: DeciderSpec {
            max_up_rate: 1000.0,
            max_down_rate: 2.0,
            target,
            total: target / 0.7,
            target_burst_capacity: burst,
            panic_threshold: 2.0,
            stable_window: Duration::from_secs(u64::from(stable_s)),
            scale_down_delay: Duration::ZERO,
            initial_scale: 1,
            activation_scale: 0,
            reachable: true,
        },
        metric: Metric::Concurrency,
        weighting: Weighting::Linear,
        stable_s,
        panic_s: (stable_s / 10).max(1),
        ready,
    }
}

fn at(second: u64) -> Moment {
    Moment::from_secs(second)
}

fn gateway() -> Source {
    Source::itself("gateway")
}

fn load(requests: f64) -> Report {
    load_of(gateway(), requests)
}

fn load_of(source: Source, requests: f64) -> Report {
    Report::Stat {
        revision: key(),
        source,
        stat: Stat {
            average_concurrent_requests: requests,
            request_count: requests,
            in_flight: Some(requests as u32),
            ..Stat::default()
        },
    }
}

fn poke(revision: Key) -> Report {
    Report::Poke {
        revision,
        source: gateway(),
    }
}

/// The recording of 30 requests at once for a minute, target 10 at 70 %, a window of 20 s: 1 → 5, then after
/// the end 5 → 4 → 3 → 1 → 0, each in its second. Ours begins a second earlier, with the first report.
#[test]
fn follows_the_recorded_load() {
    let mut set = DeciderSet::default();
    let mut ready = 1;
    set.ensure(&key(), request(-1.0, 20, 7.0, ready), at(1));
    let mut steps = Vec::new();
    for second in 2..=95_u64 {
        // The load begins at 5.1 s and ends within second 66; a second's report arrives at its end.
        let reported = match second {
            6 => Some(27.0),
            7..=65 => Some(30.0),
            66 => Some(14.0),
            67 => Some(0.0),
            _ => None,
        };
        let mut woken: Vec<Key> = reported
            .and_then(|requests| set.report(load(requests), at(second)))
            .into_iter()
            .collect();
        woken.extend(set.second(at(second)));
        for key in woken {
            let desired = set
                .desired_scale(&key)
                .and_then(|desired_scale| desired_scale.desired)
                .unwrap();
            steps.push((second, desired));
            // Pods follow within the second; the last one stays for the handshake.
            ready = desired.max(1);
            set.ensure(&key, request(-1.0, 20, 7.0, ready), at(second));
        }
    }
    let desired: Vec<u32> = steps.iter().map(|step| step.1).collect();
    assert_eq!(desired, [0, 4, 5, 4, 3, 1, 0], "{steps:?}");
    assert_eq!(
        (steps[1].0, steps[2].0),
        (6, 7),
        "the burst is seen with its first report"
    );
    assert!((67..=69).contains(&steps[3].0), "{steps:?}");
    assert!((83..=85).contains(&steps[4].0), "{steps:?}");
    assert!(
        (87..=89).contains(&steps[6].0),
        "one window after the end: {steps:?}"
    );
}

#[test]
fn a_poke_is_decided_at_once() {
    let mut set = DeciderSet::default();
    set.ensure(&key(), request(211.0, 60, 70.0, 1), at(0));
    for second in 1..=10 {
        set.second(at(second));
    }
    set.ensure(&key(), request(211.0, 60, 70.0, 0), at(10));
    assert_eq!(set.desired_scale(&key()).unwrap().desired, Some(0));
    let moment = Moment::new(Duration::from_millis(11_300));
    assert_eq!(set.report(poke(key()), moment), Some(key()));
    assert_eq!(set.desired_scale(&key()).unwrap().desired, Some(1));
    assert_eq!(set.report(poke(key()), moment), None, "once is enough");
}

#[test]
fn demand_counts_for_a_whole_window_after_the_last_request() {
    let mut set = DeciderSet::default();
    set.ensure(&key(), request(211.0, 60, 70.0, 0), at(0));
    set.report(poke(key()), at(0));
    set.ensure(&key(), request(211.0, 60, 70.0, 1), at(0));
    let mut slept = None;
    for second in 1..=90 {
        if second == 1 {
            set.report(load(0.0), at(second));
        }
        set.second(at(second));
        if slept.is_none() && set.desired_scale(&key()).unwrap().desired == Some(0) {
            slept = Some(second);
        }
    }
    assert_eq!(slept, Some(60));
}

#[test]
fn load_on_a_sleeping_revision_wakes_it_without_a_poke() {
    let mut set = DeciderSet::default();
    set.ensure(&key(), request(211.0, 6, 70.0, 1), at(0));
    for second in 1..=10 {
        set.second(at(second));
    }
    assert_eq!(set.desired_scale(&key()).unwrap().desired, Some(0));
    assert_eq!(set.report(load(0.0), at(11)), None);
    assert_eq!(set.report(load(3.0), at(11)), Some(key()));
    assert_eq!(set.desired_scale(&key()).unwrap().desired, Some(1));
}

#[test]
fn a_poke_before_its_autoscaler_is_kept_for_a_while() {
    let mut set = DeciderSet::default();
    // It is looked at before thousands of others that nobody waits for, and once.
    assert_eq!(set.report(poke(key()), at(5)), Some(key()));
    assert_eq!(set.report(poke(key()), at(5)), None);
    // Its PodAutoscaler is not there yet.
    set.remove(&key());
    assert_eq!(
        set.ensure(&key(), request(211.0, 60, 70.0, 0), at(6))
            .desired,
        Some(1)
    );
    let other = Key::new("load", "late");
    set.report(poke(other.clone()), at(5));
    assert_eq!(
        set.ensure(&other, request(211.0, 60, 70.0, 0), at(99))
            .desired,
        None
    );
}

#[test]
fn early_pokes_are_bounded() {
    let mut set = DeciderSet::default();
    for number in 0..EARLY_POKES_MAX + 100 {
        set.report(
            poke(Key::new("load", format!("r{number}"))),
            at(number as u64 / 1000),
        );
    }
    assert_eq!(set.early.len(), EARLY_POKES_MAX);
}

#[test]
fn what_was_counted_ahead_is_not_counted_again() {
    let mut set = DeciderSet::default();
    set.ensure(&key(), request(211.0, 60, 0.7, 0), at(0));
    set.report(poke(key()), at(1));
    set.report(load(1.0), at(1));
    set.second(at(1));
    set.second(at(2));
    assert_eq!(
        set.desired_scale(&key()).unwrap().desired,
        Some(2),
        "one request at a target of 0.7, not two of them"
    );
}

#[test]
fn a_report_that_slips_into_the_next_second_is_no_gap() {
    let mut set = DeciderSet::default();
    set.ensure(&key(), request(211.0, 6, 1.0, 4), at(0));
    for second in 1..=20 {
        // Two reports in even seconds, none in odd ones.
        if second % 2 == 0 {
            set.report(load(4.0), at(second));
            set.report(load(4.0), at(second));
        }
        set.second(at(second));
        if second > 8 {
            assert_eq!(
                set.desired_scale(&key()).unwrap().desired,
                Some(4),
                "at {second}"
            );
        }
    }
}

#[test]
fn a_silent_gateway_is_not_believed_for_ever() {
    let mut set = DeciderSet::default();
    set.ensure(&key(), request(211.0, 6, 1.0, 1), at(0));
    set.report(load(1.0), at(1));
    for second in 1..=30 {
        set.second(at(second));
    }
    assert_eq!(set.desired_scale(&key()).unwrap().desired, Some(0));
}

#[test]
fn nothing_measured_is_no_wish() {
    let mut set = DeciderSet::default();
    set.ensure(&key(), request(211.0, 60, 70.0, 0), at(0));
    for second in 1..=10 {
        assert!(set.second(at(second)).is_empty());
    }
    assert_eq!(set.desired_scale(&key()).unwrap().desired, None);
}

#[test]
fn burst_capacity_turning_negative_is_told() {
    let mut set = DeciderSet::default();
    set.ensure(&key(), request(10.0, 60, 70.0, 1), at(0));
    assert_eq!(set.desired_scale(&key()).unwrap().excess_burst_capacity, 90);
    for second in 1..=3 {
        set.report(load(60.0), at(second));
        set.second(at(second));
    }
    assert!(set.desired_scale(&key()).unwrap().excess_burst_capacity >= 0);
    let mut told = false;
    for second in 4..=12 {
        set.report(load(95.0), at(second));
        told |= !set.second(at(second)).is_empty();
    }
    assert!(told && set.desired_scale(&key()).unwrap().excess_burst_capacity < 0);
}

#[test]
fn two_activators_are_as_one_with_all_the_load() {
    let mut set = DeciderSet::default();
    set.ensure(&key(), request(211.0, 6, 1.0, 4), at(0));
    for second in 1..=20 {
        set.report(load_of(Source::itself("activator-1"), 3.0), at(second));
        // The other one's reports slip: two in even seconds, none in odd ones.
        if second % 2 == 0 {
            set.report(load_of(Source::itself("activator-2"), 1.0), at(second));
            set.report(load_of(Source::itself("activator-2"), 1.0), at(second));
        }
        set.second(at(second));
        if second > 8 {
            let desired = set.desired_scale(&key()).unwrap().desired;
            assert_eq!(desired, Some(4), "at {second}");
        }
    }
    // One ends: what it said is not believed on, and the other's requests are what is left.
    set.report(
        Report::Gone {
            reporter: "activator-2".into(),
        },
        at(20),
    );
    for second in 21..=40 {
        set.report(load_of(Source::itself("activator-1"), 3.0), at(second));
        set.second(at(second));
    }
    assert_eq!(set.desired_scale(&key()).unwrap().desired, Some(3));
}

#[test]
fn pokes_of_two_activators_are_two_requests() {
    let mut set = DeciderSet::default();
    set.ensure(&key(), request(211.0, 60, 1.0, 0), at(0));
    for activator in ["activator-1", "activator-2"] {
        let source = Source::itself(activator);
        set.report(
            Report::Poke {
                revision: key(),
                source: source.clone(),
            },
            at(1),
        );
        set.report(load_of(source, 1.0), at(1));
    }
    set.second(at(1));
    set.second(at(2));
    assert_eq!(set.desired_scale(&key()).unwrap().desired, Some(2));
}

#[test]
fn what_an_activator_counts_a_queue_proxy_does_not() {
    let mut set = DeciderSet::default();
    set.ensure(&key(), request(211.0, 6, 1.0, 3), at(0));
    for second in 1..=20 {
        set.report(load_of(Source::itself("activator"), 3.0), at(second));
        let stat = Stat {
            average_concurrent_requests: 5.0,
            average_proxied_concurrent_requests: 3.0,
            request_count: 5.0,
            proxied_request_count: 3.0,
            process_uptime: 10.0,
            in_flight: None,
        };
        set.report(
            Report::Stat {
                revision: key(),
                source: Source {
                    reporter: "service-scraper".into(),
                    pod: "service-scraper".into(),
                },
                stat,
            },
            at(second),
        );
        set.second(at(second));
    }
    assert_eq!(set.desired_scale(&key()).unwrap().desired, Some(5));
}

#[test]
fn reporters_are_bounded() {
    let mut set = DeciderSet::default();
    set.ensure(&key(), request(211.0, 6, 1.0, 1), at(0));
    for number in 0..1000 {
        let source = Source::itself(format!("activator-{number}"));
        set.report(load_of(source, 1.0), at(1));
    }
    set.second(at(1));
    set.second(at(2));
    let desired = set.desired_scale(&key()).unwrap().desired.unwrap();
    assert!((1..=256).contains(&desired), "{desired}");
}

proptest::proptest! {
    /// However a load is spread over reporters, in this process or in others, the decision is that of one reporter.
    #[test]
    fn spread_load_is_decided_as_whole_load(
        load in 1_u32..400,
        cuts in proptest::collection::vec((1_u32..100, proptest::bool::ANY), 1..6),
        target in 1_u32..100,
    ) {
        let all: u32 = cuts.iter().map(|(part, _)| part).sum();
        let request = request(211.0, 10, f64::from(target), 3);
        let mut sets = [DeciderSet::default(), DeciderSet::default()];
        for set in &mut sets {
            set.ensure(&key(), request, at(0));
        }
        for second in 1..=24 {
            sets[0].report(load_of(gateway(), f64::from(load)), at(second));
            for (number, (part, here)) in cuts.iter().enumerate() {
                let source = Source::itself(format!("activator-{number}"));
                let requests = f64::from(load) * f64::from(*part) / f64::from(all);
                let stat = Stat {
                    average_concurrent_requests: requests,
                    request_count: requests,
                    in_flight: here.then_some(requests.ceil() as u32),
                    ..Stat::default()
                };
                sets[1].report(Report::Stat { revision: key(), source, stat }, at(second));
            }
            sets.iter_mut().for_each(|set| drop(set.second(at(second))));
            let desired = sets.each_ref().map(|set| set.desired_scale(&key()).unwrap().desired.unwrap_or(0));
            proptest::prop_assert!(desired[0].abs_diff(desired[1]) <= 1, "{desired:?} at {second}");
        }
    }
}
