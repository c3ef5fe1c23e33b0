//! Prometheus' text format, and the histogram that it shows: pure.

use std::fmt::Write as _;
use std::time::Duration;

/// Upper bounds of the buckets in seconds, as Knative's queue-proxy and OpenTelemetry's HTTP instruments have them.
const BOUNDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// Durations by bucket.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Histogram {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    pub(super) fn record(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        if let Some(at) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            self.buckets[at] += 1;
        }
        self.count += 1;
        self.sum += seconds;
    }
}

/// Labels of one series.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A page being written.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    /// Begins a metric: `kind` is `counter`, `gauge` or `histogram`.
    pub(super) fn metric(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(super) fn sample(&mut self, name: &str, labels: Labels<'_>, value: f64) {
        self.0.push_str(name);
        self.labels(labels, None);
        let _ = writeln!(self.0, " {value}");
    }

    pub(super) fn histogram(&mut self, name: &str, labels: Labels<'_>, histogram: &Histogram) {
        let mut below = 0;
        for (bound, count) in BOUNDS.iter().zip(histogram.buckets) {
            below += count;
            self.bucket(name, labels, &bound.to_string(), below);
        }
        self.bucket(name, labels, "+Inf", histogram.count);
        self.sample(&format!("{name}_sum"), labels, histogram.sum);
        let _ = write!(self.0, "{name}_count");
        self.labels(labels, None);
        let _ = writeln!(self.0, " {}", histogram.count);
    }

    fn bucket(&mut self, name: &str, labels: Labels<'_>, bound: &str, count: u64) {
        let _ = write!(self.0, "{name}_bucket");
        self.labels(labels, Some(bound));
        let _ = writeln!(self.0, " {count}");
    }

    fn labels(&mut self, labels: Labels<'_>, bound: Option<&str>) {
        let bound = bound.map(|bound| ("le", bound));
        let mut begun = false;
        for (name, value) in labels.iter().copied().chain(bound) {
            self.0.push(if begun { ',' } else { '{' });
            begun = true;
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let _ = write!(self.0, "{name}=\"{value}\"");
        }
        if begun {
            self.0.push('}');
        }
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_as_prometheus_reads_it() {
        let mut histogram = Histogram::default();
        for milliseconds in [1, 5, 30, 20_000] {
            histogram.record(Duration::from_millis(milliseconds));
        }
        let mut page = Page::default();
        page.metric("up", "gauge", "Whether it is.");
        page.sample("up", &[], 1.0);
        page.sample("odd", &[("a", "b\"c\\d\n"), ("e", "f")], 0.5);
        page.histogram("took_seconds", &[("code", "200")], &histogram);
        let text = page.finish();
        for line in [
            "# HELP up Whether it is.",
            "# TYPE up gauge",
            "up 1",
            r#"odd{a="b\"c\\d\n",e="f"} 0.5"#,
            r#"took_seconds_bucket{code="200",le="0.005"} 2"#,
            r#"took_seconds_bucket{code="200",le="0.05"} 3"#,
            r#"took_seconds_bucket{code="200",le="10"} 3"#,
            r#"took_seconds_bucket{code="200",le="+Inf"} 4"#,
            r#"took_seconds_count{code="200"} 4"#,
        ] {
            assert!(text.lines().any(|one| one == line), "{line}: {text}");
        }
        assert!(
            text.contains("took_seconds_sum{code=\"200\"} 20.036"),
            "{text}"
        );
    }
}
