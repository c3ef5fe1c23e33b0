//! Media types: what Go's `mime.ParseMediaType` takes.

/// Parameters of one media type; what is used has one or two.
const PARAMETERS_MAX: usize = 32;

/// The type without its parameters.
pub(crate) fn essence(content_type: &str) -> &str {
    let end = content_type.find(';').unwrap_or(content_type.len());
    content_type[..end].trim()
}

/// Whether data of this type is written as JSON into a structured event; no type means JSON.
pub(crate) fn is_json(content_type: &str) -> bool {
    let essence = essence(content_type);
    let suffix = essence.len().saturating_sub("+json".len());
    essence.is_empty()
        || essence.eq_ignore_ascii_case("application/json")
        || essence.eq_ignore_ascii_case("text/json")
        || essence
            .get(suffix..)
            .is_some_and(|end| end.eq_ignore_ascii_case("+json"))
}

/// `type/subtype; name=value; name="quoted"`, each parameter once.
pub(crate) fn parses(content_type: &str) -> bool {
    let kind = essence(content_type);
    let (main, sub) = kind.split_once('/').unwrap_or((kind, "x"));
    if !is_token(main) || !is_token(sub) {
        return false;
    }
    let mut rest = &content_type[content_type.find(';').unwrap_or(content_type.len())..];
    let mut names: Vec<String> = Vec::new();
    while let Some(after) = rest.trim_start().strip_prefix(';') {
        let after = after.trim_start();
        if after.is_empty() {
            // A semicolon at the end is forgiven.
            return true;
        }
        let Some((name, value)) = after.split_once('=') else {
            return false;
        };
        let name = name.trim_end().to_ascii_lowercase();
        if !is_token(&name) || names.len() >= PARAMETERS_MAX || names.contains(&name) {
            return false;
        }
        names.push(name);
        match parameter_value(value.trim_start()) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.trim().is_empty()
}

/// What follows a token or a quoted string.
fn parameter_value(text: &str) -> Option<&str> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c| !is_token_char(c)).unwrap_or(text.len());
        return (end > 0).then(|| &text[end..]);
    };
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(&quoted[at + 1..]),
            _ => {}
        }
    }
    None
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_token_char)
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?=".contains(c)
}
