//! Supervision: what a component's end or panic means for the process (docs/decisions/0018).
//!
//! Flow: [`Tasks::component`](crate::Tasks::component) and [`Tasks::restarted`](crate::Tasks::restarted) run a component
//! and tell its [`Supervisor`] how it fares; the root waits for [`Supervisor::failed`] and stops the process; `status` and
//! `/readyz` read [`Supervisor::health`].
//! Always: a component that should run and does not is a [`Fault`] or is running again soon; there is no half-alive state.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// Before a component is made again for the first time; doubled each time, to [`RESTART_PAUSE_MAX`].
pub(crate) const RESTART_PAUSE: Duration = Duration::from_millis(100);
/// So that a component is back within a second.
pub(crate) const RESTART_PAUSE_MAX: Duration = Duration::from_millis(800);
/// A component that needs more restarts within [`RESTARTS_WITHIN`] does not recover by them.
pub(crate) const RESTARTS_MAX: usize = 10;
pub(crate) const RESTARTS_WITHIN: Duration = Duration::from_secs(60);

/// Knows every component of a process. Cheap to clone; clones are one.
#[derive(Clone, Debug, Default)]
pub struct Supervisor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// From now on a component that ends is not missed.
    stopping: AtomicBool,
    components: Mutex<BTreeMap<&'static str, State>>,
    fault: watch::Sender<Option<Arc<Fault>>>,
    #[cfg(debug_assertions)]
    injected: watch::Sender<Option<String>>,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            stopping: AtomicBool::new(false),
            components: Mutex::default(),
            fault: watch::Sender::new(None),
            #[cfg(debug_assertions)]
            injected: watch::Sender::new(None),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    running: u32,
    missing: u32,
    restarts: u32,
    last_fault: Option<String>,
}

/// Why a process cannot go on.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Name of the component.
    pub component: &'static str,
    /// Its panic, or that it ended.
    pub message: String,
    /// Where it panicked; empty when it ended without a panic.
    pub backtrace: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "component \"{}\" {}", self.component, self.message)
    }
}

/// How one component fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentHealth {
    /// Its name.
    pub name: &'static str,
    /// Whether every instance of it that should run does.
    pub running: bool,
    /// How often it was made again.
    pub restarts: u32,
    /// Why, the last time.
    pub last_fault: Option<String>,
}

impl Supervisor {
    /// One that knows no component yet. Panics keep their backtrace from now on.
    pub fn new() -> Self {
        keep_backtraces();
        Self::default()
    }

