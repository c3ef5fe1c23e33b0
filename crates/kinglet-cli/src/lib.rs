//! The command line: what was said, what it means, and how the answer is shown.
//!
//! Flow: `main` parses [`Arguments`] -> `up` goes to the root, everything else to [`run`], which talks to a running
//! Kinglet through its Kubernetes API or, for what the API has no word for, through the [`control`] socket.
//! Always: results on stdout, everything else on stderr; exit 0 or 1; each failure is one sentence
//! with a remedy where there is one.

pub mod args;
pub mod client;
mod commands;
pub mod control;
mod discovery;
pub mod instance;
pub mod kubeconfig;
pub mod location;
mod screen;
mod table;
pub mod usage;

pub use args::{
    ActivatorArgs, Arguments, AttachArgs, Command, ComponentArgs, DataPlane, GatewayArgs,
    MetricsProtocol, QueueArgs, UpArgs, environment,
};
pub use commands::next_steps;

use std::process::ExitCode;

/// Runs every command but `up`.
pub async fn run(command: Command) -> ExitCode {
    match commands::run(command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if screen::reader_left(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// Prints an error with its causes on one line.
pub fn report(error: &anyhow::Error) {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Many libraries repeat their cause in their own text.
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    // Servers and libraries like to say it too.
    let said = text
        .trim_start_matches("error: ")
        .trim_start_matches("Error: ");
    anstream::eprintln!("Error: {said}");
}
