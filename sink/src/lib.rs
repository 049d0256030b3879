//! From findings to readers: stores, Parquet tables, commits and segments.
//!
//! Read in this order: [`store`] (where files live), [`segment`] (state in checked frames), [`commit`] (the one atomic
//! step), [`tables`] (what readers see),
//! [`athena`] (how they ask).

pub mod athena;
pub mod commit;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod segment;
pub mod store;
pub mod tables;

pub use commit::{Commit, CommitError, CommitLog, Draft, Loaded, Outcome, OutputFile, SegmentRef};
pub use segment::{SegmentError, SegmentReader, SegmentWriter};
pub use store::{FolderStore, MemoryStore, Store, StoreError, StoreOptions};
pub use tables::{Table, TableError, TableFile};
