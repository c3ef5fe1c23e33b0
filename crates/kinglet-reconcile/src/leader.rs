//! Leadership: of several replicas of a component one works on a key, the others keep warm caches.
//!
//! The keys are divided among buckets, and each bucket is led by whoever holds its Lease. Whoever holds a Lease renews it;
//! who wants it waits until it has not changed for its whole duration by his own clock, so clocks need not agree.
//! Always: leadership ends by itself at the renew deadline after the last renewal began, whatever the API server does
//! meanwhile, and that is before any other replica may take the Lease.
//! Price: a write that was sent before leadership ended may arrive afterwards; it loses on its resourceVersion.
//! Standalone there is one process, which always leads.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::buckets::Buckets;
use crate::context::Context;
use crate::error::ReconcileError;
use crate::object::Key;

/// How long giving a Lease back may take when the process stops. Whoever wants it waits its duration otherwise.
const RESIGN_MAX: Duration = Duration::from_secs(2);

/// Which keys this process may work on, as it changes. Cheap to clone.
#[derive(Clone)]
pub struct Leadership(Option<Arc<Election>>);

struct Election {
    buckets: Buckets,
    /// For each bucket, until when it is led; it ends by itself.
    until: Mutex<Vec<Option<Instant>>>,
    gained: watch::Sender<u64>,
}

impl fmt::Debug for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("Leadership(always)"),
            Some(election) => write!(f, "Leadership({:?})", election.buckets),
        }
    }
}

impl Leadership {
    /// One that is never lost.
    pub fn always() -> Self {
        Self(None)
    }

    /// Stands for every bucket as a component of the context's tasks; the Leases are given back when the tasks are
    /// cancelled.
    pub fn campaign(context: &Context, buckets: Buckets) -> Self {
        let election = Arc::new(Election {
            until: Mutex::new(vec![None; buckets.count()]),
            buckets,
            gained: watch::Sender::new(0),
        });
        let leadership = Self(Some(Arc::clone(&election)));
        // The Leases themselves are written by whoever can.
        let context = context.led_by(Self::always());
        let tasks = context.tasks().clone();
        tasks.component("leader-election", async move {
            let all = (0..election.buckets.count())
                .map(|bucket| Standing::new(&context, &election, bucket).run());
            join_all(all).await;
        });
        leadership
    }

    /// Whether this process may work on the key now.
    pub fn owns(&self, key: &Key) -> bool {
        self.0
            .as_deref()
            .is_none_or(|election| election.leads(election.buckets.of(key)))
    }

    /// Whether this process may work on every key now.
    pub fn owns_all(&self) -> bool {
        self.0
            .as_deref()
            .is_none_or(|election| (0..election.buckets.count()).all(|it| election.leads(it)))
    }

    /// Counts the buckets gained so far. After each gain everything in the bucket must be looked at: what changed before
    /// was left to another replica, which may not have come to it.
    pub fn gained(&self) -> watch::Receiver<u64> {
        match &self.0 {
            Some(election) => election.gained.subscribe(),
            None => watch::Sender::new(0).subscribe(),
        }
    }
}

impl Election {
    fn leads(&self, bucket: usize) -> bool {
        let until = self.until.lock().get(bucket).copied().flatten();
        until.is_some_and(|until| until > Instant::now())
    }

    /// The Lease was written by a call that began at `began`.
    fn renewed(&self, bucket: usize, began: Instant) {
        let until = began + self.buckets.timing.renew_deadline;
        let now = Instant::now();
        let led_before = {
            let mut all = self.until.lock();
            all.get_mut(bucket)
                .and_then(|known| known.replace(until))
                .is_some_and(|known| known > now)
        };
        if !led_before && until > now {
            tracing::info!(lease = %self.buckets.lease(bucket), identity = %self.buckets.identity, "leading");
            self.gained.send_modify(|count| *count += 1);
        }
    }

    fn step_down(&self, bucket: usize) -> bool {
        let mut all = self.until.lock();
        all.get_mut(bucket)
            .and_then(Option::take)
            .is_some_and(|until| until > Instant::now())
    }
}

