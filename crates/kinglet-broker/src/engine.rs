//! What keeps the events of channels: one trait, with a back end in memory and a durable one (docs/decisions/0024).
//!
//! Flow: [`Engine::open`] gives the [`ChannelLog`] of a channel; [`ChannelLog::append`] takes an event in and
//! [`ChannelLog::subscribe`] gives the [`Cursor`] of a subscription; [`Delivered::receipt`] takes back what became of it.
//!
//! Guarantees: an appended event is handed at least once to each subscription that was there before it and whose filter
//! lets it pass, until [`Receipt::finished`]. Positions of a channel only grow; a subscription in order gets one event at
//! a time, in their order.
//! Assumptions: one [`Engine`] per data directory. What an engine cannot promise, it says in [`Engine::capabilities`].
//!
//! Two things differ from the first sketch of this seam. A delivered event carries its [`Receipt`]: a delivery whose task
//! panicked or was cancelled gives its event back by dropping it, so that nothing is stuck in flight. And filters are
//! asked by the channel ([`ChannelLog::route`]), once per event for all subscriptions together, so that an event costs
//! what its matches cost and ten thousand subscriptions that do not want it cost nothing.

mod channel;
mod event;
pub mod log;
pub mod memory;
mod progress;
mod ranges;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use kinglet_decide::feed::Key;

pub use event::{Headers, HeadersBuilder, StoredEvent};

/// The uid of a subscription (of a Trigger, of an entry of a Channel's `spec.subscribers`).
pub type Uid = Arc<str>;

/// A subscription without order has at most so many events in hand (design decision 14).
pub const IN_HAND_MAX: usize = 100;
/// A header block with its body has at most so many bytes: what one record of the log may be.
pub const EVENT_BYTES_MAX: usize = 16 << 20;
/// So much of a subscriber's answer is kept with an attempt.
pub const ANSWER_BYTES_MAX: usize = 1024;
/// So many events may be put back for one subscription and wait for it.
pub const REDELIVERED_MAX: usize = 10_000;
/// So many events one page of a channel's history has.
pub const HISTORY_PAGE_MAX: usize = 1_000;

/// Which channel: its kind (`InMemoryChannel`, `DurableChannel`), namespace and name, and the uid that tells it from an
/// earlier one of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChannelId {
    /// Kubernetes kind.
    pub kind: Arc<str>,
    /// Namespace and name.
    pub key: Key,
    /// `metadata.uid`.
    pub uid: Uid,
}

impl std::fmt::Display for ChannelId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.key)
    }
}

/// Where an event stands in its channel. The first one is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub u64);

impl Position {
    /// Before the first event.
    pub const FIRST: Self = Self(1);

    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How long finished events stay findable, and how much a channel may hold in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Bytes that the channel may take. Finished events make room for new ones; when what is not finished takes all of it,
    /// appends are refused ([`AppendError::Full`]).
    pub bytes_max: u64,
    /// Finished events, given-up ones among them, are removed after this time.
    pub age_max: Duration,
}

impl Default for Retention {
    /// A gigabyte for a week: a million events of 1 kB, found after a weekend.
    fn default() -> Self {
        Self {
            bytes_max: 1 << 30,
            age_max: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// What an engine promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// An appended event, and what became of it, survive a restart.
    pub durable: bool,
    /// Subscriptions may ask for order.
    pub ordered: bool,
    /// Finished events can be read again: history, replay, redrive.
    pub replay: bool,
}

/// The order in which a subscription gets its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Order {
    /// Up to [`IN_HAND_MAX`] at a time.
    #[default]
    Unordered,
    /// One at a time: the next one comes when this one is finished.
    Ordered,
}

impl Order {
    fn in_hand_max(self) -> usize {
        match self {
            Self::Unordered => IN_HAND_MAX,
            Self::Ordered => 1,
        }
    }
}

/// What one call of a subscriber gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it began.
    pub at: Timestamp,
    /// The HTTP status; none when there was no response.
    pub status: Option<u16>,
    /// How long it took.
    pub latency: Duration,
    /// The beginning of the response's body, or the words of the error ([`ANSWER_BYTES_MAX`]).
    pub answer: Bytes,
}

