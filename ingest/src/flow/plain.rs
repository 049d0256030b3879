//! One line of a flow log, read field by field: slow, and obviously right.
//!
//! This is the meaning of a line. The fast path ([`super::fast`]) must give the same for every line it takes and hands
//! all others to this one; tests hold them against each other.

use super::batch::{FlowBatch, marks};
use super::layout::{Column, Hot, Layout};
use super::names::Interner;
use crate::ip::Ip;
use crate::time::EventTime;

/// A record whose end lies more than this many seconds after the moment it is read at is refused: its clock is wrong.
pub const FUTURE_SLACK: i64 = 600;

/// Above this a time is in milliseconds, whatever the documents say (a long-lived open-source reader guards against
/// it): as seconds it would lie after the year 5138.
pub(crate) const SECONDS_MAX: i64 = 99_999_999_999;

/// Why one line was set aside. The line goes to `rejects` with its position; the batch goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlowLineError {
    /// Too many or too few fields.
    #[error("line has {found} fields, its header names {expected}")]
    FieldCount {
        /// In the line.
        found: usize,
        /// In the header.
        expected: usize,
    },
    /// Longer than any record can be.
    #[error("line has {bytes} bytes, too long for a record")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not a whole number without sign.
    #[error("field `{field}` is not a number: {value:?}")]
    NotANumber {
        /// Its name, with underscores.
        field: &'static str,
        /// As it stands there, cut to 64 bytes.
        value: String,
    },
    /// A number its type cannot hold.
    #[error("field `{field}` is out of range: {value:?}")]
    OutOfRange {
        /// Its name, with underscores.
        field: &'static str,
        /// As it stands there, cut to 64 bytes.
        value: String,
    },
    /// Neither IPv4 nor IPv6.
    #[error("field `{field}` is not an address: {value:?}")]
    NotAnAddress {
        /// Its name, with underscores.
        field: &'static str,
        /// As it stands there, cut to 64 bytes.
        value: String,
    },
    /// A word that AWS does not document for `action` or `log_status`.
    #[error("field `{field}` has an unknown value: {value:?}")]
    UnknownWord {
        /// Its name, with underscores.
        field: &'static str,
        /// As it stands there, cut to 64 bytes.
        value: String,
    },
    /// NUL bytes or not UTF-8.
    #[error("field `{field}` is not text: {value:?}")]
    NotText {
        /// Its name, with underscores.
        field: &'static str,
        /// As it stands there, cut to 64 bytes.
        value: String,
    },
    /// Later than the moment of reading, by more than [`FUTURE_SLACK`].
    #[error("time {time} in field `{field}` is in the future")]
    Future {
        /// Its name, with underscores.
        field: &'static str,
        /// Seconds since 1970.
        time: i64,
    },
}

/// What is to be read, and up to when.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Also fill [`FlowBatch::cells`], for those who want every column.
    pub cells: bool,
    /// The moment of reading: a record whose `start` or `end` lies more than [`FUTURE_SLACK`] after it is a reject.
    pub not_after: EventTime,
}

impl Ask {
    /// Only what judging reads.
    #[must_use]
    pub fn hot(not_after: EventTime) -> Self {
        Self { cells: false, not_after }
    }

    /// Every column.
    #[must_use]
    pub fn all(not_after: EventTime) -> Self {
        Self { cells: true, not_after }
    }

    /// The last second a record may bear.
    pub(crate) fn limit(self) -> i64 {
        self.not_after.plus(FUTURE_SLACK).0
    }
}

/// One record, typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub marks: u16,
    pub interface: u32,
    pub account: u32,
    pub src: Ip,
    pub dst: Ip,
    pub pkt: Option<(Ip, Ip)>,
    pub src_port: u16,
    pub dst_port: u16,
    pub protocol: u8,
    pub tcp_flags: u8,
    pub packets: u64,
    pub bytes: u64,
    pub start: i64,
    pub end: i64,
}

impl Row {
    /// Appends the record to a batch.
    pub(crate) fn push(&self, line: u32, batch: &mut FlowBatch) {
        let mut bits = self.marks;
        let (mut src, mut dst) = (0, 0);
        if bits & marks::ADDRS != 0 {
            match (self.src.as_v4(), self.dst.as_v4()) {
                (Some(s), Some(d)) => (src, dst) = (s, d),
                _ => {
                    bits |= marks::V6;
                    src = batch.v6.len() as u32;
                    dst = src + 1;
                    batch.v6.extend([self.src.0, self.dst.0]);
                }
            }
        }
        if let Some((s, d)) = self.pkt {
            batch.packet_addrs.push((batch.marks.len() as u32, s, d));
        }
        batch.line.push(line);
        batch.marks.push(bits);
        batch.interface.push(self.interface);
        batch.account.push(self.account);
        batch.src.push(src);
        batch.dst.push(dst);
        batch.ports.push(u32::from(self.src_port) << 16 | u32::from(self.dst_port));
        batch.protocol.push(self.protocol);
        batch.tcp_flags.push(self.tcp_flags);
        batch.packets.push(self.packets);
        batch.bytes.push(self.bytes);
        batch.start.push(self.start);
        batch.end.push(self.end);
    }
}

