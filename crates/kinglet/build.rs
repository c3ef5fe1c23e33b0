//! Builds the sample programs, static and small, so that `cargo build --bin kinglet` is complete.
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
    let binary = build(&workspace, &target_folder(&out), &target);
    fs::copy(&binary, out.join("sample"))
        .unwrap_or_else(|error| panic!("copying {}: {error}", binary.display()));
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
