//! Knative's statistics as bytes: what an activator sends to the autoscaler, and what a queue-proxy answers on
//! `:9090/metrics` (spec/cluster.md 3.2, 3.4; field numbers spec/serving.md 5.1).
//!
//! proto3: a zero is left out, unknown fields are skipped, the last of a repeated scalar wins, a repeated message is
//! merged. Refused: bytes that are no such message. Ignored, one entry at a time: what no autoscaler can count.

mod fields;

use std::sync::Arc;

use crate::feed::{Key, Stat};
use fields::{Fields, Value, put_double, put_message, put_string};

/// Bytes of a queue-proxy's answer that Knative reads: two names of 253 bytes would not fit, a pod's does.
pub const STAT_BYTES_MAX: usize = 336;

/// Entries of one message: one per Revision that has traffic, six times as many as a cluster of 10,000.
pub const STATS_MAX: usize = 65_536;

/// No process has this many requests at once, or in a second. More is a fault, and would make sums infinite.
const COUNT_MAX: f64 = 1e9;

/// What one pod counted for one Revision, as it crosses between processes.
#[derive(Clone, Debug, PartialEq)]
pub struct WireStat {
    /// The Revision.
    pub revision: Key,
    /// `pod_name`: whose requests are counted.
    pub pod: Arc<str>,
    /// The counts. `in_flight` does not cross.
    pub stat: Stat,
}

/// A decoded message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WireStats {
    /// What can be counted.
    pub stats: Vec<WireStat>,
    /// Entries without a `stat` or a name, or whose numbers are no counts.
    pub ignored: usize,
}

/// Why bytes are no statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// They end within a field.
    Truncated,
    /// A number of more than 64 bits, field 0, or a type of field that protobuf does not have.
    Malformed,
    /// A name that is not UTF-8.
    NotUtf8,
    /// Groups within groups, more than anybody writes.
    TooDeep,
    /// More than [`STATS_MAX`] entries.
    TooMany,
    /// A number that is negative, not finite or beyond any count.
    NotACount,
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the message ends within a field",
            Self::Malformed => "the message is not protobuf",
            Self::NotUtf8 => "a name is not UTF-8",
            Self::TooDeep => "the message has too many groups within groups",
            Self::TooMany => "the message has more than 65536 entries",
            Self::NotACount => "a number is negative, not finite or larger than any count",
        })
    }
}

impl std::error::Error for WireError {}

/// Encodes a `Stat`: the body of a queue-proxy's `/metrics`.
pub fn encode_stat(pod: &str, stat: &Stat) -> Vec<u8> {
    let mut out = Vec::with_capacity(pod.len() + 48);
    put_string(&mut out, 1, pod);
    put_double(&mut out, 2, stat.average_concurrent_requests);
    put_double(&mut out, 3, stat.average_proxied_concurrent_requests);
    put_double(&mut out, 4, stat.request_count);
    put_double(&mut out, 5, stat.proxied_request_count);
    put_double(&mut out, 6, stat.process_uptime);
    out
}

/// Decodes a `Stat`. Answers with the pod's name, too.
pub fn decode_stat(bytes: &[u8]) -> Result<(Arc<str>, Stat), WireError> {
    let mut stat = PodStat::default();
    stat.merge(bytes)?;
    if !stat.is_countable() {
        return Err(WireError::NotACount);
    }
    Ok((stat.pod.into(), stat.stat))
}

/// Encodes a `WireStatMessages`: one frame of the socket.
pub fn encode_stats<'a>(all: impl IntoIterator<Item = (&'a Key, &'a str, &'a Stat)>) -> Vec<u8> {
    let mut out = Vec::new();
    for (revision, pod, stat) in all {
        let mut entry = Vec::with_capacity(192);
        put_string(&mut entry, 1, &revision.namespace);
        put_string(&mut entry, 2, &revision.name);
        put_message(&mut entry, 3, &encode_stat(pod, stat));
        put_message(&mut out, 1, &entry);
    }
    out
}

/// Decodes a `WireStatMessages`.
pub fn decode_stats(bytes: &[u8]) -> Result<WireStats, WireError> {
    let mut all = WireStats::default();
    for field in Fields::of(bytes) {
        let (1, Value::Bytes(entry)) = field? else {
            continue;
        };
        if all.stats.len() + all.ignored >= STATS_MAX {
            return Err(WireError::TooMany);
        }
        match decode_entry(entry)? {
            Some(stat) => all.stats.push(stat),
            None => all.ignored += 1,
        }
    }
    Ok(all)
}

/// One `WireStatMessage`; `None` when nothing can be counted for anybody.
fn decode_entry(bytes: &[u8]) -> Result<Option<WireStat>, WireError> {
    let (mut namespace, mut name) = (String::new(), String::new());
    let mut stat: Option<PodStat> = None;
    for field in Fields::of(bytes) {
        match field? {
            (1, Value::Bytes(bytes)) => namespace = text(bytes)?,
            (2, Value::Bytes(bytes)) => name = text(bytes)?,
            (3, Value::Bytes(bytes)) => stat.get_or_insert_default().merge(bytes)?,
            _ => {}
        }
    }
    let Some(stat) = stat.filter(PodStat::is_countable) else {
        return Ok(None);
    };
    Ok(
        (!namespace.is_empty() && !name.is_empty()).then(|| WireStat {
            revision: Key::new(namespace, name),
            pod: stat.pod.into(),
            stat: stat.stat,
        }),
    )
}

#[derive(Default)]
struct PodStat {
    pod: String,
    stat: Stat,
}

impl PodStat {
    fn merge(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        for field in Fields::of(bytes) {
            match field? {
                (1, Value::Bytes(bytes)) => self.pod = text(bytes)?,
                (2, Value::Double(value)) => self.stat.average_concurrent_requests = value,
                (3, Value::Double(value)) => self.stat.average_proxied_concurrent_requests = value,
                (4, Value::Double(value)) => self.stat.request_count = value,
                (5, Value::Double(value)) => self.stat.proxied_request_count = value,
                (6, Value::Double(value)) => self.stat.process_uptime = value,
                // 7 is the time at the sender: a statistic counts for the second in which it arrives.
                _ => {}
            }
        }
        Ok(())
    }

    fn is_countable(&self) -> bool {
        let stat = &self.stat;
        [
            stat.average_concurrent_requests,
            stat.average_proxied_concurrent_requests,
            stat.request_count,
            stat.proxied_request_count,
        ]
        .into_iter()
        .all(|value| (0.0..=COUNT_MAX).contains(&value))
            && stat.process_uptime.is_finite()
    }
}

fn text(bytes: &[u8]) -> Result<String, WireError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(WireError::NotUtf8),
    }
}

#[cfg(test)]
mod tests;
