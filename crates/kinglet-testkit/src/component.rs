//! A component of the data plane (`kinglet gateway|activator|queue`) in a process of its own, on loopback.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::{instance, until};

/// Long enough for a busy machine; nothing waits this long when all is well.
const START_MAX: Duration = Duration::from_secs(30);

/// A component; killed when dropped.
pub struct Component {
    child: Child,
    ready: serde_json::Value,
    log: PathBuf,
}

impl Drop for Component {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Component {
    /// Runs `command`, which lacks where to listen and the ready file, and waits until it serves. Its log and ready file are
    /// `name` in `folder`.
    pub async fn start(mut command: Command, folder: &Path, name: &str) -> anyhow::Result<Self> {
        let ready_file = folder.join(format!("{name}.ready"));
        let log = folder.join(format!("{name}.log"));
        let _ = std::fs::remove_file(&ready_file);
        let output = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)?;
        let mut child = command
            .args(["--listen", "127.0.0.1", "--ready-file"])
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let ready = until(&format!("{name} to serve"), START_MAX, || {
            let ended = child.try_wait().ok().flatten();
            let found = std::fs::read(&ready_file)
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok());
            async move { Ok(found.map(Ok).or(ended.map(Err))) }
        })
        .await?;
        match ready {
            Ok(ready) => Ok(Self { child, ready, log }),
            Err(status) => bail!(
                "{name} ended with {status}: {}",
                std::fs::read_to_string(&log)?
            ),
        }
    }

    /// An address of the ready file.
    pub fn address(&self, name: &str) -> &str {
        self.ready[name].as_str().expect("an address")
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// `VmRSS`.
    pub fn resident_bytes(&self) -> u64 {
        instance::resident_bytes(self.id())
    }

    /// Waits until the process has ended.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let child = &mut self.child;
        until("the component to end", START_MAX, || {
            let status = child.try_wait();
            async move { Ok(status?) }
        })
        .await
    }

    /// Waits until the log has `words`.
    pub async fn logs(&self, words: &str) -> anyhow::Result<()> {
        until(words, START_MAX, || async {
            let text = std::fs::read_to_string(&self.log)?;
            Ok(text.contains(words).then_some(()))
        })
        .await
    }
}

/// The environment of a queue-proxy of Revision `ns/one-00001` before the user container on `port`.
pub fn queue_variables(port: u16) -> BTreeMap<&'static str, String> {
    let port = port.to_string();
    [
        ("SERVING_NAMESPACE", "ns"),
        ("SERVING_CONFIGURATION", "one"),
        ("SERVING_REVISION", "one-00001"),
        ("SERVING_POD", "pod"),
        ("SERVING_POD_IP", "127.0.0.1"),
        ("SERVING_LOGGING_CONFIG", ""),
        ("SERVING_LOGGING_LEVEL", ""),
        ("QUEUE_SERVING_PORT", "0"),
        ("QUEUE_SERVING_TLS_PORT", "0"),
        ("CONTAINER_CONCURRENCY", "10"),
        ("REVISION_TIMEOUT_SECONDS", "30"),
        ("USER_PORT", &port),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}
