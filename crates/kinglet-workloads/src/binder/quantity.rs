//! Kubernetes quantities (`100m`, `1.5`, `2Gi`, `1e3`) as thousandths.

/// The value in thousandths, rounded up; `None` when it is no quantity. Saturates.
pub(super) fn millis(text: &str) -> Option<i64> {
    let text = text.trim();
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (multiplier, divisor, exponent) = match suffix {
        "" => (1_i128, 1_i128, 0),
        "n" => (1, 1_000_000_000, 0),
        "u" => (1, 1_000_000, 0),
        "m" => (1, 1_000, 0),
        "k" => (1_000, 1, 0),
        "M" => (1_000_000, 1, 0),
        "G" => (1_000_000_000, 1, 0),
        "T" => (1_000_000_000_000, 1, 0),
        "P" => (1_000_000_000_000_000, 1, 0),
        "E" => (1_000_000_000_000_000_000, 1, 0),
        "Ki" => (1 << 10, 1, 0),
        "Mi" => (1 << 20, 1, 0),
        "Gi" => (1 << 30, 1, 0),
        "Ti" => (1 << 40, 1, 0),
        "Pi" => (1 << 50, 1, 0),
        "Ei" => (1 << 60, 1, 0),
        other => (
            1,
            1,
            other
                .strip_prefix(['e', 'E'])?
                .parse::<i32>()
                .ok()
                .filter(|e| (-18..=18).contains(e))?,
        ),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let (sign, whole) = match whole.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, whole.strip_prefix('+').unwrap_or(whole)),
    };
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 18 || fraction.len() > 18 {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = i32::try_from(fraction.len()).ok()?;
    let mut over = digits.checked_mul(1000)?.checked_mul(multiplier)?;
    let mut under = divisor;
    let shift = exponent - scale;
    let power = 10_i128.checked_pow(shift.unsigned_abs())?;
    if shift >= 0 {
        over = over.checked_mul(power)?;
    } else {
        under = under.checked_mul(power)?;
    }
    let rounded = (over + under - 1) / under;
    Some(i64::try_from(sign * rounded).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::millis;

    #[test]
    fn reads_every_notation() {
        let cases = [
            ("1", Some(1000)),
            ("100m", Some(100)),
            ("1.5", Some(1500)),
            (".5", Some(500)),
            ("2Ki", Some(2_048_000)),
            ("1e3", Some(1_000_000)),
            ("1E", Some(i64::MAX)),
            ("1u", Some(1)),
            ("12e-3", Some(12)),
            ("", None),
            ("abc", None),
            ("1Qi", None),
        ];
        for (text, expected) in cases {
            assert_eq!(millis(text), expected, "{text}");
        }
    }
}
