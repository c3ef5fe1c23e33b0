//! Log lines on standard error.

use tracing_subscriber::EnvFilter;

/// Starts logging. `filter` is a `tracing` directive list such as `info,kinglet_node=debug`.
pub fn start(filter: &str, color: bool) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // Somebody who embeds us may have a subscriber already; theirs stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(color)
        .with_target(false)
        .try_init();
}
