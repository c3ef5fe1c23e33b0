//! What one PodAutoscaler is told: its annotations over the cluster's ConfigMaps.
//!
//! Values that admission would refuse (edited around it) are treated as absent, not as errors: a revision must
//! keep its scale when somebody breaks an annotation.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kinglet_api::autoscaling::{PodAutoscaler, Reachability};
use kinglet_api::config::Configs;
use kinglet_api::go::{self, GoDuration};
use kinglet_api::keys::{self, Priority};
use kinglet_decide::scale::DeciderSpec;
use kinglet_decide::scale::target::{self, Metric, TargetSettings};
use kinglet_decide::scale::window::Weighting;
use kinglet_reconcile::name_of;

use super::decider_set::DeciderRequest;
use crate::configs;

/// Whether a ConfigMap has a say in scaling.
pub fn concerns(map: &ConfigMap) -> bool {
    configs::is_ours(map) && matches!(name_of(map), "config-autoscaler" | "config-deployment")
}

/// Everything that is configured for one PodAutoscaler.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How the autoscaler decides.
    pub policy: DeciderSpec,
    /// What is counted.
    pub metric: Metric,
    /// How seconds are weighed.
    pub weighting: Weighting,
    /// Stable window.
    pub stable_window: Duration,
    /// Panic window.
    pub panic_window: Duration,
    /// Fewest pods.
    pub min_scale: u32,
    /// Most pods; 0 means unlimited.
    pub max_scale: u32,
    /// Whether zero is allowed.
    pub scale_to_zero: bool,
    /// Wait between inactive and zero.
    pub grace: Duration,
    /// Least wait between inactive and zero.
    pub retention: Duration,
    /// How long an activation may take.
    pub progress_deadline: Duration,
    /// Requests one activator is planned for.
    pub activator_capacity: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self::of(&PodAutoscaler::default(), &Configs::default())
    }
}

impl Settings {
    /// The settings of one PodAutoscaler.
    pub fn of(owner: &PodAutoscaler, configs: &Configs) -> Self {
        let cluster = &configs.autoscaler;
        let annotations = owner.metadata.annotations.as_ref();
        let text = |key: Priority| key.get(annotations);
        let number = |key| text(key).and_then(float);
        let span = |key| text(key).and_then(duration);
        let pods = |key| text(key).and_then(count);

        let metric = match owner.annotation(keys::AUTOSCALING_METRIC) {
            Some("rps") => Metric::Rps,
            _ => Metric::Concurrency,
        };
        let stable_window = span(keys::WINDOW)
            .unwrap_or(cluster.stable_window)
            .max(Duration::from_secs(1));
        let percentage =
            number(keys::PANIC_WINDOW_PERCENTAGE).unwrap_or(cluster.panic_window_percentage);
        let load = target::resolve(&TargetSettings {
            metric,
            container_concurrency: u32::try_from(owner.spec.container_concurrency).unwrap_or(0),
            concurrency_default: cluster.container_concurrency_target_default,
            concurrency_utilization: cluster.container_concurrency_target_fraction,
            rps_default: cluster.requests_per_second_target_default,
            target: number(keys::TARGET),
            utilization: number(keys::TARGET_UTILIZATION_PERCENTAGE).map(|percent| percent / 100.0),
        });
        let initial_scale = pods(keys::INITIAL_SCALE)
            .filter(|scale| *scale > 0 || cluster.allow_zero_initial_scale);
        let threshold =
            number(keys::PANIC_THRESHOLD_PERCENTAGE).unwrap_or(cluster.panic_threshold_percentage);
        Self {
            policy: DeciderSpec {
                max_up_rate: cluster.max_scale_up_rate,
                max_down_rate: cluster.max_scale_down_rate,
                target: load.target,
                total: load.total,
                target_burst_capacity: number(keys::TARGET_BURST_CAPACITY)
                    .unwrap_or(cluster.target_burst_capacity),
                panic_threshold: threshold / 100.0,
                stable_window,
                scale_down_delay: span(keys::SCALE_DOWN_DELAY).unwrap_or(cluster.scale_down_delay),
                initial_scale: initial_scale
                    .unwrap_or_else(|| at_least_zero(cluster.initial_scale)),
                activation_scale: pods(keys::ACTIVATION_SCALE).unwrap_or(0),
                reachable: owner.spec.reachability != Reachability::Unreachable,
            },
            metric,
            weighting: text(keys::METRIC_AGGREGATION_ALGORITHM)
                .and_then(Weighting::parse)
                .unwrap_or_default(),
            stable_window,
            panic_window: target::panic_window(stable_window, percentage),
            min_scale: pods(keys::MIN_SCALE).unwrap_or_else(|| at_least_zero(cluster.min_scale)),
            max_scale: pods(keys::MAX_SCALE).unwrap_or_else(|| at_least_zero(cluster.max_scale)),
            scale_to_zero: cluster.enable_scale_to_zero,
            grace: cluster.scale_to_zero_grace_period,
            retention: span(keys::SCALE_TO_ZERO_POD_RETENTION_PERIOD)
                .unwrap_or(cluster.scale_to_zero_pod_retention_period),
            progress_deadline: owner
                .annotation(keys::PROGRESS_DEADLINE)
                .and_then(duration)
                .unwrap_or(configs.deployment.progress_deadline),
            activator_capacity: cluster.activator_capacity,
        }
    }

