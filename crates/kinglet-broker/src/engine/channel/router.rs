//! The channel's router: it asks the matcher, once per event, who wants it, and lines it up for them.

use std::sync::Arc;

use super::subscription::Subscription;
use super::{Channel, READ_BYTES_MAX};
use crate::engine::progress::Number;
use crate::engine::{EngineError, Position, Uid};

/// Events that the router takes at a time.
const ROUTED_AT_ONCE_MAX: usize = 64;
impl Channel {
    /// Lines up what is published, until the channel is closed. However it ends, the channel is closed then: nobody waits
    /// for events that nobody lines up.
    pub(crate) async fn route(self: Arc<Self>) {
        let _closed = ClosedAtTheEnd(&self);
        loop {
            let published = self.published.notified();
            match self.route_some().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(channel = %self.id, "the channel stops: {error}");
                    self.close(&error.to_string());
                }
            }
            if self.state.lock().closed.is_some() {
                return;
            }
            published.await;
        }
    }

    /// Lines up some events. `false`: there was nothing to do.
    pub(crate) async fn route_some(&self) -> Result<bool, EngineError> {
        let (from, head, mut events, matcher) = {
            let state = self.state.lock();
            if state.closed.is_some() || state.routed == state.head {
                return Ok(false);
            }
            let events = state.tail.from(state.routed, ROUTED_AT_ONCE_MAX);
            (state.routed, state.head, events, state.matcher.clone())
        };
        let mut until = events.last().map_or(from, |(position, _)| position.next());
        if events.is_empty() {
            // Published faster than it was routed.
            let block = self.shelf.read(from.into(), READ_BYTES_MAX).await?;
            events = block.events.into();
            events.retain(|(position, _)| *position < head);
            until = block.next.position.min(head).max(from.next());
        }
        let wanted = events
            .iter()
            .map(|(position, event)| {
                let wanted_by = matcher.as_ref().map(|matcher| {
                    let mut wanted_by = Vec::new();
                    matcher.matching(event, &mut |uid| wanted_by.push(uid.clone()));
                    wanted_by
                });
                (*position, wanted_by)
            })
            .collect();
        self.line_up(wanted, until);
        Ok(true)
    }

    /// `wanted`: positions with the subscriptions that want them, none for all.
    fn line_up(&self, wanted: Vec<(Position, Option<Vec<Uid>>)>, until: Position) {
        let mut ended = Vec::new();
        let mut state = self.state.lock();
        let state = &mut *state;
        for (position, wanted_by) in wanted {
            let mut count = 0;
            let numbers: Vec<Number> = match &wanted_by {
                None => state.subscriptions.keys().copied().collect(),
                Some(uids) => uids
                    .iter()
                    .filter_map(|uid| state.numbers.get(uid).copied())
                    .collect(),
            };
            for number in numbers {
                let Some(one) = state.subscriptions.get_mut(&number) else {
                    continue;
                };
                if one.line_up(position, self.lined_up_max) {
                    state.tail.wait(position);
                    count += 1;
                }
            }
            if let Some(unsettled) = state.unsettled.get_mut(&position) {
                if !self.counted {
                    // Those who read by themselves will come to it.
                    let of_itself =
                        |one: &&Subscription| !one.attached && one.standing.next <= position;
                    count += state.subscriptions.values().filter(of_itself).count();
                }
                unsettled.remaining = Some(count);
                if count == 0 {
                    ended.extend(state.settle(position));
                }
            }
        }
        state.routed = until;
        state.tail.trim(until);
        self.tell_ended(&ended);
    }
}

/// Closes the channel when its router is dropped, has panicked or ends.
struct ClosedAtTheEnd<'a>(&'a Channel);

impl Drop for ClosedAtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.close(if std::thread::panicking() {
            "what lines its events up has panicked (see the log)"
        } else {
            "Kinglet stops"
        });
    }
}
