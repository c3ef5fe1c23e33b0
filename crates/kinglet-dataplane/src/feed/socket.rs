//! A feed over a Unix socket: the control plane's end and a component's.
//!
//! Always: a connection is told everything first; then, of many changes at once, the state that came of them; a component
//! that does not read, and a control plane that is gone, cost the other side a bounded wait and no memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kinglet_process::Tasks;
use kinglet_process::accept::Acceptor;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::{FEED_BYTES_MAX, Snapshot};

/// Components at once: some gateways and activators; more wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 64;
/// A component that takes nothing for this long is left; it comes back and is told everything.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest line: a Revision with ten thousand pods at 100 bytes each, four times.
const LINE_BYTES_MAX: usize = 4 << 20;
/// Before a broken connection is made again; doubled each time.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Tells every component that connects to `listener` what `snapshots` says, until `tasks` are cancelled.
pub async fn serve(
    listener: UnixListener,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    tasks: Tasks,
) {
    let acceptor = Acceptor::new(listener, "feed", CONNECTIONS_MAX);
    let stop = tasks.token();
    loop {
        let (stream, permit) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = acceptor.next() => accepted,
        };
        let snapshots = snapshots.clone();
        tasks.spawn_cancellable("feed connection", async move {
            if let Err(reason) = tell(stream, snapshots).await {
                tracing::debug!(reason, "a component's feed has ended");
            }
            drop(permit);
        });
    }
}

async fn tell(
    stream: UnixStream,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
) -> Result<(), String> {
    let (mut reader, mut writer) = stream.into_split();
    let mut told = Arc::<Snapshot>::default();
    loop {
        let now = snapshots.borrow_and_update().clone();
        let lines = now.lines_since(&told);
        let sent = tokio::time::timeout(SEND_TIMEOUT, writer.write_all(lines.as_bytes()));
        match sent.await {
            Ok(Ok(())) => told = now,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_elapsed) => return Err("it takes nothing".to_owned()),
        }
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() {
                return Ok(());
            },
            // A component says nothing: what comes is its end.
            read = reader.read_u8() => {
                return match read {
                    Ok(_) => Err("a component has nothing to say".to_owned()),
                    Err(error) => Err(error.to_string()),
                };
            }
        }
    }
}

/// A component's end.
#[derive(Clone, Debug)]
pub struct FeedSocket {
    path: PathBuf,
}

impl FeedSocket {
    /// The socket at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Follows the feed until nobody wants snapshots any more; a broken connection is made again. The version of the
    /// snapshots counts them, over all connections.
    pub async fn run(self, snapshots: watch::Sender<Arc<Snapshot>>) {
        let mut pause = RETRY_PAUSE;
        loop {
            let before = snapshots.borrow().version;
            let Err(reason) = self.listen(&snapshots).await else {
                return;
            };
            if snapshots.borrow().version > before {
                pause = RETRY_PAUSE;
            }
            tracing::warn!(feed = %self.path.display(), reason, "the feed is broken; what it said stays in force, and it is opened again");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = snapshots.closed() => return,
            }
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    /// Ends well when nobody wants snapshots any more.
    async fn listen(&self, snapshots: &watch::Sender<Arc<Snapshot>>) -> Result<(), String> {
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|error| error.to_string())?;
        let mut lines = Lines::new(stream);
        let mut heard = Snapshot::default();
        loop {
            let line = tokio::select! {
                line = lines.next() => line?,
                () = snapshots.closed() => return Ok(()),
            };
            if heard.take(line)? {
                lines.begin_version();
                snapshots.send_modify(|current| {
                    heard.version = current.version + 1;
                    *current = Arc::new(heard.clone());
                });
            }
        }
    }
}

/// Bounded lines of a stream.
struct Lines {
    reader: BufReader<UnixStream>,
    line: Vec<u8>,
    /// Bytes since the last version.
    read: u64,
}

impl Lines {
    fn new(stream: UnixStream) -> Self {
        Self {
            reader: BufReader::new(stream),
            line: Vec::new(),
            read: 0,
        }
    }

    fn begin_version(&mut self) {
        self.read = 0;
    }

    /// The next line. Must be polled to its end.
    async fn next(&mut self) -> Result<&str, String> {
        self.line.clear();
        let bounded = &mut (&mut self.reader).take(LINE_BYTES_MAX as u64);
        let count = bounded
            .read_until(b'\n', &mut self.line)
            .await
            .map_err(|error| error.to_string())?;
        self.read += count as u64;
        if self.line.last() != Some(&b'\n') {
            return Err(match count == LINE_BYTES_MAX {
                true => format!("a line is longer than {} MiB", LINE_BYTES_MAX >> 20),
                false => "the control plane closed it".to_owned(),
            });
        }
        if self.read > FEED_BYTES_MAX {
            let most = FEED_BYTES_MAX >> 20;
            return Err(format!("a version is larger than {most} MiB"));
        }
        std::str::from_utf8(&self.line).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinglet_decide::feed::{Key, ServiceBackend};

    fn with(service: &str, before: &Snapshot) -> Arc<Snapshot> {
        let mut next = before.clone();
        let key = Key::new("ns", service);
        next.services.insert(key, ServiceBackend::default());
        next.version += 1;
        Arc::new(next)
    }

    /// A broken connection is made again, and what is told then is complete.
    #[tokio::test]
    async fn a_feed_resumes_with_everything() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("feed.sock");
        let first = with("one", &Snapshot::default());
        let (says, snapshots) = watch::channel(Arc::clone(&first));
        let serve_again = || {
            let _ = std::fs::remove_file(&path);
            let tasks = Tasks::new();
            let listener = UnixListener::bind(&path).expect("a socket");
            tasks.spawn("feed", serve(listener, snapshots.clone(), tasks.clone()));
            tasks
        };
        let (heard_by, mut heard) = watch::channel(Arc::<Snapshot>::default());
        let component = Tasks::new();
        component.spawn_cancellable("component", FeedSocket::new(&path).run(heard_by));
        let tasks = serve_again();
        let got = heard.wait_for(|got| got.services.len() == 1).await;
        assert_eq!(got.expect("told").version, 1);
        let second = with("two", &first);
        says.send_replace(Arc::clone(&second));
        let got = heard.wait_for(|got| got.services.len() == 2).await;
        assert_eq!(got.expect("told").version, 2);
        tasks.shutdown(Duration::from_secs(5)).await;
        says.send_replace(with("three", &Snapshot::default()));
        assert_eq!(heard.borrow().services.len(), 2, "it stays in force");
        let tasks = serve_again();
        let got = heard.wait_for(|got| got.services.contains_key(&Key::new("ns", "three")));
        assert_eq!(got.await.expect("told").services.len(), 1);
        component.shutdown(Duration::from_secs(5)).await;
        tasks.shutdown(Duration::from_secs(5)).await;
    }

    #[tokio::test]
    async fn a_line_without_end_is_not_read() {
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        let mut lines = Lines::new(theirs);
        let flood = vec![b'x'; LINE_BYTES_MAX + 1];
        let (_, next) = tokio::join!(ours.write_all(&flood), lines.next());
        assert!(next.is_err_and(|reason| reason.contains("longer than 4 MiB")));
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        ours.write_all(b"{\"version\"").await.expect("sent");
        drop(ours);
        let reason = Lines::new(theirs).next().await.map(str::to_owned);
        assert!(reason.is_err_and(|reason| reason.contains("closed")));
    }
}
