//! Field errors: what is wrong where, merged and worded as Knative does (spec/serving.md 0.4).

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Display;

/// Whether a finding stops the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Error,
    Warning,
}

/// One finding at some paths.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    level: Level,
    message: String,
    details: String,
    paths: Vec<String>,
}

/// All findings about an object so far.
///
/// Paths are built inside out: whoever calls a check prefixes what it found ([`Findings::under`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Nothing found.
    pub fn none() -> Self {
        Self::default()
    }

    /// Any sentence at a path; the empty path means "here".
    pub fn error(message: impl Into<String>, path: &str) -> Self {
        Self::new(Level::Error, message.into(), &[path])
    }

    /// A sentence that belongs to no path.
    pub fn general(message: impl Into<String>) -> Self {
        Self::new(Level::Error, message.into(), &[])
    }

    /// A warning at a path.
    pub fn warning(message: impl Into<String>, path: &str) -> Self {
        Self::new(Level::Warning, message.into(), &[path])
    }

    /// A warning that belongs to no path.
    pub fn general_warning(message: impl Into<String>) -> Self {
        Self::new(Level::Warning, message.into(), &[])
    }

    /// `missing field(s)`.
    pub fn missing(path: &str) -> Self {
        Self::error("missing field(s)", path)
    }

    /// `must not set the field(s)`.
    pub fn disallowed(path: &str) -> Self {
        Self::error("must not set the field(s)", path)
    }

    /// `invalid value: v`.
    pub fn invalid(value: impl Display, path: &str) -> Self {
        Self::error(format!("invalid value: {value}"), path)
    }

    /// `expected exactly one, got neither`.
    pub fn missing_one_of(paths: &[&str]) -> Self {
        Self::new(
            Level::Error,
            "expected exactly one, got neither".into(),
            paths,
        )
    }

    /// `expected exactly one, got both`.
    pub fn several_of(paths: &[&str]) -> Self {
        Self::new(Level::Error, "expected exactly one, got both".into(), paths)
    }

    /// `invalid key name "k"`.
    pub fn invalid_key(key: &str, path: &str) -> Self {
        Self::error(format!("invalid key name {}", crate::go::quote(key)), path)
    }

    /// `expected lower <= value <= upper`.
    pub fn out_of_bounds(
        value: impl Display,
        lower: impl Display,
        upper: impl Display,
        path: &str,
    ) -> Self {
        Self::error(format!("expected {lower} <= {value} <= {upper}"), path)
    }

    fn new(level: Level, message: String, paths: &[&str]) -> Self {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        Self(vec![Finding {
            level,
            message,
            details: String::new(),
            paths,
        }])
    }

    /// Adds details to each finding.
    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Self {
        let details = details.into();
        for finding in &mut self.0 {
            finding.details.clone_from(&details);
        }
        self
    }

    /// These findings, one level further out: under a field.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        for path in self.0.iter_mut().flat_map(|finding| &mut finding.paths) {
            *path = join(prefix, path);
        }
        self
    }

    /// Under an element of a list.
    #[must_use]
    pub fn at(self, index: usize) -> Self {
        self.under(&format!("[{index}]"))
    }

    /// Under an element of a field that is a list.
    #[must_use]
    pub fn under_at(self, field: &str, index: usize) -> Self {
        self.at(index).under(field)
    }

    /// Under a key of a map.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        self.under(&format!("[{key}]"))
    }

    /// Takes over others' findings.
    pub fn add(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Whether nothing at all was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The errors in one text, `None` if there are none.
    pub fn errors(&self) -> Option<String> {
        let lines = self.rendered(Level::Error);
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// The warnings, one text each.
    pub fn warnings(&self) -> Vec<String> {
        self.rendered(Level::Warning)
    }

    fn rendered(&self, level: Level) -> Vec<String> {
        let mut merged: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
        for finding in self.0.iter().filter(|finding| finding.level == level) {
            merged
                .entry((&finding.message, &finding.details))
                .or_default()
                .extend(finding.paths.iter().map(String::as_str));
        }
        let render = |((message, details), paths): ((&str, &str), BTreeSet<&str>)| {
            let paths = paths.into_iter().collect::<Vec<_>>().join(", ");
            if details.is_empty() {
                format!("{message}: {paths}")
            } else {
                format!("{message}: {paths}\n{details}")
            }
        };
        merged.into_iter().map(render).collect()
    }
}

/// Puts a prefix before a path: dots between segments, none before a bracketed one.
fn join(prefix: &str, path: &str) -> String {
    let mut out = String::with_capacity(prefix.len() + path.len() + 1);
    for segment in prefix
        .split('.')
        .chain(path.split('.'))
        .filter(|segment| !segment.is_empty())
    {
        let bracketed = segment.starts_with('[') && segment.ends_with(']');
        if !out.is_empty() && !bracketed {
            out.push('.');
        }
        out.push_str(segment);
    }
    out
}

impl FromIterator<Findings> for Findings {
    fn from_iter<T: IntoIterator<Item = Findings>>(iter: T) -> Self {
        Self(iter.into_iter().flat_map(|findings| findings.0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::Findings;

    #[test]
    fn equal_findings_share_a_line() {
        let mut found = Findings::missing("image").under_at("containers", 1);
        found.add(
            Findings::missing("name")
                .under_at("env", 0)
                .under_at("containers", 0),
        );
        found.add(Findings::invalid("x", "").under("mode"));
        assert_eq!(
            found.under("spec").errors().unwrap(),
            "invalid value: x: spec.mode\nmissing field(s): spec.containers[0].env[0].name, spec.containers[1].image"
        );
    }

    #[test]
    fn details_follow_on_a_line_of_their_own() {
        let found = Findings::error("bad", "a").details("because");
        assert_eq!(found.errors().unwrap(), "bad: a\nbecause");
        assert_eq!(
            Findings::general("off").under("spec").errors().unwrap(),
            "off: "
        );
    }

    #[test]
    fn a_key_with_dots_is_not_glued() {
        let found = Findings::missing("")
            .key("queue.example.dev/x")
            .under("metadata.annotations");
        assert_eq!(
            found.errors().unwrap(),
            "missing field(s): metadata.annotations.[queue.example.dev/x]"
        );
        assert_eq!(
            Findings::missing("").key("x").under("m").errors().unwrap(),
            "missing field(s): m[x]"
        );
    }

    #[test]
    fn warnings_do_not_stop() {
        let found = Findings::warning("careful", "a");
        assert_eq!(found.errors(), None);
        assert_eq!(found.warnings(), ["careful: a"]);
    }
}
