//! CloudTrail records and the envelopes they come in.
//!
//! [`read`] walks through an object, file or message and hands out each record as an [`ApiCall`]: borrowed fields, the
//! raw bytes kept. Read in this order: [`call`] (the record), [`envelope`] (what records come in), [`scan`] (one record's
//! text, fast), [`plain`] (the same, simply: the twin that tests compare with), [`tree`] (where a tree is needed).

pub mod call;
pub mod envelope;
pub mod plain;
mod quoted;
pub mod scan;
pub mod tree;

pub use call::{ApiCall, Identity, call_id};
pub use envelope::{Item, Outcome, read};
pub use scan::DEPTH_MAX;
pub use tree::{one_line, tree};
