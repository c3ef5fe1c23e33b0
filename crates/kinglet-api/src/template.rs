//! The part of Go's text templates that Knative's ConfigMaps use: fields, `index`, `if`, `eq` and their kin.
//!
//! Enough for `domain-template`, `tag-template`, container names and the syntax check of the request log; anything
//! rarer is refused with Go's words. Templates come from an operator's ConfigMap and run on every Route: parsing
//! happens once, running is bounded by the template's own length (there are no loops).

use serde_json::Value;

/// Functions that Go's templates know without being told.
const BUILTINS: [&str; 19] = [
    "and", "call", "html", "index", "slice", "js", "len", "not", "or", "print", "printf",
    "println", "urlquery", "eq", "ne", "lt", "le", "gt", "ge",
];

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    name: String,
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Text(String),
    Value(Vec<Vec<Term>>),
    If(Vec<(Vec<Vec<Term>>, Vec<Node>)>, Vec<Node>),
}

#[derive(Clone, Debug, PartialEq)]
enum Term {
    /// `.A.B`; empty for the dot itself.
    Field(Vec<String>),
    Text(String),
    Integer(i64),
    Number(f64),
    Bool(bool),
    Function(String),
    Group(Vec<Vec<Term>>),
}

impl Template {
    /// Reads a template; `name` appears in errors.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut parser = Parser {
            name,
            rest: text,
            line: 1,
        };
        let (nodes, end) = parser.nodes()?;
        match end {
            Stop::Text => Ok(Self {
                name: name.to_owned(),
                nodes,
            }),
            Stop::Else(_) => Err(parser.error("unexpected {{else}}")),
            Stop::End => Err(parser.error("unexpected {{end}}")),
        }
    }

    /// Fills it in.
    pub fn render(&self, data: &Value) -> Result<String, String> {
        let mut out = String::new();
        self.run(&self.nodes, data, &mut out)?;
        Ok(out)
    }

    fn run(&self, nodes: &[Node], data: &Value, out: &mut String) -> Result<(), String> {
        for node in nodes {
            match node {
                Node::Text(text) => out.push_str(text),
                Node::Value(pipeline) => out.push_str(&print(&self.eval(pipeline, data)?)),
                Node::If(branches, otherwise) => {
                    let mut taken = otherwise;
                    for (condition, then) in branches {
                        if is_true(&self.eval(condition, data)?) {
                            taken = then;
                            break;
                        }
                    }
                    self.run(taken, data, out)?;
                }
            }
        }
        Ok(())
    }

    /// A pipeline: each command's answer is the last argument of the next.
    fn eval(&self, pipeline: &[Vec<Term>], data: &Value) -> Result<Value, String> {
        let mut last: Option<Value> = None;
        for command in pipeline {
            let (first, rest) = command
                .split_first()
                .ok_or_else(|| self.fault("missing value for command"))?;
            let mut arguments = rest
                .iter()
                .map(|term| self.term(term, data))
                .collect::<Result<Vec<_>, _>>()?;
            arguments.extend(last.take());
            last = Some(match first {
                Term::Function(function) => self.call(function, &arguments)?,
                term if arguments.is_empty() => self.term(term, data)?,
                Term::Field(path) if path.last().is_some_and(|name| name == "Get") => {
                    let map = self.term(&Term::Field(path[..path.len() - 1].to_vec()), data)?;
                    get(&map, &arguments)
                        .ok_or_else(|| self.fault("wrong number of args for Get"))?
                }
                term => {
                    return Err(self.fault(&format!(
                        "can't give argument to non-function {}",
                        describe(term)
                    )));
                }
            });
        }
        last.ok_or_else(|| self.fault("missing value for command"))
    }

    fn term(&self, term: &Term, data: &Value) -> Result<Value, String> {
        Ok(match term {
            Term::Text(text) => Value::from(text.as_str()),
            Term::Integer(number) => Value::from(*number),
            Term::Number(number) => float(*number),
            Term::Bool(value) => Value::from(*value),
            Term::Group(pipeline) => self.eval(pipeline, data)?,
            Term::Function(function) => self.call(function, &[])?,
            Term::Field(path) => {
                let mut at = data;
                for (depth, name) in path.iter().enumerate() {
                    at = match at.get(name) {
                        Some(inner) => inner,
                        // A map without the key prints nothing; a struct without the field is a mistake.
                        None if depth > 0 => return Ok(Value::Null),
                        None => return Err(self.fault(&format!("can't evaluate field {name}"))),
                    };
                }
                at.clone()
            }
        })
    }

    fn call(&self, function: &str, arguments: &[Value]) -> Result<Value, String> {
        let few = || self.fault(&format!("wrong number of args for {function}"));
        Ok(match function {
            "index" => {
                let (from, keys) = arguments.split_first().ok_or_else(few)?;
                keys.iter().fold(from.clone(), |at, key| match (&at, key) {
                    (Value::Array(items), Value::Number(n)) => n
                        .as_u64()
                        .and_then(|n| items.get(usize::try_from(n).ok()?))
                        .cloned()
                        .unwrap_or_default(),
                    (at, Value::String(key)) => {
                        at.get(key).cloned().unwrap_or_else(|| Value::from(""))
                    }
                    _ => Value::Null,
                })
            }
            "eq" | "ne" => {
                let (first, rest) = arguments
                    .split_first()
                    .filter(|(_, rest)| !rest.is_empty())
                    .ok_or_else(few)?;
                let equal = rest.iter().any(|other| print(other) == print(first));
                Value::from(equal == (function == "eq"))
            }
            "lt" | "le" | "gt" | "ge" => {
                let [left, right] = arguments else {
                    return Err(few());
                };
                let order = compare(left, right)
                    .ok_or_else(|| self.fault("incompatible types for comparison"))?;
                Value::from(match function {
                    "lt" => order.is_lt(),
                    "le" => order.is_le(),
                    "gt" => order.is_gt(),
                    _ => order.is_ge(),
                })
            }
            "printf" => {
                let (format, values) = arguments.split_first().ok_or_else(few)?;
                Value::from(printf(&print(format), values))
            }
            "println" => {
                let words: Vec<String> = arguments.iter().map(print).collect();
                Value::from(words.join(" ") + "\n")
            }
            "not" => Value::from(!is_true(arguments.first().ok_or_else(few)?)),
            "and" => arguments
                .iter()
                .find(|value| !is_true(value))
                .or(arguments.last())
                .ok_or_else(few)?
                .clone(),
            "or" => arguments
                .iter()
                .find(|value| is_true(value))
                .or(arguments.last())
                .ok_or_else(few)?
                .clone(),
            "len" => match arguments.first().ok_or_else(few)? {
                Value::String(text) => Value::from(text.len()),
                Value::Array(items) => Value::from(items.len()),
                Value::Object(map) => Value::from(map.len()),
                _ => Value::from(0),
            },
            "js" => Value::from(js_escape(&arguments.iter().map(print).collect::<String>())),
            "print" => Value::from(arguments.iter().map(print).collect::<String>()),
            "html" => Value::from(html_escape(
                &arguments.iter().map(print).collect::<String>(),
            )),
            "urlquery" => Value::from(query_escape(
                &arguments.iter().map(print).collect::<String>(),
            )),
            "slice" => match arguments {
                [Value::String(text), bounds @ ..] => {
                    let bound = |i: usize, or: usize| {
                        bounds
                            .get(i)
                            .and_then(Value::as_u64)
                            .map_or(or, |n| usize::try_from(n).unwrap_or(usize::MAX))
                    };
                    let slice = text.get(bound(0, 0)..bound(1, text.len()));
                    Value::from(slice.ok_or_else(|| self.fault("slice: index out of range"))?)
                }
                _ => return Err(few()),
            },
            _ => {
                return Err(self.fault(&format!(
                    "function {} is not supported",
                    crate::go::quote(function)
                )));
            }
        })
    }

    fn fault(&self, error: &str) -> String {
        format!("template: {}: {error}", self.name)
    }
}

