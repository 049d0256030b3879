//! Ports, protocol, TCP flags, action and status of a record in one number, which is moved about as one.

use flowtrail_ingest::flow::FlowRows;
use flowtrail_ingest::flow::batch::marks;
use flowtrail_ingest::flow::layout::{Hot, Layout};

use super::super::pages::ABSENT;
use super::column_of;

// From the lowest bit: destination port 16, source port 16, protocol 8, flags 8, which of the four are there 4, action 2, status 2.
const PROTOCOL: u32 = 32;
const FLAGS: u32 = 40;
const THERE: u32 = 48;
const ACTION: u32 = 52;
const STATUS: u32 = 54;

/// The words of `action`, by their two bits.
pub(super) const ACTIONS: [Option<&str>; 4] = [None, Some("ACCEPT"), Some("REJECT"), None];
/// The words of `log_status`.
pub(super) const STATUSES: [Option<&str>; 4] = [None, Some("OK"), Some("NODATA"), Some("SKIPDATA")];

/// Where a layout has these fields.
#[derive(Default)]
pub(super) struct Small {
    src_port: Option<usize>,
    dst_port: Option<usize>,
    protocol: Option<usize>,
    flags: Option<usize>,
    action: Option<usize>,
    status: Option<usize>,
    /// Rows with all these marks have all numbers of the layout, as these bits tell.
    usual: (u16, u64),
}

impl Small {
    pub(super) fn of(layout: &Layout) -> Self {
        let mut small = Self {
            src_port: column_of(layout, Hot::SrcPort),
            dst_port: column_of(layout, Hot::DstPort),
            protocol: column_of(layout, Hot::Protocol),
            flags: column_of(layout, Hot::TcpFlags),
            action: column_of(layout, Hot::Action),
            status: column_of(layout, Hot::LogStatus),
            usual: (0, 0),
        };
        let numbers = [
            (small.src_port, marks::PORTS),
            (small.dst_port, marks::PORTS),
            (small.protocol, marks::PROTOCOL),
            (small.flags, marks::TCP_FLAGS),
        ];
        for (n, (_, mark)) in numbers.into_iter().enumerate().filter(|(_, (column, _))| column.is_some()) {
            small.usual.0 |= mark;
            small.usual.1 |= 1 << (THERE + n as u32);
        }
        small
    }

    /// The fields of a row.
    #[inline]
    pub(super) fn pack(&self, rows: FlowRows<'_>, row: usize) -> u64 {
        let batch = rows.batch;
        let (mark, ports) = (batch.marks[row], batch.ports[row]);
        // A zero may stand for "absent", which the cell knows.
        let there = |at: Option<usize>, value: u32, sure: u16| {
            at.is_some_and(|at| mark & sure != 0 || value != 0 || batch.cells.is_empty() || !rows.is_absent(row, at))
        };
        let (protocol, flags) = (batch.protocol[row], batch.tcp_flags[row]);
        let mut bits = u64::from(ports) | u64::from(protocol) << PROTOCOL | u64::from(flags) << FLAGS;
        if mark & self.usual.0 == self.usual.0 {
            bits |= self.usual.1;
        } else {
            bits |= u64::from(there(self.src_port, ports >> 16, marks::PORTS)) << THERE;
            bits |= u64::from(there(self.dst_port, ports & 0xffff, marks::PORTS)) << (THERE + 1);
            bits |= u64::from(there(self.protocol, protocol.into(), marks::PROTOCOL)) << (THERE + 2);
            bits |= u64::from(there(self.flags, flags.into(), marks::TCP_FLAGS)) << (THERE + 3);
        }
        // The parser has checked these words, so a mark says which it is and the cell only whether it is there.
        if there(self.action, 0, 0) {
            bits |= (1 + u64::from(mark & marks::REJECT != 0)) << ACTION;
        }
        if there(self.status, 0, marks::NODATA | marks::SKIPDATA) {
            let word = 1 + u64::from(mark & marks::NODATA != 0) + 2 * u64::from(mark & marks::SKIPDATA != 0);
            bits |= word.min(3) << STATUS;
        }
        bits
    }
}

/// A number of such a row, `ABSENT` for none.
pub(super) fn number(bits: u64, hot: Hot) -> u32 {
    let (value, there) = match hot {
        Hot::SrcPort => (bits >> 16 & 0xffff, 0),
        Hot::DstPort => (bits & 0xffff, 1),
        Hot::Protocol => (bits >> PROTOCOL & 0xff, 2),
        _ => (bits >> FLAGS & 0xff, 3),
    };
    if bits >> (THERE + there) & 1 == 1 { value as u32 } else { ABSENT }
}

/// The fields of `bits` that are there; of all rows put together, those that any row has.
pub(super) fn has(bits: u64, hot: Hot) -> bool {
    number(bits, hot) != ABSENT
}

/// The place of its word in [`ACTIONS`].
pub(super) fn action(bits: u64) -> u32 {
    (bits >> ACTION & 3) as u32
}

/// The place of its word in [`STATUSES`].
pub(super) fn status(bits: u64) -> u32 {
    (bits >> STATUS & 3) as u32
}
