//! CloudTrail records and the envelopes they come in.

pub mod call;
