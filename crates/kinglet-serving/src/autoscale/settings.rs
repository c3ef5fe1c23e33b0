//! What one PodAutoscaler is told: its annotations over the cluster's ConfigMaps.
//!
//! Values that admission would refuse (edited around it) are treated as absent, not as errors: a revision must
//! keep its scale when somebody breaks an annotation.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kinglet_api::autoscaling::{PodAutoscaler, Reachability};
use kinglet_api::go::{self, GoDuration};
use kinglet_api::keys::{self, Priority};
use kinglet_decide::scale::Policy;
use kinglet_decide::scale::target::{self, Metric, TargetFacts};
use kinglet_decide::scale::window::Weighting;
use kinglet_reconcile::{Kit, name_of, namespace_of};

use super::board::Wanted;

/// Namespace of the ConfigMaps.
const SYSTEM_NAMESPACE: &str = "knative-serving";
const AUTOSCALER: &str = "config-autoscaler";
const DEPLOYMENT: &str = "config-deployment";

/// Whether a ConfigMap has a say in scaling.
pub fn concerns(map: &ConfigMap) -> bool {
    namespace_of(map) == SYSTEM_NAMESPACE && matches!(name_of(map), AUTOSCALER | DEPLOYMENT)
}

/// The cluster's settings, with Knative's defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// `container-concurrency-target-percentage`, as a fraction.
    pub utilization: f64,
    /// `container-concurrency-target-default`.
    pub concurrency_default: f64,
    /// `requests-per-second-target-default`.
    pub rps_default: f64,
    /// `target-burst-capacity`.
    pub target_burst_capacity: f64,
    /// `activator-capacity`.
    pub activator_capacity: f64,
    /// `max-scale-up-rate`.
    pub max_up_rate: f64,
    /// `max-scale-down-rate`.
    pub max_down_rate: f64,
    /// `stable-window`.
    pub stable_window: Duration,
    /// `panic-window-percentage`.
    pub panic_window_percentage: f64,
    /// `panic-threshold-percentage`.
    pub panic_threshold_percentage: f64,
    /// `enable-scale-to-zero`.
    pub scale_to_zero: bool,
    /// `scale-to-zero-grace-period`.
    pub grace: Duration,
    /// `scale-to-zero-pod-retention-period`.
    pub retention: Duration,
    /// `scale-down-delay`.
    pub scale_down_delay: Duration,
    /// `allow-zero-initial-scale`.
    pub allow_zero_initial_scale: bool,
    /// `initial-scale`.
    pub initial_scale: u32,
    /// `min-scale`.
    pub min_scale: u32,
    /// `max-scale`; 0 means unlimited.
    pub max_scale: u32,
    /// `progress-deadline` of `config-deployment`.
    pub progress_deadline: Duration,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            utilization: 0.7,
            concurrency_default: 100.0,
            rps_default: 200.0,
            target_burst_capacity: 211.0,
            activator_capacity: 100.0,
            max_up_rate: 1000.0,
            max_down_rate: 2.0,
            stable_window: Duration::from_secs(60),
            panic_window_percentage: 10.0,
            panic_threshold_percentage: 200.0,
            scale_to_zero: true,
            grace: Duration::from_secs(30),
            retention: Duration::ZERO,
            scale_down_delay: Duration::ZERO,
            allow_zero_initial_scale: false,
            initial_scale: 1,
            min_scale: 0,
            max_scale: 0,
            progress_deadline: Duration::from_secs(600),
        }
    }
}

/// The settings of the moment.
pub fn cluster(kit: &Kit) -> Cluster {
    let maps = kit.cache::<ConfigMap>();
    let data = |name| maps.get(SYSTEM_NAMESPACE, name).and_then(|map| map.data.clone()).unwrap_or_default();
    Cluster::read(&data(AUTOSCALER), &data(DEPLOYMENT))
}

