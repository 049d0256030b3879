//! Inflation of whole gzip objects by libdeflate into one reused buffer, and nothing else: the floor under every reader of `.gz` logs.
//!
//! Kept apart from the product's own module on purpose: the floor must not move when the product changes.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr::NonNull;

use libdeflate_sys::{
    libdeflate_alloc_decompressor, libdeflate_decompressor, libdeflate_free_decompressor, libdeflate_gzip_decompress_ex,
    libdeflate_result_LIBDEFLATE_INSUFFICIENT_SPACE as INSUFFICIENT_SPACE, libdeflate_result_LIBDEFLATE_SUCCESS as SUCCESS,
};

/// Owns libdeflate's state and the buffer that every object is inflated into.
pub struct Inflater {
    state: NonNull<libdeflate_decompressor>,
    buffer: Vec<u8>,
}

impl Inflater {
    /// `None` when there is no memory for libdeflate's tables.
    pub fn new() -> Option<Self> {
        // SAFETY: takes nothing; returns null or a state that only this value owns and frees.
        let state = NonNull::new(unsafe { libdeflate_alloc_decompressor() })?;
        Some(Self { state, buffer: vec![0; 1 << 20] })
    }

    /// All members of a gzip object, one after another. The slice lives until the next call.
    pub fn inflate(&mut self, object: &[u8]) -> Result<&[u8], String> {
        // The size that the last member claims, so that a large object is not begun several times; a claim, hence the bound.
        let claimed = object.last_chunk::<4>().map_or(0, |size| u32::from_le_bytes(*size) as usize).min(object.len().saturating_mul(64));
        if claimed > self.buffer.len() {
            self.buffer.resize(claimed, 0);
        }
        let (mut read, mut written) = (0usize, 0usize);
        while read < object.len() {
            let (mut took, mut gave) = (0usize, 0usize);
            // SAFETY: input and output are live slices given with their own lengths; the two sizes are written before use.
            let result = unsafe {
                libdeflate_gzip_decompress_ex(
                    self.state.as_ptr(),
                    object[read..].as_ptr().cast::<c_void>(),
                    object.len() - read,
                    self.buffer[written..].as_mut_ptr().cast::<c_void>(),
                    self.buffer.len() - written,
                    &raw mut took,
                    &raw mut gave,
                )
            };
            match result {
                SUCCESS => {
                    read += took;
                    written += gave;
                }
                INSUFFICIENT_SPACE => self.buffer.resize(self.buffer.len() * 2, 0),
                other => return Err(format!("libdeflate says {other} at byte {read}")),
            }
        }
        Ok(&self.buffer[..written])
    }
}

impl Drop for Inflater {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe { libdeflate_free_decompressor(self.state.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn all_members_come_out_and_damage_is_said() {
        let gzip = |text: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text).and_then(|()| encoder.finish()).expect("in memory")
        };
        let large = vec![b'x'; 3 << 20];
        let mut inflater = Inflater::new().expect("memory");
        let object = [gzip(b"one\n"), gzip(&large), gzip(b"two\n")].concat();
        assert_eq!(inflater.inflate(&object), Ok([b"one\n".as_slice(), &large, b"two\n"].concat().as_slice()));
        assert!(inflater.inflate(&object[..object.len() - 9]).is_err());
    }
}
