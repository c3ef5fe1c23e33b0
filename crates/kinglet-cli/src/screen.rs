//! Standard output: a reader that went away (`kinglet get … | head`) ends a command, it does not break it.

use std::io::ErrorKind;

/// Writes a line to standard output.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        writeln!(anstream::stdout(), $($words)*)?
    }};
}

/// Writes text to standard output as it is.
macro_rules! show {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        write!(anstream::stdout(), $($words)*)?
    }};
}

pub(crate) use {say, show};

/// Whether an error only says that nobody reads any more.
pub(crate) fn reader_left(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    })
}
