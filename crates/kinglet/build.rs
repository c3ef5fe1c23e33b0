//! Builds the sample programs, static and small, so that `cargo build --bin kinglet` is complete, and tells the linker which
//! functions belong together.
//!
//! They need an explicit target (a global `crt-static` would break procedural macros), hence a nested cargo in a
//! target folder of its own beside ours, shared by all profiles.

#![expect(
    clippy::disallowed_methods,
    reason = "cargo tells build scripts what they need in the environment"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let target = env::var("TARGET").expect("cargo sets it");
    let workspace = manifest
        .ancestors()
        .nth(2)
        .expect("crates/kinglet lies two levels down")
        .to_owned();
    for path in [
        "crates/kinglet-samples/src",
        "crates/kinglet-samples/Cargo.toml",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    if is_ordered(&target) {
        order_functions(&manifest.join("order/components.txt"), &out);
    }
    let binary = build(&workspace, &target_folder(&out), &target);
    fs::copy(&binary, out.join("sample"))
        .unwrap_or_else(|error| panic!("copying {}: {error}", binary.display()));
}

/// Whether the linker is Rust's own on this target, which takes an order, and the build is one that is measured.
fn is_ordered(target: &str) -> bool {
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    target == "x86_64-unknown-linux-gnu"
        && env::var("PROFILE").is_ok_and(|profile| profile == "release")
        && env::var_os("RUSTC_LINKER").is_none()
        && env::var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| !flags.contains("link"))
}

/// Puts the functions that a component of the data plane runs (`cargo xtask order` lists them) beside each other. They are a
/// hundredth of the program, and the kernel maps 64 kB around each that is called: spread over 40 MB they cost each process
/// 4 to 6 MB, beside each other less than one. Names that are no longer there do no harm.
fn order_functions(list: &Path, out: &Path) {
    println!("cargo::rerun-if-changed={}", list.display());
    let names = fs::read_to_string(list)
        .unwrap_or_else(|error| panic!("reading {}: {error}", list.display()));
    // The compiler adds a number to names that are internal to a module; it changes with the module.
    let (numbered, exact): (Vec<&str>, Vec<&str>) = names
        .lines()
        .filter(|line| !line.starts_with('#'))
        .partition(|name| name.ends_with('*'));
    let sections: String = numbered
        .iter()
        .map(|name| format!("    *(.text.{name})\n"))
        .collect();
    let (exact_file, numbered_file) = (out.join("order.txt"), out.join("order.ld"));
    let script =
        format!("SECTIONS {{\n  .text.components : {{\n{sections}  }}\n}}\nINSERT BEFORE .text;\n");
    for (file, text) in [(&exact_file, exact.join("\n")), (&numbered_file, script)] {
        fs::write(file, text).unwrap_or_else(|error| panic!("writing {}: {error}", file.display()));
    }
    for argument in [
        format!("--symbol-ordering-file={}", exact_file.display()),
        "--no-warn-symbol-ordering".to_owned(),
        format!("--script={}", numbered_file.display()),
    ] {
        println!("cargo::rustc-link-arg-bins=-Wl,{argument}");
    }
}

/// `TARGET/PROFILE/build/PACKAGE-HASH/out` -> `TARGET/samples`.
fn target_folder(out: &Path) -> PathBuf {
    out.ancestors()
        .nth(4)
        .expect("OUT_DIR lies four levels below the target folder")
        .join("samples")
}

fn build(workspace: &Path, folder: &Path, target: &str) -> PathBuf {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets it"));
    cargo
        .current_dir(workspace)
        .args([
            "build",
            "--release",
            "--locked",
            "--package",
            "kinglet-samples",
            "--target",
            target,
            "--target-dir",
        ])
        .arg(folder)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .env("CARGO_PROFILE_RELEASE_LTO", "thin")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort");
    // What cargo tells build scripts must not reach the nested cargo.
    for name in [
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "CLIPPY_ARGS",
    ] {
        cargo.env_remove(name);
    }
    let status = cargo
        .status()
        .unwrap_or_else(|error| panic!("starting cargo for the samples: {error}"));
    assert!(status.success(), "building the samples failed: {status}");
    folder.join(target).join("release/kinglet-samples")
}
