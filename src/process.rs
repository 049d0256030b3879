//! What the operating system knows of this process. The root crate's only `unsafe`: a few calls into libc.

#![allow(unsafe_code)]

/// CPU time and memory so far.
#[derive(Copy, Clone, Debug, Default)]
pub struct Usage {
    /// User and system time of all threads.
    pub cpu_seconds: f64,
    /// Largest resident set.
    pub peak_rss_bytes: u64,
}

/// Asks `getrusage`.
#[must_use]
pub fn usage() -> Usage {
    // SAFETY: an all-zero `rusage` is a valid value of a struct of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live, writable `rusage`; the call keeps no reference to it.
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) } != 0 {
        return Usage::default();
    }
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    Usage {
        cpu_seconds: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        // Linux counts kibibytes.
        peak_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    }
}

/// Makes a write over the file-size limit (`ulimit -f`) an error that is reported, instead of a signal that kills the
/// process, and a closed pipe an end, as tools in a pipeline expect.
pub fn prepare_signals() {
    // SAFETY: SIG_IGN and SIG_DFL are valid dispositions; no handler of ours runs in signal context.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

/// Tells the C library's allocator what is worth giving back to the system. By itself it does so whenever 128 KiB are free
/// in a row, and takes them back page by page a moment later: readers hand over blocks by the megabyte, and a day's hours
/// follow one another in the same memory.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` takes two integers; it is called before any other thread is there.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
    }
}

/// What is larger has pages of its own and gives them back when it is freed.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES: libc::c_int = 4 << 20;
/// Free memory in a row that is kept.
#[cfg(target_env = "gnu")]
const KEPT_BYTES: libc::c_int = 16 << 20;

static STOP: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

extern "C" fn note_stop(_: libc::c_int) {
    STOP.store(true, std::sync::atomic::Ordering::Relaxed);
}

/// From now on SIGTERM and SIGINT are noted instead of ending the process: whoever runs for ever asks [`asked_to_stop`].
pub fn note_signals() {
    let handler: extern "C" fn(libc::c_int) = note_stop;
    // SAFETY: the handler only stores to an atomic, which is allowed in signal context.
    unsafe {
        libc::signal(libc::SIGTERM, handler as libc::sighandler_t);
        libc::signal(libc::SIGINT, handler as libc::sighandler_t);
    }
}

/// True once somebody asked the process to end.
#[must_use]
pub fn asked_to_stop() -> bool {
    STOP.load(std::sync::atomic::Ordering::Relaxed)
}