    /// Whether the gateway stays in the path for good.
    pub fn always_buffered(&self) -> bool {
        self.policy.target_burst_capacity < 0.0
    }

    /// What the set is asked to do, with so many pods ready.
    pub fn request(&self, ready: u32) -> DeciderRequest {
        let seconds = |window: Duration| u32::try_from(window.as_secs()).unwrap_or(u32::MAX);
        DeciderRequest {
            policy: self.policy,
            metric: self.metric,
            weighting: self.weighting,
            stable_s: seconds(self.stable_window),
            panic_s: seconds(self.panic_window),
            ready,
        }
    }
}

fn at_least_zero(scale: i32) -> u32 {
    u32::try_from(scale).unwrap_or(0)
}

fn float(text: &str) -> Option<f64> {
    go::parse_float(text).ok().filter(|value| value.is_finite())
}

fn count(text: &str) -> Option<u32> {
    go::parse_int(text, 32)
        .ok()
        .and_then(|value| u32::try_from(value).ok())
}

fn duration(text: &str) -> Option<Duration> {
    GoDuration::parse(text)
        .ok()
        .filter(|value| value.0 >= 0)
        .map(GoDuration::to_std)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotated(pairs: &[(&str, &str)]) -> PodAutoscaler {
        let mut owner = PodAutoscaler::default();
        owner.metadata.annotations = Some(
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        );
        owner
    }

    #[test]
    fn annotations_win_over_the_cluster() {
        let owner = annotated(&[
            ("autoscaling.knative.dev/target", "10"),
            ("autoscaling.knative.dev/window", "20s"),
            ("autoscaling.knative.dev/minScale", "2"),
            ("autoscaling.knative.dev/target-burst-capacity", "-1"),
            ("serving.knative.dev/progress-deadline", "30s"),
        ]);
        let settings = Settings::of(&owner, &Configs::default());
        assert_eq!((settings.policy.target, settings.policy.total), (7.0, 10.0));
        assert_eq!(
            (
                settings.stable_window.as_secs(),
                settings.panic_window.as_secs()
            ),
            (20, 2)
        );
        assert_eq!(settings.min_scale, 2);
        assert!(settings.always_buffered());
        assert_eq!(settings.progress_deadline.as_secs(), 30);
    }

    #[test]
    fn broken_annotations_count_as_absent() {
        let owner = annotated(&[
            ("autoscaling.knative.dev/target", "much"),
            ("autoscaling.knative.dev/window", "-5s"),
            ("autoscaling.knative.dev/max-scale", "-1"),
            ("autoscaling.knative.dev/initial-scale", "0"),
        ]);
        assert_eq!(
            Settings::of(&owner, &Configs::default()),
            Settings::default()
        );
    }

    #[test]
    fn initial_scale_zero_where_it_is_allowed() {
        let owner = annotated(&[("autoscaling.knative.dev/initial-scale", "0")]);
        let mut configs = Configs::default();
        configs.autoscaler.allow_zero_initial_scale = true;
        assert_eq!(Settings::of(&owner, &configs).policy.initial_scale, 0);
    }
}