/// Splits a line into its fields: byte ranges, on runs of spaces, a carriage return at the end dropped.
pub(crate) fn split(line: &[u8], fields: &mut Vec<(u32, u32)>) {
    fields.clear();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut from = 0;
    for at in memchr::memchr_iter(b' ', line).chain([line.len()]) {
        if at > from {
            fields.push((from as u32, at as u32));
        }
        from = at + 1;
    }
}

/// Reads one record.
///
/// # Errors
/// Says what is wrong with the first wrong field, in the order of the columns.
pub(crate) fn read(
    line: &[u8],
    fields: &[(u32, u32)],
    layout: &Layout,
    limit: i64,
    names: &mut Interner<'_>,
) -> Result<Row, FlowLineError> {
    if fields.len() != layout.len() {
        return Err(FlowLineError::FieldCount { found: fields.len(), expected: layout.len() });
    }
    let mut values = Values::default();
    for (at, (from, to)) in fields.iter().enumerate() {
        let (Some(hot), Some(Column::Known(field))) = (layout.hot_at(at), layout.columns().get(at)) else { continue };
        let value = &line[*from as usize..*to as usize];
        if value != b"-" {
            values.set(hot, field.column, value, limit)?;
        }
    }
    Ok(values.row(names))
}

/// True if a line is a record of this layout, whatever its time.
pub(crate) fn parses(line: &[u8], fields: &[(u32, u32)], layout: &Layout) -> bool {
    let (mut names, mut index) = Default::default();
    read(line, fields, layout, i64::MAX, &mut Interner { names: &mut names, index: &mut index }).is_ok()
}

/// The values of one record while its fields come in.
#[derive(Default)]
pub(crate) struct Values<'a> {
    pub src: Option<Ip>,
    pub dst: Option<Ip>,
    pub pkt_src: Option<Ip>,
    pub pkt_dst: Option<Ip>,
    pub src_port: Option<u16>,
    pub dst_port: Option<u16>,
    pub protocol: Option<u8>,
    pub tcp_flags: Option<u8>,
    pub packets: u64,
    pub bytes: u64,
    pub start: Option<i64>,
    pub end: Option<i64>,
    pub words: u16,
    pub interface: Option<&'a str>,
    pub account: Option<&'a str>,
}

impl<'a> Values<'a> {
    /// Takes one field's text, which is not `-`.
    pub(crate) fn set(&mut self, hot: Hot, field: &'static str, value: &'a [u8], limit: i64) -> Result<(), FlowLineError> {
        let unknown = || FlowLineError::UnknownWord { field, value: shown(value) };
        match hot {
            Hot::Version => drop(number(field, value, i32::MAX as u64)?),
            Hot::Account => self.account = Some(text(field, value)?).filter(|a| *a != "unknown"),
            Hot::Interface => self.interface = Some(text(field, value)?),
            Hot::Src => self.src = Some(address(field, value)?),
            Hot::Dst => self.dst = Some(address(field, value)?),
            Hot::PktSrc => self.pkt_src = Some(address(field, value)?),
            Hot::PktDst => self.pkt_dst = Some(address(field, value)?),
            Hot::SrcPort => self.src_port = Some(number(field, value, u64::from(u16::MAX))? as u16),
            Hot::DstPort => self.dst_port = Some(number(field, value, u64::from(u16::MAX))? as u16),
            Hot::Protocol => self.protocol = protocol(number(field, value, i32::MAX as u64)?),
            Hot::TcpFlags => self.tcp_flags = Some(number(field, value, u64::from(u16::MAX))? as u8),
            Hot::Packets => self.packets = number(field, value, i64::MAX as u64)?,
            Hot::Bytes => self.bytes = number(field, value, i64::MAX as u64)?,
            Hot::Start => self.start = Some(time(field, value, limit)?),
            Hot::End => self.end = Some(time(field, value, limit)?),
            Hot::Action => self.words |= action(value).ok_or_else(unknown)?,
            Hot::LogStatus => self.words |= log_status(value).ok_or_else(unknown)?,
            Hot::Direction => self.words |= direction(value),
        }
        Ok(())
    }

