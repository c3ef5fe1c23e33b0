//! What all breakers share: clock, options and the way to the control plane.

use kinglet_decide::feed::{Key, Report};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::options::Options;

/// What all breakers share: clock, options and the way to the control plane.
pub(crate) struct BreakerContext {
    pub(crate) options: Options,
    epoch: Instant,
    reports: mpsc::Sender<Report>,
    /// Pokes that found the channel full; the reporter delivers them.
    undelivered: Mutex<Vec<Key>>,
    pub(crate) has_undelivered: Notify,
}

impl BreakerContext {
    pub(crate) fn new(options: Options, reports: mpsc::Sender<Report>) -> Self {
        Self {
            options,
            epoch: Instant::now(),
            reports,
            undelivered: Mutex::default(),
            has_undelivered: Notify::new(),
        }
    }

    /// Nanoseconds since the start. Under loom it stands still, since each run must be like the one before.
    pub(crate) fn now(&self) -> u64 {
        if cfg!(kinglet_loom) {
            return 1;
        }
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn poke(&self, key: &Key) {
        if let Err(mpsc::error::TrySendError::Full(_)) =
            self.reports.try_send(self.poke_of(key.clone()))
        {
            let mut undelivered = self.undelivered.lock();
            if !undelivered.contains(key) {
                undelivered.push(key.clone());
            }
            self.has_undelivered.notify_one();
        }
    }

    pub(crate) fn poke_of(&self, revision: Key) -> Report {
        Report::Poke {
            revision,
            source: self.options.source.clone(),
        }
    }

    pub(crate) fn take_undelivered(&self) -> Vec<Key> {
        std::mem::take(&mut self.undelivered.lock())
    }

    pub(crate) fn reports(&self) -> &mpsc::Sender<Report> {
        &self.reports
    }
}
