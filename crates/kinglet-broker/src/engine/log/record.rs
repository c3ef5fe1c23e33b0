//! One record of a segment: 32 bytes of header, the payload, zeros up to a multiple of 8.
//!
//! | Bytes | What |
//! |---|---|
//! | 0–3 | CRC-32 of all that follows, payload included |
//! | 4–7 | length of the payload |
//! | 8–15 | the segment's mark |
//! | 16–23 | position of the event |
//! | 24–27 | up to where the segment was synced when this was written |
//! | 28 | kind |
//! | 29–31 | zeros |
//!
//! Numbers are little-endian. The mark is random for each segment: bytes of an old file, or those that a client puts into
//! an event's body, are never taken for a record. What was synced tells damage from a torn end: a record that is not valid
//! although a later one says that it was synced was damaged, and one behind all that was synced was never acknowledged.

use bytes::{Buf as _, BufMut as _, Bytes};
use jiff::Timestamp;

use super::super::progress::Entry;
use super::super::{Attempt, EVENT_BYTES_MAX, Headers, Outcome, Position, StoredEvent};

/// Before each payload.
pub(crate) const HEADER_BYTES: usize = 32;
/// The payload of a record, at most: an event of the largest size with its lengths. Progress is split before that.
pub(crate) const PAYLOAD_BYTES_MAX: usize = EVENT_BYTES_MAX + 64;
/// Progress is split into records of about this size.
pub(crate) const PROGRESS_BYTES_MAX: usize = 1 << 20;
/// Each record begins at a multiple of this.
pub(crate) const ALIGNMENT: u64 = 8;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// How everything stood when the segment began: first the counts, then entries.
    Snapshot,
    /// An event.
    Event,
    /// Entries of progress.
    Progress,
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    checksum: u32,
    pub(crate) payload_bytes: usize,
    pub(crate) position: Position,
    pub(crate) synced: u32,
    pub(crate) kind: Kind,
}

/// With header and padding.
pub(crate) fn record_bytes(payload_bytes: usize) -> usize {
    (HEADER_BYTES + payload_bytes).next_multiple_of(8)
}

impl Header {
    /// Reads a header; none when no record with this mark begins here.
    pub(crate) fn read(bytes: &[u8; HEADER_BYTES], mark: u64) -> Option<Self> {
        let mut rest = bytes.as_slice();
        let checksum = rest.get_u32_le();
        let payload_bytes = usize::try_from(rest.get_u32_le()).ok()?;
        if rest.get_u64_le() != mark || payload_bytes > PAYLOAD_BYTES_MAX {
            return None;
        }
        let position = Position(rest.get_u64_le());
        let synced = rest.get_u32_le();
        let kind = match rest.get_u8() {
            1 => Kind::Snapshot,
            2 => Kind::Event,
            3 => Kind::Progress,
            _ => return None,
        };
        Some(Self {
            checksum,
            payload_bytes,
            position,
            synced,
            kind,
        })
    }

    /// Is `record`, header and payload, as it was written?
    pub(crate) fn matches(&self, record: &[u8]) -> bool {
        crc32fast::hash(&record[4..]) == self.checksum
    }
}

/// Writes records one after the other into a buffer.
pub(crate) struct Records {
    pub(crate) bytes: Vec<u8>,
    mark: u64,
    synced: u32,
}

impl Records {
    pub(crate) fn new(mark: u64, synced: u64) -> Self {
        Self {
            bytes: Vec::new(),
            mark,
            synced: u32::try_from(synced).unwrap_or(u32::MAX),
        }
    }

    pub(crate) fn event(&mut self, position: Position, event: &StoredEvent) {
        self.record(Kind::Event, position, |out| {
            let headers = event.headers.packed();
            out.put_i64_le(event.arrived.as_microsecond());
            out.put_u32_le(u32::try_from(headers.len()).unwrap_or(u32::MAX));
            out.put_slice(headers);
            out.put_slice(&event.body);
        });
    }

    pub(crate) fn progress(&mut self, entries: &[Entry]) {
        let mut rest = entries;
        while !rest.is_empty() {
            rest = self.record(Kind::Progress, Position(0), |out| put_entries(out, rest));
        }
    }

    /// `entries` in as many records as they need, each of which says how many follow.
    pub(crate) fn snapshot(&mut self, next_number: u32, head: Position, entries: &[Entry]) {
        let mut parts: Vec<Vec<u8>> = vec![Vec::new()];
        let mut rest = entries;
        loop {
            let part = parts.last_mut().map(|part| put_entries(part, rest));
            rest = part.unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            parts.push(Vec::new());
        }
        for (index, part) in parts.iter().enumerate() {
            let following = parts.len() - 1 - index;
            self.record(Kind::Snapshot, head, |out| {
                out.put_u32_le(next_number);
                out.put_u32_le(u32::try_from(following).unwrap_or(u32::MAX));
                out.put_slice(part);
            });
        }
    }

