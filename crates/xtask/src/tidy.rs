//! House rules that a machine can check.

mod arrows;
mod limits;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::Value;

/// Never in the graph: native tools, second TLS stacks.
const BANNED: [&str; 5] = ["ring", "openssl-sys", "openssl", "bindgen", "native-tls"];

/// Exactly one version of each.
const SINGLE: [&str; 11] = [
    "hyper",
    "http",
    "h2",
    "rustls",
    "tokio",
    "tower",
    "k8s-openapi",
    "schemars",
    "reqwest",
    "axum",
    "rusqlite",
];

/// Licences we accept, as SPDX ids; an expression passes when one of its alternatives does.
const LICENCES: [&str; 14] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "CC0-1.0",
    "Unlicense",
    "Unicode-3.0",
    "CDLA-Permissive-2.0",
    "MPL-2.0",
    "BSL-1.0",
];

/// Crates that carry only a licence file: what the file says.
const CLARIFIED: [(&str, &str); 1] = [("rust-criu", "Apache-2.0")];

/// Words that must not stay in code (in two halves, so that this file passes).
const UNFINISHED: [(&str, &str); 4] = [
    ("todo", "!("),
    ("unimplemented", "!("),
    ("dbg", "!("),
    ("FIX", "ME"),
];

const DOCUMENTS: [&str; 12] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
    "docs/benchmarks.md",
    "docs/testing.md",
    "docs/guide/install.md",
    "docs/guide/images.md",
    "docs/guide/security.md",
    "docs/reference/limits.md",
    "docs/decisions",
];

/// `write`: the block of arrows and the page of limits are made anew first.
pub(crate) fn run(write: bool) -> anyhow::Result<()> {
    let metadata = metadata()?;
    if write {
        arrows::write(&metadata)?;
        limits::write(&sources(&crate::root().join("crates"))?)?;
    }
    let mut problems = Vec::new();
    arrows::check(&metadata, &mut problems)?;
    let graph = graph()?;
    versions(&graph, &mut problems);
    licences(&graph, &mut problems);
    documents(&metadata, &mut problems);
    for file in sources(&crate::root().join("crates"))? {
        source(&file, &mut problems)?;
    }
    if problems.is_empty() {
        eprintln!("tidy: nothing to complain about");
        return Ok(());
    }
    for problem in &problems {
        eprintln!("tidy: {problem}");
    }
    bail!("{} house rules broken", problems.len())
}

fn metadata() -> anyhow::Result<Value> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(crate::root())
        .output()
        .context("running cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    serde_json::from_slice(&output.stdout).context("parsing cargo metadata")
}

/// The workspace's own crates.
fn members(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|package| package["source"].is_null())
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// One crate that is really compiled.
struct Compiled {
    name: String,
    version: String,
    licence: String,
}

