//! LEB128: whole numbers of seven bits a byte, the lowest first. Blocks of state have them, and Parquet's headers and runs.

/// Appends a number.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The number that `bytes` begin with, and how many of them it takes; `None` if it does not end within them, or within ten.
#[must_use]
pub fn take(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (n, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * n);
        if *byte < 0x80 {
            return Some((value, n + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_endless_ones_do_not() {
        for value in (0..64).flat_map(|bits| [(1u64 << bits) - 1, 1 << bits]).chain([u64::MAX]) {
            let mut bytes = vec![];
            put(&mut bytes, value);
            let length = bytes.len();
            assert_eq!(take(&bytes[..length - 1]), None);
            bytes.push(0xff);
            assert_eq!(take(&bytes), Some((value, length)));
        }
        assert_eq!(take(&[0xff; 20]), None);
    }
}
