//! What a name, a label and an annotation may be.

use serde_json::Value;

use crate::status::Cause;

const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;
const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;

/// Finalizers without a domain in front, which Kubernetes itself knows.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035_TEXT: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// Which rule a kind's names follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// `example.com`.
    Subdomain,
    /// `my-name`, may begin with a digit.
    Label,
    /// `my-name`, begins with a letter.
    Label1035,
    /// Anything that is one path segment.
    Path,
}

fn is_label(text: &str, letter_first: bool) -> bool {
    let bytes = text.as_bytes();
    let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !bytes.is_empty()
        && bytes.iter().all(|b| alnum(b) || *b == b'-')
        && bytes.first().is_some_and(|b| {
            if letter_first {
                b.is_ascii_lowercase()
            } else {
                alnum(b)
            }
        })
        && bytes.last().is_some_and(alnum)
}

/// What is wrong with a DNS label.
pub(crate) fn label(text: &str) -> Option<String> {
    length(text, LABEL_MAX).or_else(|| match () {
        () if is_label(text, false) => None,
        () if subdomain(text).is_none() => Some("must not contain dots".to_owned()),
        () => Some(LABEL_TEXT.to_owned()),
    })
}

/// What is wrong with a DNS-1035 label.
pub(crate) fn label_1035(text: &str) -> Option<String> {
    length(text, LABEL_MAX).or_else(|| (!is_label(text, true)).then(|| LABEL_1035_TEXT.to_owned()))
}

/// What is wrong with a DNS subdomain.
pub(crate) fn subdomain(text: &str) -> Option<String> {
    length(text, SUBDOMAIN_MAX).or_else(|| {
        (!text.split('.').all(|part| is_label(part, false))).then(|| SUBDOMAIN_TEXT.to_owned())
    })
}

fn length(text: &str, max: usize) -> Option<String> {
    (text.len() > max).then(|| format!("must be no more than {max} characters"))
}

/// What is wrong with a name of a kind.
pub(crate) fn check(rule: NameRule, name: &str) -> Option<String> {
    match rule {
        NameRule::Subdomain => subdomain(name),
        NameRule::Label => label(name),
        NameRule::Label1035 => label_1035(name),
        NameRule::Path => match name {
            "." | ".." => Some(format!("may not be '{name}'")),
            _ if name.contains('/') => Some("may not contain '/'".to_owned()),
            _ if name.contains('%') => Some("may not contain '%'".to_owned()),
            _ => None,
        },
    }
}

/// What is wrong with a label or annotation key.
pub(crate) fn qualified(key: &str) -> Option<String> {
    kinglet_quantity::syntax::key_error(key)
}

/// What is wrong with a label's value.
pub(crate) fn label_value(value: &str) -> Option<String> {
    kinglet_quantity::syntax::value_error(value)
}

/// Checks `labels` at a path.
pub(crate) fn check_labels(labels: Option<&Value>, path: &str, causes: &mut Vec<Cause>) {
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        if let Some(wrong) = qualified(key) {
            causes.push(Cause::invalid(path, &key.as_str().into(), &wrong));
        }
        if let Some(wrong) = value.as_str().and_then(label_value) {
            causes.push(Cause::invalid(path, value, &wrong));
        }
    }
}

/// Checks `annotations` at a path.
pub(crate) fn check_annotations(annotations: Option<&Value>, path: &str, causes: &mut Vec<Cause>) {
    let mut total = 0;
    for (key, value) in annotations.and_then(Value::as_object).into_iter().flatten() {
        // Annotation keys may be written in capitals; the rule is applied to their lower case.
        if let Some(wrong) = qualified(&key.to_lowercase()) {
            causes.push(Cause::invalid(path, &key.as_str().into(), &wrong));
        }
        total += key.len() + value.as_str().map_or(0, str::len);
    }
    if total > ANNOTATIONS_BYTES_MAX {
        causes.push(Cause {
            field: path.to_owned(),
            reason: "FieldValueTooLong",
            message: format!("Too long: may not be more than {ANNOTATIONS_BYTES_MAX} bytes"),
        });
    }
}