/// What is compiled for our platform. `cargo metadata` also lists optional crates that no feature turns on.
fn graph() -> anyhow::Result<Vec<Compiled>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "tree",
            "--workspace",
            "--locked",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--no-dedupe",
            "--format",
            "{p}|{l}",
        ])
        .current_dir(crate::root())
        .output()
        .context("running cargo tree")?;
    if !output.status.success() {
        bail!(
            "cargo tree: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let lines: BTreeSet<&str> = std::str::from_utf8(&output.stdout)
        .context("reading cargo tree")?
        .lines()
        .collect();
    let crates = lines.into_iter().filter_map(|line| {
        let (package, licence) = line.split_once('|')?;
        let mut words = package.split(' ');
        let (name, version) = (words.next()?, words.next()?);
        Some(Compiled {
            name: name.to_owned(),
            version: version.to_owned(),
            licence: licence.to_owned(),
        })
    });
    Ok(crates.collect())
}

fn versions(graph: &[Compiled], problems: &mut Vec<String>) {
    let mut versions_of: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for compiled in graph {
        versions_of
            .entry(&compiled.name)
            .or_default()
            .insert(&compiled.version);
    }
    problems.extend(
        BANNED
            .iter()
            .filter(|name| versions_of.contains_key(*name))
            .map(|name| {
                format!("{name} must not be in the graph (no native tools, one TLS provider)")
            }),
    );
    for name in SINGLE {
        if let Some(versions) = versions_of.get(name).filter(|versions| versions.len() > 1) {
            problems.push(format!(
                "{name} is there in {} versions: {}",
                versions.len(),
                versions.iter().copied().collect::<Vec<_>>().join(", ")
            ));
        }
    }
}

fn licences(graph: &[Compiled], problems: &mut Vec<String>) {
    for compiled in graph {
        let clarified = CLARIFIED
            .iter()
            .find(|(known, _)| *known == compiled.name)
            .map(|(_, licence)| *licence);
        let licence = clarified.unwrap_or(&compiled.licence);
        if !acceptable(licence) {
            problems.push(format!(
                "{} has licence {licence:?}, which is not on the list",
                compiled.name
            ));
        }
    }
}

/// SPDX expressions as crates write them: `A OR B`, `A AND B`, `A/B`, parentheses.
fn acceptable(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let bare = expression.trim();
    if LICENCES.contains(&bare) {
        return true;
    }
    for (word, every) in [(" AND ", true), (" OR ", false)] {
        let parts = split(bare, word);
        if parts.len() > 1 {
            return if every {
                parts.iter().all(|part| acceptable(part))
            } else {
                parts.iter().any(|part| acceptable(part))
            };
        }
    }
    bare.strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'))
        .is_some_and(acceptable)
}

/// Splits at a word outside of parentheses.
fn split<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let (mut parts, mut depth, mut start, mut index) = (Vec::new(), 0_u32, 0, 0);
    while index < text.len() {
        let rest = &text[index..];
        match rest.as_bytes()[0] {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ if depth == 0 && rest.starts_with(word) => {
                parts.push(&text[start..index]);
                start = index + word.len();
            }
            _ => {}
        }
        index += rest.chars().next().map_or(1, char::len_utf8);
    }
    parts.push(&text[start..]);
    parts
}

fn documents(metadata: &Value, problems: &mut Vec<String>) {
    let root = crate::root();
    problems.extend(
        DOCUMENTS
            .iter()
            .filter(|document| !root.join(document).exists())
            .map(|document| format!("{document} is missing")),
    );
    let map = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap_or_default();
    for package in members(metadata) {
        let name = text(package, "name");
        let short = arrows::role(name);
        if !map.contains(&format!("`{short}`")) {
            problems.push(format!("ARCHITECTURE.md does not mention `{short}`"));
        }
    }
}

fn sources(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in
        std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                found.extend(sources(&path)?);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn source(file: &Path, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let content =
        std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let shown = file.strip_prefix(crate::root()).unwrap_or(file).display();
    if !content.trim_start().starts_with("//!") {
        problems.push(format!(
            "{shown} does not open with a `//!` line that says what it is for"
        ));
    }
    if file.file_name().is_some_and(|name| name == "mod.rs") {
        problems.push(format!(
            "{shown}: name the file after its module, beside its folder"
        ));
    }
    let banned_names = [
        "util.rs",
        "utils.rs",
        "common.rs",
        "helper.rs",
        "helpers.rs",
        "misc.rs",
        "manager.rs",
    ];
    if file
        .file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| banned_names.contains(&name))
    {
        problems.push(format!(
            "{shown}: the name says nothing; what is the idea in it called?"
        ));
    }
    for (first, second) in UNFINISHED {
        let word = format!("{first}{second}");
        if let Some(line) = content.lines().position(|line| line.contains(&word)) {
            problems.push(format!("{shown}:{}: {word}", line + 1));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_expressions() {
        for (expression, accepted) in [
            ("MIT", true),
            ("MIT OR Apache-2.0", true),
            ("MIT/Apache-2.0", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
            ("MIT AND GPL-3.0", false),
            ("Apache-2.0 WITH LLVM-exception OR Apache-2.0", true),
        ] {
            assert_eq!(acceptable(expression), accepted, "{expression}");
        }
    }
}
