//! Tasks with an owner: named, cancelled together, waited for.
//!
//! Three kinds: a component whose end ends the process ([`Tasks::component`]), one that is made again
//! ([`Tasks::restarted`]), and the work of one connection, request, pod or key, whose panic is its own end
//! ([`Tasks::spawn`]).
//! Always: a future is boxed before it is wrapped. Each `async` block that a future is handed to has room for it twice (as
//! what it captured, and as what it awaits), so a connection of 6 kB would be a task of 25.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::supervise::{Fault, Panic, RESTARTS_MAX, RESTARTS_WITHIN, Restarts, Supervisor, caught};

/// Owns the tasks of one component. Cheap to clone; clones share the same tasks.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
    supervisor: Supervisor,
}

impl Tasks {
    /// A fresh group.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same group, whose components, and those of its children from now on, are known to `supervisor`.
    pub fn supervised_by(mut self, supervisor: &Supervisor) -> Self {
        self.supervisor = supervisor.clone();
        self
    }

    /// A group of its own that is also cancelled when this one is.
    pub fn child(&self) -> Self {
        Self {
            tracker: TaskTracker::new(),
            token: self.token.child_token(),
            supervisor: self.supervisor.clone(),
        }
    }

    /// A group under the same supervisor that outlives this one: somebody else cancels it.
    pub fn beside(&self) -> Self {
        Self::new().supervised_by(&self.supervisor)
    }

    /// Cancelled when the group must stop; long loops select on it.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Runs the component `name`. If it ends or panics before the group is cancelled, the process must stop: see
    /// [`Supervisor::failed`].
    pub fn component<F>(&self, name: &'static str, run: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (token, supervisor) = (self.token.clone(), self.supervisor.clone());
        supervisor.started(name);
        let run = Box::pin(run);
        self.tracker.spawn(async move {
            let why = life(&supervisor, name, run).await;
            if token.is_cancelled() || supervisor.is_stopping() {
                supervisor.ended(name);
                log_if_panic(name, &why);
                return;
            }
            tracing::error!(component = name, backtrace = %why.backtrace, "{name} {}", why.message);
            supervisor.fail(Fault {
                component: name,
                message: why.message,
                backtrace: why.backtrace,
            });
        })
    }

    /// Runs the component `name` and drops it as soon as the group is cancelled.
    pub fn component_cancellable<F>(&self, name: &'static str, run: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.token.clone();
        let mut run = Box::pin(run);
        self.component(name, async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = &mut run => {}
            }
        })
    }

    /// Runs the component that `make` makes. If it ends or panics before the group is cancelled, it is made again within
    /// a second; too many times within a minute, and the process must stop.
    pub fn restarted<F, M>(&self, name: &'static str, mut make: M) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
        M: FnMut() -> F + Send + 'static,
    {
        let (token, supervisor) = (self.token.clone(), self.supervisor.clone());
        supervisor.started(name);
        self.tracker.spawn(async move {
            let mut restarts = Restarts::default();
            loop {
                let why = life(&supervisor, name, async { make().await }).await;
                if token.is_cancelled() || supervisor.is_stopping() {
                    supervisor.ended(name);
                    log_if_panic(name, &why);
                    return;
                }
                let Some(pause) = restarts.next(Instant::now()) else {
                    let within = RESTARTS_WITHIN.as_secs();
                    supervisor.fail(Fault {
                        component: name,
                        message: format!(
                            "{}, and again after {RESTARTS_MAX} restarts within {within} s",
                            why.message
                        ),
                        backtrace: why.backtrace,
                    });
                    return;
                };
                tracing::error!(component = name, backtrace = %why.backtrace, "{name} {}; it is started again", why.message);
                supervisor.interrupted(name, &why.message);
                tokio::select! {
                    () = token.cancelled() => return supervisor.given_up(name),
                    () = tokio::time::sleep(pause) => supervisor.restarted(name),
                }
            }
        })
    }

    /// Runs `future` until it ends by itself; it should watch [`Tasks::token`]. A panic is its own end, and logged.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.token.clone();
        let future = Box::pin(future);
        self.tracker.spawn(async move {
            match caught(future).await {
                Ok(()) if token.is_cancelled() => {}
                Ok(()) => tracing::debug!(task = name, "task ended"),
                Err(panic) => {
                    tracing::error!(task = name, backtrace = %panic.backtrace, "{name} {}", panic.message);
                }
            }
        })
    }

    /// Runs `future` and drops it as soon as the group is cancelled.
    pub fn spawn_cancellable<F>(&self, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.token.clone();
        let mut future = Box::pin(future);
        self.spawn(name, async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = &mut future => {}
            }
        })
    }

    /// Asks every task to stop, without waiting.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Cancels and waits; `false` when tasks were still running after `grace`.
    pub async fn shutdown(&self, grace: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait())
            .await
            .is_ok()
    }
}

/// Runs one life of a component. Answers with why it is over.
async fn life(supervisor: &Supervisor, name: &'static str, run: impl Future<Output = ()>) -> Panic {
    let run = async {
        tokio::select! {
            () = run => {}
            () = supervisor.injected_panic(name) => {}
        }
    };
    match caught(run).await {
        Ok(()) => Panic {
            message: "ended by itself".to_owned(),
            backtrace: String::new(),
        },
        Err(panic) => panic,
    }
}

/// Says that a component panicked while it was being stopped.
fn log_if_panic(name: &'static str, why: &Panic) {
    if !why.backtrace.is_empty() {
        tracing::error!(component = name, backtrace = %why.backtrace, "{name} {} while it was being stopped", why.message);
    }
}
