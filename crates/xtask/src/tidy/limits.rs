//! docs/reference/limits.md: every bound in the code with its number, read from the constants named `…_MAX…`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};

const PAGE: &str = "docs/reference/limits.md";
/// What people write stands above this line, and stays; below it is what the code says.
const BEGIN: &str = "## Every bound that the code names";
const INTRODUCTION: &str = "By crate; written by `cargo xtask tidy --write` from the constants themselves.\nWhat happens at a bound is said where the constant is used: most refuse in words, queues of statistics drop the oldest.\n";

/// One constant.
struct Bound {
    name: String,
    value: String,
    meaning: String,
}

/// Writes the page anew.
pub(super) fn write(sources: &[std::path::PathBuf]) -> anyhow::Result<()> {
    let path = crate::root().join(PAGE);
    let before = std::fs::read_to_string(&path).with_context(|| format!("reading {PAGE}"))?;
    let head = head(&before)?;
    let mut page = format!("{head}{BEGIN}\n\n{INTRODUCTION}");
    let mut names = BTreeSet::new();
    let mut heading = String::new();
    for file in sources {
        let shown = file.strip_prefix(crate::root()).unwrap_or(file);
        let Some(krate) = shipped(shown) else {
            continue;
        };
        let text =
            std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        for bound in bounds(&text) {
            names.insert(bound.name.clone());
            if heading != krate {
                heading = krate.to_owned();
                let _ = write!(
                    page,
                    "\n### {krate}\n\n| Bound | Number | Of what |\n|---|---|---|\n"
                );
            }
            let _ = writeln!(
                page,
                "| `{}` ({}) | `{}` | {} |",
                bound.name,
                shown.file_name().unwrap_or_default().to_string_lossy(),
                bound.value,
                bound.meaning
            );
        }
    }
    if let Some(unknown) = named(head).find(|name| !names.contains(*name)) {
        bail!("{PAGE} speaks of {unknown}, which no crate has any more");
    }
    std::fs::write(&path, page).with_context(|| format!("writing {}", path.display()))
}

fn head(page: &str) -> anyhow::Result<&str> {
    let end = page.find(BEGIN);
    let end = end.with_context(|| format!("{PAGE} has no line {BEGIN:?} any more"))?;
    Ok(&page[..end])
}

/// The constants that the upper part of the page names.
fn named(head: &str) -> impl Iterator<Item = &str> {
    head.split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.ends_with("_MAX"))
}

/// The crate of a source file that ships.
fn shipped(file: &Path) -> Option<&str> {
    let mut parts = file.components().map(|part| part.as_os_str().to_str());
    let krate = parts.nth(1)??;
    let aside = ["xtask", "kinglet-testkit"].contains(&krate);
    let tests = file.ends_with("tests.rs") || parts.next()?? != "src";
    (!aside && !tests).then_some(krate)
}

fn bounds(text: &str) -> Vec<Bound> {
    let mut found = Vec::new();
    let mut meaning = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("///") {
            meaning.push(words.trim().to_owned());
            continue;
        }
        if let Some(bound) = constant(line) {
            found.push(Bound {
                meaning: meaning.join(" ").replace('|', "\\|"),
                ..bound
            });
        }
        meaning.clear();
    }
    found
}

/// `const NAME_MAX: TYPE = VALUE;`
fn constant(line: &str) -> Option<Bound> {
    let declared = line.split_once("const ")?;
    if !(declared.0.is_empty() || declared.0.starts_with("pub")) {
        return None;
    }
    let (name, rest) = declared.1.split_once(':')?;
    let named = name.split('_').any(|part| part == "MAX");
    let value = rest.split_once('=')?.1.trim().strip_suffix(';')?;
    named.then(|| Bound {
        name: name.to_owned(),
        value: value.to_owned(),
        meaning: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_with_their_meaning() {
        let text = "/// Bodies that wait,\n/// at most.\npub(crate) const WAITING_MAX: usize = 4 << 10;\nconst OTHER: u8 = 1;\nlet const_MAX = 3;\n";
        let found = bounds(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "WAITING_MAX");
        assert_eq!(found[0].value, "4 << 10");
        assert_eq!(found[0].meaning, "Bodies that wait, at most.");
    }

    #[test]
    fn what_people_wrote_stays_and_names_constants() {
        let page = "# Limits\n\n| `A_MAX` | `kubectl` | `B_MAX` |\n\n## Every bound that the code names\n\nold";
        let head = head(page).expect("whole");
        assert!(head.ends_with("|\n\n"), "{head:?}");
        assert_eq!(named(head).collect::<Vec<_>>(), ["A_MAX", "B_MAX"]);
        super::head("# Limits\n").expect_err("no line");
    }
}
