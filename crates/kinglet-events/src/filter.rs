//! Filters of Triggers (spec/eventing.md 8): compiled once, asked for every event.
//!
//! Flow: `spec.filter` and `spec.filters` -> [`validate`] at admission -> [`Filter::compile`] -> [`Filter::matches`], or
//! [`FilterIndex`] over all Triggers of a Broker.
//! Always: asking needs no memory but for what functions of CESQL make; an expression that cannot be evaluated is a no.

mod admission;
mod compile;
mod condition;
mod index;
mod spec;

use crate::cesql::Expression;
use crate::event::Event;

pub use admission::{Refusal, validate, validate_attributes};
pub use compile::{FILTER_DEPTH_MAX, Skipped};
pub use index::FilterIndex;
pub use spec::{SubscriptionsApiFilter, TriggerFilter};

use condition::{Condition, LegacyCondition};

/// What a filter says. Only [`Verdict::Fail`] drops the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    Fail,
    /// It has no opinion.
    None,
}

impl Verdict {
    fn of(passes: bool) -> Self {
        if passes { Self::Pass } else { Self::Fail }
    }
}

/// A node of a compiled filter.
#[derive(Clone, Debug)]
enum Node {
    /// `filter.attributes`
    Attributes(Box<[LegacyCondition]>),
    Exact(Box<[Condition]>),
    Prefix(Box<[Condition]>),
    Suffix(Box<[Condition]>),
    All(Box<[Node]>),
    Any(Box<[Node]>),
    /// Of nothing when what it holds cannot be built.
    Not(Option<Box<Node>>),
    Cesql(Expression),
}

impl Node {
    fn verdict(&self, event: &Event) -> Verdict {
        match self {
            Self::Attributes(conditions) => {
                Verdict::of(conditions.iter().all(|one| one.matches(event)))
            }
            Self::Exact(conditions) => each(conditions, event, |text, value| text == value),
            Self::Prefix(conditions) => each(conditions, event, <[u8]>::starts_with),
            Self::Suffix(conditions) => each(conditions, event, <[u8]>::ends_with),
            Self::All(nodes) => first_or_last(nodes, event, Verdict::Fail),
            Self::Any(nodes) => first_or_last(nodes, event, Verdict::Pass),
            Self::Not(node) => match node.as_ref().map(|node| node.verdict(event)) {
                Some(Verdict::Pass) => Verdict::Fail,
                Some(Verdict::Fail) => Verdict::Pass,
                Some(Verdict::None) | None => Verdict::None,
            },
            Self::Cesql(expression) => Verdict::of(expression.matches(event)),
        }
    }
}

impl Node {
    fn evaluates_cesql(&self) -> bool {
        match self {
            Self::Cesql(_) => true,
            Self::All(nodes) | Self::Any(nodes) => nodes.iter().any(Self::evaluates_cesql),
            Self::Not(node) => node.as_ref().is_some_and(|node| node.evaluates_cesql()),
            Self::Attributes(_) | Self::Exact(_) | Self::Prefix(_) | Self::Suffix(_) => false,
        }
    }

    fn complaint(&self, event: &Event) -> Option<String> {
        match self {
            Self::Cesql(expression) => expression.complaint(event),
            Self::All(nodes) | Self::Any(nodes) => {
                nodes.iter().find_map(|node| node.complaint(event))
            }
            Self::Not(node) => node.as_ref()?.complaint(event),
            Self::Attributes(_) | Self::Exact(_) | Self::Prefix(_) | Self::Suffix(_) => None,
        }
    }
}

fn each(conditions: &[Condition], event: &Event, compare: fn(&[u8], &[u8]) -> bool) -> Verdict {
    Verdict::of(
        conditions
            .iter()
            .all(|condition| condition.compare(event, compare)),
    )
}

/// The verdict that decides, at its first, else the last one; of nothing none.
fn first_or_last(nodes: &[Node], event: &Event, decides: Verdict) -> Verdict {
    let mut last = Verdict::None;
    for node in nodes {
        last = node.verdict(event);
        if last == decides {
            break;
        }
    }
    last
}

/// The filter of a Trigger.
#[derive(Clone, Debug)]
pub struct Filter {
    /// `None`: every event passes.
    root: Option<Node>,
}

impl Filter {
    /// Whether an event goes to the subscriber.
    pub fn matches(&self, event: &Event) -> bool {
        self.root
            .as_ref()
            .is_none_or(|root| root.verdict(event) != Verdict::Fail)
    }

    /// Whether any of it is CloudEvents SQL: nothing else can fail.
    pub fn evaluates_cesql(&self) -> bool {
        self.root.as_ref().is_some_and(Node::evaluates_cesql)
    }

    /// What of the filter could not be evaluated for an event, in words: the first expression with an error. Such an
    /// expression says no; that an attribute is missing is among the errors, and usual.
    pub fn complaint(&self, event: &Event) -> Option<String> {
        self.root.as_ref()?.complaint(event)
    }
}

#[cfg(test)]
mod tests;
