//! Starts Kinglet: parses the command line and composes the shape that was asked for.
//!
//! Flow: a helper re-executed by the node ends up in `kinglet_node::helper`; `up` composes everything in
//! [`standalone`], `attach` the same over another's API server in [`attached`], a component alone is one of [`roles`]; every other command is `kinglet_cli`'s.
//! Always: the one TLS provider is installed before anything else; only this crate knows all parts.

mod admission;
mod apart;
mod attached;
mod bootstrap;
mod control;
mod digests;
mod heap;
mod listeners;
mod logs;
mod request_logs;
mod roles;
mod samples;
mod sessions;
mod standalone;
mod start;
mod waterfall;

use std::process::ExitCode;

use std::time::Duration;

use kinglet_cli::Command;

/// What was to be finished was awaited before; this is for threads that nobody waits for any more.
const BLOCKING_STOP_MAX: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    // Containers are started by this same program, single-threaded: before a runtime or a thread exists.
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    if words
        .get(1)
        .is_some_and(|word| word == kinglet_node::HELPER_VERB)
    {
        return kinglet_node::helper(&words[2..]);
    }
    kinglet_process::tls::install_provider();
    let arguments = match kinglet_cli::usage::parse() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    heap::limit_arenas(matches!(
        arguments.command,
        Command::Gateway(_) | Command::Activator(_) | Command::Queue(_)
    ));
    if let Some(outcome) = roles::run(&arguments.command) {
        return ended(outcome);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            kinglet_cli::report(&anyhow::Error::new(error).context("starting the runtime"));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        // Said first, before a folder is made or a background process started.
        let needs_root = matches!(
            arguments.command,
            Command::Up(_) | Command::Attach(_) | Command::Demo(_)
        );
        if needs_root && let Err(error) = kinglet_node::Node::preflight() {
            return ended(Err(error.into()));
        }
        match arguments.command {
            Command::Up(args) if !args.detach => ended(standalone::up(&args).await),
            Command::Attach(args) => ended(attached::run(&args).await),
            command => kinglet_cli::run(command).await,
        }
    });
    // Not waited for without end: a thread may hang in a read that nothing ends (an archive on a dead network disk).
    runtime.shutdown_timeout(BLOCKING_STOP_MAX);
    code
}

fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            kinglet_cli::report(&error);
            ExitCode::FAILURE
        }
    }
}
