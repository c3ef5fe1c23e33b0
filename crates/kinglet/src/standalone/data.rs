//! The data directory before anything runs in it: whose it is, whether it has room, and what is missing or damaged there.

use std::path::Path;

use anyhow::Context as _;

/// The store's journal before its first checkpoint (4 MB), a small image, and logs.
const DISK_FREE_MIN_BYTES: u64 = 16 << 20;
/// Lines of what a database says about its damage.
const DAMAGES_SHOWN: usize = 3;

/// Makes the data directory one that only its owner reads.
pub(crate) fn make_private(data: &Path) -> anyhow::Result<()> {
    kinglet_process::private::directory(data)
        .context("preparing the data directory (name another one with --data)")
}

/// Refuses to start on a disk that is as good as full: the first image or the first hundred writes would fail.
pub(super) fn has_room(data: &Path) -> anyhow::Result<()> {
    let free = kinglet_process::disk::free_bytes(data)
        .with_context(|| format!("asking how full the disk of {} is", data.display()))?;
    anyhow::ensure!(
        free >= DISK_FREE_MIN_BYTES,
        "the disk of {} is full: {} kB are free, Kinglet needs {} kB to start; make room, or name another directory with --data",
        data.display(),
        free / 1024,
        DISK_FREE_MIN_BYTES / 1024
    );
    Ok(())
}

/// A data directory with certificates of an earlier life but without its objects: they are gone, which must not pass in
/// silence.
pub(super) fn warn_of_lost_objects(data: &Path) {
    let database = data.join("store/state.db");
    let is_empty = std::fs::metadata(&database).map_or(true, |meta| meta.len() == 0);
    if is_empty && data.join("pki/ca.crt").exists() {
        tracing::warn!(
            "{} is missing or empty although Kinglet ran with {} before: its objects are gone (restore the file from a copy if there is one)",
            database.display(),
            data.display()
        );
    }
}

/// Why the store does not open, and what to do.
pub(super) fn explain(data: &Path, error: &kinglet_store::OpenError) -> anyhow::Error {
    let hint = match error {
        kinglet_store::OpenError::Locked { .. } => {
            " (stop that one with `kinglet down`, or use another directory with --data)".to_owned()
        }
        kinglet_store::OpenError::Damaged { .. } => format!(
            " (restore it from a copy, or start anew with `kinglet reset --data {}`)",
            data.display()
        ),
        kinglet_store::OpenError::Format { .. } => {
            " (a newer Kinglet wrote it: use that one, or another directory with --data)".to_owned()
        }
        _ => String::new(),
    };
    let mut text = error.to_string();
    if let Some(cause) = std::error::Error::source(error) {
        text = format!("{text}: {cause}");
    }
    // The database lists every broken page, a line each.
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let said: Vec<&str> = lines.by_ref().take(DAMAGES_SHOWN).collect();
    let more = match lines.count() {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    anyhow::anyhow!("{}{more}{hint}", said.join(", "))
}
