//! A disk that tears writes, fails syncs, fills up and loses power: from a seed, so that a failure is a number.
//!
//! What was not synced is, after a power cut, there in any part: a write by sectors, names up to some operation. A failed
//! sync loses what it was for, and a later one that succeeds does not bring it back, as on Linux.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::{Disk, DiskFile};

const SECTOR: usize = 512;

/// Numbers from a seed.
#[derive(Clone, Debug)]
pub(crate) struct Seeded(u64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() >> 33).expect("31 bits") % bound.max(1)
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

#[derive(Clone)]
pub(crate) struct SimulatedDisk(Arc<Mutex<State>>);

struct State {
    random: Seeded,
    dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, u64>,
    /// Names as they are after a power cut, and what was done since.
    durable_names: BTreeMap<PathBuf, u64>,
    renames: Vec<NameChange>,
    files: HashMap<u64, FileState>,
    next_file: u64,
    /// Operations until the power goes.
    operations_left: Option<u64>,
    dead: bool,
    failing_syncs: u32,
    /// Bytes that may still be allocated or written behind the end of files.
    room: Option<u64>,
}

#[derive(Clone)]
enum NameChange {
    Put(PathBuf, u64),
    Gone(PathBuf),
}

#[derive(Default, Clone)]
struct FileState {
    content: Vec<u8>,
    synced: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::Length(length) => content.resize(*length, 0),
        }
    }
}

impl SimulatedDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: Seeded::new(seed),
            dirs: BTreeSet::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            renames: Vec::new(),
            files: HashMap::new(),
            next_file: 0,
            operations_left: None,
            dead: false,
            failing_syncs: 0,
            room: None,
        })))
    }

    /// The power goes in the middle of the operation after so many.
    pub(crate) fn cut_power_after(&self, operations: u64) {
        self.0.lock().operations_left = Some(operations);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.0.lock().dead
    }

    pub(crate) fn fail_syncs(&self, count: u32) {
        self.0.lock().failing_syncs = count;
    }

    pub(crate) fn limit_room(&self, bytes: Option<u64>) {
        self.0.lock().room = bytes;
    }

    /// The power is back: what is on the disk now.
    pub(crate) fn restart(&self) {
        let mut state = self.0.lock();
        let state = &mut *state;
        let random = &mut state.random;
        for file in state.files.values_mut() {
            let mut content = std::mem::take(&mut file.synced);
            for change in file.pending.drain(..) {
                tear(&change, &mut content, random);
            }
            file.content.clone_from(&content);
            file.synced = content;
        }
        let kept = random.below(state.renames.len() + 1);
        for change in state.renames.drain(..).take(kept) {
            change.apply(&mut state.durable_names);
        }
        state.names.clone_from(&state.durable_names);
        state.operations_left = None;
        state.dead = false;
        state.failing_syncs = 0;
        state.room = None;
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Put(path, id) => names.insert(path.clone(), *id),
            Self::Gone(path) => names.remove(path),
        };
    }
}

/// Applies any part of a change.
fn tear(change: &Change, content: &mut Vec<u8>, random: &mut Seeded) {
    let Change::Write(offset, bytes) = change else {
        if !random.one_in(2) {
            change.apply(content);
        }
        return;
    };
    let whole = random.below(3);
    if whole == 0 {
        return change.apply(content);
    }
    let mut start = 0;
    while start < bytes.len() {
        let end = (start + SECTOR - (offset + start) % SECTOR).min(bytes.len());
        if whole == 1 && random.one_in(2) {
            Change::Write(offset + start, bytes[start..end].to_vec()).apply(content);
        }
        start = end;
    }
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::other("no power"));
        }
        if let Some(left) = &mut self.operations_left {
            if *left == 0 {
                self.dead = true;
                return Err(io::Error::other("the power goes"));
            }
            *left -= 1;
        }
        Ok(())
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.renames.push(change);
    }

    fn take_room(&mut self, bytes: usize) -> io::Result<()> {
        if let Some(room) = &mut self.room {
            let bytes = u64::try_from(bytes).expect("small");
            *room = room
                .checked_sub(bytes)
                .ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))?;
        }
        Ok(())
    }
}

impl Disk for SimulatedDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.lock().dirs.insert(dir.to_owned());
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        let inside = state.names.keys().chain(&state.dirs);
        Ok(inside
            .filter(|path| path.parent() == Some(dir))
            .map(|path| {
                path.file_name()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned()
            })
            .collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.0.lock();
        let id = state.names.get(path).copied();
        let id = id.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Arc::new(SimulatedFile(self.clone(), id)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.step()?;
        let id = state.next_file;
        state.next_file += 1;
        state.files.insert(id, FileState::default());
        state.rename(NameChange::Put(path.to_owned(), id));
        Ok(Arc::new(SimulatedFile(self.clone(), id)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        let id = state.names.get(from).copied();
        let id = id.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        // One operation of the file system, in this order if it is cut.
        state.rename(NameChange::Put(to.to_owned(), id));
        state.rename(NameChange::Gone(from.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.rename(NameChange::Gone(path.to_owned()));
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        let inside: Vec<PathBuf> = state
            .names
            .keys()
            .filter(|path| path.starts_with(dir))
            .cloned()
            .collect();
        for path in inside {
            state.rename(NameChange::Gone(path));
        }
        state.dirs.retain(|one| !one.starts_with(dir));
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        let state = &mut *state;
        for change in state.renames.drain(..) {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }
}

struct SimulatedFile(SimulatedDisk, u64);

impl SimulatedFile {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.0.0.lock();
        if state.dead {
            return state.step();
        }
        let length = state.files[&self.1].content.len();
        let cut = state.step();
        if let (Change::Write(offset, bytes), Ok(())) = (&change, &cut) {
            state.take_room((offset + bytes.len()).saturating_sub(length))?;
        }
        if let (Change::Length(longer), Ok(())) = (&change, &cut) {
            state.take_room(longer.saturating_sub(length))?;
        }
        let file = state.files.get_mut(&self.1).expect("a file");
        change.apply(&mut file.content);
        file.pending.push(change);
        cut
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("small")
}

impl DiskFile for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        let state = self.0.0.lock();
        Ok(u64::try_from(state.files[&self.1].content.len()).expect("small"))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.0.0.lock();
        let content = &state.files[&self.1].content;
        let rest = content.get(index(offset)..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write(index(offset), bytes.to_vec()))
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let end = index(offset + bytes);
        if end <= index(self.len()?) {
            return Ok(());
        }
        self.change(Change::Length(end))
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.change(Change::Length(index(length)))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.0.lock();
        state.step()?;
        let state = &mut *state;
        let failing = state.failing_syncs > 0;
        state.failing_syncs = state.failing_syncs.saturating_sub(1);
        let file = state.files.get_mut(&self.1).expect("a file");
        for change in file.pending.drain(..) {
            if failing {
                tear(&change, &mut file.synced, &mut state.random);
            } else {
                change.apply(&mut file.synced);
            }
        }
        if failing {
            return Err(io::Error::other("the disk did not take it"));
        }
        Ok(())
    }
}
