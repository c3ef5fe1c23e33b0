//! Containers without Kubernetes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kinglet_node::NetworkOptions;
use kinglet_node::StartError;
use kinglet_node::cgroup::Limits;
use kinglet_node::engine::{ContainerStart, Engine};
use kinglet_node::names::HostNames;
use kinglet_node::wire::{Isolation, Process, User};
use kinglet_process::Tasks;
use tokio::io::AsyncReadExt as _;

use crate::world::{Scratch, busybox_tree, until};

pub(crate) struct Bench {
    scratch: Scratch,
    tasks: Tasks,
    pub(crate) engine: Engine,
    number: u32,
}

impl Bench {
    pub(crate) async fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        busybox_tree(&scratch.path().join("image"));
        let tasks = Tasks::new();
        let engine = Engine::open(
            &HostNames::new(scratch.path()),
            scratch.path(),
            "/proc/self/exe".into(),
            2,
            NetworkOptions::default(),
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

    pub(crate) fn container(&mut self, argv: &[&str]) -> ContainerStart {
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
            isolation: Isolation::default(),
            stdin: None,
            terminal: false,
            process: Process {
                argv: argv.iter().map(|text| (*text).to_owned()).collect(),
                env: vec!["PATH=/bin".to_owned()],
                directory: PathBuf::from("/"),
                user: User::default(),
                capabilities: vec![0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31],
                no_new_privileges: false,
                filter_system_calls: true,
                oom_score_adj: 0,
            },
            limits: Limits::default(),
        }
    }

    pub(crate) fn names(&self) -> HostNames {
        HostNames::new(self.scratch.path())
    }

    /// A directory of the case, made if it is missing.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        let path = self.scratch.path().join(name);
        std::fs::create_dir_all(&path).expect("directory");
        path
    }

    async fn run_program(&mut self, argv: &[&str]) -> (i32, String) {
        let start = self.container(argv);
        self.run(start).await
    }

    /// Exit code and standard output of a container that ends.
    pub(crate) async fn run(&mut self, start: ContainerStart) -> (i32, String) {
        let sandbox = self.engine.sandbox().await.expect("sandbox");
        let mut running = self.engine.start(&sandbox, start).await.expect("start");
        let mut text = String::new();
        running
            .stdout
            .read_to_string(&mut text)
            .await
            .expect("output");
        (running.process.wait().await.code(), text)
    }

    pub(crate) async fn close(self) {
        self.tasks.shutdown(Duration::from_secs(5)).await;
        self.engine.close(soon()).await;
    }
}

pub(crate) async fn starts() {
    let mut bench = Bench::new("starts").await;
    let (code, text) = bench.run_program(&["sh", "-c", "hostname; id -u; cat /proc/self/cgroup | head -1; ls -d /tmp; ls /dev | tr '\\n' ' '; echo $HOME; cat /proc/1/comm; exit 3"]).await;
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
                "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
            ),
        "{text}"
    );
    let (_, text) = bench.run_program(&["sh", "-c", "echo x > /proc/sys/kernel/hostname || echo refused; mount -t tmpfs x /tmp 2>/dev/null || echo refused; cat /proc/kcore | wc -c"]).await;
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
    // A process that is killed holds no lock on its record either; this one is still there.
    let record = names.bridge().replacen("kb", "/run/kinglet/instances/", 1);
    std::fs::remove_file(record).expect("the record of the first life");
    let engine = Engine::open(
        &names,
        bench.scratch.path(),
        "/proc/self/exe".into(),
        1,
        NetworkOptions::default(),
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
    bench.engine.close(soon()).await;
    engine.close(soon()).await;
    let links = std::fs::read_dir("/sys/class/net")
        .expect("links")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let ours: Vec<String> = links
        .filter(|name| name.starts_with(&names.link_prefix()) || *name == names.bridge())
        .collect();
    assert!(ours.is_empty(), "{ours:?}");
    let groups = groups_named(&names.cgroup());
    assert!(groups.is_empty(), "{groups:?}");
}

