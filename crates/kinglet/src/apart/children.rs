//! A component in a process of its own: started, watched, started again when it ends, and asked to finish.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Before a child is started again; doubled each time, so that it is back within a second.
const RESTART_PAUSE: Duration = Duration::from_millis(100);
const RESTART_PAUSE_MAX: Duration = Duration::from_millis(800);
/// Who has run for this long begins with the short pause again.
const STEADY: Duration = Duration::from_secs(10);
/// How often the ready file of a start is looked for: as `up --detach` does.
const READY_CHECK: Duration = Duration::from_millis(5);
/// A start on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);

/// This program as a component, without what its start adds.
pub(super) fn command(verb: &str, log: &str) -> Command {
    // Whatever has become of the file meanwhile: the very program that runs.
    let mut command = Command::new("/proc/self/exe");
    std::os::unix::process::CommandExt::arg0(&mut command, "kinglet");
    command.arg(verb).env_clear().stdin(Stdio::null());
    command.args(["--log", log]);
    command.arg("--parent").arg(std::process::id().to_string());
    command
}

/// What to run.
pub(super) struct Program {
    name: String,
    /// What its files are called, without their ends.
    files: PathBuf,
    make: Box<dyn Fn() -> Command + Send + Sync>,
    network: Option<OwnedFd>,
}

impl Program {
    /// Makes its command anew for each start.
    pub(super) fn new(
        folder: &Path,
        name: String,
        make: impl Fn() -> Command + Send + Sync + 'static,
    ) -> Self {
        Self {
            files: folder.join(&name),
            name,
            make: Box::new(make),
            network: None,
        }
    }

    /// Runs it in this network namespace.
    pub(super) fn inside(mut self, network: OwnedFd) -> Self {
        self.network = Some(network);
        self
    }

    fn file(&self, end: &str) -> PathBuf {
        let mut path = self.files.as_os_str().to_owned();
        path.push(".");
        path.push(end);
        path.into()
    }

    async fn start(&self) -> std::io::Result<kinglet_process::Child> {
        let ready = self.file("ready");
        let _ = std::fs::remove_file(&ready);
        let mut command = (self.make)();
        command.arg("--ready-file").arg(ready);
        let network = self.network.as_ref().map(OwnedFd::try_clone).transpose()?;
        kinglet_process::Child::spawn(command, network).await
    }
}

/// One life of a child that serves.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Life {
    addresses: BTreeMap<String, SocketAddr>,
}

impl Life {
    fn read(text: &[u8]) -> Option<Self> {
        let Ok(Value::Object(all)) = serde_json::from_slice(text) else {
            return None;
        };
        let address = |value: &Value| value.as_str()?.parse().ok();
        let addresses = all
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), address(value)?)));
        Some(Self {
            addresses: addresses.collect(),
        })
    }

    /// Where it listens, by its ready file.
    pub(super) fn address(&self, name: &str) -> Option<SocketAddr> {
        self.addresses.get(name).copied()
    }
}

/// A child that is kept running. Dropped, it is killed.
pub(super) struct Child {
    name: String,
    lives: watch::Receiver<Option<Life>>,
    /// It is to finish, and not to be started again.
    finish: CancellationToken,
    kill: CancellationToken,
    over: CancellationToken,
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill.cancel();
    }
}

impl Child {
    /// The child, and what keeps it running until it is to finish.
    pub(super) fn keep(program: Program) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (lives_now, lives) = watch::channel(None);
        let child = Self {
            name: program.name.clone(),
            lives,
            finish: CancellationToken::new(),
            kill: CancellationToken::new(),
            over: CancellationToken::new(),
        };
        let (finish, kill) = (child.finish.clone(), child.kill.clone());
        // However this ends, nobody waits for it any longer.
        let over = child.over.clone().drop_guard();
        let keeping = async move {
            let _over = over;
            let keeper = Keeper {
                program,
                lives: lives_now,
                finish,
                kill,
            };
            keeper.run().await;
            let _ = std::fs::remove_file(keeper.program.file("ready"));
        };
        (child, keeping)
    }

    /// Its present life; `None` while it starts.
    pub(super) fn lives(&self) -> watch::Receiver<Option<Life>> {
        self.lives.clone()
    }

    /// What it is called.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Waits until it serves.
    pub(super) async fn serves(&self) -> anyhow::Result<()> {
        let mut lives = self.lives();
        let serving = tokio::time::timeout(START_MAX, lives.wait_for(Option::is_some));
        match serving.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => anyhow::bail!("{} was stopped before it served", self.name),
            Err(_) => anyhow::bail!(
                "{} does not serve after {} s; the log says why",
                self.name,
                START_MAX.as_secs()
            ),
        }
    }

    /// Asks it to finish, and kills it at `deadline`.
    pub(super) async fn finish(&self, deadline: Instant) {
        self.finish.cancel();
        if tokio::time::timeout_at(deadline, self.over.cancelled())
            .await
            .is_err()
        {
            tracing::warn!("{} did not finish in time and is killed", self.name);
            self.kill.cancel();
            self.over.cancelled().await;
        }
    }

    /// Asks it to finish, however long that takes.
    pub(super) async fn finish_patiently(&self) {
        self.finish.cancel();
        self.over.cancelled().await;
    }
}