impl Cluster {
    fn read(autoscaler: &BTreeMap<String, String>, deployment: &BTreeMap<String, String>) -> Self {
        let default = Self::default();
        let text = |key: &str| autoscaler.get(key).map(String::as_str);
        let number = |key, or| text(key).and_then(float).unwrap_or(or);
        let span = |key, or| text(key).and_then(duration).unwrap_or(or);
        let truth = |key, or| text(key).and_then(|text| go::parse_bool(text).ok()).unwrap_or(or);
        let pods = |key, or| text(key).and_then(count).unwrap_or(or);
        let utilization = number("container-concurrency-target-percentage", default.utilization);
        Self {
            utilization: if utilization > 1.0 { utilization / 100.0 } else { utilization },
            concurrency_default: number("container-concurrency-target-default", default.concurrency_default),
            rps_default: number("requests-per-second-target-default", default.rps_default),
            target_burst_capacity: number("target-burst-capacity", default.target_burst_capacity),
            activator_capacity: number("activator-capacity", default.activator_capacity),
            max_up_rate: number("max-scale-up-rate", default.max_up_rate),
            max_down_rate: number("max-scale-down-rate", default.max_down_rate),
            stable_window: span("stable-window", default.stable_window),
            panic_window_percentage: number("panic-window-percentage", default.panic_window_percentage),
            panic_threshold_percentage: number("panic-threshold-percentage", default.panic_threshold_percentage),
            scale_to_zero: truth("enable-scale-to-zero", default.scale_to_zero),
            grace: span("scale-to-zero-grace-period", default.grace),
            retention: span("scale-to-zero-pod-retention-period", default.retention),
            scale_down_delay: span("scale-down-delay", default.scale_down_delay),
            allow_zero_initial_scale: truth("allow-zero-initial-scale", default.allow_zero_initial_scale),
            initial_scale: pods("initial-scale", default.initial_scale),
            min_scale: pods("min-scale", default.min_scale),
            max_scale: pods("max-scale", default.max_scale),
            progress_deadline: deployment
                .get("progress-deadline")
                .and_then(|text| duration(text))
                .unwrap_or(default.progress_deadline),
        }
    }
}

/// Everything that is configured for one PodAutoscaler.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How the autoscaler decides.
    pub policy: Policy,
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
        Self::of(&PodAutoscaler::default(), &Cluster::default())
    }
}

impl Settings {
    /// The settings of one PodAutoscaler.
    pub fn of(owner: &PodAutoscaler, cluster: &Cluster) -> Self {
        let annotations = owner.metadata.annotations.as_ref();
        let text = |key: Priority| key.get(annotations);
        let number = |key| text(key).and_then(float);
        let span = |key| text(key).and_then(duration);
        let pods = |key| text(key).and_then(count);

        let metric = match owner.annotation(keys::AUTOSCALING_METRIC) {
            Some("rps") => Metric::Rps,
            _ => Metric::Concurrency,
        };
        let stable_window = span(keys::WINDOW).unwrap_or(cluster.stable_window).max(Duration::from_secs(1));
        let percentage = number(keys::PANIC_WINDOW_PERCENTAGE).unwrap_or(cluster.panic_window_percentage);
        let load = target::resolve(&TargetFacts {
            metric,
            container_concurrency: u32::try_from(owner.spec.container_concurrency).unwrap_or(0),
            concurrency_default: cluster.concurrency_default,
            concurrency_utilization: cluster.utilization,
            rps_default: cluster.rps_default,
            target: number(keys::TARGET),
            utilization: number(keys::TARGET_UTILIZATION_PERCENTAGE).map(|percent| percent / 100.0),
        });
        let initial_scale = pods(keys::INITIAL_SCALE).filter(|scale| *scale > 0 || cluster.allow_zero_initial_scale);
        let threshold = number(keys::PANIC_THRESHOLD_PERCENTAGE).unwrap_or(cluster.panic_threshold_percentage);
        Self {
            policy: Policy {
                max_up_rate: cluster.max_up_rate,
                max_down_rate: cluster.max_down_rate,
                target: load.target,
                total: load.total,
                target_burst_capacity: number(keys::TARGET_BURST_CAPACITY).unwrap_or(cluster.target_burst_capacity),
                panic_threshold: threshold / 100.0,
                stable_window,
                scale_down_delay: span(keys::SCALE_DOWN_DELAY).unwrap_or(cluster.scale_down_delay),
                initial_scale: initial_scale.unwrap_or(cluster.initial_scale),
                activation_scale: pods(keys::ACTIVATION_SCALE).unwrap_or(0),
                reachable: owner.spec.reachability != Reachability::Unreachable,
            },
            metric,
            weighting: text(keys::METRIC_AGGREGATION_ALGORITHM).and_then(Weighting::parse).unwrap_or_default(),
            stable_window,
            panic_window: target::panic_window(stable_window, percentage),
            min_scale: pods(keys::MIN_SCALE).unwrap_or(cluster.min_scale),
            max_scale: pods(keys::MAX_SCALE).unwrap_or(cluster.max_scale),
            scale_to_zero: cluster.scale_to_zero,
            grace: cluster.grace,
            retention: span(keys::SCALE_TO_ZERO_POD_RETENTION_PERIOD).unwrap_or(cluster.retention),
            progress_deadline: owner
                .annotation(keys::PROGRESS_DEADLINE)
                .and_then(duration)
                .unwrap_or(cluster.progress_deadline),
            activator_capacity: cluster.activator_capacity,
        }
    }

