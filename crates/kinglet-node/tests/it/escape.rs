//! What a hostile container tries, and that it gets nothing. Everything here got something once, here or elsewhere.

use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kinglet_node::engine::ContainerStart;
use kinglet_node::wire::{Mount, Process};
use tokio::io::AsyncReadExt as _;

use crate::engine::{Bench, groups_named};
use crate::world::until;

/// Where the attacking program is in the container.
pub(crate) const ATTACK: &str = "/attack";

/// A volume as the node would mount it.
pub(crate) fn volume(source: &Path, target: &str) -> Mount {
    Mount::Bind {
        source: source.to_owned(),
        sub_path: None,
        target: PathBuf::from(target),
        read_only: false,
        allow_devices: false,
    }
}

/// The host's libraries, and this test as the attacking program.
pub(crate) fn with_attacker(mut start: ContainerStart) -> ContainerStart {
    for directory in ["/usr", "/lib", "/lib64"] {
        if Path::new(directory).exists() {
            start.mounts.push(volume(Path::new(directory), directory));
        }
    }
    let own = std::env::current_exe().expect("own path");
    start.mounts.push(volume(&own, ATTACK));
    start
}

fn script(bench: &mut Bench, text: &str) -> ContainerStart {
    bench.container(&["sh", "-c", text])
}

/// Each attack under `RuntimeDefault`, and what it must be told.
pub(crate) async fn system_calls() {
    let refused: &[(&str, &str)] = &[
        ("clone_newuser", "EPERM"),
        ("clone3_newuser", "ENOSYS"),
        ("unshare_user", "EPERM"),
        ("unshare_mount", "EPERM"),
        ("mount", "EPERM"),
        ("umount_masked", "EPERM"),
        ("open_tree", "EPERM"),
        ("open_tree_attr", "ENOSYS"),
        ("fsopen", "EPERM"),
        ("pivot_root", "EPERM"),
        ("setns", "EPERM"),
        ("keyctl_session", "EPERM"),
        ("keyctl_read_user", "EPERM"),
        ("request_key", "EPERM"),
        ("add_key", "EPERM"),
        ("bpf", "EPERM"),
        ("perf_event_open", "EPERM"),
        ("userfaultfd", "EPERM"),
        ("io_uring", "EPERM"),
        ("init_module", "EPERM"),
        ("kexec", "EPERM"),
        ("reboot", "EPERM"),
        ("swapon", "EPERM"),
        ("open_by_handle", "EPERM"),
        ("settime", "EPERM"),
        ("vsock", "EPERM"),
        ("personality_no_random", "EPERM"),
        ("x32", "EPERM"),
        ("newest_call", "ENOSYS"),
        // An attacker may still live.
        ("getpid", "ok"),
        ("fork", "ok"),
    ];
    let mut bench = Bench::new("system-calls").await;
    let names: Vec<&str> = refused.iter().map(|(name, _)| *name).collect();
    let start = bench.container(&[&[ATTACK, "attack"], &names[..]].concat());
    let (code, text) = bench.run(with_attacker(start)).await;
    let expected: Vec<String> = refused
        .iter()
        .map(|(name, answer)| format!("{name}: {answer}"))
        .collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    assert_eq!(code, 0);

    // Without the filter the capabilities and namespaces still stand, and the keys of whoever started us are not here.
    let mut start = bench.container(&[
        ATTACK,
        "attack",
        "request_key",
        "mount",
        "setns",
        "unshare_mount",
        "reboot",
    ]);
    start.process.filter_system_calls = false;
    let (_, text) = bench.run(with_attacker(start)).await;
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            // ENOKEY: nothing by this name in any keyring of ours.
            "request_key: errno 126",
            "mount: EPERM",
            // EBADF or EINVAL would do as well: standard input is no namespace.
            "setns: errno 22",
            "unshare_mount: EPERM",
            "reboot: EPERM",
        ]
    );
    bench.close().await;
}

