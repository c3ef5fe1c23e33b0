//! From averages to a desired scale: stable and panic mode, rate limits, burst capacity.
//!
//! One [`Autoscaler`] per PodAutoscaler. It steps when it is asked, remembers panic and the delayed
//! scale-downs, and knows nothing of limits or of zero's handshake: that is [`super::bounds`].

mod delay;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::delay::DelayWindow;
use super::moment::Moment;

/// Everything that is configured about one revision's scaling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeciderSpec {
    /// How many times the ready pods one decision may reach (`max-scale-up-rate`).
    pub max_up_rate: f64,
    /// By how much one decision may divide the ready pods (`max-scale-down-rate`).
    pub max_down_rate: f64,
    /// What one pod should carry.
    pub target: f64,
    /// What one pod can carry.
    pub total: f64,
    /// Burst that must be absorbed without a buffer; -1 means always buffer, 0 never.
    pub target_burst_capacity: f64,
    /// Demand over ready pods from which panic begins (2.0 = 200 %).
    pub panic_threshold: f64,
    /// Panic ends this long after its last cause.
    pub stable_window: Duration,
    /// A decrease takes effect only after it was wanted this long.
    pub scale_down_delay: Duration,
    /// Pods at creation.
    pub initial_scale: u32,
    /// Fewest pods while there is any demand; 0 and 1 mean no such floor.
    pub activation_scale: u32,
    /// Whether a route leads here.
    pub reachable: bool,
}

/// What was seen at the moment of deciding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ObservedMetrics {
    /// Ready pods.
    pub ready: u32,
    /// Average over the stable window.
    pub stable: f64,
    /// Average over the panic window.
    pub panic: f64,
}

/// A desired scale, before limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleResult {
    /// Pods wanted.
    pub desired: u32,
    /// Capacity beyond the present load and the target burst; negative means: keep the buffer in the path.
    pub excess_burst_capacity: i32,
}

/// The memory of one revision's autoscaling.
#[derive(Clone, Debug, PartialEq)]
pub struct Autoscaler {
    mode: Mode,
    delay: Option<DelayWindow>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Stable,
    /// Never scales down; ends a stable window after the last cause.
    Panic {
        since: Moment,
        most_pods: u32,
    },
}

impl Autoscaler {
    /// A new memory. With more than one pod ready it begins in panic mode, so that a restart of the
    /// autoscaler under load does not scale down on missing data.
    pub fn new(policy: &DeciderSpec, ready: u32, now: Moment) -> Self {
        let mode = if ready > 1 {
            Mode::Panic {
                since: now,
                most_pods: ready,
            }
        } else {
            Mode::Stable
        };
        Self {
            mode,
            delay: DelayWindow::new(policy.scale_down_delay),
        }
    }

    /// Whether scale-downs are suspended because of a burst.
    pub fn is_panicking(&self) -> bool {
        matches!(self.mode, Mode::Panic { .. })
    }

    /// Decides once.
    pub fn decide(
        &mut self,
        policy: &DeciderSpec,
        seen: ObservedMetrics,
        now: Moment,
    ) -> ScaleResult {
        let ready = f64::from(seen.ready.max(1));
        let stable = sane(seen.stable);
        let panic = sane(seen.panic);
        let target = if policy.target.is_finite() {
            policy.target.max(super::target::SMALLEST_TARGET)
        } else {
            1.0
        };

        let most = (policy.max_up_rate * ready).ceil();
        let least = if policy.reachable {
            (ready / policy.max_down_rate).floor()
        } else {
            0.0
        };
        let wanted_stable = (stable / target).ceil();
        let wanted_panic = (panic / target).ceil();
        let floor = f64::from(policy.activation_scale);
        let limited = |wanted: f64| {
            let limited = wanted.max(least).min(most);
            if policy.activation_scale > 1 && wanted > 0.0 {
                limited.max(floor)
            } else {
                limited
            }
        };
        let stable_pods = pods(limited(wanted_stable));
        let panic_pods = pods(limited(wanted_panic));

        let over = wanted_panic / ready >= policy.panic_threshold;
        self.mode = match self.mode {
            Mode::Stable if over => Mode::Panic {
                since: now,
                most_pods: 0,
            },
            Mode::Panic { most_pods, .. } if over => Mode::Panic {
                since: now,
                most_pods,
            },
            Mode::Panic { since, .. } if since.later(policy.stable_window) < now => Mode::Stable,
            Mode::Stable => Mode::Stable,
            Mode::Panic { since, most_pods } => Mode::Panic { since, most_pods },
        };
        let mut desired = match &mut self.mode {
            Mode::Stable => stable_pods,
            Mode::Panic { most_pods, .. } => {
                *most_pods = stable_pods.max(panic_pods).max(*most_pods);
                *most_pods
            }
        };
        if let Some(delay) = &mut self.delay
            && policy.reachable
        {
            desired = delay.most_since(now, desired);
        }
        ScaleResult {
            desired,
            excess_burst_capacity: excess_burst_capacity(policy, seen.ready, panic),
        }
    }
}

/// Burst capacity before anything was measured.
pub fn initial_burst_capacity(policy: &DeciderSpec) -> i32 {
    let wanted = policy.target_burst_capacity;
    if wanted == 0.0 {
        0
    } else if wanted < 0.0 {
        -1
    } else {
        whole((f64::from(policy.initial_scale) * policy.total - wanted).trunc())
    }
}

/// `floor(ready × total − wanted − load)`; fixed at -1 or 0 where burst capacity is "always" or "never".
pub fn excess_burst_capacity(policy: &DeciderSpec, ready: u32, load: f64) -> i32 {
    let wanted = policy.target_burst_capacity;
    if wanted == 0.0 {
        0
    } else if wanted < 0.0 {
        -1
    } else {
        whole((f64::from(ready) * policy.total - wanted - load).floor())
    }
}

fn sane(value: f64) -> f64 {
    if value.is_finite() {
        value.max(0.0)
    } else {
        0.0
    }
}

/// Pods in whole numbers; below zero none, and above an int32's maximum that many.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "casts from float saturate and turn NaN into zero, which is what is wanted here"
)]
fn pods(value: f64) -> u32 {
    (value as u32).min(i32::MAX.unsigned_abs())
}

/// The value within an int32.
#[expect(
    clippy::cast_possible_truncation,
    reason = "casts from float saturate and turn NaN into zero, which is what is wanted here"
)]
fn whole(value: f64) -> i32 {
    value as i32
}
