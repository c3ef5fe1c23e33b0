//! What the back ends of ours share: who has which event, and who gets the next one.
//!
//! Flow: a back end publishes what is kept -> the channel's router asks the matcher, once per event, and lines the event
//! up for the subscriptions that want it -> their cursors take it in hand -> receipts tell what became of it.
//! A subscription that has too many lined up is *detached*: it reads on by itself from what is kept, and is attached
//! again where the router is. So a slow one costs its own place and nothing else.
//! Always: the lock is held for memory only, never for IO and never while a filter is evaluated.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::progress::{Entry, Number, Progress, Standing};
use super::ranges::Ranges;
use super::{
    ANSWER_BYTES_MAX, Acknowledge, AppendError, Attempt, ChannelId, Cursor, Delivered, EngineError,
    Matcher, Order, Outcome, Position, REDELIVERED_MAX, Receipt, Settled, StoredEvent,
    SubscriptionStatus, Uid,
};

/// Events that wait for one subscription before it is detached: more than it may have in hand, and positions only.
pub(crate) const LINED_UP_MAX: usize = 128;
/// Bytes of the newest events that a channel keeps at hand for the subscriptions that are up to date.
pub(crate) const TAIL_BYTES_MAX: usize = 1 << 20;
/// Events that the router takes at a time.
const ROUTED_AT_ONCE_MAX: usize = 64;
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

/// The newest events, from `first` on without a gap.
struct Tail {
    first: Position,
    events: VecDeque<TailEvent>,
    bytes: usize,
}

struct TailEvent {
    event: StoredEvent,
    /// Subscriptions that it is lined up for.
    waiting: usize,
}

struct Subscription {
    standing: Standing,
    attached: bool,
    /// Wanted, before `standing.next` or routed, and not in hand.
    lined_up: VecDeque<Position>,
    /// Of `standing.open`: to be handed out (again).
    returned: BTreeSet<Position>,
    wake: Arc<Notify>,
    has_cursor: bool,
}

#[derive(Default)]
struct Unsettled {
    /// Subscriptions that have not finished it; none until it was routed.
    remaining: Option<usize>,
    settled: Settled,
    reply: Option<oneshot::Sender<Settled>>,
}

/// What a cursor is to do next.
enum Step {
    HandOut(Position, u32, StoredEvent),
    Fetch(Position, u32),
    Read(Position, Position),
    Wait,
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
                tail: Tail {
                    first: head,
                    events: VecDeque::new(),
                    bytes: 0,
                },
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
        Ok(Box::new(ChannelCursor {
            handle: Arc::new(Handle {
                channel: Arc::clone(self),
                number,
            }),
            uid: uid.clone(),
            wake,
            in_hand_max: order.in_hand_max(),
            ahead: VecDeque::new(),
            spot: Position(0).into(),
        }))
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

impl Subscription {
    fn new(uid: Uid, begun: Position, head: Position) -> Self {
        Self::recovered(
            Standing {
                uid,
                begun,
                next: begun,
                done: Ranges::default(),
                open: BTreeMap::new(),
                tried: BTreeMap::new(),
            },
            head,
        )
    }

    fn recovered(standing: Standing, head: Position) -> Self {
        Self {
            attached: standing.next >= head,
            lined_up: VecDeque::new(),
            returned: standing.open.keys().copied().collect(),
            wake: Arc::new(Notify::new()),
            has_cursor: false,
            standing,
        }
    }

    fn in_hand(&self) -> usize {
        self.standing.open.len() - self.returned.len()
    }

    /// Lines an event up; `false` when it does not come to this one now.
    fn line_up(&mut self, position: Position, lined_up_max: usize) -> bool {
        if !self.attached || position < self.standing.next || self.standing.done.contains(position)
        {
            return false;
        }
        if self.lined_up.len() >= lined_up_max {
            self.attached = false;
            self.standing.next = position;
            return false;
        }
        self.lined_up.push_back(position);
        self.wake.notify_one();
        true
    }

    /// Everything before is decided, except for what is open or lined up.
    fn decided_before(&self, routed: Position) -> Position {
        if self.attached {
            self.standing.next.max(routed)
        } else {
            self.standing.next
        }
    }

    fn oldest(&self, routed: Position) -> Position {
        let open = self.standing.open.keys().next();
        let oldest = open.into_iter().chain(self.lined_up.front()).min();
        let decided = self.decided_before(routed);
        oldest.map_or(decided, |position| decided.min(*position))
    }

    fn owes(&self, position: Position) -> bool {
        self.standing.open.contains_key(&position)
            || self.lined_up.contains(&position)
            || (!self.attached && position >= self.standing.next)
    }

    fn backlog(&self, state: &State) -> u64 {
        let listed = self.standing.open.len() + self.lined_up.len();
        let beyond = state
            .head
            .0
            .saturating_sub(self.decided_before(state.routed).0)
            .saturating_sub(self.standing.done.len());
        u64::try_from(listed)
            .unwrap_or(u64::MAX)
            .saturating_add(beyond)
    }
}

impl Tail {
    fn index(&self, position: Position) -> Option<usize> {
        usize::try_from(position.0.checked_sub(self.first.0)?).ok()
    }

    fn push(&mut self, event: StoredEvent) {
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

    fn get(&self, position: Position) -> Option<StoredEvent> {
        let found = self.events.get(self.index(position)?)?;
        Some(found.event.clone())
    }

    fn from(&self, position: Position, count_max: usize) -> Vec<(Position, StoredEvent)> {
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

    fn wait(&mut self, position: Position) {
        if let Some(found) = self
            .index(position)
            .and_then(|index| self.events.get_mut(index))
        {
            found.waiting += 1;
        }
    }

    fn release(&mut self, position: Position) {
        if let Some(found) = self
            .index(position)
            .and_then(|index| self.events.get_mut(index))
        {
            found.waiting = found.waiting.saturating_sub(1);
        }
    }

    /// Drops what was routed and waits for nobody.
    fn trim(&mut self, routed: Position) {
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

struct ChannelCursor {
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