pub(crate) async fn devices() {
    let mut bench = Bench::new("devices").await;
    let directory = bench.scratch("volume");
    let disk = std::fs::read_to_string("/proc/partitions").expect("partitions");
    let (major, minor) = disk
        .lines()
        .skip(2)
        .find_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        })
        .unwrap_or(("7".to_owned(), "0".to_owned()));
    let before = std::fs::metadata("/dev/null").expect("null");
    let mut start = script(
        &mut bench,
        &format!(
            "for at in /volume /dev /tmp /; do \
               mknod $at/disk b {major} {minor} && head -c 1 $at/disk; echo x > $at/disk; \
               mknod $at/kvm c 10 232; (: < $at/kvm) && echo kvm; \
               mknod $at/mem c 1 1; head -c 1 $at/mem; \
               mknod $at/port c 1 4; head -c 1 $at/port; \
             done 2>/dev/null; \
             chmod 000 /dev/null; rm /dev/zero; echo x > /dev/full || echo still full; ls -ld /dev/null"
        ),
    );
    // The attacker has as much as a container gets without being privileged, and no filter.
    start.process.filter_system_calls = false;
    start.mounts.push(volume(&directory, "/volume"));
    let (_, text) = bench.run(start).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[0], "still full", "{text}");
    assert!(lines[1].starts_with("c---------"), "{text}");
    let after = std::fs::metadata("/dev/null").expect("null");
    assert_eq!(
        (before.mode(), before.ino()),
        (after.mode(), after.ino()),
        "the host's /dev/null is another one"
    );
    assert!(Path::new("/dev/zero").exists());

    // Not even the host's own nodes open from a volume.
    let status = std::process::Command::new("mknod")
        .args([directory.join("given"), "b".into()])
        .args([&major, &minor])
        .status()
        .expect("mknod");
    assert!(status.success());
    let mut start = script(&mut bench, "head -c 1 /volume/given; echo $?");
    start.mounts.push(volume(&directory, "/volume"));
    let (_, text) = bench.run(start).await;
    assert_eq!(text, "1\n");

    // What every program expects is there.
    let start = script(
        &mut bench,
        "head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; echo x > /dev/null && echo null; \
         test -c /dev/ptmx && echo ptmx; echo x > /dev/shm/x && cat /dev/shm/x; ls /dev | tr '\\n' ' '",
    );
    let (_, text) = bench.run(start).await;
    assert_eq!(
        text,
        "3\n3\nnull\nptmx\nx\ncore fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero "
    );
    bench.close().await;
}

/// A set-user-id program in a volume is an ordinary one.
pub(crate) async fn set_user_id() {
    let mut bench = Bench::new("setuid").await;
    let directory = bench.scratch("volume");
    let program = directory.join("busybox");
    std::fs::copy(crate::world::BUSYBOX, &program).expect("copy");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o4755)).expect("mode");
    let mut start = bench.container(&["/volume/busybox", "id", "-u"]);
    start.process.user.uid = Some(1000);
    start.mounts.push(volume(&directory, "/volume"));
    assert_eq!(bench.run(start).await, (0, "1000\n".to_owned()));
    bench.close().await;
}

pub(crate) async fn kernel_files() {
    let mut bench = Bench::new("kernel-files").await;
    let core_pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").expect("pattern");
    let mut start = script(
        &mut bench,
        "try() { (echo \"$1\" > $2) 2>/dev/null && echo \"wrote $2\"; }; \
         try b /proc/sysrq-trigger; try '|/x' /proc/sys/kernel/core_pattern; try 1 /proc/sys/vm/drop_caches; \
         try /x /proc/sys/kernel/modprobe; try x /proc/irq/default_smp_affinity; try x /sys/kernel/uevent_helper; \
         try x /sys/power/state; \
         for group in /sys/fs/cgroup /sys/fs/cgroup/*; do \
           try /x $group/release_agent; try 1 $group/notify_on_release; try a $group/devices.allow; \
           try max $group/memory.max; try -1 $group/memory.limit_in_bytes; try x $group/x; \
           mkdir $group/nested 2>/dev/null && echo \"made $group/nested\"; \
         done; \
         for options in remount,rw remount,bind,rw; do for at in /proc/sys /sys /sys/fs/cgroup; do \
           mount -o $options $at 2>/dev/null && echo \"remounted $at\"; done; done; \
         umount /proc/kcore 2>/dev/null && echo unmasked; \
         cat /proc/kcore /proc/keys /proc/timer_list /proc/interrupts 2>/dev/null | wc -c; ls /sys/firmware | wc -l; \
         ls -d /proc/1/root/sbin/kinglet* 2>/dev/null; cat /proc/1/oom_score_adj",
    );
    start.process.filter_system_calls = false;
    let (_, text) = bench.run(start).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..lines.len() - 1], ["0", "0"], "{text}");
    let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj")
        .expect("score")
        .trim()
        .parse()
        .expect("number");
    let score: i32 = lines[lines.len() - 1].parse().expect("number");
    assert!(score > own, "killed before the node: {score} {own}");
    assert_eq!(
        std::fs::read_to_string("/proc/sys/kernel/core_pattern").expect("pattern"),
        core_pattern
    );
    bench.close().await;
}

