//! Durations of ISO 8601 as Knative's delivery specs take them (spec/eventing.md 1.8).

use std::time::Duration;

/// The text of a duration. The longest that makes sense has seven numbers.
const DURATION_BYTES_MAX: usize = 128;
/// Nanoseconds in a tenth of each component: a number keeps one digit behind its point.
const TENTH_OF_DAY: i128 = 8_640 * SECOND;
/// A year has 365.2425 days, a month is a twelfth of it.
const TENTH_OF_YEAR: i128 = 3_155_695 * SECOND + SECOND / 5;
const TENTH_OF_MONTH: i128 = 262_974 * SECOND + 6 * (SECOND / 10);
const SECOND: i128 = 1_000_000_000;

/// Designators in the order in which they stand.
const DATE: [(u8, i128); 4] = [
    (b'Y', TENTH_OF_YEAR),
    (b'M', TENTH_OF_MONTH),
    (b'W', 7 * TENTH_OF_DAY),
    (b'D', TENTH_OF_DAY),
];
const TIME: [(u8, i128); 3] = [
    (b'H', 360 * SECOND),
    (b'M', 6 * SECOND),
    (b'S', SECOND / 10),
];

/// A duration, which may be negative; Knative takes those and waits no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IsoDuration {
    nanoseconds: i64,
}

/// Why a text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// Nothing but blanks.
    #[error("is empty, and is a duration of ISO 8601, such as PT10S")]
    Blank,
    /// Not of the form.
    #[error("is a duration of ISO 8601, such as PT0.2S, PT5M or P1DT2H")]
    Form,
    /// Does not fit.
    #[error("is longer than 292 years")]
    TooLong,
}

impl IsoDuration {
    /// Reads a duration.
    pub fn parse(text: &str) -> Result<Self, InvalidDuration> {
        if text.trim().is_empty() {
            return Err(InvalidDuration::Blank);
        }
        if text.len() > DURATION_BYTES_MAX {
            return Err(InvalidDuration::Form);
        }
        let (negative, rest) = match text.as_bytes() {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let [b'P', rest @ ..] = rest else {
            return Err(InvalidDuration::Form);
        };
        if rest == b"0" {
            return Ok(Self { nanoseconds: 0 });
        }
        let nanoseconds = components(rest)?;
        let signed = if negative { -nanoseconds } else { nanoseconds };
        i64::try_from(signed)
            .map(|nanoseconds| Self { nanoseconds })
            .map_err(|_| InvalidDuration::TooLong)
    }

    /// Whether it is no time at all.
    pub fn is_zero(self) -> bool {
        self.nanoseconds == 0
    }

    /// Whether it is less than none.
    pub fn is_negative(self) -> bool {
        self.nanoseconds < 0
    }

    /// As time to wait: none when it is negative.
    pub fn to_wait(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.nanoseconds).unwrap_or_default())
    }
}

fn components(text: &[u8]) -> Result<i128, InvalidDuration> {
    let split = text.iter().position(|byte| *byte == b'T');
    let (date, time) = match split {
        // Something stands behind a `T`.
        Some(at) if at + 1 == text.len() => return Err(InvalidDuration::Form),
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[][..]),
    };
    if date.is_empty() && time.is_empty() {
        return Err(InvalidDuration::Form);
    }
    let days = part(date, &DATE)?;
    let seconds = part(time, &TIME)?;
    days.checked_add(seconds).ok_or(InvalidDuration::TooLong)
}

/// Numbers with designators, each at most once and in order.
fn part(mut text: &[u8], designators: &[(u8, i128)]) -> Result<i128, InvalidDuration> {
    let mut designators = designators.iter();
    let mut sum = 0_i128;
    while !text.is_empty() {
        let (tenths, rest) = number(text)?;
        let [designator, rest @ ..] = rest else {
            return Err(InvalidDuration::Form);
        };
        let unit = designators
            .find(|(letter, _)| letter == designator)
            .map(|(_, unit)| *unit)
            .ok_or(InvalidDuration::Form)?;
        sum = tenths
            .checked_mul(unit)
            .and_then(|nanoseconds| sum.checked_add(nanoseconds))
            .ok_or(InvalidDuration::TooLong)?;
        text = rest;
    }
    Ok(sum)
}

