//! `config-leader-election`: how components of a cluster agree on who works.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::go::GoDuration;

use super::{Data, read};

/// Most buckets that a lease can be split into.
const BUCKETS_MAX: u64 = 10;

/// `config-leader-election`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderElection {
    /// How long a lease lasts.
    pub lease_duration: Duration,
    /// How long its holder may take to renew it.
    pub renew_deadline: Duration,
    /// How long to wait between attempts.
    pub retry_period: Duration,
    /// Parts that the keys are split into.
    pub buckets: u32,
    /// `component.queue` to a lease name prefix.
    pub lease_prefixes: BTreeMap<String, String>,
}

impl Default for LeaderElection {
    fn default() -> Self {
        Self::parse(&Data::new()).expect("the defaults are valid")
    }
}

impl LeaderElection {
    /// Reads the map.
    pub fn parse(data: &Data) -> Result<Self, String> {
        let duration = |keys: &[&str], seconds: i64| {
            read::duration(data, keys, GoDuration::from_secs(seconds))
        };
        let lease = duration(&["lease-duration", "leaseDuration"], 60)?;
        let renew = duration(&["renew-deadline", "renewDeadline"], 40)?;
        let retry = duration(&["retry-period", "retryPeriod"], 10)?;
        let buckets = read::uint(data, &["buckets"], 32, 1)?;
        if !(1..=BUCKETS_MAX).contains(&buckets) {
            return Err(format!(
                "buckets: value must be between 1 <= {buckets} <= {BUCKETS_MAX}"
            ));
        }
        Ok(Self {
            lease_duration: lease.to_std(),
            renew_deadline: renew.to_std(),
            retry_period: retry.to_std(),
            buckets: u32::try_from(buckets).unwrap_or(1),
            lease_prefixes: data
                .iter()
                .filter_map(|(key, value)| {
                    Some((
                        key.strip_prefix("map-lease-prefix.")?.to_owned(),
                        value.clone(),
                    ))
                })
                .collect(),
        })
    }
}
