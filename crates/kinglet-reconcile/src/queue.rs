//! The work queue of a controller: keys, each at most once, none worked on twice at a time.
//!
//! Guarantees: a key added while it is worked on is worked on again afterwards; a key added several times before it is
//! taken is worked on once; failures of a key slow down that key only. Bounded by the number of objects.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::backlog::{Backlog, Turn};
use crate::object::Key;

/// First pause after a failure; it doubles (the limits of Knative's and Kubernetes' queues).
const RETRY_MIN: Duration = Duration::from_millis(5);
/// Longest pause after many failures.
const RETRY_MAX: Duration = Duration::from_secs(1000);

/// So many urgent keys go before one that is not, while both wait: what is always urgent must not hold up the rest for ever.
const URGENT_IN_A_ROW: u32 = 16;

#[derive(Default)]
struct State {
    /// Urgent keys taken while others waited.
    in_a_row: u32,
    fast: VecDeque<Key>,
    slow: VecDeque<Key>,
    dirty: HashMap<Key, bool>,
    working: HashSet<Key>,
    due: HashMap<Key, Instant>,
    by_time: BTreeSet<(Instant, Key)>,
    failures: HashMap<Key, u32>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    ready: Notify,
    timer: Notify,
}

/// Adds keys to a controller's queue from anywhere. Cheap to clone.
#[derive(Clone, Default)]
pub struct Queue(Arc<Shared>);

impl Queue {
    /// Works on the key soon.
    pub fn add(&self, key: Key) {
        self.push(key, false);
    }

    /// Works on the key when nothing more urgent waits.
    pub fn add_slowly(&self, key: Key) {
        self.push(key, true);
    }

    /// Works on the key after `delay`; the earliest of several wins.
    pub fn add_after(&self, key: Key, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = Instant::now() + delay;
        let mut state = self.0.state.lock();
        match state.due.get(&key).copied() {
            Some(known) if known <= at => return,
            Some(known) => {
                state.by_time.remove(&(known, key.clone()));
            }
            None => {}
        }
        state.due.insert(key.clone(), at);
        state.by_time.insert((at, key));
        drop(state);
        self.0.timer.notify_one();
    }

    /// How many keys wait or are worked on, without those that wait for their time.
    pub fn len(&self) -> usize {
        let state = self.0.state.lock();
        state.dirty.len() + state.working.len()
    }

    /// Whether nothing waits and nothing is worked on.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next key; cancel-safe. It must be given back with [`Queue::done`]. One that is not urgent comes with its turn in
    /// the backlog of the process.
    pub(crate) async fn next(&self, backlog: &Backlog) -> (Key, Option<Turn>) {
        loop {
            let ready = self.0.ready.notified();
            let taken = match self.look(backlog) {
                Look::Taken(key, turn) => Some((key, turn)),
                Look::Nothing => {
                    ready.await;
                    None
                }
                Look::NotUrgent => tokio::select! {
                    biased;
                    () = ready => None,
                    turn = backlog.turn() => self.take(turn),
                },
            };
            if let Some(taken) = taken {
                // Two keys added between a worker's look and its wait leave one permit; the worker that takes the
                // first passes the word on, so that the second does not wait for the first to be finished with.
                if self.has_ready() {
                    self.0.ready.notify_one();
                }
                return taken;
            }
        }
    }

    /// The key is finished with.
    pub(crate) fn done(&self, key: &Key) {
        let mut state = self.0.state.lock();
        state.working.remove(key);
        if let Some(slow) = state.dirty.get(key).copied() {
            state.line_up(key.clone(), slow);
            drop(state);
            self.0.ready.notify_one();
        }
    }

    /// The key succeeded: its failures are forgotten.
    pub(crate) fn forgive(&self, key: &Key) {
        self.0.state.lock().failures.remove(key);
    }

