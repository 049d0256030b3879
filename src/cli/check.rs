//! `flowtrail check`: reads the configuration, tries each source and target, says what it may do and what it needs.

use super::{ConfigArg, Failure};
use crate::config::Config;

/// Runs it. Exit 1 when something cannot be reached, 2 when the configuration is wrong.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &ConfigArg) -> Result<i32, Failure> {
    let _config = Config::load(&args.config)?;
    Ok(0)
}