/// What became of an event for one subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The subscriber took it.
    Delivered,
    /// The filter does not let it pass.
    Filtered,
    /// Retries are over; the dead letter sink took it.
    DeadLettered,
    /// Retries are over and no dead letter sink took it: it stays findable until retention ends (design decision 13).
    GivenUp,
    /// Its record is damaged on the disk, so it cannot be delivered any more.
    Damaged,
}

/// An event in the hands of a subscription.
#[derive(Debug)]
pub struct Delivered {
    /// Where it stands.
    pub position: Position,
    /// The event.
    pub event: StoredEvent,
    /// Attempts that were made before, also before a restart.
    pub attempts: u32,
    /// Takes back what became of it.
    pub receipt: Receipt,
}

/// Takes what became of a delivered event. Dropped before [`Receipt::finished`], it gives the event back, and the
/// subscription gets it again.
pub struct Receipt {
    subscription: Option<Arc<dyn Acknowledge>>,
    position: Position,
}

/// What a back end does with receipts.
pub trait Acknowledge: Send + Sync {
    /// Keeps an attempt.
    fn attempted(&self, position: Position, attempt: Attempt);
    /// The subscription is done with the event.
    fn finished(&self, position: Position, outcome: Outcome);
    /// The event is to be handed out again.
    fn returned(&self, position: Position);
}

impl Receipt {
    /// For back ends: the receipt of an event that is in hand from now on.
    pub fn new(subscription: Arc<dyn Acknowledge>, position: Position) -> Self {
        Self {
            subscription: Some(subscription),
            position,
        }
    }

    /// Keeps an attempt. It survives a restart, except for those of the last moments.
    pub fn attempted(&self, attempt: Attempt) {
        if let Some(subscription) = &self.subscription {
            subscription.attempted(self.position, attempt);
        }
    }

    /// The subscription is done with this event.
    pub fn finished(mut self, outcome: Outcome) {
        if let Some(subscription) = self.subscription.take() {
            subscription.finished(self.position, outcome);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(subscription) = self.subscription.take() {
            subscription.returned(self.position);
        }
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Receipt({})", self.position)
    }
}

/// Says which subscriptions want an event.
pub trait Matcher: Send + Sync {
    /// Calls `matched` with each subscription that wants `event`. Asked once per event.
    fn matching(&self, event: &StoredEvent, matched: &mut dyn FnMut(&Uid));
    /// Does this one want it? Asked for subscriptions that read what lies on the disk.
    fn matches(&self, subscription: &Uid, event: &StoredEvent) -> bool;
}

/// Why an event was not taken in. None of it is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// What is not finished takes all that the channel may have.
    #[error(
        "channel {channel} is full: its retention allows {bytes_max} bytes and its unfinished events take all of them{}; let that subscription's sink answer, remove the subscription, or raise the channel's bound",
        held_by.as_ref().map(|uid| format!(", the oldest one waits for subscription {uid}")).unwrap_or_default()
    )]
    Full {
        /// Which channel.
        channel: String,
        /// Its bound.
        bytes_max: u64,
        /// The subscription that has the oldest unfinished event.
        held_by: Option<Uid>,
    },
    /// The disk has no room.
    #[error(
        "the disk of the event log has no room for an event of channel {channel} ({why}); make room on it"
    )]
    DiskFull {
        /// Which channel.
        channel: String,
        /// What the system said.
        why: String,
    },
    /// The disk failed.
    #[error("writing an event of channel {channel} to the event log: {why}; it was not accepted")]
    Disk {
        /// Which channel.
        channel: String,
        /// What the system said.
        why: String,
    },
    /// Larger than [`EVENT_BYTES_MAX`].
    #[error("the event has {bytes} bytes; a channel takes events of at most {EVENT_BYTES_MAX}")]
    TooLarge {
        /// Of headers and body.
        bytes: usize,
    },
    /// The channel was removed, or the engine is stopping or has failed.
    #[error("channel {channel} takes no events any more: {why}")]
    Closed {
        /// Which channel.
        channel: String,
        /// Why.
        why: String,
    },
}