    /// Waits until a component has failed for good. The process must stop then.
    pub async fn failed(&self) -> Arc<Fault> {
        let mut fault = self.0.fault.subscribe();
        loop {
            if let Some(fault) = fault.borrow_and_update().clone() {
                return fault;
            }
            if fault.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The fault, if a component has failed for good.
    pub fn fault(&self) -> Option<Arc<Fault>> {
        self.0.fault.borrow().clone()
    }

    /// The process is being stopped: components end in whatever order that takes, and none of them is missed.
    pub fn begin_stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    /// All components, by name.
    pub fn health(&self) -> Vec<ComponentHealth> {
        let components = self.0.components.lock();
        components
            .iter()
            .map(|(name, state)| ComponentHealth {
                name,
                running: state.running > 0 && state.missing == 0,
                restarts: state.restarts,
                last_fault: state.last_fault.clone(),
            })
            .collect()
    }

    /// Makes the component `name` panic where it next waits: for tests of what happens then. Debug builds only.
    #[cfg(debug_assertions)]
    pub fn inject_panic(&self, name: &str) -> bool {
        let known = self.0.components.lock().contains_key(name);
        if known {
            self.0.injected.send_replace(Some(name.to_owned()));
        }
        known
    }

    pub(crate) fn started(&self, name: &'static str) {
        self.0.components.lock().entry(name).or_default().running += 1;
    }

    /// A component has ended because it was asked to.
    pub(crate) fn ended(&self, name: &'static str) {
        if let Some(state) = self.0.components.lock().get_mut(name) {
            state.running = state.running.saturating_sub(1);
        }
    }

    /// A component has ended and will be made again.
    pub(crate) fn interrupted(&self, name: &'static str, why: &str) {
        let mut components = self.0.components.lock();
        let state = components.entry(name).or_default();
        state.running = state.running.saturating_sub(1);
        state.missing += 1;
        state.last_fault = Some(why.to_owned());
    }

    /// A component that was interrupted runs again.
    pub(crate) fn restarted(&self, name: &'static str) {
        let mut components = self.0.components.lock();
        let state = components.entry(name).or_default();
        state.missing = state.missing.saturating_sub(1);
        state.running += 1;
        state.restarts = state.restarts.saturating_add(1);
    }

    /// A component that was interrupted is not needed any more.
    pub(crate) fn given_up(&self, name: &'static str) {
        if let Some(state) = self.0.components.lock().get_mut(name) {
            state.missing = state.missing.saturating_sub(1);
        }
    }

    /// A component has failed for good. The first one that did is the fault of the process.
    pub(crate) fn fail(&self, fault: Fault) {
        {
            let mut components = self.0.components.lock();
            let state = components.entry(fault.component).or_default();
            state.running = state.running.saturating_sub(1);
            state.missing += 1;
            state.last_fault = Some(fault.message.clone());
        }
        self.0.fault.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(Arc::new(fault));
            }
            is_first
        });
    }

    /// Panics when [`Supervisor::inject_panic`] names the component from now on; a release build waits for ever.
    pub(crate) async fn injected_panic(&self, name: &'static str) {
        #[cfg(debug_assertions)]
        {
            let mut injected = self.0.injected.subscribe();
            while injected.changed().await.is_ok() {
                if injected.borrow().as_deref() == Some(name) {
                    panic!("a test made {name} panic");
                }
            }
        }
        let _ = name;
        std::future::pending::<()>().await;
    }
}

/// Pauses before a component is made again, and when to give up.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    lately: VecDeque<Instant>,
}

impl Restarts {
    /// The pause before the next restart; `None` when there were too many.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Duration> {
        while self
            .lately
            .front()
            .is_some_and(|at| now.saturating_duration_since(*at) >= RESTARTS_WITHIN)
        {
            self.lately.pop_front();
        }
        if self.lately.len() >= RESTARTS_MAX {
            return None;
        }
        let doubled = 1_u32 << self.lately.len().min(8);
        self.lately.push_back(now);
        Some((RESTART_PAUSE * doubled).min(RESTART_PAUSE_MAX))
    }
}

/// What a panic said, and where.
pub(crate) struct Panic {
    pub(crate) message: String,
    pub(crate) backtrace: String,
}

/// Runs `future` to its end; a panic in it comes back as an error.
pub(crate) async fn caught<F: Future>(future: F) -> Result<F::Output, Panic> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(payload) => Poll::Ready(Err(Panic::of(&*payload))),
        }
    })
    .await
}

impl Panic {
    /// Called on the thread that panicked, at once: the hook has just kept the backtrace there.
    pub(crate) fn of(payload: &(dyn Any + Send)) -> Self {
        let words = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "without words".to_owned());
        let (at, backtrace) = LAST_PANIC.take().unwrap_or_default();
        let at = if at.is_empty() {
            at
        } else {
            format!(" at {at}")
        };
        Self {
            message: format!("panicked{at}: {words}"),
            backtrace,
        }
    }
}

