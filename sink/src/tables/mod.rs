//! What readers see: Parquet tables, one row type and one schema each (design/interface.md section 3).
//!
//! A table's schema exists once, in the code that turns rows into columns; files, DDL and JSON lines all follow from it.
//! Equal rows make equal bytes: rows are sorted, the writer's settings are fixed and nothing tells of the run.

mod columns;
mod merge;
mod pages;
mod read;
mod symbols;

pub mod api_calls;
pub mod coverage;
pub mod eni_owners;
pub mod findings;
pub mod flows;
pub mod observations;
pub mod profiles;
pub mod set_aside;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use flowtrail_ingest::{Day, EventTime};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};

pub use api_calls::{ApiCallRow, ApiCallsWriter};
pub use columns::Columns;
pub use coverage::CoverageRow;
pub use findings::{FindingRow, Status, finding_json, read_findings};
pub use flows::{FlowNames, FlowsWriter, Pairs};
pub use merge::merge_files;
pub use read::{read_rows, rows_json};
pub use set_aside::{LateRow, QuarantineRow, RejectRow};
pub use symbols::{Symbol, Symbols};

/// Written into every file's metadata as `schema_version`. Columns may be added without raising it.
pub const SCHEMA_VERSION: &str = "1";

/// The tables.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// One row per revision of a finding.
    Findings,
    /// Worth keeping, not worth waking anybody.
    Observations,
    /// What is normal for an entity.
    Profiles,
    /// Who held an interface when.
    EniOwners,
    /// What was there to be read, hour by hour.
    Coverage,
    /// Lines and records that could not be read.
    Rejects,
    /// What came after its hour was sealed.
    Late,
    /// Units that could not be read.
    Quarantine,
    /// Every flow record, with names.
    Flows,
    /// Every API call.
    ApiCalls,
}

impl Table {
    /// All tables, those that are written by default first.
    pub const ALL: [Self; 10] = [
        Self::Findings,
        Self::Observations,
        Self::Profiles,
        Self::EniOwners,
        Self::Coverage,
        Self::Rejects,
        Self::Late,
        Self::Quarantine,
        Self::Flows,
        Self::ApiCalls,
    ];
    /// Tables written unless the configuration says otherwise.
    pub const DEFAULT: [Self; 8] =
        [Self::Findings, Self::Observations, Self::Profiles, Self::EniOwners, Self::Coverage, Self::Rejects, Self::Late, Self::Quarantine];

    /// Folder and SQL name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Findings => "findings",
            Self::Observations => "observations",
            Self::Profiles => "profiles",
            Self::EniOwners => "eni_owners",
            Self::Coverage => "coverage",
            Self::Rejects => "rejects",
            Self::Late => "late",
            Self::Quarantine => "quarantine",
            Self::Flows => "flows",
            Self::ApiCalls => "api_calls",
        }
    }

    /// The table of a name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// True for `dt=…/hour=HH`, false for `dt=…` alone.
    #[must_use]
    pub fn hourly(self) -> bool {
        matches!(self, Self::Flows | Self::ApiCalls)
    }

    /// Columns and types, as files have them; partition columns are not among them.
    #[must_use]
    pub fn schema(self) -> SchemaRef {
        let columns = match self {
            Self::Findings => findings::FindingRow::columns(&[]),
            Self::Observations => flowtrail_detect::Observation::columns(&[]),
            Self::Profiles => flowtrail_detect::ProfileRow::columns(&[]),
            Self::EniOwners => flowtrail_enrich::EniOwnerRow::columns(&[]),
            Self::Coverage => CoverageRow::columns(&[]),
            Self::Rejects => RejectRow::columns(&[]),
            Self::Late => LateRow::columns(&[]),
            Self::Quarantine => QuarantineRow::columns(&[]),
            Self::Flows => return flows::schema(),
            Self::ApiCalls => ApiCallRow::columns(&[]),
        };
        columns.schema()
    }

    /// The folder of a time: `findings/dt=2026-01-05`, `flows/dt=2026-01-05/hour=07`.
    #[must_use]
    pub fn folder(self, time: EventTime) -> String {
        // Years that no calendar of a reader's has are put at the edges.
        let time = clamped(time);
        let day = time.day();
        if self.hourly() {
            format!("{}/dt={day}/hour={:02}", self.name(), time.0.rem_euclid(86_400) / 3600)
        } else {
            format!("{}/dt={day}", self.name())
        }
    }

    /// The folder of a day, for tables that are snapshots of one.
    #[must_use]
    pub fn folder_of_day(self, day: Day) -> String {
        self.folder(day.start())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The first and last second that readers' calendars hold: years 1 to 9999.
pub(crate) fn clamped(time: EventTime) -> EventTime {
    EventTime(time.0.clamp(-62_135_596_800, 253_402_300_799))
}

/// Why a table could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Rows that cannot become columns.
    #[error("table {table}: {why}")]
    Write {
        /// The table.
        table: &'static str,
        /// What arrow or parquet said.
        why: String,
    },
    /// A file that is not what flowtrail wrote.
    #[error("not a readable table file: {why}")]
    Read {
        /// What arrow or parquet said.
        why: String,
    },
}

