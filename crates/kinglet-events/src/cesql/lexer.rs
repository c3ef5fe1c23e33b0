//! Tokens of CESQL (spec/eventing.md 9.1).

use winnow::Parser;
use winnow::ascii::digit1;
use winnow::combinator::{alt, delimited, opt, repeat};
use winnow::error::{ContextError, ParserError};
use winnow::token::{any, none_of, one_of, take_while};

use super::error::ParseError;

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Text(Vec<u8>),
    Integer(i32),
    Boolean(bool),
    /// Letters and digits: an attribute, or a function when letters only.
    Name(String),
    /// A name with underscores, which is a function's only.
    FunctionName(String),
    Keyword(Keyword),
    Symbol(Symbol),
}

/// A word that is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    And,
    Or,
    Xor,
    Not,
    Like,
    Exists,
    In,
}

/// An operator or a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Symbol {
    Open,
    Close,
    Comma,
    Star,
    Slash,
    Percent,
    Plus,
    Minus,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

type Lexed<T> = Result<T, ContextError>;

/// A token and the byte where it begins.
pub(super) type Placed = (usize, Token);

/// All tokens of a text.
pub(super) fn tokens(text: &str) -> Result<Vec<Placed>, ParseError> {
    let mut rest = text;
    let mut tokens = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        if rest.is_empty() {
            return Ok(tokens);
        }
        let at = text.len() - rest.len();
        let before = rest;
        let token = token(&mut rest).map_err(|_: ContextError| ParseError::Unexpected {
            at,
            expected: expected(before),
            found: crate::event::shorten(before),
        })?;
        tokens.push((at, token));
    }
}

/// What was meant, by the first character.
fn expected(text: &str) -> &'static str {
    match text.as_bytes().first() {
        Some(b'\'' | b'"') => "a string with an end",
        Some(b'0'..=b'9' | b'+' | b'-') => "an integer of 32 bits",
        _ => "a name, a value or an operator",
    }
}

/// The longest that begins here: `-1` is a number, `1a` a name.
fn token(input: &mut &str) -> Lexed<Token> {
    alt((string('\''), string('"'), word, integer, symbol)).parse_next(input)
}

/// `\` escapes any character and quotes may be doubled, but only `\` before the same quote is taken out.
fn string<'s>(quote: char) -> impl Parser<&'s str, Token, ContextError> {
    let character = alt((
        ('\\', any).void(),
        (quote, quote).void(),
        none_of([quote, '\\']).void(),
    ));
    delimited(quote, repeat(0.., character).map(|(): ()| ()).take(), quote)
        .map(move |inside: &str| Token::Text(unescape(inside, quote)))
}

fn unescape(inside: &str, quote: char) -> Vec<u8> {
    inside
        .replace(&format!("\\{quote}"), &quote.to_string())
        .into_bytes()
}

fn integer(input: &mut &str) -> Lexed<Token> {
    let digits = (opt(one_of(['+', '-'])), digit1).take().parse_next(input)?;
    digits
        .parse()
        .map(Token::Integer)
        .map_err(|_| ContextError::from_input(input))
}

/// A name that is not all digits, or a keyword.
fn word(input: &mut &str) -> Lexed<Token> {
    let start = *input;
    let name: &str = take_while(1.., |c: char| c.is_ascii_alphanumeric()).parse_next(input)?;
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ContextError::from_input(input));
    }
    let functions = start.find(|c: char| !c.is_ascii_alphabetic() && c != '_');
    let function = &start[..functions.unwrap_or(start.len())];
    if function.len() > name.len() {
        *input = &start[function.len()..];
        return Ok(Token::FunctionName(function.to_ascii_uppercase()));
    }
    Ok(match name.to_ascii_uppercase().as_str() {
        "TRUE" => Token::Boolean(true),
        "FALSE" => Token::Boolean(false),
        "AND" => Token::Keyword(Keyword::And),
        "OR" => Token::Keyword(Keyword::Or),
        "XOR" => Token::Keyword(Keyword::Xor),
        "NOT" => Token::Keyword(Keyword::Not),
        "LIKE" => Token::Keyword(Keyword::Like),
        "EXISTS" => Token::Keyword(Keyword::Exists),
        "IN" => Token::Keyword(Keyword::In),
        _ => Token::Name(name.to_owned()),
    })
}

fn symbol(input: &mut &str) -> Lexed<Token> {
    let mark = alt((
        "(".value(Symbol::Open),
        ")".value(Symbol::Close),
        ",".value(Symbol::Comma),
        "*".value(Symbol::Star),
        "/".value(Symbol::Slash),
        "%".value(Symbol::Percent),
    ));
    let comparison = alt((
        "!=".value(Symbol::NotEqual),
        "<>".value(Symbol::NotEqual),
        "<=".value(Symbol::LessOrEqual),
        "<".value(Symbol::Less),
        ">=".value(Symbol::GreaterOrEqual),
        ">".value(Symbol::Greater),
        "=".value(Symbol::Equal),
    ));
    alt((mark, plus_or_minus, comparison))
        .map(Token::Symbol)
        .parse_next(input)
}

/// Not before a digit: there it belongs to the number, which did not fit.
fn plus_or_minus(input: &mut &str) -> Lexed<Symbol> {
    let symbol = alt(("+".value(Symbol::Plus), "-".value(Symbol::Minus))).parse_next(input)?;
    if input.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(ContextError::from_input(input));
    }
    Ok(symbol)
}
