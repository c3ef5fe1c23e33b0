//! What the back ends of ours share: who has which event, and who gets the next one.
//!
//! Flow: a back end publishes what is kept -> the channel's router asks the matcher, once per event, and lines the event
//! up for the subscriptions that want it -> their cursors take it in hand -> receipts tell what became of it.
//! A subscription that has too many lined up is *detached*: it reads on by itself from what is kept, and is attached
//! again where the router is. So a slow one costs its own place and nothing else.
//! Always: the lock is held for memory only, never for IO and never while a filter is evaluated.

mod cursor;
mod router;
mod subscription;
mod tail;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use self::cursor::ChannelCursor;
use self::subscription::Subscription;
use self::tail::Tail;
use super::progress::{Entry, Number, Progress};
use super::{
    AppendError, ChannelId, Cursor, EngineError, Matcher, Order, Outcome, Position,
    REDELIVERED_MAX, Settled, StoredEvent, SubscriptionStatus, Uid,
};

/// Events that wait for one subscription before it is detached: more than it may have in hand, and positions only.
pub(crate) const LINED_UP_MAX: usize = 128;
/// Bytes that are read at a time for a subscription that reads by itself.
pub(crate) const READ_BYTES_MAX: usize = 256 << 10;

/// Where to read on. The place, a file's mark and an offset in it, is a hint that holds while there is such a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub(crate) position: Position,
    pub(crate) place: Option<(u64, u64)>,
}

impl From<Position> for Spot {
    fn from(position: Position) -> Self {
        Self {
            position,
            place: None,
        }
    }
}

/// What was read: events in order, and where the next ones are.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) events: VecDeque<(Position, StoredEvent)>,
    pub(crate) next: Spot,
}

/// Where a back end keeps events and progress.
pub(crate) trait Shelf: Send + Sync {
    /// Keeps a line of progress. It may trail behind.
    fn record(&self, entry: Entry);
    /// Reads published events from `spot` on, at least one if there is one, then up to `bytes_max`.
    fn read(&self, spot: Spot, bytes_max: usize) -> BoxFuture<'_, Result<Block, EngineError>>;
    /// Every subscription has finished this one.
    fn finished_by_all(&self, position: Position);
}

/// One channel.
pub(crate) struct Channel {
    pub(crate) id: ChannelId,
    shelf: Arc<dyn Shelf>,
    state: Mutex<State>,
    /// For the router: there is something to route.
    published: Notify,
    /// For those who follow: an event has arrived.
    arrived: Notify,
    /// Lined up for one subscription, at most.
    lined_up_max: usize,
    /// The shelf wants to know what every subscription has finished.
    counted: bool,
    /// Where a subscription begins that is not known, when not at the head: part of what was written down is damaged, and
    /// rather twice than never.
    begin: Option<Position>,
}

struct State {
    /// The position of the next event.
    head: Position,
    /// Everything before it has been lined up.
    routed: Position,
    tail: Tail,
    subscriptions: BTreeMap<Number, Subscription>,
    numbers: HashMap<Uid, Number>,
    next_number: Number,
    matcher: Option<Arc<dyn Matcher>>,
    /// Events whose end somebody wants to know.
    unsettled: BTreeMap<Position, Unsettled>,
    closed: Option<String>,
}

#[derive(Default)]
struct Unsettled {
    /// Subscriptions that have not finished it; none until it was routed.
    remaining: Option<usize>,
    settled: Settled,
    reply: Option<oneshot::Sender<Settled>>,
}

impl Channel {
    /// A channel whose next event is `head`, with the subscriptions that were written down.
    pub(crate) fn new(
        id: ChannelId,
        shelf: Arc<dyn Shelf>,
        head: Position,
        progress: Progress,
        next_number: Number,
    ) -> Self {
        let subscriptions: BTreeMap<Number, Subscription> = progress
            .0
            .into_iter()
            .map(|(number, standing)| (number, Subscription::recovered(standing, head)))
            .collect();
        let numbers = subscriptions
            .iter()
            .map(|(&number, one)| (one.standing.uid.clone(), number))
            .collect();
        Self {
            id,
            shelf,
            state: Mutex::new(State {
                head,
                routed: head,
                tail: Tail::new(head),
                subscriptions,
                numbers,
                next_number,
                matcher: None,
                unsettled: BTreeMap::new(),
                closed: None,
            }),
            published: Notify::new(),
            arrived: Notify::new(),
            lined_up_max: LINED_UP_MAX,
            counted: false,
            begin: None,
        }
    }

    /// Subscriptions that are not known begin there.
    pub(crate) fn beginning_at(mut self, begin: Option<Position>) -> Self {
        self.begin = begin;
        self
    }

    /// The shelf is told what every subscription has finished; nobody is detached, since the shelf's own bound holds.
    pub(crate) fn counted(mut self) -> Self {
        self.counted = true;
        self.lined_up_max = usize::MAX;
        self
    }

    pub(crate) fn head(&self) -> Position {
        self.state.lock().head
    }

