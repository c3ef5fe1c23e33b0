//! Averages over the last seconds: Knative's linear and weighted-exponential windows.
//!
//! One bucket per second. Values that land in the same second add up (several reporters, one sum).
//! The linear average divides by the time since the first write, not by the length of the window, so
//! a new revision's demand is not diluted; a silent source keeps its last average until it ages out.

/// How a window weighs its seconds (annotation `metric-aggregation-algorithm`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Weighting {
    /// Every second counts the same.
    #[default]
    Linear,
    /// Recent seconds count more.
    Exponential,
}

impl Weighting {
    /// Reads the annotation's value; `None` for a value Knative does not know.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "linear" => Some(Self::Linear),
            "weighted-exponential" | "weightedExponential" => Some(Self::Exponential),
            _ => None,
        }
    }
}

/// Longest window that is allowed (annotation `window`: one hour), in seconds.
pub const LONGEST_WINDOW_S: u32 = 3600;

/// First and last second that hold data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: u64,
    last: u64,
}

/// Sums per second over a bounded time.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    weighting: Weighting,
    smoothing: f64,
    /// Value of second `t` at `t % len`; valid for the last `len` seconds up to `span.last`.
    buckets: Vec<f64>,
    span: Option<Span>,
}

impl Window {
    /// A window over `seconds` (at least one, at most [`LONGEST_WINDOW_S`]).
    pub fn new(weighting: Weighting, seconds: u32) -> Self {
        let count = clamp_seconds(seconds);
        Self {
            weighting,
            smoothing: smoothing(count),
            buckets: vec![0.0; count as usize],
            span: None,
        }
    }

    /// Length in seconds.
    pub fn seconds(&self) -> u32 {
        u32::try_from(self.buckets.len()).unwrap_or(LONGEST_WINDOW_S)
    }

    /// Adds `value` to second `second`. What is older than the window, negative or not finite is ignored.
    pub fn record(&mut self, second: u64, value: f64) {
        if !value.is_finite() || value < 0.0 {
            return;
        }
        let length = self.length();
        let span = match self.span {
            None => {
                self.buckets.fill(0.0);
                Span {
                    first: second,
                    last: second,
                }
            }
            Some(Span { last, .. }) if second >= last + length => {
                self.buckets.fill(0.0);
                Span {
                    first: second,
                    last: second,
                }
            }
            Some(Span { first, last }) if second > last => {
                for gap in last + 1..=second {
                    *self.bucket_mut(gap) = 0.0;
                }
                Span {
                    first,
                    last: second,
                }
            }
            Some(Span { last, .. }) if second + length <= last => return,
            Some(Span { first, last }) => Span {
                first: first.min(second),
                last,
            },
        };
        self.span = Some(span);
        *self.bucket_mut(second) += value;
    }

    /// Whether nothing was recorded within the window before `now`.
    pub fn is_empty(&self, now: u64) -> bool {
        self.span
            .is_none_or(|span| now.saturating_sub(span.last) > self.length())
    }

    /// The average at second `now`, rounded to six digits; zero when all data has aged out.
    pub fn average(&self, now: u64) -> f64 {
        let Some(span) = self.span else { return 0.0 };
        let lag = now.saturating_sub(span.last);
        if lag >= self.length() {
            return 0.0;
        }
        let still_inside = self.length() - lag;
        let average = match self.weighting {
            Weighting::Linear => {
                let count = (span.last - span.first + 1).min(still_inside);
                let sum: f64 = self.newest(span.last).take(index(still_inside)).sum();
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "a number of seconds, at most the window's length"
                )]
                let seconds = count as f64;
                sum / seconds
            }
            Weighting::Exponential => {
                let newest: Vec<f64> = self.newest(span.last).take(index(still_inside)).collect();
                exponential(self.smoothing, lag, newest)
            }
        };
        (average * 1e6).round() / 1e6
    }

    /// Changes the length and keeps the newest data that fits.
    pub fn resize(&mut self, seconds: u32) {
        let count = clamp_seconds(seconds);
        if count == self.seconds() {
            return;
        }
        let mut resized = Self::new(self.weighting, count);
        if let Some(Span { first, last }) = self.span {
            let kept = self.length().min(u64::from(count));
            let newest: Vec<f64> = self.newest(last).take(index(kept)).collect();
            for (age, value) in newest.into_iter().enumerate() {
                let Some(second) = last.checked_sub(age as u64) else {
                    break;
                };
                *resized.bucket_mut(second) = value;
            }
            resized.span = Some(Span {
                first: first.max(last.saturating_sub(self.length() - 1)),
                last,
            });
        }
        *self = resized;
    }

    fn length(&self) -> u64 {
        self.buckets.len() as u64
    }

    fn bucket_mut(&mut self, second: u64) -> &mut f64 {
        let at = index(second % self.length());
        &mut self.buckets[at]
    }

    /// Values from second `last` backwards.
    fn newest(&self, last: u64) -> impl Iterator<Item = f64> + '_ {
        let length = self.length();
        let start = last % length;
        (0..length).map(move |age| self.buckets[index((start + length - age) % length)])
    }
}