/// A floating-point constant. Go prints a whole one without a point.
#[expect(
    clippy::cast_possible_truncation,
    reason = "whole and of a size that an integer holds exactly"
)]
fn float(number: f64) -> Value {
    /// The largest power of two up to which an `f64` holds every integer.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT_MAX {
        Value::from(number as i64)
    } else {
        Value::from(number)
    }
}

fn describe(term: &Term) -> String {
    match term {
        Term::Field(path) => format!(".{}", path.join(".")),
        Term::Text(text) => crate::go::quote(text),
        Term::Integer(number) => number.to_string(),
        Term::Number(number) => number.to_string(),
        Term::Bool(value) => value.to_string(),
        Term::Function(name) => name.clone(),
        Term::Group(_) => "(…)".to_owned(),
    }
}

/// Go's `Header.Get`: the first value under the name, in whatever case, or nothing.
fn get(map: &Value, arguments: &[Value]) -> Option<Value> {
    let [Value::String(name)] = arguments else {
        return None;
    };
    let found = map
        .as_object()
        .and_then(|map| map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)))
        .and_then(|(_, values)| values.get(0).cloned());
    Some(found.unwrap_or_else(|| Value::from("")))
}

fn compare(left: &Value, right: &Value) -> Option<std::cmp::Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

/// Go's `Sprintf` with the verbs that logs use: `%s %v %d %q %f %t %x %%`, width, precision, `-` and `0`. Another verb, and a
/// value that is missing or left over, come out in Go's words.
fn printf(format: &str, values: &[Value]) -> String {
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let flags_end = rest
            .find(|c: char| !matches!(c, '0'..='9' | '.' | '-' | '+' | '#' | ' '))
            .unwrap_or(rest.len());
        let (flags, after) = rest.split_at(flags_end);
        let Some(verb) = after.chars().next() else {
            out.push_str("%!(NOVERB)");
            return out;
        };
        rest = &after[verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        match values.next() {
            Some(value) => out.push_str(&verb_of(verb, flags, value)),
            None => out.push_str(&format!("%!{verb}(MISSING)")),
        }
    }
    out.push_str(rest);
    for value in values {
        out.push_str(&format!("%!(EXTRA {})", print(value)));
    }
    out
}

