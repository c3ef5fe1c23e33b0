//! Errors of CESQL, by the names of its specification.

use super::cast::{Kind, Scalar};

/// Why a text is no expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Longer than is read.
    #[error("an expression of {bytes} bytes; at most {max} are read")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// Nested deeper than is read.
    #[error("nested deeper than {max} levels at byte {at}")]
    TooDeep {
        /// Where.
        at: usize,
        /// The bound.
        max: usize,
    },
    /// Not of the grammar.
    #[error("at byte {at}: expected {expected}, found {found}")]
    Unexpected {
        /// Where, in bytes.
        at: usize,
        /// What may stand there.
        expected: &'static str,
        /// What does.
        found: String,
    },
}

/// The first error of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CesqlError {
    /// `cast`
    #[error("cast error: {value} is no {kind}")]
    Cast {
        /// The value, shortened.
        value: String,
        /// The type it was to be.
        kind: &'static str,
    },
    /// `math`
    #[error("math error: division by zero")]
    Math,
    /// `missingAttribute`
    #[error("missing attribute: the event has no {0}")]
    MissingAttribute(String),
    /// `missingFunction`
    #[error("missing function: there is no {name} with {arguments} arguments")]
    MissingFunction {
        /// Its name in upper case.
        name: String,
        /// Arguments given.
        arguments: usize,
    },
    /// `functionEvaluation`
    #[error("function evaluation error: {0}")]
    FunctionEvaluation(String),
    /// Ours: the evaluation would take too long.
    #[error("the evaluation handles more than {0} bytes of text")]
    TooMuchWork(usize),
}

/// An error that borrows, since in a filter it is an ordinary answer and is thrown away.
#[derive(Clone, Debug)]
pub(super) enum Fault<'a> {
    Cast(Scalar<'a>, Kind),
    Math,
    MissingAttribute(&'a str),
    MissingFunction(&'a str, usize),
    Function(String),
    TooMuchWork,
}

impl Fault<'_> {
    pub(super) fn into_error(self) -> CesqlError {
        match self {
            Self::Cast(value, kind) => CesqlError::Cast {
                value: value.shown(),
                kind: kind.name(),
            },
            Self::Math => CesqlError::Math,
            Self::MissingAttribute(name) => CesqlError::MissingAttribute(name.to_owned()),
            Self::MissingFunction(name, arguments) => CesqlError::MissingFunction {
                name: name.to_owned(),
                arguments,
            },
            Self::Function(reason) => CesqlError::FunctionEvaluation(reason),
            Self::TooMuchWork => CesqlError::TooMuchWork(super::EVALUATION_BYTES_MAX),
        }
    }
}
