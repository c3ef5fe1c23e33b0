//! `config-autoscaler`: how Revisions are scaled unless their annotations say otherwise.

use std::time::Duration;

use crate::go::GoDuration;
use crate::keys;

use super::{Data, read};

/// Least concurrency or rate that can be aimed at.
const TARGET_MIN: f64 = 0.01;
const WINDOW_MIN: GoDuration = GoDuration::from_secs(6);
const WINDOW_MAX: GoDuration = GoDuration::from_secs(3600);

/// `config-autoscaler`.
#[derive(Clone, Debug, PartialEq)]
pub struct Autoscaler {
    /// Class of autoscaler without an annotation.
    pub pod_autoscaler_class: String,
    /// Share of the concurrency limit that is aimed at, 0 to 1.
    pub container_concurrency_target_fraction: f64,
    /// Concurrency aimed at where there is no limit.
    pub container_concurrency_target_default: f64,
    /// Requests per second aimed at.
    pub requests_per_second_target_default: f64,
    /// Spare capacity below which the activator stays in the path; -1 means always.
    pub target_burst_capacity: f64,
    /// Requests one activator can hold.
    pub activator_capacity: f64,
    /// Most growth in one step, as a factor.
    pub max_scale_up_rate: f64,
    /// Most shrinking in one step, as a factor.
    pub max_scale_down_rate: f64,
    /// Window of the stable average.
    pub stable_window: Duration,
    /// Panic window, in percent of the stable one.
    pub panic_window_percentage: f64,
    /// Load, in percent of the target, at which panic begins.
    pub panic_threshold_percentage: f64,
    /// Whether the last pod may go.
    pub enable_scale_to_zero: bool,
    /// How long pods stay while traffic is moved to the activator.
    pub scale_to_zero_grace_period: Duration,
    /// How long the last pod stays at least.
    pub scale_to_zero_pod_retention_period: Duration,
    /// How long a lower load must last.
    pub scale_down_delay: Duration,
    /// Whether a Revision may start with no pod.
    pub allow_zero_initial_scale: bool,
    /// Pods that must have been ready once.
    pub initial_scale: i32,
    /// Fewest pods.
    pub min_scale: i32,
    /// Most pods; 0 means any number.
    pub max_scale: i32,
    /// Most that a Revision may allow itself; 0 means any number.
    pub max_scale_limit: i32,
}

impl Default for Autoscaler {
    fn default() -> Self {
        Self::parse(&Data::new()).expect("the defaults are valid")
    }
}

impl Autoscaler {
    /// Reads the map.
    pub fn parse(data: &Data) -> Result<Self, String> {
        let read = Self::read(data).map_err(|error| format!("failed to parse data: {error}"))?;
        let stable_window = read.stable_window;
        read.validate()?;
        Ok(Self {
            container_concurrency_target_fraction: read.percentage,
            stable_window: stable_window.to_std(),
            scale_to_zero_grace_period: read.grace_period.to_std(),
            scale_to_zero_pod_retention_period: read.retention.to_std(),
            scale_down_delay: read.scale_down_delay.to_std(),
            ..read.plain
        })
    }

    fn read(data: &Data) -> Result<Raw, String> {
        let int = |key: &str, or: i64| -> Result<i32, String> {
            // ParseInt with 32 bits never answers more.
            read::int(data, &[key], 32, or).map(|value| i32::try_from(value).unwrap_or(i32::MAX))
        };
        let float = |key: &str, or: f64| read::float(data, &[key], or);
        let duration =
            |key: &str, seconds: i64| read::duration(data, &[key], GoDuration::from_secs(seconds));
        let percentage = float("container-concurrency-target-percentage", 0.7)?;
        Ok(Raw {
            plain: Self {
                pod_autoscaler_class: read::text(data, &["pod-autoscaler-class"])
                    .unwrap_or(keys::AUTOSCALING_CLASS_KPA)
                    .to_owned(),
                container_concurrency_target_fraction: 0.0,
                enable_scale_to_zero: read::boolean(data, &["enable-scale-to-zero"], true)?,
                allow_zero_initial_scale: read::boolean(
                    data,
                    &["allow-zero-initial-scale"],
                    false,
                )?,
                max_scale_up_rate: float("max-scale-up-rate", 1000.0)?,
                max_scale_down_rate: float("max-scale-down-rate", 2.0)?,
                container_concurrency_target_default: float(
                    "container-concurrency-target-default",
                    100.0,
                )?,
                requests_per_second_target_default: float(
                    "requests-per-second-target-default",
                    200.0,
                )?,
                target_burst_capacity: float("target-burst-capacity", 211.0)?,
                panic_window_percentage: float("panic-window-percentage", 10.0)?,
                activator_capacity: float("activator-capacity", 100.0)?,
                panic_threshold_percentage: float("panic-threshold-percentage", 200.0)?,
                initial_scale: int("initial-scale", 1)?,
                min_scale: int("min-scale", 0)?,
                max_scale: int("max-scale", 0)?,
                max_scale_limit: int("max-scale-limit", 0)?,
                stable_window: Duration::ZERO,
                scale_to_zero_grace_period: Duration::ZERO,
                scale_to_zero_pod_retention_period: Duration::ZERO,
                scale_down_delay: Duration::ZERO,
            },
            percentage: if percentage > 1.0 {
                percentage / 100.0
            } else {
                percentage
            },
            stable_window: duration("stable-window", 60)?,
            scale_down_delay: duration("scale-down-delay", 0)?,
            grace_period: duration("scale-to-zero-grace-period", 30)?,
            retention: duration("scale-to-zero-pod-retention-period", 0)?,
        })
    }
}

