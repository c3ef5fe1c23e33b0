//! The database file: current keys and the revision ceiling.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};

use crate::error::OpenError;

const FORMAT: i64 = 1;

/// One row as it lies on disk.
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) value: Bytes,
    pub(crate) created: u64,
    pub(crate) modified: u64,
}

/// One change for the disk.
pub(crate) enum Line<'a> {
    Put {
        key: &'a str,
        value: &'a [u8],
        created: u64,
        modified: u64,
    },
    Delete {
        key: &'a str,
    },
}

pub(crate) struct Disk {
    connection: Connection,
    synced: Option<bool>,
}

impl Disk {
    /// Opens or makes the database, checks it, and reads everything.
    pub(crate) fn open(
        dir: &Path,
        bytes_max: Option<u64>,
    ) -> Result<(Self, Vec<Row>, u64), OpenError> {
        let file = dir.join("state.db");
        let explain = |error: rusqlite::Error| explain(&file, &error);
        // SQLite is told to follow no link, so the path must have none.
        let place = dir.canonicalize().map_err(|source| OpenError::Io {
            path: dir.to_owned(),
            source,
        })?;
        let flags = OpenFlags::default() | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let connection =
            Connection::open_with_flags(place.join("state.db"), flags).map_err(explain)?;
        tune(&connection).map_err(explain)?;
        check(&connection, &file)?;
        if let Some(bytes) = bytes_max {
            connection
                .pragma_update(None, "max_page_count", signed((bytes / 4096).max(1)))
                .map_err(explain)?;
        }
        let (rows, ceiling) = read(&connection).map_err(explain)?;
        Ok((
            Self {
                connection,
                synced: None,
            },
            rows,
            ceiling,
        ))
    }

    /// Writes all lines in one transaction; with `synced` it is on stable storage when this returns.
    pub(crate) fn commit<'a>(
        &mut self,
        lines: impl Iterator<Item = Line<'a>>,
        ceiling: u64,
        synced: bool,
    ) -> Result<(), rusqlite::Error> {
        if self.synced != Some(synced) {
            // WAL: FULL syncs the log at each commit, NORMAL keeps order and leaves the moment to the next sync.
            self.connection.pragma_update(
                None,
                "synchronous",
                if synced { "FULL" } else { "NORMAL" },
            )?;
            self.synced = Some(synced);
        }
        let transaction = self.connection.transaction()?;
        {
            let mut put = transaction.prepare_cached(
                "INSERT INTO kv(key, value, created, modified) VALUES(?1, ?2, ?3, ?4)
                 ON CONFLICT(key) DO UPDATE SET value = ?2, created = ?3, modified = ?4",
            )?;
            let mut delete = transaction.prepare_cached("DELETE FROM kv WHERE key = ?1")?;
            for line in lines {
                match line {
                    Line::Put {
                        key,
                        value,
                        created,
                        modified,
                    } => {
                        put.execute(params![key, value, signed(created), signed(modified)])?;
                    }
                    Line::Delete { key } => {
                        delete.execute([key])?;
                    }
                }
            }
            transaction
                .prepare_cached(
                    "INSERT INTO meta(name, value) VALUES('ceiling', ?1) ON CONFLICT(name) DO UPDATE SET value = ?1",
                )?
                .execute([signed(ceiling)])?;
        }
        transaction.commit()
    }
}

/// Sets the journal and the cache.
fn tune(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "cache_size", -2048)?;
    connection.pragma_update(None, "journal_size_limit", 8 << 20)?;
    Ok(())
}

/// Checks that the file is sound and of our format; a new one gets its tables.
fn check(connection: &Connection, file: &Path) -> Result<(), OpenError> {
    let explain = |error: rusqlite::Error| explain(file, &error);
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(explain)?;
    if verdict != "ok" {
        return Err(OpenError::Damaged {
            file: file.to_owned(),
            detail: verdict,
        });
    }
    let found: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(explain)?;
    match found {
        0 => connection
            .execute_batch(
                "BEGIN;
                 CREATE TABLE kv(key TEXT PRIMARY KEY, value BLOB NOT NULL, created INTEGER NOT NULL, modified INTEGER NOT NULL) WITHOUT ROWID;
                 CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
                 PRAGMA user_version = 1;
                 COMMIT;",
            )
            .map_err(explain)?,
        FORMAT => {}
        found => return Err(OpenError::Format { file: file.to_owned(), found, known: FORMAT }),
    }
    Ok(())
}

/// Reads every key and the revision ceiling.
fn read(connection: &Connection) -> Result<(Vec<Row>, u64), rusqlite::Error> {
    let ceiling: Option<i64> = connection
        .query_row("SELECT value FROM meta WHERE name = 'ceiling'", [], |row| {
            row.get(0)
        })
        .optional()?;
    let rows = {
        let mut statement = connection.prepare("SELECT key, value, created, modified FROM kv")?;
        let rows = statement.query_map([], |row| {
            Ok(Row {
                key: row.get(0)?,
                value: Bytes::from(row.get::<_, Vec<u8>>(1)?),
                created: row.get::<_, i64>(2)?.unsigned_abs(),
                modified: row.get::<_, i64>(3)?.unsigned_abs(),
            })
        })?;
        rows.collect::<Result<Vec<_>, _>>()?
    };
    Ok((rows, ceiling.unwrap_or(0).unsigned_abs()))
}

/// Revisions stay far below 2^63: at a million per second that is 292,000 years.
fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn explain(file: &Path, error: &rusqlite::Error) -> OpenError {
    let (file, detail) = (PathBuf::from(file), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            OpenError::Damaged { file, detail }
        }
        _ if matches!(
            error,
            rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::Utf8Error(..)
        ) =>
        {
            OpenError::Damaged { file, detail }
        }
        _ => OpenError::Engine { file, detail },
    }
}
