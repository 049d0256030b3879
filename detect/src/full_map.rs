//! Reading large maps from the state: made in one go, their nodes are full, while a map that takes its entries in order
//! one after the other has them half empty.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// What is set aside for entries before they are seen, at most: a length in a damaged file is no reason for more.
const AHEAD_MAX: usize = 1 << 12;

struct Entries<K, V>(PhantomData<(K, V)>);

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Visitor<'de> for Entries<K, V> {
    type Value = BTreeMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::with_capacity(map.size_hint().unwrap_or(0).min(AHEAD_MAX));
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(entries.into_iter().collect())
    }
}

/// For `#[serde(deserialize_with)]`: the same map from the same bytes as without it.
pub fn read<'de, D: Deserializer<'de>, K: Deserialize<'de> + Ord, V: Deserialize<'de>>(from: D) -> Result<BTreeMap<K, V>, D::Error> {
    from.deserialize_map(Entries(PhantomData))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde::Serialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    struct Full(#[serde(deserialize_with = "read")] BTreeMap<u64, String>);

    proptest! {
        #[test]
        fn reads_what_plain_reading_reads(entries in prop::collection::vec((0u64..50, "[a-z]{0,3}"), 0..60)) {
            // As a list, so that keys come out of order and twice, too: a map's bytes are those of a list of pairs.
            let bytes = postcard::to_stdvec(&entries).unwrap();
            let plain: BTreeMap<u64, String> = postcard::from_bytes(&bytes).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Full>(&bytes).unwrap(), Full(plain));
        }
    }

    #[test]
    fn a_length_without_entries_is_an_error() {
        let bytes = postcard::to_stdvec(&u64::MAX).unwrap();
        assert!(postcard::from_bytes::<Full>(&bytes).is_err());
    }
}
