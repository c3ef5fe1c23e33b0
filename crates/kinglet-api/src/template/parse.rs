//! Reads the text of a template.

use super::{Node, Term};

/// The predefined functions of Go's templates.
const BUILTINS: [&str; 19] = [
    "and", "call", "html", "index", "slice", "js", "len", "not", "or", "print", "printf",
    "println", "urlquery", "eq", "ne", "lt", "le", "gt", "ge",
];

/// The action or end of text at which a list of nodes stopped.
pub(super) enum Stop {
    Text,
    Else(Option<Vec<Vec<Term>>>),
    End,
}

pub(super) struct Parser<'a> {
    pub(super) name: &'a str,
    pub(super) rest: &'a str,
    pub(super) line: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn error(&self, error: &str) -> String {
        format!("template: {}:{}: {error}", self.name, self.line)
    }

    pub(super) fn nodes(&mut self) -> Result<(Vec<Node>, Stop), String> {
        let mut nodes = Vec::new();
        loop {
            let Some(open) = self.rest.find("{{") else {
                self.text(self.rest, false, &mut nodes);
                self.rest = "";
                return Ok((nodes, Stop::Text));
            };
            let (text, action) = self.rest.split_at(open);
            let action = &action[2..];
            let trim_before = action.starts_with("- ");
            self.text(text, trim_before, &mut nodes);
            let action = if trim_before { &action[1..] } else { action };
            let close = find_close(action).ok_or_else(|| self.error("unclosed action"))?;
            let (body, after) = (&action[..close], &action[close + 2..]);
            let (body, after) = match body.strip_suffix(" -") {
                Some(body) => (body, after.trim_start()),
                None => (body, after),
            };
            self.rest = after;
            let body = body.trim();
            self.line += body.matches('\n').count();
            if body.starts_with("/*") {
                continue;
            }
            let (word, tail) = body.split_once(char::is_whitespace).unwrap_or((body, ""));
            match word {
                "" => return Err(self.error("missing value for command")),
                "end" => return Ok((nodes, Stop::End)),
                "else" => {
                    let condition = match tail.trim().strip_prefix("if") {
                        Some(condition) => Some(self.pipeline(condition)?),
                        None => None,
                    };
                    return Ok((nodes, Stop::Else(condition)));
                }
                "if" => nodes.push(self.branches(tail)?),
                "range" | "with" | "define" | "block" | "template" | "break" | "continue" => {
                    return Err(self.error(&format!("{{{{{word}}}}} is not supported here")));
                }
                _ => nodes.push(Node::Value(self.pipeline(body)?)),
            }
        }
    }

    fn text(&mut self, text: &str, trim_end: bool, nodes: &mut Vec<Node>) {
        self.line += text.matches('\n').count();
        let text = if trim_end { text.trim_end() } else { text };
        if !text.is_empty() {
            nodes.push(Node::Text(text.to_owned()));
        }
    }

    fn branches(&mut self, condition: &str) -> Result<Node, String> {
        let mut branches = Vec::new();
        let mut condition = self.pipeline(condition)?;
        loop {
            let (then, end) = self.nodes()?;
            branches.push((condition, then));
            match end {
                Stop::End => return Ok(Node::If(branches, Vec::new())),
                Stop::Else(Some(next)) => condition = next,
                Stop::Else(None) => {
                    let (otherwise, end) = self.nodes()?;
                    return match end {
                        Stop::End => Ok(Node::If(branches, otherwise)),
                        Stop::Else(_) => Err(self.error("expected end; found {{else}}")),
                        Stop::Text => Err(self.error("unexpected EOF")),
                    };
                }
                Stop::Text => return Err(self.error("unexpected EOF")),
            }
        }
    }

    fn pipeline(&self, text: &str) -> Result<Vec<Vec<Term>>, String> {
        let mut words = Words {
            parser: self,
            rest: text.trim(),
        };
        let pipeline = words.pipeline(false)?;
        if pipeline.iter().any(Vec::is_empty) {
            return Err(self.error("missing value for command"));
        }
        Ok(pipeline)
    }
}

