//! Turns a table of system calls into a program of the kernel's classic BPF.
//!
//! The numbers become ranges with one verdict each, and the program looks for the range of a number by halves: some
//! eight comparisons instead of one for each call on the list. The kernel runs a new filter once for every number there
//! is (to remember which calls are always allowed) and translates it to machine code, and both are part of a container's
//! start.

use std::collections::BTreeMap;

use libc::sock_filter;

use super::profile::{Argument, Comparison};

/// What is answered to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    /// Refused with this error.
    Errno(u16),
    /// Allowed if one of these holds, else refused with EPERM.
    If(&'static [Argument]),
}

/// What is answered to numbers that are not on the list.
const LAST_RESORT: Verdict = Verdict::Errno(EPERM);
pub(super) const EPERM: u16 = errno(libc::EPERM);
pub(super) const ENOSYS: u16 = errno(libc::ENOSYS);

/// The number of an error in the 16 bits that a verdict has for it; one that does not fit does not compile.
const fn errno(number: i32) -> u16 {
    assert!(number >> 16 == 0, "an error's number has 16 bits");
    let [low, high, ..] = number.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// `AUDIT_ARCH_*`: numbers mean other calls elsewhere.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

// Fields of `struct seccomp_data`.
const NUMBER_OFFSET: u32 = 0;
const ARCHITECTURE_OFFSET: u32 = 4;
const ARGUMENTS_OFFSET: u32 = 16;
const ARGUMENT_BYTES: u32 = 8;
/// The half of an argument that is looked at.
const LOW_HALF_OFFSET: u32 = if cfg!(target_endian = "big") { 4 } else { 0 };

// `linux/bpf_common.h` and `linux/filter.h`.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const JUMP_IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// The program: a call that is not in `calls` is refused with EPERM, a foreign architecture ends the process.
pub(super) fn program(calls: &BTreeMap<u32, Verdict>) -> Vec<sock_filter> {
    let mut program = vec![
        load(ARCHITECTURE_OFFSET),
        jump(JUMP_IF_EQUAL, ARCHITECTURE, 1, 0),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER_OFFSET),
    ];
    program.extend(search(&ranges(calls)));
    program
}

/// The first number of each range of equal verdicts.
fn ranges(calls: &BTreeMap<u32, Verdict>) -> Vec<(u32, Verdict)> {
    let mut ranges = vec![(0, LAST_RESORT)];
    let mut start_range = |first: u32, verdict: Verdict| match ranges.last_mut() {
        Some((_, last)) if *last == verdict => {}
        Some(range) if range.0 == first => range.1 = verdict,
        _ => ranges.push((first, verdict)),
    };
    for (number, verdict) in calls {
        start_range(*number, *verdict);
        if !calls.contains_key(&(number + 1)) {
            start_range(number + 1, LAST_RESORT);
        }
    }
    ranges
}

/// Finds the range of the number in the accumulator.
fn search(ranges: &[(u32, Verdict)]) -> Vec<sock_filter> {
    match ranges {
        [] => verdict(LAST_RESORT),
        [(_, only)] => verdict(*only),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let first_of_high = high.first().map_or(u32::MAX, |(first, _)| *first);
            let (low, high) = (search(low), search(high));
            let mut code = match u8::try_from(low.len()) {
                Ok(length) => vec![jump(JUMP_IF_AT_LEAST, first_of_high, length, 0)],
                // Only an unconditional jump reaches farther.
                Err(_) => vec![
                    jump(JUMP_IF_AT_LEAST, first_of_high, 0, 1),
                    jump(JUMP, u32::try_from(low.len()).unwrap_or(u32::MAX), 0, 0),
                ],
            };
            code.extend(low);
            code.extend(high);
            code
        }
    }
}

fn verdict(verdict: Verdict) -> Vec<sock_filter> {
    let refused = |errno: u16| answer(libc::SECCOMP_RET_ERRNO | u32::from(errno));
    let allowed = answer(libc::SECCOMP_RET_ALLOW);
    match verdict {
        Verdict::Allow => vec![allowed],
        Verdict::Errno(errno) => vec![refused(errno)],
        Verdict::If(alternatives) => {
            let mut code = Vec::new();
            for one in alternatives {
                let offset = ARGUMENTS_OFFSET + ARGUMENT_BYTES * u32::from(one.index);
                code.push(load(offset + LOW_HALF_OFFSET));
                code.push(match one.comparison {
                    Comparison::Is => jump(JUMP_IF_EQUAL, one.value, 0, 1),
                    Comparison::IsNot => jump(JUMP_IF_EQUAL, one.value, 1, 0),
                    Comparison::HasNone => jump(JUMP_IF_ANY_BIT, one.value, 1, 0),
                });
                code.push(allowed);
            }
            code.push(refused(EPERM));
            code
        }
    }
}

