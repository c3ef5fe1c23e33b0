//! The real binary, from outside, with real clients. Needs root, because containers are made.

mod apart;
mod bad_input;
mod cases;
mod checks;
mod clients;
mod corpus;
mod crash;
mod cycles;
mod datagrams;
mod first_hour;
mod host_ports;
mod https;
mod in_flight;
mod informer;
mod inside;
mod kubectl;
mod kubectl_jobs;
mod kubectl_sessions;
mod kubectl_words;
mod neighbours;
mod real_cluster;
mod roles;
mod rollout;
mod services;
mod story;
mod supervision;
mod traffic;

use std::io::Write as _;
use std::time::Duration;

use kinglet_testkit::{Api, Instance, Setup, Shape};

/// Long enough for a busy machine; nothing waits this long when all is well.
const READY_MAX: Duration = Duration::from_secs(60);

/// The program under test.
fn setup() -> Setup {
    Setup::of(env!("CARGO_BIN_EXE_kinglet"))
}

/// Says in one line that a test did not happen; not allowed where everything must be tested.
#[expect(clippy::disallowed_methods, reason = "CI says so in the environment")]
fn not_run(why: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        std::env::var_os("CI").is_none(),
        "CI runs every test, but {why}"
    );
    // Not `eprintln`: the harness shows that of failed tests only.
    let _ = writeln!(std::io::stderr(), "not run: {why}");
    Ok(())
}

/// Whether containers can be made here; says so once when not.
fn root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let root = std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0);
    if !root {
        not_run("starting containers needs root").expect("root");
    }
    root
}

/// An instance and a client of it.
async fn start() -> anyhow::Result<(Instance, Api)> {
    let instance = setup().start().await?;
    let api = Api::open(instance.ready.kubeconfig.as_ref()).await?;
    Ok((instance, api))
}

/// What does not run with the roles apart (`KINGLET_TEST_SHAPE=apart`), and why: the part of a test's name, and the reason.
const WHOLE_ONLY: [(&str, &str); 0] = [];

/// Whether the test of this thread has nothing to say with the roles apart; says so once.
fn is_whole_only() -> bool {
    if Shape::asked() == Shape::Whole {
        return false;
    }
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    let found = WHOLE_ONLY.iter().find(|(part, _)| name.contains(part));
    if let Some((_, why)) = found {
        let _ = writeln!(
            std::io::stderr(),
            "not run with the roles apart: {name}: {why}"
        );
    }
    found.is_some()
}

/// A runtime for one test.
fn run<F: Future<Output = anyhow::Result<()>>>(test: F) {
    if !root() || is_whole_only() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    if let Err(error) = runtime.block_on(test) {
        panic!("{error:#}");
    }
}
