//! Asking again and again, and telling the pod's worker what is new.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::probe::check::{Answer, Target, ask};
use crate::probe::tally::{Tally, Verdict};
use crate::probe::{Plan, Purpose};

/// The first pause of an eager probe, and the longest.
const EAGER_PAUSE_MIN: Duration = Duration::from_millis(1);
const EAGER_PAUSE_MAX: Duration = Duration::from_millis(25);
/// An eager probe has failed this long before anybody is told (a program may take a moment to start).
const EAGER_PATIENCE: Duration = Duration::from_secs(2);
/// After this long without success an eager probe takes its time, too (spec 6.3.3).
const EAGER_LONGEST: Duration = Duration::from_secs(10);
const TIRED_PAUSE: Duration = Duration::from_millis(200);

/// What a probe found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The verdict changed.
    Verdict(Purpose, Verdict, String),
    /// A bad answer, for an Event.
    Complaint(Purpose, String),
    /// The program listens on loopback only.
    OnlyInside(u16),
}

/// Runs until dropped; tells `findings` through `tell`.
pub(crate) async fn run<T: Send + 'static>(
    plan: Plan,
    target: Target,
    findings: mpsc::Sender<T>,
    tell: impl Fn(Finding) -> T + Send,
) {
    tokio::time::sleep(plan.delay).await;
    let mut tally = Tally::new(plan.successes, plan.failures);
    let mut inside_told = false;
    let began = Instant::now();
    let mut told_at: Option<Instant> = None;
    let mut pause = EAGER_PAUSE_MIN;
    loop {
        let hurrying = plan.eager && !tally.passed();
        let answer = ask_all(&plan, &target).await;
        let mut news = Vec::new();
        match answer {
            Answer::Good { only_inside } => {
                if let Some(port) = only_inside
                    && !inside_told
                {
                    inside_told = true;
                    news.push(Finding::OnlyInside(port));
                }
                if let Some(verdict) = tally.count(true) {
                    news.push(Finding::Verdict(plan.purpose, verdict, String::new()));
                }
            }
            Answer::Bad(message) => {
                let now = Instant::now();
                // A probe in a hurry fails hundreds of times before a program listens; that is no news, and no verdict.
                let patient = hurrying
                    && now
                        < told_at.unwrap_or(began)
                            + if told_at.is_some() {
                                plan.period
                            } else {
                                EAGER_PATIENCE
                            };
                if !patient {
                    told_at = Some(now);
                    news.push(Finding::Complaint(plan.purpose, message.clone()));
                    if let Some(verdict) = tally.count(false) {
                        news.push(Finding::Verdict(plan.purpose, verdict, message));
                    }
                }
            }
        }
        for one in news {
            if findings.send(tell(one)).await.is_err() {
                return;
            }
        }
        if plan.purpose == Purpose::Startup && tally.passed() {
            return;
        }
        if plan.eager && !tally.passed() {
            tokio::time::sleep(pause).await;
            pause = if began.elapsed() > EAGER_LONGEST {
                TIRED_PAUSE
            } else {
                (pause * 3 / 2).min(EAGER_PAUSE_MAX)
            };
        } else {
            pause = EAGER_PAUSE_MIN;
            tokio::time::sleep(plan.period).await;
        }
    }
}

async fn ask_all(plan: &Plan, target: &Target) -> Answer {
    let mut inside = None;
    for question in &plan.questions {
        match ask(target, question, plan.from_inside, plan.timeout).await {
            Answer::Good { only_inside } => inside = inside.or(only_inside),
            bad @ Answer::Bad(_) => return bad,
        }
    }
    Answer::Good {
        only_inside: inside,
    }
}
