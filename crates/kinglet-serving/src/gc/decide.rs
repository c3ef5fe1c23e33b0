//! Which Revisions of a Configuration may go: pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kinglet_api::config::Gc;
use kinglet_api::keys;
use kinglet_api::serving::{Configuration, Revision};
use kinglet_reconcile::is_deleting;

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// To be deleted, oldest first.
    pub(super) delete: Vec<Arc<Revision>>,
    /// When the next one will be old enough.
    pub(super) again: Option<Duration>,
}

pub(super) fn decide(
    configuration: &Configuration,
    revisions: &[Arc<Revision>],
    gc: &Gc,
    now: Timestamp,
) -> Verdict {
    let (created, active) = (
        gc.retain_since_create_time,
        gc.retain_since_last_active_time,
    );
    let (least, most) = (
        usize::try_from(gc.min_non_active_revisions).unwrap_or(usize::MAX),
        gc.max_non_active_revisions,
    );
    if created.is_none() && active.is_none() && most.is_none() {
        return Verdict::default();
    }
    let mut idle: Vec<&Arc<Revision>> = revisions
        .iter()
        .filter(|revision| !is_deleting(&***revision) && !is_in_use(configuration, revision))
        .collect();
    if idle.len() <= least {
        return Verdict::default();
    }
    idle.sort_by_key(|revision| (last_active(revision), revision.name().to_owned()));

    let mut verdict = Verdict::default();
    let room = idle.len() - least;
    let mut rest = Vec::new();
    for revision in idle {
        let age = |since: Timestamp| {
            Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO)
        };
        let waits = [
            (created, age(created_at(revision))),
            (active, age(last_active(revision))),
        ]
        .into_iter()
        .filter_map(|(retain, age)| Some(retain?.saturating_sub(age)))
        .max();
        match waits {
            Some(Duration::ZERO) if verdict.delete.len() < room => {
                verdict.delete.push(Arc::clone(revision))
            }
            Some(wait) if !wait.is_zero() => {
                verdict.again = Some(verdict.again.map_or(wait, |other| other.min(wait)));
                rest.push(revision);
            }
            _ => rest.push(revision),
        }
    }
    if verdict.delete.len() < room
        && let Some(most) = most.and_then(|most| usize::try_from(most).ok())
        && rest.len() > most
    {
        let excess = rest.len() - most;
        verdict
            .delete
            .extend(rest.into_iter().take(excess).cloned());
    }
    verdict
}

fn is_in_use(configuration: &Configuration, revision: &Revision) -> bool {
    revision.name() == configuration.status.latest_ready_revision_name
        || revision
            .annotation(keys::NO_GC)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || revision.label(keys::ROUTING_STATE) != Some("reserve")
}

fn created_at(revision: &Revision) -> Timestamp {
    revision
        .metadata
        .creation_timestamp
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

fn last_active(revision: &Revision) -> Timestamp {
    let noted = revision
        .annotation(keys::ROUTING_STATE_MODIFIED)
        .and_then(|text| text.parse().ok());
    noted.unwrap_or_else(|| created_at(revision))
}
