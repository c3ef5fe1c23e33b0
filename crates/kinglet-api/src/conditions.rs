//! Conditions of a status, computed from facts in one fold.
//!
//! A reconciler says once what is known about each condition; `Ready` follows from it (spec/serving.md 0.5):
//! any dependent False makes it False, else any Unknown makes it Unknown, else it is True. Among several of the
//! same kind the one told last speaks. A condition's transition time moves only if anything else of it changed.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::duck::{Condition, ConditionStatus};

/// The conditions that a kind can have.
pub trait ConditionSet: Copy + Eq + 'static {
    /// Those that decide about [`ConditionSet::TOP`], in the order in which they are looked at.
    const DEPENDENTS: &'static [Self];
    /// The condition derived from all others.
    const TOP: &'static str = "Ready";

    /// Type as written in the API.
    fn name(self) -> &'static str;
}

/// What is known about one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConditionState {
    /// It holds.
    True,
    /// It holds, with a remark.
    TrueBecause(ConditionDetail),
    /// Not known yet.
    Unknown(ConditionDetail),
    /// It does not hold.
    False(ConditionDetail),
}

/// Reason (one word) and message (a sentence) of a condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConditionDetail {
    /// One word, for programs.
    pub reason: String,
    /// A sentence, for people.
    pub message: String,
}

impl ConditionState {
    /// It holds, with a remark.
    pub fn true_because(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::TrueBecause(ConditionDetail {
            reason: reason.into(),
            message: message.into(),
        })
    }

    /// Not known yet.
    pub fn unknown_because(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Unknown(ConditionDetail {
            reason: reason.into(),
            message: message.into(),
        })
    }

    /// It does not hold.
    pub fn false_because(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::False(ConditionDetail {
            reason: reason.into(),
            message: message.into(),
        })
    }

    /// Nothing is known and there is nothing to say.
    pub fn unknown() -> Self {
        Self::Unknown(ConditionDetail::default())
    }

    /// Carries another object's condition over; `None` is unknown.
    pub fn mirror(condition: Option<&Condition>) -> Self {
        let Some(condition) = condition else {
            return Self::unknown();
        };
        let detail = ConditionDetail {
            reason: condition.reason.clone(),
            message: condition.message.clone(),
        };
        match condition.status {
            ConditionStatus::True if detail == ConditionDetail::default() => Self::True,
            ConditionStatus::True => Self::TrueBecause(detail),
            ConditionStatus::False => Self::False(detail),
            ConditionStatus::Unknown => Self::Unknown(detail),
        }
    }

    /// The answer alone.
    pub fn status(&self) -> ConditionStatus {
        match self {
            Self::True | Self::TrueBecause(_) => ConditionStatus::True,
            Self::Unknown(_) => ConditionStatus::Unknown,
            Self::False(_) => ConditionStatus::False,
        }
    }

    fn into_parts(self) -> (ConditionStatus, ConditionDetail) {
        match self {
            Self::True => (ConditionStatus::True, ConditionDetail::default()),
            Self::TrueBecause(detail) => (ConditionStatus::True, detail),
            Self::Unknown(detail) => (ConditionStatus::Unknown, detail),
            Self::False(detail) => (ConditionStatus::False, detail),
        }
    }
}

/// The conditions of one object in the making.
#[derive(Clone, Debug)]
pub struct Conditions<K> {
    states: Vec<(K, ConditionState)>,
    without: Vec<K>,
}

impl<K: ConditionSet> Default for Conditions<K> {
    fn default() -> Self {
        Self {
            states: Vec::new(),
            without: Vec::new(),
        }
    }
}

impl<K: ConditionSet> Conditions<K> {
    /// Nothing told yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells about one condition; a later word about the same one replaces the earlier.
    #[must_use]
    pub fn with(mut self, kind: K, state: ConditionState) -> Self {
        self.states.retain(|(states, _)| *states != kind);
        self.states.push((kind, state));
        self
    }

    /// As [`Conditions::with`], if there is anything to tell; otherwise what was known stays.
    #[must_use]
    pub fn with_some(self, kind: K, state: Option<ConditionState>) -> Self {
        match state {
            Some(state) => self.with(kind, state),
            None => self,
        }
    }

    /// Drops a condition that does not decide about `Ready`.
    #[must_use]
    pub fn without(mut self, kind: K) -> Self {
        self.without.push(kind);
        self
    }

