//! Reading the output tables back, as another program would.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// One row, every column as text; nulls are left out.
pub type Row = BTreeMap<String, String>;

/// All rows of a table of a local output folder, with `dt` from the folder's name. Empty when there is no file.
pub fn table(out: &Path, name: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for path in parquet_files(&out.join(name)) {
        let day = path.iter().find_map(|part| part.to_str()?.strip_prefix("dt=")).unwrap_or_default().to_owned();
        let file = File::open(&path).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build());
        for batch in reader.unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
            for mut row in batch_rows(&batch.unwrap()) {
                row.insert("dt".to_owned(), day.clone());
                rows.push(row);
            }
        }
    }
    rows
}

/// The Parquet files below a folder, sorted.
pub fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(parquet_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "parquet") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn batch_rows(batch: &RecordBatch) -> Vec<Row> {
    let mut rows = vec![Row::new(); batch.num_rows()];
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        // Times of a named zone would need the whole zone database to be shown; ours are UTC.
        let column = match column.data_type() {
            DataType::Timestamp(unit, Some(_)) => &arrow::compute::cast(column, &DataType::Timestamp(*unit, None)).unwrap(),
            _ => column,
        };
        let options = FormatOptions::default();
        let formatter = ArrayFormatter::try_new(column, &options).unwrap();
        for (index, row) in rows.iter_mut().enumerate() {
            if field.name() == "evidence" && column.as_list_opt::<i32>().is_some() {
                row.insert("evidence".to_owned(), evidence(batch, index).join(" "));
            } else if column.is_valid(index) {
                row.insert(field.name().clone(), formatter.value(index).to_string());
            }
        }
    }
    rows
}

/// What identifies the cited records wherever they lay: the event id, else the position.
fn evidence(batch: &RecordBatch, row: usize) -> Vec<String> {
    let list = batch.column_by_name("evidence").unwrap().as_list::<i32>();
    if list.is_null(row) {
        return Vec::new();
    }
    let cited = list.value(row);
    let cited = cited.as_struct();
    let options = FormatOptions::default();
    let text = |name: &str, index: usize| {
        let column = cited.column_by_name(name)?;
        column.is_valid(index).then(|| ArrayFormatter::try_new(column, &options).unwrap().value(index).to_string())
    };
    let mut ids: Vec<String> = (0..cited.len()).filter_map(|index| text("event_id", index).or_else(|| text("position", index))).collect();
    ids.sort();
    ids
}

/// Columns that tell of the run, not of what was found.
const NOT_COMPARED: [&str; 6] = ["revision", "status", "sealed", "seen_at", "delivered_at", "dt"];

/// Findings that stand: of each id the last revision, unless it is withdrawn; without the columns that tell of the run.
pub fn findings(out: &Path) -> BTreeMap<String, Row> {
    let mut last: BTreeMap<String, (i64, Row)> = BTreeMap::new();
    for row in table(out, "findings") {
        let revision: i64 = row["revision"].parse().unwrap();
        let id = row["finding_id"].clone();
        if last.get(&id).is_none_or(|(known, _)| revision > *known) {
            last.insert(id, (revision, row));
        }
    }
    let stands = |(id, (_, mut row)): (String, (i64, Row))| {
        let withdrawn = row["status"] == "withdrawn";
        row.retain(|column, _| !NOT_COMPARED.contains(&column.as_str()));
        (!withdrawn).then_some((id, row))
    };
    last.into_iter().filter_map(stands).collect()
}

/// Fails with the first difference in words.
pub fn assert_same_findings(what: &str, expected: &BTreeMap<String, Row>, got: &BTreeMap<String, Row>) {
    let ids: BTreeSet<&String> = expected.keys().chain(got.keys()).collect();
    for id in ids {
        match (expected.get(id), got.get(id)) {
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) => {
                let columns: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
                let differ: Vec<_> = columns.into_iter().filter(|c| a.get(*c) != b.get(*c)).map(|c| (c, a.get(c), b.get(c))).collect();
                panic!("{what}: {} findings expected, {} found; {id} differs in {differ:#?}", expected.len(), got.len());
            }
            (Some(a), None) => panic!("{what}: {} findings expected, {} found; missing: {a:#?}", expected.len(), got.len()),
            (None, b) => panic!("{what}: {} findings expected, {} found; nobody expected {b:#?}", expected.len(), got.len()),
        }
    }
}

/// Those whose window ended before the day of the last one: in a live run the last hours are still open.
pub fn settled(found: &BTreeMap<String, Row>) -> BTreeMap<String, Row> {
    let day = |row: &Row| row["window_end"][..10].to_owned();
    settled_before(found, &found.values().map(day).max().unwrap_or_default())
}

/// Those whose window ended before `day` (`YYYY-MM-DD`).
pub fn settled_before(found: &BTreeMap<String, Row>, day: &str) -> BTreeMap<String, Row> {
    found.iter().filter(|(_, row)| &row["window_end"][..10] < day).map(|(id, row)| (id.clone(), row.clone())).collect()
}
