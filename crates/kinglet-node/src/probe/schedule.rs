//! Running a probe again and again, and telling the pod's worker what is new.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::probe::prober::{ProbeResult, ProbeTarget, Success, probe_once};
use crate::probe::thresholds::{Outcome, Thresholds};
use crate::probe::{ProbeSpec, ProbeType};

/// The first pause between attempts in a hurry, and the longest.
const EAGER_PAUSE_MIN: Duration = Duration::from_millis(1);
const EAGER_PAUSE_MAX: Duration = Duration::from_millis(25);
/// An eager probe has failed this long before anybody is told (a program may take a moment to start).
const EAGER_PATIENCE: Duration = Duration::from_secs(2);
/// After this long without success attempts in a hurry take their time, too (spec 6.3.3).
const EAGER_LONGEST: Duration = Duration::from_secs(10);
const TIRED_PAUSE: Duration = Duration::from_millis(200);

/// What a probe found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProbeEvent {
    /// The outcome changed.
    Outcome {
        probe_type: ProbeType,
        outcome: Outcome,
        message: String,
        /// What the container is given to end, when the probe says so itself.
        grace: Option<Duration>,
    },
    /// An attempt failed.
    Failure(ProbeType, String),
    /// An attempt passed, with a warning.
    Warning(ProbeType, String),
    /// The program listens on loopback only.
    LoopbackOnly(u16),
}

/// Makes one attempt.
type Attempt<'a> = dyn Fn() -> BoxFuture<'a, ProbeResult> + Send + Sync + 'a;

/// Pauses that grow from a millisecond, and are long once nothing has come of it for a while.
struct Hurry {
    began: Instant,
    pause: Duration,
}

impl Hurry {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            pause: EAGER_PAUSE_MIN,
        }
    }

    async fn pause(&mut self) {
        tokio::time::sleep(self.pause).await;
        self.pause = if self.began.elapsed() > EAGER_LONGEST {
            TIRED_PAUSE
        } else {
            (self.pause * 3 / 2).min(EAGER_PAUSE_MAX)
        };
    }
}

/// Runs until dropped; sends events as `tell` wraps them.
pub(crate) async fn run<T: Send + 'static>(
    spec: ProbeSpec,
    target: ProbeTarget,
    events: mpsc::Sender<T>,
    tell: impl Fn(ProbeEvent) -> T + Send,
) {
    let attempt = || probe_all(&spec, &target).boxed();
    repeat(&spec, &attempt, &events, tell).await;
}

/// [`run`] with the attempt as a function.
async fn repeat<'a, T: Send + 'static>(
    spec: &ProbeSpec,
    attempt: &Attempt<'a>,
    events: &mpsc::Sender<T>,
    tell: impl Fn(ProbeEvent) -> T + Send,
) {
    tokio::time::sleep(spec.delay).await;
    let mut findings = Findings::new(spec);
    let mut hurry = Hurry::new();
    // A container that has had no time to listen is not counted as failed, unless its Pod says how long that takes.
    let mut may_be_starting = spec.delay.is_zero() && !spec.eager;
    loop {
        let attempt_began = Instant::now();
        let result = if may_be_starting {
            until_answered(attempt, attempt_began + spec.period).await
        } else {
            attempt().await
        };
        may_be_starting &= matches!(result, ProbeResult::Refused(_));
        for one in findings.take(result) {
            if events.send(tell(one)).await.is_err() {
                return;
            }
        }
        let has_passed = findings.thresholds.passed();
        if spec.probe_type == ProbeType::Startup && has_passed {
            return;
        }
        if spec.eager && !has_passed {
            hurry.pause().await;
        } else {
            hurry = Hurry::new();
            // Attempts begin a period apart; one that took longer is followed at once, but never without a breath.
            let next = (attempt_began + spec.period).max(Instant::now() + EAGER_PAUSE_MIN);
            tokio::time::sleep_until(next).await;
        }
    }
}

/// What the attempts so far have shown.
struct Findings<'a> {
    spec: &'a ProbeSpec,
    thresholds: Thresholds,
    began: Instant,
    /// When a failure was told last.
    told_at: Option<Instant>,
    loopback_told: bool,
}

impl<'a> Findings<'a> {
    fn new(spec: &'a ProbeSpec) -> Self {
        Self {
            spec,
            thresholds: Thresholds::new(spec.successes, spec.failures),
            began: Instant::now(),
            told_at: None,
            loopback_told: false,
        }
    }

    /// What is new after one more result.
    fn take(&mut self, result: ProbeResult) -> Vec<ProbeEvent> {
        let probe_type = self.spec.probe_type;
        match result {
            ProbeResult::Success(Success {
                loopback_only,
                warning,
            }) => {
                let port = loopback_only.filter(|_| !self.loopback_told);
                self.loopback_told |= port.is_some();
                let loopback = port.map(ProbeEvent::LoopbackOnly);
                let warning = warning.map(|warning| ProbeEvent::Warning(probe_type, warning));
                let outcome = self.count(true, String::new());
                loopback.into_iter().chain(warning).chain(outcome).collect()
            }
            ProbeResult::Failure(message) | ProbeResult::Refused(message) => {
                // An eager probe fails hundreds of times before a program listens; that is no news, and no outcome.
                let patient_until = match self.told_at {
                    Some(told_at) => told_at + self.spec.period,
                    None => self.began + EAGER_PATIENCE,
                };
                let (now, eager) = (Instant::now(), self.spec.eager && !self.thresholds.passed());
                if eager && now < patient_until {
                    return Vec::new();
                }
                self.told_at = Some(now);
                let failure = ProbeEvent::Failure(probe_type, message.clone());
                let outcome = self.count(false, message);
                std::iter::once(failure).chain(outcome).collect()
            }
        }
    }

