//! Names, labels and keys as Kubernetes allows them, with its own sentences about what is wrong.

use crate::go::quote;

/// Longest DNS label.
const LABEL_LEN_MAX: usize = 63;
/// Longest DNS subdomain.
const SUBDOMAIN_LEN_MAX: usize = 253;

const LABEL_1123: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_1123: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED_NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} characters")
}

fn is_label(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !text.is_empty()
        && text.bytes().all(|b| alphanumeric(b) || b == b'-')
        && text.bytes().next().is_some_and(alphanumeric)
        && text.bytes().next_back().is_some_and(alphanumeric)
}

/// What is wrong with a DNS-1123 label.
pub fn dns_1123_label(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > LABEL_LEN_MAX {
        wrong.push(too_long(LABEL_LEN_MAX));
    }
    if !is_label(text) {
        let only_dots = text.contains('.') && text.split('.').all(is_label);
        wrong.push(if only_dots {
            "must not contain dots".to_owned()
        } else {
            LABEL_1123.to_owned()
        });
    }
    wrong
}

/// What is wrong with a DNS-1123 subdomain.
pub fn dns_1123_subdomain(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > SUBDOMAIN_LEN_MAX {
        wrong.push(too_long(SUBDOMAIN_LEN_MAX));
    }
    if !text.split('.').all(is_label) {
        wrong.push(SUBDOMAIN_1123.to_owned());
    }
    wrong
}

/// What is wrong with a fully qualified domain name, as the field error of Kubernetes' `IsFullyQualifiedDomainName`
/// without the path: `Invalid value: "x": must be ...`.
pub fn fully_qualified_domain_name(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("Required value".to_owned());
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let invalid = |value: &str, wrong: &[String]| {
        (!wrong.is_empty()).then(|| format!("Invalid value: {}: {}", quote(value), wrong.join(",")))
    };
    if let Some(wrong) = invalid(name, &dns_1123_subdomain(name)) {
        return Some(wrong);
    }
    if !name.contains('.') {
        let wrong = "should be a domain with at least two segments separated by dots".to_owned();
        return invalid(name, &[wrong]);
    }
    name.split('.')
        .find_map(|label| invalid(label, &dns_1123_label(label)))
}

/// What is wrong with a DNS-1035 label.
pub fn dns_1035_label(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > LABEL_LEN_MAX {
        wrong.push(too_long(LABEL_LEN_MAX));
    }
    if !is_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        wrong.push(LABEL_1035.to_owned());
    }
    wrong
}

/// What is wrong with a `generateName` for DNS-1035 labels: a trailing dash is fine.
pub fn dns_1035_prefix(text: &str) -> Vec<String> {
    match text.strip_suffix('-') {
        Some(head) => dns_1035_label(&format!("{head}a")),
        None => dns_1035_label(text),
    }
}

/// What is wrong with a qualified name (`prefix/name` or `name`).
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let (prefix, name) = match text.split_once('/') {
        None => (None, text),
        Some((_, rest)) if rest.contains('/') => {
            return vec![format!(
                "a qualified name {QUALIFIED_NAME} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some((prefix, name)) => (Some(prefix), name),
    };
    if let Some(prefix) = prefix {
        if prefix.is_empty() {
            wrong.push("prefix part must be non-empty".to_owned());
        } else {
            wrong.extend(
                dns_1123_subdomain(prefix)
                    .into_iter()
                    .map(|error| format!("prefix part {error}")),
            );
        }
    }
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_LEN_MAX {
        wrong.push(format!("name part {}", too_long(LABEL_LEN_MAX)));
    }
    if !is_name_part(name) {
        wrong.push(format!("name part {QUALIFIED_NAME}"));
    }
    wrong
}

fn is_name_part(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// What is wrong with the name of a container port in a Pod.
pub fn port_name(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > 15 {
        wrong.push(too_long(15));
    }
    if text
        .bytes()
        .any(|b| b != b'-' && !b.is_ascii_lowercase() && !b.is_ascii_digit())
    {
        wrong.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    } else if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_owned());
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        for good in ["a", "a-b", "abc-123"] {
            assert!(
                dns_1035_label(good).is_empty() && dns_1123_label(good).is_empty(),
                "{good}"
            );
        }
        for bad in ["", "A", "-a", "a-", "a_b"] {
            assert!(
                !dns_1035_label(bad).is_empty() && !dns_1123_label(bad).is_empty(),
                "{bad}"
            );
        }
        assert!(!dns_1035_label("1a").is_empty());
        assert!(dns_1123_label("1a").is_empty());
        assert_eq!(dns_1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            dns_1123_label(&"x".repeat(64)),
            ["must be no more than 63 characters"]
        );
        assert!(dns_1035_prefix("svc-").is_empty());
    }

    #[test]
    fn longer_names() {
        assert!(dns_1123_subdomain("a.b-c.1").is_empty());
        assert!(!dns_1123_subdomain("a..b").is_empty());
        assert!(qualified_name("example.com/My.Name_1").is_empty());
        assert!(!qualified_name("Not Valid").is_empty());
        assert!(!qualified_name("/x").is_empty());
        assert!(!qualified_name("a/b/c").is_empty());
    }
}
