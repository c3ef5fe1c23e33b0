//! Asks gateways in other processes, again and again, until each serves what an Ingress says.
//!
//! Flow: [`Prober::standing`] begins a set of probes (every gateway there is × every host) -> [`schedule`] says which is
//! due -> answers -> [`verdict`] -> the Ingress is queued when the last one is ready.
//! Always: a new hash cancels the set before; a gateway that leaves counts as done, unless it was the last; what is
//! ready is not asked again.

mod schedule;
mod verdict;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use kinglet_decide::feed::Key;
use kinglet_reconcile::{Context, Queue};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::gateways::{ProbeAnswer, Probed};
use schedule::{Item, RateLimit, Schedule};
pub(super) use schedule::{Standing, Target};
use verdict::verdict;

/// Probes at once (Knative's).
const WORKERS: usize = 15;
/// One probe's time (Knative's).
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Probes the gateways for all Ingresses. Cheap to clone.
#[derive(Clone)]
pub(super) struct Prober(Arc<Shared>);

struct Shared {
    schedule: Mutex<Schedule>,
    changed: Notify,
}

impl Prober {
    /// Starts probing; an Ingress whose standing has changed is put into `queue`.
    pub(super) fn start(context: &Context, probed: Probed, queue: Queue) -> Self {
        let schedule = Schedule::new(probed.addresses.borrow().clone());
        let this = Self(Arc::new(Shared {
            schedule: Mutex::new(schedule),
            changed: Notify::new(),
        }));
        let prober = this.clone();
        context
            .tasks()
            .component_cancellable("ingress-prober", async move {
                prober.run(probed, &queue).await;
            });
        this
    }

    /// Where an Ingress stands with the gateways. The first time for a `hash`, they begin to be asked.
    pub(super) fn standing(&self, key: &Key, hash: &str, targets: &[Target]) -> Standing {
        let now = Instant::now();
        let (standing, began) = self.0.schedule.lock().standing(key, hash, targets, now);
        if began {
            self.0.changed.notify_one();
        }
        standing
    }

    /// Forgets an Ingress.
    pub(super) fn forget(&self, key: &Key) {
        self.0.schedule.lock().forget(key);
    }

    async fn run(&self, mut probed: Probed, queue: &Queue) {
        let mut running = FuturesUnordered::new();
        let mut limit = RateLimit::full(Instant::now());
        loop {
            let now = Instant::now();
            let mut next = None;
            while running.len() < WORKERS {
                let mut schedule = self.0.schedule.lock();
                next = schedule.next_at().map(|at| at.max(limit.next_at(now)));
                if next.is_none_or(|at| at > now) {
                    break;
                }
                let Some(item) = schedule.take() else { break };
                limit.take(now);
                running.push(ask(&probed, item));
                next = None;
            }
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some((item, answer)) = running.next() => {
                    let judged = verdict(&answer, &item.hash);
                    let key = self.0.schedule.lock().answered(item, judged, Instant::now());
                    key.into_iter().for_each(|key| queue.add(key));
                }
                () = due => {}
                () = self.0.changed.notified() => {}
                Ok(()) = probed.addresses.changed() => {
                    let addresses = probed.addresses.borrow_and_update().clone();
                    for key in self.0.schedule.lock().moved(addresses) {
                        queue.add(key);
                    }
                }
            }
        }
    }
}

fn ask(probed: &Probed, item: Item) -> impl Future<Output = (Item, ProbeAnswer)> + use<> {
    let probe = Arc::clone(&probed.probe);
    async move {
        let asked = probe.probe(item.at, &item.target.host, item.target.tls);
        let answer = match tokio::time::timeout(PROBE_TIMEOUT, asked).await {
            Ok(answer) => answer,
            Err(_) => ProbeAnswer::Unreachable("no answer within 1 s".to_owned()),
        };
        (item, answer)
    }
}
