//! Known keys in the state: columns of fixed width, as one string of bytes. Profiles hold millions of them, keys are hashes,
//! which no variable length makes shorter, and what is beside them is much the same from key to key: in columns of its
//! own it packs well. For `#[serde(with)]`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;

use crate::novelty::KnownKey;

/// A key and `N` small numbers beside it.
pub trait Keyed<const N: usize>: Sized {
    /// In columns.
    fn split(&self) -> (u64, [u16; N]);
    /// And back.
    fn join(key: u64, beside: [u16; N]) -> Self;
}

impl Keyed<4> for KnownKey {
    fn split(&self) -> (u64, [u16; 4]) {
        (self.key, [self.first, self.last, self.hours, self.flags])
    }

    fn join(key: u64, [first, last, hours, flags]: [u16; 4]) -> Self {
        Self { key, first, last, hours, flags }
    }
}

impl Keyed<1> for (u64, u16) {
    fn split(&self) -> (u64, [u16; 1]) {
        (self.0, [self.1])
    }

    fn join(key: u64, [beside]: [u16; 1]) -> Self {
        (key, beside)
    }
}

pub fn serialize<const N: usize, K: Keyed<N>, S: Serializer>(rows: &[K], to: S) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::with_capacity(rows.len() * row_bytes::<N>());
    rows.iter().for_each(|row| bytes.extend_from_slice(&row.split().0.to_le_bytes()));
    for column in 0..N {
        rows.iter().for_each(|row| bytes.extend_from_slice(&row.split().1[column].to_le_bytes()));
    }
    to.serialize_bytes(&bytes)
}

pub fn deserialize<'de, const N: usize, K: Keyed<N>, D: Deserializer<'de>>(from: D) -> Result<Vec<K>, D::Error> {
    from.deserialize_bytes(Columns(PhantomData))
}

const fn row_bytes<const N: usize>() -> usize {
    size_of::<u64>() + N * size_of::<u16>()
}

struct Columns<const N: usize, K>(PhantomData<K>);

impl<const N: usize, K: Keyed<N>> Visitor<'_> for Columns<N, K> {
    type Value = Vec<K>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rows of {} bytes", row_bytes::<N>())
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<K>, E> {
        let rows = bytes.len() / row_bytes::<N>();
        let (keys, beside) = bytes.split_at(rows * size_of::<u64>());
        if beside.len() != rows * N * size_of::<u16>() {
            return Err(E::invalid_length(bytes.len(), &self));
        }
        let (keys, beside) = (keys.as_chunks::<8>().0, beside.as_chunks::<2>().0);
        let row = |(at, key): (usize, &[u8; 8])| {
            K::join(u64::from_le_bytes(*key), std::array::from_fn(|column| u16::from_le_bytes(beside[column * rows + at])))
        };
        Ok(keys.iter().enumerate().map(row).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Both {
        #[serde(with = "super")]
        known: Vec<KnownKey>,
        #[serde(with = "super")]
        tried: Vec<(u64, u16)>,
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(known in prop::collection::vec(any::<(u64, u16, u16, u16, u16)>(), 0..40), tried in prop::collection::vec(any::<(u64, u16)>(), 0..40), cut in 1usize..200) {
            let known: Vec<KnownKey> =
                known.into_iter().map(|(key, first, last, hours, flags)| KnownKey { key, first, last, hours, flags }).collect();
            let both = Both { known, tried };
            let bytes = postcard::to_stdvec(&both).unwrap();
            prop_assert_eq!(bytes.len(), 16 * both.known.len() + 10 * both.tried.len() + [16, 10].iter().zip([both.known.len(), both.tried.len()]).map(|(width, rows)| 1 + usize::from(width * rows > 127)).sum::<usize>());
            prop_assert_eq!(postcard::from_bytes::<Both>(&bytes).unwrap(), both);
            prop_assert!(postcard::from_bytes::<Both>(&bytes[..bytes.len() - cut.min(bytes.len())]).is_err());
        }
    }

    #[test]
    fn bytes_that_are_no_rows_are_an_error() {
        #[derive(Serialize)]
        struct Raw(Vec<u8>, Vec<u8>);
        let read =
            |known: usize, tried: usize| postcard::from_bytes::<Both>(&postcard::to_stdvec(&Raw(vec![7; known], vec![7; tried])).unwrap());
        assert_eq!(read(32, 20).unwrap().known.len(), 2);
        for (known, tried) in [(31, 20), (1, 0), (32, 19), (40, 10)] {
            assert!(read(known, tried).is_err(), "{known} {tried}");
        }
    }
}
