//! A subscription's cursor: it takes events in hand, by the router or by itself, and receipts tell what became of them.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::{Channel, READ_BYTES_MAX, Spot};
use crate::engine::progress::{Entry, Number};
use crate::engine::{
    ANSWER_BYTES_MAX, Acknowledge, Attempt, Cursor, Delivered, EngineError, Matcher, Outcome,
    Position, Receipt, StoredEvent, Uid,
};

/// What a cursor is to do next.
enum Step {
    HandOut(Position, u32, StoredEvent),
    Fetch(Position, u32),
    Read(Position, Position),
    Wait,
}

impl Channel {
    fn step(&self, number: Number, uid: &Uid, in_hand_max: usize) -> Result<Step, EngineError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if let Some(why) = &state.closed {
            return Err(self.closed_error(why));
        }
        let routed = state.routed;
        let Some(one) = state.subscriptions.get_mut(&number) else {
            return Err(self.no_subscription(uid));
        };
        if one.in_hand() >= in_hand_max {
            return Ok(Step::Wait);
        }
        if let Some(position) = one.returned.pop_first() {
            let attempts = one.standing.open.get(&position).copied().unwrap_or(0);
            return Ok(state
                .tail
                .get(position)
                .map_or(Step::Fetch(position, attempts), |event| {
                    Step::HandOut(position, attempts, event)
                }));
        }
        if let Some(position) = one.lined_up.pop_front() {
            let attempts = one.standing.tried.remove(&position).unwrap_or(0);
            one.standing.open.insert(position, attempts);
            let event = state.tail.get(position);
            state.tail.release(position);
            state.tail.trim(routed);
            return Ok(event.map_or(Step::Fetch(position, attempts), |event| {
                Step::HandOut(position, attempts, event)
            }));
        }
        if !one.attached && one.standing.next >= routed {
            one.attached = true;
        }
        Ok(if one.attached {
            Step::Wait
        } else {
            Step::Read(one.standing.next, routed)
        })
    }

    /// A subscription that reads by itself has come to `position`. Answers with the attempts made at it when it takes it
    /// in hand.
    fn reach(&self, number: Number, position: Position, wanted: bool) -> Option<u32> {
        let mut state = self.state.lock();
        let one = state.subscriptions.get_mut(&number)?;
        if one.attached || one.standing.next > position {
            return None;
        }
        one.standing.next = position.next();
        let done = one.standing.done.contains(position);
        one.standing.done.forget_before(position.next());
        let attempts = one.standing.tried.remove(&position).unwrap_or(0);
        if wanted && !done {
            one.standing.open.insert(position, attempts);
            return Some(attempts);
        }
        let uid = one.standing.uid.clone();
        let ended = state.count_down(position, &uid, Outcome::Filtered);
        drop(state);
        self.tell_ended(ended.as_slice());
        None
    }

    /// Nothing more before `position` for a subscription that reads by itself.
    fn skip_to(&self, number: Number, position: Position) {
        let mut state = self.state.lock();
        if let Some(one) = state.subscriptions.get_mut(&number)
            && !one.attached
            && one.standing.next < position
        {
            one.standing.next = position;
            one.standing.done.forget_before(position);
            one.standing.tried = one.standing.tried.split_off(&position);
        }
    }

    fn matcher(&self) -> Option<Arc<dyn Matcher>> {
        self.state.lock().matcher.clone()
    }

    fn backlog(&self, number: Number) -> u64 {
        let state = self.state.lock();
        state
            .subscriptions
            .get(&number)
            .map_or(0, |one| one.backlog(&state))
    }
}

/// What receipts and the cursor of a subscription hold.
struct Handle {
    channel: Arc<Channel>,
    number: Number,
}

impl Acknowledge for Handle {
    fn attempted(&self, position: Position, mut attempt: Attempt) {
        if attempt.answer.len() > ANSWER_BYTES_MAX {
            // A copy: a slice would keep the whole body alive.
            attempt.answer = Bytes::copy_from_slice(&attempt.answer[..ANSWER_BYTES_MAX]);
        }
        let mut state = self.channel.state.lock();
        let Some(one) = state.subscriptions.get_mut(&self.number) else {
            return;
        };
        let Some(attempts) = one.standing.open.get_mut(&position) else {
            return;
        };
        *attempts = attempts.saturating_add(1);
        let count = *attempts;
        self.channel.shelf.record(Entry::Attempted {
            number: self.number,
            position,
            count,
            attempt,
        });
    }

    fn finished(&self, position: Position, outcome: Outcome) {
        let mut state = self.channel.state.lock();
        let Some(one) = state.subscriptions.get_mut(&self.number) else {
            return;
        };
        if one.standing.open.remove(&position).is_none() {
            return;
        }
        one.wake.notify_one();
        let uid = one.standing.uid.clone();
        self.channel.shelf.record(Entry::Finished {
            number: self.number,
            position,
            outcome,
        });
        let ended = state.count_down(position, &uid, outcome);
        drop(state);
        self.channel.tell_ended(ended.as_slice());
    }

