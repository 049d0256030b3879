//! A batch of flow records as typed columns: what the hot path hands from the parser to the sums.
//!
//! No strings per record: ENI ids and accounts are indices into a dictionary that lives as long as the unit, IPv4
//! addresses are four bytes. Records without the fields that judging needs are in the batch too, told by their `marks`.

use crate::ip::Ip;

/// Rows a parser puts into one batch before it hands it on: fits the second-level cache with all columns.
pub const BATCH_ROWS: usize = 4096;

/// "Not there" in a dictionary column (`interface`, `account`).
pub const ABSENT: u32 = u32::MAX;

/// One bit each; see [`FlowBatch::marks`].
pub mod marks {
    /// Both `srcaddr` and `dstaddr` are there.
    pub const ADDRS: u16 = 1;
    /// The addresses are IPv6: `src` and `dst` are indices into [`super::FlowBatch::v6`]. (One IPv4 and one IPv6
    /// address in a record: both are in `v6`, the IPv4 one mapped.)
    pub const V6: u16 = 1 << 1;
    /// `start` and `end` are there.
    pub const TIMES: u16 = 1 << 2;
    /// `action` is REJECT.
    pub const REJECT: u16 = 1 << 3;
    /// `flow-direction` is egress.
    pub const EGRESS: u16 = 1 << 4;
    /// `flow-direction` is ingress.
    pub const INGRESS: u16 = 1 << 5;
    /// `tcp-flags` is there.
    pub const TCP_FLAGS: u16 = 1 << 6;
    /// `log-status` is NODATA.
    pub const NODATA: u16 = 1 << 7;
    /// `log-status` is SKIPDATA.
    pub const SKIPDATA: u16 = 1 << 8;
    /// `pkt-srcaddr` or `pkt-dstaddr` is there and differs from `srcaddr`, `dstaddr`: look it up in
    /// [`super::FlowBatch::packet_addrs`].
    pub const PKT: u16 = 1 << 9;
    /// Both ports are there.
    pub const PORTS: u16 = 1 << 10;
    /// `protocol` is there.
    pub const PROTOCOL: u16 = 1 << 11;
}

/// Typed columns of up to [`BATCH_ROWS`] records of one unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowBatch {
    /// Line number in the object (text: from 1, the header counted), event index in an envelope (from 0) or Parquet row (from 0).
    pub line: Vec<u32>,
    /// Which fields are there and what the small ones say: bits of [`marks`].
    pub marks: Vec<u16>,
    /// Index into [`Names::interfaces`], or [`ABSENT`].
    pub interface: Vec<u32>,
    /// Index into [`Names::accounts`], or [`ABSENT`].
    pub account: Vec<u32>,
    /// Source address: IPv4 bits, or with [`marks::V6`] an index into `v6`.
    pub src: Vec<u32>,
    /// Destination address, likewise.
    pub dst: Vec<u32>,
    /// `srcport << 16 | dstport`; 0 where absent.
    pub ports: Vec<u32>,
    /// IANA protocol number; 0 where absent.
    pub protocol: Vec<u8>,
    /// OR of TCP flags; 0 where absent (see [`marks::TCP_FLAGS`]).
    pub tcp_flags: Vec<u8>,
    /// Packets; 0 where absent.
    pub packets: Vec<u64>,
    /// Bytes; 0 where absent.
    pub bytes: Vec<u64>,
    /// Start, seconds since 1970; 0 where absent.
    pub start: Vec<i64>,
    /// End, seconds since 1970; 0 where absent.
    pub end: Vec<i64>,
    /// IPv6 addresses of this batch.
    pub v6: Vec<u128>,
    /// `(row, pkt-srcaddr, pkt-dstaddr)` of rows with [`marks::PKT`], in order of rows.
    pub packet_addrs: Vec<(u32, Ip, Ip)>,
    /// When all columns were asked for: for row r and column c of the layout, the byte range of the value in the
    /// unit's text, at `r * layout.len() + c`. Empty otherwise. An absent value is an empty range or `-`.
    pub cells: Vec<(u32, u32)>,
}

/// Dictionaries of one unit; indices stay valid over all its batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// `interface-id`s in order of first sight.
    pub interfaces: Vec<Box<str>>,
    /// `account-id`s in order of first sight.
    pub accounts: Vec<Box<str>>,
}

impl FlowBatch {
    /// Records in the batch.
    #[must_use]
    #[inline]
    pub fn rows(&self) -> usize {
        self.marks.len()
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.line.clear();
        self.marks.clear();
        self.interface.clear();
        self.account.clear();
        self.src.clear();
        self.dst.clear();
        self.ports.clear();
        self.protocol.clear();
        self.tcp_flags.clear();
        self.packets.clear();
        self.bytes.clear();
        self.start.clear();
        self.end.clear();
        self.v6.clear();
        self.packet_addrs.clear();
        self.cells.clear();
    }

    /// Source address of a row that has [`marks::ADDRS`].
    #[must_use]
    #[inline]
    pub fn src_ip(&self, row: usize) -> Ip {
        self.ip(row, self.src[row])
    }

    /// Destination address of a row that has [`marks::ADDRS`].
    #[must_use]
    #[inline]
    pub fn dst_ip(&self, row: usize) -> Ip {
        self.ip(row, self.dst[row])
    }

    fn ip(&self, row: usize, value: u32) -> Ip {
        if self.marks[row] & marks::V6 == 0 { Ip::v4(value) } else { Ip(self.v6[value as usize]) }
    }
}
