//! Numbers, booleans and durations as Go reads and writes them, errors included.
//!
//! Knative's annotations and ConfigMaps are read by Go's parsers; a value is good exactly when Go says so, and
//! what people search the web for is Go's wording.

use std::time::Duration;

const NANOS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A signed duration in nanoseconds, as Go's `time.Duration`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration(pub i64);

impl GoDuration {
    /// From whole seconds.
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds * 1_000_000_000)
    }

    /// Reads `1h2m3.5s`, `300ms`, `-1s`, `0`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let quoted = quote(text);
        let invalid = || format!("time: invalid duration {quoted}");
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let digits =
                |s: &str| s.len() - s.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let whole = digits(rest);
            let (whole_text, after) = rest.split_at(whole);
            let (fraction_text, after) = match after.strip_prefix('.') {
                Some(after) => after.split_at(digits(after)),
                None => ("", after),
            };
            if whole_text.is_empty() && fraction_text.is_empty() {
                return Err(invalid());
            }
            let unit_len = after
                .find(|c: char| c == '.' || c.is_ascii_digit())
                .unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_len);
            if unit.is_empty() {
                return Err(format!("time: missing unit in duration {quoted}"));
            }
            let Some((_, nanos)) = NANOS.iter().find(|(name, _)| *name == unit) else {
                return Err(format!(
                    "time: unknown unit {} in duration {quoted}",
                    quote(unit)
                ));
            };
            let number = |digits: &str| -> Result<i128, String> {
                if digits.is_empty() {
                    Ok(0)
                } else {
                    digits.parse().map_err(|_| invalid())
                }
            };
            let nanos = i128::from(*nanos);
            // Beyond 18 digits a fraction of an hour is below a nanosecond.
            let fraction_text = &fraction_text[..fraction_text.len().min(18)];
            let parts = fraction_text.bytes().fold(1_i128, |parts, _| parts * 10);
            let fraction = number(fraction_text)? * nanos / parts;
            total = number(whole_text)?
                .checked_mul(nanos)
                .and_then(|whole| whole.checked_add(fraction))
                .and_then(|part| total.checked_add(part))
                .filter(|total| *total <= i128::from(i64::MAX))
                .ok_or_else(invalid)?;
            rest = after;
        }
        let total = i64::try_from(total).map_err(|_| invalid())?;
        Ok(Self(if negative { -total } else { total }))
    }

    /// Whole seconds only?
    pub const fn is_whole_seconds(self) -> bool {
        self.0 % 1_000_000_000 == 0
    }

    /// As a standard duration; negative ones become zero.
    pub fn to_std(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or_default())
    }
}

impl std::fmt::Display for GoDuration {
    /// As Go prints it: `0s`, `500ms`, `1.5s`, `1h0m0s`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let decimal = |value: u64, per: u64| -> String {
            let fraction = format!("{:0width$}", value % per, width = per.ilog10() as usize);
            match fraction.trim_end_matches('0') {
                "" => format!("{}", value / per),
                fraction => format!("{}.{fraction}", value / per),
            }
        };
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => write!(f, "{}µs", decimal(nanos, 1_000)),
            1_000_000..1_000_000_000 => write!(f, "{}ms", decimal(nanos, 1_000_000)),
            _ => {
                let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
                match (minutes / 60, minutes % 60) {
                    (0, 0) => {}
                    (0, minutes) => write!(f, "{minutes}m")?,
                    (hours, minutes) => write!(f, "{hours}h{minutes}m")?,
                }
                let seconds = if rest == 0 {
                    "0".to_owned()
                } else {
                    decimal(rest, 1_000_000_000)
                };
                write!(f, "{seconds}s")
            }
        }
    }
}

/// A signed integer in base 10 that fits into `bits`.
pub fn parse_int(text: &str, bits: u32) -> Result<i64, String> {
    let error = |error: &str| format!("strconv.ParseInt: parsing {}: {error}", quote(text));
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(error("invalid syntax"));
    }
    let limit = i128::from(i64::MAX >> (64 - bits));
    text.parse::<i128>()
        .ok()
        .filter(|value| (-limit - 1..=limit).contains(value))
        .and_then(|value| i64::try_from(value).ok())
        .ok_or_else(|| error("value out of range"))
}

/// An unsigned integer in base 10.
pub fn parse_uint(text: &str, bits: u32) -> Result<u64, String> {
    let error = |error: &str| format!("strconv.ParseUint: parsing {}: {error}", quote(text));
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(error("invalid syntax"));
    }
    text.parse::<u64>()
        .ok()
        .filter(|value| *value <= u64::MAX >> (64 - bits))
        .ok_or_else(|| error("value out of range"))
}

/// A floating point number.
pub fn parse_float(text: &str) -> Result<f64, String> {
    text.parse::<f64>().map_err(|_| {
        format!(
            "strconv.ParseFloat: parsing {}: invalid syntax",
            quote(text)
        )
    })
}

/// One of Go's spellings of true and false.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!(
            "strconv.ParseBool: parsing {}: invalid syntax",
            quote(text)
        )),
    }
}

/// In double quotes, with Go's escapes.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// JSON as Go's encoder writes it: what could end an HTML script is escaped.
pub fn escape_html(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_as_in_go() {
        for (text, want) in [
            ("0", "0s"),
            ("90s", "1m30s"),
            ("1h", "1h0m0s"),
            ("1.5s", "1.5s"),
            ("500ms", "500ms"),
            ("-1s", "-1s"),
            ("6s500ms", "6.5s"),
            ("1h1s", "1h0m1s"),
            ("15us", "15µs"),
            (".5m", "30s"),
        ] {
            assert_eq!(GoDuration::parse(text).unwrap().to_string(), want, "{text}");
        }
        for (text, want) in [
            ("a", "time: invalid duration \"a\""),
            ("", "time: invalid duration \"\""),
            ("1", "time: missing unit in duration \"1\""),
            ("1x", "time: unknown unit \"x\" in duration \"1x\""),
            ("99999999999h", "time: invalid duration \"99999999999h\""),
            (
                "170141183460469231731687303715884105.9us",
                "time: invalid duration \"170141183460469231731687303715884105.9us\"",
            ),
        ] {
            assert_eq!(GoDuration::parse(text).unwrap_err(), want);
        }
    }

    #[test]
    fn numbers_have_go_errors() {
        assert_eq!(parse_int("-7", 32), Ok(-7));
        assert_eq!(
            parse_int("a", 64).unwrap_err(),
            "strconv.ParseInt: parsing \"a\": invalid syntax"
        );
        assert_eq!(
            parse_int("2147483648", 32).unwrap_err(),
            "strconv.ParseInt: parsing \"2147483648\": value out of range"
        );
        assert_eq!(
            parse_uint("a", 32).unwrap_err(),
            "strconv.ParseUint: parsing \"a\": invalid syntax"
        );
        assert_eq!(
            parse_float("a").unwrap_err(),
            "strconv.ParseFloat: parsing \"a\": invalid syntax"
        );
        assert_eq!(parse_bool("T"), Ok(true));
        assert!(parse_bool("yes").is_err());
    }
}
