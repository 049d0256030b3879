//! Where files live: a folder or an S3 bucket behind one small trait.
//!
//! Keys are `/`-separated and relative to the store's root. A reader of a store sees an object whole or not at all.

pub mod folder;
pub mod laws;
pub mod memory;
#[cfg(feature = "s3")]
pub mod s3;

use std::sync::Arc;

pub use folder::FolderStore;
pub use memory::MemoryStore;
#[cfg(feature = "s3")]
pub use s3::S3Store;

/// Why a store did not do what it was asked. Every message says which key in which store, and what would help.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The device or the quota is full.
    #[error("no space left for {at}: free some space and start again, nothing half-written is visible")]
    Full {
        /// Key and store.
        at: String,
    },
    /// A file-size limit was reached (`ulimit -f`, EFBIG).
    #[error(
        "{at} is larger than the largest file allowed here: raise the file-size limit (ulimit -f) and start again, nothing half-written is visible"
    )]
    TooLarge {
        /// Key and store.
        at: String,
    },
    /// The file system or the service says no.
    #[error("no permission for {at}: {why}")]
    Denied {
        /// Key and store.
        at: String,
        /// What was refused, and what would allow it.
        why: String,
    },
    /// Nothing there: a missing bucket, or a file to be published that is neither staged nor published.
    #[error("{at} does not exist{hint}")]
    Missing {
        /// Key and store, or the bucket.
        at: String,
        /// What to do about it, with its own leading punctuation.
        hint: String,
    },
    /// Not a key: empty, absolute, or with `..` in it.
    #[error("not a key of a store: {key:?}")]
    BadKey {
        /// The key.
        key: String,
    },
    /// Not a location, or one that this build cannot open.
    #[error("cannot open {location}: {why}")]
    Location {
        /// As given.
        location: String,
        /// What to do.
        why: String,
    },
    /// Anything else: the network, a broken disk, a server's error.
    #[error("{doing} {at}: {why}")]
    Other {
        /// The verb: `reading`, `writing`, `listing`, …
        doing: &'static str,
        /// Key and store.
        at: String,
        /// What the system said.
        why: String,
    },
}

/// Whole objects under keys.
///
/// # Laws
/// (checked by [`laws::check_store`] for every implementation)
/// - `put` replaces atomically and is durable when it returns: a reader sees the old bytes or the new ones.
/// - `put_if_absent`: of any number of callers with different bytes exactly one gets `true`, and its bytes are there.
///   An error leaves open whether the bytes are there; who must know reads them back.
/// - `list` gives every key that starts with the prefix, sorted by bytes, each once; never a file that is being written.
/// - `publish` moves or copies: afterwards `to` has the bytes of `from`. When `from` is gone and `to` is there, it was done before: success.
/// - `delete` of what is not there is success.
pub trait Store: Send + Sync {
    /// The bytes, or `None` when there is no such object.
    ///
    /// # Errors
    /// When the store cannot be asked.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// A range of an object: fewer bytes than `len` where the object ends before. Costs what the range costs, not what
    /// the object does.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is no such object, or when the store cannot be asked.
    fn get_range(&self, key: &str, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let bytes =
            self.get(key)?.ok_or_else(|| StoreError::Missing { at: format!("{key:?} in {}", self.describe()), hint: String::new() })?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let to = from.saturating_add(usize::try_from(len).unwrap_or(usize::MAX)).min(bytes.len());
        Ok(bytes.get(from..to).unwrap_or_default().to_vec())
    }

    /// [`Self::get_range`], appended to `to`.
    ///
    /// # Errors
    /// As there.
    fn append_range(&self, key: &str, offset: u64, len: u64, to: &mut Vec<u8>) -> Result<(), StoreError> {
        to.extend_from_slice(&self.get_range(key, offset, len)?);
        Ok(())
    }

    /// Bytes below which a range costs about what one byte would: a request to a bucket takes as long as some megabytes.
    fn request_bytes(&self) -> u64 {
        4 << 20
    }

    /// Replaces atomically, durable on return.
    ///
    /// # Errors
    /// When the object could not be written; what was there before still is, or the new bytes are.
    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// [`Self::put`] of what lies in several places, one behind the other.
    ///
    /// # Errors
    /// As `put`.
    fn put_parts(&self, key: &str, parts: &[&[u8]]) -> Result<(), StoreError> {
        self.put(key, &parts.concat())
    }

