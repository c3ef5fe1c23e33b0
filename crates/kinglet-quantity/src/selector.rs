//! Label selectors: read, matched.

use std::fmt;

use crate::syntax;

/// Requirements that labels must meet together; none of them is met by everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

/// One requirement on the value of one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What its value must be.
    pub operator: Operator,
}

/// What a label's value must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// There, and one of these.
    In(Vec<String>),
    /// Absent, or none of these.
    NotIn(Vec<String>),
    /// There, whatever it is.
    Exists,
    /// Absent.
    DoesNotExist,
    /// A whole number above this one.
    GreaterThan(i64),
    /// A whole number below this one.
    LessThan(i64),
}

impl Operator {
    /// The operator of a structured requirement (`In`, `NotIn`, `Exists`, `DoesNotExist`, and a node's `Gt`, `Lt`);
    /// `None` for an unknown word or a bound that is no whole number.
    pub fn named(name: &str, values: &[String]) -> Option<Self> {
        let bound = || match values {
            [one] => one.parse().ok(),
            _ => None,
        };
        Some(match name {
            "In" => Self::In(values.to_vec()),
            "NotIn" => Self::NotIn(values.to_vec()),
            "Exists" => Self::Exists,
            "DoesNotExist" => Self::DoesNotExist,
            "Gt" => Self::GreaterThan(bound()?),
            "Lt" => Self::LessThan(bound()?),
            _ => return None,
        })
    }

    /// Whether a label's value (`None`: there is no such label) is as required.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|text| text.parse::<i64>().ok());
        match self {
            Self::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
            Self::NotIn(values) => value.is_none_or(|value| values.iter().all(|one| one != value)),
            Self::Exists => value.is_some(),
            Self::DoesNotExist => value.is_none(),
            Self::GreaterThan(bound) => number().is_some_and(|number| number > *bound),
            Self::LessThan(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

impl LabelSelector {
    /// Reads the text form that clients send; the error is what the API server says behind `unable to parse requirement: `.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut requirements = Vec::new();
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        for term in split_outside_parentheses(text) {
            let term = term.trim();
            if term.is_empty() {
                return Err(format!("found '{text}', expected: identifier after ','"));
            }
            let requirement = parse_requirement(term)?;
            check(&requirement)?;
            requirements.push(requirement);
        }
        Ok(Self { requirements })
    }

    /// A selector of the given requirements.
    pub fn new(requirements: Vec<Requirement>) -> Self {
        Self { requirements }
    }

    /// Adds `matchLabels`: each label with exactly that value.
    pub fn with_labels<'a>(
        mut self,
        labels: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Self {
        let equal = labels.into_iter().map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::In(vec![value.clone()]),
        });
        self.requirements.extend(equal);
        self
    }

    /// Adds one of `matchExpressions`; one with an unknown operator matches nothing.
    pub fn with_expression(mut self, key: &str, operator: &str, values: &[String]) -> Self {
        let operator = Operator::named(operator, values).unwrap_or(Operator::In(Vec::new()));
        self.requirements.push(Requirement {
            key: key.to_owned(),
            operator,
        });
        self
    }

    /// Whether nothing is required.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The requirements, in the order they were given.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether labels, which `value_of` looks up, meet every requirement.
    pub fn matches<'a>(&self, value_of: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements
            .iter()
            .all(|required| required.operator.matches(value_of(&required.key)))
    }
}

impl fmt::Display for LabelSelector {
    /// The text form, as `labels.Selector` writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Requirement { key, operator }) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match operator {
                Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0])?,
                Operator::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", values[0])?,
                Operator::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                Operator::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                Operator::Exists => f.write_str(key)?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
                Operator::GreaterThan(bound) => write!(f, "{key}>{bound}")?,
                Operator::LessThan(bound) => write!(f, "{key}<{bound}")?,
            }
        }
        Ok(())
    }
}

