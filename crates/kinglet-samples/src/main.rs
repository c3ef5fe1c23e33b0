//! The documentation's sample programs as one multi-call binary, linked static for use without any base image.
//!
//! Flow: `kinglet`'s build script builds this for its own explicit target -> the bytes become the images
//! `samples.kinglet/NAME` -> `node` starts `/sample NAME`. It listens on `$PORT`, speaks HTTP/1.1 and cleartext h2 on
//! one port, and ends on SIGTERM.

mod autoscale;
mod event_display;
mod grpc_ping;
mod helloworld;
mod raw_target;
mod serve;
mod websocket;

use std::process::ExitCode;

use serve::{Answer, Request};

/// All samples by name.
const NAMES: [&str; 6] = [
    "helloworld",
    "autoscale",
    "grpc-ping",
    "websocket",
    "event-display",
    "event-display-with-reply",
];

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    if !NAMES.contains(&name.as_str()) {
        eprintln!("usage: sample NAME, one of: {}", NAMES.join(", "));
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve::run(name)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn answer(name: &str, request: Request) -> Answer {
    match name {
        "helloworld" => helloworld::answer(&request),
        "autoscale" => autoscale::answer(&request).await,
        "grpc-ping" => grpc_ping::answer(request).await,
        "websocket" => websocket::answer(request),
        "event-display" => event_display::answer(request, false).await,
        _ => event_display::answer(request, true).await,
    }
}
