//! Flow logs in Parquet: the same rows as from text.
//!
//! Two ways lead there. [`columns`] reads the usual file: flat columns of integers and strings, plain or by dictionary,
//! whose values go straight from the page into the batch; a dictionary entry (an address, an interface) is parsed once
//! and rows carry its index. [`plain`] reads every file that the Parquet library can, row group by row group, through
//! Arrow; it is what a file means, and takes over where the first way meets anything odd: a value that is a reject, an
//! encoding it does not know, a damaged page. So there is one place that says what is wrong with a record or a file.

mod columns;
mod hybrid;
mod page;
mod plain;

use std::cell::Cell;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};

use self::columns::{Columns, Stopped};
use super::batch::{FlowBatch, Names};
use super::layout::{Hot, Layout, LayoutError, field};
use super::names::NameIndex;
use super::plain::Ask;
use super::{FlowRows, Out};
use crate::unit::Reject;

/// Why a Parquet file gives no (more) records.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// Damaged, cut off, or of a kind the reader does not know.
    #[error("parquet file cannot be read: {0}")]
    Parquet(#[from] ParquetError),
    /// Damaged inside a batch.
    #[error("parquet file cannot be read: {0}")]
    Arrow(#[from] ArrowError),
    /// Parquet, but not of flow logs.
    #[error("parquet file is no flow log: {0}")]
    NotFlowLog(#[from] LayoutError),
    /// The reader library gave up on a damaged file.
    #[error("parquet file cannot be read: the decoder stopped: {0}")]
    Decoder(String),
    /// More than an honest file of its size can hold.
    #[error("parquet file cannot be read: {bytes} bytes claim {claim}, too much for an honest file")]
    Bomb {
        /// Length of the file, or of the page.
        bytes: usize,
        /// What it says it holds.
        claim: String,
    },
}

/// Rows that a file may claim for each of its bytes: a record has a time and counters, and no codec packs a hundred of
/// them into a byte. A few rows more are always allowed.
const ROWS_PER_BYTE: u64 = 100;
const ROWS_FREE: u64 = 1 << 20;

/// Reads Parquet objects with memory that is used again. One to a thread.
#[derive(Default)]
pub struct ParquetReader {
    columns: Columns,
}

/// Reads one Parquet object with a reader of its own; see [`ParquetReader::read`].
///
/// # Errors
/// When the file is damaged or no flow log.
pub fn parse_parquet(
    object: &[u8],
    ask: Ask,
    names: &mut Names,
    batch: &mut FlowBatch,
    on_batch: &mut dyn FnMut(FlowRows<'_>),
    on_reject: &mut dyn FnMut(Reject),
) -> Result<Layout, FlowError> {
    ParquetReader::default().read(object, ask, names, batch, on_batch, on_reject)
}

impl ParquetReader {
    /// Reads one object. Positions are row numbers, from 0. Batches before damage are handed on.
    ///
    /// # Errors
    /// When the file is damaged or no flow log.
    pub fn read(
        &mut self,
        object: &[u8],
        ask: Ask,
        names: &mut Names,
        batch: &mut FlowBatch,
        on_batch: &mut dyn FnMut(FlowRows<'_>),
        on_reject: &mut dyn FnMut(Reject),
    ) -> Result<Layout, FlowError> {
        self.read_by(false, object, ask, &mut Out { names, batch, on_batch, on_reject })
    }

    /// As [`Self::read`]; `plain` leaves the fast way out.
    fn read_by(&mut self, plain: bool, object: &[u8], ask: Ask, out: &mut Out<'_>) -> Result<Layout, FlowError> {
        let work = || self.read_groups(plain, object, ask, out);
        // The decoder has panicked on damaged files before; that must not take down what reads a million others.
        quietly(|| catch_unwind(AssertUnwindSafe(work))).unwrap_or_else(|panic| {
            // A half-filled column must not meet the next file.
            self.columns = Columns::default();
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            Err(FlowError::Decoder(text.unwrap_or("unknown").chars().take(200).collect()))
        })
    }

    fn read_groups(&mut self, plain: bool, object: &[u8], ask: Ask, out: &mut Out<'_>) -> Result<Layout, FlowError> {
        let metadata = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Skip).parse_and_finish(&Whole(object))?;
        let asked = Asked::of(&metadata, ask)?;
        let rows = metadata.row_groups().iter().fold(0u64, |sum, g| sum.saturating_add(g.num_rows().max(0) as u64));
        if rows > (object.len() as u64).saturating_mul(ROWS_PER_BYTE).max(ROWS_FREE) {
            return Err(FlowError::Bomb { bytes: object.len(), claim: format!("{rows} rows") });
        }
        let mut index = NameIndex::default();
        let mut by_arrow = None;
        let mut first_row = 0;
        // Rows with all their values go the plain way: the text of every value has to be written out.
        let fast = !plain && !ask.cells && self.columns.prepare(&metadata, &asked, ask);
        for (number, group) in metadata.row_groups().iter().enumerate() {
            let done = match fast {
                false => 0,
                true => match self.columns.group(object, group, first_row, &asked.layout, &mut index, out) {
                    Ok(()) => group.num_rows().max(0) as u64,
                    Err(Stopped { after }) => after,
                },
            };
            if done < group.num_rows().max(0) as u64 {
                page::check(object, group, &asked.leaves)?;
                let file = match &by_arrow {
                    Some(file) => file,
                    None => by_arrow.insert(plain::File::open(Bytes::copy_from_slice(object))?),
                };
                file.group(number, done, first_row, &asked, ask, &mut index, out)?;
            }
            first_row += group.num_rows().max(0) as u64;
        }
        Ok(asked.layout)
    }
}

/// Which columns of a file are read.
struct Asked {
    /// The columns that are read, in the order of the file.
    layout: Layout,
    /// For each of them, which of the file's top-level columns it is.
    roots: Vec<usize>,
    /// The file's leaf columns below them.
    leaves: Vec<usize>,
}

impl Asked {
    fn of(metadata: &ParquetMetaData, ask: Ask) -> Result<Self, LayoutError> {
        let schema = metadata.file_metadata().schema_descr();
        let columns: Vec<&str> = schema.root_schema().get_fields().iter().map(|f| f.name()).collect();
        // Every file could be stretched to a layout; ours have to have a name that only flow logs have.
        if !columns.iter().any(|c| {
            field(c).is_some_and(|f| {
                f.hot.is_some() && !matches!(f.hot, Some(Hot::Version | Hot::Start | Hot::End | Hot::Action)) || c.contains("tgw")
            })
        }) {
            return Err(LayoutError::NoKnownField(columns.join(" ").chars().take(120).collect()));
        }
        let whole = Layout::of_names(columns.iter().copied())?;
        let roots: Vec<usize> = (0..whole.len()).filter(|at| ask.cells || whole.hot_at(*at).is_some()).collect();
        let layout = Layout::of_names(roots.iter().filter_map(|at| columns.get(*at).copied()))?;
        let leaves = (0..schema.num_columns()).filter(|leaf| roots.contains(&schema.get_column_root_idx(*leaf))).collect();
        Ok(Self { layout, roots, leaves })
    }
}

/// A file in memory, without a copy.
struct Whole<'a>(&'a [u8]);

impl Length for Whole<'_> {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

impl<'a> ChunkReader for Whole<'a> {
    type T = &'a [u8];

    fn get_read(&self, start: u64) -> parquet::errors::Result<&'a [u8]> {
        let rest = usize::try_from(start).ok().and_then(|start| self.0.get(start..));
        rest.ok_or_else(|| ParquetError::EOF(format!("{start} lies behind the end of the file")))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        // Only the footer is read through here.
        let mut bytes = Vec::new();
        self.get_read(start)?.take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() < length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(bytes.into())
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` without the panic message on standard error: the damage is told as an error.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let result = work();
    QUIET.set(false);
    result
}

/// Words for "no value": AWS's own, and those of tools that wrote every column as text.
fn is_absent(value: &[u8]) -> bool {
    matches!(value, b"" | b"-" | b"None" | b"null" | b"NULL" | b"NaN" | b"nan")
}

/// The greatest value of a field that is a number; none for the others.
fn max_of(hot: Hot, limit: i64) -> Option<u64> {
    match hot {
        Hot::Version => Some(i32::MAX as u64),
        Hot::SrcPort | Hot::DstPort | Hot::TcpFlags => Some(u64::from(u16::MAX)),
        Hot::Protocol => Some(u64::from(u8::MAX)),
        Hot::Packets | Hot::Bytes => Some(i64::MAX as u64),
        Hot::Start | Hot::End => u64::try_from(limit.min(super::plain::SECONDS_MAX)).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