/// The map as read, with durations that may be negative.
struct Raw {
    plain: Autoscaler,
    percentage: f64,
    stable_window: GoDuration,
    scale_down_delay: GoDuration,
    grace_period: GoDuration,
    retention: GoDuration,
}

impl Raw {
    /// Checks in Knative's order; the first that fails is told.
    fn validate(&self) -> Result<(), String> {
        self.check_durations()?;
        self.check_targets()?;
        self.check_rates_and_windows()?;
        self.check_scales()
    }

    /// Checks how long pods are kept.
    fn check_durations(&self) -> Result<(), String> {
        let Self {
            scale_down_delay,
            grace_period,
            retention,
            ..
        } = self;
        require(grace_period.0 > 0, || {
            format!("scale-to-zero-grace-period must be positive, was: {grace_period}")
        })?;
        require(scale_down_delay.0 >= 0, || {
            format!("scale-down-delay cannot be negative, was: {scale_down_delay}")
        })?;
        require(scale_down_delay.is_whole_seconds(), || {
            format!(
                "scale-down-delay = {scale_down_delay}, must be specified with at most second precision"
            )
        })?;
        require(retention.0 >= 0, || {
            format!("scale-to-zero-pod-retention-period cannot be negative, was: {retention}")
        })
    }

    /// Checks the targets and the activator's capacity.
    fn check_targets(&self) -> Result<(), String> {
        let Self {
            plain: c,
            percentage,
            ..
        } = self;
        let target = percentage * c.container_concurrency_target_default;
        require(*percentage > 0.0 && *percentage <= 1.0, || {
            format!(
                "container-concurrency-target-percentage = {percentage:.6} is outside of valid range of (0, 100]"
            )
        })?;
        require(target >= TARGET_MIN, || {
            format!(
                "container-concurrency-target-percentage and container-concurrency-target-default yield target concurrency of {}, can't be less than {TARGET_MIN}",
                rounded(target)
            )
        })?;
        require(c.requests_per_second_target_default >= TARGET_MIN, || {
            format!(
                "requests-per-second-target-default = {}, must be at least {TARGET_MIN}",
                c.requests_per_second_target_default
            )
        })?;
        require(
            c.target_burst_capacity >= 0.0 || c.target_burst_capacity == -1.0,
            || {
                format!(
                    "target-burst-capacity must be either non-negative or -1 (for unlimited), was: {}",
                    c.target_burst_capacity
                )
            },
        )?;
        require(c.activator_capacity >= 1.0, || {
            format!(
                "activator-capacity = {}, must be at least 1",
                c.activator_capacity
            )
        })
    }

    /// Checks the growth in one step and the windows of the averages.
    fn check_rates_and_windows(&self) -> Result<(), String> {
        let Self {
            plain: c,
            stable_window,
            ..
        } = self;
        require(c.max_scale_up_rate > 1.0, || {
            format!(
                "max-scale-up-rate = {}, must be greater than 1.0",
                c.max_scale_up_rate
            )
        })?;
        require(c.max_scale_down_rate > 1.0, || {
            format!(
                "max-scale-down-rate = {}, must be greater than 1.0",
                c.max_scale_down_rate
            )
        })?;
        require((WINDOW_MIN..=WINDOW_MAX).contains(stable_window), || {
            format!(
                "stable-window = {stable_window}, must be in [{WINDOW_MIN}; {WINDOW_MAX}] range"
            )
        })?;
        require(stable_window.is_whole_seconds(), || {
            format!(
                "stable-window = {stable_window}, must be specified with at most second precision"
            )
        })?;
        require((1.0..=100.0).contains(&c.panic_window_percentage), || {
            format!(
                "panic-window-percentage = {}, must be in [1, 100] interval",
                c.panic_window_percentage
            )
        })
    }

    /// Checks the numbers of pods.
    fn check_scales(&self) -> Result<(), String> {
        let c = &self.plain;
        let limit = c.max_scale_limit;
        require(
            c.initial_scale >= i32::from(!c.allow_zero_initial_scale),
            || {
                format!(
                    "initial-scale = {}, must be at least 0 (or at least 1 when allow-zero-initial-scale is false)",
                    c.initial_scale
                )
            },
        )?;
        require(
            limit == 0 && c.max_scale >= 0
                || limit != 0 && (limit < 0 || (1..=limit).contains(&c.max_scale)),
            || {
                format!(
                    "max-scale = {}, must be in [{}, max-scale-limit({limit})] range",
                    c.max_scale,
                    i32::from(limit != 0)
                )
            },
        )?;
        require(limit >= 0, || {
            format!("max-scale-limit = {limit}, must be at least 0")
        })?;
        require(c.min_scale >= 0, || {
            format!("min-scale = {}, must be at least 0", c.min_scale)
        })?;
        require(c.max_scale <= 0 || c.min_scale <= c.max_scale, || {
            format!(
                "min-scale ({}) must be less than max-scale ({})",
                c.min_scale, c.max_scale
            )
        })
    }
}

/// Returns the error unless the condition holds.
fn require(holds: bool, error: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(error()) }
}

/// Rounds away the noise of binary fractions (`-0.7`, not `-0.7000000000000001`).
fn rounded(value: f64) -> f64 {
    (value * 1e9).round() / 1e9
}
