//! What the PodAutoscaler says about itself: `Active` and `ScaleTargetInitialized`.

/// The present `Active` condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreviousActive {
    /// `Unknown` (also: never set).
    Activating,
    /// `True`.
    Active,
    /// `False`.
    Inactive,
}

/// The new `Active` condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActiveCondition {
    /// True.
    Active,
    /// Unknown, `Queued`: requests wait for pods.
    Queued,
    /// False, `NoTraffic`.
    NoTraffic,
    /// False, `TimedOut`: the pods never came.
    TimedOut,
}

impl ActiveCondition {
    /// Reason in the condition; empty for `Active`.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Active => "",
            Self::Queued => "Queued",
            Self::NoTraffic => "NoTraffic",
            Self::TimedOut => "TimedOut",
        }
    }

    /// Message in the condition; empty for `Active`.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Active => "",
            Self::Queued => {
                "Requests to the target are being buffered as resources are provisioned."
            }
            Self::NoTraffic => "The target is not receiving traffic.",
            Self::TimedOut => "The target could not be activated.",
        }
    }
}

/// Facts about one PodAutoscaler after its scale was ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedActivity {
    /// The ordered scale; `None` when unknown.
    pub want: Option<u32>,
    /// Ready pods.
    pub ready: u32,
    /// Minimum scale, already 0 for an unreachable revision.
    pub min: u32,
    /// Initial scale.
    pub initial_scale: u32,
    /// `ScaleTargetInitialized` was True before.
    pub initialized: bool,
    /// The public service exists (`status.serviceName` is set).
    pub has_service: bool,
    /// The present condition.
    pub was: PreviousActive,
}

/// Answers with the new condition and whether the scale target is initialized (which is sticky).
pub fn judge(observed: &ObservedActivity) -> (ActiveCondition, bool) {
    let needed = if observed.initialized {
        observed.min.max(1)
    } else {
        observed.min.max(observed.initial_scale)
    };
    let says = if observed.want == Some(0) || needed == 0 {
        if observed.was == PreviousActive::Activating && needed > 0 {
            ActiveCondition::TimedOut
        } else {
            ActiveCondition::NoTraffic
        }
    } else if observed.want.is_none() && observed.was == PreviousActive::Inactive {
        // Nothing known and nothing running: what was said still holds, unless pods are up anyway.
        ActiveCondition::NoTraffic
    } else if observed.ready < needed {
        ActiveCondition::Queued
    } else {
        ActiveCondition::Active
    };
    let initialized = observed.initialized || (observed.ready >= needed && observed.has_service);
    (says, initialized)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed() -> ObservedActivity {
        ObservedActivity {
            want: Some(1),
            ready: 1,
            min: 0,
            initial_scale: 1,
            initialized: true,
            has_service: true,
            was: PreviousActive::Active,
        }
    }

    #[test]
    fn conditions_as_knative() {
        let rows: Vec<(&str, ObservedActivity, (ActiveCondition, bool))> = vec![
            ("serving", observed(), (ActiveCondition::Active, true)),
            (
                "first pods on their way",
                ObservedActivity {
                    want: None,
                    ready: 0,
                    initialized: false,
                    was: PreviousActive::Activating,
                    ..observed()
                },
                (ActiveCondition::Queued, false),
            ),
            (
                "first pod is there, service is not",
                ObservedActivity {
                    want: None,
                    initialized: false,
                    has_service: false,
                    was: PreviousActive::Activating,
                    ..observed()
                },
                (ActiveCondition::Active, false),
            ),
            (
                "first pod is there",
                ObservedActivity {
                    want: None,
                    initialized: false,
                    was: PreviousActive::Activating,
                    ..observed()
                },
                (ActiveCondition::Active, true),
            ),
            (
                "idle",
                ObservedActivity {
                    want: Some(0),
                    ..observed()
                },
                (ActiveCondition::NoTraffic, true),
            ),
            (
                "never came up",
                ObservedActivity {
                    want: Some(0),
                    ready: 0,
                    initialized: false,
                    was: PreviousActive::Activating,
                    ..observed()
                },
                (ActiveCondition::TimedOut, false),
            ),
            (
                "never came up, said so already",
                ObservedActivity {
                    want: Some(0),
                    ready: 0,
                    initialized: false,
                    was: PreviousActive::Inactive,
                    ..observed()
                },
                (ActiveCondition::NoTraffic, false),
            ),
            (
                "initial scale zero",
                ObservedActivity {
                    want: None,
                    ready: 0,
                    initial_scale: 0,
                    initialized: false,
                    has_service: false,
                    was: PreviousActive::Activating,
                    ..observed()
                },
                (ActiveCondition::NoTraffic, false),
            ),
            (
                "initial scale zero, service exists",
                ObservedActivity {
                    want: None,
                    ready: 0,
                    initial_scale: 0,
                    initialized: false,
                    was: PreviousActive::Inactive,
                    ..observed()
                },
                (ActiveCondition::NoTraffic, true),
            ),
            (
                "woken",
                ObservedActivity {
                    ready: 0,
                    was: PreviousActive::Inactive,
                    ..observed()
                },
                (ActiveCondition::Queued, true),
            ),
            (
                "asleep",
                ObservedActivity {
                    want: None,
                    ready: 0,
                    was: PreviousActive::Inactive,
                    ..observed()
                },
                (ActiveCondition::NoTraffic, true),
            ),
            (
                "fewer than the minimum",
                ObservedActivity {
                    want: Some(2),
                    min: 2,
                    ..observed()
                },
                (ActiveCondition::Queued, true),
            ),
        ];
        for (case, observed, expected) in rows {
            assert_eq!(judge(&observed), expected, "{case}");
        }
    }
}