    /// The key failed: it comes back after its pause, which is returned.
    pub(crate) fn retry(&self, key: &Key) -> Duration {
        let pause = {
            let mut state = self.0.state.lock();
            let failures = state.failures.entry(key.clone()).or_default();
            let pause = pause_after(*failures);
            *failures = failures.saturating_add(1);
            pause
        };
        self.add_after(key.clone(), pause);
        pause
    }

    /// Moves keys whose time has come; runs as a task of the controller.
    pub(crate) async fn keep_time(&self) {
        loop {
            let changed = self.0.timer.notified();
            let first = self.0.state.lock().by_time.first().map(|(at, _)| *at);
            match first {
                None => changed.await,
                Some(at) if at > Instant::now() => {
                    tokio::select! {
                        () = sleep_until(at) => {}
                        () = changed => {}
                    }
                }
                Some(_) => self.release_due(),
            }
        }
    }

    fn release_due(&self) {
        let now = Instant::now();
        let mut due = Vec::new();
        {
            let mut state = self.0.state.lock();
            while let Some((at, _)) = state.by_time.first()
                && *at <= now
                && let Some((_, key)) = state.by_time.pop_first()
            {
                state.due.remove(&key);
                due.push(key);
            }
        }
        for key in due {
            self.add(key);
        }
    }

    fn push(&self, key: Key, slow: bool) {
        let mut state = self.0.state.lock();
        match state.dirty.get(&key) {
            Some(true) if !slow => {
                // Overtakes: an event is more urgent than a resync.
                state.slow.retain(|waiting| *waiting != key);
            }
            Some(_) => return,
            None => {}
        }
        state.dirty.insert(key.clone(), slow);
        if state.working.contains(&key) {
            return;
        }
        state.line_up(key, slow);
        drop(state);
        self.0.ready.notify_one();
    }

    fn has_ready(&self) -> bool {
        let state = self.0.state.lock();
        !state.fast.is_empty() || !state.slow.is_empty()
    }

    /// Takes an urgent key; another one only when it is its time and the backlog has a turn at once.
    fn look(&self, backlog: &Backlog) -> Look {
        let mut state = self.0.state.lock();
        if state.in_a_row >= URGENT_IN_A_ROW
            && !state.slow.is_empty()
            && let Some(turn) = backlog.try_turn()
            && let Some(key) = state.pop_slow()
        {
            return Look::Taken(key, Some(turn));
        }
        match state.pop_urgent() {
            Some(key) => Look::Taken(key, None),
            None if state.slow.is_empty() => Look::Nothing,
            None => Look::NotUrgent,
        }
    }

    /// Takes whichever key comes next. An urgent one needs no turn.
    fn take(&self, turn: Turn) -> Option<(Key, Option<Turn>)> {
        let mut state = self.0.state.lock();
        if let Some(key) = state.pop_urgent() {
            return Some((key, None));
        }
        Some((state.pop_slow()?, Some(turn)))
    }
}

/// What a worker finds.
enum Look {
    Taken(Key, Option<Turn>),
    /// Only keys that need a turn.
    NotUrgent,
    Nothing,
}

impl State {
    fn pop_urgent(&mut self) -> Option<Key> {
        let key = self.fast.pop_front()?;
        self.in_a_row = if self.slow.is_empty() {
            0
        } else {
            self.in_a_row.saturating_add(1)
        };
        self.begin(key)
    }

    fn pop_slow(&mut self) -> Option<Key> {
        let key = self.slow.pop_front()?;
        self.in_a_row = 0;
        self.begin(key)
    }

    fn begin(&mut self, key: Key) -> Option<Key> {
        self.dirty.remove(&key);
        self.working.insert(key.clone());
        Some(key)
    }

    fn line_up(&mut self, key: Key, slow: bool) {
        if slow {
            self.slow.push_back(key)
        } else {
            self.fast.push_back(key)
        }
    }
}