/// Descriptors that whoever started the node had open, and those of the node itself.
pub(crate) async fn descriptors() {
    let mut bench = Bench::new("descriptors").await;
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    // Not close-on-exec, as a shell leaves them.
    let leaked = rustix::fs::open("/etc", flags, rustix::fs::Mode::empty()).expect("directory");
    let listing = "ls -l /proc/self/fd; ls -l /proc/1/fd; cat /proc/self/fd/*/shadow 2>/dev/null";
    let start = script(&mut bench, &format!("{listing}; sleep 100"));
    let sandbox = bench.engine.sandbox().await.expect("sandbox");
    let process = start.process.clone();
    let mut running = bench.engine.start(&sandbox, start).await.expect("start");
    let own = |text: &str| {
        let allowed = ["pipe:", "/dev/null", "/proc/"];
        text.lines()
            .filter_map(|line| line.split_once(" -> "))
            .all(|(_, target)| allowed.iter().any(|one| target.starts_with(one)))
    };
    let output = bench
        .engine
        .exec(
            &running.process,
            Process {
                argv: ["sh", "-c", listing].map(str::to_owned).to_vec(),
                ..process
            },
            1 << 16,
        )
        .await
        .expect("exec");
    assert!(
        output.text.contains(" -> ") && own(&output.text),
        "{}",
        output.text
    );
    running.process.kill().expect("kill");
    let mut text = String::new();
    running
        .stdout
        .read_to_string(&mut text)
        .await
        .expect("text");
    assert!(text.contains(" -> ") && own(&text), "{text}");
    drop(leaked);

    // A working directory, a volume or a program below descriptors of the process that becomes the container.
    for number in 3..12 {
        for path in [
            format!("/proc/self/fd/{number}"),
            format!("/proc/self/fd/{number}/../../etc"),
        ] {
            let mut start = script(&mut bench, "ls -a; cat ../../../../../etc/shadow");
            start.process.directory = PathBuf::from(&path);
            let sandbox = bench.engine.sandbox().await.expect("sandbox");
            if let Ok(mut running) = bench.engine.start(&sandbox, start).await {
                let mut text = String::new();
                running
                    .stdout
                    .read_to_string(&mut text)
                    .await
                    .expect("text");
                running.process.wait().await;
                assert!(
                    !text.contains("root:") && !text.contains("ssl"),
                    "{path}: {text}"
                );
            }
        }
    }
    bench.close().await;
}

/// The program that helpers run cannot be written to, not even by root on the host (CVE-2019-5736).
pub(crate) async fn own_binary() {
    let mut bench = Bench::new("binary").await;
    let before = std::fs::metadata(std::env::current_exe().expect("path")).expect("binary");
    let start = script(&mut bench, "sleep 100");
    let process = start.process.clone();
    let sandbox = bench.engine.sandbox().await.expect("sandbox");
    let running = bench.engine.start(&sandbox, start).await.expect("start");
    // While a helper is inside of the container, the container looks for it.
    let hunt = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); for pid in /proc/[0-9]*; do \
                  (echo x >> $pid/exe) 2>/dev/null && echo \"wrote $pid\"; done; done; echo done";
    let asked = bench.engine.exec(
        &running.process,
        Process {
            argv: ["sh", "-c", hunt].map(str::to_owned).to_vec(),
            ..process.clone()
        },
        1 << 16,
    );
    let others = async {
        for _ in 0..5 {
            let argv = vec!["true".to_owned()];
            let process = Process {
                argv,
                ..process.clone()
            };
            bench
                .engine
                .exec(&running.process, process, 100)
                .await
                .expect("exec");
        }
    };
    let (output, ()) = tokio::join!(asked, others);
    let output = output.expect("exec");
    assert!(!output.text.contains("wrote /proc/1\n"), "{}", output.text);
    let after = std::fs::metadata(std::env::current_exe().expect("path")).expect("binary");
    assert_eq!(
        (before.len(), before.mtime(), before.ino()),
        (after.len(), after.mtime(), after.ino())
    );
    // As the host's root sees the processes that wait.
    let waiting: Vec<PathBuf> = std::fs::read_dir("/proc")
        .expect("proc")
        .flatten()
        .map(|entry| entry.path())
        .filter(|process| {
            std::fs::read_to_string(process.join("comm"))
                .is_ok_and(|name| name == "kinglet-helper\n")
        })
        .map(|process| process.join("exe"))
        .collect();
    assert!(!waiting.is_empty(), "processes are parked");
    let mut found = false;
    for exe in waiting {
        // Gone by now, or another instance's.
        let Ok(its) = std::fs::metadata(&exe) else {
            continue;
        };
        found |= its.len() == before.len();
        let opened = std::fs::OpenOptions::new().write(true).open(&exe);
        let written = opened.and_then(|mut file| std::io::Write::write_all(&mut file, b"x"));
        assert!(written.is_err(), "{}", exe.display());
    }
    assert!(found, "parked processes run this binary");
    bench.close().await;
}