    fn count(&mut self, good: bool, message: String) -> Option<ProbeEvent> {
        let outcome = self.thresholds.count(good)?;
        Some(ProbeEvent::Outcome {
            probe_type: self.spec.probe_type,
            outcome,
            message,
            grace: self.spec.grace,
        })
    }
}

/// One attempt that lasts until somebody answers, at the longest until `deadline`.
async fn until_answered(attempt: &Attempt<'_>, deadline: Instant) -> ProbeResult {
    let mut hurry = Hurry::new();
    loop {
        let result = attempt().await;
        if !matches!(result, ProbeResult::Refused(_)) || Instant::now() >= deadline {
            return result;
        }
        hurry.pause().await;
    }
}

async fn probe_all(spec: &ProbeSpec, target: &ProbeTarget) -> ProbeResult {
    let mut all = Success::default();
    for action in &spec.actions {
        match probe_once(target, action, spec.from_inside, spec.timeout).await {
            ProbeResult::Success(one) => {
                all.loopback_only = all.loopback_only.or(one.loopback_only);
                all.warning = all.warning.or(one.warning);
            }
            failed => return failed,
        }
    }
    ProbeResult::Success(all)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::probe::spec;

    /// A probe as its container has it.
    fn probe(value: serde_json::Value) -> ProbeSpec {
        let container = serde_json::from_value(value).expect("container");
        spec::of(&container).expect("probes").remove(0)
    }

    /// Outcomes with the seconds at which they came, for results by the second in which they are asked for.
    async fn outcomes(
        spec: ProbeSpec,
        seconds: u64,
        result: impl Fn(u64) -> ProbeResult + Send + Sync,
    ) -> (Vec<(u64, Outcome)>, usize) {
        let (sender, mut events) = mpsc::channel(1024);
        let began = Instant::now();
        let failures = AtomicUsize::new(0);
        let attempt = || std::future::ready(result(began.elapsed().as_secs())).boxed();
        let running = repeat(&spec, &attempt, &sender, |event| {
            (began.elapsed().as_secs(), event)
        });
        let _ = tokio::time::timeout(Duration::from_secs(seconds), running).await;
        drop(sender);
        let mut found = Vec::new();
        while let Some((at, event)) = events.recv().await {
            match event {
                ProbeEvent::Outcome { outcome, .. } => found.push((at, outcome)),
                ProbeEvent::Failure(..) => {
                    failures.fetch_add(1, Ordering::SeqCst);
                }
                ProbeEvent::Warning(..) | ProbeEvent::LoopbackOnly(_) => {}
            }
        }
        (found, failures.into_inner())
    }

    fn listens_from(second: u64) -> impl Fn(u64) -> ProbeResult + Send + Sync {
        move |now| {
            if now < second {
                ProbeResult::Refused("connection refused".to_owned())
            } else {
                ProbeResult::Success(Success::default())
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_startup_probe_that_may_fail_once_waits_for_the_program() {
        let once = || {
            probe(
                serde_json::json!({"name": "c", "startupProbe": {"tcpSocket": {"port": 1}, "periodSeconds": 240, "timeoutSeconds": 240, "failureThreshold": 1}}),
            )
        };
        let (found, failures) = outcomes(once(), 1000, listens_from(30)).await;
        assert_eq!((found, failures), (vec![(30, Outcome::Succeeded)], 0));
        let (found, _) = outcomes(once(), 300, listens_from(9999)).await;
        assert_eq!(found, vec![(240, Outcome::Failed)]);
        // An answer counts at once.
        let (found, _) = outcomes(once(), 300, |_| ProbeResult::Failure("503".to_owned())).await;
        assert_eq!(found, vec![(0, Outcome::Failed)]);
    }

    #[tokio::test(start_paused = true)]
    async fn liveness_counts_refusals_once_the_program_has_answered() {
        let liveness = probe(
            serde_json::json!({"name": "c", "livenessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": 2, "failureThreshold": 2}}),
        );
        let (found, _) = outcomes(liveness, 60, |now| {
            if (5..20).contains(&now) {
                ProbeResult::Success(Success::default())
            } else {
                ProbeResult::Refused("refused".to_owned())
            }
        })
        .await;
        assert_eq!(
            found[0].1,
            Outcome::Failed,
            "four seconds of refusals are two periods"
        );
        let later: Vec<Outcome> = found.iter().map(|(_, outcome)| *outcome).collect();
        assert_eq!(
            later,
            [Outcome::Failed, Outcome::Succeeded, Outcome::Failed]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_says_how_long_starting_takes() {
        let delayed = probe(
            serde_json::json!({"name": "c", "livenessProbe": {"tcpSocket": {"port": 1}, "initialDelaySeconds": 5, "periodSeconds": 10, "failureThreshold": 1}}),
        );
        let (found, _) = outcomes(delayed, 60, listens_from(9999)).await;
        assert_eq!(found, vec![(5, Outcome::Failed)]);
    }
}
