//! What the operating system knows of this process.

#![allow(unsafe_code)]

/// User and system time of this process so far, in seconds.
#[must_use]
pub fn cpu_seconds() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is large enough and all zero bytes are a valid rusage, so it is readable whatever the call returns.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

#[cfg(test)]
mod tests {
    #[test]
    fn work_takes_time() {
        let before = super::cpu_seconds();
        while super::cpu_seconds() == before {
            std::hint::black_box((0..10_000u64).sum::<u64>());
        }
        assert!(super::cpu_seconds() > before);
    }
}
