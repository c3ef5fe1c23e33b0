//! The part of Go's text templates that Knative's ConfigMaps use: fields, `index`, `if`, `eq` and their kin.
//!
//! Enough for `domain-template`, `tag-template`, container names and the syntax check of the request log; anything
//! rarer is refused with Go's words. Templates come from an operator's ConfigMap and run on every Route: parsing
//! happens once, running is bounded by the template's own length (there are no loops).

mod escape;
mod format;
mod functions;
mod parse;
#[cfg(test)]
mod tests;
mod value;

use serde_json::Value;

use parse::{Parser, Stop};
use value::{float, get, is_true, print};

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

    /// Renders the template with these data.
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

    /// Evaluates a pipeline: the result of each command is the last argument of the next.
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
        functions::call(function, arguments).map_err(|error| self.fault(&error))
    }

    fn fault(&self, error: &str) -> String {
        format!("template: {}: {error}", self.name)
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
