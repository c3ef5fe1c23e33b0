//! Timestamps of RFC 3339, sent on in UTC with as many digits as are needed.

use jiff::Timestamp;

/// Digits of a second that are kept.
const FRACTION_DIGITS: usize = 9;

/// The text of a time as CloudEvents writes it: UTC, up to nanoseconds.
pub fn format(time: Timestamp) -> String {
    time.to_string()
}

/// `None`: not a timestamp. `Some(None)`: the text is already in the form in which it is sent. Else that form.
pub(super) fn canonical(text: &str) -> Option<Option<String>> {
    let (date_time, rest) = text.split_at_checked(19)?;
    if !shape(date_time.as_bytes()) {
        return None;
    }
    let (fraction, zone) = match rest.strip_prefix(['.', ',']) {
        None => ("", rest),
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            if end == 0 {
                return None;
            }
            rest.split_at(end)
        }
    };
    if !is_zone(zone.as_bytes()) {
        return None;
    }
    let kept = &fraction[..fraction.len().min(FRACTION_DIGITS)];
    let point = if kept.is_empty() { "" } else { "." };
    let time: Timestamp = format!("{date_time}{point}{kept}{zone}").parse().ok()?;
    let canonical = format(time);
    // A year before 0 has another form, and is no year of RFC 3339.
    if !canonical.as_bytes().first()?.is_ascii_digit() {
        return None;
    }
    Some((canonical != text).then_some(canonical))
}

/// `2006-01-02T15:04:05`, with a time of day that exists; the calendar is checked by the parser.
fn shape(text: &[u8]) -> bool {
    let digits = text.iter().zip(b"0000-00-00T00:00:00").all(|(byte, mask)| {
        if *mask == b'0' {
            byte.is_ascii_digit()
        } else {
            byte == mask
        }
    });
    let two = |at: usize| (text[at] - b'0') * 10 + (text[at + 1] - b'0');
    digits && two(11) < 24 && two(14) < 60 && two(17) < 60
}

/// `Z` or `+01:00`.
fn is_zone(text: &[u8]) -> bool {
    match text {
        b"Z" => true,
        [b'+' | b'-', a, b, b':', c, d] => {
            [a, b, c, d].iter().all(|byte| byte.is_ascii_digit())
                && (a - b'0') * 10 + (b - b'0') < 24
                && *c < b'6'
        }
        _ => false,
    }
}
