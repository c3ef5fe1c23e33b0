//! Sets of field paths, and the `fieldsV1` form they are stored in.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// One step of a path. Keys and values are held as JSON text, which makes them comparable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PathElement {
    /// Member of an object.
    Field(String),
    /// Item of a list with keys: `{"name":"x"}`.
    Key(String),
    /// Item of a set.
    Value(String),
    /// Item by place: only in what others wrote.
    Index(usize),
}

impl PathElement {
    fn encode(&self) -> String {
        match self {
            PathElement::Field(name) => format!("f:{name}"),
            PathElement::Key(key) => format!("k:{key}"),
            PathElement::Value(value) => format!("v:{value}"),
            PathElement::Index(at) => format!("i:{at}"),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(PathElement::Field(rest.to_owned())),
            // Read and written again, so that spacing and order do not matter.
            "k" => Some(PathElement::Key(
                serde_json::from_str::<BTreeMap<String, Value>>(rest)
                    .ok()
                    .map(|key| json_text(&key))?,
            )),
            "v" => Some(PathElement::Value(
                serde_json::from_str::<Value>(rest)
                    .ok()
                    .map(|value| value.to_string())?,
            )),
            "i" => rest.parse().ok().map(PathElement::Index),
            _ => None,
        }
    }
}

/// The text of a key.
pub(super) fn json_text(key: &BTreeMap<String, Value>) -> String {
    serde_json::to_string(key).expect("text keys and JSON values always serialise")
}

impl std::fmt::Display for PathElement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PathElement::Field(name) => write!(f, ".{name}"),
            PathElement::Key(key) => {
                let parts: BTreeMap<String, Value> = serde_json::from_str(key).unwrap_or_default();
                let parts: Vec<String> = parts
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                write!(f, "[{}]", parts.join(","))
            }
            PathElement::Value(value) => write!(f, "[={value}]"),
            PathElement::Index(at) => write!(f, "[{at}]"),
        }
    }
}

/// `.spec.containers[name="a"].image`.
pub(super) fn shown(path: &[PathElement]) -> String {
    path.iter().map(ToString::to_string).collect()
}

/// A set of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) members: BTreeSet<PathElement>,
    pub(super) children: BTreeMap<PathElement, Set>,
}

impl Set {
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.values().all(Set::is_empty)
    }

    /// Adds a path; the empty path says nothing.
    pub(super) fn insert(&mut self, path: &[PathElement]) {
        match path {
            [] => {}
            [last] => {
                self.members.insert(last.clone());
            }
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    pub(super) fn has(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.members.contains(last),
            [first, rest @ ..] => self
                .children
                .get(first)
                .is_some_and(|child| child.has(rest)),
        }
    }

    /// What lies below a step.
    pub(super) fn below(&self, element: &PathElement) -> Option<&Set> {
        self.children.get(element).filter(|child| !child.is_empty())
    }

    pub(super) fn union(mut self, other: &Set) -> Set {
        self.members.extend(other.members.iter().cloned());
        for (element, child) in &other.children {
            let mine = self.children.remove(element).unwrap_or_default();
            self.children.insert(element.clone(), mine.union(child));
        }
        self
    }

    pub(super) fn difference(&self, other: &Set) -> Set {
        let members = self.members.difference(&other.members).cloned().collect();
        let children =
            self.children
                .iter()
                .map(|(element, child)| match other.children.get(element) {
                    Some(theirs) => (element.clone(), child.difference(theirs)),
                    None => (element.clone(), child.clone()),
                });
        Set {
            members,
            children: children.filter(|(_, child)| !child.is_empty()).collect(),
        }
    }

    pub(super) fn intersection(&self, other: &Set) -> Set {
        let members = self.members.intersection(&other.members).cloned().collect();
        let children = self.children.iter().filter_map(|(element, child)| {
            other
                .children
                .get(element)
                .map(|theirs| (element.clone(), child.intersection(theirs)))
        });
        Set {
            members,
            children: children.filter(|(_, child)| !child.is_empty()).collect(),
        }
    }

    /// Only what lies at or below the named top fields (`keep`), or only what does not.
    pub(super) fn split(&self, top: &[&str], keep: bool) -> Set {
        let wanted = |element: &PathElement| {
            matches!(element, PathElement::Field(name) if top.contains(&name.as_str())) == keep
        };
        Set {
            members: self.members.iter().filter(|s| wanted(s)).cloned().collect(),
            children: self
                .children
                .iter()
                .filter(|(s, _)| wanted(s))
                .map(|(s, c)| (s.clone(), c.clone()))
                .collect(),
        }
    }

    /// All paths, parents before children.
    pub(super) fn paths(&self) -> Vec<Vec<PathElement>> {
        let mut found = Vec::new();
        self.collect(&mut Vec::new(), &mut found);
        found
    }

    fn collect(&self, prefix: &mut Vec<PathElement>, found: &mut Vec<Vec<PathElement>>) {
        for member in &self.members {
            prefix.push(member.clone());
            found.push(prefix.clone());
            prefix.pop();
        }
        for (element, child) in &self.children {
            prefix.push(element.clone());
            child.collect(prefix, found);
            prefix.pop();
        }
    }

    /// The `fieldsV1` form.
    pub(super) fn encode(&self) -> Value {
        let mut out = Map::new();
        for member in &self.members {
            let mut below = Map::new();
            if let Some(child) = self.below(member) {
                below.insert(".".to_owned(), Value::Object(Map::new()));
                if let Value::Object(rest) = child.encode() {
                    below.extend(rest);
                }
            }
            out.insert(member.encode(), Value::Object(below));
        }
        for (element, child) in &self.children {
            if !self.members.contains(element) && !child.is_empty() {
                out.insert(element.encode(), child.encode());
            }
        }
        Value::Object(out)
    }

    /// Reads `fieldsV1`; what it does not understand makes it none, as deep as [`DEPTH_MAX`].
    pub(super) fn decode(value: &Value) -> Option<Set> {
        Self::decode_at(value, 0)
    }

    fn decode_at(value: &Value, depth: usize) -> Option<Set> {
        if depth > DEPTH_MAX {
            return None;
        }
        let mut set = Set::default();
        for (text, below) in value.as_object()? {
            if text == "." {
                continue;
            }
            let element = PathElement::decode(text)?;
            let fields = below.as_object()?;
            if fields.is_empty() || fields.contains_key(".") {
                set.members.insert(element.clone());
            }
            if fields.keys().any(|name| name != ".") {
                set.children
                    .insert(element, Self::decode_at(below, depth + 1)?);
            }
        }
        Some(set)
    }
}

/// Nesting of paths; `serde_json` reads no deeper either.
const DEPTH_MAX: usize = 128;
