//! From a desired scale to a decision: minimum and maximum, initial scale, and the handshake before zero.
//!
//! Zero is reached in steps that each need time: active for a whole stable window without demand, then
//! inactive (requests already go through the buffer) for the grace period, then no pods. A request on
//! the way stops it at any step.

#[cfg(test)]
mod tests;

use std::time::Duration;

/// After the progress deadline an activation gets this much longer before it is given up.
pub const ACTIVATION_TIMEOUT_BUFFER: Duration = Duration::from_secs(30);

/// How soon to look again after a revision became inactive while its buffer is already in the path.
const RECHECK_IN_PROXY: Duration = Duration::from_secs(3);

/// What the PodAutoscaler's `Active` condition says, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// `Unknown`: pods are being brought up.
    Activating(Duration),
    /// `True`.
    Active(Duration),
    /// `False`.
    Inactive(Duration),
}

/// Whether requests are known to reach the buffer (the activator) before pods go away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferPath {
    /// They do: it is always in the path, or a probe said so.
    Confirmed,
    /// Not known yet: a probe must be made before pods may go.
    Unconfirmed,
}

/// Facts that turn a desired scale into a decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ObservedScale {
    /// The autoscaler's desired scale; `None` while it knows nothing.
    pub desired_scale: Option<u32>,
    /// Annotation or config `min-scale`.
    pub min: u32,
    /// Annotation or config `max-scale`; 0 means unlimited.
    pub max: u32,
    /// Annotation or config `initial-scale`.
    pub initial_scale: u32,
    /// `ScaleTargetInitialized` is True.
    pub initialized: bool,
    /// `spec.reachability` is `Unreachable`.
    pub unreachable: bool,
    /// `enable-scale-to-zero`.
    pub scale_to_zero_enabled: bool,
    /// The `Active` condition.
    pub activity: Activity,
    /// Stable window of this revision.
    pub stable_window: Duration,
    /// `scale-to-zero-grace-period`.
    pub grace: Duration,
    /// Annotation or config `scale-to-zero-pod-retention-period`.
    pub retention: Duration,
    /// Progress deadline of this revision.
    pub progress_deadline: Duration,
    /// `target-burst-capacity` is -1: the buffer never leaves the path.
    pub always_buffered: bool,
    /// Whether the buffer is reached.
    pub buffer: BufferPath,
    /// How long the ServerlessService has pointed at the buffer; `None` when it does not.
    pub buffered_for: Option<Duration>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleDecision {
    /// The scale that counts from here on; `None` when still nothing is known.
    pub want: Option<u32>,
    /// Write `want` to the scale target. Only meaningful with a known `want`.
    pub apply: bool,
    /// Look again after this time.
    pub again: Option<Duration>,
    /// Find out whether the buffer is reached.
    pub probe: bool,
}

impl ScaleDecision {
    fn apply(want: u32) -> Self {
        Self {
            want: Some(want),
            apply: true,
            again: None,
            probe: false,
        }
    }

    fn hold(want: Option<u32>) -> Self {
        Self {
            want,
            apply: false,
            again: None,
            probe: false,
        }
    }

    fn again_in(self, wait: Duration) -> Self {
        Self {
            again: Some(wait),
            ..self
        }
    }
}

/// Fewest pods that are kept, apart from a first start.
pub fn minimum(min: u32, unreachable: bool) -> u32 {
    if unreachable { 0 } else { min }
}

/// Applies limits and the handshake before zero.
pub fn bound(observed: &ObservedScale) -> ScaleDecision {
    let activating = matches!(observed.activity, Activity::Activating(_));
    if observed.desired_scale.is_none() && !activating {
        return ScaleDecision::hold(None);
    }
    let mut min = minimum(observed.min, observed.unreachable);
    if observed.initial_scale > 1 && !observed.initialized && !observed.unreachable {
        min = min.max(observed.initial_scale);
    }
    // An unknown desired scale counts as less than any minimum, so an activation keeps what it needs.
    let desired_scale = observed.desired_scale.unwrap_or(0).max(min);
    let limited = if observed.max == 0 {
        desired_scale
    } else {
        desired_scale.min(observed.max)
    };
    if limited > 0 {
        ScaleDecision::apply(limited)
    } else {
        toward_zero(observed)
    }
}

fn toward_zero(observed: &ObservedScale) -> ScaleDecision {
    if !observed.scale_to_zero_enabled {
        return ScaleDecision::apply(1);
    }
    match observed.activity {
        Activity::Activating(waited) => {
            let deadline = observed.progress_deadline + ACTIVATION_TIMEOUT_BUFFER;
            if waited > deadline {
                ScaleDecision::apply(0)
            } else {
                ScaleDecision::hold(None)
                    .again_in(deadline.saturating_sub(waited).max(Duration::from_secs(1)))
            }
        }
        Activity::Active(waited) if waited >= observed.stable_window => {
            let inactive = ScaleDecision::hold(Some(0));
            if observed.buffered_for.is_some() {
                inactive.again_in(RECHECK_IN_PROXY)
            } else {
                inactive
            }
        }
        Activity::Active(waited) => {
            ScaleDecision::apply(1).again_in(observed.stable_window - waited)
        }
        Activity::Inactive(waited) => let_go(observed, waited),
    }
}

/// The last step: the revision is marked inactive, its pods still run.
fn let_go(observed: &ObservedScale, waited: Duration) -> ScaleDecision {
    if !observed.always_buffered && observed.buffer == BufferPath::Unconfirmed {
        return ScaleDecision {
            probe: true,
            ..ScaleDecision::hold(Some(0))
        };
    }
    let retention = if observed.unreachable {
        Duration::ZERO
    } else {
        observed.retention
    };
    if waited >= observed.grace.max(retention) {
        return ScaleDecision::apply(0);
    }
    if waited < retention {
        return ScaleDecision::hold(Some(0)).again_in(retention - waited);
    }
    let buffered = observed.buffered_for.unwrap_or(Duration::ZERO);
    if buffered >= observed.grace && observed.buffered_for.is_some() {
        ScaleDecision::apply(0)
    } else {
        ScaleDecision::hold(Some(0)).again_in(observed.grace - buffered)
    }
}
