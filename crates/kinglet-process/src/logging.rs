//! Log lines on standard error.

use tracing_subscriber::EnvFilter;

/// Levels that a directive may name alone.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Checks a directive list such as `info,kinglet_node=debug`; the error is one sentence.
pub fn check(filter: &str) -> Result<(), String> {
    for directive in filter
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        // `EnvFilter` takes any other word for the name of a module: a mistyped level would log nothing, in silence.
        let bare = !directive.contains(['=', '[', ':']);
        if bare && !LEVELS.contains(&directive.to_ascii_lowercase().as_str()) {
            return Err(format!(
                "{directive:?} is no level; write one of {}, or TARGET=LEVEL",
                LEVELS.join(", ")
            ));
        }
        EnvFilter::builder()
            .parse(directive)
            .map_err(|error| format!("{directive:?}: {error}"))?;
    }
    Ok(())
}

/// Starts logging. `filter` is a directive list that [`check`] accepts.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for good in [
            "info",
            "warn,kinglet=info",
            "kinglet_node=debug,OFF",
            "",
            "kinglet[pod]=trace",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, word) in [
            ("debgu", "no level"),
            ("kinglet=loud", "kinglet=loud"),
            ("info,,nosuch", "nosuch"),
        ] {
            let error = check(bad).expect_err(bad);
            assert!(error.contains(word), "{bad}: {error}");
        }
    }
}
