//! The way to the gateway's bounded channel: only what changed, in order, and nothing lost when it is full.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kinglet_decide::feed::{Key, RevisionBackend, ServiceBackend, Update};
use kinglet_reconcile::Backlog;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

/// Whose state is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Subject {
    Revision(Key),
    Service(Key),
}

/// A state that was or will be sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Sent {
    Revision(Arc<RevisionBackend>),
    Service(Arc<ServiceBackend>),
}

/// Remembers what the gateway knows.
pub(super) struct Outbox {
    updates: mpsc::Sender<Update>,
    state: Mutex<State>,
    bell: Notify,
}

#[derive(Default)]
struct State {
    sent: HashMap<Subject, Sent>,
    /// Subjects whose state found the channel full or was there at the start; bounded by the number of objects.
    owed: BTreeSet<Subject>,
}

impl Outbox {
    pub(super) fn new(updates: mpsc::Sender<Update>) -> Self {
        Self {
            updates,
            state: Mutex::default(),
            bell: Notify::new(),
        }
    }

    /// Sends the subject's present state if it differs from what was sent.
    ///
    /// The lock spans looking and sending, so that two events of one subject cannot overtake each other.
    pub(super) fn tell(&self, subject: Subject, present: impl Fn(&Subject) -> Option<Sent>) {
        let mut state = self.state.lock();
        let now = present(&subject);
        if state.sent.get(&subject) == now.as_ref() {
            state.owed.remove(&subject);
            return;
        }
        match self.updates.try_send(update(&subject, now.clone())) {
            Ok(()) => {
                state.owed.remove(&subject);
                state.note(subject, now);
            }
            Err(mpsc::error::TrySendError::Full(_)) => {
                state.owed.insert(subject);
                self.bell.notify_one();
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
    }

    /// The same if the subject's state is owed.
    pub(super) fn tell_owed(&self, subject: Subject, present: impl Fn(&Subject) -> Option<Sent>) {
        if self.state.lock().owed.contains(&subject) {
            self.tell(subject, present);
        }
    }

    /// Notes that the subject's state follows later.
    pub(super) fn owe(&self, subject: Subject) {
        self.state.lock().owed.insert(subject);
        self.bell.notify_one();
    }

    /// Delivers what is owed, as there is room, each in a turn of its own where there is a `backlog`. Ends when nothing is
    /// owed, or nobody listens any more.
    pub(super) async fn settle(
        &self,
        backlog: Option<&Backlog>,
        present: impl Fn(&Subject) -> Option<Sent>,
    ) {
        loop {
            let Ok(room) = self.updates.reserve().await else {
                return;
            };
            let _turn = match backlog {
                Some(backlog) => Some(backlog.turn().await),
                None => None,
            };
            let mut state = self.state.lock();
            let Some(subject) = state.owed.pop_first() else {
                return;
            };
            let now = present(&subject);
            if state.sent.get(&subject) != now.as_ref() {
                room.send(update(&subject, now.clone()));
                state.note(subject, now);
            }
        }
    }

    /// Delivers what found the channel full, whenever that happens. A gateway that is gone is its own fault and not ours, so
    /// this does not end with it.
    pub(super) async fn keep_settling(&self, present: impl Fn(&Subject) -> Option<Sent>) {
        loop {
            self.bell.notified().await;
            self.settle(None, &present).await;
        }
    }
}

impl State {
    fn note(&mut self, subject: Subject, now: Option<Sent>) {
        match now {
            Some(now) => self.sent.insert(subject, now),
            None => self.sent.remove(&subject),
        };
    }
}

fn update(subject: &Subject, now: Option<Sent>) -> Update {
    match (subject, now) {
        (Subject::Revision(key), Some(Sent::Revision(backend))) => {
            Update::Revision(key.clone(), Some(backend))
        }
        (Subject::Revision(key), _) => Update::Revision(key.clone(), None),
        (Subject::Service(key), Some(Sent::Service(backend))) => {
            Update::Service(key.clone(), Some(backend))
        }
        (Subject::Service(key), _) => Update::Service(key.clone(), None),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn subject(name: &str) -> Subject {
        Subject::Service(Key::new("default", name))
    }

    fn state(port: u16) -> Sent {
        Sent::Service(Arc::new(ServiceBackend {
            ports: vec![(port, Vec::new())],
            ..ServiceBackend::default()
        }))
    }

    /// (name, port) of what arrives; no port means forgotten.
    fn arrived(update: Update) -> (String, Option<u16>) {
        let Update::Service(key, backend) = update else {
            panic!("a service was told")
        };
        (
            key.name.to_string(),
            backend.map(|backend| backend.ports[0].0),
        )
    }

    #[tokio::test]
    async fn only_changes_are_sent() {
        let (updates, mut receiver) = mpsc::channel(8);
        let outbox = Outbox::new(updates);
        for present in [
            None,
            Some(state(1)),
            Some(state(1)),
            Some(state(2)),
            None,
            None,
        ] {
            outbox.tell(subject("a"), |_| present.clone());
        }
        drop(outbox);
        let mut all = Vec::new();
        while let Some(update) = receiver.recv().await {
            all.push(arrived(update).1);
        }
        assert_eq!(all, [Some(1), Some(2), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_there_at_the_start_follows_in_its_turn_and_what_is_asked_for_at_once() {
        let (updates, mut receiver) = mpsc::channel(64);
        let outbox = Outbox::new(updates);
        for number in 0..20 {
            outbox.owe(subject(&format!("s{number:02}")));
        }
        let backlog = Backlog::default();
        // All turns are taken by others.
        let mut turns = Vec::new();
        while let Ok(turn) = tokio::time::timeout(Duration::from_secs(1), backlog.turn()).await {
            turns.push(turn);
        }
        let settling = outbox.settle(Some(&backlog), |_| Some(state(1)));
        tokio::pin!(settling);
        let none = tokio::time::timeout(Duration::from_secs(1), settling.as_mut()).await;
        assert!(none.is_err() && receiver.try_recv().is_err());
        outbox.tell_owed(subject("s07"), |_| Some(state(1)));
        outbox.tell_owed(subject("not-owed"), |_| Some(state(1)));
        assert_eq!(arrived(receiver.try_recv().unwrap()).0, "s07");
        drop(turns);
        settling.await;
        let mut names: Vec<String> = Vec::new();
        while let Ok(update) = receiver.try_recv() {
            names.push(arrived(update).0);
        }
        assert_eq!((names.len(), names[0].as_str()), (19, "s00"));
    }

    #[tokio::test]
    async fn a_full_channel_loses_nothing_and_gets_the_latest() {
        let (updates, mut receiver) = mpsc::channel(1);
        let outbox = Arc::new(Outbox::new(updates));
        outbox.tell(subject("a"), |_| Some(state(1)));
        for port in 2..=9 {
            outbox.tell(subject("a"), |_| Some(state(port)));
            outbox.tell(subject("b"), |_| Some(state(port)));
        }
        outbox.tell(subject("c"), |_| Some(state(1)));
        outbox.tell(subject("c"), |_| None);
        #[expect(clippy::disallowed_methods, reason = "the test awaits or aborts it")]
        let settling = tokio::spawn({
            let outbox = Arc::clone(&outbox);
            async move {
                outbox
                    .keep_settling(|subject| (*subject != self::subject("c")).then(|| state(9)))
                    .await;
            }
        });
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(arrived(receiver.recv().await.unwrap()));
        }
        assert_eq!(
            all,
            [
                ("a".into(), Some(1)),
                ("a".into(), Some(9)),
                ("b".into(), Some(9))
            ]
        );
        assert!(receiver.try_recv().is_err());
        settling.abort();
    }
}