struct Keeper {
    program: Program,
    lives: watch::Sender<Option<Life>>,
    finish: CancellationToken,
    kill: CancellationToken,
}

impl Keeper {
    async fn run(&self) {
        let mut pause = RESTART_PAUSE;
        loop {
            let began = Instant::now();
            let how = match self.program.start().await {
                Ok(child) => self.live(child).await,
                Err(error) => format!("could not be started: {error}"),
            };
            self.lives.send_replace(None);
            if self.is_over() {
                return;
            }
            if began.elapsed() >= STEADY {
                pause = RESTART_PAUSE;
            }
            let name = &self.program.name;
            tracing::error!(
                "{name} {how}; it is started again in {} ms",
                pause.as_millis()
            );
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.finish.cancelled() => return,
                () = self.kill.cancelled() => return,
            }
            pause = (pause * 2).min(RESTART_PAUSE_MAX);
        }
    }

    fn is_over(&self) -> bool {
        self.finish.is_cancelled() || self.kill.is_cancelled()
    }

    /// One life. Answers with how it ended.
    async fn live(&self, mut child: kinglet_process::Child) -> String {
        let ready = async {
            while self.lives.borrow().is_none() {
                tokio::time::sleep(READY_CHECK).await;
                let text = std::fs::read(self.program.file("ready"));
                if let Some(life) = text.ok().and_then(|text| Life::read(&text)) {
                    self.lives.send_replace(Some(life));
                }
            }
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = child.ended() => ended,
            () = ready => return String::new(),
            () = self.finish.cancelled() => {
                child.terminate();
                tokio::select! {
                    ended = child.ended() => ended,
                    () = self.kill.cancelled() => {
                        child.kill();
                        child.ended().await
                    }
                }
            }
            () = self.kill.cancelled() => {
                child.kill();
                child.ended().await
            }
        };
        if self.finish.is_cancelled() && !ended.well && !self.kill.is_cancelled() {
            tracing::warn!("{} ended with {}", self.program.name, ended.how);
        }
        format!("(process {}) ended with {}", child.id(), ended.how)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_file_is_read_whole_or_not_at_all() {
        let text = br#"{"http":"127.0.0.1:8012","pid":7,"odd":"here"}"#;
        let life = Life::read(text).expect("a ready file");
        assert_eq!(life.address("http"), "127.0.0.1:8012".parse().ok());
        assert_eq!((life.address("pid"), life.address("odd")), (None, None));
        assert_eq!(Life::read(b"{\"http\":"), None);
    }

    fn shell(folder: &Path, text: &'static str) -> Program {
        // `$3` is the ready file of the flags that a start adds.
        Program::new(folder, "test".to_owned(), move || {
            let mut command = Command::new("sh");
            command.args(["-c", text, "sh", "--log"]);
            command
        })
    }

    #[tokio::test]
    async fn a_child_that_ends_is_started_again_until_it_is_to_finish() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = "trap 'exit 0' TERM; echo >> \"$3.lives\"; [ $(wc -l < \"$3.lives\") -gt 2 ] || exit 1; echo '{}' > \"$3\"; while :; do sleep 0.05; done";
        let (child, keeping) = Child::keep(shell(folder.path(), text));
        let tasks = kinglet_process::Tasks::new();
        tasks.spawn("keeper", keeping);
        child.serves().await.expect("its third life");
        child.finish_patiently().await;
        let lives = std::fs::read(folder.path().join("test.ready.lives")).expect("lives");
        assert_eq!(lives.len(), 3);
        assert!(!folder.path().join("test.ready").exists());
        assert!(tasks.shutdown(Duration::from_secs(10)).await);
    }

    #[tokio::test]
    async fn a_child_that_does_not_finish_is_killed() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = "trap '' TERM; echo '{}' > \"$3\"; while :; do sleep 0.05; done";
        let (child, keeping) = Child::keep(shell(folder.path(), text));
        let tasks = kinglet_process::Tasks::new();
        tasks.spawn("keeper", keeping);
        child.serves().await.expect("it serves");
        child
            .finish(Instant::now() + Duration::from_millis(50))
            .await;
        assert!(tasks.shutdown(Duration::from_secs(10)).await);
    }
}