    /// The finished list, sorted by type. What was not told stays as it was in `previous`; a dependent that
    /// was never told is Unknown.
    pub fn finish(self, previous: &[Condition], now: Timestamp) -> Vec<Condition> {
        let decides = |name: &str| K::DEPENDENTS.iter().any(|kind| kind.name() == name);
        // Oldest knowledge first: what nobody spoke of this time, then what was told, in order.
        let mut all: Vec<Condition> = previous
            .iter()
            .filter(|old| old.kind != K::TOP)
            .filter(|old| !self.states.iter().any(|(kind, _)| kind.name() == old.kind))
            .filter(|old| {
                decides(&old.kind) || !self.without.iter().any(|kind| kind.name() == old.kind)
            })
            .cloned()
            .collect();
        for kind in K::DEPENDENTS {
            let states = self.states.iter().any(|(states, _)| states == kind);
            if !states && !all.iter().any(|known| known.kind == kind.name()) {
                all.push(Condition {
                    kind: kind.name().to_owned(),
                    ..Condition::default()
                });
            }
        }
        for (kind, state) in self.states {
            let (status, ConditionDetail { reason, message }) = state.into_parts();
            let severity = if decides(kind.name()) || kind.name() == K::TOP {
                ""
            } else {
                "Info"
            };
            let kind = kind.name().to_owned();
            all.push(Condition {
                kind,
                status,
                severity: severity.to_owned(),
                last_transition_time: None,
                reason,
                message,
            });
        }
        // A kind without dependents tells its top condition itself.
        if !all.iter().any(|condition| condition.kind == K::TOP) {
            let top = match K::DEPENDENTS {
                [] => previous
                    .iter()
                    .find(|old| old.kind == K::TOP)
                    .cloned()
                    .unwrap_or_default(),
                _ => derive(
                    &all.iter()
                        .filter(|condition| decides(&condition.kind))
                        .collect::<Vec<_>>(),
                ),
            };
            all.push(Condition {
                kind: K::TOP.to_owned(),
                severity: String::new(),
                ..top
            });
        }
        stamp(&mut all, previous, now);
        all
    }
}

/// What the dependents say together.
fn derive(dependents: &[&Condition]) -> Condition {
    let last = |truth: ConditionStatus| {
        dependents
            .iter()
            .rev()
            .find(|condition| condition.status == truth)
    };
    match last(ConditionStatus::False).or_else(|| last(ConditionStatus::Unknown)) {
        Some(worst) => Condition {
            last_transition_time: None,
            ..(*worst).clone()
        },
        None => Condition {
            status: ConditionStatus::True,
            ..Condition::default()
        },
    }
}

/// Sorts and gives each condition its time: the old one if it says the same as before, else `now`.
fn stamp(conditions: &mut [Condition], previous: &[Condition], now: Timestamp) {
    conditions.sort_by(|a, b| a.kind.cmp(&b.kind));
    for condition in conditions {
        let same = previous.iter().find(|old| old.says_the_same(condition));
        condition.last_transition_time = same
            .and_then(|old| old.last_transition_time.clone())
            .or(Some(Time(whole_seconds(now))));
    }
}

/// The API knows seconds only; a finer stamp would differ from what comes back.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

