//! Kubernetes quantities (`100m`, `1.5Gi`, `2e3`): read, compared, written in their canonical form.

use std::cmp::Ordering;

/// What the API server says about text that is no quantity at all.
pub const NOT_A_QUANTITY: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// How a quantity is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Decimal,
    Binary,
    Exponent,
}

/// An amount with nano precision.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    style: Style,
}

const NANO: i128 = 1_000_000_000;
const BINARY: [(&str, u32); 6] = [
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];
const DECIMAL: [(&str, i32); 9] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

impl Quantity {
    /// Reads a quantity; the error is Kubernetes' own.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (sign, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (-1, &text[1..]),
            Some(b'+') => (1, &text[1..]),
            _ => (1, text),
        };
        let number_len = unsigned
            .find(|c: char| c != '.' && !c.is_ascii_digit())
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(number_len);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(NOT_A_QUANTITY);
        }
        let well_formed = {
            let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
            let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
            rest.bytes().all(|b| b.is_ascii_digit())
        };
        if !well_formed {
            return Err(NOT_A_QUANTITY);
        }
        let (shift2, shift10, style) =
            Self::suffix(suffix).ok_or("unable to parse quantity's suffix")?;
        let digits: String = [whole, fraction].concat();
        let digits = digits.trim_start_matches('0');
        // Larger than any machine: clamp, as Kubernetes does.
        if digits.len() > 24 {
            return Ok(Self {
                nanos: sign * i128::from(i64::MAX) * NANO,
                style,
            });
        }
        let value: i128 = if digits.is_empty() {
            0
        } else {
            digits.parse().map_err(|_| NOT_A_QUANTITY)?
        };
        let exponent = shift10 - i32::try_from(fraction.len()).map_err(|_| NOT_A_QUANTITY)? + 9;
        let scaled = value
            .checked_shl(shift2)
            .filter(|shifted| shifted >> shift2 == value);
        let limit = i128::from(i64::MAX) * NANO;
        let nanos = match (scaled, exponent) {
            (None, _) => limit,
            (Some(_), 30..) if value != 0 => limit,
            (Some(v), 0..) => v
                .checked_mul(10_i128.pow(exponent.unsigned_abs().min(30)))
                .unwrap_or(limit),
            // Below a nano: rounded up, as Kubernetes does.
            (Some(v), _) => {
                let divisor = 10_i128.pow(exponent.unsigned_abs().min(38));
                v / divisor + i128::from(v % divisor != 0)
            }
        };
        Ok(Self {
            nanos: sign * nanos.min(limit),
            style,
        })
    }

    fn suffix(suffix: &str) -> Option<(u32, i32, Style)> {
        if suffix.is_empty() {
            return Some((0, 0, Style::Decimal));
        }
        if let Some((_, shift)) = BINARY.iter().find(|(name, _)| *name == suffix) {
            return Some((*shift, 0, Style::Binary));
        }
        if let Some((_, shift)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
            return Some((0, *shift, Style::Decimal));
        }
        let exponent = suffix.strip_prefix(['e', 'E'])?;
        exponent
            .parse::<i32>()
            .ok()
            .filter(|e| e.abs() <= 30)
            .map(|e| (0, e, Style::Exponent))
    }

    /// So many whole units.
    pub fn from_units(units: i64) -> Self {
        Self {
            nanos: i128::from(units) * NANO,
            style: Style::Decimal,
        }
    }

    /// The exact sum. It is written as the first summand is; as the second if the first is nothing.
    pub fn plus(self, other: Self) -> Self {
        let style = if self.nanos == 0 {
            other.style
        } else {
            self.style
        };
        Self {
            nanos: self.nanos.saturating_add(other.nanos),
            style,
        }
    }

    /// The exact difference, written as the first is.
    pub fn minus(self, other: Self) -> Self {
        self.plus(Self {
            nanos: -other.nanos,
            ..other
        })
    }

    /// Below zero?
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Rounded up to thousandths.
    pub fn millis(self) -> i64 {
        i64::try_from(-(-self.nanos).div_euclid(1_000_000)).unwrap_or(i64::MAX)
    }

    /// Rounded up to whole units.
    pub fn units(self) -> i64 {
        i64::try_from(-(-self.nanos).div_euclid(NANO)).unwrap_or(i64::MAX)
    }

    fn written(self, style: Style) -> String {
        let (sign, nanos) = (if self.nanos < 0 { "-" } else { "" }, self.nanos.abs());
        if nanos == 0 {
            return "0".to_owned();
        }
        if style == Style::Binary && nanos % NANO == 0 {
            let units = nanos / NANO;
            // Under 1024 a binary quantity has no suffix; it is then written as a decimal one.
            if units < 1024 {
                return Self {
                    nanos: self.nanos,
                    style,
                }
                .written(Style::Decimal);
            }
            let best = BINARY
                .iter()
                .rev()
                .find(|(_, shift)| units % (1_i128 << shift) == 0);
            return match best {
                Some((name, shift)) => format!("{sign}{}{name}", units >> shift),
                None => format!("{sign}{units}"),
            };
        }
        let fits = |exponent: i32| nanos % 10_i128.pow((exponent + 9).unsigned_abs()) == 0;
        let exponent = [18, 15, 12, 9, 6, 3, 0, -3, -6]
            .into_iter()
            .find(|e| fits(*e))
            .unwrap_or(-9);
        let mantissa = nanos / 10_i128.pow((exponent + 9).unsigned_abs());
        let suffix = match (style, exponent) {
            (_, 0) => String::new(),
            (Style::Exponent, e) => format!("e{e}"),
            (_, e) => DECIMAL
                .iter()
                .find(|(_, shift)| *shift == e)
                .map_or(String::new(), |(name, _)| (*name).to_owned()),
        };
        format!("{sign}{mantissa}{suffix}")
    }
}

