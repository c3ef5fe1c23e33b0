//! The part of kubectl's JSONPath that printer columns use.

use serde_json::Value;

/// Values that one step of a path may lead to: `..a..a` finds each value of a deep object once for each way to it.
const FOUND_MAX: usize = 4096;
/// Values that all descents of a path may look at: an object of 3 MB has fewer, and each descent from each value found looks
/// at all below it.
const VISITED_MAX: usize = 1 << 20;

/// A parsed path.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    Descend(String),
    /// `[?(@.path op value)]`
    Filter(Vec<String>, Operator, Value),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Exists,
}

impl JsonPath {
    /// Reads a path; what cannot be read finds nothing.
    pub fn parse(text: &str) -> Self {
        let text = text.trim().trim_start_matches('{').trim_end_matches('}');
        let text = text.strip_prefix('$').unwrap_or(text);
        let chars: Vec<char> = text.chars().collect();
        Self(steps(&chars).unwrap_or_else(|| {
            vec![
                Step::Filter(Vec::new(), Operator::NotEqual, Value::Null),
                Step::Index(-1),
            ]
        }))
    }

    /// Everything it points at, up to a bound.
    pub fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let mut visits = VISITED_MAX;
        let mut found = vec![root];
        for step in &self.0 {
            found = found
                .into_iter()
                .flat_map(|value| step.take(value, &mut visits))
                .take(FOUND_MAX)
                .collect();
        }
        found
    }
}

impl Step {
    fn take<'a>(&self, value: &'a Value, visits: &mut usize) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(index) => {
                let Some(items) = value.as_array() else {
                    return Vec::new();
                };
                let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
                let at = if *index < 0 { length + index } else { *index };
                usize::try_from(at)
                    .ok()
                    .and_then(|at| items.get(at))
                    .into_iter()
                    .collect()
            }
            Self::All => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(fields) => fields.values().collect(),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
            },
            Self::Descend(name) => {
                let mut found = Vec::new();
                descend(value, name, &mut found, visits);
                found
            }
            Self::Filter(path, operator, wanted) => value
                .as_array()
                .into_iter()
                .flatten()
                .filter(|item| {
                    let own = path.iter().try_fold(*item, |value, key| value.get(key));
                    operator.holds(own, wanted)
                })
                .collect(),
        }
    }
}

fn descend<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a Value>, visits: &mut usize) {
    let Some(left) = visits.checked_sub(1) else {
        return;
    };
    *visits = left;
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(name));
            fields
                .values()
                .for_each(|value| descend(value, name, found, visits));
        }
        Value::Array(items) => items
            .iter()
            .for_each(|value| descend(value, name, found, visits)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

impl Operator {
    fn holds(self, own: Option<&Value>, wanted: &Value) -> bool {
        let Some(own) = own else { return false };
        let order = match (own, wanted) {
            (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            _ => (own == wanted).then_some(std::cmp::Ordering::Equal),
        };
        match self {
            Self::Exists => true,
            Self::Equal => order == Some(std::cmp::Ordering::Equal),
            Self::NotEqual => order != Some(std::cmp::Ordering::Equal),
            Self::Less => order == Some(std::cmp::Ordering::Less),
            Self::LessEqual => order.is_some_and(|order| order.is_le()),
            Self::Greater => order == Some(std::cmp::Ordering::Greater),
            Self::GreaterEqual => order.is_some_and(|order| order.is_ge()),
        }
    }
}

fn steps(chars: &[char]) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        match chars[at] {
            '.' if chars.get(at + 1) == Some(&'.') => {
                let (name, next) = word(chars, at + 2);
                steps.push(Step::Descend(name));
                at = next;
            }
            '.' => {
                at += 1;
                if chars.get(at) == Some(&'[') || at == chars.len() {
                    continue;
                }
                let (name, next) = word(chars, at);
                steps.push(if name == "*" {
                    Step::All
                } else {
                    Step::Field(name)
                });
                at = next;
            }
            '[' => {
                let close = closing(chars, at)?;
                steps.push(bracket(&chars[at + 1..close])?);
                at = close + 1;
            }
            _ => {
                let (name, next) = word(chars, at);
                steps.push(Step::Field(name));
                at = next;
            }
        }
    }
    Some(steps)
}

/// A name up to the next dot or bracket; a backslash takes the next character as it is.
fn word(chars: &[char], start: usize) -> (String, usize) {
    let (mut name, mut at) = (String::new(), start);
    while at < chars.len() && !matches!(chars[at], '.' | '[') {
        if chars[at] == '\\' && at + 1 < chars.len() {
            at += 1;
        }
        name.push(chars[at]);
        at += 1;
    }
    (name, at)
}