impl AppendError {
    /// Can the same append succeed later? (429 or 503 then.)
    pub fn is_temporary(&self) -> bool {
        !matches!(self, Self::TooLarge { .. })
    }
}

/// What an engine could not do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// Reading or writing failed.
    #[error("{attempted} of the event log of channel {channel}: {why}")]
    Io {
        /// What was tried.
        attempted: &'static str,
        /// Which channel.
        channel: String,
        /// What the system said.
        why: String,
    },
    /// The channel was removed, or the engine is stopping or has failed.
    #[error("channel {channel} is closed: {why}")]
    Closed {
        /// Which channel.
        channel: String,
        /// Why.
        why: String,
    },
    /// No such subscription (any more).
    #[error("channel {channel} has no subscription {subscription}")]
    NoSubscription {
        /// Which channel.
        channel: String,
        /// Which subscription.
        subscription: Uid,
    },
    /// Somebody has the cursor of this subscription already.
    #[error("subscription {subscription} of channel {channel} has a cursor already")]
    Taken {
        /// Which channel.
        channel: String,
        /// Which subscription.
        subscription: Uid,
    },
    /// The event is not (any longer) there.
    #[error("channel {channel} has no event at position {position} any more")]
    NoEvent {
        /// Which channel.
        channel: String,
        /// Which position.
        position: Position,
    },
    /// [`REDELIVERED_MAX`] events wait already.
    #[error(
        "{REDELIVERED_MAX} events wait for subscription {subscription} of channel {channel} to be delivered again; put back more when it has taken some"
    )]
    TooManyRedelivered {
        /// Which channel.
        channel: String,
        /// Which subscription.
        subscription: Uid,
    },
    /// The engine has no such thing.
    #[error("channel {channel} is kept in memory, where finished events are not")]
    NoReplay {
        /// Which channel.
        channel: String,
    },
}

/// What became of an event that somebody waited for ([`ChannelLog::append_and_settle`]).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Settled {
    /// The subscriptions that did not get it.
    pub failed: Vec<(Uid, Outcome)>,
}

/// A back end. One per data directory; channels are opened in it.
pub trait Engine: Send + Sync {
    /// What it promises.
    fn capabilities(&self) -> Capabilities;
    /// The channel's log: the one that is there, or a new one. Opened twice, it is the same one, with the retention of the
    /// last call.
    fn open(
        &self,
        channel: &ChannelId,
        retention: Retention,
    ) -> BoxFuture<'_, Result<Arc<dyn ChannelLog>, EngineError>>;
    /// Removes the channel with its events; its space is free when this resolves.
    fn remove(&self, channel: &ChannelId) -> BoxFuture<'_, Result<(), EngineError>>;
    /// The channels that are kept, opened or not: what of them no object names any more is to be removed.
    fn stored(&self) -> BoxFuture<'_, Result<Vec<ChannelId>, EngineError>>;
}