/// What a container under limits sees: the table is what real ones see on a machine with version 1.
pub(crate) async fn sees() {
    let mut bench = Bench::new("sees").await;
    let mut start = bench.container(&["cat", "/proc/self/mountinfo"]);
    start.limits = Limits {
        cpu_request_milli: 100,
        cpu_limit_milli: Some(500),
        memory_limit_bytes: Some(128 << 20),
        ..Limits::default()
    };
    let files = [
        ("memory/memory.limit_in_bytes", "134217728"),
        ("cpu/cpu.cfs_period_us", "100000"),
        ("cpu/cpu.cfs_quota_us", "50000"),
        ("cpu/cpu.shares", "102"),
    ];
    let script = files
        .map(|(file, _)| format!("cat /sys/fs/cgroup/{file};"))
        .concat();
    let version1 = std::path::Path::new("/sys/fs/cgroup/memory").exists();
    if version1 {
        start.process.argv = ["sh", "-c", &format!("{script} cat /proc/self/mountinfo")]
            .map(str::to_owned)
            .to_vec();
    }
    let (_, text) = bench.run(start).await;
    let mounts: Vec<(&str, Vec<&str>)> = text
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut left = left.split(' ').skip(4);
            let (path, flags) = (left.next()?, left.next()?);
            let kind = right.split(' ').next()?;
            Some((path, [kind].into_iter().chain(flags.split(',')).collect()))
        })
        .collect();
    let mut expected = vec![
        ("/proc", "proc rw nosuid nodev noexec"),
        ("/dev", "tmpfs rw nosuid"),
        ("/dev/pts", "devpts rw nosuid noexec"),
        ("/dev/mqueue", "mqueue rw nosuid nodev noexec"),
        ("/dev/shm", "tmpfs rw nosuid nodev noexec"),
        ("/sys", "sysfs ro nosuid nodev noexec"),
        ("/proc/bus", "proc ro nosuid nodev noexec"),
        ("/proc/fs", "proc ro nosuid nodev noexec"),
        ("/proc/irq", "proc ro nosuid nodev noexec"),
        ("/proc/sys", "proc ro nosuid nodev noexec"),
        ("/proc/acpi", "tmpfs ro"),
        ("/proc/interrupts", "tmpfs rw nosuid"),
        ("/proc/keys", "tmpfs rw nosuid"),
        ("/proc/timer_list", "tmpfs rw nosuid"),
        ("/sys/firmware", "tmpfs ro"),
    ];
    let group = |name: &str| format!("/sys/fs/cgroup/{name}");
    let controllers = [
        "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd",
    ]
    .map(group);
    if version1 {
        let values: Vec<&str> = text.lines().take(files.len()).collect();
        assert_eq!(values, files.map(|(_, value)| value));
        expected.push(("/sys/fs/cgroup", "tmpfs ro nosuid nodev noexec"));
        expected.extend(
            controllers
                .iter()
                .filter(|path| std::path::Path::new(path).is_dir())
                .map(|path| (path.as_str(), "cgroup ro nosuid nodev noexec")),
        );
    } else {
        expected.push(("/sys/fs/cgroup", "cgroup2 ro nosuid nodev noexec"));
    }
    for (path, wanted) in expected {
        // Where a kernel has no such file, there is nothing to hide.
        let Some((_, found)) = mounts.iter().find(|(at, _)| *at == path) else {
            assert!(
                path.starts_with("/proc/") && !std::path::Path::new(path).exists(),
                "{path} is not mounted: {text}"
            );
            continue;
        };
        for word in wanted.split(' ') {
            assert!(found.contains(&word), "{path} lacks {word}: {found:?}");
        }
    }
    bench.close().await;
}

