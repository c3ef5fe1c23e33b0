//! Containers without Kubernetes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kinglet_node::StartError;
use kinglet_node::cgroup::Limits;
use kinglet_node::engine::{ContainerStart, Engine};
use kinglet_node::names::HostNames;
use kinglet_node::wire::{Process, User};
use kinglet_process::Tasks;
use tokio::io::AsyncReadExt as _;

use crate::world::{Scratch, busybox_tree, until};

struct Bench {
    scratch: Scratch,
    tasks: Tasks,
    engine: Engine,
    number: u32,
}

impl Bench {
    async fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        busybox_tree(&scratch.path().join("image"));
        let tasks = Tasks::new();
        let engine = Engine::open(
            &HostNames::new(scratch.path()),
            scratch.path(),
            "/proc/self/exe".into(),
            2,
            &tasks,
        )
        .await
        .expect("engine");
        Self {
            scratch,
            tasks,
            engine,
            number: 0,
        }
    }

    fn container(&mut self, argv: &[&str]) -> ContainerStart {
        self.number += 1;
        ContainerStart {
            hostname: format!("pod-{}", self.number),
            directory: self
                .scratch
                .path()
                .join(format!("containers/{}", self.number)),
            layers: vec![self.scratch.path().join("image")],
            mounts: Vec::new(),
            read_only_root: false,
            process: Process {
                argv: argv.iter().map(|text| (*text).to_owned()).collect(),
                env: vec!["PATH=/bin".to_owned()],
                directory: PathBuf::from("/"),
                user: User::default(),
                capabilities: vec![0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31],
                no_new_privileges: false,
                filter_system_calls: true,
            },
            limits: Limits::default(),
        }
    }

    async fn run(&mut self, argv: &[&str]) -> (i32, String) {
        let sandbox = self.engine.sandbox().await.expect("sandbox");
        let start = self.container(argv);
        let mut running = self.engine.start(&sandbox, start).await.expect("start");
        let mut text = String::new();
        running
            .stdout
            .read_to_string(&mut text)
            .await
            .expect("output");
        (running.process.wait().await.code(), text)
    }

    async fn close(self) {
        self.tasks.shutdown(Duration::from_secs(5)).await;
        self.engine.close().await;
    }
}

pub(crate) async fn starts() {
    let mut bench = Bench::new("starts").await;
    let (code, text) = bench.run(&["sh", "-c", "hostname; id -u; cat /proc/self/cgroup | head -1; ls -d /tmp; ls /dev | tr '\\n' ' '; echo $HOME; cat /proc/1/comm; exit 3"]).await;
    assert_eq!(code, 3);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines[1]), ("pod-1", "0"));
    assert!(
        lines[2].ends_with(":/"),
        "an own cgroup namespace: {}",
        lines[2]
    );
    assert!(
        text.contains("/tmp")
            && text.contains(
                "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
            ),
        "{text}"
    );
    let (_, text) = bench.run(&["sh", "-c", "echo x > /proc/sys/kernel/hostname || echo refused; mount -t tmpfs x /tmp 2>/dev/null || echo refused; cat /proc/kcore | wc -c"]).await;
    assert_eq!(text, "refused\nrefused\n0\n");
    let mut times = Vec::new();
    for _ in 0..20 {
        let before = Instant::now();
        let sandbox = bench.engine.sandbox().await.expect("sandbox");
        let start = bench.container(&["sleep", "100"]);
        let running = bench.engine.start(&sandbox, start).await.expect("start");
        times.push(before.elapsed());
        drop(running);
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    times.sort();
    eprintln!(
        "   sandbox and container: median {:?}, slowest {:?}",
        times[10], times[19]
    );
    assert!(times[10] < Duration::from_secs(1), "{times:?}");
    bench.close().await;
}

pub(crate) async fn failures() {
    let mut bench = Bench::new("failures").await;
    let sandbox = bench.engine.sandbox().await.expect("sandbox");
    let missing = bench.container(&["/no-such-program"]);
    let error = bench
        .engine
        .start(&sandbox, missing)
        .await
        .expect_err("missing");
    assert_eq!(
        error.to_string(),
        "exec: \"/no-such-program\": stat /no-such-program: no such file or directory"
    );
    assert!(matches!(error, StartError::Program(_)));
    let mut stranger = bench.container(&["true"]);
    stranger.process.user.of_image = "nobody-here".to_owned();
    let error = bench
        .engine
        .start(&sandbox, stranger)
        .await
        .expect_err("unknown user");
    assert!(matches!(error, StartError::Config(_)), "{error}");
    let mut root = bench.container(&["true"]);
    root.process.user.must_not_be_root = true;
    let error = bench.engine.start(&sandbox, root).await.expect_err("root");
    assert_eq!(
        error.to_string(),
        "container has runAsNonRoot and image will run as root"
    );
    let mut small = bench.container(&["sh", "-c", "tail /dev/zero"]);
    small.limits.memory_limit_bytes = Some(16 << 20);
    let running = bench.engine.start(&sandbox, small).await.expect("start");
    running.process.wait().await;
    assert!(running.process.was_out_of_memory());
    drop(running);
    bench.close().await;
}

pub(crate) async fn leaves_nothing() {
    let mut bench = Bench::new("nothing").await;
    let names = HostNames::new(bench.scratch.path());
    let sandbox = bench.engine.sandbox().await.expect("sandbox");
    let start = bench.container(&["sleep", "1000"]);
    let running = bench.engine.start(&sandbox, start).await.expect("start");
    let pid = running.process.pid();
    // As after SIGKILL: nobody tidies up, and the next life begins while the container still runs.
    std::mem::forget(running);
    let engine = Engine::open(
        &names,
        bench.scratch.path(),
        "/proc/self/exe".into(),
        1,
        &bench.tasks,
    )
    .await
    .expect("a second life");
    until("the container of the first life is dead", || {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    })
    .await;
    drop(sandbox);
    bench.tasks.shutdown(Duration::from_secs(5)).await;
    bench.engine.close().await;
    engine.close().await;
    let links = std::fs::read_dir("/sys/class/net")
        .expect("links")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let ours: Vec<String> = links
        .filter(|name| name.starts_with(&names.link_prefix()) || *name == names.bridge())
        .collect();
    assert!(ours.is_empty(), "{ours:?}");
    let groups = walk(Path::new("/sys/fs/cgroup"), &names.cgroup());
    assert!(groups.is_empty(), "{groups:?}");
}

fn walk(directory: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_string_lossy() == name {
                found.push(entry.path());
            }
            found.extend(walk(&entry.path(), name));
        }
    }
    found
}