    fn returned(&self, position: Position) {
        let mut state = self.channel.state.lock();
        if let Some(one) = state.subscriptions.get_mut(&self.number)
            && one.standing.open.contains_key(&position)
        {
            one.returned.insert(position);
            one.wake.notify_one();
        }
    }
}

/// One reader of a subscription's events.
pub(super) struct ChannelCursor {
    handle: Arc<Handle>,
    uid: Uid,
    wake: Arc<Notify>,
    in_hand_max: usize,
    /// Read by itself, not yet handed out.
    ahead: VecDeque<(Position, StoredEvent)>,
    /// Where to read on.
    spot: Spot,
}

impl ChannelCursor {
    /// The cursor of subscription `number`, which is marked as having one.
    pub(super) fn new(
        channel: Arc<Channel>,
        number: Number,
        uid: Uid,
        wake: Arc<Notify>,
        in_hand_max: usize,
    ) -> Self {
        Self {
            handle: Arc::new(Handle { channel, number }),
            uid,
            wake,
            in_hand_max,
            ahead: VecDeque::new(),
            spot: Position(0).into(),
        }
    }

    fn in_hand(&self, position: Position) -> Receipt {
        let handle: Arc<dyn Acknowledge> = self.handle.clone();
        Receipt::new(handle, position)
    }

    async fn next_event(&mut self) -> Result<Delivered, EngineError> {
        let handle = Arc::clone(&self.handle);
        let channel = &handle.channel;
        loop {
            let delivered = match channel.step(handle.number, &self.uid, self.in_hand_max)? {
                Step::HandOut(position, attempts, event) => Some(Delivered {
                    position,
                    event,
                    attempts,
                    receipt: self.in_hand(position),
                }),
                Step::Fetch(position, attempts) => self.fetch(position, attempts).await?,
                Step::Read(from, routed) => self.read_on(from, routed).await?,
                Step::Wait => {
                    // Keeps a permit when nobody waits, so what came in between is not missed.
                    self.wake.notified().await;
                    None
                }
            };
            if let Some(delivered) = delivered {
                return Ok(delivered);
            }
        }
    }

    /// Reads one event that is in hand already.
    async fn fetch(
        &mut self,
        position: Position,
        attempts: u32,
    ) -> Result<Option<Delivered>, EngineError> {
        let receipt = self.in_hand(position);
        let spot = if self.spot.position <= position && self.ahead.is_empty() {
            Spot {
                position,
                place: self.spot.place,
            }
        } else {
            position.into()
        };
        let block = self.handle.channel.shelf.read(spot, 1).await?;
        if self.ahead.is_empty() {
            self.spot = block.next;
        }
        match block.events.into_iter().next() {
            Some((found, event)) if found == position => Ok(Some(Delivered {
                position,
                event,
                attempts,
                receipt,
            })),
            _ => {
                tracing::error!(channel = %self.handle.channel.id, subscription = %self.uid, %position, "an event cannot be read any more, so it cannot be delivered");
                receipt.finished(Outcome::Damaged);
                Ok(None)
            }
        }
    }

    /// Takes the next event from what is kept, up to where the router is.
    async fn read_on(
        &mut self,
        from: Position,
        routed: Position,
    ) -> Result<Option<Delivered>, EngineError> {
        let handle = Arc::clone(&self.handle);
        let channel = &handle.channel;
        while self.ahead.front().is_some_and(|(first, _)| *first < from) {
            self.ahead.pop_front();
        }
        if self.ahead.is_empty() {
            if self.spot.position != from {
                self.spot = from.into();
            }
            let block = channel.shelf.read(self.spot, READ_BYTES_MAX).await?;
            self.spot = block.next;
            self.ahead = block.events;
        }
        // What is beyond the router comes through the router.
        while self.ahead.back().is_some_and(|(last, _)| *last >= routed) {
            self.ahead.pop_back();
            self.spot = routed.into();
        }
        let Some((position, event)) = self.ahead.pop_front() else {
            let until = self.spot.position.min(routed).max(from);
            channel.skip_to(handle.number, if until == from { routed } else { until });
            return Ok(None);
        };
        let wanted = channel
            .matcher()
            .is_none_or(|matcher| matcher.matches(&self.uid, &event));
        let attempts = channel.reach(handle.number, position, wanted);
        Ok(attempts.map(|attempts| Delivered {
            position,
            event,
            attempts,
            receipt: self.in_hand(position),
        }))
    }
}

impl Cursor for ChannelCursor {
    fn next(&mut self) -> BoxFuture<'_, Result<Delivered, EngineError>> {
        Box::pin(self.next_event())
    }

    fn backlog(&self) -> u64 {
        self.handle.channel.backlog(self.handle.number)
    }
}

impl Drop for ChannelCursor {
    fn drop(&mut self) {
        let mut state = self.handle.channel.state.lock();
        if let Some(one) = state.subscriptions.get_mut(&self.handle.number) {
            one.has_cursor = false;
        }
    }
}
