//! `flowtrail explain` and `flowtrail entity`: what is stored, for people.

use super::{EntityArgs, ExplainArgs, Failure};

/// Prints a finding.
///
/// # Errors
/// See [`Failure`].
pub fn explain(_args: &ExplainArgs) -> Result<i32, Failure> {
    Err(Failure::Work("not there".to_owned()))
}

/// Prints an entity.
///
/// # Errors
/// See [`Failure`].
pub fn entity(_args: &EntityArgs) -> Result<i32, Failure> {
    Err(Failure::Work("not there".to_owned()))
}
