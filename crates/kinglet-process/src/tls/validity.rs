//! From when until when a certificate holds: just enough DER to read two times.

use jiff::Timestamp;
use jiff::civil::date;
use jiff::tz::TimeZone;

use super::der::any;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `notBefore` and `notAfter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// It does not hold before.
    pub not_before: Timestamp,
    /// It does not hold afterwards.
    pub not_after: Timestamp,
}

impl Validity {
    /// Reads it from a certificate in DER.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate, _) = element(certificate, SEQUENCE)?;
        let (_, mut fields, _) = element(certificate, SEQUENCE)?;
        if let Some((_, _, rest)) = element(fields, VERSION) {
            fields = rest;
        }
        // Serial number, algorithm, issuer.
        for _ in 0..3 {
            fields = any(fields)?.2;
        }
        let (_, times, _) = element(fields, SEQUENCE)?;
        let (kind, text, rest) = any(times)?;
        let not_before = time(kind, text)?;
        let (kind, text, _) = any(rest)?;
        Some(Self {
            not_before,
            not_after: time(kind, text)?,
        })
    }

    /// When it is to be renewed: after two thirds of its life.
    pub fn renew_at(&self) -> Timestamp {
        let life = self.not_after.as_second() - self.not_before.as_second();
        let at = self.not_before.as_second() + life / 3 * 2;
        Timestamp::from_second(at).unwrap_or(self.not_after)
    }
}

fn element(bytes: &[u8], tag: u8) -> Option<(u8, &[u8], &[u8])> {
    any(bytes).filter(|(found, _, _)| *found == tag)
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, as RFC 5280 has them.
fn time(kind: u8, text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match kind {
        UTC_TIME if text.len() == 12 => {
            let year: i16 = text[..2].parse().ok()?;
            (
                if year < 50 { 2000 + year } else { 1900 + year },
                &text[2..],
            )
        }
        GENERALIZED_TIME if text.len() == 14 => (text[..4].parse().ok()?, &text[4..]),
        _ => return None,
    };
    let two = |at: usize| rest[at..at + 2].parse::<i8>().ok();
    let (month, day, hour, minute, second) = (two(0)?, two(2)?, two(4)?, two(6)?, two(8)?);
    if !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let when = jiff::civil::Date::new(year, month, day)
        .unwrap_or(date(9999, 12, 30))
        .at(hour, minute, second, 0);
    when.to_zoned(TimeZone::UTC)
        .ok()
        .map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_time_are_read() {
        for (kind, text, expected) in [
            (UTC_TIME, "261128152600Z", Some("2026-11-28T15:26:00Z")),
            (UTC_TIME, "500101000000Z", Some("1950-01-01T00:00:00Z")),
            (
                GENERALIZED_TIME,
                "20500101000000Z",
                Some("2050-01-01T00:00:00Z"),
            ),
            (GENERALIZED_TIME, "20501301000000Z", None),
            (UTC_TIME, "2611281526Z", None),
            (UTC_TIME, "26112815260\u{e9}Z", None),
            (0x0c, "261128152600Z", None),
        ] {
            let expected = expected.map(|text| text.parse().expect("a time"));
            assert_eq!(time(kind, text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_certificate_says_when_it_holds_and_garbage_says_nothing() {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut parameters =
            rcgen::CertificateParams::new(vec!["a.test".to_owned()]).expect("name");
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2026, 1, 31);
        let made = parameters.self_signed(&key).expect("signed");
        let validity = Validity::of(made.der()).expect("read");
        assert_eq!(validity.not_before.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(validity.not_after.to_string(), "2026-01-31T00:00:00Z");
        assert_eq!(validity.renew_at().to_string(), "2026-01-21T00:00:00Z");
        for end in 0..made.der().len().min(400) {
            // No part of a certificate makes it panic.
            let _ = Validity::of(&made.der()[..end]);
        }
        assert_eq!(Validity::of(b"garbage"), None);
    }
}