thread_local! {
    /// Place and backtrace of the last panic of this thread.
    static LAST_PANIC: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// Adds to the panic hook of the process, once, that the place and the backtrace are kept for whoever catches the panic.
fn keep_backtraces() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let at = info.location().map(ToString::to_string).unwrap_or_default();
            let backtrace = Backtrace::force_capture().to_string();
            // A thread that is being torn down has no place to keep it.
            let _ = LAST_PANIC.try_with(|last| last.replace(Some((at, backtrace))));
            before(info);
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tasks;

    fn supervised() -> (Supervisor, Tasks) {
        let supervisor = Supervisor::new();
        let tasks = Tasks::new().supervised_by(&supervisor);
        (supervisor, tasks)
    }

    fn health(supervisor: &Supervisor, name: &str) -> ComponentHealth {
        let mut all = supervisor.health();
        all.retain(|health| health.name == name);
        all.pop().expect("a component of that name")
    }

    #[tokio::test(start_paused = true)]
    async fn a_component_that_ends_or_panics_is_a_fault() {
        let (supervisor, tasks) = supervised();
        tasks.child().component("store writer", async {});
        let fault = supervisor.failed().await;
        assert_eq!(
            fault.to_string(),
            "component \"store writer\" ended by itself"
        );
        assert!(!health(&supervisor, "store writer").running);

        let (supervisor, tasks) = supervised();
        tasks.component("autoscaler", async {
            tokio::task::yield_now().await;
            panic!("no {}", "windows")
        });
        let fault = supervisor.failed().await;
        assert_eq!(fault.component, "autoscaler");
        assert!(
            fault.message.starts_with("panicked at ") && fault.message.ends_with(": no windows"),
            "{fault}"
        );
        assert!(fault.message.contains("supervise.rs:"), "{fault}");
        assert!(fault.backtrace.contains("supervise"), "{}", fault.backtrace);
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_when_asked_to_is_no_fault() {
        let (supervisor, tasks) = supervised();
        let token = tasks.token();
        tasks.component("gateway", async move { token.cancelled().await });
        let token = tasks.token();
        tasks.component("node", async move {
            token.cancelled().await;
            panic!("in the last moment")
        });
        tokio::task::yield_now().await;
        assert!(health(&supervisor, "gateway").running);
        assert!(tasks.shutdown(Duration::from_secs(1)).await);
        let failed = tokio::time::timeout(Duration::from_secs(60), supervisor.failed()).await;
        assert!(failed.is_err(), "{failed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_restarted_component_is_back_within_a_second_and_says_why() {
        let (supervisor, tasks) = supervised();
        let token = tasks.token();
        let mut lives = 0;
        tasks.restarted("events", move || {
            lives += 1;
            let (life, token) = (lives, token.clone());
            async move {
                assert!(life != 1, "a poisoned event");
                token.cancelled().await;
            }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let health = health(&supervisor, "events");
        assert!(health.running && health.restarts == 1, "{health:?}");
        let why = health.last_fault.expect("why it was restarted");
        assert!(why.ends_with("a poisoned event"), "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_recover_is_a_fault() {
        let (supervisor, tasks) = supervised();
        let began = Instant::now();
        tasks.restarted("events", || async {});
        let fault = supervisor.failed().await;
        assert_eq!(
            fault.message,
            "ended by itself, and again after 10 restarts within 60 s"
        );
        assert!(began.elapsed() < RESTARTS_WITHIN, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn during_a_stop_nobody_is_missed() {
        let (supervisor, tasks) = supervised();
        supervisor.begin_stop();
        tasks.component("gateway", async {});
        tasks.restarted("events", || async {});
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(supervisor.fault().is_none());
        assert_eq!(health(&supervisor, "events").restarts, 0);
    }

    #[cfg(debug_assertions)]
    #[tokio::test(start_paused = true)]
    async fn a_test_can_make_a_component_panic() {
        let (supervisor, tasks) = supervised();
        tasks.component("gateway", std::future::pending());
        let token = tasks.token();
        tasks.restarted("events", move || {
            let token = token.clone();
            async move { token.cancelled().await }
        });
        tokio::task::yield_now().await;
        assert!(!supervisor.inject_panic("nobody"));
        assert!(supervisor.inject_panic("events"));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let health = health(&supervisor, "events");
        assert!(health.running && health.restarts == 1, "{health:?}");
        assert!(supervisor.inject_panic("gateway"));
        assert_eq!(supervisor.failed().await.component, "gateway");
    }

    #[test]
    fn restarts_are_counted_over_a_minute() {
        let mut restarts = Restarts::default();
        let began = Instant::now();
        let pauses: Vec<_> = (0..11).map(|_| restarts.next(began)).collect();
        assert_eq!(pauses[0], Some(Duration::from_millis(100)));
        assert_eq!(pauses[3], Some(Duration::from_millis(800)));
        assert_eq!(pauses[9], Some(Duration::from_millis(800)));
        assert_eq!(pauses[10], None);
        assert_eq!(
            restarts.next(began + RESTARTS_WITHIN),
            Some(Duration::from_millis(100))
        );
    }
}
