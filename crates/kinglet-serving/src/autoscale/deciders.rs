//! The loop around the [`DeciderSet`]: reports and seconds go in, keys to reconcile come out.

use std::sync::Arc;
use std::time::Duration;

use kinglet_decide::feed::{Key, Report};
use kinglet_decide::scale::Moment;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::decider_set::{DeciderRequest, DeciderSet, DesiredScale};

/// Reports taken in one go before the clock is looked at again; a flood of pokes must not stop the seconds.
const REPORTS_PER_TURN_MAX: usize = 256;

/// A handle to every revision's decider. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Deciders {
    set: Arc<Mutex<DeciderSet>>,
    epoch: Instant,
}

impl Default for Deciders {
    fn default() -> Self {
        Self::new()
    }
}

impl Deciders {
    /// Nothing registered yet; time begins now.
    pub fn new() -> Self {
        Self {
            set: Arc::default(),
            epoch: Instant::now(),
        }
    }

    /// Registers a PodAutoscaler or changes what it asks for. Answers with the present desired scale.
    pub fn ensure(&self, key: &Key, request: DeciderRequest) -> DesiredScale {
        self.set.lock().ensure(key, request, self.now())
    }

    /// Forgets a PodAutoscaler that is gone.
    pub fn remove(&self, key: &Key) {
        self.set.lock().remove(key);
    }

    /// Runs until `stop`. `wake` is called with each revision whose desired scale changed; it must be quick.
    pub async fn run(
        &self,
        mut reports: mpsc::Receiver<Report>,
        wake: impl Fn(Key),
        stop: CancellationToken,
    ) {
        let second = Duration::from_secs(1);
        let mut seconds = interval_at(self.epoch + second, second);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut batch = Vec::new();
        loop {
            batch.clear();
            tokio::select! {
                () = stop.cancelled() => return,
                // Cancel-safe: nothing is taken from the channel unless this branch wins.
                taken = reports.recv_many(&mut batch, REPORTS_PER_TURN_MAX), if !reports.is_closed() || !reports.is_empty() => {
                    let changed: Vec<Key> = {
                        let (mut set, now) = (self.set.lock(), self.now());
                        batch.drain(..).filter_map(|report| set.report(report, now)).collect()
                    };
                    tracing::trace!(taken, woken = changed.len(), "reports");
                    changed.into_iter().for_each(&wake);
                }
                _ = seconds.tick() => {
                    let changed = self.set.lock().second(self.now());
                    changed.into_iter().for_each(&wake);
                }
            }
        }
    }

    fn now(&self) -> Moment {
        Moment::new(self.epoch.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinglet_decide::feed::Source;

    use crate::autoscale::settings::Settings;

    /// With paused time the loop answers a poke in no time at all, and a decision falls on every other second.
    #[tokio::test(start_paused = true)]
    async fn a_poke_wakes_at_once() {
        let deciders = Deciders::new();
        let key = Key::new("default", "hello-00001");
        let request = Settings::default().request(0);
        assert_eq!(deciders.ensure(&key, request).desired, None);
        let (reports, receiver) = mpsc::channel(8);
        let (woken, mut wakes) = mpsc::channel(8);
        let stop = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "the test awaits or aborts it")]
        let running = tokio::spawn({
            let (deciders, stop) = (deciders.clone(), stop.clone());
            async move {
                deciders
                    .run(
                        receiver,
                        |key| woken.try_send(key).expect("room for a key"),
                        stop,
                    )
                    .await
            }
        });
        let began = Instant::now();
        reports
            .send(Report::Poke {
                revision: key.clone(),
                source: Source::itself("gateway"),
            })
            .await
            .unwrap();
        assert_eq!(wakes.recv().await, Some(key.clone()));
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(deciders.ensure(&key, request).desired, Some(1));
        // The pod comes, no more requests: back to zero one stable window later.
        deciders.ensure(&key, Settings::default().request(1));
        assert_eq!(wakes.recv().await, Some(key.clone()));
        assert_eq!(deciders.ensure(&key, request).desired, Some(0));
        assert!(
            (59..=62).contains(&began.elapsed().as_secs()),
            "{:?}",
            began.elapsed()
        );
        stop.cancel();
        running.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn seconds_go_on_when_nobody_reports_any_more() {
        let deciders = Deciders::new();
        let key = Key::new("default", "hello-00001");
        deciders.ensure(&key, Settings::default().request(1));
        let (reports, receiver) = mpsc::channel::<Report>(8);
        drop(reports);
        let (woken, mut wakes) = mpsc::channel(8);
        let stop = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "the test awaits or aborts it")]
        let running = tokio::spawn({
            let (deciders, stop) = (deciders.clone(), stop.clone());
            async move {
                deciders
                    .run(
                        receiver,
                        |key| woken.try_send(key).expect("room for a key"),
                        stop,
                    )
                    .await
            }
        });
        assert_eq!(wakes.recv().await, Some(key));
        stop.cancel();
        running.await.unwrap();
    }
}
