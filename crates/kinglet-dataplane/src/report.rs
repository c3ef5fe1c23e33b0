//! Once a second: statistics to the autoscaler, pokes that are due again, idle connections swept.
//!
//! When the channel is full a statistic is dropped, since the next one is better, and a poke is kept until it is
//! delivered, since a request waits for it.

use kinglet_decide::feed::Report;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, MissedTickBehavior};

use crate::plane::Plane;

/// Runs until dropped.
pub(crate) async fn run(plane: &Plane) {
    let context = &plane.context;
    let every = context.options.report_every;
    let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => report(plane),
            () = context.has_undelivered.notified() => {
                for key in context.take_undelivered() {
                    if context.reports().send(context.poke_of(key)).await.is_err() {
                        break; // nobody listens any more
                    }
                }
            }
        }
    }
}

fn report(plane: &Plane) {
    let measures = plane.measures.load_full();
    let mut measured = Vec::new();
    for breaker in plane.clusters.breakers() {
        let Some(stat) = breaker.tick() else { continue };
        if measures.is_some() {
            measured.push((breaker.key().clone(), stat));
        }
        match plane.context.reports().try_send(Report::Stat {
            revision: breaker.key().clone(),
            source: plane.context.options.source.clone(),
            stat,
        }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::debug!(revision = %breaker.key(), "statistics dropped, the autoscaler is behind")
            }
            // Nobody listens; the other breakers are swept all the same.
            Err(TrySendError::Closed(_)) => {}
        }
    }
    if let Some(measures) = measures {
        measures.second(measured.into_iter());
    }
}
