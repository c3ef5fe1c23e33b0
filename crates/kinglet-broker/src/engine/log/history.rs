//! Reads from the log what became of events: for `kinglet event ls`, `trace`, `replay` and `redrive`.
//!
//! Two passes: the first finds the events of a page, the second collects what was written of them afterwards. Memory is
//! that of the page, however long the log.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

use jiff::Timestamp;

use super::super::channel::Channel;
use super::super::progress::{Entry, Number};
use super::super::{
    Account, Attempt, HISTORY_PAGE_MAX, Hop, Outcome, Page, Position, Query, StoredEvent, Uid,
};
use super::index::{Index, Walk};
use super::record::{self, Kind};

/// Attempts of one subscription at one event that a page has: the last ones.
const ATTEMPTS_MAX: usize = 100;
/// Positions that are remembered when events are sought by their outcome.
const POSITIONS_MAX: usize = 100_000;

/// Reads a page, on the thread that calls.
pub(crate) fn read(index: &Index, channel: &Channel, query: &Query) -> io::Result<Page> {
    let limit = match query.limit {
        0 => HISTORY_PAGE_MAX,
        limit => limit.min(HISTORY_PAGE_MAX),
    };
    let wanted = match query.outcome {
        Some(outcome) => Some(with_outcome(index, query, outcome)?),
        None => None,
    };
    let (found, next) = find(index, query, wanted.as_ref(), limit)?;
    let mut told: BTreeMap<Position, Told> = found
        .into_iter()
        .map(|(position, event)| (position, Told::new(event)))
        .collect();
    let mut uids = channel.uids();
    if let Some((&first, _)) = told.first_key_value() {
        collect(index, first, &mut told, &mut uids)?;
    }
    let accounts = told
        .into_iter()
        .map(|(position, told)| account(channel, query, &uids, position, told))
        // One that was given up may have been delivered since.
        .filter(|account| {
            query
                .outcome
                .is_none_or(|outcome| account.hops.iter().any(|hop| hop.outcome == Some(outcome)))
        })
        .collect();
    Ok(Page { accounts, next })
}

/// What the log tells of an event.
struct Told {
    event: StoredEvent,
    hops: BTreeMap<Number, (Vec<Attempt>, Option<Outcome>)>,
}

impl Told {
    fn new(event: StoredEvent) -> Self {
        Self {
            event,
            hops: BTreeMap::new(),
        }
    }
}

fn walk<'a>(index: &'a Index, query: &Query) -> io::Result<Walk<'a>> {
    match (query.from, query.since) {
        (Some(from), _) => index.walk(from.into()),
        (None, Some(since)) => index.walk_since(since),
        (None, None) => index.walk(Position::FIRST.into()),
    }
}

/// The positions that some subscription finished so: the first ones from the page's beginning on.
fn with_outcome(index: &Index, query: &Query, outcome: Outcome) -> io::Result<BTreeSet<Position>> {
    let mut walk = walk(index, query)?;
    let from = query.from.unwrap_or(Position::FIRST);
    let mut positions = BTreeSet::new();
    while let Some(record) = walk.next()? {
        if record.kind != Kind::Progress {
            continue;
        }
        for entry in record::entries(&record.payload).unwrap_or_default() {
            match entry {
                Entry::Finished {
                    position,
                    outcome: found,
                    ..
                } if found == outcome && position >= from => {
                    positions.insert(position);
                }
                _ => {}
            }
        }
        while positions.len() > POSITIONS_MAX {
            positions.pop_last();
        }
    }
    Ok(positions)
}

type Events = Vec<(Position, StoredEvent)>;

