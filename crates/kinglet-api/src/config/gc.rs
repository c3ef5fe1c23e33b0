//! `config-gc`: when Revisions that serve nothing are deleted.

use std::time::Duration;

use crate::go::GoDuration;

use super::{Data, read};

/// `config-gc`. `None` means "disabled".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gc {
    /// Kept this long after creation.
    pub retain_since_create_time: Option<Duration>,
    /// Kept this long after it last served.
    pub retain_since_last_active_time: Option<Duration>,
    /// At least so many are kept.
    pub min_non_active_revisions: u32,
    /// At most so many are kept.
    pub max_non_active_revisions: Option<u32>,
}

impl Default for Gc {
    fn default() -> Self {
        Self::parse(&Data::new()).expect("the defaults are valid")
    }
}

impl Gc {
    /// Reads the map.
    pub fn parse(data: &Data) -> Result<Self, String> {
        let min = read::int(data, &["min-non-active-revisions"], 64, 20)
            .map_err(|error| format!("failed to parse data: {error}"))?;
        let retain_since_create_time = retention(data, "retain-since-create-time", 48 * 3600)?;
        let retain_since_last_active_time =
            retention(data, "retain-since-last-active-time", 15 * 3600)?;
        let max =
            match read::text(data, &["max-non-active-revisions"]) {
                None => Some(1000),
                Some("disabled") => None,
                Some(text) => Some(crate::go::parse_uint(text, 32).map_err(|error| {
                    format!("failed to parse max-non-active-revisions: {error}")
                })?),
            };
        let min = u32::try_from(min)
            .map_err(|_| format!("min-non-active-revisions must be non-negative, was: {min}"))?;
        if let Some(max) = max.filter(|max| *max < u64::from(min)) {
            return Err(format!(
                "min-non-active-revisions({min}) must be <= max-non-active-revisions({max})"
            ));
        }
        Ok(Self {
            retain_since_create_time,
            retain_since_last_active_time,
            min_non_active_revisions: min,
            max_non_active_revisions: max.and_then(|max| u32::try_from(max).ok()),
        })
    }
}

fn retention(data: &Data, key: &str, or_seconds: u64) -> Result<Option<Duration>, String> {
    match read::text(data, &[key]) {
        None => Ok(Some(Duration::from_secs(or_seconds))),
        Some("disabled") => Ok(None),
        Some(text) => match GoDuration::parse(text) {
            Ok(duration) if duration.0 < 0 => {
                Err(format!("failed to parse {key}: must be non-negative"))
            }
            Ok(duration) => Ok(Some(duration.to_std())),
            Err(error) => Err(format!("failed to parse {key}: {error}")),
        },
    }
}
