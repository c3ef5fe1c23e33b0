//! Pages of the program's file that only its start has needed.

use std::io;

/// Lets go of the pages of code and constants, the program's and its libraries', that are mapped into this process: parsing
/// a command line and setting up libraries touches twice as much as serving does. What is used again comes back from the
/// page cache.
pub fn release_start_pages() -> io::Result<()> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    for (start, length) in maps.lines().filter_map(file_pages) {
        // SAFETY: the range is one mapping of a file, private and never writable: code, or the constants before it. For
        // such pages the kernel promises that the next access finds the file's contents again.
        let answer = unsafe {
            libc::madvise(
                std::ptr::without_provenance_mut(start),
                length,
                libc::MADV_DONTNEED,
            )
        };
        if answer != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Start and length of a mapping of a file that nobody has ever written to. What is read-only now at another place of
/// the file was written by the loader, and would be lost.
fn file_pages(line: &str) -> Option<(usize, usize)> {
    let (fields, _path) = line.split_at_checked(line.find('/')?)?;
    let mut fields = fields.split_whitespace();
    let (range, rights, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let constants = rights == "r--p" && offset.bytes().all(|digit| digit == b'0');
    if !constants && rights != "r-xp" {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_has_written_to() {
        for (line, expected) in [
            (
                "1000-3000 r--p 00000000 fe:00 5 /usr/bin/kinglet",
                Some((0x1000, 0x2000)),
            ),
            (
                "3000-5000 r-xp 00fad000 fe:00 5 /usr/bin/kinglet",
                Some((0x3000, 0x2000)),
            ),
            ("5000-6000 r--p 03860000 fe:00 5 /usr/bin/kinglet", None),
            ("6000-7000 rw-p 039b9000 fe:00 5 /usr/bin/kinglet", None),
            (
                "7000-8000 r-xp 00026000 fe:00 6 /usr/lib/libc.so.6",
                Some((0x7000, 0x1000)),
            ),
            ("8000-9000 rw-p 00000000 00:00 0 [heap]", None),
            ("9000-a000 r-xp 00000000 00:00 0 [vdso]", None),
            ("", None),
        ] {
            assert_eq!(file_pages(line), expected, "{line}");
        }
    }

    #[test]
    fn the_program_goes_on() {
        release_start_pages().expect("released");
        let sorted: std::collections::BTreeSet<u32> = (0..1000).rev().collect();
        assert_eq!(sorted.first(), Some(&0));
    }
}