fn verb_of(verb: char, flags: &str, value: &Value) -> String {
    /// No line of a log needs more; a width comes from a ConfigMap and must not ask for gigabytes.
    const WIDTH_MAX: usize = 1024;
    let numbers = flags.trim_start_matches(['-', '+', '#', ' ', '0']);
    let (width, precision) = match numbers.split_once('.') {
        Some((width, precision)) => (width, Some(precision.parse::<usize>().unwrap_or(0))),
        None => (numbers, None),
    };
    let width = width.parse::<usize>().unwrap_or(0).min(WIDTH_MAX);
    let precision = precision.map(|precision| precision.min(WIDTH_MAX));
    let text = match (verb, value) {
        ('q', value) => crate::go::quote(&print(value)),
        ('x', Value::Number(number)) => number
            .as_i64()
            .map_or_else(|| print(value), |number| format!("{number:x}")),
        ('f', Value::Number(number)) => {
            let number = number.as_f64().unwrap_or(0.0);
            format!("{number:.0$}", precision.unwrap_or(6))
        }
        ('s' | 'v', Value::String(text)) => match precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text.clone(),
        },
        ('d', Value::Number(_)) | ('t', Value::Bool(_)) | ('s' | 'v', _) => print(value),
        _ => format!("%!{verb}({})", print(value)),
    };
    if flags.starts_with('-') {
        format!("{text:<width$}")
    } else if flags.starts_with('0') && matches!(verb, 'd' | 'f' | 'x') {
        format!("{text:0>width$}")
    } else {
        format!("{text:>width$}")
    }
}

fn html_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Go's `url.QueryEscape`.
fn query_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn print(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        // A value of Go that knows how to print itself, as `url.URL` does.
        Value::Object(map) if map.contains_key("String") => print(&map["String"]),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(print).collect();
            format!("[{}]", items.join(" "))
        }
        other => other.to_string(),
    }
}

/// Go's `JSEscapeString`: what may stand in a JavaScript string, and so in a JSON one.
fn js_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' | '\0'..='\x1f' => {
                out.push_str(&format!("\\u{:04X}", u32::from(c)));
            }
            '\x7f'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04X}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// What stopped a run of nodes.
enum Stop {
    Text,
    Else(Option<Vec<Vec<Term>>>),
    End,
}

struct Parser<'a> {
    name: &'a str,
    rest: &'a str,
    line: usize,
}

