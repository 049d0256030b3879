//! Where units come from: plain building blocks that a driver puts together.
//!
//! A source lists [`Object`]s or hands out messages and fetches bytes; what is in them it does not know. All of this is
//! the rim of the program: it reads clocks and networks, and it may fail in ways that say what to do.

#[cfg(feature = "s3")]
pub mod aws;
pub mod folder;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "kafka-msk-iam")]
pub mod msk;
#[cfg(feature = "s3")]
pub mod s3;

use crate::time::EventTime;

/// Text for a URL: all bytes but unreserved characters (RFC 3986) and those of `also` percent-encoded.
#[must_use]
pub fn percent_encoded(text: &str, also: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A file or an S3 object, as listed: its bytes are fetched apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// `folder` or `s3`.
    pub source: &'static str,
    /// The path as it was reached, or the key in the bucket.
    pub key: String,
    /// Bytes, as listed.
    pub size: u64,
    /// The ETag as the store writes it, with its quotes; files have none.
    pub etag: Option<String>,
    /// When it was last written, by the file system or the store.
    pub modified: Option<EventTime>,
}
