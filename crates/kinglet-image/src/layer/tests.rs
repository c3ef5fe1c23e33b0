//! Layers that images in the wild have, and some that nobody should.

use std::io::Cursor;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};

use super::*;

enum E {
    File(&'static str, &'static str),
    Mode(&'static str, u32, (u64, u64)),
    Dir(&'static str, u32),
    Link(&'static str, &'static str),
    Hard(&'static str, &'static str),
    Device(&'static str, tar::EntryType, u32, u32),
    Xattr(&'static str, &'static str, &'static str),
}

/// Writes names as they are: the builder would refuse some of those we want to try.
fn header(path: &str, kind: tar::EntryType, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().expect("gnu").name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header
}

fn tar_of(entries: &[E]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let (mut header, content) = match *entry {
            E::File(path, content) => (
                header(path, tar::EntryType::Regular, content.len()),
                content,
            ),
            E::Mode(path, mode, (uid, gid)) => {
                let mut header = header(path, tar::EntryType::Regular, 0);
                header.set_mode(mode);
                header.set_uid(uid);
                header.set_gid(gid);
                (header, "")
            }
            E::Dir(path, mode) => {
                let mut header = header(path, tar::EntryType::Directory, 0);
                header.set_mode(mode);
                (header, "")
            }
            E::Link(path, target) | E::Hard(path, target) => {
                let kind = if matches!(entry, E::Link(..)) {
                    tar::EntryType::Symlink
                } else {
                    tar::EntryType::Link
                };
                let mut header = header(path, kind, 0);
                header.as_gnu_mut().expect("gnu").linkname[..target.len()]
                    .copy_from_slice(target.as_bytes());
                (header, "")
            }
            E::Device(path, kind, major, minor) => {
                let mut header = header(path, kind, 0);
                header.set_device_major(major).expect("major");
                header.set_device_minor(minor).expect("minor");
                (header, "")
            }
            E::Xattr(path, key, value) => {
                builder
                    .append_pax_extensions([(
                        format!("SCHILY.xattr.{key}").as_str(),
                        value.as_bytes(),
                    )])
                    .expect("pax");
                (header(path, tar::EntryType::Regular, 0), "")
            }
        };
        header.set_cksum();
        builder.append(&header, content.as_bytes()).expect("append");
    }
    builder.into_inner().expect("tar")
}

struct Target(PathBuf);

impl Target {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("kinglet-layer-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("scratch");
        Self(path)
    }

    fn unpack(name: &str, entries: &[E]) -> Self {
        let target = Self::new(name);
        unpack_stream(Cursor::new(tar_of(entries)), &target.0).expect(name);
        target
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.0.join(path)).expect(path)
    }

    fn meta(&self, path: &str) -> std::fs::Metadata {
        std::fs::symlink_metadata(self.0.join(path)).expect(path)
    }

    fn whiteout(&self, path: &str) -> bool {
        let meta = self.meta(path);
        meta.file_type().is_char_device() && meta.rdev() == 0
    }

    fn attribute(&self, path: &str, name: &str) -> Option<Vec<u8>> {
        let mut buffer = vec![0_u8; 256];
        let length = rustix::fs::lgetxattr(self.0.join(path), name, &mut buffer[..]).ok()?;
        buffer.truncate(length);
        Some(buffer)
    }

    fn opaque(&self, path: &str) -> bool {
        self.attribute(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = kinglet_process::trash::remove_tree(&self.0);
    }
}

/// Device nodes, owners and trusted attributes are root's.
fn root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("{test}: not run, needs root");
    }
    root
}

#[test]
fn plain_and_compressed() {
    let tar = tar_of(&[E::File("a/b", "text")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut gzip, &tar).expect("gzip");
    let zstd = zstd::encode_all(&tar[..], 1).expect("zstd");
    for (name, bytes) in [
        ("tar", tar.clone()),
        ("gzip", gzip.finish().expect("gzip")),
        ("zstd", zstd),
    ] {
        let target = Target::new(name);
        unpack_stream(Cursor::new(bytes), &target.0).expect(name);
        assert_eq!(target.text("a/b"), "text");
    }
}

#[test]
fn nothing_leads_outside() {
    for entry in [
        E::File("../evil", "x"),
        E::File("a/../../evil", "x"),
        E::Hard("a", "../../etc/passwd"),
    ] {
        let target = Target::new("escape");
        let error = unpack_stream(Cursor::new(tar_of(&[entry])), &target.0).expect_err("outside");
        assert!(error.contains("outside"), "{error}");
    }
}

#[test]
fn links_are_followed_inside_the_root_only() {
    let outside = Target::new("outside");
    std::fs::write(outside.0.join("victim"), "whole").expect("victim");
    let leak: &'static str = outside.0.to_str().expect("path").to_owned().leak();
    let target = Target::unpack(
        "links",
        &[
            E::Link("lib", "/usr/lib"),
            E::File("lib/x", "in usr/lib"),
            E::Link("up", "../../../../.."),
            E::File("up/y", "in the root"),
            E::Link("out", leak),
            E::File("out/victim", "harmless"),
            E::File("out/.wh.victim2", ""),
            E::Link("victim", "/etc/hostname-of-the-host"),
            E::File("victim", "replaced, not followed"),
        ],
    );
    assert_eq!(target.text("usr/lib/x"), "in usr/lib");
    assert_eq!(target.text("y"), "in the root");
    assert_eq!(target.text("victim"), "replaced, not followed");
    assert_eq!(outside.text("victim"), "whole");
    assert!(!outside.0.join("victim2").exists());
    assert_eq!(
        std::fs::read_link(target.0.join("lib")).expect("link"),
        Path::new("/usr/lib")
    );
}

#[test]
fn a_ring_of_links_ends() {
    let target = Target::new("ring");
    let error = unpack_stream(
        Cursor::new(tar_of(&[
            E::Link("a", "b"),
            E::Link("b", "a"),
            E::File("a/x", ""),
        ])),
        &target.0,
    )
    .expect_err("ring");
    assert!(error.contains("too many symbolic links"), "{error}");
}

#[test]
fn later_entries_replace_earlier_ones_of_any_kind() {
    let target = Target::unpack(
        "replace",
        &[
            E::File("a/deep/x", "1"),
            E::File("a", "file over directory"),
            E::File("b", "1"),
            E::Dir("b/", 0o700),
            E::Link("c", "/nowhere"),
            E::Dir("c", 0o711),
            E::File("c/x", "in c"),
            E::Dir("d", 0o755),
            E::Link("d", "c"),
            E::File("e", "1"),
            E::File("f", "2"),
            E::Hard("e", "f"),
            E::Hard("e", "e"),
        ],
    );
    assert_eq!(target.text("a"), "file over directory");
    assert_eq!(target.meta("b").permissions().mode() & 0o7777, 0o700);
    assert_eq!(target.text("c/x"), "in c");
    assert!(target.meta("d").is_symlink());
    assert_eq!(target.text("e"), "2");
    assert_eq!(target.meta("e").ino(), target.meta("f").ino());
}

#[test]
fn hard_links_to_symlinks_and_to_nothing() {
    let target = Target::unpack("hard", &[E::Link("l", "/not/here"), E::Hard("m", "/l")]);
    assert!(target.meta("m").is_symlink());
    let target = Target::new("dangling");
    let error = unpack_stream(Cursor::new(tar_of(&[E::Hard("m", "lower")])), &target.0)
        .expect_err("dangling");
    assert!(
        error.contains("neither this layer nor one below has"),
        "{error}"
    );
}

fn on_top_of(name: &str, parents: &[&Target], entries: &[E]) -> Result<(Target, Unpacked), String> {
    let target = Target::new(name);
    let below = Below {
        parents: parents.iter().map(|parent| parent.0.clone()).collect(),
        ..Below::default()
    };
    let unpacked = unpack_on(Cursor::new(tar_of(entries)), &target.0, &below)?;
    Ok((target, unpacked))
}

#[test]
fn hard_links_reach_files_of_lower_layers() {
    if !root("hard_links_reach_files_of_lower_layers") {
        return;
    }
    let bottom = Target::unpack(
        "lower-bottom",
        &[
            E::Mode("bin/su", 0o4755, (7, 8)),
            E::File("bin/tool", "tool"),
            E::File("bin/gone", "x"),
            E::Link("escape", "/etc"),
            E::Link("link", "bin/tool"),
        ],
    );
    let middle = Target::unpack("lower-middle", &[E::File("bin/.wh.gone", "")]);
    let parents = [&middle, &bottom];
    let (top, unpacked) = on_top_of(
        "lower-top",
        &parents,
        &[
            E::Hard("copy", "bin/tool"),
            E::Hard("root", "/bin/su"),
            E::Hard("same-link", "link"),
        ],
    )
    .expect("unpacks");
    assert!(unpacked.needs_parents);
    assert_eq!(top.text("copy"), "tool");
    let su = top.meta("root");
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid()), (0o4755, 7, 8));
    assert!(top.meta("same-link").is_symlink());
    for lost in ["bin/gone", "escape/passwd", "bin/tool/x", "none"] {
        let error = on_top_of(
            "lower-lost",
            &parents,
            &[E::Hard("h", lost.to_owned().leak())],
        )
        .map(drop)
        .expect_err(lost);
        assert!(
            error.contains("neither this layer nor one below"),
            "{error}"
        );
    }
}