    /// A record as it stands in another segment.
    pub(crate) fn copy(&mut self, kind: Kind, position: Position, payload: &[u8]) {
        self.record(kind, position, |out| out.put_slice(payload));
    }

    fn record<R>(
        &mut self,
        kind: Kind,
        position: Position,
        fill: impl FnOnce(&mut Vec<u8>) -> R,
    ) -> R {
        let start = self.bytes.len();
        self.bytes.put_u64_le(0);
        self.bytes.put_u64_le(self.mark);
        self.bytes.put_u64_le(position.0);
        self.bytes.put_u32_le(self.synced);
        self.bytes.put_u32_le(match kind {
            Kind::Snapshot => 1,
            Kind::Event => 2,
            Kind::Progress => 3,
        });
        let filled = fill(&mut self.bytes);
        let payload_bytes = self.bytes.len() - start - HEADER_BYTES;
        let length = u32::try_from(payload_bytes).unwrap_or(u32::MAX);
        self.bytes[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
        let checksum = crc32fast::hash(&self.bytes[start + 4..]);
        self.bytes[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
        self.bytes.resize(start + record_bytes(payload_bytes), 0);
        filled
    }
}

/// When the event of this payload arrived, in microseconds.
pub(crate) fn arrived(payload: &[u8]) -> Option<i64> {
    payload
        .first_chunk()
        .map(|first| i64::from_le_bytes(*first))
}

/// An event from its payload. Copies it, so that it does not keep the whole buffer that was read.
pub(crate) fn event(payload: &[u8]) -> Option<StoredEvent> {
    let mut payload = Bytes::copy_from_slice(payload);
    let arrived = Timestamp::from_microsecond(payload.try_get_i64_le().ok()?).ok()?;
    let headers_bytes = usize::try_from(payload.try_get_u32_le().ok()?).ok()?;
    if headers_bytes > payload.len() {
        return None;
    }
    let headers = Headers::unpack(payload.split_to(headers_bytes))?;
    Some(StoredEvent {
        arrived,
        headers,
        body: payload,
    })
}

/// A snapshot's next number, how many records of it follow, and its entries.
pub(crate) fn snapshot(payload: &[u8]) -> Option<(u32, u32, Vec<Entry>)> {
    let mut rest = payload;
    let next_number = rest.try_get_u32_le().ok()?;
    let following = rest.try_get_u32_le().ok()?;
    Some((next_number, following, entries(rest)?))
}

/// Writes entries until the record is large enough; answers with those that are left.
fn put_entries<'a>(out: &mut Vec<u8>, entries: &'a [Entry]) -> &'a [Entry] {
    let start = out.len();
    for (index, entry) in entries.iter().enumerate() {
        if out.len() - start >= PROGRESS_BYTES_MAX {
            return &entries[index..];
        }
        put_entry(out, entry);
    }
    &[]
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    let mut begin = |tag: u8, number: u32| {
        out.put_u8(tag);
        out.put_u32_le(number);
    };
    match entry {
        Entry::Subscribed {
            number,
            uid,
            begun,
            next,
        } => {
            begin(1, *number);
            out.put_u64_le(begun.0);
            out.put_u64_le(next.0);
            put_bytes(out, uid.as_bytes());
        }
        Entry::Unsubscribed { number } => begin(2, *number),
        Entry::Done { number, from, to } => {
            begin(3, *number);
            out.put_u64_le(from.0);
            out.put_u64_le(to.0);
        }
        Entry::Open {
            number,
            position,
            attempts,
        } => {
            begin(4, *number);
            out.put_u64_le(position.0);
            out.put_u32_le(*attempts);
        }
        Entry::Attempted {
            number,
            position,
            count,
            attempt,
        } => {
            begin(5, *number);
            out.put_u64_le(position.0);
            out.put_u32_le(*count);
            out.put_i64_le(attempt.at.as_microsecond());
            out.put_u16_le(attempt.status.unwrap_or(0));
            let latency = attempt.latency.as_micros();
            out.put_u32_le(u32::try_from(latency).unwrap_or(u32::MAX));
            put_bytes(out, &attempt.answer);
        }
        Entry::Finished {
            number,
            position,
            outcome,
        } => {
            begin(6, *number);
            out.put_u64_le(position.0);
            out.put_u8(match outcome {
                Outcome::Delivered => 1,
                Outcome::Filtered => 2,
                Outcome::DeadLettered => 3,
                Outcome::GivenUp => 4,
                Outcome::Damaged => 5,
            });
        }
    }
}

/// At most 64 KiB.
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.put_u16_le(length);
    out.put_slice(&bytes[..usize::from(length)]);
}