/// A finished file without a name: the commit gives it one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFile {
    /// `findings/dt=2026-01-05`.
    pub folder: String,
    /// Parquet.
    pub bytes: Vec<u8>,
    /// Rows in it.
    pub rows: u64,
}

/// A row of a table.
pub trait Row: Sized {
    /// Which table.
    const TABLE: Table;
    /// Puts rows into the order of the file: by time, then by what tells rows apart, so that equal sets make equal files.
    fn sort(rows: &mut [Self]);
    /// The columns of these rows, in the order of design/interface.md.
    fn columns(rows: &[Self]) -> Columns;
}

/// A row with a time of its own, which says in which folder it goes.
pub trait Timed: Row {
    /// `window_start`, or the row's own time.
    fn time(&self) -> EventTime;
}

/// Rows that are turned into columns at a time: tables of a hundred thousand long rows are not held twice.
const PART_ROWS: usize = 8192;

/// Sorts the rows and writes one file.
///
/// # Errors
/// When arrow or parquet refuse, which no input should bring about.
pub fn encode<R: Row>(mut rows: Vec<R>) -> Result<Vec<u8>, TableError> {
    R::sort(&mut rows);
    let mut rest = rows.into_iter();
    let mut parts = std::iter::from_fn(|| {
        let part: Vec<R> = rest.by_ref().take(PART_ROWS).collect();
        (!part.is_empty()).then(|| R::columns(&part).batch(R::TABLE))
    });
    write_parts(R::TABLE, &mut parts)
}

/// Files of rows, one a day (or an hour, for hourly tables), in order of time.
///
/// # Errors
/// As [`encode`].
pub fn files<R: Timed>(rows: Vec<R>) -> Result<Vec<TableFile>, TableError> {
    let mut parts: BTreeMap<String, Vec<R>> = BTreeMap::new();
    for row in rows {
        parts.entry(R::TABLE.folder(row.time())).or_default().push(row);
    }
    parts.into_iter().map(|(folder, rows)| Ok(TableFile { folder, rows: rows.len() as u64, bytes: encode(rows)? })).collect()
}

/// The one file of a snapshot of `day`; none for no rows.
///
/// # Errors
/// As [`encode`].
pub fn snapshot<R: Row>(day: Day, rows: Vec<R>) -> Result<Option<TableFile>, TableError> {
    if rows.is_empty() {
        return Ok(None);
    }
    Ok(Some(TableFile { folder: R::TABLE.folder_of_day(day), rows: rows.len() as u64, bytes: encode(rows)? }))
}

/// The writer's settings, the same for every file of a table.
pub(crate) fn properties(level: i32) -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(level).unwrap_or_default()))
        // Not the library's version: a new one must not change files whose rows did not change.
        .set_created_by("flowtrail version 1".to_owned())
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_key_value_metadata(Some(vec![KeyValue::new("schema_version".to_owned(), SCHEMA_VERSION.to_owned())]))
}

pub(crate) fn write(table: Table, batch: &RecordBatch) -> Result<Vec<u8>, TableError> {
    write_parts(table, &mut std::iter::once(Ok(batch.clone())))
}

fn write_parts(table: Table, parts: &mut dyn Iterator<Item = Result<RecordBatch, TableError>>) -> Result<Vec<u8>, TableError> {
    let error = |e: parquet::errors::ParquetError| TableError::Write { table: table.name(), why: e.to_string() };
    // Arrow's own copy of the schema only matters to arrow readers, and would show them types that others do not see.
    // Level 1: level 3 makes a table of findings 0.3 % smaller.
    let options = ArrowWriterOptions::new().with_properties(properties(1).build()).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), table.schema(), options).map_err(error)?;
    for part in parts {
        writer.write(&part?).map_err(error)?;
    }
    writer.into_inner().map_err(error)
}

pub(crate) fn batch(table: Table, schema: SchemaRef, arrays: Vec<Arc<dyn arrow::array::Array>>) -> Result<RecordBatch, TableError> {
    RecordBatch::try_new(schema, arrays).map_err(|e| TableError::Write { table: table.name(), why: e.to_string() })
}
