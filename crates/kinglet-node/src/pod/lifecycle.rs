//! What a pod needs next: pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::pod::backoff;
use crate::pod::container_state::{ContainerState, Role, Stage, Terminated};

/// A pull that failed is shown as such for a moment, then as waiting for the next try (as a kubelet shows it).
pub(crate) const PULL_ERROR_SHOWN: Duration = Duration::from_secs(1);

/// When containers begin again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    pub(crate) fn parse(text: Option<&str>) -> Self {
        match text {
            Some("OnFailure") => Self::OnFailure,
            Some("Never") => Self::Never,
            _ => Self::Always,
        }
    }
}

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Next {
    /// Members to start.
    pub(crate) start: Vec<usize>,
    /// Nothing will run any more; whether all went well.
    pub(crate) finished: Option<bool>,
    /// Look again then, if nothing happens before.
    pub(crate) wake: Option<Timestamp>,
}

/// Decides from what is known about all containers.
pub(crate) fn next(states: &[ContainerState], policy: RestartPolicy, now: Timestamp) -> Next {
    let mut next = Next::default();
    for (index, state) in states
        .iter()
        .enumerate()
        .filter(|(_, state)| matches!(state.role, Role::Init | Role::Sidecar))
    {
        let sidecar = state.role == Role::Sidecar;
        let policy = if sidecar {
            RestartPolicy::Always
        } else {
            policy
        };
        match &state.stage {
            Stage::Terminated(terminated) if !sidecar && terminated.code == 0 => continue,
            Stage::Terminated(_) if policy == RestartPolicy::Never => {
                next.finished = Some(false);
                return next;
            }
            _ => consider(&mut next, index, state, policy_for_init(policy), now),
        }
        if !(sidecar && state.has_started()) {
            return next;
        }
    }
    let apps = || {
        states
            .iter()
            .enumerate()
            .filter(|(_, state)| matches!(state.role, Role::App | Role::Proxy))
    };
    for (index, state) in apps() {
        consider(&mut next, index, state, policy, now);
    }
    let mut all_terminated =
        apps()
            .filter(|(_, state)| state.role == Role::App)
            .map(|(_, state)| match &state.stage {
                Stage::Terminated(terminated) if !begins_again(policy, terminated) => {
                    Some(terminated.code == 0)
                }
                _ => None,
            });
    if let Some(well) = all_terminated.try_fold(true, |well, ended| ended.map(|good| well && good))
        && apps().any(|(_, state)| state.role == Role::App)
    {
        next.finished = Some(well);
        next.start.clear();
        next.wake = None;
    }
    next
}

/// An init container that failed is tried again unless the pod says never.
fn policy_for_init(policy: RestartPolicy) -> RestartPolicy {
    if policy == RestartPolicy::Never {
        RestartPolicy::Never
    } else {
        RestartPolicy::Always
    }
}

fn begins_again(policy: RestartPolicy, terminated: &Terminated) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => terminated.code != 0,
        RestartPolicy::Never => false,
    }
}

fn consider(
    next: &mut Next,
    index: usize,
    state: &ContainerState,
    policy: RestartPolicy,
    now: Timestamp,
) {
    let at = match &state.stage {
        Stage::Created => now,
        Stage::Starting | Stage::Running { .. } => return,
        Stage::StartFailed {
            until,
            since,
            reason,
            ..
        } => {
            let shown_until = later(*since, PULL_ERROR_SHOWN);
            if *reason == "ErrImagePull" && shown_until > now {
                wake(next, shown_until);
            }
            *until
        }
        Stage::Terminated(terminated) if begins_again(policy, terminated) => {
            restart_at(state, terminated)
        }
        Stage::Terminated(_) => return,
    };
    if at <= now {
        next.start.push(index);
    } else {
        wake(next, at);
    }
}

fn wake(next: &mut Next, at: Timestamp) {
    next.wake = Some(next.wake.map_or(at, |known| known.min(at)));
}

/// When an ended container begins again.
pub(crate) fn restart_at(state: &ContainerState, terminated: &Terminated) -> Timestamp {
    later(terminated.finished_at, backoff::after_crash(state.crashes))
}

