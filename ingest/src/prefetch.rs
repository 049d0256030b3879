//! A hint to the processor that memory will be read soon.

#![allow(unsafe_code)]

/// Asks for the cache line at `slice[index]`; does nothing when the index is outside or the processor has no such hint.
#[inline]
pub fn prefetch<T>(slice: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(item) = slice.get(index) {
        // SAFETY: a prefetch never faults and changes no state that a program can see; the pointer is that of a live
        // element anyway. SSE, which the instruction needs, is part of x86_64.
        unsafe { core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(std::ptr::from_ref(item).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slice, index);
}