impl std::fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that needs none.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.written(self.style))
    }
}

impl std::str::FromStr for Quantity {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Eq for Quantity {}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::Quantity;

    #[test]
    fn canonical_forms() {
        for (text, want) in [
            ("1", "1"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("128Mi", "128Mi"),
            ("1000", "1k"),
            ("100m", "100m"),
            ("1e3", "1e3"),
            ("-1", "-1"),
            ("0", "0"),
            ("25m", "25m"),
            ("1500k", "1500k"),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().to_string(), want, "{text}");
        }
    }

    #[test]
    fn what_is_none() {
        for text in ["", "abc", "1..2", "1 Gi", ".", "1Gx", "--1"] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
        assert!(Quantity::parse("1KiMi").is_err());
    }

    #[test]
    fn sums_are_exact() {
        let sum = |left: &str, right: &str| {
            let (left, right) = (
                Quantity::parse(left).unwrap(),
                Quantity::parse(right).unwrap(),
            );
            (left.plus(right).to_string(), left.minus(right).to_string())
        };
        assert_eq!(sum("1Gi", "512Mi"), ("1536Mi".into(), "512Mi".into()));
        assert_eq!(sum("100m", "1n"), ("100000001n".into(), "99999999n".into()));
        assert_eq!(sum("0", "1Gi").0, "1Gi");
        assert_eq!(sum("1", "1Ki").0, "1025");
        assert_eq!(Quantity::from_units(3).to_string(), "3");
        assert!(Quantity::from_units(1) > Quantity::parse("999m").unwrap());
    }

    #[test]
    fn order_and_size() {
        assert!(Quantity::parse("2").unwrap() > Quantity::parse("1999m").unwrap());
        assert_eq!(Quantity::parse("1Gi").unwrap().units(), 1 << 30);
        assert_eq!(Quantity::parse("100u").unwrap().millis(), 1);
        assert!(Quantity::parse("-1").unwrap().is_negative());
    }
}