/// A number in tenths; further digits are cut off, as upstream does.
fn number(text: &[u8]) -> Result<(i128, &[u8]), InvalidDuration> {
    let (whole, rest) = digits(text);
    if whole.is_empty() {
        return Err(InvalidDuration::Form);
    }
    let mut tenths = 0_i128;
    for digit in whole {
        tenths = tenths
            .checked_mul(10)
            .and_then(|value| value.checked_add(i128::from(digit - b'0')))
            .ok_or(InvalidDuration::TooLong)?;
    }
    tenths = tenths.checked_mul(10).ok_or(InvalidDuration::TooLong)?;
    let [b'.' | b',', rest @ ..] = rest else {
        return Ok((tenths, rest));
    };
    let (fraction, rest) = digits(rest);
    match fraction.first() {
        Some(digit) => Ok((tenths + i128::from(digit - b'0'), rest)),
        None => Err(InvalidDuration::Form),
    }
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 86_400_000;

    #[test]
    fn durations_are_read_as_upstream_reads_them() {
        for (text, milliseconds) in [
            ("PT1S", 1_000),
            ("PT0S", 0),
            ("P0", 0),
            ("P0D", 0),
            ("PT0.2S", 200),
            ("PT0,2S", 200),
            // Only one digit is kept.
            ("PT0.25S", 200),
            ("PT0.05S", 0),
            ("PT0.99S", 900),
            ("PT1.5M", 90_000),
            ("PT1M", 60_000),
            ("PT1H", 3_600_000),
            ("PT1H2M3S", 3_723_000),
            ("P1D", DAY),
            ("P1.5D", DAY * 3 / 2),
            ("P1W", 7 * DAY),
            ("P1W2D", 9 * DAY),
            ("P1DT2H", DAY + 7_200_000),
            ("P1Y", 31_556_952_000),
            ("P1M", 2_629_746_000),
            ("P0.1Y", 3_155_695_200),
            ("P0.1M", 262_974_600),
            (
                "P1Y2M3W4DT5H6M7.8S",
                31_556_952_000 + 5_259_492_000 + 25 * DAY + 18_367_800,
            ),
            ("+PT1S", 1_000),
            ("PT90000S", 90_000_000),
        ] {
            let read = IsoDuration::parse(text).map(IsoDuration::to_wait);
            assert_eq!(read, Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn a_negative_duration_is_one_and_waits_no_time() {
        let read = IsoDuration::parse("-PT1S").unwrap();
        assert!(read.is_negative() && !read.is_zero());
        assert_eq!(read.to_wait(), Duration::ZERO);
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        use InvalidDuration::{Blank, Form, TooLong};
        for (text, error) in [
            ("", Blank),
            ("  ", Blank),
            ("1s", Form),
            ("1S", Form),
            ("P", Form),
            ("PT", Form),
            ("P1", Form),
            ("P1DT", Form),
            ("PT1", Form),
            ("PTS", Form),
            ("PT.5S", Form),
            ("PT5.S", Form),
            ("PT1S1M", Form),
            ("PT1S2S", Form),
            ("P1S", Form),
            ("PT1D", Form),
            ("pt1s", Form),
            (" PT1S", Form),
            ("PT1S ", Form),
            ("PT-1S", Form),
            ("--PT1S", Form),
            ("P1DT1HT1M", Form),
            ("x", Form),
            ("P300Y", TooLong),
            ("PT99999999999999999999999999999999999999999999S", TooLong),
        ] {
            assert_eq!(IsoDuration::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(
            IsoDuration::parse(&format!("PT{}S", "0".repeat(200))),
            Err(Form)
        );
    }

    proptest! {
        #[test]
        fn no_text_is_a_reason_to_panic(text in "[-+]?P?[0-9YMWDTHS.,]{0,40}") {
            let _ = IsoDuration::parse(&text);
        }
    }
}