    /// Whether the gateway stays in the path for good.
    pub fn always_buffered(&self) -> bool {
        self.policy.target_burst_capacity < 0.0
    }

    /// What the board is asked to do, with so many pods ready.
    pub fn wanted(&self, ready: u32) -> Wanted {
        let seconds = |window: Duration| u32::try_from(window.as_secs()).unwrap_or(u32::MAX);
        Wanted {
            policy: self.policy,
            metric: self.metric,
            weighting: self.weighting,
            stable_s: seconds(self.stable_window),
            panic_s: seconds(self.panic_window),
            ready,
        }
    }
}

fn float(text: &str) -> Option<f64> {
    go::parse_float(text).ok().filter(|value| value.is_finite())
}

fn count(text: &str) -> Option<u32> {
    go::parse_int(text, 32).ok().and_then(|value| u32::try_from(value).ok())
}

fn duration(text: &str) -> Option<Duration> {
    GoDuration::parse(text).ok().filter(|value| value.0 >= 0).map(GoDuration::to_std)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotated(pairs: &[(&str, &str)]) -> PodAutoscaler {
        let mut owner = PodAutoscaler::default();
        owner.metadata.annotations =
            Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect());
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
        let settings = Settings::of(&owner, &Cluster::default());
        assert_eq!((settings.policy.target, settings.policy.total), (7.0, 10.0));
        assert_eq!((settings.stable_window.as_secs(), settings.panic_window.as_secs()), (20, 2));
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
        assert_eq!(Settings::of(&owner, &Cluster::default()), Settings::default());
    }

    #[test]
    fn initial_scale_zero_where_it_is_allowed() {
        let owner = annotated(&[("autoscaling.knative.dev/initial-scale", "0")]);
        let cluster = Cluster { allow_zero_initial_scale: true, ..Cluster::default() };
        assert_eq!(Settings::of(&owner, &cluster).policy.initial_scale, 0);
    }

    #[test]
    fn the_cluster_is_read_over_its_defaults() {
        let data = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(Cluster::read(&data(&[]), &data(&[])), Cluster::default());
        let read = Cluster::read(
            &data(&[("scale-to-zero-grace-period", "10s"), ("container-concurrency-target-percentage", "80")]),
            &data(&[("progress-deadline", "120s")]),
        );
        assert_eq!(read.grace.as_secs(), 10);
        assert_eq!(read.utilization, 0.8);
        assert_eq!(read.progress_deadline.as_secs(), 120);
    }
}
