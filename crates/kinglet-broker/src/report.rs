//! What is told to the reconcilers, bounded: who does not listen loses reports, never events.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use kinglet_events::Event;
use kinglet_events::event::Attribute;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::feed::{Addressable, EventTypeSeen, Key, Report};

/// Reports that wait for the reconcilers.
pub const REPORTS_MAX: usize = 1024;
/// Types that are remembered as reported; when there are more, all are forgotten and reported once more.
const SEEN_MAX: usize = 16 * 1024;

/// Type, source and schema of an event that becomes an EventType. Longer ones are nobody's types, and reports wait in memory.
const TYPE_BYTES_MAX: usize = 4096;

/// The sending end.
#[derive(Clone)]
pub(crate) struct Reports(Arc<Inner>);

struct Inner {
    sender: mpsc::Sender<Report>,
    seen: Mutex<HashSet<u64>>,
    hasher: RandomState,
}

impl Reports {
    pub(crate) fn new(sender: mpsc::Sender<Report>) -> Self {
        Self(Arc::new(Inner {
            sender,
            seen: Mutex::default(),
            hasher: RandomState::new(),
        }))
    }

    /// Whether there was room.
    pub(crate) fn tell(&self, report: Report) -> bool {
        self.0.sender.try_send(report).is_ok()
    }

    /// Reports the type of an event that reached an addressable.
    pub(crate) fn seen(&self, addressable: Addressable, kind: &Arc<str>, key: &Key, event: &Event) {
        let schema = event.text(Attribute::DataSchema);
        if event.kind().len() + event.source().len() + schema.len() > TYPE_BYTES_MAX {
            return;
        }
        let of = (addressable, kind, key, event.kind(), event.source(), schema);
        let hash = self.0.hasher.hash_one(of);
        {
            let mut seen = self.0.seen.lock();
            if seen.len() >= SEEN_MAX {
                seen.clear();
            }
            if !seen.insert(hash) {
                return;
            }
        }
        let told = self.tell(Report::EventTypeSeen(EventTypeSeen {
            addressable,
            kind: Arc::clone(kind),
            key: key.clone(),
            event_type: event.kind().to_owned(),
            source: event.source().to_owned(),
            schema: schema.to_owned(),
            spec_version: event.version().as_str(),
        }));
        if !told {
            self.0.seen.lock().remove(&hash);
        }
    }
}
