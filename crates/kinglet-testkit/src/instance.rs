//! One running Kinglet.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::until::{patiently, until};

const START_MAX: Duration = Duration::from_secs(60);
/// What Kinglet promises.
const STOP_MAX: Duration = Duration::from_secs(30);

/// What `--ready-file` holds.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// Kubernetes API.
    pub api_url: String,
    /// Gateway.
    pub http_url: Option<String>,
    /// Gateway, over TLS.
    pub https_url: Option<String>,
    /// Certificate of the authority for hosts.
    pub https_ca: Option<String>,
    /// Default domain.
    pub domain: String,
    /// Kubeconfig.
    pub kubeconfig: String,
    /// Process.
    pub pid: u32,
}

/// How to start it.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The program; `KINGLET_BIN` or what the caller built otherwise.
    pub binary: PathBuf,
    /// Keep using this data directory (it is not removed then).
    pub data: Option<PathBuf>,
    /// registries.conf text.
    pub registries: Option<String>,
    /// Port of the gateway; any free one otherwise.
    pub http_port: u16,
    /// More flags.
    pub flags: Vec<String>,
    /// Kubeconfig of another API server: only what works on objects runs, no API server of ours.
    pub attach: Option<PathBuf>,
}

/// A running Kinglet; ends with its guard.
#[derive(Debug)]
pub struct Instance {
    child: Child,
    /// Where it serves.
    pub ready: Ready,
    /// Data directory.
    pub data: PathBuf,
    owned: bool,
}

/// The shape in which instances run that do not say one themselves, from `KINGLET_TEST_SHAPE`: all in one process, or with
/// the data plane in processes of its own (`apart`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One process.
    Whole,
    /// Gateway, activator, and a queue-proxy for each pod apart.
    Apart,
}

impl Shape {
    /// What the environment asks for; a word that is no shape must not pass for the ordinary one.
    pub fn asked() -> Self {
        match std::env::var("KINGLET_TEST_SHAPE").as_deref() {
            Err(_) | Ok("" | "whole") => Self::Whole,
            Ok("apart") => Self::Apart,
            Ok(other) => panic!("KINGLET_TEST_SHAPE is {other:?}, and must be whole or apart"),
        }
    }
}

/// A new folder below the system's temporary one.
pub fn scratch(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("kinglet-{name}-{}-{number}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    path
}

impl Setup {
    /// The program that tests use: `KINGLET_BIN` where set, else `built`.
    pub fn of(built: &str) -> Self {
        let binary =
            std::env::var_os("KINGLET_BIN").map_or_else(|| PathBuf::from(built), PathBuf::from);
        Self {
            binary,
            ..Self::default()
        }
    }

    /// The command line, for starts that are expected to fail.
    pub fn command(&self, data: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        match &self.attach {
            None => command
                .args(["up", "--api-port", "0", "--kubeconfig"])
                .arg(data.join("user.kubeconfig")),
            Some(kubeconfig) => command.args(["attach", "--kubeconfig"]).arg(kubeconfig),
        };
        command.args(["--http-port", &self.http_port.to_string(), "--data"]);
        command.arg(data);
        let says = self.flags.iter().any(|flag| flag == "--data-plane");
        if self.attach.is_none() && !says && Shape::asked() == Shape::Apart {
            command.args(["--data-plane", "apart"]);
        }
        if self.registries.is_some() {
            command
                .arg("--registries")
                .arg(data.join("test-registries.conf"));
        }
        command.args(&self.flags).stdin(Stdio::null());
        command
    }

    /// Starts it and waits until it serves.
    pub async fn start(&self) -> anyhow::Result<Instance> {
        let (data, owned) = self
            .data
            .clone()
            .map_or_else(|| (scratch("data"), true), |data| (data, false));
        std::fs::create_dir_all(&data)?;
        if let Some(text) = &self.registries {
            std::fs::write(data.join("test-registries.conf"), text)?;
        }
        let ready_file = data.join("ready.json");
        let _ = std::fs::remove_file(&ready_file);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(data.join("test.log"))?;
        let mut child = self
            .command(&data)
            .arg("--ready-file")
            .arg(&ready_file)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        let started = until("kinglet to serve", START_MAX, || {
            let ended = child.try_wait().ok().flatten();
            let found = std::fs::read(&ready_file)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Ready>(&bytes).ok());
            async move { Ok(found.map(Ok).or(ended.map(Err))) }
        })
        .await;
        match started {
            Ok(Ok(ready)) => Ok(Instance {
                child,
                ready,
                data,
                owned,
            }),
            Ok(Err(status)) => bail!(
                "kinglet ended with {status}: {}",
                std::fs::read_to_string(data.join("test.log")).unwrap_or_default()
            ),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                bail!(
                    "{error:#}: {}",
                    std::fs::read_to_string(data.join("test.log")).unwrap_or_default()
                )
            }
        }
    }
}

impl Instance {
    /// `host:port` of the gateway.
    pub fn gateway(&self) -> &str {
        self.ready
            .http_url
            .as_deref()
            .unwrap_or_default()
            .trim_start_matches("http://")
            .trim_end_matches('/')
    }

    /// `host:port` of the gateway for https.
    pub fn https(&self) -> &str {
        self.ready
            .https_url
            .as_deref()
            .unwrap_or_default()
            .trim_start_matches("https://")
            .trim_end_matches('/')
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.join("test.log")).unwrap_or_default()
    }

    /// Resident memory of the process in bytes.
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(self.child.id())
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self, limit: Duration) -> anyhow::Result<std::process::ExitStatus> {
        until("kinglet to end by itself", limit, || {
            let ended = self.child.try_wait();
            async move { Ok(ended?) }
        })
        .await
    }

    /// Ends it in good order; an error when it takes longer than it promises or does not end with 0.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        terminate(self.child.id());
        let status = until("kinglet to end after SIGTERM", STOP_MAX, || {
            let ended = self.child.try_wait();
            async move { Ok(ended?) }
        })
        .await?;
        if !status.success() {
            bail!("kinglet ended with {status}: {}", self.log());
        }
        Ok(())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // In good order, so that nothing is left on the host; by force when that takes too long.
            terminate(self.child.id());
            // As long as a stop may take: killed before its end, it would leave groups, links and mounts behind.
            let patience = std::time::Instant::now() + patiently(STOP_MAX);
            while matches!(self.child.try_wait(), Ok(None)) && std::time::Instant::now() < patience
            {
                #[expect(clippy::disallowed_methods, reason = "a destructor cannot await")]
                std::thread::sleep(Duration::from_millis(10));
            }
            self.kill();
        }
        if std::thread::panicking() {
            eprintln!(
                "kinglet's log ({}):\n{}",
                self.data.display(),
                tail(&self.log(), 60)
            );
        }
        if self.owned {
            let _ = std::fs::remove_dir_all(&self.data);
        }
    }
}

/// SIGTERM by id.
pub fn terminate(pid: u32) {
    let _ = Command::new("kill")
        .args(["-TERM", &pid.to_string()])
        .status();
}

/// `VmRSS` of a process.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
