//! What a hostile image or volume does while its container is being mounted: the kernel's files stay out of reach.
//!
//! CVE-2019-19921, CVE-2021-30465, CVE-2023-27561, CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881 are of this kind in runc.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use kinglet_node::engine::ContainerStart;
use kinglet_node::wire::Mount;
use tokio::io::AsyncReadExt as _;

use crate::engine::Bench;
use crate::escape::volume;

/// Looks for files of the kernel wherever they may be mounted, and says which open for writing and which masks have gone.
const LOOK: &str = "for f in $(busybox find / -type f \\( -name core_pattern -o -name sysrq-trigger -o -name uevent_helper \
    -o -name modprobe -o -name drop_caches -o -name release_agent \\) 2>/dev/null); do (: >> $f) 2>/dev/null && echo \"writable $f\"; done; \
    for f in $(busybox find / \\( -name kcore -o -name keys -o -name timer_list -o -name interrupts \\) 2>/dev/null); do \
    test \"$(head -c 1 $f 2>/dev/null | wc -c)\" = 0 || echo \"readable $f\"; done; echo looked";

fn look(bench: &mut Bench) -> ContainerStart {
    bench.container(&["sh", "-c", LOOK])
}

/// What a container said; `None` when it did not start.
async fn said(bench: &Bench, start: ContainerStart) -> Option<String> {
    let sandbox = bench.engine.sandbox().await.expect("sandbox");
    let mut running = bench.engine.start(&sandbox, start).await.ok()?;
    let mut text = String::new();
    running
        .stdout
        .read_to_string(&mut text)
        .await
        .expect("output");
    running.process.wait().await;
    Some(text)
}

/// An image that has files where `/proc` will be: they must not steer what is mounted before it is there.
pub(crate) async fn files_below_proc() {
    for (number, target) in [
        "/evil",
        "/evil/self/../../x",
        "../../../evil",
        "/evil/self/../..",
    ]
    .into_iter()
    .enumerate()
    {
        let mut bench = Bench::new("below-proc").await;
        let image = bench.scratch("image");
        std::fs::create_dir_all(image.join("proc/self/fd")).expect("directory");
        std::fs::create_dir_all(image.join("evil/a/b")).expect("directory");
        std::fs::create_dir_all(image.join("x")).expect("directory");
        symlink("a/b", image.join("evil/self")).expect("link");
        for descriptor in 3..40 {
            symlink(target, image.join(format!("proc/self/fd/{descriptor}"))).expect("link");
        }
        let start = look(&mut bench);
        let text = said(&bench, start).await.expect("such an image starts");
        assert_eq!(text, "looked\n", "{number}: {target}");
        bench.close().await;
    }
}

/// Volumes whose content stands in for files of the kernel or for `/dev`.
pub(crate) async fn volumes_in_the_way() {
    let mut bench = Bench::new("in-the-way").await;
    let data = bench.scratch("data");
    for directory in ["self/fd", "sys", "devices/system/cpu", "fs/cgroup"] {
        std::fs::create_dir_all(data.join(directory)).expect("directory");
    }
    for cpu in 0..300 {
        let throttle = format!("devices/system/cpu/cpu{cpu}/thermal_throttle");
        std::fs::create_dir_all(data.join(throttle)).expect("directory");
    }
    for (target, link) in [
        ("/proc/keys", "null"),
        ("/proc/sys/kernel/core_pattern", "console"),
        ("/proc/timer_list", "kcore"),
        ("/proc/sys", "kernel"),
    ] {
        symlink(target, data.join(link)).expect("link");
    }
    for descriptor in 3..40 {
        symlink("/proc/sys", data.join(format!("self/fd/{descriptor}"))).expect("link");
    }
    let mut refused = Vec::new();
    for at in [
        "/dev",
        "/dev/pts",
        "/proc",
        "/proc/self",
        "/proc/self/fd",
        "/proc/sys",
        "/proc/sys/kernel",
        "/proc/1/attr",
        "/sys",
        "/sys/fs/cgroup",
        "/sys/firmware",
        "/",
        "/..",
        "/etc/../proc",
        "/to-proc",
        "/to-proc/sys/kernel",
    ] {
        let image = bench.scratch("image");
        let _ = symlink("/proc", image.join("to-proc"));
        let mut start = look(&mut bench);
        start.mounts.push(volume(&data, at));
        match said(&bench, start).await {
            Some(text) => assert_eq!(text, "looked\n", "{at}"),
            None => refused.push(at),
        }
        // The same places as volumes that an image declares (CVE-2022-23648 has `..` in them).
        let mut start = look(&mut bench);
        start.read_only_root = true;
        start.mounts.push(Mount::ImageVolume {
            target: PathBuf::from(at),
        });
        if let Some(text) = said(&bench, start).await {
            assert_eq!(text, "looked\n", "{at} of the image");
        }
    }
    // Nothing is mounted inside of /proc or over the root, in whatever spelling, as runc has it.
    assert_eq!(
        refused,
        [
            "/proc",
            "/proc/self",
            "/proc/self/fd",
            "/proc/sys",
            "/proc/sys/kernel",
            "/proc/1/attr",
            "/",
            "/..",
            "/etc/../proc",
            "/to-proc",
            "/to-proc/sys/kernel",
        ]
    );
    bench.close().await;
}

/// Another container of the pod exchanges directories for links while mount points and sub paths are looked up.
pub(crate) async fn exchange_race() {
    let mut bench = Bench::new("exchange").await;
    let (shared, data, outside) = (
        bench.scratch("shared"),
        bench.scratch("data"),
        bench.scratch("outside"),
    );
    std::fs::create_dir_all(shared.join("a/b")).expect("directory");
    std::fs::write(data.join("mine"), "").expect("file");
    let swap = format!(
        "cd /v; ln -s {} link; ln -s ../../../../../.. up; while true; do mv a old 2>/dev/null; ln -s {} a 2>/dev/null; rm -f a; \
         ln -s /proc a 2>/dev/null; rm -f a; mv old a 2>/dev/null; mkdir -p a/b; done 2>/dev/null",
        outside.display(),
        outside.display(),
    );
    let mut start = bench.container(&["sh", "-c", &swap]);
    start.mounts.push(volume(&shared, "/v"));
    let sandbox = bench.engine.sandbox().await.expect("sandbox");
    let racer = bench.engine.start(&sandbox, start).await.expect("start");
    let mut started = 0;
    for number in 0..12 {
        let mut start = look(&mut bench);
        start.mounts.push(volume(&shared, "/v"));
        start.mounts.push(match number % 3 {
            0 => volume(&data, "/v/a/b"),
            1 => Mount::Bind {
                source: shared.clone(),
                sub_path: Some("a/b".into()),
                target: "/sub".into(),
                read_only: false,
                allow_devices: false,
            },
            _ => volume(&data, "/v/link/new"),
        });
        if let Some(text) = said(&bench, start).await {
            assert_eq!(text, "looked\n");
            started += 1;
        }
    }
    racer.process.kill().expect("kill");
    racer.process.wait().await;
    drop(racer);
    eprintln!("   {started} of 12 containers started");
    assert_eq!(
        std::fs::read_dir(&outside).expect("outside").count(),
        0,
        "something was made outside"
    );
    assert_eq!(
        std::fs::read_dir(&data).expect("data").count(),
        1,
        "a mount point was made in another volume"
    );
    assert!(!Path::new("/b").exists());
    bench.close().await;
}
