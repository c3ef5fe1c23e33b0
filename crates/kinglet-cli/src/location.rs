//! Where a Kinglet keeps its things on this machine.

use std::path::{Path, PathBuf};

use crate::args::DataArgs;

/// The data directory: the flag, else root's or the user's own.
pub fn data_directory(args: &DataArgs) -> PathBuf {
    if let Some(data) = &args.data {
        return std::path::absolute(data).unwrap_or_else(|_| data.clone());
    }
    if is_root() {
        return PathBuf::from("/var/lib/kinglet");
    }
    let base = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| home().map(|home| home.join(".local/share")));
    base.unwrap_or_else(|| PathBuf::from("/tmp"))
        .join("kinglet")
}

/// Whether we may do everything.
pub fn is_root() -> bool {
    kinglet_process::private::effective_user() == 0
}

/// The user's home.
pub fn home() -> Option<PathBuf> {
    std::env::var_os("HOME")
        .filter(|home| !home.is_empty())
        .map(PathBuf::from)
}

/// Where the service manager that started this program listens, if one did (sd_notify(3)).
pub fn notify_socket() -> Option<std::ffi::OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())
}

/// What the last stop had to cut off.
pub fn stop_report(data: &Path) -> PathBuf {
    data.join("last-stop.json")
}

/// The socket that only the owner may open.
pub fn control_socket(data: &Path) -> PathBuf {
    data.join("control.sock")
}

/// The administrator's kubeconfig inside the data directory; always written.
pub fn own_kubeconfig(data: &Path) -> PathBuf {
    data.join("kubeconfig")
}

/// The log of a detached instance.
pub fn log_file(data: &Path) -> PathBuf {
    data.join("kinglet.log")
}
