//! `cargo xtask test --v2`: the container suites in Debian's cloud kernel under qemu, with cgroup v2 and nothing else.
//!
//! Flow: kernel from apt (unpacked, not installed) -> test binaries, stripped, with the libraries they need -> one
//! initramfs -> qemu -> the guest's last line on its console says how each suite ended.
//! Software emulation by default: many times as long as on the host, and the same everywhere. `--kvm` where that works.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

/// Debian's name for the newest kernel for virtual machines.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
/// What the host needs: program and package.
const PACKAGES: [(&str, &str); 4] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("depmod", "kmod"),
];
/// Kernel modules that containers and their network need, with all they depend on.
const MODULES: [&str; 9] = [
    "overlay",
    "veth",
    "bridge",
    "nf_tables",
    "nft_chain_nat",
    "nft_masq",
    "nft_ct",
    "tun",
    "dummy",
];
/// Package, test binary, and its arguments. Not run there: what needs programs in Go (docs/testing.md).
const SUITES: [(&str, &str, &str); 2] = [
    // Its own harness; all cases.
    ("kinglet-node", "it", ""),
    (
        "kinglet",
        "it",
        "--test-threads 2 --skip real_cluster --skip kubectl --skip informer",
    ),
];
/// Programs that tests call, beside busybox.
const PROGRAMS: [&str; 3] = ["setpriv", "tar", "mount"];
/// With software emulation a suite takes this long at most.
const GUEST_MAX: Duration = Duration::from_secs(3 * 3600);
const MEMORY_MB: u32 = 6144;

/// How much longer than on a real machine tests may wait in the guest (see `until` of the test kit), emulated and not.
const PATIENCE: [u32; 2] = [20, 2];

/// `kvm`: with the host's hardware instead of software emulation. `only`: cases with this word in their name.
pub(crate) fn run(kvm: bool, only: Option<&str>) -> anyhow::Result<()> {
    let began = Instant::now();
    crate::suite::debian_packages(&PACKAGES)?;
    let folder = crate::target().join("v2");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let kernel = kernel(&folder)?;
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    let suites = fill(&root, &kernel)?;
    fs::write(root.join("init"), FIRST)?;
    fs::write(root.join("second"), script(&suites, only, kvm))?;
    for file in ["init", "second"] {
        executable(&root.join(file))?;
    }
    let image = folder.join("initramfs");
    pack(&root, &image)?;
    let console = boot(&kernel.image, &image, kvm)?;
    let log = folder.join("console.log");
    fs::write(&log, &console)?;
    let mut failed = Vec::new();
    for (name, _) in &suites {
        if console.contains(&format!("suite {name} passed")) {
            println!("v2: {name} passed");
        } else {
            failed.push(name.as_str());
        }
    }
    ensure!(
        failed.is_empty(),
        "under cgroup v2 did not pass: {}; see {}",
        failed.join(", "),
        log.display()
    );
    println!(
        "v2: everything passed after {:.0} s",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

struct Kernel {
    image: PathBuf,
    modules: PathBuf,
    version: String,
}

/// Downloads and unpacks the kernel, once per version.
fn kernel(folder: &Path) -> anyhow::Result<Kernel> {
    let depends = output(Command::new("apt-cache").args(["depends", KERNEL_PACKAGE]))?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image"))
        .map(|rest| format!("linux-image{rest}"))
        .with_context(|| format!("{KERNEL_PACKAGE} names no kernel (apt-get update?)"))?;
    let unpacked = folder.join(&package);
    if !unpacked.join("boot").exists() {
        eprintln!("v2: downloading {package}");
        succeed(
            Command::new("apt-get")
                .args(["download", "-q", &package])
                .current_dir(folder),
        )?;
        let deb = fs::read_dir(folder)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(&format!("{package}_")))
            })
            .context("apt-get download left no file")?;
        succeed(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&unpacked))?;
    }
    let version = package.trim_start_matches("linux-image-").to_owned();
    succeed(
        Command::new("depmod")
            .arg("-b")
            .arg(&unpacked)
            .arg(&version),
    )?;
    Ok(Kernel {
        image: unpacked.join("boot").join(format!("vmlinuz-{version}")),
        modules: unpacked.join("lib/modules").join(&version),
        version,
    })
}

