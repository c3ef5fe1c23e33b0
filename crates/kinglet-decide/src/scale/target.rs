//! What one container should carry, and how long the windows are.

use std::time::Duration;

/// What is counted (annotation `metric`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Metric {
    /// Requests in flight.
    #[default]
    Concurrency,
    /// Requests per second.
    Rps,
}

/// Smallest target that is allowed.
pub const SMALLEST_TARGET: f64 = 0.01;

/// ScalingTarget utilisation of requests per second; not configurable in Knative.
pub const RPS_UTILIZATION: f64 = 0.7;

/// Facts that decide the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TargetSettings {
    /// What is counted.
    pub metric: Metric,
    /// `spec.containerConcurrency`; 0 means unlimited.
    pub container_concurrency: u32,
    /// `container-concurrency-target-default`.
    pub concurrency_default: f64,
    /// `container-concurrency-target-percentage`, as a fraction.
    pub concurrency_utilization: f64,
    /// `requests-per-second-target-default`.
    pub rps_default: f64,
    /// Annotation `target`.
    pub target: Option<f64>,
    /// Annotation `target-utilization-percentage`, as a fraction.
    pub utilization: Option<f64>,
}

/// What one container should carry, and what it could.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScalingTarget {
    /// What the autoscaler aims at.
    pub target: f64,
    /// What a container can take in all; burst capacity is counted in it.
    pub total: f64,
}

/// Resolves target and total of one revision.
pub fn resolve(settings: &TargetSettings) -> ScalingTarget {
    let limit = f64::from(settings.container_concurrency);
    let (default_total, default_utilization) = match settings.metric {
        Metric::Rps => (settings.rps_default, RPS_UTILIZATION),
        Metric::Concurrency if settings.container_concurrency == 0 => (
            settings.concurrency_default,
            settings.concurrency_utilization,
        ),
        Metric::Concurrency => (limit, settings.concurrency_utilization),
    };
    let total = match (settings.target, settings.metric) {
        (Some(target), Metric::Concurrency) if settings.container_concurrency != 0 => {
            target.min(limit)
        }
        (Some(target), Metric::Concurrency | Metric::Rps) => target,
        (None, Metric::Concurrency | Metric::Rps) => default_total,
    };
    let utilization = settings.utilization.unwrap_or(default_utilization);
    ScalingTarget {
        target: (total * utilization).max(SMALLEST_TARGET),
        total,
    }
}

/// Length of the panic window: `percentage` of the stable one, rounded to seconds, at least one.
pub fn panic_window(stable: Duration, percentage: f64) -> Duration {
    let seconds = (stable.as_secs_f64() * percentage / 100.0).round();
    if seconds.is_finite() && seconds >= 1.0 {
        Duration::try_from_secs_f64(seconds)
            .unwrap_or(stable)
            .min(stable.max(Duration::from_secs(1)))
    } else {
        Duration::from_secs(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_as_knative() {
        let rows = [
            (0, Metric::Concurrency, None, None, 70.0, 100.0),
            (10, Metric::Concurrency, None, None, 7.0, 10.0),
            (1, Metric::Concurrency, None, None, 0.7, 1.0),
            (10, Metric::Concurrency, Some(200.0), None, 7.0, 10.0),
            (10, Metric::Concurrency, Some(5.0), Some(1.0), 5.0, 5.0),
            (0, Metric::Rps, None, None, 140.0, 200.0),
            (10, Metric::Rps, Some(50.0), None, 35.0, 50.0),
        ];
        for (container_concurrency, metric, target, utilization, expected, total) in rows {
            let resolved = resolve(&TargetSettings {
                metric,
                container_concurrency,
                concurrency_default: 100.0,
                concurrency_utilization: 0.7,
                rps_default: 200.0,
                target,
                utilization,
            });
            assert!(
                (resolved.target - expected).abs() < 1e-9 && resolved.total == total,
                "{resolved:?}"
            );
        }
    }

    #[test]
    fn target_has_a_floor() {
        let settings = TargetSettings {
            metric: Metric::Concurrency,
            container_concurrency: 0,
            concurrency_default: 100.0,
            concurrency_utilization: 0.7,
            rps_default: 200.0,
            target: Some(0.01),
            utilization: Some(0.01),
        };
        assert_eq!(resolve(&settings).target, 0.01);
    }

    #[test]
    fn panic_windows_as_knative() {
        for (stable, percentage, expected) in [
            (60, 10.0, 6),
            (6, 10.0, 1),
            (30, 10.0, 3),
            (14, 10.0, 1),
            (15, 10.0, 2),
            (3600, 1.0, 36),
            (6, 100.0, 6),
            (60, 2.5, 2),
        ] {
            assert_eq!(
                panic_window(Duration::from_secs(stable), percentage),
                Duration::from_secs(expected)
            );
        }
    }
}
