//! Real containers on this machine: needs root, and says so in one line where it is missing.
//!
//! The test binary is its own helper, so it has a `main` of its own.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kinglet_node::cgroup::Limits;
use kinglet_node::engine::{ContainerStart, Engine};
use kinglet_node::names::HostNames;
use kinglet_node::wire::{Process, User};
use kinglet_process::Tasks;
use tokio::io::AsyncReadExt as _;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|verb| verb == kinglet_node::HELPER_VERB) {
        return kinglet_node::helper(&arguments[2..]);
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: containers need root");
        return ExitCode::SUCCESS;
    }
    if !Path::new("/bin/busybox").exists() {
        eprintln!("not run: install busybox-static for the container tests");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(run());
    ExitCode::SUCCESS
}

async fn run() {
    let data = std::env::temp_dir().join(format!("kinglet-node-{}", std::process::id()));
    std::fs::create_dir_all(data.join("image/bin")).expect("directory");
    std::fs::copy("/bin/busybox", data.join("image/bin/busybox")).expect("busybox");
    std::os::unix::fs::symlink("busybox", data.join("image/bin/sh")).expect("link");
    let tasks = Tasks::new();
    let engine = Engine::open(&HostNames::new(&data), "/proc/self/exe".into(), 2, &tasks).await.expect("engine");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut times = Vec::new();
    for number in 0..8 {
        let before = Instant::now();
        let sandbox = engine.sandbox().await.expect("sandbox");
        let start = container(&data, number, &["sh", "-c", "echo hello from $(/bin/busybox hostname); busybox id; busybox cat /proc/self/mounts; busybox ip addr; busybox ls -la / /dev; exit 3"]);
        let mut running = engine.start(&sandbox, start).await.expect("start");
        times.push(before.elapsed());
        let mut text = String::new();
        running.stdout.read_to_string(&mut text).await.expect("output");
        let exit = running.process.wait().await;
        if number == 0 { println!("{text}"); let mut e=String::new(); running.stderr.read_to_string(&mut e).await.unwrap(); println!("{e}"); }
        assert_eq!(exit.code(), 3);
        drop(running);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    println!("start: {times:?}");
    tasks.shutdown(Duration::from_secs(5)).await;
    engine.close().await;
    std::fs::remove_dir_all(&data).expect("clean");
}

fn container(data: &Path, number: u32, argv: &[&str]) -> ContainerStart {
    ContainerStart {
        hostname: format!("pod-{number}"),
        directory: data.join(format!("containers/{number}")),
        layers: vec![data.join("image")],
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
