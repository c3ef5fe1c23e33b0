//! One field of a schedule, read as robfig/cron reads it, and written as plain numbers.

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// What a field may hold.
struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const FIELDS: [Bounds; 6] = [
    Bounds {
        min: 0,
        max: 59,
        names: &[],
    },
    Bounds {
        min: 0,
        max: 59,
        names: &[],
    },
    Bounds {
        min: 0,
        max: 23,
        names: &[],
    },
    Bounds {
        min: 1,
        max: 31,
        names: &[],
    },
    Bounds {
        min: 1,
        max: 12,
        names: &MONTHS,
    },
    Bounds {
        min: 0,
        max: 6,
        names: &DAYS,
    },
];

/// Returns the six fields of a schedule as lists of ranges of numbers; the error is the library's.
pub(super) fn canonical(schedule: &str) -> Result<String, String> {
    let mut fields: Vec<&str> = schedule.split_whitespace().collect();
    match fields.len() {
        5 => fields.insert(0, "0"),
        6 => {}
        found => {
            return Err(format!(
                "expected 5 to 6 fields, found {found}: [{}]",
                fields.join(" ")
            ));
        }
    }
    let read: Vec<String> = fields
        .iter()
        .zip(&FIELDS)
        .map(|(text, bounds)| field(text, bounds))
        .collect::<Result<_, _>>()?;
    Ok(read.join(" "))
}

fn field(text: &str, bounds: &Bounds) -> Result<String, String> {
    let ranges: Vec<String> = text
        .split(',')
        .filter(|range| !range.is_empty())
        .map(|text| range(text, bounds))
        .collect::<Result<_, _>>()?;
    if ranges.is_empty() {
        return Err(format!("no value in field: {text}"));
    }
    // One star among several ranges is a star: it takes everything anyway.
    if ranges.iter().any(|range| range == "*") {
        return Ok("*".to_owned());
    }
    Ok(ranges.join(","))
}

fn range(text: &str, bounds: &Bounds) -> Result<String, String> {
    let (span, step) = match text.split('/').collect::<Vec<_>>()[..] {
        [span] => (span, None),
        [span, step] => (span, Some(step)),
        _ => return Err(format!("too many slashes: {text}")),
    };
    let ends: Vec<&str> = span.split('-').collect();
    let star = matches!(ends[0], "*" | "?");
    let (start, mut end) = match ends[..] {
        _ if star => (bounds.min, bounds.max),
        [one] => {
            let one = number_or_name(one, bounds)?;
            (one, one)
        }
        [low, high] => (number_or_name(low, bounds)?, number_or_name(high, bounds)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = match step {
        None => 1,
        Some(step) => {
            let step = number(step)?;
            if ends.len() == 1 {
                end = bounds.max;
            }
            step
        }
    };
    if start < bounds.min {
        return Err(format!(
            "beginning of range ({start}) below minimum ({}): {text}",
            bounds.min
        ));
    }
    if end > bounds.max {
        return Err(format!(
            "end of range ({end}) above maximum ({}): {text}",
            bounds.max
        ));
    }
    if start > end {
        return Err(format!(
            "beginning of range ({start}) beyond end of range ({end}): {text}"
        ));
    }
    Ok(match step {
        0 => return Err(format!("step of range should be a positive number: {text}")),
        1 if star => "*".to_owned(),
        1 if start == end => start.to_string(),
        1 => format!("{start}-{end}"),
        // A step beyond the range leaves its first value; spelled out, since croner bounds steps.
        step => (start..=end)
            .step_by(usize::try_from(step).unwrap_or(usize::MAX))
            .map(|value| value.to_string())
            .collect::<Vec<_>>()
            .join(","),
    })
}

fn number_or_name(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    let named = bounds
        .names
        .iter()
        .zip(bounds.min..)
        .find(|(name, _)| **name == lower);
    named.map_or_else(|| number(text), |(_, value)| Ok(value))
}

fn number(text: &str) -> Result<u32, String> {
    let quoted = crate::go::quote(text);
    let failed = |why: &str| {
        format!("failed to parse int from {text}: strconv.Atoi: parsing {quoted}: {why}")
    };
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(failed("invalid syntax"));
    }
    let value: i64 = text.parse().map_err(|_| failed("value out of range"))?;
    if value < 0 {
        return Err(format!("negative number ({value}) not allowed: {text}"));
    }
    Ok(u32::try_from(value).unwrap_or(u32::MAX))
}
