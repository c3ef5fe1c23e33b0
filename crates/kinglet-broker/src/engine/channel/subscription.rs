//! One subscription of a channel: what is lined up for it, what it has in hand, and where it stands.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::sync::Notify;

use super::State;
use crate::engine::progress::Standing;
use crate::engine::ranges::Ranges;
use crate::engine::{Position, Uid};

/// One subscription, under the lock of its channel.
pub(super) struct Subscription {
    pub(super) standing: Standing,
    pub(super) attached: bool,
    /// Wanted, before `standing.next` or routed, and not in hand.
    pub(super) lined_up: VecDeque<Position>,
    /// Of `standing.open`: to be handed out (again).
    pub(super) returned: BTreeSet<Position>,
    pub(super) wake: Arc<Notify>,
    pub(super) has_cursor: bool,
}

impl Subscription {
    pub(super) fn new(uid: Uid, begun: Position, head: Position) -> Self {
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

    pub(super) fn recovered(standing: Standing, head: Position) -> Self {
        Self {
            attached: standing.next >= head,
            lined_up: VecDeque::new(),
            returned: standing.open.keys().copied().collect(),
            wake: Arc::new(Notify::new()),
            has_cursor: false,
            standing,
        }
    }

    pub(super) fn in_hand(&self) -> usize {
        self.standing.open.len() - self.returned.len()
    }

    /// Lines an event up; `false` when it does not come to this one now.
    pub(super) fn line_up(&mut self, position: Position, lined_up_max: usize) -> bool {
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
    pub(super) fn decided_before(&self, routed: Position) -> Position {
        if self.attached {
            self.standing.next.max(routed)
        } else {
            self.standing.next
        }
    }

    pub(super) fn oldest(&self, routed: Position) -> Position {
        let open = self.standing.open.keys().next();
        let oldest = open.into_iter().chain(self.lined_up.front()).min();
        let decided = self.decided_before(routed);
        oldest.map_or(decided, |position| decided.min(*position))
    }

    pub(super) fn owes(&self, position: Position) -> bool {
        self.standing.open.contains_key(&position)
            || self.lined_up.contains(&position)
            || (!self.attached && position >= self.standing.next)
    }

    pub(super) fn backlog(&self, state: &State) -> u64 {
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
