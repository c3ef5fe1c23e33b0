//! Evaluation (spec/eventing.md 9.4): the first error ends it.

use std::borrow::Cow;

use super::cast::{Kind, Scalar};
use super::error::{CesqlError, Fault};
use super::expression::{CompareOperator, Expr, LogicOperator, MathOperator, Name};
use super::like::{OutOfWork, spend};
use super::{CesqlValue, VerifyCorrelation};
use crate::event::Event;

/// Bytes of text that one evaluation may compare or make: about a millisecond. What takes more is an error, so that no
/// expression of a tenant and no event holds a thread.
pub const EVALUATION_BYTES_MAX: usize = 1 << 20;

/// A value, and the error that there was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The value; with an error what upstream has beside it.
    pub value: CesqlValue,
    /// The first error.
    pub error: Option<CesqlError>,
}

/// An error, and the value beside it where that is not the zero of the type.
pub(super) struct Failure<'a> {
    fault: Fault<'a>,
    value: Option<CesqlValue>,
}

impl<'a> From<Fault<'a>> for Failure<'a> {
    fn from(fault: Fault<'a>) -> Self {
        Self { fault, value: None }
    }
}

impl From<OutOfWork> for Failure<'_> {
    fn from(OutOfWork: OutOfWork) -> Self {
        Fault::TooMuchWork.into()
    }
}

impl Failure<'_> {
    pub(super) fn with(mut self, value: CesqlValue) -> Self {
        self.value = Some(value);
        self
    }

    /// The value beside an error of a part is not that of the whole.
    pub(super) fn of_a_part(mut self) -> Self {
        self.value = None;
        self
    }
}

/// What an evaluation looks at, and how much it may still do.
pub(super) struct Context<'a> {
    event: &'a Event,
    pub(super) verify: Option<&'a VerifyCorrelation>,
    work: usize,
}

type Evaluated<'a> = Result<Scalar<'a>, Failure<'a>>;

fn context<'a>(event: &'a Event, verify: Option<&'a VerifyCorrelation>) -> Context<'a> {
    Context {
        event,
        verify,
        work: EVALUATION_BYTES_MAX,
    }
}

pub(super) fn matches(root: &Expr, event: &Event, verify: Option<&VerifyCorrelation>) -> bool {
    matches!(
        context(event, verify).evaluate(root),
        Ok(Scalar::Boolean(true))
    )
}

pub(super) fn outcome(root: &Expr, event: &Event, verify: Option<&VerifyCorrelation>) -> Outcome {
    match context(event, verify).evaluate(root) {
        Ok(value) => Outcome {
            value: value.into_value(),
            error: None,
        },
        Err(Failure { fault, value }) => Outcome {
            value: value
                .filter(|_| matches!(root, Expr::Call(_)))
                .unwrap_or_else(|| kind(root).zero()),
            error: Some(fault.into_error()),
        },
    }
}

/// The type of an expression's value; that of an attribute is known with the event only, and an absent one is `false`.
fn kind(root: &Expr) -> Kind {
    match root {
        Expr::Text(_) => Kind::Text,
        Expr::Integer(_) | Expr::Negate(_) | Expr::Math(..) => Kind::Integer,
        Expr::Call(call) => call.kind(),
        Expr::Boolean(_)
        | Expr::Attribute(_)
        | Expr::Not(_)
        | Expr::Like { .. }
        | Expr::Exists(_)
        | Expr::In { .. }
        | Expr::Compare(..)
        | Expr::Logic { .. } => Kind::Boolean,
    }
}