macro_rules! condition_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$dependent_doc:meta])* $dependent:ident),* } $(also { $($(#[$extra_doc:meta])* $extra:ident),* })?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$dependent_doc])* $dependent,)*
            $($($(#[$extra_doc])* $extra,)*)?
        }

        impl ConditionSet for $name {
            const DEPENDENTS: &'static [Self] = &[$(Self::$dependent),*];

            fn name(self) -> &'static str {
                match self {
                    $(Self::$dependent => stringify!($dependent),)*
                    $($(Self::$extra => stringify!($extra),)*)?
                }
            }
        }
    };
}

condition_set!(
    /// Conditions of a Service.
    ServiceCondition {
        /// Mirrors the Configuration's `Ready`.
        ConfigurationsReady,
        /// Mirrors the Route's `Ready`.
        RoutesReady
    }
);
condition_set!(
    /// Conditions of a Configuration: it tells `Ready` itself.
    ConfigurationCondition {} also {
        /// The only one.
        Ready
    }
);
condition_set!(
    /// Conditions of a Revision.
    RevisionCondition {
        /// Deployment, images and autoscaler are there.
        ResourcesAvailable,
        /// The containers run.
        ContainerHealthy
    } also {
        /// It has pods, or is about to.
        Active
    }
);
condition_set!(
    /// Conditions of a Route.
    RouteCondition {
        /// Every target exists and is ready.
        AllTrafficAssigned,
        /// The gateway has it.
        IngressReady,
        /// Certificates are there, or not wanted.
        CertificateProvisioned
    }
);
condition_set!(
    /// Conditions of a PodAutoscaler.
    PodAutoscalerCondition {
        /// It has pods, or is about to.
        Active,
        /// The initial scale was reached once.
        ScaleTargetInitialized,
        /// Its ServerlessService is ready.
        SKSReady
    }
);
condition_set!(
    /// Conditions of a Metric: it tells `Ready` itself.
    MetricCondition {} also {
        /// The only one.
        Ready
    }
);
condition_set!(
    /// Conditions of a ServerlessService.
    ServerlessServiceCondition {
        /// Someone stands behind its public Service.
        EndpointsPopulated
    } also {
        /// The activators do.
        ActivatorEndpointsPopulated
    }
);
condition_set!(
    /// Conditions of an Ingress.
    IngressCondition {
        /// The gateway has its rules.
        NetworkConfigured,
        /// The gateway can be reached.
        LoadBalancerReady
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn brief(conditions: &[Condition]) -> Vec<String> {
        conditions
            .iter()
            .map(|c| {
                format!(
                    "{}={}{}{}",
                    c.kind,
                    c.status.as_str(),
                    if c.reason.is_empty() { "" } else { " " },
                    c.reason
                )
            })
            .collect()
    }

    #[test]
    fn ready_follows_from_the_dependents() {
        use RevisionCondition::{Active, ContainerHealthy, ResourcesAvailable};
        type States = Vec<(RevisionCondition, ConditionState)>;
        let cases: [(States, &[&str]); 6] = [
            (
                vec![],
                &[
                    "ContainerHealthy=Unknown",
                    "Ready=Unknown",
                    "ResourcesAvailable=Unknown",
                ],
            ),
            (
                vec![
                    (ResourcesAvailable, ConditionState::True),
                    (ContainerHealthy, ConditionState::True),
                ],
                &[
                    "ContainerHealthy=True",
                    "Ready=True",
                    "ResourcesAvailable=True",
                ],
            ),
            (
                vec![
                    (
                        ResourcesAvailable,
                        ConditionState::unknown_because("Deploying", ""),
                    ),
                    (ContainerHealthy, ConditionState::True),
                ],
                &[
                    "ContainerHealthy=True",
                    "Ready=Unknown Deploying",
                    "ResourcesAvailable=Unknown Deploying",
                ],
            ),
            (
                vec![
                    (
                        ContainerHealthy,
                        ConditionState::false_because("ExitCode1", ""),
                    ),
                    (
                        ResourcesAvailable,
                        ConditionState::unknown_because("Deploying", ""),
                    ),
                ],
                &[
                    "ContainerHealthy=False ExitCode1",
                    "Ready=False ExitCode1",
                    "ResourcesAvailable=Unknown Deploying",
                ],
            ),
            (
                vec![
                    (Active, ConditionState::false_because("NoTraffic", "")),
                    (ResourcesAvailable, ConditionState::True),
                    (ContainerHealthy, ConditionState::True),
                ],
                &[
                    "Active=False NoTraffic",
                    "ContainerHealthy=True",
                    "Ready=True",
                    "ResourcesAvailable=True",
                ],
            ),
            (
                vec![
                    (ContainerHealthy, ConditionState::false_because("First", "")),
                    (
                        ResourcesAvailable,
                        ConditionState::false_because("Second", ""),
                    ),
                ],
                &[
                    "ContainerHealthy=False First",
                    "Ready=False Second",
                    "ResourcesAvailable=False Second",
                ],
            ),
        ];
        for (states, want) in cases {
            let conditions = states
                .into_iter()
                .fold(Conditions::new(), |all, (kind, state)| {
                    all.with(kind, state)
                });
            assert_eq!(brief(&conditions.finish(&[], at(1))), want);
        }
    }

    #[test]
    fn time_moves_only_with_the_answer() {
        let first = Conditions::new()
            .with(ServiceCondition::RoutesReady, ConditionState::True)
            .finish(&[], at(1));
        let second = Conditions::new()
            .with(ServiceCondition::RoutesReady, ConditionState::True)
            .with(ServiceCondition::ConfigurationsReady, ConditionState::True)
            .finish(&first, at(9));
        let times: Vec<_> = second
            .iter()
            .map(|c| {
                (
                    c.kind.as_str(),
                    c.last_transition_time.as_ref().unwrap().0.as_second(),
                )
            })
            .collect();
        assert_eq!(
            times,
            [("ConfigurationsReady", 9), ("Ready", 9), ("RoutesReady", 1)]
        );
        let third = Conditions::<ServiceCondition>::new().finish(&second, at(20));
        assert_eq!(third, second, "what was not states stays");
    }

    #[test]
    fn extras_are_informative_and_can_go() {
        let with = Conditions::new()
            .with(RevisionCondition::Active, ConditionState::True)
            .finish(&[], at(1));
        assert_eq!(with[0].severity, "Info");
        let gone = Conditions::new()
            .without(RevisionCondition::Active)
            .finish(&with, at(2));
        assert!(gone.iter().all(|c| c.kind != "Active"));
    }

    #[test]
    fn a_kind_without_dependents_tells_ready_itself() {
        let states = Conditions::new()
            .with(MetricCondition::Ready, ConditionState::True)
            .finish(&[], at(1));
        assert_eq!(brief(&states), ["Ready=True"]);
        assert_eq!(states[0].severity, "");
        assert_eq!(
            brief(&Conditions::<MetricCondition>::new().finish(&[], at(1))),
            ["Ready=Unknown"]
        );
    }
}
