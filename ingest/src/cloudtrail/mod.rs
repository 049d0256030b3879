//! CloudTrail records and the envelopes they come in.
//!
//! [`read`] walks through an object, file or message and hands out each record as an [`ApiCall`]: borrowed fields, the
//! raw bytes kept. Read in this order: [`call`] (the record), [`envelope`] (what records come in), [`scan`] (one record's
//! text, byte by byte, with its faults), `fast` (the same for text without anything odd in it: `marks` finds quotes and
//! brackets 64 bytes at a step, `index` makes tokens of them, `words` knows the keys), [`plain`] (the same again, simply:
//! the twin that tests compare with), [`tree`] (where a tree is needed).

pub mod call;
pub mod envelope;
mod fast;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod index;
mod marks;
pub mod plain;
mod quoted;
pub mod scan;
pub mod tree;
mod words;

pub use call::{ApiCall, Identity, call_id};
pub use envelope::{Item, Outcome, read};
pub use scan::DEPTH_MAX;
pub use tree::{one_line, tree};