/// All entries of a record; none when it is not one of ours.
pub(crate) fn entries(payload: &[u8]) -> Option<Vec<Entry>> {
    let mut rest = payload;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        entries.push(take_entry(&mut rest)?);
    }
    Some(entries)
}

fn take_entry(rest: &mut &[u8]) -> Option<Entry> {
    let tag = rest.try_get_u8().ok()?;
    let number = rest.try_get_u32_le().ok()?;
    if tag == 2 {
        return Some(Entry::Unsubscribed { number });
    }
    let position = Position(rest.try_get_u64_le().ok()?);
    Some(match tag {
        1 => Entry::Subscribed {
            number,
            begun: position,
            next: Position(rest.try_get_u64_le().ok()?),
            uid: std::str::from_utf8(take_bytes(rest)?).ok()?.into(),
        },
        3 => Entry::Done {
            number,
            from: position,
            to: Position(rest.try_get_u64_le().ok()?),
        },
        4 => Entry::Open {
            number,
            position,
            attempts: rest.try_get_u32_le().ok()?,
        },
        5 => Entry::Attempted {
            number,
            position,
            count: rest.try_get_u32_le().ok()?,
            attempt: take_attempt(rest)?,
        },
        6 => Entry::Finished {
            number,
            position,
            outcome: match rest.try_get_u8().ok()? {
                1 => Outcome::Delivered,
                2 => Outcome::Filtered,
                3 => Outcome::DeadLettered,
                4 => Outcome::GivenUp,
                5 => Outcome::Damaged,
                _ => return None,
            },
        },
        _ => return None,
    })
}

fn take_attempt(rest: &mut &[u8]) -> Option<Attempt> {
    Some(Attempt {
        at: Timestamp::from_microsecond(rest.try_get_i64_le().ok()?).ok()?,
        status: Some(rest.try_get_u16_le().ok()?).filter(|status| *status != 0),
        latency: std::time::Duration::from_micros(rest.try_get_u32_le().ok()?.into()),
        answer: Bytes::copy_from_slice(take_bytes(rest)?),
    })
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::from(rest.try_get_u16_le().ok()?);
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let (number, position) = (any::<u32>(), any::<u64>().prop_map(Position));
        (
            number,
            position,
            any::<u32>(),
            0_u8..6,
            proptest::collection::vec(any::<u8>(), 0..50),
        )
            .prop_map(|(number, position, count, which, answer)| match which {
                0 => Entry::Subscribed {
                    number,
                    uid: format!("uid-{count}").into(),
                    begun: Position(1),
                    next: position,
                },
                1 => Entry::Unsubscribed { number },
                2 => Entry::Done {
                    number,
                    from: position,
                    to: Position(count.into()),
                },
                3 => Entry::Open {
                    number,
                    position,
                    attempts: count,
                },
                4 => Entry::Attempted {
                    number,
                    position,
                    count,
                    attempt: Attempt {
                        at: Timestamp::from_microsecond(count.into()).expect("in range"),
                        status: count.is_multiple_of(2).then_some(503),
                        latency: Duration::from_micros(count.into()),
                        answer: answer.into(),
                    },
                },
                _ => Entry::Finished {
                    number,
                    position,
                    outcome: Outcome::GivenUp,
                },
            })
    }

    proptest! {
        #[test]
        fn entries_come_back(list in proptest::collection::vec(entry(), 0..20)) {
            let mut records = Records::new(7, 0);
            records.snapshot(3, Position(9), &list);
            let (_, payload) = records.bytes.split_at(HEADER_BYTES);
            let header = Header::read(records.bytes.first_chunk().expect("a header"), 7).expect("ours");
            prop_assert_eq!(snapshot(&payload[..header.payload_bytes]), Some((3, 0, list)));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (entries(&bytes), snapshot(&bytes), event(&bytes));
        }
    }

    #[test]
    fn a_large_snapshot_is_split_and_says_what_follows() {
        let list: Vec<Entry> = (0..200_000)
            .map(|position| Entry::Open {
                number: 1,
                position: Position(position),
                attempts: 1,
            })
            .collect();
        let mut records = Records::new(7, 0);
        records.snapshot(3, Position(9), &list);
        let (mut found, mut rest, mut counts) = (Vec::new(), records.bytes.as_slice(), Vec::new());
        while !rest.is_empty() {
            let header = Header::read(rest.first_chunk().expect("a header"), 7).expect("ours");
            assert!(header.matches(&rest[..HEADER_BYTES + header.payload_bytes]));
            let (_, following, entries) =
                snapshot(&rest[HEADER_BYTES..HEADER_BYTES + header.payload_bytes]).expect("ours");
            counts.push(following);
            found.extend(entries);
            rest = &rest[record_bytes(header.payload_bytes)..];
        }
        assert_eq!(found, list);
        assert_eq!(counts, [3, 2, 1, 0]);
    }
}
