//! The seeds of the fuzz targets, run once each on stable. Hours of new inputs: `cargo xtask soak fuzz`.

use std::path::Path;

use anyhow::ensure;

#[expect(
    unreachable_pub,
    reason = "the same file is the library that fuzz targets use"
)]
#[path = "../../../../fuzz/src/lib.rs"]
mod fuzz;

#[test]
fn the_seeds_of_every_fuzz_target_pass() -> anyhow::Result<()> {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    let mut folders: Vec<String> = std::fs::read_dir(&seeds)?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    folders.sort();
    let mut names: Vec<&str> = fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    ensure!(
        folders == names,
        "each target has a folder of seeds: {folders:?}"
    );
    for (name, target) in fuzz::TARGETS {
        for entry in std::fs::read_dir(seeds.join(name))?.flatten() {
            let bytes = std::fs::read(entry.path())?;
            // Cut off anywhere, an input is still no reason to panic.
            for end in [bytes.len(), bytes.len() / 2, bytes.len().saturating_sub(1)] {
                target(&bytes[..end]);
            }
        }
    }
    Ok(())
}