#[test]
fn directories_that_a_layer_does_not_list_are_those_below() {
    if !root("directories_that_a_layer_does_not_list_are_those_below") {
        return;
    }
    let bottom = Target::unpack("implied-bottom", &[E::Dir("tmp", 0o1777)]);
    let (top, unpacked) =
        on_top_of("implied-top", &[&bottom], &[E::File("tmp/a/x", "")]).expect("unpacks");
    assert!(unpacked.needs_parents);
    assert_eq!(top.meta("tmp").mode() & 0o7777, 0o1777);
    assert_eq!(top.meta("tmp/a").mode() & 0o7777, 0o755);
    let (_, unpacked) = on_top_of(
        "implied-not",
        &[&bottom],
        &[E::Dir("tmp", 0o700), E::File("tmp/x", "")],
    )
    .expect("unpacks");
    assert!(!unpacked.needs_parents);
}

#[test]
fn names_are_cleaned_as_other_runtimes_do() {
    let target = Target::unpack(
        "cleaned",
        &[
            E::File("x/./y/../z", "z"),
            E::File("/absolute//file", "a"),
            E::Hard("h", "x/y/../z"),
            E::Dir("./d/../e/.", 0o700),
        ],
    );
    assert_eq!(
        [
            target.text("x/z"),
            target.text("absolute/file"),
            target.text("h")
        ],
        ["z", "a", "z"]
    );
    assert!(target.meta("e").is_dir());
}