    pub(crate) fn closed(&self) -> Option<String> {
        self.state.lock().closed.clone()
    }

    fn closed_error(&self, why: &str) -> EngineError {
        EngineError::Closed {
            channel: self.id.to_string(),
            why: why.to_owned(),
        }
    }

    pub(crate) fn append_closed(&self, why: &str) -> AppendError {
        AppendError::Closed {
            channel: self.id.to_string(),
            why: why.to_owned(),
        }
    }

    /// Ends every cursor and whoever waits.
    pub(crate) fn close(&self, why: &str) {
        let mut state = self.state.lock();
        if state.closed.is_none() {
            state.closed = Some(why.to_owned());
        }
        state.unsettled.clear();
        for one in state.subscriptions.values() {
            one.wake.notify_one();
        }
        drop(state);
        self.published.notify_one();
        self.arrived.notify_waiters();
    }

    /// Makes kept events known. They follow one another from the head on.
    pub(crate) fn publish(
        &self,
        events: impl IntoIterator<Item = (StoredEvent, Option<oneshot::Sender<Settled>>)>,
    ) {
        let mut state = self.state.lock();
        for (event, settle) in events {
            state.publish(event, settle, self.counted);
        }
        drop(state);
        self.published.notify_one();
        self.arrived.notify_waiters();
    }

    /// Gives an event its position, keeps it there, and makes it known.
    pub(crate) fn publish_one(
        &self,
        event: StoredEvent,
        settle: Option<oneshot::Sender<Settled>>,
        keep: impl FnOnce(Position),
    ) -> Position {
        let mut state = self.state.lock();
        let position = state.head;
        keep(position);
        state.publish(event, settle, self.counted);
        drop(state);
        self.published.notify_one();
        self.arrived.notify_waiters();
        position
    }

    fn tell_ended(&self, ended: &[Position]) {
        if self.counted {
            for position in ended {
                self.shelf.finished_by_all(*position);
            }
        }
    }

    pub(crate) fn set_matcher(&self, matcher: Arc<dyn Matcher>) {
        self.state.lock().matcher = Some(matcher);
    }

    pub(crate) fn subscribe(
        self: &Arc<Self>,
        uid: &Uid,
        order: Order,
    ) -> Result<Box<dyn Cursor>, EngineError> {
        let mut state = self.state.lock();
        if let Some(why) = &state.closed {
            return Err(self.closed_error(why));
        }
        let number = match state.numbers.get(uid) {
            Some(number) => *number,
            None => {
                let (number, begun) = (state.next_number, self.begin.unwrap_or(state.head));
                let head = state.head;
                state.next_number += 1;
                state.numbers.insert(uid.clone(), number);
                state
                    .subscriptions
                    .insert(number, Subscription::new(uid.clone(), begun, head));
                // Under the lock: in the log it stands before every event that it is promised.
                self.shelf.record(Entry::Subscribed {
                    number,
                    uid: uid.clone(),
                    begun,
                    next: begun,
                });
                number
            }
        };
        let one = state
            .subscriptions
            .get_mut(&number)
            .ok_or_else(|| self.no_subscription(uid))?;
        if one.has_cursor {
            return Err(EngineError::Taken {
                channel: self.id.to_string(),
                subscription: uid.clone(),
            });
        }
        one.has_cursor = true;
        let wake = Arc::clone(&one.wake);
        drop(state);
        Ok(Box::new(ChannelCursor::new(
            Arc::clone(self),
            number,
            uid.clone(),
            wake,
            order.in_hand_max(),
        )))
    }

    pub(crate) fn unsubscribe(&self, uid: &Uid) {
        let mut ended = Vec::new();
        let mut state = self.state.lock();
        let Some(number) = state.numbers.remove(uid) else {
            return;
        };
        let gone = state.subscriptions.remove(&number);
        self.shelf.record(Entry::Unsubscribed { number });
        if let Some(one) = gone {
            for &position in &one.lined_up {
                state.tail.release(position);
            }
            let held: Vec<Position> = state
                .unsettled
                .range(..)
                .map(|(position, _)| *position)
                .filter(|position| one.owes(*position))
                .collect();
            for position in held {
                ended.extend(state.count_down(position, uid, Outcome::Filtered));
            }
            one.wake.notify_one();
        }
        drop(state);
        self.tell_ended(&ended);
    }

    pub(crate) fn subscriptions(&self) -> Vec<SubscriptionStatus> {
        let state = self.state.lock();
        state
            .subscriptions
            .values()
            .map(|one| SubscriptionStatus {
                subscription: one.standing.uid.clone(),
                backlog: one.backlog(&state),
                in_hand: one.in_hand(),
                oldest: one.oldest(state.routed),
            })
            .collect()
    }

    /// The oldest event that is not finished, and who has it.
    pub(crate) fn oldest(&self) -> (Position, Option<Uid>) {
        let state = self.state.lock();
        let oldest = state
            .subscriptions
            .values()
            .map(|one| (one.oldest(state.routed), &one.standing.uid))
            .min();
        match oldest {
            Some((position, uid)) if position < state.head => (position, Some(uid.clone())),
            _ => (state.head, None),
        }
    }