fn check(requirement: &Requirement) -> Result<(), String> {
    let key = &requirement.key;
    if let Some(wrong) = syntax::key_error(key) {
        return Err(format!("key: Invalid value: \"{key}\": {wrong}"));
    }
    if let Operator::In(values) | Operator::NotIn(values) = &requirement.operator {
        for (index, value) in values.iter().enumerate() {
            if let Some(wrong) = syntax::value_error(value) {
                return Err(format!(
                    "values[{index}][{key}]: Invalid value: \"{value}\": {wrong}"
                ));
            }
        }
    }
    Ok(())
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_requirement(term: &str) -> Result<Requirement, String> {
    let make = |key: &str, operator| Requirement {
        key: key.trim().to_owned(),
        operator,
    };
    if let Some(key) = term.strip_prefix('!') {
        return Ok(make(key, Operator::DoesNotExist));
    }
    if let Some((head, list)) = term.split_once('(') {
        return parse_set(term, head, list);
    }
    for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((key, value)) = term.split_once(operator) {
            if value.contains('=') {
                return Err("found '=', expected: identifier".to_owned());
            }
            let values = vec![value.trim().to_owned()];
            let operator = if equal {
                Operator::In(values)
            } else {
                Operator::NotIn(values)
            };
            return Ok(make(key, operator));
        }
    }
    for (operator, bounded) in [
        ('>', Operator::GreaterThan as fn(i64) -> Operator),
        ('<', Operator::LessThan),
    ] {
        if let Some((key, value)) = term.split_once(operator) {
            let value = value.trim();
            let bound = value.parse().map_err(|_| {
                format!("values[0]: Invalid value: \"{value}\": for 'Gt', 'Lt' operators, the value must be an integer")
            })?;
            return Ok(make(key, bounded(bound)));
        }
    }
    match term.split_whitespace().nth(1) {
        Some(second) => Err(unexpected(second)),
        None => Ok(make(term, Operator::Exists)),
    }
}

fn parse_set(term: &str, head: &str, list: &str) -> Result<Requirement, String> {
    let list = list
        .trim_end()
        .strip_suffix(')')
        .ok_or_else(|| format!("found '{term}', expected: ',' or ')'"))?;
    let values = list.split(',').map(|value| value.trim().to_owned());
    let values: Vec<String> = values.collect();
    let mut words = head.split_whitespace();
    let (key, operator) = match (words.next(), words.next(), words.next()) {
        (Some(key), Some("in"), None) => (key, Operator::In(values)),
        (Some(key), Some("notin"), None) => (key, Operator::NotIn(values)),
        _ => return Err(unexpected(head.trim())),
    };
    Ok(Requirement {
        key: key.to_owned(),
        operator,
    })
}

fn unexpected(found: &str) -> String {
    format!("found '{found}', expected: in, notin, =, ==, !=, gt, lt")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn selects(selector: &str, labels: &[(&str, &'static str)]) -> bool {
        let selector = LabelSelector::parse(selector).expect("a selector");
        selector.matches(|key| {
            let found = labels.iter().find(|(known, _)| *known == key);
            found.map(|(_, value)| *value)
        })
    }

    #[test]
    fn labels_are_matched() {
        let labels = [("app", "web"), ("tier", "front"), ("n", "5")];
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app!=web", false),
            ("missing!=web", true),
            ("app in (api, web),tier", true),
            ("app notin (api,web)", false),
            ("!missing", true),
            ("!app", false),
            ("n>4,n<6", true),
            ("app>4", false),
            ("example.com/x", false),
        ] {
            assert_eq!(selects(selector, &labels), expected, "{selector}");
        }
    }

    #[test]
    fn structured_requirements_mean_the_same() {
        let values = ["a".to_owned(), "b".to_owned()];
        let pairs = [("app".to_owned(), "web".to_owned())];
        let selector = LabelSelector::default()
            .with_labels(pairs.iter().map(|(key, value)| (key, value)))
            .with_expression("tier", "In", &values)
            .with_expression("old", "DoesNotExist", &[]);
        assert_eq!(selector.to_string(), "app=web,tier in (a,b),!old");
        assert_eq!(
            LabelSelector::parse(&selector.to_string()),
            Ok(selector.clone())
        );
        let unknown = selector.with_expression("x", "Like", &values);
        assert!(!unknown.matches(|_| Some("a")));
        assert_eq!(Operator::named("Gt", &["x".to_owned()]), None);
    }

    #[test]
    fn nonsense_is_refused() {
        for selector in [
            "a b",
            "a in (b",
            "a=b,,c=d",
            "a=-",
            "=b",
            "a like (b)",
            "a>x",
            "a=b=c",
        ] {
            assert!(LabelSelector::parse(selector).is_err(), "{selector}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z!=<>(), ]{0,40}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
            }
        }
    }
}
