//! What is known about one condition.

use crate::duck::{Condition, ConditionStatus};

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

    /// Not known, without reason and message.
    pub fn unknown() -> Self {
        Self::Unknown(ConditionDetail::default())
    }

    /// Returns the state of another object's condition; a missing one is Unknown.
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

    /// Returns the status of the condition.
    pub fn status(&self) -> ConditionStatus {
        match self {
            Self::True | Self::TrueBecause(_) => ConditionStatus::True,
            Self::Unknown(_) => ConditionStatus::Unknown,
            Self::False(_) => ConditionStatus::False,
        }
    }

    pub(super) fn into_parts(self) -> (ConditionStatus, ConditionDetail) {
        match self {
            Self::True => (ConditionStatus::True, ConditionDetail::default()),
            Self::TrueBecause(detail) => (ConditionStatus::True, detail),
            Self::Unknown(detail) => (ConditionStatus::Unknown, detail),
            Self::False(detail) => (ConditionStatus::False, detail),
        }
    }
}
