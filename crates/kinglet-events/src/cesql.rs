//! CloudEvents SQL (spec/eventing.md 9), the dialect of the SDK that Knative's filters use.
//!
//! Flow: text -> `lexer` -> `parser` -> [`Expression`] -> `evaluate` over an event -> a value, and the first error.
//! Always: an expression is bounded in bytes and depth, an evaluation in work; no text makes either panic.
//! winnow cuts the tokens. Levels, bounds and messages of the grammar are ours, a page of precedence climbing: no crate
//! reads CESQL, and this project's filters are what it exists for.

mod cast;
mod error;
mod evaluate;
mod expression;
mod function;
mod lexer;
mod like;
mod parser;

use std::fmt;
use std::sync::Arc;

use crate::event::Event;

pub use error::{CesqlError, ParseError};
pub use evaluate::{EVALUATION_BYTES_MAX, Outcome};
pub use parser::{EXPRESSION_BYTES_MAX, EXPRESSION_DEPTH_MAX};

pub(crate) use expression::{CompareOperator, Expr, LogicOperator, Name};

/// A value of CESQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CesqlValue {
    /// Bytes, which functions can cut in the middle of a character, as in Go.
    String(Vec<u8>),
    /// A number of 32 bits.
    Integer(i32),
    /// A boolean.
    Boolean(bool),
}

impl From<&str> for CesqlValue {
    fn from(text: &str) -> Self {
        Self::String(text.as_bytes().to_vec())
    }
}

impl From<i32> for CesqlValue {
    fn from(number: i32) -> Self {
        Self::Integer(number)
    }
}

impl From<bool> for CesqlValue {
    fn from(boolean: bool) -> Self {
        Self::Boolean(boolean)
    }
}

/// What `KN_VERIFY_CORRELATION_ID` is asked: whether the id was made by this replica of a RequestReply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Correlation<'a> {
    /// The correlation id of the event.
    pub id: &'a str,
    /// Name of the RequestReply.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// The Secret with its keys.
    pub secret: &'a str,
    /// The replica, and how many there are.
    pub pod: (i32, i32),
}

/// Answers [`Correlation`] from the keys of a Secret, or says why it cannot.
pub type VerifyCorrelation =
    Arc<dyn Fn(&Correlation<'_>) -> Result<bool, String> + Send + Sync + 'static>;

/// An expression, parsed once and evaluated for each event.
#[derive(Clone)]
pub struct Expression {
    text: Arc<str>,
    root: Arc<Expr>,
    verify: Option<VerifyCorrelation>,
}

impl fmt::Debug for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.fmt(formatter)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Expression {
    /// Parses an expression.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parser::parse(text).map(|root| Self {
            text: text.into(),
            root: Arc::new(root),
            verify: None,
        })
    }

    /// Gives it what answers `KN_VERIFY_CORRELATION_ID`; without it the function is missing.
    #[must_use]
    pub fn with_correlation(mut self, verify: Option<VerifyCorrelation>) -> Self {
        self.verify = verify;
        self
    }

    /// The value for an event, and the first error. With an error the value is what upstream's evaluator has beside it:
    /// mostly the zero of the type.
    pub fn evaluate(&self, event: &Event) -> Outcome {
        evaluate::outcome(&self.root, event, self.verify.as_ref())
    }

    /// Whether it is true for an event. An error is a no, and so is a value that is no boolean.
    pub fn matches(&self, event: &Event) -> bool {
        evaluate::matches(&self.root, event, self.verify.as_ref())
    }

    /// Why it is neither true nor false for an event: an error, or a value that is no Boolean. In words.
    pub fn complaint(&self, event: &Event) -> Option<String> {
        let shown = crate::event::shorten(&self.text);
        match self.evaluate(event) {
            Outcome {
                error: Some(error), ..
            } => Some(format!("the CESQL expression {shown:?}: {error}")),
            Outcome {
                value: CesqlValue::Boolean(_),
                error: None,
            } => None,
            Outcome { error: None, .. } => Some(format!(
                "the CESQL expression {shown:?} is neither true nor false; compare its value with something"
            )),
        }
    }

    pub(crate) fn root(&self) -> &Expr {
        &self.root
    }
}

#[cfg(test)]
mod tests;
