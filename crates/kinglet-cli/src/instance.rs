//! Starting in the background, stopping, wiping.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use kinglet_process::private;
use serde_json::json;

use crate::args::{DataArgs, ResetArgs, UpArgs};
use crate::control::{self, Status};
use crate::{kubeconfig, location};

/// Starting includes clearing what a crash left behind.
const START_MAX: Duration = Duration::from_secs(60);
/// The process promises 30 s; a little more for a busy machine.
const STOP_MAX: Duration = Duration::from_secs(40);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// `up --detach`: starts the same command without the flag, and returns when it serves.
pub async fn detach(args: &UpArgs) -> anyhow::Result<()> {
    args.check()?;
    let data = location::data_directory(&args.data);
    if let Some(status) = running(&data).await {
        same_flags(args, &status)?;
        crate::screen::say!(
            "{}",
            crate::commands::next_steps(&status.addresses).replacen(
                "Kinglet is up",
                "Kinglet is already running",
                1
            )
        );
        return Ok(());
    }
    private::directory(&data)
        .context("making the data directory (name another one with --data)")?;
    let path = location::log_file(&data);
    let mut log = private::append(&path).context("opening the log")?;
    let began_at = log.seek(SeekFrom::End(0))?;
    let mut child = spawn_without_detach(&log)?;
    let deadline = tokio::time::Instant::now() + START_MAX;
    loop {
        if let Some(status) = child.try_wait()? {
            let mut tail = String::new();
            log.seek(SeekFrom::Start(began_at))?;
            log.read_to_string(&mut tail)?;
            bail!(
                "{} (Kinglet ended with {status}; its log is {})",
                last_words(&tail),
                path.display()
            );
        }
        if let Some(status) = running(&data).await {
            crate::screen::say!("{}", crate::commands::next_steps(&status.addresses));
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            let _ = child.kill();
            bail!(
                "Kinglet did not serve within {} s; its log is {}",
                START_MAX.as_secs(),
                path.display()
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn spawn_without_detach(log: &std::fs::File) -> anyhow::Result<Child> {
    use std::os::unix::process::CommandExt as _;
    let own: Vec<_> = std::env::args_os()
        .skip(1)
        .filter(|word| word != "--detach")
        .collect();
    Command::new(std::env::current_exe().context("finding the own program")?)
        .args(own)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .process_group(0)
        .spawn()
        .context("starting Kinglet in the background")
}

/// The status of the Kinglet that runs with this data directory, if one does.
async fn running(data: &Path) -> Option<Status> {
    let socket = location::control_socket(data);
    control::call(&socket, http::Method::GET, "/status", &json!({}))
        .await
        .ok()
}

/// Refuses typed flags that the running Kinglet was started without: they would have no effect.
fn same_flags(args: &UpArgs, status: &Status) -> anyhow::Result<()> {
    let wanted = args.flags();
    let differences: Vec<String> = wanted
        .iter()
        .filter(|(flag, _)| args.given.contains(flag))
        .filter_map(|(flag, value)| {
            let running = status.flags.get(flag)?;
            (running != value).then(|| match running.as_str() {
                "" => format!("without --{flag}, not with --{flag} {value}"),
                running => format!("with --{flag} {running}, not {value}"),
            })
        })
        .collect();
    if differences.is_empty() {
        return Ok(());
    }
    bail!(
        "Kinglet is already running (pid {}) {}; stop it with `kinglet down` to start it otherwise, or use another --data",
        status.addresses.pid,
        differences.join(" and ")
    )
}

/// Why a Kinglet that ended early did so, from its log.
pub(crate) fn last_words(log: &str) -> String {
    let lines = || {
        log.lines()
            .rev()
            .map(str::trim)
            .filter(|line| !line.is_empty())
    };
    let panic = || lines().find(|line| line.contains("panicked at"));
    let cause = lines()
        .find_map(|line| line.strip_prefix("Error: "))
        .or_else(panic)
        .or_else(|| lines().next());
    cause.unwrap_or("it said nothing").to_owned()
}

/// `down`: asks, then waits until the process is gone.
pub async fn down(args: &DataArgs) -> anyhow::Result<()> {
    let data = location::data_directory(args);
    let socket = location::control_socket(&data);
    let status: Status = control::call(&socket, http::Method::GET, "/status", &json!({})).await?;
    let pid = status.addresses.pid;
    let _: serde_json::Value =
        control::call(&socket, http::Method::POST, "/shutdown", &json!({})).await?;
    let deadline = tokio::time::Instant::now() + STOP_MAX;
    let process = Path::new("/proc").join(pid.to_string());
    while process.exists() && !is_zombie(&process) {
        if tokio::time::Instant::now() > deadline {
            bail!(
                "Kinglet (pid {pid}) is still stopping after {} s; see {}",
                STOP_MAX.as_secs(),
                location::log_file(&data).display()
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    if let Some(line) = stop_report(&data, pid).and_then(|report| report.line()) {
        crate::screen::say!("{line}.");
    }
    crate::screen::say!("Kinglet stopped. Its data stays in {}.", data.display());
    Ok(())
}

/// What the stop of process `pid` cut off, if it left word.
fn stop_report(data: &Path, pid: u32) -> Option<control::StopReport> {
    let text = std::fs::read(location::stop_report(data)).ok()?;
    let report: control::StopReport = serde_json::from_slice(&text).ok()?;
    (report.pid == pid).then_some(report)
}

/// A finished process whose parent has not asked yet is gone for our purposes.
fn is_zombie(process: &Path) -> bool {
    std::fs::read_to_string(process.join("stat")).is_ok_and(|stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
    })
}

/// `reset`: removes the data directory of a Kinglet that is not running.
pub async fn reset(args: &ResetArgs) -> anyhow::Result<()> {
    let data = location::data_directory(&args.data);
    if !data.exists() {
        crate::screen::say!("There is no data in {}.", data.display());
        return Ok(());
    }
    if running(&data).await.is_some() {
        bail!(
            "Kinglet is running with data directory {}; stop it first with `kinglet down`",
            data.display()
        );
    }
    wipeable(
        &data,
        &std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(),
    )?;
    if !args.yes {
        anstream::eprint!(
            "Remove everything in {}: objects, images, credentials? [y/N] ",
            data.display()
        );
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            bail!("nothing was removed");
        }
    }
    // It may have started while we asked.
    let _lock = lock(&data)?;
    let authority = std::fs::read_to_string(data.join("pki/ca.crt")).ok();
    kinglet_process::trash::remove_tree(&data)
        .with_context(|| format!("removing {}", data.display()))?;
    crate::screen::say!("Removed {}.", data.display());
    // The context leads nowhere now. What cannot be read stays as it is: the data is gone, which was asked for.
    if let (Some(file), Some(authority)) = (kubeconfig::users_file(), authority) {
        match kubeconfig::remove_from(&file, &data, &authority) {
            Ok(true) => crate::screen::say!("Removed the context kinglet from {}.", file.display()),
            Ok(false) => {}
            Err(error) => anstream::eprintln!("The context kinglet stays: {error:#}"),
        }
    }
    Ok(())
}

/// What Kinglet puts into its data directory.
const OURS: [&str; 14] = [
    "control.sock",
    "images",
    "kinglet.log",
    "kubeconfig",
    "last-stop.json",
    "lock",
    "node",
    "pki",
    "ready.json",
    "registries.conf",
    "run",
    "service-range",
    "state.db",
    "store",
];

/// Refuses what is not ours (somebody may have pointed --data at their home), and what is still in use.
fn wipeable(data: &Path, mountinfo: &str) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(data).with_context(|| format!("reading {}", data.display()))? {
        let name = entry
            .with_context(|| format!("reading {}", data.display()))?
            .file_name();
        if !OURS.iter().any(|ours| name == *ours)
            && !name.to_string_lossy().starts_with("kubeconfig.")
        {
            bail!(
                "{} holds {}, which is not Kinglet's; nothing was removed",
                data.display(),
                name.display()
            );
        }
    }
    // Removing files through a mount of a container's volume would remove the user's own.
    let mounted = mounts_below(mountinfo, data);
    if mounted > 0 {
        bail!(
            "a crashed Kinglet left {mounted} mounts below {}; `kinglet up` cleans them up, then `kinglet down` and `kinglet reset`",
            data.display()
        );
    }
    lock(data).map(drop)
}

fn mounts_below(mountinfo: &str, data: &Path) -> usize {
    let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    let points = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| point.replace("\\040", " "));
    points
        .filter(|point| Path::new(point) != data && Path::new(point).starts_with(&data))
        .count()
}

/// Takes the lock that a running Kinglet holds; none is there before the first start.
fn lock(data: &Path) -> anyhow::Result<Option<std::fs::File>> {
    let Ok(file) = std::fs::File::options()
        .read(true)
        .write(true)
        .open(data.join("store/lock"))
    else {
        return Ok(None);
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(_) => bail!(
            "Kinglet is running with data directory {}; stop it first with `kinglet down`",
            data.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn folder(name: &str, entries: &[&str]) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("kinglet-reset-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        for entry in entries {
            std::fs::create_dir_all(folder.join(entry)).expect("entry");
        }
        folder
    }

    #[tokio::test]
    async fn only_what_is_ours_is_wiped() {
        let reset_of = |data: &Path| ResetArgs {
            data: DataArgs {
                data: Some(data.to_owned()),
            },
            yes: true,
        };
        let ours = folder("ours", &["store", "pki", "images/layers", "node"]);
        reset(&reset_of(&ours)).await.expect("wiped");
        assert!(!ours.exists());
        reset(&reset_of(&ours))
            .await
            .expect("nothing there is fine");

        let theirs = folder("theirs", &["images", "Documents"]);
        let error = reset(&reset_of(&theirs))
            .await
            .expect_err("theirs")
            .to_string();
        assert!(
            error.contains("Documents") && error.contains("nothing was removed"),
            "{error}"
        );
        assert!(theirs.join("images").exists());
        std::fs::remove_dir_all(theirs).expect("clean");
    }

    #[tokio::test]
    async fn a_running_one_is_not_wiped_even_when_it_does_not_answer() {
        let data = folder("running", &["store"]);
        let held = std::fs::File::create(data.join("store/lock")).expect("lock file");
        held.lock().expect("lock");
        let error = reset(&ResetArgs {
            data: DataArgs {
                data: Some(data.clone()),
            },
            yes: true,
        })
        .await
        .expect_err("running")
        .to_string();
        assert!(error.contains("kinglet down"), "{error}");
        drop(held);
        std::fs::remove_dir_all(data).expect("clean");
    }

    #[test]
    fn other_flags_than_the_running_ones_are_named() {
        let args = |line: &str| {
            let words = std::iter::once("kinglet").chain(line.split(' '));
            match <crate::Arguments as clap::Parser>::parse_from(words).command {
                crate::Command::Up(mut args) => {
                    args.given = line
                        .split(' ')
                        .filter_map(|word| Some(word.strip_prefix("--")?.to_owned()))
                        .collect();
                    *args
                }
                _ => unreachable!("up"),
            }
        };
        let status: Status = serde_json::from_value(json!({"version": "1", "addresses": {"apiUrl": "", "domain": "", "kubeconfig": "", "pid": 7},
            "data": "", "flags": args("up --domain a.b").flags(), "uptimeSeconds": 0, "residentBytes": 0, "health": [], "services": 0,
            "servicesReady": 0, "pods": 0, "podsReady": 0, "inFlight": 0, "coldStarts": []})).expect("a status");
        for same in ["up", "up --domain a.b", "up --api-port 6443"] {
            same_flags(&args(same), &status).expect(same);
        }
        let error = same_flags(&args("up --domain c.d --http-port 81"), &status)
            .expect_err("different")
            .to_string();
        assert!(
            error.contains(
                "with --domain a.b, not c.d and without --http-port, not with --http-port 81"
            ),
            "{error}"
        );
    }

    #[test]
    fn mounts_that_a_crash_left() {
        let data = Path::new("/nonexistent/kinglet data");
        let info = "36 35 98:0 / /nonexistent/kinglet\\040data/node/x rw - overlay o rw\n37 35 98:0 / /nonexistent/other rw - ext4 d rw\n";
        assert_eq!(mounts_below(info, data), 1);
    }

    #[test]
    fn last_words_of_a_log() {
        for (log, words) in [
            ("", "it said nothing"),
            (
                "INFO up\nError: port 6443 is taken\n\n",
                "port 6443 is taken",
            ),
            (
                "thread 'main' panicked at src/x.rs:1:1:\nboom\nstack backtrace:\n",
                "thread 'main' panicked at src/x.rs:1:1:",
            ),
            ("Killed\n", "Killed"),
        ] {
            assert_eq!(last_words(log), words);
        }
    }

    #[tokio::test]
    async fn down_says_when_nothing_runs() {
        let data = folder("down", &["store"]);
        let error = down(&DataArgs {
            data: Some(data.clone()),
        })
        .await
        .expect_err("not running")
        .to_string();
        assert!(
            error.contains("Kinglet is not running") && error.contains("kinglet up"),
            "{error}"
        );
        std::fs::remove_dir_all(data).expect("clean");
    }
}
