//! Files and folders that only their owner may read, made where other users of the machine may write (`/tmp`).
//!
//! Always: a new file has a random name, is made with `O_EXCL` and mode 0600 and takes its place by a rename, so that
//! neither a link nor a file that somebody else put there is ever written through; a folder of ours belongs to us.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Why something private could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// The system refused.
    #[error("{action} {path}: {source}")]
    File {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another user made it, and could change it under our hands.
    #[error(
        "{path} belongs to user {owner}, not to user {us}; name another path, or change its owner"
    )]
    Foreign {
        /// What.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        us: u32,
    },
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PrivateError {
    let path = path.to_owned();
    move |source| PrivateError::File {
        action,
        path,
        source,
    }
}

/// Writes a file that only its owner may read, in one step: readers see the old text or the new one.
pub fn write(path: &Path, text: &str) -> Result<(), PrivateError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let attempt = || -> io::Result<()> {
        // `tempfile` opens with O_EXCL and 0600 under a random name, and removes the file on every early return.
        let mut file = tempfile::Builder::new()
            .prefix(".kinglet-")
            .suffix(".new")
            .tempfile_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    attempt().map_err(file_error("writing", path))
}

/// Makes a folder with all above it, closed to others from its first moment on; one that is there must be ours.
pub fn directory(path: &Path) -> Result<(), PrivateError> {
    if let Some(above) = path.parent() {
        std::fs::create_dir_all(above).map_err(file_error("making", above))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(file_error("making", path)(error)),
    }
    // A link may lead elsewhere only when we (or root) made it.
    let link = std::fs::symlink_metadata(path).map_err(file_error("reading", path))?;
    owned(path, &link)?;
    let folder = std::fs::metadata(path).map_err(file_error("reading", path))?;
    if !folder.is_dir() {
        return Err(file_error("making", path)(io::Error::from(
            io::ErrorKind::NotADirectory,
        )));
    }
    owned(path, &folder)?;
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(path, closed).map_err(file_error("closing to others", path))
}

/// Opens a log to append to: made with 0600, never through a link, and only if it is ours.
pub fn append(path: &Path) -> Result<File, PrivateError> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .mode(0o600)
        .custom_flags(NO_FOLLOW)
        .open(path)
        .map_err(file_error("opening", path))?;
    let meta = file.metadata().map_err(file_error("reading", path))?;
    owned(path, &meta)?;
    Ok(file)
}

/// Refuses what belongs to somebody who is neither us nor root.
pub fn owned(path: &Path, meta: &std::fs::Metadata) -> Result<(), PrivateError> {
    let us = effective_user();
    if meta.uid() == us || meta.uid() == 0 {
        return Ok(());
    }
    Err(PrivateError::Foreign {
        path: path.to_owned(),
        owner: meta.uid(),
        us,
    })
}

/// The user that this process acts as.
pub fn effective_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("there").mode() & 0o777
    }

    #[test]
    fn a_link_in_the_way_is_replaced_and_not_followed() {
        let folder = tempfile::tempdir().expect("folder");
        let victim = folder.path().join("victim");
        std::fs::write(&victim, "precious").expect("victim");
        let target = folder.path().join("kubeconfig");
        symlink(&victim, &target).expect("link");
        write(&target, "ours").expect("written");
        assert_eq!(
            std::fs::read_to_string(&victim).expect("victim"),
            "precious"
        );
        assert_eq!(std::fs::read_to_string(&target).expect("ours"), "ours");
        assert_eq!(mode(&target), 0o600);
        let left = std::fs::read_dir(folder.path()).expect("list").count();
        assert_eq!(left, 2, "no temporary file stays");
    }

    #[test]
    fn a_log_is_not_opened_through_a_link() {
        let folder = tempfile::tempdir().expect("folder");
        let victim = folder.path().join("victim");
        std::fs::write(&victim, "").expect("victim");
        let log = folder.path().join("kinglet.log");
        symlink(&victim, &log).expect("link");
        assert!(append(&log).is_err());
        std::fs::remove_file(&log).expect("unlink");
        append(&log).expect("a new one");
        assert_eq!(mode(&log), 0o600);
    }

    #[test]
    fn a_folder_is_closed_and_ours() {
        let folder = tempfile::tempdir().expect("folder");
        let data = folder.path().join("deep/data");
        directory(&data).expect("made");
        assert_eq!(mode(&data), 0o700);
        std::fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .expect("opened");
        directory(&data).expect("again");
        assert_eq!(mode(&data), 0o700);
        if effective_user() != 0 {
            return;
        }
        // What another user put there is refused, whatever it is.
        std::os::unix::fs::chown(&data, Some(65534), None).expect("given away");
        let error = directory(&data).expect_err("another's folder").to_string();
        assert!(error.contains("belongs to user 65534"), "{error}");
        let link = folder.path().join("link");
        symlink("/etc", &link).expect("link");
        std::os::unix::fs::lchown(&link, Some(65534), None).expect("given away");
        let error = directory(&link).expect_err("another's link").to_string();
        assert!(error.contains("belongs to user 65534"), "{error}");
        assert_eq!(mode(Path::new("/etc")), 0o755);
    }
}