/// A JVM takes its heap and its processors from the limits, which it finds by the whole set of controllers.
pub(crate) async fn java() {
    let Ok(java) = std::fs::canonicalize("/usr/bin/java") else {
        eprintln!("   not run: no Java on this machine");
        return;
    };
    let mut bench = Bench::new("java").await;
    let mut start = bench.container(&[
        &java.display().to_string(),
        "-XX:+PrintFlagsFinal",
        "-Xlog:os+container=info",
        "-version",
    ]);
    for directory in ["/usr", "/lib", "/lib64", "/etc"] {
        start
            .mounts
            .push(crate::escape::volume(directory.as_ref(), directory));
    }
    start.limits = Limits {
        cpu_limit_milli: Some(1000),
        memory_limit_bytes: Some(256 << 20),
        ..Limits::default()
    };
    let (code, text) = bench.run(start).await;
    let flag = |name: &str| {
        text.lines()
            .find(|line| line.split_whitespace().nth(1) == Some(name))
            .and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok())
    };
    assert_eq!(code, 0, "{text}");
    // A quarter to a half of 256 MiB, not of the machine; and the collector for one processor.
    let heap = flag("MaxHeapSize").expect("MaxHeapSize");
    assert!(heap <= 128 << 20, "{heap}");
    assert!(text.contains("UseContainerSupport"), "{text}");
    let serial = text
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some("UseSerialGC"))
        .expect("UseSerialGC");
    assert!(serial.contains("true"), "{serial}");
    bench.close().await;
}

/// Control groups of that name, in every hierarchy.
pub(crate) fn groups_named(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy() == name {
                    found.push(entry.path());
                }
                directories.push(entry.path());
            }
        }
    }
    found
}

/// Thaws a group, also when the case fails: nobody else would.
struct Thaws(PathBuf);

impl Drop for Thaws {
    fn drop(&mut self) {
        let _ = std::fs::write(&self.0, "THAWED");
    }
}

/// A process that is frozen does not die until it is thawed (on version 1 of control groups), so its group stays in use.
pub(crate) async fn frozen() {
    let mut bench = Bench::new("frozen").await;
    let names = bench.names();
    let record = PathBuf::from(names.bridge().replacen("kb", "/run/kinglet/instances/", 1));
    let sandbox = bench.engine.sandbox().await.expect("sandbox");
    let start = bench.container(&["sleep", "1000"]);
    let running = bench.engine.start(&sandbox, start).await.expect("start");
    let cgroup = std::fs::read_to_string(format!("/proc/{}/cgroup", running.process.pid()));
    let cgroup = cgroup.expect("its groups");
    let freezer = cgroup
        .lines()
        .find_map(|line| line.split_once(":freezer:").map(|(_, path)| path));
    let Some(path) = freezer else {
        // On version 2 a killed process dies, frozen or not.
        drop((running, sandbox));
        bench.close().await;
        return;
    };
    let state = PathBuf::from(format!("/sys/fs/cgroup/freezer{path}/freezer.state"));
    std::fs::write(&state, "FROZEN").expect("frozen");
    let thaws = Thaws(state);
    drop((running, sandbox));
    bench.tasks.shutdown(Duration::from_secs(5)).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
    let closed = bench.engine.close(deadline);
    tokio::time::timeout(Duration::from_secs(30), closed)
        .await
        .expect("a stop ends at its deadline");
    assert!(record.exists(), "what is left is known to the next start");
    drop(thaws);
    drop(bench.engine);
    until("nobody has the record any more", || {
        std::fs::File::open(&record).is_ok_and(|file| file.try_lock().is_ok())
    })
    .await;
    let tasks = Tasks::new();
    let engine = Engine::open(
        &names,
        bench.scratch.path(),
        "/proc/self/exe".into(),
        0,
        NetworkOptions::default(),
        &tasks,
    )
    .await
    .expect("a second life");
    tasks.shutdown(Duration::from_secs(5)).await;
    engine.close(soon()).await;
    assert!(!record.exists(), "nothing is left");
    let groups = groups_named(&names.cgroup());
    assert!(groups.is_empty(), "{groups:?}");
}

/// When an engine must have closed: generous, since machines of tests are slow.
pub(crate) fn soon() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(60)
}