impl<'a> Parser<'a> {
    fn error(&self, error: &str) -> String {
        format!("template: {}:{}: {error}", self.name, self.line)
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, Stop), String> {
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

/// Where the action ends: `}}` outside of strings.
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
            let parts: Vec<String> = path
                .split('.')
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect();
            let well_formed = parts
                .iter()
                .all(|part| part.chars().all(|c| c.is_alphanumeric() || c == '_'));
            let bad = || {
                self.parser
                    .error(&format!("unexpected {} in operand", crate::go::quote(word)))
            };
            return well_formed.then_some(Term::Field(parts)).ok_or_else(bad);
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

#[cfg(test)]
mod tests {
    use super::{Template, js_escape};
    use serde_json::json;

    #[test]
    fn js_escapes_as_go_does() {
        for (text, escaped) in [
            ("/a?b=c&d", "/a?b\\u003Dc\\u0026d"),
            ("<\"'\\>", "\\u003C\\\"\\'\\\\\\u003E"),
            ("a\nb", "a\\u000Ab"),
            ("\u{fc}", "\u{fc}"),
        ] {
            assert_eq!(js_escape(text), escaped);
        }
    }

    #[test]
    fn what_config_maps_use() {
        let data = json!({
            "Name": "hello", "Namespace": "default", "Domain": "example.com",
            "Annotations": {"sub": "mysub"}, "Labels": {},
        });
        for (text, want) in [
            (
                "{{.Name}}.{{.Namespace}}.{{.Domain}}",
                "hello.default.example.com",
            ),
            ("{{ .Name }}-x", "hello-x"),
            (
                "{{.Name}}.{{ index .Annotations \"sub\"}}.{{.Domain}}",
                "hello.mysub.example.com",
            ),
            (
                "{{if index .Labels \"a\"}}a{{else if eq .Namespace \"default\"}}b{{else}}c{{end}}",
                "b",
            ),
            ("{{- if (and .Name (ne .Name \"x\")) -}} y {{- end}}", "y"),
            ("plain", "plain"),
            ("{{.Name | len}}", "5"),
            (
                "{{9007199254740993}} {{-1}} {{1.0}}",
                "9007199254740993 -1 1",
            ),
        ] {
            assert_eq!(
                Template::parse("t", text).unwrap().render(&data).unwrap(),
                want,
                "{text}"
            );
        }
    }

    #[test]
    fn what_request_logs_use() {
        let data = json!({
            "Request": {"Header": {"X-A": ["one", "two"]}, "URL": {"String": "/a?b=1", "Path": "/a"}, "Method": "GET"},
            "Response": {"Code": 503, "Latency": 0.012345, "Size": 7},
        });
        for (text, want) in [
            ("{{.Request.Header.Get \"x-a\"}}", "one"),
            ("{{js (.Request.Header.Get \"X-A\")}}", "one"),
            ("{{.Request.Header.Get \"X-B\"}}", ""),
            ("{{if ge .Response.Code 500}}bad{{end}}", "bad"),
            ("{{if lt .Response.Code 500}}good{{else}}bad{{end}}", "bad"),
            (
                "{{printf \"%.3f|%d|%5s|%-5s|%03d|%q|%%\" .Response.Latency .Response.Code \"a\" \"b\" .Response.Size \"c\"}}",
                "0.012|503|    a|b    |007|\"c\"|%",
            ),
            ("{{printf \"%d %s\" \"x\"}}", "%!d(x) %!s(MISSING)"),
            ("{{printf \"%v\" 1 2}}", "1%!(EXTRA 2)"),
            ("{{.Request.URL}} {{.Request.URL.Path}}", "/a?b=1 /a"),
            ("{{println 1 \"a\"}}", "1 a\n"),
            ("{{html \"<a&'\"}}", "&lt;a&amp;&#39;"),
            ("{{urlquery \"a b/ü\"}}", "a+b%2F%C3%BC"),
        ] {
            assert_eq!(
                Template::parse("t", text).unwrap().render(&data).unwrap(),
                want,
                "{text}"
            );
        }
        let mixed = Template::parse("t", "{{if lt .Response.Code \"x\"}}{{end}}").unwrap();
        assert_eq!(
            mixed.render(&data).unwrap_err(),
            "template: t: incompatible types for comparison"
        );
    }

    #[test]
    fn mistakes() {
        for (text, want) in [
            ("{{.Bad", "template: t:1: unclosed action"),
            ("a\n{{", "template: t:2: unclosed action"),
            (
                "{{bogus .A}}",
                "template: t:1: function \"bogus\" not defined",
            ),
            ("{{}}", "template: t:1: missing value for command"),
            ("{{if .A}}", "template: t:1: unexpected EOF"),
            ("{{end}}", "template: t:1: unexpected {{end}}"),
            (
                "{{9223372036854775808}}",
                "template: t:1: integer overflow: \"9223372036854775808\"",
            ),
            ("{{1x}}", "template: t:1: bad number syntax: \"1x\""),
            ("{{inf}}", "template: t:1: function \"inf\" not defined"),
        ] {
            assert_eq!(Template::parse("t", text).unwrap_err(), want, "{text}");
        }
        let unknown = Template::parse("t", "{{.Nope}}")
            .unwrap()
            .render(&json!({}))
            .unwrap_err();
        assert_eq!(unknown, "template: t: can't evaluate field Nope");
    }
}
