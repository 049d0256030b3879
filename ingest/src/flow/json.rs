//! A flow record as JSON, for people and scripts: `inspect` prints these.

use serde_json::{Map, Value};

use super::FlowRows;
use super::layout::{Hot, Type};

/// The record in row `row` of a batch that was read with all cells: AWS's own field names underscored, numbers as
/// numbers, times in seconds, absent fields left out. Unknown columns, and numbers that are none, stand under `extra`.
#[must_use]
pub fn row_json(rows: &FlowRows<'_>, row: usize) -> Map<String, Value> {
    let (mut map, mut extra) = (Map::new(), Map::new());
    for (at, column) in rows.layout.columns().iter().enumerate() {
        let cell = rows.cell(row, at);
        if cell.is_empty() {
            continue;
        }
        let text = String::from_utf8_lossy(cell);
        let field = column.field().filter(|_| !map.contains_key(column.table_name()));
        let number = match (field, rows.layout.hot_at(at)) {
            // The times as they were read: some writers use milliseconds.
            (_, Some(Hot::Start)) => rows.batch.start.get(row).copied(),
            (_, Some(Hot::End)) => rows.batch.end.get(row).copied(),
            (Some(field), _) if field.ty != Type::Text => text.parse::<i64>().ok(),
            _ => None,
        };
        let name = column.table_name().to_owned();
        match (field.map(|f| f.ty), number) {
            (Some(Type::Text), _) => drop(map.insert(name, Value::String(text.into_owned()))),
            (Some(_), Some(number)) => drop(map.insert(name, number.into())),
            _ => drop(extra.insert(name, Value::String(text.into_owned()))),
        }
    }
    if !extra.is_empty() {
        map.insert("extra".to_owned(), Value::Object(extra));
    }
    map
}