/// One replica's standing for one bucket: what was last seen of the Lease, and when by our clock.
struct Standing<'a> {
    context: &'a Context,
    election: &'a Election,
    bucket: usize,
    lease: Key,
    seen: Option<(String, String)>,
    seen_at: Instant,
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

impl<'a> Standing<'a> {
    fn new(context: &'a Context, election: &'a Election, bucket: usize) -> Self {
        Self {
            context,
            election,
            bucket,
            lease: election.buckets.lease(bucket),
            seen: None,
            seen_at: Instant::now(),
        }
    }

    async fn run(mut self) {
        let stop = self.context.tasks().token();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.stand() => {}
            }
        }
        // Nothing is worked on any more when another replica may take the Lease.
        if self.election.step_down(self.bucket) {
            let _ = timeout(RESIGN_MAX, self.resign()).await;
        }
    }

    /// One try and the pause after it.
    async fn stand(&mut self) {
        let began = Instant::now();
        let period = self.election.buckets.timing.retry_period;
        // A call that hangs must not keep us from trying again; leadership ends by itself meanwhile.
        match timeout(period, self.attempt()).await {
            Ok(Ok(true)) => self.election.renewed(self.bucket, began),
            Ok(Ok(false)) => {
                if self.election.step_down(self.bucket) {
                    tracing::warn!(lease = %self.lease, identity = %self.election.buckets.identity, "no longer leading");
                }
            }
            Ok(Err(error)) => {
                tracing::debug!(lease = %self.lease, error = %error, "leader election failed, trying again");
            }
            Err(_) => {
                tracing::debug!(lease = %self.lease, "the API server did not answer in time, trying again");
            }
        }
        sleep(period.saturating_sub(began.elapsed())).await;
    }

    /// Whether the Lease is ours now.
    async fn attempt(&mut self) -> Result<bool, ReconcileError> {
        let found = match self.context.read::<Lease>(&self.lease).await {
            Ok(lease) => Some(lease),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let version = found
            .as_ref()
            .and_then(|lease| lease.metadata.resource_version.clone())
            .unwrap_or_default();
        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
        let holder = spec.and_then(|spec| spec.holder_identity.clone());
        let seen = (version, holder.unwrap_or_default());
        if self.seen.as_ref() != Some(&seen) {
            self.seen = Some(seen);
            self.seen_at = Instant::now();
        }
        let buckets = &self.election.buckets;
        let Move::Hold {
            transitions,
            acquired,
        } = decide(spec, &buckets.identity, self.seen_at.elapsed())
        else {
            return Ok(false);
        };
        let desired = held(
            &self.lease,
            buckets,
            transitions,
            acquired,
            self.context.now(),
        );
        let written = match &found {
            Some(lease) => self.context.update(&**lease, &desired).await.map(|_| ()),
            None => self.context.create(&desired).await.map(|_| ()),
        };
        match written {
            Ok(()) => Ok(true),
            // Somebody was faster, or an earlier try of ours arrived after all: the next look tells.
            Err(error) if error.is_stale() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn resign(&self) {
        let Ok(lease) = self.context.read::<Lease>(&self.lease).await else {
            return;
        };
        let mut desired = (*lease).clone();
        let spec = desired.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&*self.election.buckets.identity) {
            return;
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        if let Err(error) = self.context.update(&*lease, &desired).await {
            tracing::debug!(lease = %self.lease, error = %error, "the lease could not be given back");
        }
    }
}

fn held(
    lease: &Key,
    buckets: &Buckets,
    transitions: i32,
    acquired: Option<MicroTime>,
    now: Timestamp,
) -> Lease {
    let seconds = buckets.timing.lease_duration.as_secs();
    Lease {
        metadata: ObjectMeta {
            name: Some(lease.name.to_string()),
            namespace: Some(lease.namespace.to_string()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(buckets.identity.to_string()),
            lease_duration_seconds: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
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
