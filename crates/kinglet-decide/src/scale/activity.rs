//! What the PodAutoscaler says about itself: `Active` and `ScaleTargetInitialized`.

/// The present `Active` condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Was {
    /// `Unknown` (also: never set).
    Activating,
    /// `True`.
    Active,
    /// `False`.
    Inactive,
}

/// The new `Active` condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// True.
    Active,
    /// Unknown, `Queued`: requests wait for pods.
    Queued,
    /// False, `NoTraffic`.
    NoTraffic,
    /// False, `TimedOut`: the pods never came.
    TimedOut,
}

impl Says {
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
pub struct ActivityFacts {
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
    pub was: Was,
}

/// Answers with the new condition and whether the scale target is initialized (which is sticky).
pub fn judge(facts: &ActivityFacts) -> (Says, bool) {
    let needed = if facts.initialized {
        facts.min.max(1)
    } else {
        facts.min.max(facts.initial_scale)
    };
    let says = if facts.want == Some(0) || needed == 0 {
        if facts.was == Was::Activating && needed > 0 {
            Says::TimedOut
        } else {
            Says::NoTraffic
        }
    } else if facts.want.is_none() && facts.was == Was::Inactive {
        // Nothing known and nothing running: what was said still holds, unless pods are up anyway.
        Says::NoTraffic
    } else if facts.ready < needed {
        Says::Queued
    } else {
        Says::Active
    };
    let initialized = facts.initialized || (facts.ready >= needed && facts.has_service);
    (says, initialized)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> ActivityFacts {
        ActivityFacts {
            want: Some(1),
            ready: 1,
            min: 0,
            initial_scale: 1,
            initialized: true,
            has_service: true,
            was: Was::Active,
        }
    }

    #[test]
    fn conditions_as_knative() {
        let rows: Vec<(&str, ActivityFacts, (Says, bool))> = vec![
            ("serving", facts(), (Says::Active, true)),
            (
                "first pods on their way",
                ActivityFacts {
                    want: None,
                    ready: 0,
                    initialized: false,
                    was: Was::Activating,
                    ..facts()
                },
                (Says::Queued, false),
            ),
            (
                "first pod is there, service is not",
                ActivityFacts {
                    want: None,
                    initialized: false,
                    has_service: false,
                    was: Was::Activating,
                    ..facts()
                },
                (Says::Active, false),
            ),
            (
                "first pod is there",
                ActivityFacts {
                    want: None,
                    initialized: false,
                    was: Was::Activating,
                    ..facts()
                },
                (Says::Active, true),
            ),
            (
                "idle",
                ActivityFacts {
                    want: Some(0),
                    ..facts()
                },
                (Says::NoTraffic, true),
            ),
            (
                "never came up",
                ActivityFacts {
                    want: Some(0),
                    ready: 0,
                    initialized: false,
                    was: Was::Activating,
                    ..facts()
                },
                (Says::TimedOut, false),
            ),
            (
                "never came up, said so already",
                ActivityFacts {
                    want: Some(0),
                    ready: 0,
                    initialized: false,
                    was: Was::Inactive,
                    ..facts()
                },
                (Says::NoTraffic, false),
            ),
            (
                "initial scale zero",
                ActivityFacts {
                    want: None,
                    ready: 0,
                    initial_scale: 0,
                    initialized: false,
                    has_service: false,
                    was: Was::Activating,
                    ..facts()
                },
                (Says::NoTraffic, false),
            ),
            (
                "initial scale zero, service exists",
                ActivityFacts {
                    want: None,
                    ready: 0,
                    initial_scale: 0,
                    initialized: false,
                    was: Was::Inactive,
                    ..facts()
                },
                (Says::NoTraffic, true),
            ),
            (
                "woken",
                ActivityFacts {
                    ready: 0,
                    was: Was::Inactive,
                    ..facts()
                },
                (Says::Queued, true),
            ),
            (
                "asleep",
                ActivityFacts {
                    want: None,
                    ready: 0,
                    was: Was::Inactive,
                    ..facts()
                },
                (Says::NoTraffic, true),
            ),
            (
                "fewer than the minimum",
                ActivityFacts {
                    want: Some(2),
                    min: 2,
                    ..facts()
                },
                (Says::Queued, true),
            ),
        ];
        for (case, facts, expected) in rows {
            assert_eq!(judge(&facts), expected, "{case}");
        }
    }
}
