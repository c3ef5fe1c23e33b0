//! Starting in the background, stopping, wiping.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::args::{DataArgs, ResetArgs, UpArgs};
use crate::control::{self, Status};
use crate::location;

/// Starting includes clearing what a crash left behind.
const START_MAX: Duration = Duration::from_secs(60);
/// The process promises 30 s; a little more for a busy machine.
const STOP_MAX: Duration = Duration::from_secs(40);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// `up --detach`: starts the same command without the flag, and returns when it serves.
pub async fn detach(args: &UpArgs) -> anyhow::Result<()> {
    let data = location::data_directory(&args.data);
    std::fs::create_dir_all(&data).with_context(|| format!("making the data directory {}", data.display()))?;
    if let Ok(status) = control::call::<Status>(&location::control_socket(&data), http::Method::GET, "/status", &json!({})).await {
        anstream::println!("Kinglet is already running (pid {}).\n{}", status.addresses.pid, crate::commands::next_steps(&status.addresses));
        return Ok(());
    }
    let path = location::log_file(&data);
    let mut log = std::fs::OpenOptions::new().create(true).append(true).read(true).open(&path).with_context(|| format!("opening the log {}", path.display()))?;
    let began_at = log.seek(SeekFrom::End(0))?;
    let own: Vec<_> = std::env::args_os().skip(1).filter(|word| word != "--detach").collect();
    let mut child = {
        use std::os::unix::process::CommandExt as _;
        Command::new(std::env::current_exe().context("finding the own program")?)
            .args(own)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .process_group(0)
            .spawn()
            .context("starting Kinglet in the background")?
    };
    let deadline = tokio::time::Instant::now() + START_MAX;
    loop {
        if let Some(status) = child.try_wait()? {
            let mut tail = String::new();
            log.seek(SeekFrom::Start(began_at))?;
            log.read_to_string(&mut tail)?;
            let why = tail.lines().rev().find_map(|line| line.strip_prefix("Error: ")).unwrap_or("it said nothing");
            bail!("{why} (Kinglet ended with {status}; its log is {})", path.display());
        }
        if let Ok(status) = control::call::<Status>(&location::control_socket(&data), http::Method::GET, "/status", &json!({})).await {
            anstream::println!("{}", crate::commands::next_steps(&status.addresses));
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            let _ = child.kill();
            bail!("Kinglet did not serve within {} s; its log is {}", START_MAX.as_secs(), path.display());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// `down`: asks, then waits until the process is gone.
pub async fn down(args: &DataArgs) -> anyhow::Result<()> {
    let data = location::data_directory(args);
    let socket = location::control_socket(&data);
    let status: Status = control::call(&socket, http::Method::GET, "/status", &json!({})).await?;
    let pid = status.addresses.pid;
    let _: serde_json::Value = control::call(&socket, http::Method::POST, "/shutdown", &json!({})).await?;
    let deadline = tokio::time::Instant::now() + STOP_MAX;
    let process = Path::new("/proc").join(pid.to_string());
    while process.exists() && !is_zombie(&process) {
        if tokio::time::Instant::now() > deadline {
            bail!("Kinglet (pid {pid}) is still stopping after {} s; see {}", STOP_MAX.as_secs(), location::log_file(&data).display());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    anstream::println!("Kinglet stopped. Its data stays in {}.", data.display());
    Ok(())
}

/// A finished process whose parent has not asked yet is gone for our purposes.
fn is_zombie(process: &Path) -> bool {
    std::fs::read_to_string(process.join("stat")).is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}

/// `reset`: removes the data directory of a Kinglet that is not running.
pub async fn reset(args: &ResetArgs) -> anyhow::Result<()> {
    let data = location::data_directory(&args.data);
    if !data.exists() {
        anstream::println!("There is no data in {}.", data.display());
        return Ok(());
    }
    if control::call::<Status>(&location::control_socket(&data), http::Method::GET, "/status", &json!({})).await.is_ok() {
        bail!("Kinglet is running with data directory {}; stop it first with `kinglet down`", data.display());
    }
    // Somebody may have pointed --data at their home: only what looks like ours is wiped.
    let ours = ["kubeconfig", "pki", "store", "images"].iter().any(|name| data.join(name).exists());
    if !ours && std::fs::read_dir(&data)?.next().is_some() {
        bail!("{} does not look like a Kinglet data directory; nothing was removed", data.display());
    }
    if !args.yes {
        anstream::eprint!("Remove everything in {}: objects, images, credentials? [y/N] ", data.display());
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            bail!("nothing was removed");
        }
    }
    std::fs::remove_dir_all(&data).with_context(|| format!("removing {}", data.display()))?;
    anstream::println!("Removed {}.", data.display());
    Ok(())
}
