//! The text form of label selectors, by the grammar of Kubernetes' `labels.Parse`.
//!
//! Flow: text -> tokens -> requirements, in one pass without recursion.

use std::iter::Peekable;
use std::str::CharIndices;

use super::{Operator, Requirement};
use crate::syntax;

const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

/// A piece of the text; the empty text is its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Symbol(&'a str),
    Word(&'a str),
    End,
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Token::Symbol(text) | Token::Word(text) => text,
            Token::End => "",
        }
    }

    fn is(self, symbol: &str) -> bool {
        self == Token::Symbol(symbol)
    }

    fn is_word(self) -> bool {
        matches!(self, Token::Word(_))
    }
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((start, first)) = chars.next() {
        if is_space(first) {
            continue;
        }
        if is_symbol(first) {
            // The longest symbol: `==` and `!=` are the only ones of two characters.
            let doubled = matches!(first, '=' | '!') && matches!(chars.peek(), Some((_, '=')));
            if doubled {
                chars.next();
            }
            let end = start + 1 + usize::from(doubled);
            tokens.push(Token::Symbol(&text[start..end]));
        } else {
            let end = end_of_word(&mut chars).unwrap_or(text.len());
            tokens.push(Token::Word(&text[start..end]));
        }
    }
    tokens
}

fn end_of_word(chars: &mut Peekable<CharIndices<'_>>) -> Option<usize> {
    while let Some((at, c)) = chars.peek() {
        if is_space(*c) || is_symbol(*c) {
            return Some(*at);
        }
        chars.next();
    }
    None
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).copied().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }
}

/// Reads all requirements of a text.
pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, String> {
    let mut parser = Parser {
        tokens: tokens(text),
        at: 0,
    };
    let mut requirements = Vec::new();
    let begins = |token: Token<'_>| token.is_word() || token.is("!");
    match parser.peek() {
        Token::End => return Ok(requirements),
        token if !begins(token) => {
            let found = token.text();
            return Err(format!(
                "found '{found}', expected: !, identifier, or 'end of string'"
            ));
        }
        _ => {}
    }
    loop {
        let requirement = requirement(&mut parser)
            .map_err(|wrong| format!("unable to parse requirement: {wrong}"))?;
        requirements.push(requirement);
        match parser.next() {
            Token::End => return Ok(requirements),
            Token::Symbol(",") => {}
            other => {
                let found = other.text();
                return Err(format!("found '{found}', expected: ',' or 'end of string'"));
            }
        }
        let next = parser.peek();
        if !begins(next) {
            let found = next.text();
            return Err(format!("found '{found}', expected: identifier after ','"));
        }
    }
}

fn requirement(parser: &mut Parser<'_>) -> Result<Requirement, String> {
    let is_absent = parser.peek().is("!");
    if is_absent {
        parser.next();
    }
    let Token::Word(key) = parser.next() else {
        parser.at -= 1;
        let found = parser.peek().text();
        return Err(format!("found '{found}', expected: identifier"));
    };
    if let Some(wrong) = syntax::key_error(key) {
        return Err(format!("<nil>: Invalid value: \"{key}\": {wrong}"));
    }
    let made = |operator| Requirement {
        key: key.to_owned(),
        operator,
    };
    if is_absent {
        return Ok(made(Operator::DoesNotExist));
    }
    if parser.peek() == Token::End || parser.peek().is(",") {
        return Ok(made(Operator::Exists));
    }
    let operator = parser.next().text();
    let operator = match operator {
        "in" => Operator::In(values(parser)?),
        "notin" => Operator::NotIn(values(parser)?),
        "=" | "==" => Operator::In(vec![exact(parser)?]),
        "!=" => Operator::NotIn(vec![exact(parser)?]),
        ">" => Operator::GreaterThan(bound(parser)?),
        "<" => Operator::LessThan(bound(parser)?),
        found => return Err(format!("found '{found}', expected: {OPERATORS}")),
    };
    if let Operator::In(values) | Operator::NotIn(values) = &operator {
        check(key, values)?;
    }
    Ok(made(operator))
}

fn check(key: &str, values: &[String]) -> Result<(), String> {
    for (index, value) in values.iter().enumerate() {
        if let Some(wrong) = syntax::value_error(value) {
            return Err(format!(
                "values[{index}][{key}]: Invalid value: \"{value}\": {wrong}"
            ));
        }
    }
    Ok(())
}

/// One value; nothing before the end or a comma is the empty one.
fn exact(parser: &mut Parser<'_>) -> Result<String, String> {
    match parser.peek() {
        Token::End | Token::Symbol(",") => Ok(String::new()),
        Token::Word(value) => {
            parser.next();
            Ok(value.to_owned())
        }
        Token::Symbol(found) => Err(format!("found '{found}', expected: identifier")),
    }
}

fn bound(parser: &mut Parser<'_>) -> Result<i64, String> {
    let value = exact(parser)?;
    value.parse().map_err(|_| {
        format!(
            "values[0]: Invalid value: \"{value}\": for 'Gt', 'Lt' operators, the value must be an integer"
        )
    })
}

/// A list in parentheses; nothing in it, between two commas or beside one is the empty value.
fn values(parser: &mut Parser<'_>) -> Result<Vec<String>, String> {
    let open = parser.next();
    if !open.is("(") {
        return Err(format!("found '{}' expected: '('", open.text()));
    }
    let mut values = Vec::new();
    match parser.peek() {
        Token::Symbol(")") => {
            parser.next();
            return Ok(vec![String::new()]);
        }
        Token::Word(_) | Token::Symbol(",") => {}
        other => {
            let found = other.text();
            return Err(format!("found '{found}', expected: ',', ')' or identifier"));
        }
    }
    loop {
        if let Token::Word(value) = parser.peek() {
            parser.next();
            values.push(value.to_owned());
        } else {
            values.push(String::new());
        }
        match parser.next() {
            Token::Symbol(",") => {}
            Token::Symbol(")") => return Ok(values),
            other => {
                let found = other.text();
                return Err(format!("found '{found}', expected: ',' or ')'"));
            }
        }
    }
}