/// Links of an image where something is mounted: they end inside of the container.
pub(crate) async fn links() {
    let mut bench = Bench::new("links").await;
    let image = bench.scratch("image");
    let outside = bench.scratch("outside");
    let data = bench.scratch("data");
    std::fs::write(data.join("x"), "volume").expect("file");
    for (target, link) in [
        ("../run/missing/resolv.conf", "etc/resolv.conf"),
        ("/etc/hops", "etc/hosts"),
        ("deeper/hosts", "etc/hops"),
        ("/run", "var"),
        ("/../../../../../../etc", "up"),
        ("/proc/self/fd", "descriptors"),
    ] {
        symlink(target, image.join(link)).expect("link");
    }
    symlink(&outside, image.join("out")).expect("link");
    let file = data.join("x");
    let mut start = script(
        &mut bench,
        "cat /etc/resolv.conf /etc/hosts /var/run/data/x /out/data/x /etc/inside/x",
    );
    start.mounts = vec![
        volume(&file, "/etc/resolv.conf"),
        volume(&file, "/etc/hosts"),
        volume(&data, "/var/run/data"),
        volume(&data, &format!("{}/data", outside.display())),
        volume(&data, "/up/inside"),
        volume(&data, "/out/data"),
    ];
    let (_, text) = bench.run(start).await;
    assert_eq!(text, "volumevolumevolumevolumevolume");
    assert_eq!(std::fs::read_dir(&outside).expect("directory").count(), 0);
    // A magic link is text: what the starting process has open is not reached.
    for number in 3..10 {
        let mut start = script(&mut bench, "true");
        start.mounts = vec![volume(&data, &format!("/descriptors/{number}/x"))];
        let sandbox = bench.engine.sandbox().await.expect("sandbox");
        if let Ok(running) = bench.engine.start(&sandbox, start).await {
            running.process.wait().await;
        }
    }
    assert_eq!(std::fs::read_dir(&outside).expect("directory").count(), 0);
    assert_eq!(std::fs::read_dir(&data).expect("directory").count(), 1);
    bench.close().await;
}