/// Checks the metadata that every object has.
pub(crate) fn check_metadata(object: &Value, rule: NameRule, namespaced: bool) -> Vec<Cause> {
    use crate::object::{at, items, number, text};
    let mut causes = Vec::new();
    let name = text(object, &["metadata", "name"]);
    let generate = text(object, &["metadata", "generateName"]);
    if !generate.is_empty() {
        // A generated name continues, so the prefix may end with a dash.
        let probe = generate
            .strip_suffix('-')
            .map(|stem| format!("{stem}a"))
            .unwrap_or_else(|| generate.to_owned());
        if let Some(wrong) = check(rule, &probe) {
            causes.push(Cause::invalid(
                "metadata.generateName",
                &generate.into(),
                &wrong,
            ));
        }
    }
    if name.is_empty() {
        causes.push(Cause::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else if let Some(wrong) = check(rule, name) {
        causes.push(Cause::invalid("metadata.name", &name.into(), &wrong));
    }
    if namespaced && let Some(wrong) = label(text(object, &["metadata", "namespace"])) {
        causes.push(Cause::invalid(
            "metadata.namespace",
            &text(object, &["metadata", "namespace"]).into(),
            &wrong,
        ));
    }
    check_labels(
        at(object, &["metadata", "labels"]),
        "metadata.labels",
        &mut causes,
    );
    check_annotations(
        at(object, &["metadata", "annotations"]),
        "metadata.annotations",
        &mut causes,
    );
    check_owners(items(object, &["metadata", "ownerReferences"]), &mut causes);
    for finalizer in items(object, &["metadata", "finalizers"]) {
        if let Some(wrong) = finalizer.as_str().and_then(qualified) {
            causes.push(Cause::invalid("metadata.finalizers", finalizer, &wrong));
        }
    }
    if number(object, &["metadata", "generation"]).is_some_and(|generation| generation < 0) {
        causes.push(Cause::invalid(
            "metadata.generation",
            &object["metadata"]["generation"],
            "must be greater than or equal to 0",
        ));
    }
    causes
}

/// Finalizers of a new object of a built-in kind: Kubernetes' own, or with a domain in front.
pub(crate) fn check_finalizers(object: &Value, causes: &mut Vec<Cause>) {
    let finalizers = crate::object::items(object, &["metadata", "finalizers"]);
    for (index, finalizer) in finalizers.iter().enumerate() {
        let name = finalizer.as_str().unwrap_or("");
        if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
            causes.push(Cause::invalid(
                format!("metadata.finalizers[{index}]"),
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
    }
}

fn check_owners(owners: &[Value], causes: &mut Vec<Cause>) {
    use crate::object::text;
    let path = "metadata.ownerReferences";
    let mut controller: Option<&Value> = None;
    for owner in owners {
        for (field, wrong) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            let value = text(owner, &[field]);
            if value.is_empty() {
                causes.push(Cause::invalid(
                    format!("{path}.{field}"),
                    &value.into(),
                    wrong,
                ));
            }
        }
        if (text(owner, &["apiVersion"]), text(owner, &["kind"])) == ("v1", "Event") {
            causes.push(Cause::invalid(
                path,
                owner,
                "/v1, Kind=Event is disallowed from being an owner",
            ));
        }
        if owner["controller"] != true {
            continue;
        }
        if let Some(other) = controller {
            let named = |owner| format!("{}/{}", text(owner, &["kind"]), text(owner, &["name"]));
            causes.push(Cause::invalid(
                path,
                &Value::Array(owners.to_vec()),
                &format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
                    named(other),
                    named(owner)
                ),
            ));
        }
        controller = Some(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_rule() {
        let long = "a".repeat(64);
        for (rule, name, good) in [
            (NameRule::Subdomain, "a.b-c.d1", true),
            (NameRule::Subdomain, "A", false),
            (NameRule::Subdomain, "a..b", false),
            (NameRule::Subdomain, long.as_str(), true),
            (NameRule::Label, "1a", true),
            (NameRule::Label, "a.b", false),
            (NameRule::Label, long.as_str(), false),
            (NameRule::Label1035, "1a", false),
            (NameRule::Label1035, "a1", true),
            (NameRule::Label1035, "a-", false),
            (NameRule::Path, "system:node", true),
            (NameRule::Path, "a/b", false),
        ] {
            assert_eq!(check(rule, name).is_none(), good, "{rule:?} {name}");
        }
    }

    #[test]
    fn keys_may_have_a_domain() {
        for (key, good) in [
            ("app", true),
            ("example.com/app", true),
            ("/app", false),
            ("a/b/c", false),
            ("Example.com/a", false),
            ("a b", false),
        ] {
            assert_eq!(qualified(key).is_none(), good, "{key}");
        }
        assert!(label_value("").is_none());
        assert!(label_value("-a").is_some());
    }
}
