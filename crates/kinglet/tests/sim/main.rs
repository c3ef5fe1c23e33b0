//! All controllers and the API server in one process and on paused time, with faults that follow from a seed.
//!
//! A run applies a seed's list of user actions while the controllers' calls are delayed, refused, lost or panic, their
//! watches break, and the controllers restart. Afterwards the faults end and everything must come to rest.
//! Always (checked at every change): a Revision's spec never changes; a child that went because its owner went is not
//! made again for that owner. At rest: every Service has a verdict about its present generation, no object has an owner
//! that is gone, and nothing is written any more.
//!
//! A failing run prints its seed; `KINGLET_SIM_SEED=N` runs that one alone, `KINGLET_SIM_SEEDS=N` runs N of them
//! (`cargo xtask soak sim`). One thread and no sockets, so that paused time only moves when everybody waits.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic; helpers of tests are not seen as tests"
)]

#[path = "../../src/admission.rs"]
mod admission;
#[path = "../../src/bootstrap.rs"]
#[expect(dead_code, reason = "the part for attached clusters is not used here")]
mod bootstrap;

mod counts;
mod deletion;
mod faults;
mod go_clients;
mod invariants;
mod random;
mod seeds;
mod unknown_fields;
mod verdicts;
mod world;

/// A runtime whose time stands still unless everybody waits.
fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(test);
}
