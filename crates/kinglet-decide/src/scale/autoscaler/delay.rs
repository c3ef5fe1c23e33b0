//! Scale-downs that are put off (`autoscaling.knative.dev/scale-down-delay`).

use std::time::Duration;

use crate::scale::moment::Moment;

/// The greatest desired scale of the last `scale-down-delay`, at the grain of one decision.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DelayWindow {
    /// (slot, greatest desired scale in it), oldest first.
    desires: std::collections::VecDeque<(u64, u32)>,
    slots: u64,
}

impl DelayWindow {
    /// Decisions are made every two seconds.
    const SLOT: Duration = Duration::from_secs(2);

    pub(super) fn new(delay: Duration) -> Option<Self> {
        let slots = delay.as_millis().div_ceil(Self::SLOT.as_millis());
        (slots > 0).then(|| Self {
            desires: std::collections::VecDeque::new(),
            slots: u64::try_from(slots).unwrap_or(u64::MAX),
        })
    }

    pub(super) fn most_since(&mut self, now: Moment, desired_scale: u32) -> u32 {
        let slot = now.second() / Self::SLOT.as_secs();
        while self
            .desires
            .front()
            .is_some_and(|(at, _)| slot.saturating_sub(*at) >= self.slots)
        {
            self.desires.pop_front();
        }
        // Kept falling, so the front is the greatest and the queue no longer than the window.
        let mut at = slot;
        while let Some((last_slot, last)) = self.desires.back().copied() {
            if last > desired_scale {
                break;
            }
            at = at.max(last_slot);
            self.desires.pop_back();
        }
        self.desires.push_back((at, desired_scale));
        self.desires
            .front()
            .map_or(desired_scale, |(_, most)| *most)
    }
}