#[test]
fn the_diff_id_is_over_the_whole_archive_however_it_is_compressed() {
    let tar = tar_of(&[E::File("a", "1")]);
    let plain = unpack_stream(Cursor::new(tar.clone()), &Target::new("diff-1").0).expect("plain");
    let zstd = zstd::encode_all(&tar[..], 1).expect("zstd");
    let packed = unpack_stream(Cursor::new(zstd), &Target::new("diff-2").0).expect("zstd");
    assert!(plain.diff_id.is_some());
    assert_eq!(plain, packed);
    let mut longer = tar;
    longer.extend_from_slice(&[0; 512]);
    let other = unpack_stream(Cursor::new(longer), &Target::new("diff-3").0).expect("longer");
    assert_ne!(plain.diff_id, other.diff_id);
}

#[test]
fn a_deep_path_is_an_error_and_is_cleared_away() {
    let deep: String = "d/".repeat(3000) + "f";
    let mut builder = tar::Builder::new(Vec::new());
    builder
        .append_pax_extensions([("path", deep.as_bytes())])
        .expect("pax");
    let mut short = header("f", tar::EntryType::Regular, 0);
    short.set_cksum();
    builder.append(&short, io::empty()).expect("append");
    let target = Target::new("too-deep");
    let error = unpack_stream(Cursor::new(builder.into_inner().expect("tar")), &target.0)
        .expect_err("too deep");
    assert!(error.contains("too long") && error.len() < 500, "{error}");
    kinglet_process::trash::remove_tree(&target.0).expect("cleared");
}

#[test]
fn modes_owners_times_and_deep_paths() {
    if !root("modes_owners_times_and_deep_paths") {
        return;
    }
    let target = Target::unpack(
        "modes",
        &[
            E::Mode("su", 0o4755, (7, 8)),
            E::Dir("tmp", 0o1777),
            E::Mode("implied/x", 0o600, (0, 0)),
        ],
    );
    let meta = target.meta("su");
    assert_eq!(
        (
            meta.permissions().mode() & 0o7777,
            meta.uid(),
            meta.gid(),
            meta.mtime()
        ),
        (0o4755, 7, 8, 1_700_000_000)
    );
    assert_eq!(target.meta("tmp").permissions().mode() & 0o7777, 0o1777);
    assert_eq!(target.meta("implied").permissions().mode() & 0o7777, 0o755);

    let deep = format!("{}/end", vec!["a-rather-long-directory-name"; 60].join("/"));
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    builder
        .append_data(&mut header, &deep, &b"x"[..])
        .expect("deep");
    let target = Target::new("deep");
    unpack_stream(Cursor::new(builder.into_inner().expect("tar")), &target.0).expect("deep");
    assert_eq!(target.text(&deep), "x");
}

