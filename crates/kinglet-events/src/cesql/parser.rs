//! The grammar of CESQL (spec/eventing.md 9.2), by precedence climbing over the tokens.

use super::error::ParseError;
use super::expression::{CompareOperator, Expr, LogicOperator, MathOperator, Name};
use super::function::Call;
use super::lexer::{Keyword, Placed, Symbol, Token, tokens};
use super::like::Pattern;

/// An expression. Knative has no bound; this is hundreds of terms, and evaluated for every event.
pub const EXPRESSION_BYTES_MAX: usize = 16 << 10;
/// Levels of an expression, which is how deep parsing, evaluating and dropping it call themselves.
pub const EXPRESSION_DEPTH_MAX: usize = 100;

/// How tightly operators bind; a prefix binds more tightly than all of them.
mod level {
    pub(super) const LOGIC: u8 = 1;
    pub(super) const COMPARE: u8 = 2;
    pub(super) const ADD: u8 = 3;
    pub(super) const MULTIPLY: u8 = 4;
    pub(super) const IN: u8 = 5;
    pub(super) const LIKE: u8 = 6;
    pub(super) const NEGATE: u8 = 7;
    pub(super) const NOT: u8 = 8;
}

/// Parses all of a text.
pub(super) fn parse(text: &str) -> Result<Expr, ParseError> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(ParseError::TooLong {
            bytes: text.len(),
            max: EXPRESSION_BYTES_MAX,
        });
    }
    let mut parser = Parser {
        tokens: tokens(text)?,
        next: 0,
        end: text.len(),
    };
    let (root, _) = parser.expression(level::LOGIC, 0)?;
    match parser.peek() {
        None => Ok(root),
        Some(_) => Err(parser.unexpected("an operator or the end")),
    }
}

struct Parser {
    tokens: Vec<Placed>,
    next: usize,
    end: usize,
}