/// The weight of the newest second: at least 0.2, else such that the window holds 99.99 % of all weight.
pub fn smoothing(seconds: u32) -> f64 {
    (1.0 - 0.0001_f64.powf(1.0 / f64::from(seconds.max(1)))).max(0.2)
}

/// `values` newest first, the newest being `lag` seconds old. Not normalised for a half-filled window.
fn exponential(smoothing: f64, lag: u64, values: impl IntoIterator<Item = f64>) -> f64 {
    let retained = 1.0 - smoothing;
    let mut weight = smoothing * retained.powi(i32::try_from(lag).unwrap_or(i32::MAX));
    let mut sum = 0.0;
    for value in values {
        sum += value * weight;
        weight *= retained;
    }
    sum
}

fn clamp_seconds(seconds: u32) -> u32 {
    seconds.clamp(1, LONGEST_WINDOW_S)
}

fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// The stable and the panic window of one measured quantity.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowPair {
    /// Slow: decides in quiet times.
    pub stable: Window,
    /// Fast: notices a burst.
    pub panic: Window,
}

impl WindowPair {
    /// Two windows of the given lengths in seconds.
    pub fn new(weighting: Weighting, stable_s: u32, panic_s: u32) -> Self {
        Self {
            stable: Window::new(weighting, stable_s),
            panic: Window::new(weighting, panic_s),
        }
    }

    /// Adds `value` to both.
    pub fn record(&mut self, second: u64, value: f64) {
        self.stable.record(second, value);
        self.panic.record(second, value);
    }

    /// Changes both lengths.
    pub fn resize(&mut self, stable_s: u32, panic_s: u32) {
        self.stable.resize(stable_s);
        self.panic.resize(panic_s);
    }

