//! The few system calls that tests need and the standard library lacks.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Makes a named pipe.
pub fn make_pipe(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).expect("a path without NUL");
    // SAFETY: a path that ends in NUL and lives as long as the call.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

/// True if permissions mean nothing to this process.
pub fn is_root() -> bool {
    // SAFETY: asks for a number, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Asks a process of ours to end.
pub fn terminate(child: &std::process::Child) {
    let id = libc::pid_t::try_from(child.id()).expect("a process id");
    // SAFETY: a number and a signal; the child was not reaped yet, so the number is its own.
    assert_eq!(unsafe { libc::kill(id, libc::SIGTERM) }, 0);
}