impl<'a> Context<'a> {
    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), OutOfWork> {
        spend(&mut self.work, bytes)
    }

    pub(super) fn evaluate(&mut self, expression: &'a Expr) -> Evaluated<'a> {
        Ok(match expression {
            Expr::Text(text) => Scalar::Text(Cow::Borrowed(text)),
            Expr::Integer(number) => Scalar::Integer(*number),
            Expr::Boolean(boolean) => Scalar::Boolean(*boolean),
            Expr::Attribute(name) => self.attribute(name)?,
            Expr::Exists(name) => Scalar::Boolean(name.of(self.event).is_some()),
            Expr::Not(operand) => Scalar::Boolean(!self.boolean(operand)?),
            Expr::Negate(operand) => Scalar::Integer(self.integer(operand)?.wrapping_neg()),
            Expr::Like {
                value,
                pattern,
                negated,
            } => {
                let text = self.evaluate(value)?.into_text();
                Scalar::Boolean(pattern.matches(&text, &mut self.work)? != *negated)
            }
            Expr::In {
                value,
                set,
                negated,
            } => Scalar::Boolean(self.is_in(value, set)? != *negated),
            Expr::Math(operator, left, right) => {
                let (left, right) = (self.integer(left)?, self.integer(right)?);
                Scalar::Integer(math(*operator, left, right)?)
            }
            Expr::Compare(operator, left, right) => {
                Scalar::Boolean(self.compare(*operator, left, right)?)
            }
            Expr::Logic { terms, last } => Scalar::Boolean(self.logic(terms, last)?),
            Expr::Call(call) => call.evaluate(self)?,
        })
    }

    fn integer(&mut self, expression: &'a Expr) -> Result<i32, Failure<'a>> {
        Ok(self.evaluate(expression)?.into_integer()?)
    }

    fn boolean(&mut self, expression: &'a Expr) -> Result<bool, Failure<'a>> {
        Ok(self.evaluate(expression)?.into_boolean()?)
    }

    fn attribute(&self, name: &'a Name) -> Evaluated<'a> {
        match name.of(self.event) {
            Some(value) => Ok(value.into()),
            None => Err(Fault::MissingAttribute(name.as_str()).into()),
        }
    }

    /// Elements are cast to the type of the value; they are looked at up to the first that is equal.
    fn is_in(&mut self, value: &'a Expr, set: &'a [Expr]) -> Result<bool, Failure<'a>> {
        let value = self.evaluate(value)?;
        for element in set {
            if self.evaluate(element)?.equals(&value)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn compare(
        &mut self,
        operator: CompareOperator,
        left: &'a Expr,
        right: &'a Expr,
    ) -> Result<bool, Failure<'a>> {
        if let CompareOperator::Equal | CompareOperator::NotEqual = operator {
            let (left, right) = (self.evaluate(left)?, self.evaluate(right)?);
            return Ok(left.equals(&right)? == (operator == CompareOperator::Equal));
        }
        let (left, right) = (self.integer(left)?, self.integer(right)?);
        Ok(match operator {
            CompareOperator::Less => left < right,
            CompareOperator::LessOrEqual => left <= right,
            CompareOperator::Greater => left > right,
            CompareOperator::GreaterOrEqual => left >= right,
            CompareOperator::Equal | CompareOperator::NotEqual => left == right,
        })
    }

    /// `a op (b op (c …))` from the left: `AND` of false and `OR` of true decide, `XOR` turns what follows.
    fn logic(
        &mut self,
        terms: &'a [(Expr, LogicOperator)],
        last: &'a Expr,
    ) -> Result<bool, Failure<'a>> {
        let mut turned = false;
        for (term, operator) in terms {
            let value = self.boolean(term)?;
            match operator {
                LogicOperator::And if !value => return Ok(turned),
                LogicOperator::Or if value => return Ok(!turned),
                LogicOperator::Xor => turned ^= value,
                LogicOperator::And | LogicOperator::Or => {}
            }
        }
        Ok(self.boolean(last)? != turned)
    }
}

/// Overflow wraps.
fn math<'a>(operator: MathOperator, left: i32, right: i32) -> Result<i32, Failure<'a>> {
    Ok(match operator {
        MathOperator::Multiply => left.wrapping_mul(right),
        MathOperator::Add => left.wrapping_add(right),
        MathOperator::Subtract => left.wrapping_sub(right),
        MathOperator::Divide | MathOperator::Remainder if right == 0 => {
            return Err(Fault::Math.into());
        }
        MathOperator::Divide => left.wrapping_div(right),
        MathOperator::Remainder => left.wrapping_rem(right),
    })
}
