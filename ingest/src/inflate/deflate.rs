//! libdeflate, called from one place.

#![allow(unsafe_code)]

use std::ptr::NonNull;

use libdeflate_sys as sys;

/// What libdeflate says of one gzip member.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The member was read; it took this many bytes of the source.
    Done { source: usize },
    /// Damaged or cut off, checksum included. Nothing was added.
    BadData,
    /// The content is larger than the room given. Nothing was added.
    NoRoom,
}

/// A libdeflate decompressor; made at first use, freed on drop.
#[derive(Default)]
pub(super) struct Decompressor(Option<NonNull<sys::libdeflate_decompressor>>);

// SAFETY: the decompressor is plain memory of its own (Huffman tables), bound to no thread, and only reached through `&mut`.
unsafe impl Send for Decompressor {}

impl Decompressor {
    /// Appends the content of the gzip member that `raw` begins with to `out`, at most `room` bytes of it.
    pub(super) fn gzip(&mut self, raw: &[u8], out: &mut Vec<u8>, room: usize) -> Outcome {
        if self.0.is_none() {
            // SAFETY: no preconditions; null (out of memory) becomes `None`.
            self.0 = NonNull::new(unsafe { sys::libdeflate_alloc_decompressor() });
        }
        let Some(this) = self.0 else { return Outcome::BadData };
        out.reserve(room);
        let spare = out.spare_capacity_mut();
        let room = room.min(spare.len());
        let (mut source, mut content) = (0usize, 0usize);
        // SAFETY: `this` is a live decompressor, used by nobody else because of `&mut self`. libdeflate reads at most
        // `raw.len()` bytes from `raw` and writes at most `room` bytes to the spare capacity, which is at least `room`
        // long; both stay borrowed for the call. The two counters are valid for writing.
        let result = unsafe {
            sys::libdeflate_gzip_decompress_ex(
                this.as_ptr(),
                raw.as_ptr().cast(),
                raw.len(),
                spare.as_mut_ptr().cast(),
                room,
                &raw mut source,
                &raw mut content,
            )
        };
        match result {
            sys::libdeflate_result_LIBDEFLATE_SUCCESS if content <= room && source > 0 => {
                // SAFETY: on success exactly `content` bytes were written, `content <= room <=` spare capacity.
                unsafe { out.set_len(out.len() + content) };
                Outcome::Done { source }
            }
            sys::libdeflate_result_LIBDEFLATE_INSUFFICIENT_SPACE => Outcome::NoRoom,
            _ => Outcome::BadData,
        }
    }
}

impl Drop for Decompressor {
    fn drop(&mut self) {
        if let Some(this) = self.0.take() {
            // SAFETY: made by libdeflate_alloc_decompressor and freed once, here.
            unsafe { sys::libdeflate_free_decompressor(this.as_ptr()) };
        }
    }
}
