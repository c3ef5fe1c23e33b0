//! Kernel keys: a container has a session keyring of its own.

use std::io;

/// `KEYCTL_JOIN_SESSION_KEYRING`.
const JOIN_SESSION_KEYRING: libc::c_int = 1;

/// Leaves the session keyring of whoever started Kinglet for a new, empty one.
pub(crate) fn leave_session() -> io::Result<()> {
    // SAFETY: without a name (a null pointer) the kernel makes a nameless keyring and reads no memory of ours.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    };
    if answer >= 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // A kernel without keys has none to hide.
        error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        error => Err(error),
    }
}