/// A pod whose users are nobody on the host (`hostUsers: false`).
pub(crate) async fn user_namespace() {
    let mut bench = Bench::new("users").await;
    let data = bench.scratch("data");
    std::fs::write(data.join("given"), "volume").expect("file");
    let mut start = script(
        &mut bench,
        "id -u; cat /data/given; echo; echo x > /data/made && echo wrote; echo x > /own && stat -c %u /own /data/given /bin/busybox; \
         head -c 2 /dev/zero | wc -c; echo x > /dev/null && cat /proc/self/uid_map | tr -s ' '; mknod /tmp/disk b 8 0 2>/dev/null && echo node; \
         ls /sys/fs/cgroup > /dev/null && echo groups; cat /proc/kcore | wc -c; hostname; (httpd -p 80 && echo port); sleep 1000",
    );
    start.mounts.push(volume(&data, "/data"));
    start.limits.memory_limit_bytes = Some(64 << 20);
    let directory = start.directory.clone();
    let process = start.process.clone();
    let sandbox = bench
        .engine
        .sandbox_with_own_users()
        .await
        .expect("sandbox");
    let mut running = bench.engine.start(&sandbox, start).await.expect("start");
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains("port") {
        let read = tokio::time::timeout(Duration::from_secs(20), running.stdout.read(&mut buffer));
        let count = read
            .await
            .unwrap_or_else(|_| panic!("no more than {text}"))
            .expect("read");
        assert!(count > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..7],
        ["0", "volume", "wrote", "0", "0", "0", "2"],
        "{text}"
    );
    let map: Vec<&str> = lines[7].split_whitespace().collect();
    let first: u32 = map[1].parse().expect("id");
    assert_eq!((map[0], map[2]), ("0", "65536"));
    assert!(first >= 1 << 30);
    assert_eq!(lines[8..], ["groups", "0", "pod-1", "port"], "{text}");
    let owner = |path: PathBuf| std::fs::metadata(path).expect("file").uid();
    assert_eq!(owner(data.join("made")), 0, "a volume keeps its own ids");
    assert_eq!(owner(directory.join("upper/own")), first);
    assert_eq!(
        owner(PathBuf::from(format!(
            "/proc/{}/task",
            running.process.pid()
        ))),
        first
    );
    let output = bench
        .engine
        .exec(
            &running.process,
            Process {
                argv: ["sh", "-c", "id -u; cat /own"].map(str::to_owned).to_vec(),
                ..process
            },
            100,
        )
        .await
        .expect("exec");
    assert_eq!(output.text, "0\nx\n");
    running.process.kill().expect("kill");
    running.process.wait().await;
    drop((running, sandbox));
    let mut medians = Vec::new();
    for own_users in [false, true] {
        let mut times = Vec::new();
        for _ in 0..9 {
            let start = script(&mut bench, "sleep 1000");
            let before = std::time::Instant::now();
            let sandbox = if own_users {
                bench.engine.sandbox_with_own_users().await
            } else {
                bench.engine.sandbox().await
            };
            let sandbox = sandbox.expect("sandbox");
            drop(bench.engine.start(&sandbox, start).await.expect("start"));
            times.push(before.elapsed());
            tokio::time::sleep(Duration::from_millis(120)).await;
        }
        times.sort();
        medians.push(times[4]);
    }
    eprintln!("   median without and with users of its own: {medians:?}");
    bench.close().await;
}

/// A pod that an admin lets see the host's processes and their shared memory.
pub(crate) async fn host_namespaces() {
    let mut bench = Bench::new("host-namespaces").await;
    let own = std::process::id();
    let mut start = script(
        &mut bench,
        &format!(
            "test -d /proc/{own} && echo seen; (sleep 999 > /dev/null 2>&1 &); readlink /proc/self/ns/ipc"
        ),
    );
    start.isolation.host_pid = true;
    start.isolation.host_ipc = true;
    let ipc = std::fs::read_link("/proc/self/ns/ipc").expect("ipc");
    assert_eq!(
        bench.run(start).await.1,
        format!("seen\n{}\n", ipc.display())
    );
    let left = || {
        std::fs::read_dir("/proc")
            .expect("proc")
            .flatten()
            .any(|entry| {
                std::fs::read(entry.path().join("cmdline"))
                    .is_ok_and(|line| line == b"sleep\x00999\x00")
            })
    };
    until(
        "what the container left among the host's processes is dead",
        || !left(),
    )
    .await;
    bench.close().await;
}

/// A program that is given up takes what it started with it, whatever user it became, and leaves no zombie.
pub(crate) async fn abandoned_exec() {
    let mut bench = Bench::new("abandoned").await;
    let sandbox = bench.engine.sandbox().await.expect("sandbox");
    let start = script(&mut bench, "sleep 1000");
    let mut process = start.process.clone();
    let running = bench.engine.start(&sandbox, start).await.expect("start");
    process.argv = ["sh", "-c", "sleep 777 & sleep 778"]
        .map(str::to_owned)
        .to_vec();
    process.user.uid = Some(1000);
    let given_up = tokio::time::timeout(
        Duration::from_secs(2),
        bench.engine.exec(&running.process, process, 100),
    );
    assert!(given_up.await.is_err());
    let children_of_container = || {
        std::fs::read_dir("/proc")
            .expect("proc")
            .flatten()
            .filter(|entry| {
                std::fs::read(entry.path().join("cmdline"))
                    .is_ok_and(|line| line == b"sleep\x00777\x00" || line == b"sleep\x00778\x00")
            })
            .count()
    };
    until("the program and its children are dead", || {
        children_of_container() == 0
    })
    .await;
    // The container's end waits for no zombie.
    running.process.kill().expect("kill");
    tokio::time::timeout(Duration::from_secs(20), running.process.wait())
        .await
        .expect("the container ends");
    drop(running);
    bench.close().await;
}