    /// Averages (stable, panic), or `None` when the stable window holds no data.
    pub fn averages(&self, now: u64) -> Option<(f64, f64)> {
        (!self.stable.is_empty(now)).then(|| (self.stable.average(now), self.panic.average(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filled(weighting: Weighting, seconds: u32, records: &[(u64, f64)]) -> Window {
        let mut window = Window::new(weighting, seconds);
        for (second, value) in records {
            window.record(*second, *value);
        }
        window
    }

    #[test]
    fn linear_averages_as_knative() {
        let ten: Vec<(u64, f64)> = (0..10).map(|t| (t, 100.0)).collect();
        type Points<'a> = &'a [(u64, f64)];
        let rows: Vec<(u32, Points, Points)> = vec![
            (
                5,
                &[(0, 10.0), (1, 10.0), (2, 5.0), (3, 5.0)],
                &[
                    (3, 7.5),
                    (4, 7.5),
                    (5, 6.666_667),
                    (6, 5.0),
                    (7, 5.0),
                    (8, 0.0),
                ],
            ),
            (
                60,
                &ten,
                &[
                    (9, 100.0),
                    (15, 100.0),
                    (50, 100.0),
                    (60, 100.0),
                    (65, 100.0),
                    (68, 100.0),
                    (69, 0.0),
                ],
            ),
            (6, &ten, &[(9, 100.0), (12, 100.0), (14, 100.0), (15, 0.0)]),
            (60, &[(0, 100.0), (30, 100.0)], &[(30, 6.451_613)]),
            (60, &[(0, 100.0), (0, 50.0)], &[(0, 150.0)]),
        ];
        for (seconds, records, queries) in rows {
            let window = filled(Weighting::Linear, seconds, records);
            for (now, expected) in queries {
                assert_eq!(
                    window.average(*now),
                    *expected,
                    "window {seconds} s at {now}"
                );
            }
        }
    }

    #[test]
    fn empty_one_second_after_the_window() {
        let window = filled(Weighting::Linear, 5, &[(3, 5.0)]);
        assert!(!window.is_empty(8));
        assert!(window.is_empty(9));
        assert!(Window::new(Weighting::Linear, 5).is_empty(0));
    }

    #[test]
    fn late_values_count_while_they_fit_and_not_after() {
        let mut window = filled(Weighting::Linear, 5, &[(10, 4.0)]);
        window.record(8, 2.0);
        assert_eq!(
            window.average(10),
            2.0,
            "first write moves back: 6 over three seconds"
        );
        window.record(5, 100.0);
        assert_eq!(window.average(10), 2.0, "five seconds old is too old");
    }

    #[test]
    fn a_gap_is_zero_and_a_long_gap_starts_anew() {
        let mut window = filled(Weighting::Linear, 4, &[(0, 8.0), (2, 8.0)]);
        assert_eq!(window.average(2), 5.333_333);
        window.record(6, 8.0);
        assert_eq!(window.average(6), 8.0);
    }

    #[test]
    fn resizing_keeps_the_newest() {
        let mut window = filled(
            Weighting::Linear,
            5,
            &[(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0), (4, 5.0)],
        );
        window.resize(2);
        assert_eq!(window.average(4), 4.5);
        window.resize(10);
        assert_eq!(window.average(4), 4.5, "growing keeps what is there");
        window.record(5, 9.0);
        assert_eq!(window.average(5), 6.0);
    }

    #[test]
    fn smoothing_coefficients() {
        for (seconds, expected) in [
            (2, 0.99),
            (6, 0.784_557),
            (10, 0.601_893),
            (20, 0.369_043),
            (30, 0.264_358),
            (40, 0.205_672),
            (41, 0.201_198),
            (42, 0.2),
            (600, 0.2),
        ] {
            assert!(
                (smoothing(seconds) - expected).abs() < 1e-6,
                "{seconds} s: {}",
                smoothing(seconds)
            );
        }
    }

    #[test]
    fn exponential_averages_as_knative() {
        let close = |left: f64, right: f64| (left - right).abs() < 1e-6;
        assert!(close(exponential(0.6, 0, [5.0, 5.0, 10.0, 10.0]), 5.544));
        assert!(close(exponential(0.6, 0, [10.0, 10.0, 5.0, 5.0]), 9.072));
        let one = filled(Weighting::Exponential, 60, &[(0, 10.0)]);
        assert_eq!(one.average(0), 2.0);
        assert_eq!(one.average(1), 1.6);
        let full: Vec<(u64, f64)> = (0..60).map(|t| (t, 10.0)).collect();
        assert_eq!(
            filled(Weighting::Exponential, 60, &full).average(59),
            9.999_985
        );
        assert_eq!(
            filled(Weighting::Exponential, 6, &[(0, 10.0)]).average(0),
            7.845_565
        );
    }

    proptest! {
        #[test]
        fn averages_are_sane(
            seconds in 1_u32..80,
            exponential in any::<bool>(),
            records in prop::collection::vec((0_u64..300, 0.0_f64..1e6), 0..60),
            now in 0_u64..400,
        ) {
            let weighting = if exponential { Weighting::Exponential } else { Weighting::Linear };
            let window = filled(weighting, seconds, &records);
            let average = window.average(now);
            let total: f64 = records.iter().map(|record| record.1).sum();
            prop_assert!(average.is_finite() && average >= 0.0);
            prop_assert!(average <= total + 1e-6);
            let mut resized = window.clone();
            resized.resize(seconds + 7);
            resized.resize(seconds);
            prop_assert_eq!(resized.average(now), average, "growing and shrinking back loses nothing");
        }

        #[test]
        fn a_steady_value_is_its_own_average(seconds in 1_u32..80, value in 0.0_f64..1e6, length in 1_u64..200) {
            let mut window = Window::new(Weighting::Linear, seconds);
            for second in 0..length {
                window.record(second, value);
            }
            prop_assert!((window.average(length - 1) - value).abs() <= value * 1e-9 + 1e-6);
        }
    }
}