fn load(offset: u32) -> sock_filter {
    jump(LOAD, offset, 0, 0)
}

fn answer(value: u32) -> sock_filter {
    jump(RETURN, value, 0, 0)
}

fn jump(code: u16, k: u32, if_true: u8, if_false: u8) -> sock_filter {
    sock_filter {
        code,
        jt: if_true,
        jf: if_false,
        k,
    }
}

/// Runs a program as the kernel would.
#[cfg(test)]
pub(super) fn run(program: &[sock_filter], number: u32, first_argument: u64) -> u32 {
    let (mut accumulator, mut at) = (0_u32, 0_usize);
    loop {
        let one = program[at];
        let holds = match one.code {
            LOAD => {
                accumulator = match one.k {
                    NUMBER_OFFSET => number,
                    ARCHITECTURE_OFFSET => ARCHITECTURE,
                    offset if offset == ARGUMENTS_OFFSET + LOW_HALF_OFFSET => {
                        u32::try_from(first_argument & 0xffff_ffff).expect("masked")
                    }
                    other => panic!("offset {other}"),
                };
                at += 1;
                continue;
            }
            JUMP => {
                at += 1 + usize::try_from(one.k).expect("forward");
                continue;
            }
            RETURN => return one.k,
            JUMP_IF_EQUAL => accumulator == one.k,
            JUMP_IF_AT_LEAST => accumulator >= one.k,
            JUMP_IF_ANY_BIT => accumulator & one.k != 0,
            other => panic!("instruction {other:#x}"),
        };
        at += 1 + usize::from(if holds { one.jt } else { one.jf });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: &[Argument] = &[Argument {
        index: 0,
        comparison: Comparison::Is,
        value: 7,
    }];

    /// Every number, also those between, before and after the ones on the list, by a list that needs far jumps.
    #[test]
    fn every_number_gets_its_verdict() {
        for step in 1..9 {
            let verdict_of = |number: u32| match number % 5 {
                0 => Verdict::If(SOME),
                1 | 2 => Verdict::Allow,
                3 => Verdict::Errno(ENOSYS),
                _ => Verdict::Errno(EPERM),
            };
            let calls: BTreeMap<u32, Verdict> = (step..600)
                .step_by(usize::try_from(step).expect("small"))
                .map(|number| (number, verdict_of(number)))
                .collect();
            let program = program(&calls);
            for number in (0..700).chain([0x4000_0000, 0x4000_0001, u32::MAX]) {
                for argument in [7, 8, 0x1_0000_0007] {
                    let allowed = match calls.get(&number) {
                        None => Some(EPERM),
                        Some(Verdict::Errno(errno)) => Some(*errno),
                        Some(Verdict::Allow) => None,
                        Some(Verdict::If(_)) => (argument & 0xffff_ffff != 7).then_some(EPERM),
                    };
                    let expected = allowed.map_or(libc::SECCOMP_RET_ALLOW, |errno| {
                        libc::SECCOMP_RET_ERRNO | u32::from(errno)
                    });
                    assert_eq!(run(&program, number, argument), expected, "{number} {step}");
                }
            }
        }
    }

    #[test]
    fn arguments_are_compared() {
        let of = |comparison, value| Argument {
            index: 0,
            comparison,
            value,
        };
        for (comparison, value, argument, allowed) in [
            (Comparison::Is, 40, 40, true),
            (Comparison::Is, 40, 41, false),
            (Comparison::IsNot, 40, 41, true),
            (Comparison::IsNot, 40, 40, false),
            (
                Comparison::HasNone,
                0x7e02_0000,
                0x1200_0011 & !0x7e02_0000,
                true,
            ),
            (Comparison::HasNone, 0x7e02_0000, 0x1000_0000, false),
            // Only the half that the kernel's own code looks at.
            (Comparison::Is, 40, 0xff_0000_0028, true),
        ] {
            let one: &'static [Argument] = Box::leak(Box::new([of(comparison, value)]));
            let program = program(&BTreeMap::from([(3, Verdict::If(one))]));
            let answer = run(&program, 3, argument);
            assert_eq!(
                answer == libc::SECCOMP_RET_ALLOW,
                allowed,
                "{one:?} {argument:#x}"
            );
        }
    }

    #[test]
    fn foreign_architectures_end_the_process() {
        let program = program(&BTreeMap::new());
        assert_eq!(program[1].k, ARCHITECTURE);
        assert_eq!(program[2].k, libc::SECCOMP_RET_KILL_PROCESS);
    }
}