fn pause_after(failures: u32) -> Duration {
    RETRY_MIN
        .saturating_mul(2u32.saturating_pow(failures))
        .min(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("a", name)
    }

    async fn next(queue: &Queue) -> Key {
        queue.next(&Backlog::of(1)).await.0
    }

    fn taken(queue: &Queue) -> Option<Key> {
        let turn = Backlog::of(1).try_turn().expect("a turn");
        queue.take(turn).map(|(key, _)| key)
    }

    #[test]
    fn pauses_double_up_to_the_limit() {
        assert_eq!(pause_after(0), Duration::from_millis(5));
        assert_eq!(pause_after(3), Duration::from_millis(40));
        assert_eq!(pause_after(60), RETRY_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_worked_on_once_and_again_when_it_changed_meanwhile() {
        let queue = Queue::default();
        queue.add(key("x"));
        queue.add(key("x"));
        let x = next(&queue).await;
        assert!(taken(&queue).is_none());
        queue.add(key("x"));
        assert!(taken(&queue).is_none());
        queue.done(&x);
        assert_eq!(next(&queue).await, x);
        queue.done(&x);
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn two_keys_added_at_once_reach_two_workers() {
        let queue = Queue::default();
        // Both workers have looked and neither waits yet, so both keys are announced by one permit.
        queue.add(key("x"));
        queue.add(key("y"));
        queue.0.ready.notified().await;
        let first = next(&queue).await;
        // While the first worker is busy, the second one wakes.
        let woken = tokio::time::timeout(Duration::from_secs(1), queue.0.ready.notified()).await;
        assert!(woken.is_ok());
        assert_ne!(first, next(&queue).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_overtakes_a_resync() {
        let queue = Queue::default();
        queue.add_slowly(key("a"));
        queue.add_slowly(key("b"));
        queue.add(key("b"));
        assert_eq!(next(&queue).await, key("b"));
        assert_eq!(next(&queue).await, key("a"));
        assert!(taken(&queue).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_always_urgent_does_not_hold_up_the_rest() {
        let queue = Queue::default();
        queue.add_slowly(key("slow"));
        queue.add(key("hot"));
        for taken in 0..=URGENT_IN_A_ROW {
            let next = next(&queue).await;
            if taken < URGENT_IN_A_ROW {
                assert_eq!(next, key("hot"));
            } else {
                assert_eq!(next, key("slow"));
            }
            queue.add(key("hot"));
            queue.done(&next);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_urgent_waits_for_its_turn_and_what_is_does_not() {
        let (queue, other) = (Queue::default(), Queue::default());
        let backlog = Backlog::of(1);
        queue.add_slowly(key("a"));
        other.add_slowly(key("b"));
        let (a, turn) = queue.next(&backlog).await;
        assert!(turn.is_some());
        let waiting = other.next(&backlog);
        tokio::pin!(waiting);
        let none = tokio::time::timeout(Duration::from_secs(100), waiting.as_mut()).await;
        assert!(none.is_err(), "another controller has the turn");
        other.add(key("c"));
        let (c, none) = waiting.await;
        assert_eq!((c, none.is_none()), (key("c"), true));
        drop(turn);
        queue.done(&a);
        assert_eq!(other.next(&backlog).await.0, key("b"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_delay_wins() {
        let queue = Queue::default();
        let timer = queue.clone();
        #[expect(clippy::disallowed_methods, reason = "the test awaits or aborts it")]
        let task = tokio::task::spawn(async move { timer.keep_time().await });
        let began = Instant::now();
        queue.add_after(key("x"), Duration::from_secs(60));
        queue.add_after(key("x"), Duration::from_secs(5));
        queue.add_after(key("x"), Duration::from_secs(30));
        let x = next(&queue).await;
        assert_eq!(began.elapsed().as_secs(), 5);
        queue.done(&x);
        assert!(
            tokio::time::timeout(Duration::from_secs(100), next(&queue))
                .await
                .is_err()
        );
        task.abort();
    }
}
