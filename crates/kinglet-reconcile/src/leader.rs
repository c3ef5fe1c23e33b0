//! Leadership: of several replicas of a component one works, the others wait with warm caches.
//!
//! The lock is a Lease. Whoever holds it renews it; who wants it waits until it has not changed for its whole duration by
//! his own clock, so clocks need not agree. A leader that cannot renew in time stops before another may start; a write of
//! its last reconcile that comes late loses on its resourceVersion. Standalone there is one process, which always leads.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::context::Context;
use crate::error::ReconcileError;
use crate::object::Key;

/// Whether this process may work, as it changes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<bool>);

/// How a component campaigns. The durations are Knative's defaults (`config-leader-election`).
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The Lease.
    pub lease: Key,
    /// Who we are: different in each replica.
    pub identity: String,
    /// How long a Lease that is not renewed is respected.
    pub lease_duration: Duration,
    /// How long a leader tries to renew before it stops.
    pub renew_deadline: Duration,
    /// How often it is tried.
    pub retry_period: Duration,
}

impl Campaign {
    /// A campaign with Knative's durations.
    pub fn new(lease: Key, identity: impl Into<String>) -> Self {
        Self {
            lease,
            identity: identity.into(),
            lease_duration: Duration::from_secs(60),
            renew_deadline: Duration::from_secs(40),
            retry_period: Duration::from_secs(10),
        }
    }
}

impl Leadership {
    /// One that is never lost.
    pub fn always() -> Self {
        Self(watch::Sender::new(true).subscribe())
    }

    /// Starts a campaign as a task of the context; the Lease is given back when the tasks are cancelled.
    pub fn campaign(context: &Context, campaign: Campaign) -> Self {
        let sender = watch::Sender::new(false);
        let leadership = Self(sender.subscribe());
        let (context, stop) = (context.clone(), context.tasks().token());
        context
            .tasks()
            .clone()
            .spawn("leader election", async move {
                let mut standing = Standing {
                    seen: None,
                    seen_at: Instant::now(),
                    renewed_at: None,
                };
                loop {
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = standing.stand(&context, &campaign, &sender) => {}
                    }
                }
                if *sender.borrow() {
                    standing.resign(&context, &campaign).await;
                }
                sender.send_replace(false);
            });
        leadership
    }

    /// Whether this process leads now.
    pub fn is_leader(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until this process leads.
    pub async fn lead(&mut self) {
        // A sender that is gone was the one that always leads, or the process is ending.
        let _ = self.0.wait_for(|leads| *leads).await;
    }
}

/// What was last seen of the Lease, and when by our clock.
struct Standing {
    seen: Option<(String, String)>,
    seen_at: Instant,
    renewed_at: Option<Instant>,
}

/// What to do with the Lease.
#[derive(Debug, PartialEq, Eq)]
enum Move {
    /// Nobody holds it, or it is ours: write it.
    Hold {
        transitions: i32,
        acquired: Option<MicroTime>,
    },
    /// Somebody holds it.
    Wait,
}

fn decide(spec: Option<&LeaseSpec>, identity: &str, unchanged_for: Duration) -> Move {
    let Some(spec) = spec else {
        return Move::Hold {
            transitions: 0,
            acquired: None,
        };
    };
    let holder = spec.holder_identity.as_deref().unwrap_or("");
    let transitions = spec.lease_transitions.unwrap_or(0);
    if holder == identity {
        return Move::Hold {
            transitions,
            acquired: spec.acquire_time.clone(),
        };
    }
    let respected = Duration::from_secs(
        spec.lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .unwrap_or(0),
    );
    if holder.is_empty() || unchanged_for >= respected {
        return Move::Hold {
            transitions: transitions.saturating_add(1),
            acquired: None,
        };
    }
    Move::Wait
}

impl Standing {
    async fn stand(
        &mut self,
        context: &Context,
        campaign: &Campaign,
        sender: &watch::Sender<bool>,
    ) {
        match self.attempt(context, campaign).await {
            Ok(true) => {
                self.renewed_at = Some(Instant::now());
                if !sender.send_replace(true) {
                    tracing::info!(lease = %campaign.lease, identity = campaign.identity, "leading");
                }
            }
            Ok(false) => self.step_down(campaign, sender),
            Err(error) => {
                tracing::debug!(lease = %campaign.lease, error = %error, "leader election failed, trying again");
                let late = self
                    .renewed_at
                    .is_none_or(|at| at.elapsed() >= campaign.renew_deadline);
                if late {
                    self.step_down(campaign, sender);
                }
            }
        }
        sleep(campaign.retry_period).await;
    }

    fn step_down(&mut self, campaign: &Campaign, sender: &watch::Sender<bool>) {
        self.renewed_at = None;
        if sender.send_replace(false) {
            tracing::warn!(lease = %campaign.lease, identity = campaign.identity, "no longer leading");
        }
    }

    async fn attempt(
        &mut self,
        context: &Context,
        campaign: &Campaign,
    ) -> Result<bool, ReconcileError> {
        let found = match context.read::<Lease>(&campaign.lease).await {
            Ok(lease) => Some(lease),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let version = found
            .as_ref()
            .and_then(|lease| lease.metadata.resource_version.clone())
            .unwrap_or_default();
        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
        let seen = (
            version,
            spec.and_then(|spec| spec.holder_identity.clone())
                .unwrap_or_default(),
        );
        if self.seen.as_ref() != Some(&seen) {
            self.seen = Some(seen);
            self.seen_at = Instant::now();
        }
        let Move::Hold {
            transitions,
            acquired,
        } = decide(spec, &campaign.identity, self.seen_at.elapsed())
        else {
            return Ok(false);
        };
        let desired = held(campaign, transitions, acquired, context.now());
        let written = match &found {
            Some(lease) => context.update(&**lease, &desired).await.map(|_| ()),
            None => context.create(&desired).await.map(|_| ()),
        };
        match written {
            Ok(()) => Ok(true),
            // Somebody was faster.
            Err(error) if error.is_stale() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn resign(&self, context: &Context, campaign: &Campaign) {
        let Ok(lease) = context.read::<Lease>(&campaign.lease).await else {
            return;
        };
        let mut desired = (*lease).clone();
        let spec = desired.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&campaign.identity) {
            return;
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        if let Err(error) = context.update(&*lease, &desired).await {
            tracing::debug!(lease = %campaign.lease, error = %error, "the lease could not be given back");
        }
    }
}

fn held(
    campaign: &Campaign,
    transitions: i32,
    acquired: Option<MicroTime>,
    now: Timestamp,
) -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some(campaign.lease.name.to_string()),
            namespace: Some(campaign.lease.namespace.to_string()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(campaign.identity.clone()),
            lease_duration_seconds: Some(
                i32::try_from(campaign.lease_duration.as_secs()).unwrap_or(i32::MAX),
            ),
            acquire_time: Some(acquired.unwrap_or(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(holder: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(60),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_changes_hands_only_when_it_is_free_or_stale() {
        let hold = |transitions| Move::Hold {
            transitions,
            acquired: None,
        };
        let cases = [
            ("there is none", None, 0, hold(0)),
            ("it is ours", Some(spec("me")), 0, hold(3)),
            ("it was given back", Some(spec("")), 0, hold(4)),
            ("another renews it", Some(spec("you")), 59, Move::Wait),
            ("another has stopped", Some(spec("you")), 60, hold(4)),
        ];
        for (name, spec, seconds, expected) in cases {
            assert_eq!(
                decide(spec.as_ref(), "me", Duration::from_secs(seconds)),
                expected,
                "{name}"
            );
        }
    }
}
