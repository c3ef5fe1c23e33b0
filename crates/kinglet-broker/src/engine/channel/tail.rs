//! The newest events of a channel, at hand for the subscriptions that are up to date.

use std::collections::VecDeque;

use crate::engine::{Position, StoredEvent};

/// Bytes of the newest events that a channel keeps at hand for the subscriptions that are up to date.
const TAIL_BYTES_MAX: usize = 1 << 20;

/// The newest events, from `first` on without a gap.
pub(super) struct Tail {
    first: Position,
    events: VecDeque<TailEvent>,
    bytes: usize,
}

struct TailEvent {
    event: StoredEvent,
    /// Subscriptions that it is lined up for.
    waiting: usize,
}

impl Tail {
    /// Nothing yet; the next event is `first`.
    pub(super) fn new(first: Position) -> Self {
        Self {
            first,
            events: VecDeque::new(),
            bytes: 0,
        }
    }

    fn index(&self, position: Position) -> Option<usize> {
        usize::try_from(position.0.checked_sub(self.first.0)?).ok()
    }

    pub(super) fn push(&mut self, event: StoredEvent) {
        self.bytes += event.bytes();
        self.events.push_back(TailEvent { event, waiting: 0 });
        while self.bytes > TAIL_BYTES_MAX && self.events.len() > 1 {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(oldest) = self.events.pop_front() {
            self.bytes -= oldest.event.bytes();
            self.first = self.first.next();
        }
    }

    pub(super) fn get(&self, position: Position) -> Option<StoredEvent> {
        let found = self.events.get(self.index(position)?)?;
        Some(found.event.clone())
    }

    pub(super) fn from(
        &self,
        position: Position,
        count_max: usize,
    ) -> Vec<(Position, StoredEvent)> {
        let Some(index) = self.index(position) else {
            return Vec::new();
        };
        self.events
            .iter()
            .skip(index)
            .take(count_max)
            .zip(position.0..)
            .map(|(found, at)| (Position(at), found.event.clone()))
            .collect()
    }

    pub(super) fn wait(&mut self, position: Position) {
        if let Some(found) = self
            .index(position)
            .and_then(|index| self.events.get_mut(index))
        {
            found.waiting += 1;
        }
    }

    pub(super) fn release(&mut self, position: Position) {
        if let Some(found) = self
            .index(position)
            .and_then(|index| self.events.get_mut(index))
        {
            found.waiting = found.waiting.saturating_sub(1);
        }
    }

    /// Drops what was routed and waits for nobody.
    pub(super) fn trim(&mut self, routed: Position) {
        while self.first < routed
            && self
                .events
                .front()
                .is_some_and(|oldest| oldest.waiting == 0)
        {
            self.pop();
        }
    }
}
