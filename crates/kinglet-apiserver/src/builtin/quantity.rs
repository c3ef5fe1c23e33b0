//! Resource quantities: `100m`, `1Gi`, `2e3`.

use std::fmt::Write as _;

use serde_json::Value;

/// A quantity in thousandths; `binary` and `exponent` remember how it was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quantity {
    milli: i128,
    binary: bool,
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.milli == other.milli
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.milli.partial_cmp(&other.milli)
    }
}

const SUFFIXES: &[(&str, i128, bool)] = &[
    ("Ki", 1 << 10, true),
    ("Mi", 1 << 20, true),
    ("Gi", 1 << 30, true),
    ("Ti", 1 << 40, true),
    ("Pi", 1 << 50, true),
    ("Ei", 1 << 60, true),
    ("k", 1_000, false),
    ("M", 1_000_000, false),
    ("G", 1_000_000_000, false),
    ("T", 1_000_000_000_000, false),
    ("P", 1_000_000_000_000_000, false),
    ("E", 1_000_000_000_000_000_000, false),
];

impl Quantity {
    pub(crate) fn from_whole(number: i64) -> Self {
        Self {
            milli: i128::from(number) * 1000,
            binary: false,
        }
    }

    /// A JSON text or number.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Self::parse(text),
            Value::Number(number) => Self::parse(&number.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits_end = text
            .char_indices()
            .find(|(at, c)| {
                !(c.is_ascii_digit() || *c == '.' || (*at == 0 && matches!(c, '+' | '-')))
            })
            .map_or(text.len(), |(at, _)| at);
        let (number, suffix) = text.split_at(digits_end);
        let (sign, number) = match number.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, number.strip_prefix('+').unwrap_or(number)),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || number.matches('.').count() > 1 {
            return None;
        }
        // Thousandths of the smallest unit; finer parts round up, as Kubernetes does.
        let (scale_up, scale_down, binary): (i128, i128, bool) = match suffix {
            "" => (1000, 1, false),
            "n" => (1, 1_000_000, false),
            "u" => (1, 1_000, false),
            "m" => (1, 1, false),
            _ => match SUFFIXES.iter().find(|(name, _, _)| *name == suffix) {
                Some((_, factor, binary)) => (factor * 1000, 1, *binary),
                None => {
                    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
                    let power = 10i128.checked_pow(exponent.unsigned_abs())?;
                    if exponent >= 0 {
                        (power.checked_mul(1000)?, 1, false)
                    } else {
                        (1000, power, false)
                    }
                }
            },
        };
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let below = 10i128
            .checked_pow(u32::try_from(fraction.len()).ok()?)?
            .checked_mul(scale_down)?;
        let above = digits.checked_mul(scale_up)?;
        let milli = above / below + i128::from(above % below != 0);
        Some(Self {
            milli: sign * milli,
            binary,
        })
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            milli: self.milli.saturating_add(other.milli),
            binary: self.binary || other.binary,
        }
    }

    pub(crate) fn is_negative(self) -> bool {
        self.milli < 0
    }

    /// The canonical form.
    pub(crate) fn shown(self) -> String {
        let mut out = String::new();
        if self.milli % 1000 != 0 {
            let _ = write!(out, "{}m", self.milli);
            return out;
        }
        let whole = self.milli / 1000;
        let suffix = SUFFIXES
            .iter()
            .rev()
            .find(|(_, factor, binary)| *binary == self.binary && whole != 0 && whole % factor == 0)
            .filter(|_| self.binary || whole.abs() >= 1000);
        match suffix {
            Some((name, factor, _)) => {
                let _ = write!(out, "{}{name}", whole / factor);
            }
            None => {
                let _ = write!(out, "{whole}");
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::Quantity;

    #[test]
    fn quantities_read_and_show() {
        for (text, shown) in [
            ("100m", "100m"),
            ("1", "1"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1Gi", "1Gi"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("2e3", "2k"),
            ("128974848", "128974848"),
            ("1n", "1m"),
            ("0", "0"),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().shown(), shown, "{text}");
        }
        for text in ["", "x", "1x", "1.2.3", "Gi", "1 Gi", "--1"] {
            assert!(Quantity::parse(text).is_none(), "{text}");
        }
        assert!(Quantity::parse("1Gi").unwrap() > Quantity::parse("1G").unwrap());
    }
}
