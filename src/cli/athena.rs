//! `flowtrail athena`: the DDL of all tables, the view of current findings, and the queries that people ask first.

use flowtrail_sink::{Table, athena};

use super::{AthenaArgs, Failure};
use crate::config::check_table;

/// Prints it.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &AthenaArgs) -> Result<i32, Failure> {
    if !args.location.starts_with("s3://") {
        return Err(Failure::Usage(format!("--location {:?}: Athena reads S3 only; give s3://bucket/prefix", args.location)));
    }
    for table in &args.tables {
        check_table(table).map_err(Failure::Usage)?;
    }
    let tables: Vec<Table> =
        Table::ALL.into_iter().filter(|t| args.tables.is_empty() || args.tables.iter().any(|a| a == t.name())).collect();
    print!("{}", athena::ddl(&args.location, &tables));
    Ok(0)
}
