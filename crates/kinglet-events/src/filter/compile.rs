//! From the written form of a filter to the one that is asked.

use std::collections::BTreeMap;

use super::condition::{Condition, LegacyCondition, Lookup};
use super::spec::{SubscriptionsApiFilter, TriggerFilter};
use super::{Filter, Node};
use crate::cesql::{Expression, VerifyCorrelation};

/// Levels of `all`, `any` and `not`. Nobody writes ten; parsing, compiling and asking call themselves for each.
pub const FILTER_DEPTH_MAX: usize = 32;

/// A dialect that cannot be built, and is left out as Knative does: the event passes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{dialect} is left out of the filter: {reason}")]
pub struct Skipped {
    /// The dialect.
    pub dialect: &'static str,
    /// Why it cannot be built.
    pub reason: String,
}

impl Filter {
    /// Compiles a Trigger's filter; `filters` replaces `filter` unless it is empty. What cannot be built is left out, and
    /// said. `verify` answers `KN_VERIFY_CORRELATION_ID`.
    pub fn compile(
        filter: Option<&TriggerFilter>,
        filters: &[SubscriptionsApiFilter],
        verify: Option<&VerifyCorrelation>,
    ) -> (Self, Vec<Skipped>) {
        let mut compiler = Compiler {
            verify,
            skipped: Vec::new(),
        };
        let root = if filters.is_empty() {
            filter.and_then(|filter| attributes(&filter.attributes))
        } else {
            compiler.list(filters, 0, Node::All)
        };
        (Self { root }, compiler.skipped)
    }
}

/// `filter.attributes`; none is no filter.
fn attributes(attributes: &BTreeMap<String, String>) -> Option<Node> {
    let conditions: Box<[LegacyCondition]> = attributes
        .iter()
        .map(|(name, value)| LegacyCondition {
            lookup: Lookup::new(name),
            value: value.as_bytes().into(),
        })
        .collect();
    (!conditions.is_empty()).then_some(Node::Attributes(conditions))
}

struct Compiler<'a> {
    verify: Option<&'a VerifyCorrelation>,
    skipped: Vec<Skipped>,
}

impl Compiler<'_> {
    fn skip(&mut self, dialect: &'static str, reason: impl Into<String>) -> Option<Node> {
        self.skipped.push(Skipped {
            dialect,
            reason: reason.into(),
        });
        None
    }

    /// One element is itself; of what can be built, at least one is needed.
    fn list(
        &mut self,
        filters: &[SubscriptionsApiFilter],
        depth: usize,
        wrap: fn(Box<[Node]>) -> Node,
    ) -> Option<Node> {
        let mut nodes: Vec<Node> = filters
            .iter()
            .filter_map(|filter| self.one(filter, depth))
            .collect();
        match nodes.len() {
            0 => None,
            1 => nodes.pop(),
            _ => Some(wrap(nodes.into_boxed_slice())),
        }
    }

    fn one(&mut self, filter: &SubscriptionsApiFilter, depth: usize) -> Option<Node> {
        if depth >= FILTER_DEPTH_MAX {
            return self.skip(
                "a filter",
                format!("nested deeper than {FILTER_DEPTH_MAX} levels"),
            );
        }
        if !filter.exact.is_empty() {
            return self.conditions("exact", &filter.exact, Node::Exact);
        }
        if !filter.prefix.is_empty() {
            return self.conditions("prefix", &filter.prefix, Node::Prefix);
        }
        if !filter.suffix.is_empty() {
            return self.conditions("suffix", &filter.suffix, Node::Suffix);
        }
        if !filter.all.is_empty() {
            return self.list(&filter.all, depth + 1, Node::All);
        }
        if !filter.any.is_empty() {
            return self.list(&filter.any, depth + 1, Node::Any);
        }
        if let Some(not) = &filter.not {
            return Some(Node::Not(self.one(not, depth + 1).map(Box::new)));
        }
        if filter.cesql.is_empty() {
            return None;
        }
        match Expression::parse(&filter.cesql) {
            Ok(expression) => Some(Node::Cesql(
                expression.with_correlation(self.verify.cloned()),
            )),
            Err(error) => self.skip("cesql", error.to_string()),
        }
    }

    fn conditions(
        &mut self,
        dialect: &'static str,
        attributes: &BTreeMap<String, String>,
        wrap: fn(Box<[Condition]>) -> Node,
    ) -> Option<Node> {
        if attributes
            .iter()
            .any(|(name, value)| name.is_empty() || value.is_empty())
        {
            return self.skip(dialect, "an attribute's name or value is empty");
        }
        let conditions = attributes
            .iter()
            .map(|(name, value)| Condition {
                lookup: Lookup::new(name),
                value: value.as_bytes().into(),
            })
            .collect();
        Some(wrap(conditions))
    }
}