#[test]
fn whiteouts_hide_what_is_below_and_never_what_is_here() {
    if !root("whiteouts_hide_what_is_below_and_never_what_is_here") {
        return;
    }
    let target = Target::unpack(
        "whiteouts",
        &[
            E::File(".wh.gone", ""),
            E::File("deep/down/.wh.gone", ""),
            E::Dir("opaque", 0o755),
            E::File("opaque/.wh..wh..opq", ""),
            E::File("opaque/kept", "new"),
            E::File(".wh.again", ""),
            E::Dir("again", 0o755),
            E::File("again/x", "new"),
            E::File(".wh.implied", ""),
            E::File("implied/x", "new"),
            E::File("mine", "mine"),
            E::File(".wh.mine", ""),
            E::File("tree/x", "mine"),
            E::File(".wh.tree", ""),
            E::File(".wh.file", ""),
            E::File("file", "new"),
            E::File(".wh..wh.plnk", ""),
            E::Device("overlay-own", tar::EntryType::Char, 0, 0),
        ],
    );
    assert!(
        target.whiteout("gone")
            && target.whiteout("deep/down/gone")
            && target.whiteout("overlay-own")
    );
    assert!(
        ["opaque", "again", "implied", "tree"]
            .iter()
            .all(|path| target.opaque(path))
    );
    assert!(!target.opaque("deep"));
    assert_eq!(
        (
            target.text("again/x"),
            target.text("implied/x"),
            target.text("tree/x")
        ),
        ("new".into(), "new".into(), "mine".into())
    );
    assert_eq!(
        (target.text("mine"), target.text("file")),
        ("mine".into(), "new".into())
    );
    assert!(!target.0.join(".wh.gone").exists() && !target.0.join(".wh..wh.plnk").exists());
}

#[test]
fn devices_of_the_machine_are_left_out() {
    let target = Target::unpack(
        "devices",
        &[
            E::Device("sda", tar::EntryType::Block, 8, 0),
            E::Device("null", tar::EntryType::Char, 1, 3),
            E::Device("fifo", tar::EntryType::Fifo, 0, 0),
        ],
    );
    assert!(!target.0.join("sda").exists() && !target.0.join("null").exists());
    assert!(target.meta("fifo").file_type().is_fifo());
}

#[test]
fn attributes_are_kept_save_those_that_steer_the_overlay() {
    if !root("attributes_are_kept_save_those_that_steer_the_overlay") {
        return;
    }
    let target = Target::unpack(
        "xattr",
        &[
            E::Xattr("a", "user.colour", "red"),
            E::Xattr("b", "trusted.overlay.redirect", "/etc"),
        ],
    );
    if target.attribute("a", "user.colour").as_deref() != Some(b"red") {
        eprintln!("user attributes: not run, the file system has none");
    }
    assert_eq!(target.attribute("b", "trusted.overlay.redirect"), None);
}

#[test]
fn garbage_truncation_and_endless_headers_are_errors() {
    let target = Target::new("garbage");
    assert!(unpack_stream(Cursor::new(vec![7_u8; 4096]), &target.0).is_err());
    let whole = tar_of(&[E::File("a", "0123456789")]);
    let error =
        unpack_stream(Cursor::new(whole[..516].to_vec()), &target.0).expect_err("truncated");
    assert!(
        error.contains("of 10 bytes") || error.contains("unexpected EOF"),
        "{error}"
    );

    let mut builder = tar::Builder::new(Vec::new());
    let long = vec![b'x'; 8 << 20];
    let mut header = header("././@LongLink", tar::EntryType::GNULongName, long.len());
    header.set_cksum();
    builder.append(&header, &long[..]).expect("append");
    let error = unpack_stream(Cursor::new(builder.into_inner().expect("tar")), &target.0)
        .expect_err("endless");
    assert!(error.contains("headers are larger"), "{error}");
}
