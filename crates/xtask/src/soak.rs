//! Long runs that no change waits for: requests, cycles, fuzzing. Their short forms are ordinary tests.

mod cycles;
mod fuzz;
pub(crate) mod interleavings;
mod requests;
mod simulation;

use clap::Subcommand;

/// Which soak.
#[derive(Subcommand)]
pub(crate) enum Soak {
    /// Requests without a failure through rollouts, traffic changes and scaling
    Requests(requests::Requests),
    /// Services created, called, put to sleep, woken and deleted; nothing may be left on the machine
    Cycles(cycles::Cycles),
    /// All controllers on paused time with faults from many seeds
    Sim(simulation::Simulation),
    /// The threads of the breaker in every order, by loom
    Loom(interleavings::Interleavings),
    /// New inputs for every parser that eats what somebody else wrote (needs cargo-fuzz)
    Fuzz(fuzz::Fuzz),
}

pub(crate) async fn run(soak: &Soak) -> anyhow::Result<()> {
    match soak {
        Soak::Requests(requests) => requests::run(requests).await,
        Soak::Cycles(cycles) => cycles::run(cycles).await,
        Soak::Sim(simulation) => simulation::run(simulation),
        Soak::Loom(loom) => interleavings::run(loom),
        Soak::Fuzz(fuzz) => fuzz::run(fuzz),
    }
}