    /// Everything from the first on, and these before it, is not finished by every subscription.
    pub(crate) fn unfinished(&self) -> (Position, BTreeSet<Position>) {
        let state = self.state.lock();
        let mut from = state.routed;
        let mut single = BTreeSet::new();
        for one in state.subscriptions.values() {
            from = from.min(one.decided_before(state.routed));
            single.extend(one.standing.open.keys().chain(&one.lined_up));
        }
        (from, single)
    }

    /// Where the subscriptions stand, to be written down.
    pub(crate) fn progress(&self) -> (Progress, Number) {
        let state = self.state.lock();
        let of = |one: &Subscription| {
            let mut standing = one.standing.clone();
            standing.next = one.decided_before(state.routed);
            standing.done.forget_before(standing.next);
            standing
                .open
                .extend(one.lined_up.iter().map(|position| (*position, 0)));
            standing
        };
        let standings = state
            .subscriptions
            .iter()
            .map(|(&number, one)| (number, of(one)));
        (Progress(standings.collect()), state.next_number)
    }

    /// Hands an event out once more. The caller has seen that it is there.
    pub(crate) fn redeliver(&self, uid: &Uid, position: Position) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        let routed = state.routed;
        let number = state.numbers.get(uid).copied();
        let one = number.and_then(|number| state.subscriptions.get_mut(&number));
        let (Some(number), Some(one)) = (number, one) else {
            return Err(self.no_subscription(uid));
        };
        let coming = position >= one.decided_before(routed)
            || one.standing.open.contains_key(&position)
            || one.lined_up.contains(&position);
        if coming {
            return Ok(());
        }
        if one.returned.len() >= REDELIVERED_MAX {
            return Err(EngineError::TooManyRedelivered {
                channel: self.id.to_string(),
                subscription: uid.clone(),
            });
        }
        one.standing.open.insert(position, 0);
        one.returned.insert(position);
        self.shelf.record(Entry::Open {
            number,
            position,
            attempts: 0,
        });
        one.wake.notify_one();
        Ok(())
    }

    pub(crate) async fn arrived(&self, position: Position) -> Result<(), EngineError> {
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            arrived.as_mut().enable();
            {
                let state = self.state.lock();
                if let Some(why) = &state.closed {
                    return Err(self.closed_error(why));
                }
                if position < state.head {
                    return Ok(());
                }
            }
            arrived.await;
        }
    }

    fn no_subscription(&self, uid: &Uid) -> EngineError {
        EngineError::NoSubscription {
            channel: self.id.to_string(),
            subscription: uid.clone(),
        }
    }

    /// The subscriptions and what they have to do with an event of which the log says nothing more.
    pub(crate) fn standing_at(&self, position: Position) -> Vec<(Uid, Option<Outcome>)> {
        let state = self.state.lock();
        let there = state
            .subscriptions
            .values()
            .filter(|one| one.standing.begun <= position);
        there
            .map(|one| {
                let coming = one.owes(position) || position >= state.routed;
                let outcome = (!coming).then_some(Outcome::Filtered);
                (one.standing.uid.clone(), outcome)
            })
            .collect()
    }

    /// Numbers and uids of the subscriptions, for those who read what was written down.
    pub(crate) fn uids(&self) -> HashMap<Number, Uid> {
        let state = self.state.lock();
        let uids = state.numbers.iter();
        uids.map(|(uid, number)| (*number, uid.clone())).collect()
    }
}

impl State {
    fn publish(
        &mut self,
        event: StoredEvent,
        settle: Option<oneshot::Sender<Settled>>,
        counted: bool,
    ) {
        let position = self.head;
        self.head = position.next();
        if counted || settle.is_some() {
            self.unsettled.insert(
                position,
                Unsettled {
                    reply: settle,
                    ..Unsettled::default()
                },
            );
        }
        self.tail.push(event);
    }

    /// One subscription less has to finish `position`. Answers with it when that was the last one.
    fn count_down(&mut self, position: Position, uid: &Uid, outcome: Outcome) -> Option<Position> {
        let unsettled = self.unsettled.get_mut(&position)?;
        if matches!(
            outcome,
            Outcome::GivenUp | Outcome::Damaged | Outcome::DeadLettered
        ) {
            unsettled.settled.failed.push((uid.clone(), outcome));
        }
        let remaining = unsettled.remaining.as_mut()?;
        *remaining = remaining.saturating_sub(1);
        (*remaining == 0).then(|| self.settle(position)).flatten()
    }

    fn settle(&mut self, position: Position) -> Option<Position> {
        let unsettled = self.unsettled.remove(&position)?;
        if let Some(reply) = unsettled.reply {
            // Who asked may have gone.
            let _ = reply.send(unsettled.settled);
        }
        Some(position)
    }
}
