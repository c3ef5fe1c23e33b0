//! A plan: what a pure decision wants written, as data. [`crate::Context::apply`] carries it out and decides nothing.

use std::time::Duration;

use serde::Serialize;

use crate::error::ReconcileError;
use crate::event::{EventRecord, Severity};
use crate::object::{Object, namespace_of};
use crate::write::{Cascade, Write};

/// When to look at a key again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Next {
    /// When something changes.
    #[default]
    Done,
    /// When something changes, at the latest after so long.
    After(Duration),
    /// At once, behind the keys that wait already.
    Again,
}

/// What a decision wants done, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What is written, in this order.
    pub steps: Vec<Step>,
    /// When to look again.
    pub next: Next,
    /// An error to report once everything is written; the key is retried if that can help.
    pub error: Option<PlanError>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A write; the plan stops at the first that fails.
    Write(Box<Write>),
    /// An Event; never waits and never fails.
    Event(Box<EventRecord>),
}

/// A domain error found while deciding; becomes a [`ReconcileError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// Whether another try may help.
    pub retry: bool,
    /// What is wrong.
    pub message: String,
}

impl From<PlanError> for ReconcileError {
    fn from(error: PlanError) -> Self {
        if error.retry {
            Self::Transient(error.message)
        } else {
            Self::Permanent(error.message)
        }
    }
}

impl Plan {
    /// A plan that does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do and nothing to wait for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds a write.
    pub fn write(&mut self, write: Write) -> &mut Self {
        self.steps.push(Step::Write(Box::new(write)));
        self
    }

    /// Creates an object.
    pub fn create<K: Object>(&mut self, object: &K) -> &mut Self {
        self.write(Write::create(object))
    }

    /// See [`Write::update`].
    pub fn update<K: Object>(&mut self, observed: &K, desired: &K) -> &mut Self {
        self.write(Write::update(observed, desired))
    }

    /// See [`Write::status`].
    pub fn status<K: Object>(&mut self, observed: &K, status: &impl Serialize) -> &mut Self {
        self.write(Write::status(observed, status))
    }

    /// See [`Write::scale`].
    pub fn scale<K: Object>(&mut self, observed: &K, from: i32, to: i32) -> &mut Self {
        self.write(Write::scale(observed, from, to))
    }

    /// Creates `desired`, or makes what was seen equal to it.
    pub fn ensure<K: Object>(&mut self, observed: Option<&K>, desired: &K) -> &mut Self {
        match observed {
            Some(observed) => self.update(observed, desired),
            None => self.create(desired),
        }
    }

    /// Deletes exactly the object seen.
    pub fn delete<K: Object>(&mut self, observed: &K, cascade: Cascade) -> &mut Self {
        self.write(Write::delete(observed, cascade))
    }

    /// Adds a finalizer, if it is missing.
    pub fn add_finalizer<K: Object>(&mut self, observed: &K, finalizer: &str) -> &mut Self {
        let mut desired = observed.clone();
        let all = desired.meta_mut().finalizers.get_or_insert_default();
        if !all.iter().any(|known| known == finalizer) {
            all.push(finalizer.to_owned());
            self.update(observed, &desired);
        }
        self
    }

    /// Removes a finalizer, if it is there.
    pub fn remove_finalizer<K: Object>(&mut self, observed: &K, finalizer: &str) -> &mut Self {
        let mut desired = observed.clone();
        let all = desired.meta_mut().finalizers.get_or_insert_default();
        if all.iter().any(|known| known == finalizer) {
            all.retain(|known| known != finalizer);
            self.update(observed, &desired);
        }
        self
    }

    /// Records a Normal Event.
    pub fn normal<K: Object>(
        &mut self,
        about: &K,
        reason: &str,
        message: impl Into<String>,
    ) -> &mut Self {
        self.event(EventRecord::new(about, Severity::Normal, reason, message))
    }

    /// Records a Warning Event.
    pub fn warning<K: Object>(
        &mut self,
        about: &K,
        reason: &str,
        message: impl Into<String>,
    ) -> &mut Self {
        self.event(EventRecord::new(about, Severity::Warning, reason, message))
    }

    /// Records an Event.
    pub fn event(&mut self, event: EventRecord) -> &mut Self {
        self.steps.push(Step::Event(Box::new(event)));
        self
    }

    /// Looks again after `delay` at the latest (the shortest of several counts).
    pub fn after(&mut self, delay: Duration) -> &mut Self {
        self.next = match self.next {
            Next::Done => Next::After(delay),
            Next::After(other) => Next::After(other.min(delay)),
            Next::Again => Next::Again,
        };
        self
    }

    /// Reports an error once everything is written.
    pub fn fail(&mut self, retry: bool, message: impl Into<String>) -> &mut Self {
        self.error = Some(PlanError {
            retry,
            message: message.into(),
        });
        self
    }

    /// Everything of `other`, behind what is here.
    pub fn append(&mut self, other: Self) -> &mut Self {
        let Self { steps, next, error } = other;
        self.steps.extend(steps);
        match next {
            Next::Done => {}
            Next::After(delay) => {
                self.after(delay);
            }
            Next::Again => self.next = Next::Again,
        }
        self.error = self.error.take().or(error);
        self
    }

    /// The writes, without Events: what tests look at.
    pub fn writes(&self) -> impl Iterator<Item = &Write> {
        self.steps.iter().filter_map(|step| match step {
            Step::Write(write) => Some(&**write),
            Step::Event(_) => None,
        })
    }

    /// The Events: what tests look at.
    pub fn events(&self) -> impl Iterator<Item = &EventRecord> {
        self.steps.iter().filter_map(|step| match step {
            Step::Write(_) => None,
            Step::Event(event) => Some(&**event),
        })
    }

    /// The namespace of an object that a plan is about, for a child.
    pub fn namespace_for<K: Object>(owner: &K) -> Option<String> {
        Some(namespace_of(owner))
            .filter(|namespace| !namespace.is_empty())
            .map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_wait_counts() {
        let mut plan = Plan::new();
        plan.after(Duration::from_secs(5))
            .after(Duration::from_secs(2))
            .after(Duration::from_secs(9));
        assert_eq!(plan.next, Next::After(Duration::from_secs(2)));
    }
}
