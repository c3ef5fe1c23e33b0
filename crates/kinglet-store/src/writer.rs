//! The one thread that writes to the disk: groups what waits into one commit, and takes refused writes back.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::disk::{Disk, Line};
use crate::error::WriteError;
use crate::model::Entry;
use crate::state::apply;
use crate::store::{Inner, mark, wake};
use crate::watch::Change;

/// How long writes that nobody waits for may gather, so that a burst of status updates is one commit.
const LINGER: Duration = Duration::from_millis(10);
/// How often a disk that refused is asked again.
const RETRY: Duration = Duration::from_millis(500);
/// What a waiting write costs besides its bytes.
const OP_OVERHEAD_BYTES: usize = 200;

/// What answers a synced write.
type Reply = oneshot::Sender<Result<(), String>>;

/// One change on its way to the disk.
#[derive(Debug)]
pub(crate) struct Op {
    pub(crate) key: Arc<str>,
    /// What the key holds afterwards; none when it is gone.
    pub(crate) line: Option<Entry>,
    pub(crate) before: Option<Entry>,
    pub(crate) reply: Option<Reply>,
}

impl Op {
    fn bytes(&self) -> usize {
        OP_OVERHEAD_BYTES + self.key.len() + self.line.as_ref().map_or(0, |entry| entry.value.len())
    }
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    ops: Vec<Op>,
    barriers: Vec<Reply>,
    /// Bytes in `ops` and in the writer's own backlog.
    bytes: usize,
    urgent: bool,
    closed: bool,
    abandoned: bool,
}

impl Queue {
    /// May another change wait?
    pub(crate) fn admit(&self, bytes_max: usize) -> Result<(), WriteError> {
        let waiting = self.waiting.lock();
        if waiting.closed {
            return Err(WriteError::Closed);
        }
        if waiting.bytes > bytes_max {
            return Err(WriteError::Backlog {
                bytes: waiting.bytes,
            });
        }
        Ok(())
    }

    pub(crate) fn push(&self, op: Op) {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return;
        }
        waiting.bytes += op.bytes();
        let wake = op.reply.is_some() || waiting.ops.is_empty();
        waiting.urgent |= op.reply.is_some();
        waiting.ops.push(op);
        drop(waiting);
        if wake {
            self.filled.notify_one();
        }
    }

    /// Asks for a commit soon, so that more revisions get reserved.
    pub(crate) fn nudge(&self) {
        self.waiting.lock().urgent = true;
        self.filled.notify_one();
    }

    pub(crate) fn barrier(&self) -> oneshot::Receiver<Result<(), String>> {
        let (reply, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if !waiting.closed {
            waiting.urgent = true;
            waiting.barriers.push(reply);
        }
        drop(waiting);
        self.filled.notify_one();
        receiver
    }

    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.filled.notify_one();
    }

    /// Nothing is written any more: later writes are refused, and those that wait are told by their dropped replies.
    pub(crate) fn refuse(&self) {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        let unanswered = (
            std::mem::take(&mut waiting.ops),
            std::mem::take(&mut waiting.barriers),
        );
        drop(waiting);
        drop(unanswered);
    }

    pub(crate) fn abandon(&self) {
        let mut waiting = self.waiting.lock();
        waiting.abandoned = true;
        waiting.closed = true;
        drop(waiting);
        self.filled.notify_one();
    }
}

/// Writes until closed. Holds the directory's lock.
pub(crate) fn run(inner: &Inner, mut disk: Disk, held: File) {
    // Changes that the disk has not taken yet, in order.
    let mut backlog: VecDeque<Op> = VecDeque::new();
    let mut failing = false;
    loop {
        let (barriers, closed, abandoned) = gather(&inner.queue, &mut backlog, failing);
        if abandoned {
            break;
        }
        let (revision, ceiling) = {
            let state = inner.state.read();
            (state.revision, state.ceiling)
        };
        let block = inner.options.revision_block;
        let reserve = if closed {
            revision
        } else if revision + block / 2 > ceiling {
            revision + block
        } else {
            ceiling
        };
        let synced = closed
            || reserve != ceiling
            || !barriers.is_empty()
            || backlog.iter().any(|op| op.reply.is_some());
        let result = disk.commit(lines(&backlog), reserve, synced);
        let taken: usize = match result {
            Ok(()) => {
                if failing {
                    tracing::info!("the data directory takes writes again");
                }
                failing = false;
                let mut state = inner.state.write();
                state.broken = None;
                state.ceiling = if closed { ceiling } else { reserve };
                drop(state);
                let taken = backlog.iter().map(Op::bytes).sum();
                backlog
                    .drain(..)
                    .filter_map(|op| op.reply)
                    .for_each(|reply| drop(reply.send(Ok(()))));
                barriers
                    .into_iter()
                    .for_each(|reply| drop(reply.send(Ok(()))));
                taken
            }
            Err(error) => {
                let detail = error.to_string();
                if !failing {
                    tracing::error!(error = detail, "the data directory refuses writes");
                }
                failing = true;
                refuse(inner, &mut backlog, barriers, &detail);
                squeeze(&mut backlog)
            }
        };
        inner.queue.waiting.lock().bytes -= taken;
        if closed {
            break;
        }
    }
    // Nobody may wait for an answer that cannot come: dropping the replies answers "closed".
    let mut waiting = inner.queue.waiting.lock();
    waiting.closed = true;
    waiting.ops.clear();
    waiting.barriers.clear();
    drop(waiting);
    drop(disk);
    drop(held);
}

