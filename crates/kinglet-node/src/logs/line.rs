//! One line of a log file, as container runtimes write them: `TIME STREAM TAG MESSAGE`.

use jiff::Timestamp;

/// Longer lines are cut into partial ones (tag `P`).
pub(crate) const LINE_BYTES_MAX: usize = 16 << 10;

/// Appends a line.
pub(crate) fn append(to: &mut Vec<u8>, at: Timestamp, stream: &str, whole: bool, message: &[u8]) {
    to.extend_from_slice(format!("{at:.9} {stream} {} ", if whole { "F" } else { "P" }).as_bytes());
    to.extend_from_slice(message);
    to.push(b'\n');
}

/// A line taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parsed<'a> {
    pub(crate) stamp: &'a [u8],
    pub(crate) whole: bool,
    pub(crate) message: &'a [u8],
}

/// Takes a line (without its end) apart; `None` for what we never wrote.
pub(crate) fn parse(line: &[u8]) -> Option<Parsed<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let stamp = parts.next()?;
    let _stream = parts.next()?;
    let tag = parts.next()?;
    Some(Parsed {
        stamp,
        whole: tag == b"F",
        message: parts.next()?,
    })
}

impl Parsed<'_> {
    /// When it was said.
    pub(crate) fn time(&self) -> Option<Timestamp> {
        std::str::from_utf8(self.stamp).ok()?.parse().ok()
    }
}

/// The message of a line of text.
pub(crate) fn message(line: &str) -> Option<&str> {
    line.splitn(4, ' ').nth(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back() {
        let at = Timestamp::new(1_000, 5).expect("time");
        let mut bytes = Vec::new();
        append(&mut bytes, at, "stdout", true, b"hello  world ");
        assert_eq!(
            bytes,
            b"1970-01-01T00:16:40.000000005Z stdout F hello  world \n"
        );
        let parsed = parse(&bytes[..bytes.len() - 1]).expect("line");
        assert_eq!(
            (parsed.time(), parsed.whole, parsed.message),
            (Some(at), true, &b"hello  world "[..])
        );
        assert_eq!(parse(b"nonsense"), None);
    }
}