    /// Several `put`s for less than the sum of their costs. Each by itself is atomic, the whole is not.
    ///
    /// # Errors
    /// As `put`; some may have been written.
    fn put_many(&self, files: &[(String, &[u8])]) -> Result<(), StoreError> {
        files.iter().try_for_each(|(key, bytes)| self.put(key, bytes))
    }

    /// Creates the object if there is none; `false` if there is one. Durable on return.
    ///
    /// # Errors
    /// When the outcome is not known.
    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<bool, StoreError>;

    /// Keys with the prefix and their sizes in bytes, sorted.
    ///
    /// # Errors
    /// When the store cannot be asked. A folder that is not there has no keys.
    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError>;

    /// Removes the object; success when there is none.
    ///
    /// # Errors
    /// When the store refuses.
    fn delete(&self, key: &str) -> Result<(), StoreError>;

    /// Makes `from` visible as `to`; `from` may be gone afterwards. "Already done" is success.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when neither is there.
    fn publish(&self, from: &str, to: &str) -> Result<(), StoreError>;

    /// Several `publish`es for less than the sum of their costs.
    ///
    /// # Errors
    /// As `publish`; some may have been done, and doing it again is right.
    fn publish_many(&self, moves: &[(String, String)]) -> Result<(), StoreError> {
        moves.iter().try_for_each(|(from, to)| self.publish(from, to))
    }

    /// Several `delete`s for less than the sum of their costs.
    ///
    /// # Errors
    /// As `delete`.
    fn delete_many(&self, keys: &[String]) -> Result<(), StoreError> {
        keys.iter().try_for_each(|key| self.delete(key))
    }

    /// The location for people: `folder /data/out`, `s3://bucket/prefix`.
    fn describe(&self) -> String;
}

/// How to reach S3. Without values: the usual chain of the AWS SDK.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreOptions {
    /// Region.
    pub region: Option<String>,
    /// Any S3-compatible server; addressed path-style.
    pub endpoint_url: Option<String>,
}

/// Opens `s3://bucket/prefix` or a folder (created with its first file).
///
/// # Errors
/// [`StoreError::Location`] for `s3://` in a build without the feature `s3`, for another scheme, or without a region.
pub fn open(location: &str, options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    let bad = |why: &str| StoreError::Location { location: location.to_owned(), why: why.to_owned() };
    if let Some(rest) = location.strip_prefix("s3://") {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(bad("no bucket: write s3://bucket/prefix"));
        }
        return open_s3(bucket, prefix, options, &bad);
    }
    if location.is_empty() {
        return Err(bad("no location given"));
    }
    if let Some((scheme, _)) = location.split_once("://") {
        return Err(bad(&format!("{scheme}:// is not known: give a folder or s3://bucket/prefix")));
    }
    Ok(Arc::new(FolderStore::new(location)))
}

#[cfg(feature = "s3")]
fn open_s3(bucket: &str, prefix: &str, options: &StoreOptions, _bad: &dyn Fn(&str) -> StoreError) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(S3Store::open(bucket, prefix, options)?))
}

#[cfg(not(feature = "s3"))]
fn open_s3(_: &str, _: &str, _: &StoreOptions, bad: &dyn Fn(&str) -> StoreError) -> Result<Arc<dyn Store>, StoreError> {
    Err(bad("this build has no S3: build with the feature `s3` (cargo build --release --features s3)"))
}

/// Refuses what could leave the root or be mistaken for something else.
pub(crate) fn check_key(key: &str) -> Result<(), StoreError> {
    let good = !key.contains('\0') && key.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if good { Ok(()) } else { Err(StoreError::BadKey { key: key.to_owned() }) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_inside() {
        for (key, good) in [
            ("a/b.seg", true),
            (".staging/a", true),
            ("", false),
            ("/a", false),
            ("a/../b", false),
            ("a//b", false),
            ("a/.", false),
            ("a\0b", false),
        ] {
            assert_eq!(check_key(key).is_ok(), good, "{key:?}");
        }
    }

    #[test]
    fn locations() {
        assert!(open("ftp://x/y", &StoreOptions::default()).err().unwrap().to_string().contains("ftp:// is not known"));
        assert!(open("s3:///x", &StoreOptions::default()).err().unwrap().to_string().contains("no bucket"));
        assert!(open("", &StoreOptions::default()).is_err());
        assert_eq!(open("/tmp/out", &StoreOptions::default()).unwrap().describe(), "folder /tmp/out");
        #[cfg(not(feature = "s3"))]
        assert!(open("s3://b/p", &StoreOptions::default()).err().unwrap().to_string().contains("feature `s3`"));
    }
}
