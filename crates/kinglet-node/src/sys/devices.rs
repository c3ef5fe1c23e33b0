//! The devices of a container, and the kernel's rules about them: a list for cgroup version 1, a program for version 2.
//!
//! The list is the one that OCI runtimes agree on: nodes of any device may be made, these may be opened.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;
const MAKE_NODE: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const ALL: u32 = MAKE_NODE | READ | WRITE;

/// The devices that exist in every container's `/dev`: name, major and minor number.
pub(crate) const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// One line of the list; `None` is any number.
struct Rule {
    kind: u32,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

const fn rule(kind: u32, major: Option<u32>, minor: Option<u32>, access: u32) -> Rule {
    Rule {
        kind,
        major,
        minor,
        access,
    }
}

const ALLOWED: [Rule; 11] = [
    rule(CHARACTER, None, None, MAKE_NODE),
    rule(BLOCK, None, None, MAKE_NODE),
    rule(CHARACTER, Some(1), Some(3), ALL),
    rule(CHARACTER, Some(1), Some(5), ALL),
    rule(CHARACTER, Some(1), Some(7), ALL),
    rule(CHARACTER, Some(1), Some(8), ALL),
    rule(CHARACTER, Some(1), Some(9), ALL),
    rule(CHARACTER, Some(5), Some(0), ALL),
    // The multiplexer of pseudo terminals, the console, and the terminals themselves.
    rule(CHARACTER, Some(5), Some(1), ALL),
    rule(CHARACTER, Some(5), Some(2), ALL),
    rule(CHARACTER, Some(136), None, ALL),
];

/// The lines for `devices.allow` of cgroup version 1, after everything was denied.
pub(crate) fn allow_lines() -> impl Iterator<Item = String> {
    ALLOWED.iter().map(|rule| {
        let kind = if rule.kind == BLOCK { 'b' } else { 'c' };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |one| one.to_string());
        let access: String = [(READ, 'r'), (WRITE, 'w'), (MAKE_NODE, 'm')]
            .iter()
            .filter(|(bit, _)| rule.access & bit != 0)
            .map(|(_, letter)| *letter)
            .collect();
        format!(
            "{kind} {}:{} {access}",
            number(rule.major),
            number(rule.minor)
        )
    })
}

/// One instruction as the kernel takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbf;
const MOVE: u8 = 0xb7;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_IF_NOT: u8 = 0x55;
const EXIT: u8 = 0x95;

/// Where the program keeps what it looks at.
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const EXTRA: u8 = 6;

