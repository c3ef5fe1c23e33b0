//! Label selectors: read, matched.

mod parse;

use std::fmt;

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
    /// Reads the text form that clients send; the error is what Kubernetes' API server says.
    pub fn parse(text: &str) -> Result<Self, String> {
        let requirements = parse::requirements(text)?;
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

    /// What kube-apiserver 1.34 accepts.
    const ACCEPTED: &[&str] = &[
        "",
        "a",
        "!a",
        "a=b",
        "a==b",
        "a!=b",
        "a in (b,c)",
        "a notin (b)",
        "a in (b, c),d",
        "a>1",
        "a<5",
        "n>4,n<6",
        " a = b , c ",
        "a=",
        "a!=",
        "a in ()",
        "a in (,b)",
        "a in (b,)",
        "a in (,)",
        "in",
        "notin",
        "a in (in,notin)",
        "in in (in)",
        "a = in",
        "x/y=z",
        "a in(b)",
        "a notin(b,c)",
        "a\tin\n(b)",
        "a=b, c in (d, e) ,!f",
    ];

    /// What kube-apiserver 1.34 refuses, and with which words; those of long rules are cut off.
    const REFUSED: &[(&str, &str)] = &[
        (
            "a b",
            "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
        ),
        (
            "a in (b",
            "unable to parse requirement: found '', expected: ',' or ')'",
        ),
        (
            "a in (",
            "unable to parse requirement: found '', expected: ',', ')' or identifier",
        ),
        (
            "a in b",
            "unable to parse requirement: found 'b' expected: '('",
        ),
        (
            "a notin b",
            "unable to parse requirement: found 'b' expected: '('",
        ),
        ("a=b,,c=d", "found ',', expected: identifier after ','"),
        (
            "a=-",
            "unable to parse requirement: values[0][a]: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
        (
            "=b",
            "found '=', expected: !, identifier, or 'end of string'",
        ),
        (
            "a like (b)",
            "unable to parse requirement: found 'like', expected: in, notin, =, ==, !=, gt, lt",
        ),
        (
            "a>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
        (
            "a>1.5",
            "unable to parse requirement: values[0]: Invalid value: \"1.5\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
        ("a=b=c", "found '=', expected: ',' or 'end of string'"),
        (
            "!",
            "unable to parse requirement: found '', expected: identifier",
        ),
        (
            ",",
            "found ',', expected: !, identifier, or 'end of string'",
        ),
        ("a,", "found '', expected: identifier after ','"),
        (
            ",a",
            "found ',', expected: !, identifier, or 'end of string'",
        ),
        (
            "(a)",
            "found '(', expected: !, identifier, or 'end of string'",
        ),
        (
            "a!",
            "unable to parse requirement: found '!', expected: in, notin, =, ==, !=, gt, lt",
        ),
        (
            "-a",
            "unable to parse requirement: <nil>: Invalid value: \"-a\": name part",
        ),
        (
            "!-a",
            "unable to parse requirement: <nil>: Invalid value: \"-a\": name part",
        ),
        (
            "a!b",
            "unable to parse requirement: found '!', expected: in, notin, =, ==, !=, gt, lt",
        ),
        (
            "a!!=b",
            "unable to parse requirement: found '!', expected: in, notin, =, ==, !=, gt, lt",
        ),
        (
            "a===b",
            "unable to parse requirement: found '=', expected: identifier",
        ),
        (
            "a=!b",
            "unable to parse requirement: found '!', expected: identifier",
        ),
        ("!a=b", "found '=', expected: ',' or 'end of string'"),
        (
            "a=(b)",
            "unable to parse requirement: found '(', expected: identifier",
        ),
        (
            "a in (b c)",
            "unable to parse requirement: found 'c', expected: ',' or ')'",
        ),
        ("a in (b))", "found ')', expected: ',' or 'end of string'"),
        ("a in (b),", "found '', expected: identifier after ','"),
        (
            "a in ((b))",
            "unable to parse requirement: found '(', expected: ',', ')' or identifier",
        ),
        (
            "a/b/c=d",
            "unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a qualified name",
        ),
        (
            "A.com/b",
            "unable to parse requirement: <nil>: Invalid value: \"A.com/b\": prefix part a lowercase RFC 1123 subdomain",
        ),
        (
            "/b",
            "unable to parse requirement: <nil>: Invalid value: \"/b\": prefix part must be non-empty",
        ),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        (
            "a>",
            "unable to parse requirement: values[0]: Invalid value: \"\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
        (
            "a<>1",
            "unable to parse requirement: found '>', expected: identifier",
        ),
        ("a=b)", "found ')', expected: ',' or 'end of string'"),
        (
            "a in b,c)",
            "unable to parse requirement: found 'b' expected: '('",
        ),
        (
            "ä=b",
            "unable to parse requirement: <nil>: Invalid value: \"ä\": name part",
        ),
    ];

    #[test]
    fn text_is_read_as_kubernetes_reads_it() {
        for text in ACCEPTED {
            let read = LabelSelector::parse(text);
            assert!(read.is_ok(), "{text:?}: {read:?}");
        }
        for (text, words) in REFUSED {
            let said = LabelSelector::parse(text).expect_err(text);
            let exact =
                said.len() == words.len() || said[words.len()..].starts_with(" must consist of");
            assert!(said.starts_with(words) && exact, "{text:?}: {said}");
        }
    }

    #[test]
    fn empty_values_are_values() {
        for (selector, value, expected) in [
            ("a in ()", "", true),
            ("a in ()", "b", false),
            ("a notin ()", "", false),
            ("a in (,b)", "", true),
            ("a in (b,)", "", true),
            ("a=", "", true),
            ("a!=", "", false),
            ("a in (b)", "", false),
        ] {
            assert_eq!(selects(selector, &[("a", value)]), expected, "{selector}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z0-9!=<>(), ]{0,40}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
            }
        }
    }
}
