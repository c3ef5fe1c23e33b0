//! What a hostile program does that a shell cannot: this test binary, put into an image, makes raw system calls.
//!
//! `attack NAME [ARGUMENT]` prints one line: `ok` and what it got, or the name of the error.
#![allow(
    unsafe_code,
    clippy::print_stdout,
    reason = "an attacker makes raw system calls, and tells"
)]

use std::io;

use crate::attacker_frames;

fn call(number: i64, arguments: [u64; 6]) -> io::Result<i64> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the pointers that callers pass are C strings or null; nothing else is touched.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(answer)
    }
}

fn text(path: &'static std::ffi::CStr) -> u64 {
    path.as_ptr() as u64
}

/// A stack for children of `clone`; they end at once.
fn fork_like(number: i64, arguments: [u64; 6]) -> io::Result<i64> {
    let answer = call(number, arguments)?;
    if answer == 0 {
        std::process::exit(0);
    }
    Ok(answer)
}

fn attack(name: &str) -> io::Result<i64> {
    const NEW_USER: u64 = 0x1000_0000;
    const SIGCHLD: u64 = 17;
    let nothing = [0; 6];
    match name {
        "clone_newuser" => fork_like(libc::SYS_clone, [NEW_USER | SIGCHLD, 0, 0, 0, 0, 0]),
        "clone3_newuser" => {
            // struct clone_args: flags first, the exit signal fifth.
            let arguments: [u64; 11] = [NEW_USER, 0, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, 0];
            fork_like(
                libc::SYS_clone3,
                [arguments.as_ptr() as u64, 88, 0, 0, 0, 0],
            )
        }
        "unshare_user" => call(libc::SYS_unshare, [NEW_USER, 0, 0, 0, 0, 0]),
        "unshare_mount" => call(libc::SYS_unshare, [0x0002_0000, 0, 0, 0, 0, 0]),
        "mount" => call(
            libc::SYS_mount,
            [text(c"none"), text(c"/tmp"), text(c"tmpfs"), 0, 0, 0],
        ),
        "umount_masked" => call(libc::SYS_umount2, [text(c"/proc/kcore"), 2, 0, 0, 0, 0]),
        "open_tree" => call(
            libc::SYS_open_tree,
            [(-100_i64).cast_unsigned(), text(c"/"), 1, 0, 0, 0],
        ),
        "open_tree_attr" => call(467, [(-100_i64).cast_unsigned(), text(c"/"), 1, 0, 0, 0]),
        "fsopen" => call(libc::SYS_fsopen, [text(c"tmpfs"), 0, 0, 0, 0, 0]),
        "pivot_root" => call(libc::SYS_pivot_root, [text(c"."), text(c"."), 0, 0, 0, 0]),
        "setns" => call(libc::SYS_setns, [0, 0, 0, 0, 0, 0]),
        "keyctl_session" => call(libc::SYS_keyctl, [0, (-3_i64).cast_unsigned(), 0, 0, 0, 0]),
        "keyctl_read_user" => call(libc::SYS_keyctl, [11, (-4_i64).cast_unsigned(), 0, 0, 0, 0]),
        // Whether a key that the host's session holds is found from here.
        "request_key" => call(
            libc::SYS_request_key,
            [text(c"user"), text(c"kinglet-escape"), 0, 0, 0, 0],
        ),
        "add_key" => call(
            libc::SYS_add_key,
            [
                text(c"user"),
                text(c"x"),
                text(c"x"),
                1,
                (-3_i64).cast_unsigned(),
                0,
            ],
        ),
        "bpf" => call(libc::SYS_bpf, nothing),
        "perf_event_open" => call(libc::SYS_perf_event_open, nothing),
        "userfaultfd" => call(libc::SYS_userfaultfd, nothing),
        "io_uring" => call(libc::SYS_io_uring_setup, [1, 0, 0, 0, 0, 0]),
        "init_module" => call(libc::SYS_init_module, nothing),
        "kexec" => call(libc::SYS_kexec_load, nothing),
        "reboot" => call(libc::SYS_reboot, nothing),
        "swapon" => call(libc::SYS_swapon, [text(c"/tmp"), 0, 0, 0, 0, 0]),
        "open_by_handle" => call(libc::SYS_open_by_handle_at, nothing),
        "settime" => call(libc::SYS_clock_settime, [0, 0, 0, 0, 0, 0]),
        "vsock" => call(libc::SYS_socket, [40, 1, 0, 0, 0, 0]),
        "personality_no_random" => call(libc::SYS_personality, [0x004_0000, 0, 0, 0, 0, 0]),
        "x32" => call(0x4000_0000 | libc::SYS_getpid, nothing),
        "newest_call" => call(600, nothing),
        "getpid" => call(libc::SYS_getpid, nothing),
        "fork" => fork_like(libc::SYS_clone, [SIGCHLD, 0, 0, 0, 0, 0]),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Makes this process one that has something to lose: a session keyring with a key in it.
pub(crate) fn hold_a_key() {
    let made = call(libc::SYS_keyctl, [1, 0, 0, 0, 0, 0]).and_then(|_| {
        let session = (-3_i64).cast_unsigned();
        call(
            libc::SYS_add_key,
            [
                text(c"user"),
                text(c"kinglet-escape"),
                text(c"x"),
                1,
                session,
                0,
            ],
        )
    });
    if let Err(error) = made {
        eprintln!("   this kernel has no keys to steal: {error}");
    }
}

/// The program: tries each attack and prints a line for each.
pub(crate) fn main(names: &[String]) {
    if let Some((first, frames)) = names.split_first()
        && first == "frames"
    {
        return frames_of(frames);
    }
    if let [first, port] = names
        && first == "hear"
    {
        return hear(port.parse().expect("port"));
    }
    for name in names {
        match attack(name) {
            Ok(_) => println!("{name}: ok"),
            Err(error) => {
                let said = match error.raw_os_error() {
                    Some(libc::EPERM) => "EPERM".to_owned(),
                    Some(libc::ENOSYS) => "ENOSYS".to_owned(),
                    Some(other) => format!("errno {other}"),
                    None => error.to_string(),
                };
                println!("{name}: {said}");
            }
        }
    }
}

/// Sends each frame: `router`, or `FROM>TO:PORT=TEXT`.
fn frames_of(frames: &[String]) {
    for frame in frames {
        let sent = if frame == "router" {
            attacker_frames::router()
        } else {
            datagram(frame)
        };
        match sent {
            Ok(()) => println!("{frame}: sent"),
            Err(error) => println!("{frame}: error {error}"),
        }
    }
}

fn datagram(frame: &str) -> io::Result<()> {
    let bad = || io::Error::from(io::ErrorKind::InvalidInput);
    let (from, rest) = frame.split_once('>').ok_or_else(bad)?;
    let (to, text) = rest.split_once('=').ok_or_else(bad)?;
    let (to, port) = to.split_once(':').ok_or_else(bad)?;
    let address = |text: &str| text.parse().map_err(|_| bad());
    attacker_frames::datagram(
        address(from)?,
        address(to)?,
        port.parse().map_err(|_| bad())?,
        text,
    )
}

/// Prints every datagram that comes, until the honest one.
fn hear(port: u16) {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", port)).expect("socket");
    println!("listening");
    let mut buffer = [0; 2000];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).expect("datagram");
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        println!("{} says {text}", from.ip());
        if text == "honest" {
            return;
        }
    }
}