/// Returns where the action ends: at `}}` outside of strings.
fn find_close(action: &str) -> Option<usize> {
    let mut quote: Option<char> = None;
    let mut escaped = false;
    for (i, c) in action.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if action[i..].starts_with("}}") => return Some(i),
            None => {}
        }
    }
    None
}

struct Words<'p, 'a> {
    parser: &'p Parser<'p>,
    rest: &'a str,
}

impl Words<'_, '_> {
    fn pipeline(&mut self, in_group: bool) -> Result<Vec<Vec<Term>>, String> {
        let mut commands = vec![Vec::new()];
        loop {
            self.rest = self.rest.trim_start();
            let Some(c) = self.rest.chars().next() else {
                return if in_group {
                    Err(self.parser.error("unclosed left paren"))
                } else {
                    Ok(commands)
                };
            };
            let term = match c {
                '|' => {
                    self.rest = &self.rest[1..];
                    commands.push(Vec::new());
                    continue;
                }
                ')' if in_group => {
                    self.rest = &self.rest[1..];
                    return Ok(commands);
                }
                '(' => {
                    self.rest = &self.rest[1..];
                    Term::Group(self.pipeline(true)?)
                }
                '"' | '`' => self.string(c)?,
                _ => self.word()?,
            };
            commands.last_mut().expect("there is always one").push(term);
        }
    }

    fn string(&mut self, quote: char) -> Result<Term, String> {
        let mut text = String::new();
        let mut chars = self.rest[1..].char_indices();
        while let Some((i, c)) = chars.next() {
            if c == quote {
                self.rest = &self.rest[i + 2..];
                return Ok(Term::Text(text));
            }
            match c {
                '\\' if quote == '"' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, other)) => text.push(other),
                    None => break,
                },
                c => text.push(c),
            }
        }
        Err(self.parser.error("unterminated quoted string"))
    }

    fn word(&mut self) -> Result<Term, String> {
        let end = self
            .rest
            .find(|c: char| c.is_whitespace() || "|()\"`".contains(c))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        if let Some(path) = word.strip_prefix('.') {
            return self.field(word, path);
        }
        match word {
            "true" => return Ok(Term::Bool(true)),
            "false" => return Ok(Term::Bool(false)),
            _ => {}
        }
        let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
        if unsigned.starts_with(|c: char| c.is_ascii_digit()) {
            return self.number(word, unsigned);
        }
        if BUILTINS.contains(&word) {
            return Ok(Term::Function(word.to_owned()));
        }
        let plain = word.chars().all(|c| c.is_alphanumeric() || c == '_') && !word.is_empty();
        Err(self.parser.error(&if plain {
            format!("function {} not defined", crate::go::quote(word))
        } else {
            format!("unexpected {} in command", crate::go::quote(word))
        }))
    }

    /// Reads a path of fields; `word` is the path with its first point.
    fn field(&self, word: &str, path: &str) -> Result<Term, String> {
        let parts: Vec<String> = path
            .split('.')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect();
        let well_formed = parts
            .iter()
            .all(|part| part.chars().all(|c| c.is_alphanumeric() || c == '_'));
        if well_formed {
            Ok(Term::Field(parts))
        } else {
            let quoted = crate::go::quote(word);
            Err(self
                .parser
                .error(&format!("unexpected {quoted} in operand")))
        }
    }

    /// Reads a number; `unsigned` is the word without its sign.
    fn number(&self, word: &str, unsigned: &str) -> Result<Term, String> {
        if unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
            return word.parse().map(Term::Integer).map_err(|_| {
                let quoted = crate::go::quote(word);
                self.parser.error(&format!("integer overflow: {quoted}"))
            });
        }
        let number: Option<f64> = word.parse().ok();
        number
            .filter(|number| number.is_finite())
            .map(Term::Number)
            .ok_or_else(|| {
                let quoted = crate::go::quote(word);
                self.parser.error(&format!("bad number syntax: {quoted}"))
            })
    }
}
