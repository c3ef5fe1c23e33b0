//! Functions of CESQL (spec/eventing.md 9.5).

use std::borrow::Cow;

use super::Correlation;
use super::cast::{Kind, Scalar, Text};
use super::error::Fault;
use super::evaluate::{Context, Failure};
use super::expression::Expr;

/// A call. A function that does not exist is found missing when it is evaluated, as upstream does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    name: Box<str>,
    function: Option<Function>,
    arguments: Box<[Expr]>,
}

/// A function. Names are in upper case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Int,
    Bool,
    String,
    IsInt,
    IsBool,
    Abs,
    Length,
    Concat,
    ConcatWs,
    Lower,
    Upper,
    Trim,
    Left,
    Right,
    Substring,
    SubstringLength,
    VerifyCorrelationId,
}

impl Function {
    fn find(name: &str, arguments: usize) -> Option<Self> {
        Some(match (name, arguments) {
            ("INT", 1) => Self::Int,
            ("BOOL", 1) => Self::Bool,
            ("STRING", 1) => Self::String,
            ("IS_INT", 1) => Self::IsInt,
            ("IS_BOOL", 1) => Self::IsBool,
            ("ABS", 1) => Self::Abs,
            ("LENGTH", 1) => Self::Length,
            ("CONCAT", _) => Self::Concat,
            ("CONCAT_WS", 1..) => Self::ConcatWs,
            ("LOWER", 1) => Self::Lower,
            ("UPPER", 1) => Self::Upper,
            ("TRIM", 1) => Self::Trim,
            ("LEFT", 2) => Self::Left,
            ("RIGHT", 2) => Self::Right,
            ("SUBSTRING", 2) => Self::Substring,
            ("SUBSTRING", 3) => Self::SubstringLength,
            ("KN_VERIFY_CORRELATION_ID", 6) => Self::VerifyCorrelationId,
            _ => return None,
        })
    }

    fn result(self) -> Kind {
        match self {
            Self::Int | Self::Abs | Self::Length => Kind::Integer,
            Self::Bool | Self::IsInt | Self::IsBool | Self::VerifyCorrelationId => Kind::Boolean,
            Self::String
            | Self::Concat
            | Self::ConcatWs
            | Self::Lower
            | Self::Upper
            | Self::Trim
            | Self::Left
            | Self::Right
            | Self::Substring
            | Self::SubstringLength => Kind::Text,
        }
    }
}

impl Call {
    pub(super) fn new(name: &str, arguments: Box<[Expr]>) -> Self {
        let name = name.to_ascii_uppercase();
        Self {
            function: Function::find(&name, arguments.len()),
            name: name.into_boxed_str(),
            arguments,
        }
    }

    /// The type of the result; that of a missing function is Boolean.
    pub(super) fn kind(&self) -> Kind {
        self.function.map_or(Kind::Boolean, Function::result)
    }

    pub(super) fn evaluate<'a>(
        &'a self,
        context: &mut Context<'a>,
    ) -> Result<Scalar<'a>, Failure<'a>> {
        let missing = || Fault::MissingFunction(&self.name, self.arguments.len());
        let function = self.function.ok_or_else(missing)?;
        let mut arguments = Arguments {
            expressions: &self.arguments,
            context,
        };
        Ok(match function {
            Function::Int => Scalar::Integer(arguments.integer(0)?),
            Function::Bool => Scalar::Boolean(arguments.boolean(0)?),
            Function::String => Scalar::Text(arguments.text(0)?),
            Function::IsInt => Scalar::Boolean(arguments.any(0)?.to_integer().is_some()),
            Function::IsBool => Scalar::Boolean(arguments.any(0)?.to_boolean().is_some()),
            Function::Abs => Scalar::Integer(abs(arguments.integer(0)?)?),
            Function::Length => Scalar::Integer(length(&arguments.text(0)?)),
            Function::Concat => Scalar::Text(arguments.join(0, &Cow::Borrowed(b""))?),
            Function::ConcatWs => {
                let separator = arguments.text(0)?;
                Scalar::Text(arguments.join(1, &separator)?)
            }
            Function::Lower => Scalar::Text(arguments.mapped(lower)?),
            Function::Upper => Scalar::Text(arguments.mapped(upper)?),
            Function::Trim => Scalar::Text(trim(arguments.text(0)?)),
            Function::Left | Function::Right => {
                let (text, count) = (arguments.text(0)?, arguments.integer(1)?);
                Scalar::Text(end_of(text, count, function == Function::Left)?)
            }
            Function::Substring | Function::SubstringLength => {
                let (text, position) = (arguments.text(0)?, arguments.integer(1)?);
                let length = match function {
                    Function::SubstringLength => Some(arguments.integer(2)?),
                    _ => None,
                };
                Scalar::Text(substring(text, position, length)?)
            }
            Function::VerifyCorrelationId => {
                let Some(verify) = arguments.context.verify else {
                    return Err(missing().into());
                };
                Scalar::Boolean(arguments.correlation(verify)?)
            }
        })
    }
}

/// Arguments, each evaluated and cast when it is asked for.
struct Arguments<'a, 'c> {
    expressions: &'a [Expr],
    context: &'c mut Context<'a>,
}