/// Everything that the guest has: busybox, modules, tests and their libraries. Answers the suites and their programs.
fn fill(root: &Path, kernel: &Kernel) -> anyhow::Result<Vec<(String, String)>> {
    for folder in [
        "bin", "sbin", "usr/bin", "dev", "proc", "sys", "tmp", "etc", "tests", "lib64", "lib",
    ] {
        fs::create_dir_all(root.join(folder))?;
    }
    install(Path::new("/bin/busybox"), &root.join("bin/busybox"))
        .or_else(|_| install(Path::new("/usr/bin/busybox"), &root.join("bin/busybox")))?;
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    )?;
    fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    fs::write(root.join("etc/resolv.conf"), "nameserver 127.0.0.1\n")?;
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n")?;
    modules(root, kernel)?;
    let mut binaries = BTreeSet::new();
    for program in PROGRAMS {
        let path = which(program).with_context(|| format!("{program} is not installed"))?;
        let target = root.join("usr/bin").join(program);
        install(&path, &target)?;
        binaries.insert(path);
    }
    let product = build(&["build", "--bin", "kinglet"], "kinglet")?;
    strip(&product, &root.join("tests/kinglet"))?;
    binaries.insert(product);
    let mut suites = Vec::new();
    for (package, test, arguments) in SUITES {
        let binary = build(&["test", "--no-run", "-p", package, "--test", test], test)?;
        let name = format!("{package}-{test}");
        strip(&binary, &root.join("tests").join(&name))?;
        binaries.insert(binary);
        let command = format!("/tests/{name} {arguments}");
        suites.push((name, command));
    }
    for binary in binaries {
        libraries(&binary, root)?;
    }
    // Tests find their data where they were compiled.
    let cases = crate::root().join("tests/cases");
    copy_tree(&cases, &below(root, &cases))?;
    // They get there through this folder.
    fs::create_dir_all(below(root, &crate::root().join("crates/kinglet")))?;
    let seeds = crate::root().join("fuzz/seeds");
    copy_tree(&seeds, &below(root, &seeds))?;
    Ok(suites)
}

/// The same absolute path inside the guest's root.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    succeed(Command::new("cp").arg("-rT").arg(from).arg(to))
}

fn modules(root: &Path, kernel: &Kernel) -> anyhow::Result<()> {
    let target = root.join("lib/modules").join(&kernel.version);
    fs::create_dir_all(&target)?;
    let dependencies = fs::read_to_string(kernel.modules.join("modules.dep"))?;
    for name in MODULES {
        let file = format!("/{name}.ko");
        let Some(line) = dependencies.lines().find(|line| {
            line.split(':')
                .next()
                .is_some_and(|first| first.ends_with(&file))
        }) else {
            // Built in, or called otherwise: the guest says so when it is missing.
            continue;
        };
        for module in line.replace(':', " ").split_whitespace() {
            let to = target.join(module);
            fs::create_dir_all(to.parent().context("a module lies in a folder")?)?;
            fs::copy(kernel.modules.join(module), to)?;
        }
    }
    for index in [
        "modules.dep",
        "modules.alias",
        "modules.builtin",
        "modules.order",
    ] {
        fs::copy(kernel.modules.join(index), target.join(index))
            .with_context(|| index.to_owned())?;
    }
    Ok(())
}

/// Builds and answers the executable of that name, as cargo tells it.
fn build(arguments: &[&str], name: &str) -> anyhow::Result<PathBuf> {
    let mut cargo = crate::suite::cargo();
    cargo
        .args(arguments)
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit());
    let text = output(&mut cargo)?;
    let mut executables = text.lines().rev().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == name)
            .then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    executables
        .next()
        .with_context(|| format!("cargo {arguments:?} made no {name}"))
}

fn strip(binary: &Path, target: &Path) -> anyhow::Result<()> {
    succeed(Command::new("strip").arg("-o").arg(target).arg(binary))
}

fn install(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    executable(to)
}

fn executable(path: &Path) -> anyhow::Result<()> {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(path, mode).with_context(|| format!("making {} executable", path.display()))
}

/// The shared libraries of a program, to the same paths.
fn libraries(binary: &Path, root: &Path) -> anyhow::Result<()> {
    let listed = output(Command::new("ldd").arg(binary))?;
    for path in listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let path = Path::new(path);
        let to = below(root, path);
        if !to.exists() {
            fs::create_dir_all(to.parent().context("a library lies in a folder")?)?;
            fs::copy(path, to).with_context(|| format!("copying {}", path.display()))?;
        }
    }
    Ok(())
}

