//! What many records of a unit have in common: their interface and account, who speaks with whom, and all names.
//!
//! A record carries the number of its [`Pair`]. Twelve columns of the table follow from it, and are worked out for each
//! pair of a file instead of each record.

use flowtrail_ingest::FlowBatch;
use flowtrail_ingest::flow::FlowRows;
use flowtrail_ingest::flow::batch::{ABSENT as NO_NAME, marks};
use flowtrail_ingest::flow::layout::{Hot, Layout};
use hashbrown::HashMap;

use super::super::pages::ABSENT;
use super::super::symbols::{Symbol, Symbols};
use super::{FlowNames, column_of};

/// Strings that outlive a flush, and their bytes: as many as the caches have room for.
const SYMBOLS_KEPT_MAX: usize = 1 << 15;
const SYMBOL_BYTES_KEPT_MAX: usize = 1 << 20;

/// Columns that follow from a pair: account, interface, both addresses, the names, the key of the unit.
pub(super) const COLUMNS: usize = 12;
pub(super) const ACCOUNT: usize = 0;
pub(super) const INTERFACE: usize = 1;
pub(super) const SRC: usize = 2;
pub(super) const DST: usize = 3;
/// The first of the names; they stand as in the table.
pub(super) const NAMES: usize = 4;
pub(super) const SOURCE_KEY: usize = COLUMNS - 1;

/// The symbols of one pair, `ABSENT` for none.
pub(super) type Pair = [u32; COLUMNS];

/// The strings and pairs of a writer.
#[derive(Default)]
pub struct Pairs {
    symbols: Symbols,
    generation: u64,
    all: Vec<Pair>,
    /// Those that [`Self::find`] has added.
    numbers: HashMap<Pair, u32>,
    source_key: Symbol,
    /// The symbols of the unit's names, by their numbers there.
    interfaces: Vec<u32>,
    accounts: Vec<u32>,
    /// Where the layout at hand has account, interface, source and destination.
    columns: [Option<usize>; 4],
}

impl Pairs {
    /// The strings, for names.
    pub fn symbols(&mut self) -> &mut Symbols {
        &mut self.symbols
    }

    /// Changes when the numbers of pairs given so far lose their meaning, which happens only between two pushes of a writer.
    /// Those of strings hold longer, see [`Symbols::generation`].
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// True if account, interface and addresses of a row are told by their numbers in the batch: rows of a unit with
    /// equal numbers and equal names are of one pair.
    #[inline]
    #[must_use]
    pub fn told_by_numbers(&self, batch: &FlowBatch, row: usize) -> bool {
        batch.marks[row] & (marks::ADDRS | marks::V6) == marks::ADDRS
            && batch.interface[row] != NO_NAME
            && (batch.account[row] != NO_NAME || self.columns[ACCOUNT].is_none())
    }

    /// Adds the pair of a row and the same pair the other way round, for callers that remember their numbers: the two differ
    /// in the lowest bit. For rows that are [`Self::told_by_numbers`].
    pub fn add(&mut self, rows: FlowRows<'_>, row: usize, there: FlowNames, back: FlowNames) -> u32 {
        if self.all.len() % 2 == 1 {
            self.all.push([ABSENT; COLUMNS]);
        }
        let mut pair = self.pair(rows, row, there, [there.src.0, there.dst.0]);
        let there = self.push(pair);
        pair[NAMES..SOURCE_KEY].copy_from_slice(&back.symbols());
        pair.swap(SRC, DST);
        self.push(pair);
        there
    }

    /// The number of the pair of a row, for rows that nobody remembers.
    pub fn find(&mut self, rows: FlowRows<'_>, row: usize, names: FlowNames) -> u32 {
        let addresses = [SRC, DST].map(|column| self.cell(rows, row, column));
        let pair = self.pair(rows, row, names, addresses);
        if let Some(known) = self.numbers.get(&pair) {
            return *known;
        }
        let number = self.push(pair);
        self.numbers.insert(pair, number);
        number
    }

    fn push(&mut self, pair: Pair) -> u32 {
        self.all.push(pair);
        self.all.len() as u32 - 1
    }

    fn pair(&mut self, rows: FlowRows<'_>, row: usize, names: FlowNames, [src, dst]: [u32; 2]) -> Pair {
        let mut pair = [ABSENT; COLUMNS];
        pair[ACCOUNT] = self.name(rows, row, ACCOUNT);
        pair[INTERFACE] = self.name(rows, row, INTERFACE);
        (pair[SRC], pair[DST]) = (src, dst);
        pair[NAMES..SOURCE_KEY].copy_from_slice(&names.symbols());
        pair[SOURCE_KEY] = self.source_key.0;
        pair
    }

    /// Account or interface of a row.
    fn name(&mut self, rows: FlowRows<'_>, row: usize, column: usize) -> u32 {
        if self.columns[column].is_none() {
            return ABSENT;
        }
        let (number, names, known) = if column == ACCOUNT {
            (rows.batch.account[row], &rows.names.accounts, &mut self.accounts)
        } else {
            (rows.batch.interface[row], &rows.names.interfaces, &mut self.interfaces)
        };
        if number == NO_NAME {
            // AWS writes `unknown` for accounts of some service interfaces: no name to judge by, but a value.
            return self.cell(rows, row, column);
        }
        while known.len() <= number as usize {
            let Some(name) = names.get(known.len()) else { return ABSENT };
            known.push(if name.is_empty() || **name == *"-" { ABSENT } else { self.symbols.intern(name).0 });
        }
        known[number as usize]
    }

    fn cell(&mut self, rows: FlowRows<'_>, row: usize, column: usize) -> u32 {
        self.columns[column].map_or(ABSENT, |at| text(rows.cell(row, at), &mut self.symbols))
    }

    /// The pairs that follow are of this unit.
    pub(super) fn begin(&mut self, source_key: &str) {
        self.source_key = self.symbols.intern(source_key);
        self.interfaces.clear();
        self.accounts.clear();
    }

    /// The rows that follow have this layout.
    pub(super) fn compile(&mut self, layout: &Layout) {
        self.columns = [Hot::Account, Hot::Interface, Hot::Src, Hot::Dst].map(|hot| column_of(layout, hot));
    }

    /// The pair of a number below [`Self::len`].
    pub(super) fn get(&self, number: u32) -> &Pair {
        &self.all[number as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn texts(&self) -> &Symbols {
        &self.symbols
    }

    /// Forgets all pairs, and all strings if there are many: the same ones mostly come again.
    pub(super) fn empty(&mut self) {
        if self.symbols.len() > SYMBOLS_KEPT_MAX || self.symbols.bytes() > SYMBOL_BYTES_KEPT_MAX {
            self.symbols.empty();
        }
        self.generation += 1;
        self.all.clear();
        self.numbers.clear();
        self.interfaces.clear();
        self.accounts.clear();
    }
}

/// The symbol of a cell.
pub(super) fn text(cell: &[u8], symbols: &mut Symbols) -> u32 {
    match std::str::from_utf8(cell) {
        Ok("") => ABSENT,
        Ok(text) => symbols.intern(text).0,
        Err(_) => symbols.intern(&String::from_utf8_lossy(cell)).0,
    }
}