/// The list as a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`: 1 allows, 0 refuses.
fn program() -> Vec<Instruction> {
    let one = |code, to: u8, from: u8, offset, immediate: u32| Instruction {
        code,
        registers: to | (from << 4),
        offset,
        immediate: immediate.cast_signed(),
    };
    // struct bpf_cgroup_dev_ctx: kind in the low and access in the high half of the first word, then the numbers.
    let mut all = vec![
        one(LOAD_WORD, KIND, CONTEXT, 0, 0),
        one(MOVE_REGISTER, ACCESS, KIND, 0, 0),
        one(AND, KIND, 0, 0, 0xffff),
        one(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        one(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        one(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in &ALLOWED {
        // Every test jumps to the next rule when it fails; how far that is, is known at the end.
        let mut tests = vec![(KIND, rule.kind)];
        tests.extend(rule.major.map(|number| (MAJOR, number)));
        tests.extend(rule.minor.map(|number| (MINOR, number)));
        let mut body = Vec::new();
        for (register, value) in tests {
            body.push(one(JUMP_IF_NOT, register, 0, 0, value));
        }
        if rule.access != ALL {
            body.push(one(MOVE_REGISTER, EXTRA, ACCESS, 0, 0));
            body.push(one(AND, EXTRA, 0, 0, ALL & !rule.access));
            body.push(one(JUMP_IF_NOT, EXTRA, 0, 0, 0));
        }
        body.push(one(MOVE, 0, 0, 0, 1));
        body.push(one(EXIT, 0, 0, 0, 0));
        let length = body.len();
        for (index, instruction) in body.iter_mut().enumerate() {
            if instruction.code == JUMP_IF_NOT {
                instruction.offset = i16::try_from(length - index - 1).unwrap_or(i16::MAX);
            }
        }
        all.append(&mut body);
    }
    all.push(one(MOVE, 0, 0, 0, 0));
    all.push(one(EXIT, 0, 0, 0, 0));
    all
}

/// `union bpf_attr` as BPF_PROG_LOAD reads its beginning.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

/// The same for BPF_PROG_ATTACH and BPF_PROG_DETACH.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The loaded program.
#[derive(Debug)]
pub(crate) struct DeviceProgram(OwnedFd);

impl DeviceProgram {
    /// Gives the program to the kernel, which checks it.
    pub(crate) fn load() -> io::Result<Self> {
        let instructions = program();
        let attributes = LoadAttributes {
            kind: BPF_PROG_TYPE_CGROUP_DEVICE,
            instruction_count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
            instructions: instructions.as_ptr() as u64,
            license: c"Apache-2.0".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
        };
        let descriptor = bpf(BPF_PROG_LOAD, &attributes)?;
        // SAFETY: the kernel has just given this descriptor to us, and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    /// Applies it to a group of cgroup version 2 and everything below.
    pub(crate) fn attach(&self, group: impl AsFd) -> io::Result<()> {
        bpf(BPF_PROG_ATTACH, &self.to(group, BPF_F_ALLOW_MULTI)).map(drop)
    }

    /// Takes it off again.
    pub(crate) fn detach(&self, group: impl AsFd) -> io::Result<()> {
        bpf(BPF_PROG_DETACH, &self.to(group, 0)).map(drop)
    }

    fn to(&self, group: impl AsFd, flags: u32) -> AttachAttributes {
        AttachAttributes {
            target: group.as_fd().as_raw_fd().cast_unsigned(),
            program: self.0.as_raw_fd().cast_unsigned(),
            kind: BPF_CGROUP_DEVICE,
            flags,
        }
    }
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: `attributes` is the beginning of the kernel's `bpf_attr` for this command, its length is told, and what it
    // points at outlives the call; the kernel only reads.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(answer).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn run(kind: u32, access: u32, major: u32, minor: u32) -> i64 {
        let context = [kind | (access << 16), major, minor];
        let program = program();
        let mut registers = [0_u64; 11];
        let mut at = 0;
        loop {
            let one = program[at];
            let (to, from) = (
                usize::from(one.registers & 0xf),
                usize::from(one.registers >> 4),
            );
            at += 1;
            match one.code {
                LOAD_WORD => {
                    let word = usize::try_from(one.offset).expect("forward") / 4;
                    registers[to] = u64::from(context[word]);
                }
                MOVE_REGISTER => registers[to] = registers[from],
                MOVE => registers[to] = u64::from(one.immediate.cast_unsigned()),
                AND => registers[to] &= u64::from(one.immediate.cast_unsigned()),
                SHIFT_RIGHT => registers[to] >>= one.immediate,
                JUMP_IF_NOT => {
                    if registers[to] != u64::from(one.immediate.cast_unsigned()) {
                        at += usize::try_from(one.offset).expect("forward");
                    }
                }
                EXIT => return registers[0].cast_signed(),
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn only_harmless_devices_open() {
        for (kind, access, major, minor, expected) in [
            (CHARACTER, READ | WRITE, 1, 3, 1),
            (CHARACTER, READ, 1, 9, 1),
            (CHARACTER, READ | WRITE, 5, 2, 1),
            (CHARACTER, READ | WRITE, 136, 7, 1),
            // The memory of the machine, its disks, virtual machines, FUSE, tun.
            (CHARACTER, READ, 1, 1, 0),
            (CHARACTER, READ, 1, 4, 0),
            (BLOCK, READ, 254, 0, 0),
            (BLOCK, READ, 8, 0, 0),
            (BLOCK, WRITE, 7, 0, 0),
            (CHARACTER, READ | WRITE, 10, 232, 0),
            (CHARACTER, READ | WRITE, 10, 229, 0),
            (CHARACTER, READ | WRITE, 10, 200, 0),
            // A node may be made, not opened.
            (BLOCK, MAKE_NODE, 8, 0, 1),
            (BLOCK, MAKE_NODE | READ, 8, 0, 0),
            // The numbers of a character device say nothing about a block device.
            (BLOCK, READ, 1, 3, 0),
        ] {
            assert_eq!(
                run(kind, access, major, minor),
                expected,
                "{kind} {access} {major}:{minor}"
            );
        }
    }

    #[test]
    fn version_1_lines() {
        let lines: Vec<String> = allow_lines().collect();
        assert!(lines.contains(&"c 1:3 rwm".to_owned()), "{lines:?}");
        assert!(lines.contains(&"b *:* m".to_owned()), "{lines:?}");
        assert!(lines.contains(&"c 136:* rwm".to_owned()), "{lines:?}");
        assert!(
            lines
                .iter()
                .all(|line| !line.starts_with("b") || line == "b *:* m")
        );
    }

    #[test]
    fn instructions_have_the_kernels_size() {
        assert_eq!(size_of::<Instruction>(), 8);
    }
}
