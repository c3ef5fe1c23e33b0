//! Which subscriptions of a channel want an event: the filters of the Triggers behind it, asked once for all.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kinglet_events::delivery::{TTL, remaining_ttl};
use kinglet_events::{Event, Filter, FilterIndex};
use parking_lot::RwLock;

use crate::engine::{Matcher, StoredEvent, Uid};
use crate::feed::{Key, Report};
use crate::report::Reports;
use crate::stored;

/// A filter whose CESQL says no is asked why for its first so many events, then for one of as many: asking costs what
/// evaluating costs.
const ASKED_WHY: u32 = 64;

/// What of the subscriptions of a channel decides who gets an event.
pub(crate) struct Rules {
    reports: Reports,
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    rules: HashMap<Uid, Rule>,
    index: FilterIndex,
    /// By the Trigger behind them.
    behind: HashMap<Key, Vec<Uid>>,
    /// By slot of the index.
    filtered: HashMap<usize, Uid>,
    /// Filters with CESQL that have not been said to fail.
    quiet: HashMap<Uid, AtomicU32>,
}

#[derive(Default)]
struct Rule {
    /// The Trigger whose filter decides.
    trigger: Option<Key>,
    filter: Option<(usize, Arc<Filter>)>,
}

impl Rules {
    pub(crate) fn new(reports: Reports) -> Self {
        Self {
            reports,
            table: RwLock::default(),
        }
    }

    /// What decides for a subscription from now on. `filter` is none for what gets every event: no Trigger is behind it, or
    /// one that is not known yet.
    pub(crate) fn set(&self, uid: &Uid, trigger: Option<Key>, filter: Option<Arc<Filter>>) {
        let mut table = self.table.write();
        let old = table.rules.get(uid).and_then(|rule| rule.filter.as_ref());
        match (old, &filter) {
            (Some((_, old)), Some(new)) if Arc::ptr_eq(old, new) => return,
            _ => table.remove(uid),
        }
        let filter = filter.map(|filter| {
            if filter.evaluates_cesql() {
                table.quiet.insert(uid.clone(), AtomicU32::new(0));
            }
            let slot = table.index.insert(Arc::clone(&filter));
            table.filtered.insert(slot, uid.clone());
            (slot, filter)
        });
        if let Some(trigger) = &trigger {
            let behind = table.behind.entry(trigger.clone()).or_default();
            behind.push(uid.clone());
        }
        table.rules.insert(uid.clone(), Rule { trigger, filter });
    }

    pub(crate) fn remove(&self, uid: &Uid) {
        self.table.write().remove(uid);
    }

    /// The subscriptions that a Trigger is behind.
    pub(crate) fn of_trigger(&self, trigger: &Key) -> Vec<Uid> {
        self.table
            .read()
            .behind
            .get(trigger)
            .cloned()
            .unwrap_or_default()
    }

    /// Says once of each filter that it cannot be evaluated.
    fn complain(&self, event: &Event) {
        let failed: Vec<(Uid, Key, String)> = {
            let table = self.table.read();
            let quiet = table.quiet.iter().filter_map(|(uid, asked)| {
                let times = asked.fetch_add(1, Ordering::Relaxed);
                if times > ASKED_WHY && !times.is_multiple_of(ASKED_WHY) {
                    return None;
                }
                let rule = table.rules.get(uid)?;
                let (_, filter) = rule.filter.as_ref()?;
                Some((uid.clone(), rule.trigger.clone()?, filter.complaint(event)?))
            });
            quiet.collect()
        };
        for (uid, trigger, why) in failed {
            if self.table.write().quiet.remove(&uid).is_some() {
                self.reports.tell(Report::FilterFailed { trigger, why });
            }
        }
    }
}

impl Table {
    fn remove(&mut self, uid: &Uid) {
        self.quiet.remove(uid);
        let Some(Rule { trigger, filter }) = self.rules.remove(uid) else {
            return;
        };
        if let Some((slot, _)) = filter {
            self.index.remove(slot);
            self.filtered.remove(&slot);
        }
        if let Some(trigger) = trigger
            && let Some(behind) = self.behind.get_mut(&trigger)
        {
            behind.retain(|other| other != uid);
            if behind.is_empty() {
                self.behind.remove(&trigger);
            }
        }
    }
}

/// The event as the filter sees it; none when the filters are not to be asked: without a TTL every one of them answers 400,
/// which is a failure and no verdict.
fn seen(stored: &StoredEvent) -> Option<Event> {
    let (mut event, _) = stored::unpack(stored).ok()?;
    remaining_ttl(&event)?;
    event.remove_extension(TTL.as_str());
    Some(event)
}

impl Matcher for Rules {
    fn matching(&self, event: &StoredEvent, matched: &mut dyn FnMut(&Uid)) {
        let table = self.table.read();
        let event = (!table.filtered.is_empty()).then(|| seen(event)).flatten();
        let Some(event) = event else {
            table.rules.keys().for_each(matched);
            return;
        };
        if table.filtered.len() < table.rules.len() {
            let unfiltered = table.rules.iter().filter(|(_, rule)| rule.filter.is_none());
            unfiltered.for_each(|(uid, _)| matched(uid));
        }
        let mut slots = Vec::new();
        table.index.matching(&event, &mut slots);
        for slot in slots {
            if let Some(uid) = table.filtered.get(&slot) {
                matched(uid);
            }
        }
        let some_are_quiet = !table.quiet.is_empty();
        drop(table);
        if some_are_quiet {
            self.complain(&event);
        }
    }

    fn matches(&self, subscription: &Uid, event: &StoredEvent) -> bool {
        let filter = {
            let table = self.table.read();
            let rule = table.rules.get(subscription);
            rule.and_then(|rule| rule.filter.as_ref().map(|(_, filter)| Arc::clone(filter)))
        };
        match (filter, seen(event)) {
            (Some(filter), Some(event)) => filter.matches(&event),
            _ => true,
        }
    }
}