impl<'a> Arguments<'a, '_> {
    fn any(&mut self, at: usize) -> Result<Scalar<'a>, Failure<'a>> {
        let argument = self.context.evaluate(&self.expressions[at]);
        argument.map_err(Failure::of_a_part)
    }

    fn text(&mut self, at: usize) -> Result<Text<'a>, Failure<'a>> {
        Ok(self.any(at)?.into_text())
    }

    fn integer(&mut self, at: usize) -> Result<i32, Failure<'a>> {
        Ok(self.any(at)?.into_integer()?)
    }

    fn boolean(&mut self, at: usize) -> Result<bool, Failure<'a>> {
        Ok(self.any(at)?.into_boolean()?)
    }

    fn join(&mut self, from: usize, separator: &Text<'a>) -> Result<Text<'a>, Failure<'a>> {
        let mut joined = Vec::new();
        for at in from..self.expressions.len() {
            let text = self.text(at)?;
            self.context.spend(separator.len() + text.len())?;
            if at > from {
                joined.extend_from_slice(separator);
            }
            joined.extend_from_slice(&text);
        }
        Ok(Cow::Owned(joined))
    }

    /// Each character mapped to one; those that have no single counterpart stay, as in Go.
    fn mapped(&mut self, map: fn(char) -> char) -> Result<Text<'a>, Failure<'a>> {
        let text = self.text(0)?;
        self.context.spend(text.len())?;
        let text = String::from_utf8_lossy(&text);
        let mapped: String = text.chars().map(map).collect();
        Ok(Cow::Owned(mapped.into_bytes()))
    }

    fn correlation(&mut self, verify: &super::VerifyCorrelation) -> Result<bool, Failure<'a>> {
        let mut texts = [const { String::new() }; 4];
        for (at, text) in texts.iter_mut().enumerate() {
            *text = String::from_utf8_lossy(&self.text(at)?).into_owned();
        }
        let pod = (self.integer(4)?, self.integer(5)?);
        let [id, name, namespace, secret] = &texts;
        verify(&Correlation {
            id,
            name,
            namespace,
            secret,
            pod,
        })
        .map_err(|reason| Fault::Function(reason).into())
    }
}

fn function_error<'a>(reason: impl Into<String>) -> Failure<'a> {
    Fault::Function(reason.into()).into()
}

fn abs<'a>(number: i32) -> Result<i32, Failure<'a>> {
    number.checked_abs().ok_or_else(|| {
        function_error("ABS of the smallest number does not fit").with(i32::MAX.into())
    })
}

fn length(text: &[u8]) -> i32 {
    i32::try_from(text.len()).unwrap_or(i32::MAX)
}

fn lower(c: char) -> char {
    match c {
        // Its lower case of two characters is for Turkish; Go has the plain letter.
        'İ' => 'i',
        _ => only(c.to_lowercase(), c),
    }
}

fn upper(c: char) -> char {
    only(c.to_uppercase(), c)
}

fn only(mut mapped: impl Iterator<Item = char>, otherwise: char) -> char {
    match (mapped.next(), mapped.next()) {
        (Some(one), None) => one,
        _ => otherwise,
    }
}

fn trim(text: Text<'_>) -> Text<'_> {
    fn trimmed(text: &[u8]) -> &[u8] {
        match std::str::from_utf8(text) {
            Ok(text) => text.trim().as_bytes(),
            Err(_) => text.trim_ascii(),
        }
    }
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(trimmed(text)),
        Cow::Owned(text) => Cow::Owned(trimmed(&text).to_vec()),
    }
}

/// A part of a text, without a copy where it is somebody's.
fn part(text: Text<'_>, from: usize, to: usize) -> Text<'_> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[from..to]),
        Cow::Owned(text) => Cow::Owned(text[from..to].to_vec()),
    }
}

/// `LEFT` and `RIGHT`.
fn end_of(text: Text<'_>, count: i32, left: bool) -> Result<Text<'_>, Failure<'_>> {
    let Ok(count) = usize::try_from(count) else {
        let reason = format!(
            "{} with a length below 0",
            if left { "LEFT" } else { "RIGHT" }
        );
        return Err(function_error(reason).with(Scalar::Text(text).into_value()));
    };
    let length = text.len();
    Ok(match count {
        _ if count >= length => text,
        _ if left => part(text, 0, count),
        _ => part(text, length - count, length),
    })
}

/// Counted in bytes from 1, or from the end below 0.
fn substring(text: Text<'_>, position: i32, count: Option<i32>) -> Result<Text<'_>, Failure<'_>> {
    let length = text.len();
    let Ok(count) = count.map(usize::try_from).transpose() else {
        return Err(function_error("SUBSTRING with a length below 0"));
    };
    let distance = usize::try_from(position.unsigned_abs()).unwrap_or(usize::MAX);
    if position == 0 {
        return Ok(Cow::Borrowed(b""));
    }
    if distance > length {
        return Err(function_error(format!(
            "SUBSTRING from {position} of a text of {length} bytes"
        )));
    }
    let from = if position > 0 {
        distance - 1
    } else {
        length - distance
    };
    let to = count.map_or(length, |count| from.saturating_add(count).min(length));
    Ok(part(text, from, to))
}
