//! `cargo xtask order`: which functions a component of the data plane runs, for the linker.
//!
//! Flow: the chain of three components under `valgrind --tool=callgrind` -> what ran until they served, what ran for
//! requests -> `crates/kinglet/order/components.txt`, which the build script of `kinglet` hands to the linker. To be run again
//! when dependencies or the compiler change: their version is part of each name, and a name that is gone does no harm but
//! no good either (`cargo xtask bench roles` says how many are left).

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::bench::roles;

/// Requests through each hop, one after the other and some at once.
const SECONDS: u32 = 4;

/// The file, for the build script.
pub(crate) fn file() -> PathBuf {
    crate::root().join("crates/kinglet/order/components.txt")
}

pub(crate) async fn run() -> anyhow::Result<()> {
    let folder = kinglet_testkit::instance::scratch("order");
    std::fs::create_dir_all(&folder)?;
    let binary = crate::release_binary()?;
    let profiles = roles::profile(&folder, SECONDS).await?;
    let (mut started, mut served) = (BTreeSet::new(), BTreeSet::new());
    for profile in &profiles {
        // The first part was written when the component served, the second one after the requests.
        for (part, into) in [(1, &mut started), (2, &mut served)] {
            let path = PathBuf::from(format!("{}.{part}", profile.display()));
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("reading {}", path.display()))?;
            into.extend(functions(&text, Path::new(&binary)));
        }
    }
    let starting: Vec<&String> = started.difference(&served).collect();
    let mut text = format!(
        "# Written by `cargo xtask order`: {} functions that serve, then {} more of the start.\n",
        served.len(),
        starting.len()
    );
    for name in served.iter().chain(starting) {
        text.push_str(name);
        text.push('\n');
    }
    std::fs::write(file(), text)?;
    println!(
        "{} functions in {}",
        started.union(&served).count(),
        file().display()
    );
    let _ = std::fs::remove_dir_all(folder);
    Ok(())
}

/// How many names of the file the program has, and how many there are.
pub(crate) fn kept(binary: &str) -> anyhow::Result<(usize, usize)> {
    let output = Command::new("nm").args(["--defined-only", binary]).output();
    let output = output.context("running nm")?;
    let symbols = String::from_utf8_lossy(&output.stdout);
    let symbols: BTreeSet<String> = symbols
        .lines()
        .filter_map(|line| line.split_whitespace().next_back().map(portable))
        .collect();
    let names = std::fs::read_to_string(file())?;
    let names = names.lines().filter(|line| !line.starts_with('#'));
    let all: Vec<&str> = names.collect();
    let kept = all.iter().filter(|name| symbols.contains(**name)).count();
    Ok((kept, all.len()))
}

/// The functions of `binary` that ran, by a profile in callgrind's format: `ob=(1) FILE`, `fn=(7) NAME`, and after the first
/// time the number alone.
fn functions(profile: &str, binary: &Path) -> BTreeSet<String> {
    let (mut objects, mut names) = (HashMap::new(), HashMap::new());
    let (mut ran, mut inside) = (BTreeSet::new(), false);
    for line in profile.lines() {
        let Some((what, rest)) = line.split_once("=(") else {
            continue;
        };
        let Some((number, text)) = rest.split_once(')') else {
            continue;
        };
        let known = match what {
            "ob" | "cob" => &mut objects,
            "fn" | "cfn" => &mut names,
            _ => continue,
        };
        if !text.is_empty() {
            known.insert(number, text.trim_start());
        }
        match what {
            "ob" => {
                inside = objects
                    .get(number)
                    .is_some_and(|path| Path::new(path) == binary)
            }
            "fn" if inside => {
                ran.insert(number);
            }
            _ => {}
        }
    }
    let of = |number| names.get(number).copied();
    let named = ran.into_iter().filter_map(of);
    named
        .filter(|name| name.starts_with("_ZN") || name.starts_with("_R"))
        .map(portable)
        .collect()
}

/// The name as the file has it: the number that the compiler adds to what is internal to a module changes with the module.
fn portable(name: &str) -> String {
    // Recursion is told apart by a mark.
    let name = name.split('\'').next().unwrap_or(name);
    match name.rsplit_once(".llvm.") {
        Some((stem, _)) => format!("{stem}.llvm.*"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_the_program_by_name() {
        let profile = "ob=(1) /lib/libc.so.6\nfn=(1) malloc\n0 3\n\nob=(2) /bin/kinglet\nfl=(1) ???\nfn=(2) _ZN1a1b17h0E\n0 1\ncob=(1)\ncfn=(1)\ncalls=1 0\n0 2\ncfn=(3) _ZN1a1c17h1E.llvm.77\ncalls=1 0\n0 2\n\nfn=(3)\n0 4\n\nob=(1)\nfn=(4) _ZN3notE\n0 1\n\nob=(2)\nfn=(5) main\n0 1\n\nfn=(2)\n";
        let found = functions(profile, Path::new("/bin/kinglet"));
        let expected = ["_ZN1a1b17h0E", "_ZN1a1c17h1E.llvm.*"];
        assert_eq!(found, expected.map(str::to_owned).into());
    }
}