/// The events of one channel.
pub trait ChannelLog: Send + Sync {
    /// Takes an event in. Resolves when it is kept as the engine promises: a durable one has synced it. A future that is
    /// dropped leaves open whether the event is kept.
    fn append(&self, event: StoredEvent) -> BoxFuture<'_, Result<Position, AppendError>>;
    /// Takes an event in and waits until every subscription has finished it.
    fn append_and_settle(&self, event: StoredEvent) -> BoxFuture<'_, Result<Settled, AppendError>>;
    /// Asks `matcher` from now on which subscriptions want an event; before the first call, all do. What a subscription
    /// has not been handed is asked for again after a restart.
    fn route(&self, matcher: Arc<dyn Matcher>);
    /// The cursor of a subscription. A new subscription begins after the last event of now: it gets every event that is
    /// accepted after this call. One that is known goes on where it was.
    fn subscribe(&self, subscription: &Uid, order: Order) -> Result<Box<dyn Cursor>, EngineError>;
    /// Forgets a subscription. Its cursor, if there is one, ends.
    fn unsubscribe(&self, subscription: &Uid);
    /// The subscriptions that are known, with or without a cursor.
    fn subscriptions(&self) -> Vec<SubscriptionStatus>;
    /// How the channel is.
    fn status(&self) -> ChannelStatus;
    /// Hands a retained event to a subscription once more: redrive, replay.
    fn redeliver(
        &self,
        subscription: &Uid,
        position: Position,
    ) -> BoxFuture<'_, Result<(), EngineError>>;
    /// Events with what became of them, oldest first.
    fn history(&self, query: Query) -> BoxFuture<'_, Result<Page, EngineError>>;
    /// Resolves when there is an event at `position`, for those who follow.
    fn arrived(&self, position: Position) -> BoxFuture<'_, Result<(), EngineError>>;
}

/// Gives a subscription its events. Dropped, it leaves the subscription and its events where they are.
pub trait Cursor: Send {
    /// The next event; waits for one, and while as many are in hand as the order allows. Cancel-safe: an event is in hand
    /// only when it was returned.
    fn next(&mut self) -> BoxFuture<'_, Result<Delivered, EngineError>>;
    /// Events that are not finished, those in hand among them; an upper bound where a filter has not been asked yet.
    fn backlog(&self) -> u64;
}

/// Where a subscription stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionStatus {
    /// Which one.
    pub subscription: Uid,
    /// Events that are not finished ([`Cursor::backlog`]).
    pub backlog: u64,
    /// Of them in hand.
    pub in_hand: usize,
    /// The oldest one that is not finished; the next one to come when there is none.
    pub oldest: Position,
}

/// How a channel is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelStatus {
    /// The position that the next event gets.
    pub head: Position,
    /// Bytes that it takes.
    pub bytes: u64,
    /// Its bound.
    pub bytes_max: u64,
    /// Places where a record was damaged, found since the start.
    pub damaged: u64,
    /// Why the last append was refused; none after one that was taken.
    pub refused: Option<String>,
}

/// Which events of a channel to read.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// From this position on.
    pub from: Option<Position>,
    /// That arrived then or later.
    pub since: Option<Timestamp>,
    /// That arrived before.
    pub until: Option<Timestamp>,
    /// With these headers, by name and value: `ce-type`, `ce-id`, `ce-source` …
    pub headers: Vec<(String, Bytes)>,
    /// That some subscription finished so.
    pub outcome: Option<Outcome>,
    /// At most so many, up to [`HISTORY_PAGE_MAX`]; 0 is as many as there may be.
    pub limit: usize,
    /// With every subscription of now, also those that the event waits for and those whose filter does not let it pass;
    /// else with those that the log tells something of.
    pub all_subscriptions: bool,
}

/// A page of a channel's history.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The events.
    pub accounts: Vec<Account>,
    /// Where the next page begins; none at the end.
    pub next: Option<Position>,
}

/// An event and what became of it.
#[derive(Clone, Debug)]
pub struct Account {
    /// Where it stands.
    pub position: Position,
    /// The event.
    pub event: StoredEvent,
    /// What each subscription did with it.
    pub hops: Vec<Hop>,
}

/// One event at one subscription.
#[derive(Clone, Debug)]
pub struct Hop {
    /// Which subscription.
    pub subscription: Uid,
    /// The attempts that the log has, oldest first.
    pub attempts: Vec<Attempt>,
    /// What became of it; none while it is not finished.
    pub outcome: Option<Outcome>,
}