    /// The record, its names in the dictionary.
    pub(crate) fn row(&self, names: &mut Interner<'_>) -> Row {
        let mut bits = self.words;
        let mut mark = |there: bool, bit: u16| bits |= if there { bit } else { 0 };
        let addrs = self.src.zip(self.dst);
        mark(addrs.is_some(), marks::ADDRS);
        mark(self.src_port.is_some() && self.dst_port.is_some(), marks::PORTS);
        mark(self.protocol.is_some(), marks::PROTOCOL);
        mark(self.tcp_flags.is_some(), marks::TCP_FLAGS);
        mark(self.start.is_some() && self.end.is_some(), marks::TIMES);
        // Without the outer addresses nothing is judged, so the inner ones are of no use either.
        let pkt = addrs.and_then(|(src, dst)| {
            let inner = (self.pkt_src.unwrap_or(src), self.pkt_dst.unwrap_or(dst));
            (inner != (src, dst)).then_some(inner)
        });
        mark(pkt.is_some(), marks::PKT);
        let (src, dst) = addrs.unwrap_or_default();
        Row {
            marks: bits,
            account: names.account(self.account),
            interface: names.interface(self.interface),
            src,
            dst,
            pkt,
            src_port: self.src_port.unwrap_or(0),
            dst_port: self.dst_port.unwrap_or(0),
            protocol: self.protocol.unwrap_or(0),
            tcp_flags: self.tcp_flags.unwrap_or(0),
            packets: self.packets,
            bytes: self.bytes,
            start: self.start.unwrap_or(0),
            end: self.end.unwrap_or(0),
        }
    }
}

/// The mark of an action; nothing for `ACCEPT`.
pub(crate) fn action(value: &[u8]) -> Option<u16> {
    match value {
        b"ACCEPT" => Some(0),
        b"REJECT" => Some(marks::REJECT),
        _ => None,
    }
}

/// The mark of a log status; nothing for `OK`.
pub(crate) fn log_status(value: &[u8]) -> Option<u16> {
    match value {
        b"OK" => Some(0),
        b"NODATA" => Some(marks::NODATA),
        b"SKIPDATA" => Some(marks::SKIPDATA),
        _ => None,
    }
}

/// The mark of a direction. Metadata is best effort, so another word is as good as none.
pub(crate) fn direction(value: &[u8]) -> u16 {
    match value {
        b"egress" => marks::EGRESS,
        b"ingress" => marks::INGRESS,
        _ => 0,
    }
}

/// A protocol number. Over 255 there is none (seen in another reader's vectors): as if the field were absent.
pub(crate) fn protocol(value: u64) -> Option<u8> {
    u8::try_from(value).ok()
}

/// Seconds since 1970 of a `start` or `end`.
pub(crate) fn seconds(field: &'static str, value: u64, limit: i64) -> Result<i64, FlowLineError> {
    let out_of_range = || FlowLineError::OutOfRange { field, value: value.to_string() };
    let mut time = i64::try_from(value).map_err(|_| out_of_range())?;
    if time > SECONDS_MAX {
        time /= 1000;
    }
    if time > SECONDS_MAX {
        return Err(out_of_range());
    }
    if time > limit { Err(FlowLineError::Future { field, time }) } else { Ok(time) }
}

fn time(field: &'static str, value: &[u8], limit: i64) -> Result<i64, FlowLineError> {
    seconds(field, number(field, value, u64::MAX)?, limit)
}

pub(crate) fn number(field: &'static str, value: &[u8], max: u64) -> Result<u64, FlowLineError> {
    let out_of_range = || FlowLineError::OutOfRange { field, value: shown(value) };
    let mut n = 0u64;
    for byte in value {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(FlowLineError::NotANumber { field, value: shown(value) });
        }
        n = n.checked_mul(10).and_then(|n| n.checked_add(u64::from(digit))).ok_or_else(out_of_range)?;
    }
    if n > max { Err(out_of_range()) } else { Ok(n) }
}

pub(crate) fn address(field: &'static str, value: &[u8]) -> Result<Ip, FlowLineError> {
    // No address is longer than 45 characters.
    let text = std::str::from_utf8(&value[..value.len().min(64)]).ok();
    text.and_then(Ip::parse).ok_or_else(|| FlowLineError::NotAnAddress { field, value: shown(value) })
}

pub(crate) fn text<'a>(field: &'static str, value: &'a [u8]) -> Result<&'a str, FlowLineError> {
    match std::str::from_utf8(value) {
        Ok(text) if !value.contains(&0) => Ok(text),
        _ => Err(FlowLineError::NotText { field, value: shown(value) }),
    }
}

pub(crate) fn shown(value: &[u8]) -> String {
    String::from_utf8_lossy(&value[..value.len().min(64)]).into_owned()
}
