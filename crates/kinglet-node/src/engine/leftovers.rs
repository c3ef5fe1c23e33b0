//! What an earlier life of this instance, or another instance that was killed, left on this machine.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::EngineError;
use crate::cgroup::{Hierarchy, clear};
use crate::instances::{self, Instance, Record};
use crate::names::HostNames;
use crate::network::Network;
use crate::volumes::memory;

/// Killed processes of an earlier life are gone after milliseconds; this is for a machine that swaps.
const LEFTOVERS_TIMEOUT: Duration = Duration::from_secs(10);
/// What a start gives to the processes of all dead instances together. One that cannot be killed (in a frozen group, or waiting
/// for a disk) must not make every later start slow.
const DEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// Where the groups above all containers are written down.
const CGROUPS_RECORD: &str = "cgroups";

/// Ends what an earlier life of this instance left in control groups, and writes down where groups are now: `roots`, and those
/// of before that are still in use.
pub(super) async fn clear_own(
    names: &HostNames,
    state: &Path,
    roots: Vec<PathBuf>,
) -> Result<Vec<PathBuf>, EngineError> {
    let record = state.join(CGROUPS_RECORD);
    let mut former = read_record(&record, &names.cgroup());
    former.retain(|root| !roots.contains(root));
    let deadline = Instant::now() + LEFTOVERS_TIMEOUT;
    end_leftovers(&[roots.clone(), former.clone()].concat(), deadline).await;
    former.retain(|root| !Hierarchy::remove(std::slice::from_ref(root)));
    let roots = [roots, former].concat();
    write_record(&record, &roots).map_err(|source| EngineError::Directory {
        attempt: "writing",
        path: record,
        source,
    })?;
    Ok(roots)
}

/// Groups of an earlier life; only paths that end in our own name are believed.
fn read_record(record: &Path, name: &str) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(record).unwrap_or_default();
    text.lines()
        .map(PathBuf::from)
        .filter(|path| path.is_absolute() && path.file_name().is_some_and(|last| last == name))
        .collect()
}

fn write_record(record: &Path, roots: &[PathBuf]) -> io::Result<()> {
    let lines: Vec<String> = roots
        .iter()
        .map(|root| root.display().to_string())
        .collect();
    std::fs::write(record, lines.join("\n"))
}

/// Another start may be clearing up after an earlier life of this instance, which takes as long as killed processes of a
/// machine that swaps, and its network.
pub(super) const ENTER_MAX: Duration = LEFTOVERS_TIMEOUT.saturating_mul(2);
const ENTER_PAUSE: Duration = Duration::from_millis(20);

/// Says that this instance lives, so that nobody clears up after it. Without a place to say so (`/run` cannot be written to)
/// nobody clears up after anybody, and the instance works all the same.
pub(super) async fn enter(names: &HostNames) -> Result<Option<Instance>, EngineError> {
    let entered = enter_within(ENTER_MAX, || {
        let names = names.clone();
        tokio::task::spawn_blocking(move || Instance::enter(&names))
    });
    match entered.await {
        Ok(instance) => Ok(Some(instance)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(EngineError::RecordLocked {
            record: Instance::record_of(names),
        }),
        Err(error) => {
            tracing::warn!(%error, "this instance is not written down on this machine: if it is killed, only its own next start clears up");
            Ok(None)
        }
    }
}

/// Tries for as long as somebody else has the record.
async fn enter_within<T>(
    patience: Duration,
    mut attempt: impl FnMut() -> tokio::task::JoinHandle<io::Result<T>>,
) -> io::Result<T> {
    let give_up = Instant::now() + patience;
    loop {
        let entered = attempt().await.map_err(io::Error::other).flatten();
        match entered {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < give_up => {
                tokio::time::sleep(ENTER_PAUSE).await;
            }
            entered => return entered,
        }
    }
}

/// Takes away what instances that have ended without clearing up left on this machine. The record of one of whom something is
/// left stays, and the next start tries again.
pub(super) async fn clear_dead() {
    let deadline = Instant::now() + DEAD_TIMEOUT;
    // A handful of small files in memory.
    for (record, instance) in instances::dead() {
        tracing::info!(data = %record.data.display(), "clearing up after an instance of Kinglet that was killed");
        if let Err(error) = clear_one(&record, deadline).await {
            tracing::warn!(data = %record.data.display(), %error, "not everything that a killed instance left could be cleared away; the next start tries again");
            continue;
        }
        instance.leave();
    }
}

async fn clear_one(record: &Record, deadline: Instant) -> Result<(), EngineError> {
    let emptied = end_leftovers(&record.cgroups, deadline).await;
    if !emptied || !Hierarchy::remove(&record.cgroups) {
        let still_used = io::Error::other("control groups are still in use");
        return Err(EngineError::Cgroups(still_used));
    }
    Network::clear(&record.names()).await?;
    let data = record.data.clone();
    let closed = tokio::task::spawn_blocking(move || memory::close_memory(&data)).await;
    closed
        .map_err(io::Error::other)
        .flatten()
        .map_err(|source| EngineError::Directory {
            attempt: "unmounting what is mounted below",
            path: record.data.clone(),
            source,
        })
}

/// Kills what still runs in our groups and removes the groups, until `deadline`; whether all are gone.
pub(super) async fn end_leftovers(roots: &[PathBuf], deadline: Instant) -> bool {
    let mut told = false;
    loop {
        let left = Hierarchy::leftovers(roots);
        if left.is_empty() {
            return true;
        }
        let still_used = left.iter().filter(|group| !clear(group)).count();
        if still_used > 0 && !told {
            tracing::info!("ending containers of an earlier life");
            told = true;
        }
        if Instant::now() > deadline {
            tracing::warn!(
                groups = left.len(),
                "control groups of an earlier life cannot be removed"
            );
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_record_that_somebody_has_is_waited_for_and_never_passed_over() {
        let attempt = |kind: Option<io::ErrorKind>| {
            tokio::task::spawn_blocking(move || kind.map_or(Ok(()), |kind| Err(kind.into())))
        };
        let mut before = 5;
        let entered = enter_within(ENTER_MAX, || {
            before -= 1;
            attempt((before > 0).then_some(io::ErrorKind::WouldBlock))
        });
        entered.await.expect("it comes free");
        let began = Instant::now();
        let taken = enter_within(ENTER_MAX, || attempt(Some(io::ErrorKind::WouldBlock))).await;
        let error = taken.expect_err("somebody has it for ever");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(began.elapsed() >= ENTER_MAX, "{:?}", began.elapsed());
        let refused = enter_within(ENTER_MAX, || attempt(Some(io::ErrorKind::PermissionDenied)));
        let error = refused.await.expect_err("it cannot be written");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