/// The bracket that closes the one at `start`, past quoted text.
fn closing(chars: &[char], start: usize) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in chars.iter().enumerate().skip(start) {
        match (quote, *c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(*c),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            (None, _) => {}
        }
    }
    None
}

fn unquote(text: &str) -> Option<String> {
    let inner = text
        .strip_prefix('\'')
        .and_then(|rest| rest.strip_suffix('\''))
        .or_else(|| {
            text.strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'))
        })?;
    Some(
        inner
            .replace("\\.", ".")
            .replace("\\'", "'")
            .replace("\\\"", "\""),
    )
}

fn bracket(inside: &[char]) -> Option<Step> {
    let text: String = inside.iter().collect();
    let text = text.trim();
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(name) = unquote(text) {
        return Some(Step::Field(name));
    }
    if let Some(filter) = text
        .strip_prefix("?(")
        .and_then(|rest| rest.strip_suffix(')'))
    {
        return filtered(filter.trim());
    }
    text.parse().ok().map(Step::Index)
}

fn filtered(text: &str) -> Option<Step> {
    let path = |text: &str| -> Option<Vec<String>> {
        let chars: Vec<char> = text.trim().strip_prefix('@')?.chars().collect();
        steps(&chars)?
            .into_iter()
            .map(|step| match step {
                Step::Field(name) => Some(name),
                Step::Index(_) | Step::All | Step::Descend(_) | Step::Filter(..) => None,
            })
            .collect()
    };
    for (sign, operator) in [
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessEqual),
        (">=", Operator::GreaterEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ] {
        if let Some((left, right)) = text.split_once(sign) {
            let right = right.trim();
            let value = unquote(right)
                .map(Value::String)
                .or_else(|| serde_json::from_str(right).ok())?;
            return Some(Step::Filter(path(left)?, operator, value));
        }
    }
    Some(Step::Filter(path(text)?, Operator::Exists, Value::Null))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_of_printer_columns() {
        let object = json!({
            "metadata": {"labels": {"serving.knative.dev/configuration": "c"}},
            "spec": {"n": 3, "list": [{"a": 1}, {"a": 2}]},
            "status": {"conditions": [{"type": "Active", "status": "False"}, {"type": "Ready", "status": "True"}]},
        });
        for (path, expected) in [
            (".spec.n", json!([3])),
            ("{.spec.n}", json!([3])),
            (
                ".status.conditions[?(@.type=='Ready')].status",
                json!(["True"]),
            ),
            (
                ".status.conditions[?(@.type == \"Ready\")].status",
                json!(["True"]),
            ),
            (
                ".metadata.labels['serving\\.knative\\.dev/configuration']",
                json!(["c"]),
            ),
            (
                ".metadata.labels.serving\\.knative\\.dev/configuration",
                json!(["c"]),
            ),
            (".spec.list[*].a", json!([1, 2])),
            (".spec.list[-1].a", json!([2])),
            (".spec.list[?(@.a>1)].a", json!([2])),
            (".spec..a", json!([1, 2])),
            (".spec.missing.x", json!([])),
            (".spec.list[?(nonsense)]", json!([])),
        ] {
            assert_eq!(
                json!(JsonPath::parse(path).find(&object)),
                expected,
                "{path}"
            );
        }
    }
    /// Ten descents into sixty levels lead to each value by up to 75 billion ways.
    #[test]
    fn descents_are_bounded() {
        let mut deep = json!(1);
        for _ in 0..60 {
            deep = json!({"a": deep});
        }
        let found = JsonPath::parse(&"..a".repeat(10)).find(&deep).len();
        assert_eq!(found, FOUND_MAX);
    }

    /// A last step that finds nothing looks at everything below each of the values found before.
    #[test]
    fn what_descents_look_at_is_bounded() {
        let mut deep = json!({"a": vec![0; 100_000]});
        for _ in 0..90 {
            deep = json!({"a": deep});
        }
        let path = JsonPath::parse("..a..a..z");
        let mut visits = VISITED_MAX;
        let Step::Descend(_) = &path.0[0] else {
            panic!("{path:?}")
        };
        let below = path.0[0].take(&deep, &mut visits);
        assert_eq!(below.len(), 91);
        assert!(path.find(&deep).is_empty());
        for value in below.iter().cycle().take(20) {
            path.0[0].take(value, &mut visits);
        }
        assert_eq!(visits, 0, "the budget is one for all of them");
        assert!(path.0[0].take(&deep, &mut visits).is_empty());
    }
}
