//! Reads the records of one segment in order, and finds the next valid one behind a damaged one.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::super::Position;
use super::disk::DiskFile;
use super::record::{ALIGNMENT, HEADER_BYTES, Header, Kind, record_bytes};

/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// A valid record.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) position: Position,
    /// See [`super::record`].
    pub(crate) synced: u64,
    pub(crate) payload: Bytes,
}

/// What stands at a place.
#[derive(Debug)]
pub(crate) enum Found {
    Record(Record),
    /// Not a valid record; [`Scan::resume`] goes on behind it.
    Damaged,
    End,
}

/// A place in a segment, up to its end.
pub(crate) struct Scan {
    file: Arc<dyn DiskFile>,
    mark: u64,
    pub(crate) offset: u64,
    end: u64,
    chunk: Bytes,
    chunk_at: u64,
}

impl Scan {
    pub(crate) fn new(file: Arc<dyn DiskFile>, mark: u64, offset: u64, end: u64) -> Self {
        Self {
            file,
            mark,
            offset,
            end,
            chunk: Bytes::new(),
            chunk_at: 0,
        }
    }

    pub(crate) fn next(&mut self) -> io::Result<Found> {
        if self.offset >= self.end {
            return Ok(Found::End);
        }
        let Some(header) = self
            .bytes(HEADER_BYTES)?
            .and_then(|bytes| Header::read(bytes.first_chunk()?, self.mark))
        else {
            return Ok(Found::Damaged);
        };
        let Some(record) = self.bytes(HEADER_BYTES + header.payload_bytes)? else {
            return Ok(Found::Damaged);
        };
        if !header.matches(&record) {
            return Ok(Found::Damaged);
        }
        self.offset += to_u64(record_bytes(header.payload_bytes));
        Ok(Found::Record(Record {
            kind: header.kind,
            position: header.position,
            synced: header.synced.into(),
            payload: record.slice(HEADER_BYTES..),
        }))
    }

    /// Goes on at the next valid record behind a damaged one.
    pub(crate) fn resume(&mut self) -> io::Result<Found> {
        self.offset += ALIGNMENT;
        while self.offset < self.end {
            // Whole chunks without our mark are passed quickly: preallocated zeros are the common case.
            let Some(bytes) = self.bytes(HEADER_BYTES)? else {
                self.offset = self.end;
                break;
            };
            let ours = bytes
                .first_chunk()
                .is_some_and(|header| Header::read(header, self.mark).is_some());
            if ours {
                match self.next()? {
                    Found::Damaged => {}
                    found => return Ok(found),
                }
            }
            self.offset += ALIGNMENT;
        }
        Ok(Found::End)
    }

    /// The next `count` bytes; none when the segment has fewer.
    fn bytes(&mut self, count: usize) -> io::Result<Option<Bytes>> {
        if self.end - self.offset < to_u64(count) {
            return Ok(None);
        }
        let held = self.offset.checked_sub(self.chunk_at).and_then(|skip| {
            let skip = usize::try_from(skip).ok()?;
            (skip.checked_add(count)? <= self.chunk.len()).then_some(skip)
        });
        if let Some(skip) = held {
            return Ok(Some(self.chunk.slice(skip..skip + count)));
        }
        let rest = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let mut chunk = vec![0; count.max(CHUNK_BYTES).min(rest)];
        let read = self.file.read_at(&mut chunk, self.offset)?;
        chunk.truncate(read);
        self.chunk = chunk.into();
        self.chunk_at = self.offset;
        Ok((read >= count).then(|| self.chunk.slice(..count)))
    }
}

pub(crate) fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