/// The events of a page, and where the next one begins.
fn find(
    index: &Index,
    query: &Query,
    wanted: Option<&BTreeSet<Position>>,
    limit: usize,
) -> io::Result<(Events, Option<Position>)> {
    let mut walk = walk(index, query)?;
    let from = query.from.unwrap_or(Position::FIRST);
    let mut found = Vec::new();
    while let Some(record) = walk.next()? {
        let looked_for = record.kind == Kind::Event
            && record.position >= from
            && wanted.is_none_or(|wanted| wanted.contains(&record.position))
            && is_within(query, &record.payload);
        if !looked_for {
            continue;
        }
        let Some(event) = record::event(&record.payload) else {
            continue;
        };
        let has = |(name, value): &(String, bytes::Bytes)| {
            event.headers.get(name) == Some(value.as_ref())
        };
        if !query.headers.iter().all(has) {
            continue;
        }
        if found.len() >= limit {
            return Ok((found, Some(record.position)));
        }
        found.push((record.position, event));
    }
    // Positions beyond those that were remembered come with the next page.
    let more = wanted.filter(|wanted| wanted.len() >= POSITIONS_MAX);
    Ok((
        found,
        more.and_then(|wanted| wanted.last())
            .map(|last| last.next()),
    ))
}

fn is_within(query: &Query, payload: &[u8]) -> bool {
    let arrived = record::arrived(payload)
        .and_then(|microseconds| Timestamp::from_microsecond(microseconds).ok());
    arrived.is_some_and(|arrived| {
        query.since.is_none_or(|since| arrived >= since)
            && query.until.is_none_or(|until| arrived < until)
    })
}

/// What was written of the events, from the first one on.
fn collect(
    index: &Index,
    first: Position,
    told: &mut BTreeMap<Position, Told>,
    uids: &mut HashMap<Number, Uid>,
) -> io::Result<()> {
    let mut walk = index.walk(first.into())?;
    while let Some(record) = walk.next()? {
        let entries = match record.kind {
            Kind::Event => continue,
            Kind::Snapshot => record::snapshot(&record.payload).map(|(_, _, entries)| entries),
            Kind::Progress => record::entries(&record.payload),
        };
        for entry in entries.unwrap_or_default() {
            match entry {
                Entry::Subscribed { number, uid, .. } => {
                    uids.entry(number).or_insert(uid);
                }
                Entry::Attempted {
                    number,
                    position,
                    attempt,
                    ..
                } => {
                    if let Some(one) = told.get_mut(&position) {
                        let attempts = &mut one.hops.entry(number).or_default().0;
                        attempts.push(attempt);
                        if attempts.len() > ATTEMPTS_MAX {
                            attempts.remove(0);
                        }
                    }
                }
                Entry::Finished {
                    number,
                    position,
                    outcome,
                } => {
                    if let Some(one) = told.get_mut(&position) {
                        one.hops.entry(number).or_default().1 = Some(outcome);
                    }
                }
                // Handed out once more. In a snapshot it was open before, too.
                Entry::Open {
                    number, position, ..
                } => {
                    if let Some(one) = told.get_mut(&position) {
                        one.hops.entry(number).or_default().1 = None;
                    }
                }
                Entry::Unsubscribed { .. } | Entry::Done { .. } => {}
            }
        }
    }
    Ok(())
}

fn account(
    channel: &Channel,
    query: &Query,
    uids: &HashMap<Number, Uid>,
    position: Position,
    told: Told,
) -> Account {
    let mut hops: Vec<Hop> = told
        .hops
        .into_iter()
        .map(|(number, (attempts, outcome))| Hop {
            subscription: uids
                .get(&number)
                .cloned()
                .unwrap_or_else(|| format!("unknown-{number}").into()),
            attempts,
            outcome,
        })
        .collect();
    if query.all_subscriptions {
        for (subscription, outcome) in channel.standing_at(position) {
            if hops.iter().all(|hop| hop.subscription != subscription) {
                hops.push(Hop {
                    subscription,
                    attempts: Vec::new(),
                    outcome,
                });
            }
        }
    }
    Account {
        position,
        event: told.event,
        hops,
    }
}
