//! What a container writes, passed on to those who are attached to it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// Clients that are attached to one container at a time.
const ATTACHED_MAX: usize = 32;
/// Reads of up to 64 kB that wait for one client.
const CHUNKS_MAX: usize = 16;
/// A client that takes nothing for this long is let go, since the container waits for it.
const STALL_MAX: Duration = Duration::from_secs(5);

/// Which of a container's output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// The receivers of one container's output.
#[derive(Debug, Default)]
pub(crate) struct Output(Mutex<Receivers>);

#[derive(Debug, Default)]
struct Receivers {
    all: Vec<mpsc::Sender<(Stream, Bytes)>>,
    ended: bool,
}

impl Output {
    /// What is written from now on; ends with the container, at once if that has ended. `None` when too many are attached.
    pub(crate) fn subscribe(&self) -> Option<mpsc::Receiver<(Stream, Bytes)>> {
        let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
        let mut receivers = self.0.lock();
        receivers.all.retain(|sender| !sender.is_closed());
        if receivers.all.len() >= ATTACHED_MAX {
            return None;
        }
        if !receivers.ended {
            receivers.all.push(sender);
        }
        Some(receiver)
    }

    /// Passes on what was read, to all at a time: whoever is slow holds up the container, for a bounded time, and nobody else.
    pub(crate) async fn send(&self, stream: Stream, bytes: &[u8]) {
        let all = self.0.lock().all.clone();
        if all.is_empty() || bytes.is_empty() {
            return;
        }
        let chunk = Bytes::copy_from_slice(bytes);
        let sent = all
            .iter()
            .map(|receiver| receiver.send_timeout((stream, chunk.clone()), STALL_MAX));
        let sent = join_all(sent).await;
        let let_go: Vec<_> = all
            .iter()
            .zip(sent)
            .filter_map(|(receiver, sent)| sent.is_err().then_some(receiver))
            .collect();
        if !let_go.is_empty() {
            let gone = |known: &mpsc::Sender<_>| let_go.iter().any(|one| known.same_channel(one));
            self.0.lock().all.retain(|known| !gone(known));
        }
    }

    /// Nothing more will come.
    pub(crate) fn end(&self) {
        let mut receivers = self.0.lock();
        receivers.ended = true;
        receivers.all.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn everybody_hears_it_and_nobody_holds_it_up_for_ever() {
        let output = Output::default();
        let mut first = output.subscribe().expect("room");
        let stuck = output.subscribe().expect("room");
        for _ in 0..=CHUNKS_MAX {
            output.send(Stream::Stdout, b"x").await;
            assert_eq!(
                first.recv().await,
                Some((Stream::Stdout, Bytes::from_static(b"x")))
            );
        }
        assert_eq!(output.0.lock().all.len(), 1, "the stuck one is let go");
        drop(stuck);
        output.end();
        assert_eq!(first.recv().await, None);
        let mut late = output.subscribe().expect("room");
        assert_eq!(late.recv().await, None);
    }
    #[tokio::test(start_paused = true)]
    async fn many_who_are_stuck_hold_it_up_no_longer_than_one() {
        let output = Output::default();
        let stuck: Vec<_> = (1..ATTACHED_MAX)
            .map(|_| output.subscribe().expect("room"))
            .collect();
        for _ in 0..CHUNKS_MAX {
            output.send(Stream::Stdout, b"x").await;
        }
        // Comes last, so that it would be served after those who are stuck.
        let mut quick = output.subscribe().expect("room");
        let began = tokio::time::Instant::now();
        let heard = async {
            let heard = quick.recv().await;
            (heard, began.elapsed())
        };
        let ((), (heard, after)) = tokio::join!(output.send(Stream::Stdout, b"y"), heard);
        assert_eq!(heard, Some((Stream::Stdout, Bytes::from_static(b"y"))));
        assert_eq!(after, Duration::ZERO, "the quick one waits for nobody");
        assert_eq!(began.elapsed().as_secs(), STALL_MAX.as_secs());
        assert_eq!(output.0.lock().all.len(), 1, "the stuck ones are let go");
        drop(stuck);
    }
}
