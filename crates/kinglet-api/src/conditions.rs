//! Conditions of a status, computed from the states that a reconciler reports.
//!
//! A reconciler says once what is known about each condition; `Ready` follows from it (spec/serving.md 0.5):
//! any dependent False makes it False, else any Unknown makes it Unknown, else it is True. Among several of the
//! same kind the one told last speaks. A condition's transition time moves only if anything else of it changed.

pub mod eventing;
mod kinds;
mod state;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::duck::{Condition, ConditionStatus};

pub use kinds::{
    CertificateCondition, ConfigurationCondition, IngressCondition, MetricCondition,
    PodAutoscalerCondition, RevisionCondition, RouteCondition, ServerlessServiceCondition,
    ServiceCondition,
};
pub use state::{ConditionDetail, ConditionState};

/// The conditions that a kind can have.
pub trait ConditionSet: Copy + Eq + 'static {
    /// Those that decide about [`ConditionSet::TOP`], in the order in which they are looked at.
    const DEPENDENTS: &'static [Self];
    /// The condition derived from all others.
    const TOP: &'static str = "Ready";

    /// Type as written in the API.
    fn name(self) -> &'static str;
}

/// The states that a reconciler has reported of one object's conditions.
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
    /// Returns a set without any state.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the state of one condition; a later state of the same condition replaces the earlier.
    #[must_use]
    pub fn with(mut self, kind: K, state: ConditionState) -> Self {
        self.states.retain(|(states, _)| *states != kind);
        self.states.push((kind, state));
        self
    }

    /// Sets the state of one condition if there is one; otherwise the condition stays as it was.
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

    /// Returns the finished list, sorted by type. A condition without a state stays as it was in `previous`; a dependent that
    /// never had one is Unknown.
    pub fn finish(self, previous: &[Condition], now: Timestamp) -> Vec<Condition> {
        let mut all = self.kept(previous);
        all.extend(self.states.into_iter().map(told));
        // A kind without dependents reports its top condition itself.
        if !all.iter().any(|condition| condition.kind == K::TOP) {
            let top = top::<K>(&all, previous);
            all.push(top);
        }
        stamp(&mut all, previous, now);
        all
    }

    /// Returns the conditions without a state as they were, and as Unknown the dependents that never had one.
    fn kept(&self, previous: &[Condition]) -> Vec<Condition> {
        let mut all: Vec<Condition> = previous
            .iter()
            .filter(|old| old.kind != K::TOP)
            .filter(|old| !self.states.iter().any(|(kind, _)| kind.name() == old.kind))
            .filter(|old| {
                decides::<K>(&old.kind) || !self.without.iter().any(|kind| kind.name() == old.kind)
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
        all
    }
}

/// Returns whether a condition decides about the top one.
fn decides<K: ConditionSet>(name: &str) -> bool {
    K::DEPENDENTS.iter().any(|kind| kind.name() == name)
}

/// Returns the condition of a state, without its time.
fn told<K: ConditionSet>((kind, state): (K, ConditionState)) -> Condition {
    let (status, ConditionDetail { reason, message }) = state.into_parts();
    let name = kind.name();
    let severity = if decides::<K>(name) || name == K::TOP {
        ""
    } else {
        "Info"
    };
    Condition {
        kind: name.to_owned(),
        status,
        severity: severity.to_owned(),
        last_transition_time: None,
        reason,
        message,
    }
}

/// Returns the top condition: derived from the dependents, or as it was where the kind has none.
fn top<K: ConditionSet>(all: &[Condition], previous: &[Condition]) -> Condition {
    let top = match K::DEPENDENTS {
        [] => previous
            .iter()
            .find(|old| old.kind == K::TOP)
            .cloned()
            .unwrap_or_default(),
        _ => {
            let dependents: Vec<&Condition> = all
                .iter()
                .filter(|condition| decides::<K>(&condition.kind))
                .collect();
            derive(&dependents)
        }
    };
    Condition {
        kind: K::TOP.to_owned(),
        severity: String::new(),
        ..top
    }
}

/// Derives the top condition: the last dependent that is False, else the last that is Unknown, else True.
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

/// Sorts the conditions and sets their transition times: the old time if nothing else changed, else `now`.
fn stamp(conditions: &mut [Condition], previous: &[Condition], now: Timestamp) {
    conditions.sort_by(|a, b| a.kind.cmp(&b.kind));
    for condition in conditions {
        let same = previous.iter().find(|old| old.says_the_same(condition));
        condition.last_transition_time = same
            .and_then(|old| old.last_transition_time.clone())
            .or(Some(Time(whole_seconds(now))));
    }
}

/// Drops fractions of a second, which the API does not keep.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