pub(crate) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX))
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Container;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("time")
    }

    fn ended(code: i32, second: i64) -> Stage {
        Stage::Terminated(Terminated {
            code,
            signal: None,
            reason: if code == 0 { "Completed" } else { "Error" },
            message: String::new(),
            started_at: None,
            finished_at: at(second),
            container_id: String::new(),
        })
    }

    fn state(role: Role, stage: Stage) -> ContainerState {
        ContainerState {
            stage,
            crashes: 2,
            ..ContainerState::new(&Container::default(), role)
        }
    }

    fn running() -> Stage {
        Stage::Running { since: at(0) }
    }

    #[test]
    fn a_row_per_situation() {
        use RestartPolicy::{Always, Never, OnFailure};
        let start = |indexes: &[usize]| Next {
            start: indexes.to_vec(),
            ..Next::default()
        };
        let finished = |well| Next {
            finished: Some(well),
            ..Next::default()
        };
        let wake = |second| Next {
            wake: Some(at(second)),
            ..Next::default()
        };
        let failed = Stage::StartFailed {
            reason: "CreateContainerConfigError",
            message: String::new(),
            since: at(100),
            until: at(110),
        };
        let pull = Stage::StartFailed {
            reason: "ErrImagePull",
            message: String::new(),
            since: at(100),
            until: at(110),
        };
        let rows = [
            (
                "all begin together",
                vec![
                    state(Role::App, Stage::Created),
                    state(Role::Proxy, Stage::Created),
                ],
                Always,
                start(&[0, 1]),
            ),
            (
                "init first",
                vec![
                    state(Role::Init, Stage::Created),
                    state(Role::App, Stage::Created),
                ],
                Always,
                start(&[0]),
            ),
            (
                "init under way",
                vec![
                    state(Role::Init, running()),
                    state(Role::App, Stage::Created),
                ],
                Always,
                start(&[]),
            ),
            (
                "init done",
                vec![
                    state(Role::Init, ended(0, 1)),
                    state(Role::App, Stage::Created),
                ],
                Always,
                start(&[1]),
            ),
            (
                "init failed, never again",
                vec![
                    state(Role::Init, ended(1, 1)),
                    state(Role::App, Stage::Created),
                ],
                Never,
                finished(false),
            ),
            (
                "init failed, again after the back-off",
                vec![
                    state(Role::Init, ended(1, 95)),
                    state(Role::App, Stage::Created),
                ],
                OnFailure,
                wake(105),
            ),
            (
                "sidecar up",
                vec![
                    state(Role::Sidecar, running()),
                    state(Role::App, Stage::Created),
                ],
                Always,
                start(&[1]),
            ),
            (
                "sidecar not up",
                vec![
                    state(Role::Sidecar, Stage::Starting),
                    state(Role::App, Stage::Created),
                ],
                Always,
                start(&[]),
            ),
            (
                "crashed, waits",
                vec![state(Role::App, ended(1, 95)), state(Role::App, running())],
                Always,
                wake(105),
            ),
            (
                "crashed, waited",
                vec![state(Role::App, ended(1, 80)), state(Role::App, running())],
                Always,
                start(&[0]),
            ),
            (
                "ended well, always again",
                vec![state(Role::App, ended(0, 80))],
                Always,
                start(&[0]),
            ),
            (
                "ended well",
                vec![
                    state(Role::App, ended(0, 80)),
                    state(Role::Proxy, running()),
                ],
                OnFailure,
                finished(true),
            ),
            (
                "ended badly, never again",
                vec![
                    state(Role::App, ended(0, 80)),
                    state(Role::App, ended(3, 80)),
                ],
                Never,
                finished(false),
            ),
            (
                "one still runs",
                vec![state(Role::App, ended(0, 80)), state(Role::App, running())],
                Never,
                start(&[]),
            ),
            (
                "start failed",
                vec![state(Role::App, failed)],
                Always,
                wake(110),
            ),
            (
                "pull failed a moment ago",
                vec![state(Role::App, pull)],
                Always,
                wake(101),
            ),
        ];
        for (name, states, policy, expected) in rows {
            assert_eq!(next(&states, policy, at(100)), expected, "{name}");
        }
    }
}