/// An expression, and how many levels are below it.
type Deep = (Expr, usize);

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(at, _)| *at)
    }

    fn unexpected(&self, expected: &'static str) -> ParseError {
        ParseError::Unexpected {
            at: self.at(),
            expected,
            found: match self.peek() {
                None => "the end".to_owned(),
                Some(token) => crate::event::shorten(&format!("{token:?}")),
            },
        }
    }

    fn take_symbol(&mut self, symbol: Symbol) -> bool {
        let there = self.peek() == Some(&Token::Symbol(symbol));
        self.next += usize::from(there);
        there
    }

    fn need_symbol(&mut self, symbol: Symbol, expected: &'static str) -> Result<(), ParseError> {
        if self.take_symbol(symbol) {
            Ok(())
        } else {
            Err(self.unexpected(expected))
        }
    }

    fn take_keyword(&mut self, keyword: Keyword) -> bool {
        let there = self.peek() == Some(&Token::Keyword(keyword));
        self.next += usize::from(there);
        there
    }

    /// Refuses what is too deep, `above` or below.
    fn bounded(&self, above: usize, below: usize) -> Result<usize, ParseError> {
        if above + below > EXPRESSION_DEPTH_MAX {
            return Err(ParseError::TooDeep {
                at: self.at(),
                max: EXPRESSION_DEPTH_MAX,
            });
        }
        Ok(below)
    }

    /// An expression of operators that bind at least as tightly as `least`, `above` levels deep.
    fn expression(&mut self, least: u8, above: usize) -> Result<Deep, ParseError> {
        self.bounded(above, 1)?;
        let mut left = self.primary(above)?;
        loop {
            let start = self.next;
            let Some((level, operator)) = self.operator() else {
                return Ok(left);
            };
            if level < least {
                self.next = start;
                return Ok(left);
            }
            left = self.apply(left, level, operator, above)?;
        }
    }

    /// The operator that comes next, taken.
    fn operator(&mut self) -> Option<(u8, Operator)> {
        let start = self.next;
        let negated = self.take_keyword(Keyword::Not);
        let token = self.peek().cloned();
        self.next += 1;
        let found = match (token, negated) {
            (Some(Token::Keyword(Keyword::Like)), _) => (level::LIKE, Operator::Like { negated }),
            (Some(Token::Keyword(Keyword::In)), _) => (level::IN, Operator::In { negated }),
            (Some(token), false) => match binary(&token) {
                Some(found) => found,
                None => {
                    self.next = start;
                    return None;
                }
            },
            _ => {
                self.next = start;
                return None;
            }
        };
        Some(found)
    }

    fn apply(
        &mut self,
        (left, below): Deep,
        level: u8,
        operator: Operator,
        above: usize,
    ) -> Result<Deep, ParseError> {
        let (built, below) = match operator {
            Operator::Like { negated } => {
                let Some(Token::Text(pattern)) = self.peek() else {
                    return Err(self.unexpected("a string, the pattern of LIKE"));
                };
                let pattern = Pattern::new(pattern);
                self.next += 1;
                let value = Box::new(left);
                (
                    Expr::Like {
                        value,
                        pattern,
                        negated,
                    },
                    below,
                )
            }
            Operator::In { negated } => {
                self.need_symbol(Symbol::Open, "( and the elements of IN")?;
                let (set, set_below) = self.list(above)?;
                let value = Box::new(left);
                (
                    Expr::In {
                        value,
                        set,
                        negated,
                    },
                    below.max(set_below),
                )
            }
            Operator::Math(operator) => {
                let (right, right_below) = self.expression(level + 1, above + 1)?;
                let built = Expr::Math(operator, Box::new(left), Box::new(right));
                (built, below.max(right_below))
            }
            Operator::Compare(operator) => {
                let (right, right_below) = self.expression(level + 1, above + 1)?;
                let built = Expr::Compare(operator, Box::new(left), Box::new(right));
                (built, below.max(right_below))
            }
            Operator::Logic(operator) => self.logic((left, below), operator, above)?,
        };
        Ok((built, self.bounded(above, below + 1)?))
    }

    /// All of `left AND b OR c …`: the operators associate to the right, and are kept in a row.
    fn logic(
        &mut self,
        (left, mut below): Deep,
        operator: LogicOperator,
        above: usize,
    ) -> Result<Deep, ParseError> {
        let mut terms = vec![(left, operator)];
        loop {
            let (term, term_below) = self.expression(level::LOGIC + 1, above + 1)?;
            below = below.max(term_below);
            let start = self.next;
            match self.operator() {
                Some((_, Operator::Logic(operator))) => terms.push((term, operator)),
                _ => {
                    self.next = start;
                    let (terms, last) = (terms.into_boxed_slice(), Box::new(term));
                    return Ok((Expr::Logic { terms, last }, below));
                }
            }
        }
    }

    /// What stands between operators.
    fn primary(&mut self, above: usize) -> Result<Deep, ParseError> {
        let Some(token) = self.peek().cloned() else {
            return Err(self.unexpected("an expression"));
        };
        let start = self.next;
        self.next += 1;
        let atom = match token {
            Token::Text(text) => Expr::Text(text.into_boxed_slice()),
            Token::Integer(number) => Expr::Integer(number),
            Token::Boolean(boolean) => Expr::Boolean(boolean),
            Token::Keyword(Keyword::Exists) => match self.peek() {
                Some(Token::Name(name)) => {
                    let name = Name::new(name);
                    self.next += 1;
                    Expr::Exists(name)
                }
                _ => return Err(self.unexpected("the name of an attribute")),
            },
            Token::Keyword(Keyword::Not) => {
                let (operand, below) = self.expression(level::NOT, above + 1)?;
                return Ok((Expr::Not(Box::new(operand)), below + 1));
            }
            Token::Symbol(Symbol::Minus) => {
                let (operand, below) = self.expression(level::NEGATE, above + 1)?;
                return Ok((Expr::Negate(Box::new(operand)), below + 1));
            }
            Token::Symbol(Symbol::Open) => {
                let (inside, below) = self.expression(level::LOGIC, above + 1)?;
                self.need_symbol(Symbol::Close, ") or an operator")?;
                return Ok((inside, below));
            }
            Token::Name(name) => {
                let function = name.bytes().all(|byte| byte.is_ascii_alphabetic());
                if function && self.take_symbol(Symbol::Open) {
                    return self.call(&name, above);
                }
                Expr::Attribute(Name::new(&name))
            }
            Token::FunctionName(name) => {
                self.need_symbol(Symbol::Open, "( after the name of a function")?;
                return self.call(&name, above);
            }
            Token::Keyword(_) | Token::Symbol(_) => {
                self.next = start;
                return Err(self.unexpected("an expression"));
            }
        };
        Ok((atom, 1))
    }

    fn call(&mut self, name: &str, above: usize) -> Result<Deep, ParseError> {
        let (arguments, below) = if self.take_symbol(Symbol::Close) {
            (Box::default(), 0)
        } else {
            self.list(above)?
        };
        let call = Call::new(name, arguments);
        Ok((Expr::Call(call), self.bounded(above, below + 1)?))
    }

    /// Expressions up to the closing mark, at least one.
    fn list(&mut self, above: usize) -> Result<(Box<[Expr]>, usize), ParseError> {
        let mut elements = Vec::new();
        let mut below = 0;
        loop {
            let (element, element_below) = self.expression(level::LOGIC, above + 1)?;
            elements.push(element);
            below = below.max(element_below);
            if self.take_symbol(Symbol::Close) {
                return Ok((elements.into_boxed_slice(), below));
            }
            self.need_symbol(Symbol::Comma, ", or ) or an operator")?;
        }
    }
}

#[derive(Clone, Copy)]
enum Operator {
    Like { negated: bool },
    In { negated: bool },
    Math(MathOperator),
    Compare(CompareOperator),
    Logic(LogicOperator),
}

/// An operator of two sides, with its level.
fn binary(token: &Token) -> Option<(u8, Operator)> {
    use CompareOperator as Compare;
    let math = |level, operator| Some((level, Operator::Math(operator)));
    let compare = |operator| Some((level::COMPARE, Operator::Compare(operator)));
    let logic = |operator| Some((level::LOGIC, Operator::Logic(operator)));
    match token {
        Token::Symbol(symbol) => match symbol {
            Symbol::Star => math(level::MULTIPLY, MathOperator::Multiply),
            Symbol::Slash => math(level::MULTIPLY, MathOperator::Divide),
            Symbol::Percent => math(level::MULTIPLY, MathOperator::Remainder),
            Symbol::Plus => math(level::ADD, MathOperator::Add),
            Symbol::Minus => math(level::ADD, MathOperator::Subtract),
            Symbol::Equal => compare(Compare::Equal),
            Symbol::NotEqual => compare(Compare::NotEqual),
            Symbol::Less => compare(Compare::Less),
            Symbol::LessOrEqual => compare(Compare::LessOrEqual),
            Symbol::Greater => compare(Compare::Greater),
            Symbol::GreaterOrEqual => compare(Compare::GreaterOrEqual),
            Symbol::Open | Symbol::Close | Symbol::Comma => None,
        },
        Token::Keyword(Keyword::And) => logic(LogicOperator::And),
        Token::Keyword(Keyword::Or) => logic(LogicOperator::Or),
        Token::Keyword(Keyword::Xor) => logic(LogicOperator::Xor),
        _ => None,
    }
}
