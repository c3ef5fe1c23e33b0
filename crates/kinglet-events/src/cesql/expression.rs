//! The parsed form of an expression.

use super::function::Call;
use super::like::Pattern;
use crate::event::{Attribute, Event, SpecVersion, Value};

/// A node of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expr {
    Text(Box<[u8]>),
    Integer(i32),
    Boolean(bool),
    Attribute(Name),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    Like {
        value: Box<Expr>,
        pattern: Pattern,
        negated: bool,
    },
    Exists(Name),
    In {
        value: Box<Expr>,
        set: Box<[Expr]>,
        negated: bool,
    },
    Math(MathOperator, Box<Expr>, Box<Expr>),
    Compare(CompareOperator, Box<Expr>, Box<Expr>),
    /// `a AND b OR c`, which is `a AND (b OR c)`: flat, so that a long chain is not a deep one.
    Logic {
        terms: Box<[(Expr, LogicOperator)]>,
        last: Box<Expr>,
    },
    Call(Call),
}

/// `* / % + -`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MathOperator {
    Multiply,
    Divide,
    Remainder,
    Add,
    Subtract,
}

/// `= != < <= > >=`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CompareOperator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// `AND OR XOR`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogicOperator {
    And,
    Or,
    Xor,
}

/// The name of an attribute in lower case, looked up by number where CloudEvents names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    name: Box<str>,
    v1: Option<Attribute>,
    v03: Option<Attribute>,
}

impl Name {
    pub(crate) fn new(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        Self {
            v1: Attribute::parse(SpecVersion::V1, &name),
            v03: Attribute::parse(SpecVersion::V03, &name),
            name: name.into_boxed_str(),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.name
    }

    /// The attribute of version 1.0 with this name.
    pub(crate) fn attribute(&self) -> Option<Attribute> {
        self.v1
    }

    /// Its value in an event.
    pub(crate) fn of<'e>(&self, event: &'e Event) -> Option<Value<'e>> {
        let attribute = match event.version() {
            SpecVersion::V1 => self.v1,
            SpecVersion::V03 => self.v03,
        };
        match attribute {
            Some(attribute) => event.attribute(attribute).map(Value::Text),
            None if &*self.name == "specversion" => {
                Some(Value::Text(event.version().as_str().as_bytes()))
            }
            None => event.extension(&self.name),
        }
    }
}
