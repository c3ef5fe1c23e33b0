//! Standard output: a reader that went away (`kinglet get … | head`) ends a command, it does not break it.

use std::io::{self, ErrorKind};

/// Writes a line to standard output.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        writeln!(anstream::stdout(), $($words)*).map_err($crate::screen::Unwritten)?
    }};
}

/// Writes text to standard output as it is.
macro_rules! show {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        write!(anstream::stdout(), $($words)*).map_err($crate::screen::Unwritten)?
    }};
}

pub(crate) use {say, show};

/// Standard output could not be written to.
#[derive(Debug)]
pub(crate) struct Unwritten(pub(crate) io::Error);

impl std::fmt::Display for Unwritten {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "writing to standard output: {}", self.0)
    }
}

impl std::error::Error for Unwritten {}

/// Whether an error only says that nobody reads the output any more. A connection that broke (a Kinglet that hangs up on
/// those it does not serve) says something else, although the kernel's word for it is the same.
pub(crate) fn reader_left(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<Unwritten>()
        .is_some_and(|Unwritten(error)| error.kind() == ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn only_standard_output_has_a_reader_that_leaves() {
        let broken = || io::Error::from(ErrorKind::BrokenPipe);
        let full = io::Error::from(ErrorKind::StorageFull);
        let output: anyhow::Result<()> = Err(Unwritten(broken()).into());
        assert!(reader_left(
            &output.context("printing").expect_err("broken")
        ));
        assert!(!reader_left(&Unwritten(full).into()));
        let connection: anyhow::Result<()> = Err(broken().into());
        let connection = connection.context("talking to the running Kinglet");
        assert!(!reader_left(&connection.expect_err("broken")));
    }
}