/// The first process: containers change their root, which the initramfs itself does not allow, so all moves to a tmpfs.
const FIRST: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir -p /new
mount -t tmpfs -o size=80% root /new
for d in bin sbin usr lib lib64 etc tests tmp work root home opt second; do [ -e /$d ] && cp -a /$d /new/; done
mkdir -p /new/proc /new/sys /new/dev /new/tmp /new/run /new/var /new/root
chmod 1777 /new/tmp
exec switch_root /new /second
";

/// The guest's work, and its end.
fn script(suites: &[(String, String)], only: Option<&str>, kvm: bool) -> String {
    let mut text = String::from(
        "#!/bin/busybox sh
export PATH=/usr/bin:/bin:/sbin HOME=/root CI=1 KINGLET_BIN=/tests/kinglet RUST_BACKTRACE=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
ln -sf /proc/self/fd /dev/fd
mount -t cgroup2 cgroup /sys/fs/cgroup
ip link set lo up
",
    );
    let patience = PATIENCE[usize::from(kvm)];
    text.push_str(&format!("export KINGLET_TEST_PATIENCE={patience}\n"));
    for module in MODULES {
        text.push_str(&format!(
            "modprobe {module} 2>/dev/null || echo \"no module {module}\"\n"
        ));
    }
    text.push_str(
        "echo \"kernel $(uname -r), cgroups: $(cat /sys/fs/cgroup/cgroup.controllers)\"\n",
    );
    let only = only.unwrap_or_default();
    for (name, command) in suites {
        text.push_str(&format!("if {command} {only}; then echo \"suite {name} passed\"; else echo \"suite {name} FAILED\"; fi\n"));
    }
    text.push_str("echo 'all suites ended'\nsync\npoweroff -f\n");
    text
}

fn pack(root: &Path, image: &Path) -> anyhow::Result<()> {
    let file = fs::File::create(image).with_context(|| format!("making {}", image.display()))?;
    let mut find = Command::new("find")
        .arg(".")
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()?;
    let names = find.stdout.take().context("find has an output")?;
    succeed(
        Command::new("cpio")
            .args(["-o", "-H", "newc", "--quiet"])
            .current_dir(root)
            .stdin(names)
            .stdout(file),
    )?;
    ensure!(find.wait()?.success(), "find failed");
    Ok(())
}

/// Runs the guest to its end; its console is shown and answered.
fn boot(kernel: &Path, initramfs: &Path, kvm: bool) -> anyhow::Result<String> {
    eprintln!("v2: booting {}", kernel.display());
    let mut guest = Command::new("qemu-system-x86_64")
        .args([
            "-accel",
            if kvm { "kvm" } else { "tcg,thread=multi" },
            "-cpu",
            if kvm { "host" } else { "max" },
            "-smp",
            "2",
            "-m",
            &MEMORY_MB.to_string(),
        ])
        .args([
            "-display",
            "none",
            "-serial",
            "stdio",
            "-monitor",
            "none",
            "-no-reboot",
            "-nic",
            "none",
        ])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 panic=-1 quiet cgroup_no_v1=all"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting qemu")?;
    let console = guest.stdout.take().context("qemu has a console")?;
    let (sender, lines) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        use std::io::BufRead as _;
        for line in std::io::BufReader::new(console)
            .split(b'\n')
            .map_while(Result::ok)
        {
            if sender
                .send(String::from_utf8_lossy(&line).into_owned())
                .is_err()
            {
                break;
            }
        }
    });
    let (began, mut text) = (Instant::now(), String::new());
    let ended = loop {
        let left = GUEST_MAX.saturating_sub(began.elapsed());
        match lines.recv_timeout(left) {
            Ok(line) => {
                let _ = writeln!(std::io::stderr(), "  | {}", line.trim_end());
                text.push_str(&line);
                text.push('\n');
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break true,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => break false,
        }
    };
    let _ = guest.kill();
    let _ = guest.wait();
    let _ = reader.join();
    if !ended {
        bail!("the guest did not end within {} s", GUEST_MAX.as_secs());
    }
    Ok(text)
}

fn which(program: &str) -> Option<PathBuf> {
    crate::suite::which(program)
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("starting {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
