//! What a replay or run has stored, read back: findings, rows of other tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use flowtrail_sink::tables::findings::{FindingRow, read_findings};
use flowtrail_sink::tables::read_rows;
use flowtrail_sink::{Store, StoreOptions, Table, store};
use serde_json::{Map, Value};

use super::Failure;

/// A row of a table, by column.
pub type Row = Map<String, Value>;

/// Opens the output that `--out` names.
///
/// # Errors
/// When there is none.
pub fn open(out: &str) -> Result<Arc<dyn Store>, Failure> {
    if !out.contains("://") && !std::path::Path::new(out).is_dir() {
        return Err(Failure::Work(format!("there is no folder {out}: give the --out that replay or run wrote to")));
    }
    store::open(out, &StoreOptions::default()).map_err(|e| Failure::Work(e.to_string()))
}

fn files(store: &dyn Store, table: Table) -> Result<Vec<String>, Failure> {
    let keys = store.list(&format!("{}/", table.name())).map_err(|e| Failure::Work(e.to_string()))?;
    Ok(keys.into_iter().map(|(key, _)| key).filter(|k| k.ends_with(".parquet")).collect())
}

fn get(store: &dyn Store, key: &str) -> Result<Vec<u8>, Failure> {
    let bytes = store.get(key).map_err(|e| Failure::Work(e.to_string()))?;
    bytes.ok_or_else(|| Failure::Work(format!("{key} in {} has gone while it was read: try again", store.describe())))
}

/// Every finding's last revision.
///
/// # Errors
/// When the store or a file fails.
pub fn findings(store: &dyn Store) -> Result<BTreeMap<String, FindingRow>, Failure> {
    let mut last: BTreeMap<String, FindingRow> = BTreeMap::new();
    for key in files(store, Table::Findings)? {
        let rows = read_findings(get(store, &key)?).map_err(|e| Failure::Work(format!("{key}: {e}")))?;
        for row in rows {
            match last.get(&row.finding.finding_id) {
                Some(old) if old.revision >= row.revision => {}
                _ => {
                    last.insert(row.finding.finding_id.clone(), row);
                }
            }
        }
    }
    Ok(last)
}

/// All rows of a table with `dt` from the folder's name.
///
/// # Errors
/// When the store or a file fails.
pub fn rows(store: &dyn Store, table: Table) -> Result<Vec<Row>, Failure> {
    let mut all = Vec::new();
    for key in files(store, table)? {
        let day = key.split('/').find_map(|p| p.strip_prefix("dt=")).unwrap_or_default().to_owned();
        for mut row in read_rows(get(store, &key)?).map_err(|e| Failure::Work(format!("{key}: {e}")))? {
            row.insert("dt".to_owned(), Value::String(day.clone()));
            all.push(row);
        }
    }
    Ok(all)
}

/// A text column; empty when it is null or not there.
#[must_use]
pub fn text<'r>(row: &'r Row, column: &str) -> &'r str {
    row.get(column).and_then(Value::as_str).unwrap_or_default()
}