/// Waits for work and moves it to the backlog.
fn gather(queue: &Queue, backlog: &mut VecDeque<Op>, failing: bool) -> (Vec<Reply>, bool, bool) {
    let mut waiting = queue.waiting.lock();
    if failing {
        if !waiting.closed && !waiting.urgent {
            queue.filled.wait_for(&mut waiting, RETRY);
        }
    } else {
        while waiting.ops.is_empty() && !waiting.urgent && !waiting.closed {
            queue.filled.wait(&mut waiting);
        }
        while !waiting.urgent && !waiting.closed {
            if queue.filled.wait_for(&mut waiting, LINGER).timed_out() {
                break;
            }
        }
    }
    waiting.urgent = false;
    backlog.extend(waiting.ops.drain(..));
    (
        std::mem::take(&mut waiting.barriers),
        waiting.closed,
        waiting.abandoned,
    )
}

/// The last change of each key in the backlog; earlier ones need not be written, since all become visible together.
fn lines(backlog: &VecDeque<Op>) -> impl Iterator<Item = Line<'_>> {
    let last: HashMap<&str, usize> = backlog
        .iter()
        .enumerate()
        .map(|(at, op)| (&*op.key, at))
        .collect();
    backlog
        .iter()
        .enumerate()
        .filter(move |(at, op)| last.get(&*op.key) == Some(at))
        .map(|(_, op)| match &op.line {
            Some(entry) => Line::Put {
                key: &op.key,
                value: &entry.value,
                created: entry.created,
                modified: entry.modified,
            },
            None => Line::Delete { key: &op.key },
        })
}

/// Takes back, newest first, what its callers are told did not happen; what nobody waits for stays and is tried again.
fn refuse(inner: &Inner, backlog: &mut VecDeque<Op>, barriers: Vec<Reply>, detail: &str) {
    let mut replies = barriers;
    let mut woken = Vec::new();
    let mut state = inner.state.write();
    state.broken = Some(detail.to_owned());
    // What came in since the batch was taken belongs to the same failure: a synced write there saw a healthy store.
    {
        let mut waiting = inner.queue.waiting.lock();
        backlog.extend(waiting.ops.drain(..));
        replies.append(&mut waiting.barriers);
        waiting.urgent = false;
    }
    let mut restores = Vec::new();
    for op in backlog.iter_mut().rev() {
        let Some(reply) = op.reply.take() else {
            continue;
        };
        let now = state.map.get(&op.key).cloned();
        let change: Option<Box<dyn FnOnce(u64) -> Change>> = match (op.before.clone(), &now) {
            (None, None) => None,
            (None, Some(now)) => {
                let (value, restamp) = (now.value.clone(), inner.options.restamp);
                Some(Box::new(move |revision| {
                    Change::Delete(restamp(&value, revision))
                }))
            }
            (Some(before), _) => {
                let restamp = inner.options.restamp;
                Some(Box::new(move |revision| {
                    Change::Put(restamp(&before.value, revision))
                }))
            }
        };
        if let Some(change) = change {
            let (revision, _) = apply(&mut state, &op.key, now.clone(), true, change);
            mark(inner, &op.key, revision);
            if let (Some(before), Some(entry)) = (&op.before, state.map.get_mut(&op.key)) {
                entry.created = before.created;
            }
            restores.push(Op {
                key: Arc::clone(&op.key),
                line: state.map.get(&op.key).cloned(),
                before: now,
                reply: None,
            });
            woken.push(Arc::clone(&op.key));
        }
        replies.push(reply);
    }
    inner.queue.waiting.lock().bytes += restores.iter().map(Op::bytes).sum::<usize>();
    backlog.extend(restores);
    drop(state);
    woken.iter().for_each(|key| wake(inner, key));
    replies
        .into_iter()
        .for_each(|reply| drop(reply.send(Err(detail.to_owned()))));
}

/// Keeps only the last change of each key, so that a disk that stays full does not cost memory. Returns the bytes freed.
fn squeeze(backlog: &mut VecDeque<Op>) -> usize {
    let last: HashMap<Arc<str>, usize> = backlog
        .iter()
        .enumerate()
        .map(|(at, op)| (Arc::clone(&op.key), at))
        .collect();
    let mut freed = 0;
    let mut at = 0;
    backlog.retain(|op| {
        let keep = last.get(&op.key) == Some(&at);
        if !keep {
            freed += op.bytes();
        }
        at += 1;
        keep
    });
    freed
}
