//! The arrows between our crates: read from the real graph, compared with the block in ARCHITECTURE.md.
//!
//! Always: an arrow that is not in the block, or in the block and not in the graph, is a problem; so is one that does
//! not point to a lower layer of the map. `cargo xtask tidy --write` writes the block, and a review sees the new arrow.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use serde_json::Value;

use super::{members, text};

const DOCUMENT: &str = "ARCHITECTURE.md";
const BEGIN: &str = "```arrows\n";
const END: &str = "```\n";
/// The one crate of layer 2 that others of its layer may use (ARCHITECTURE.md says so).
const SAME_LAYER: &str = "process";
/// Crates that never ship; who may depend on what is free for them.
const ASIDE: [&str; 1] = ["xtask"];

/// Crate (by role) -> the crates of ours it is built with; dev-dependencies do not count.
type Arrows = BTreeMap<String, BTreeSet<String>>;

/// A crate's name without the project's: `store` of `kinglet-store`.
pub(super) fn role(name: &str) -> &str {
    name.strip_prefix("kinglet-").unwrap_or(name)
}

pub(super) fn check(metadata: &Value, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let document = document()?;
    let real = real(metadata);
    match written(&document) {
        Some(written) => compare(&written, &real, problems),
        None => problems.push(format!(
            "{DOCUMENT} has no block of arrows; `cargo xtask tidy --write` writes it"
        )),
    }
    direction(&layers(&document), &real, problems);
    Ok(())
}

/// Writes the block anew from the real graph.
pub(super) fn write(metadata: &Value) -> anyhow::Result<()> {
    let document = document()?;
    let (before, rest) = document
        .split_once(BEGIN)
        .with_context(|| format!("{DOCUMENT} has no ```arrows block to write to"))?;
    let (_, after) = rest
        .split_once(END)
        .context("the block of arrows does not end")?;
    let block: String = real(metadata)
        .iter()
        .map(|(from, to)| {
            let to: Vec<&str> = to.iter().map(String::as_str).collect();
            format!("{from} -> {}\n", to.join(" ")).replace("-> \n", "->\n")
        })
        .collect();
    let path = crate::root().join(DOCUMENT);
    std::fs::write(&path, format!("{before}{BEGIN}{block}{END}{after}"))
        .with_context(|| format!("writing {}", path.display()))
}

fn document() -> anyhow::Result<String> {
    let path = crate::root().join(DOCUMENT);
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

fn real(metadata: &Value) -> Arrows {
    let names: BTreeSet<&str> = members(metadata)
        .map(|package| text(package, "name"))
        .collect();
    members(metadata)
        .map(|package| (package, role(text(package, "name"))))
        .filter(|(_, name)| !ASIDE.contains(name))
        .map(|(package, name)| {
            let dependencies = package["dependencies"].as_array().into_iter().flatten();
            let ours = dependencies
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| text(dependency, "name"))
                .filter(|dependency| names.contains(dependency))
                .map(|dependency| role(dependency).to_owned());
            (name.to_owned(), ours.collect())
        })
        .collect()
}

fn written(document: &str) -> Option<Arrows> {
    let (block, _) = document.split_once(BEGIN)?.1.split_once(END)?;
    let lines = block.lines().filter_map(|line| {
        let (from, to) = line.split_once("->")?;
        let to = to.split_whitespace().map(str::to_owned).collect();
        Some((from.trim().to_owned(), to))
    });
    Some(lines.collect())
}

fn compare(written: &Arrows, real: &Arrows, problems: &mut Vec<String>) {
    let pairs = |arrows: &Arrows| -> BTreeSet<(String, String)> {
        let each = |(from, to): (&String, &BTreeSet<String>)| {
            to.iter()
                .map(|to| (from.clone(), to.clone()))
                .collect::<Vec<_>>()
        };
        arrows.iter().flat_map(each).collect()
    };
    let (before, now) = (pairs(written), pairs(real));
    problems.extend(now.difference(&before).map(|(from, to)| {
        format!(
            "{from} -> {to} is not among the arrows of {DOCUMENT}: a new arrow is a decision (`cargo xtask tidy --write`)"
        )
    }));
    problems.extend(before.difference(&now).map(|(from, to)| {
        format!("{from} -> {to} is among the arrows of {DOCUMENT}, but not in the graph (`cargo xtask tidy --write`)")
    }));
    problems.extend(
        real.keys()
            .filter(|name| !written.contains_key(*name))
            .map(|name| format!("{name} is not among the arrows of {DOCUMENT}")),
    );
}

/// Layers by the map's table: `| 2 | `process` | …`.
fn layers(document: &str) -> BTreeMap<String, u32> {
    let rows = document.lines().filter_map(|line| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        let layer: u32 = cells.next()?.parse().ok()?;
        Some((cells.next()?.trim_matches('`').to_owned(), layer))
    });
    rows.collect()
}

fn direction(layers: &BTreeMap<String, u32>, real: &Arrows, problems: &mut Vec<String>) {
    for (from, targets) in real {
        // What never ships has no layer.
        let Some(above) = layers.get(from) else {
            continue;
        };
        for to in targets {
            let allowed = match layers.get(to) {
                Some(below) => below < above || (below == above && to == SAME_LAYER),
                None => false,
            };
            if !allowed {
                problems.push(format!(
                    "{from} may not depend on {to}: arrows point to a lower layer of the map in {DOCUMENT}"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "| 0 | `store` | x | |\n| 2 | `process` | x | |\n| 2 | `image` | x | |\n| 3 | `node` | x | |\n```arrows\nimage -> process\nnode -> image store\nprocess ->\n```\n";

    fn arrows(pairs: &[(&str, &[&str])]) -> Arrows {
        pairs
            .iter()
            .map(|(from, to)| {
                (
                    (*from).to_owned(),
                    to.iter().map(|to| (*to).to_owned()).collect(),
                )
            })
            .collect()
    }

    #[test]
    fn the_block_is_compared_with_the_graph_both_ways() {
        let written = written(DOCUMENT).expect("a block");
        let mut problems = Vec::new();
        compare(&written, &written.clone(), &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        let real = arrows(&[
            ("image", &["process"]),
            ("node", &["image", "process"]),
            ("process", &[]),
            ("new", &[]),
        ]);
        compare(&written, &real, &mut problems);
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].contains("node -> process"), "{problems:?}");
        assert!(problems[1].contains("node -> store"), "{problems:?}");
        assert!(problems[2].starts_with("new is not"), "{problems:?}");
    }

    #[test]
    fn arrows_point_down() {
        let layers = layers(DOCUMENT);
        let mut problems = Vec::new();
        direction(
            &layers,
            &arrows(&[("image", &["process"]), ("node", &["image", "store"])]),
            &mut problems,
        );
        assert!(problems.is_empty(), "{problems:?}");
        direction(
            &layers,
            &arrows(&[("process", &["image"]), ("store", &["node"])]),
            &mut problems,
        );
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