/// Groups that a container with rights over its own made, and a process that hides in one.
pub(crate) async fn nested_groups() {
    let mut bench = Bench::new("nested-groups").await;
    let names = bench.names();
    let sandbox = bench.engine.sandbox().await.expect("sandbox");
    let start = script(&mut bench, "sleep 1000");
    let running = bench.engine.start(&sandbox, start).await.expect("start");
    let pid = running.process.pid();
    let above: Vec<PathBuf> = groups_named(&names.cgroup());
    assert!(!above.is_empty());
    for group in &above {
        for entry in std::fs::read_dir(group).expect("group").flatten() {
            let processes =
                std::fs::read_to_string(entry.path().join("cgroup.procs")).unwrap_or_default();
            if processes.lines().any(|line| line == pid.to_string()) {
                let deep = (0..30).fold(entry.path(), |at, _| at.join("n"));
                std::fs::create_dir_all(&deep).expect("nested");
                std::fs::create_dir_all(entry.path().join("other/x")).expect("nested");
                let _ = std::fs::write(deep.join("cgroup.procs"), pid.to_string());
            }
        }
    }
    drop(running);
    bench.close().await;
    let left = groups_named(&names.cgroup());
    assert!(left.is_empty(), "{left:?}");
}

/// Stopping while containers are being made leaves nothing behind, however often.
pub(crate) async fn stop_while_parking() {
    for round in 0..6_u32 {
        let mut bench = Bench::new("stop").await;
        let names = bench.names();
        let sandbox = bench.engine.sandbox().await.expect("sandbox");
        let start = script(&mut bench, "sleep 1000");
        // The pool begins to make more as soon as one is taken.
        let running = bench.engine.start(&sandbox, start).await.expect("start");
        tokio::time::sleep(Duration::from_millis(u64::from(round) * 9)).await;
        drop((running, sandbox));
        let another = bench.engine.sandbox();
        let engine = bench.engine.clone();
        let _ = tokio::join!(another, async { engine.close(crate::engine::soon()).await });
        bench.close().await;
        let left = groups_named(&names.cgroup());
        assert!(left.is_empty(), "round {round}: {left:?}");
    }
}

fn version_2_group() -> Option<PathBuf> {
    std::fs::read_to_string("/proc/self/mountinfo")
        .ok()?
        .lines()
        .find(|line| line.contains(" - cgroup2 "))
        .and_then(|line| line.split(' ').nth(4).map(PathBuf::from))
}

/// The same rules as a program of version 2, where its hierarchy is mounted at all.
pub(crate) async fn version_2_devices() {
    let Some(root) = version_2_group() else {
        eprintln!("   not run: no hierarchy of cgroup version 2 is mounted");
        return;
    };
    let group = root.join(format!("kinglet-escape-{}", std::process::id()));
    std::fs::create_dir(&group).expect("group");
    let directory = std::fs::File::open(&group).expect("group");
    let result = kinglet_node::cgroup::confine_version_2(directory.as_fd());
    let tried = std::process::Command::new("/bin/busybox")
        .args(["sh", "-c"])
        .arg(format!(
            "echo $$ > {0}/cgroup.procs; echo x > /dev/null && echo null; head -c 2 /dev/zero | wc -c; \
             busybox mknod /tmp/kinglet-escape-mem c 1 1 && echo made; \
             (: < /tmp/kinglet-escape-mem) 2>/dev/null && echo opened; rm -f /tmp/kinglet-escape-mem",
            group.display()
        ))
        .output();
    let removed = std::fs::remove_dir(&group);
    result.expect("attached");
    removed.expect("removed");
    let text = String::from_utf8_lossy(&tried.expect("tried").stdout).into_owned();
    assert_eq!(text, "null\n2\nmade\n");
}
