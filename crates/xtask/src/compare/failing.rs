//! The image `kn.local/failing:1` of the recording: says that it starts, says ten seconds later that it crashes, ends
//! with 5. Made here of the machine's own busybox.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use kinglet_testkit::Instance;
use serde_json::json;

const NAME: &str = "kn.local/failing:1";
const BUSYBOX: &str = "/bin/busybox";
const PROGRAM: &str = "#!/bin/busybox sh
echo \"$(/bin/busybox date '+%Y/%m/%d %H:%M:%S') Started...\"
/bin/busybox sleep 10
echo \"$(/bin/busybox date '+%Y/%m/%d %H:%M:%S') Crashed...\"
exit 5
";

/// Makes the image and imports it.
pub(crate) fn import(binary: &str, instance: &Instance) -> anyhow::Result<()> {
    let folder = kinglet_testkit::instance::scratch("failing");
    let outcome = archive(&folder).and_then(|archive| {
        let status = Command::new(binary)
            .args(["image", "import"])
            .arg(&archive)
            .arg("--data")
            .arg(&instance.data)
            .status()
            .context("importing the failing image")?;
        ensure!(
            status.success(),
            "importing the failing image failed: {status}"
        );
        Ok(())
    });
    let _ = std::fs::remove_dir_all(&folder);
    outcome
}

/// An archive as `docker save` writes it.
fn archive(folder: &Path) -> anyhow::Result<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let bin = folder.join("root/bin");
    std::fs::create_dir_all(&bin)?;
    std::fs::copy(BUSYBOX, bin.join("busybox"))
        .with_context(|| format!("copying {BUSYBOX} (Debian: busybox-static)"))?;
    let program = folder.join("root/failing");
    std::fs::write(&program, PROGRAM)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    tar(&folder.join("root"), &folder.join("layer.tar"), &["."])?;
    let sum = Command::new("sha256sum")
        .arg(folder.join("layer.tar"))
        .output()
        .context("running sha256sum")?;
    let sum = String::from_utf8(sum.stdout)?;
    let digest = sum.split(' ').next().context("sha256sum prints a digest")?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": {"Entrypoint": ["/failing"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    std::fs::write(folder.join("config.json"), config.to_string())?;
    let manifest = json!([{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]);
    std::fs::write(folder.join("manifest.json"), manifest.to_string())?;
    let archive = folder.join("failing.tar");
    tar(
        folder,
        &archive,
        &["manifest.json", "config.json", "layer.tar"],
    )?;
    Ok(archive)
}

fn tar(folder: &Path, into: &Path, what: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("tar")
        .arg("-C")
        .arg(folder)
        .arg("-cf")
        .arg(into)
        .args(what)
        .status()
        .context("running tar")?;
    ensure!(status.success(), "tar failed: {status}");
    Ok(())
}
