//! Blocks: one account's hour as some units told it, in compact bytes. What is kept in memory, spilled and stored.
//!
//! Layout, integers LEB128 unless said: texts (count, then length and bytes each), units (count, then 16 bytes each),
//! (eni, region) pairs, conversations in [`Conversation::order`], calls (see [`crate::calls`]). A conversation says
//! the interface, flow log and server only when they differ from the one before, and its numbers behind a word that tells their
//! lengths ([`RowBytes::words`]): a day has millions of them. Frames around a block carry its
//! hash; a block that does not decode is a broken state file, never bad input.

use flowtrail_ingest::leb128::{self, put};
use flowtrail_ingest::{EventTime, Hour, Ip, UnitId};

use crate::calls::{self, CallGroup, Forms, Locals, Numbers};
use crate::hour::{AccountHour, ApiRow, Conversation, NONE, Seen, Traffic, UnitRef, place_of};

/// One account and hour, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Account id as the records have it.
    pub account: String,
    /// The hour.
    pub hour: Hour,
    /// The encoded conversations and calls.
    pub bytes: Vec<u8>,
}

/// A stored block cannot be read: the state is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a block of account {account}, hour {hour} does not decode at byte {at}")]
pub struct BlockError {
    /// Account.
    pub account: String,
    /// Hour.
    pub hour: Hour,
    /// Where.
    pub at: usize,
}

/// A conversation on its way into a block; indices are those of the writer's dictionary.
#[derive(Debug)]
pub struct Row<'a> {
    /// ENI.
    pub eni: u32,
    /// Flow-log id, or [`NONE`].
    pub flow_log: u32,
    /// Region of the key, or [`NONE`].
    pub region: u32,
    /// REJECT.
    pub rejected: bool,
    /// IANA protocol.
    pub protocol: u8,
    /// See [`Conversation::settled`].
    pub settled: bool,
    /// Client.
    pub client: Ip,
    /// Server.
    pub server: Ip,
    /// Client's port.
    pub client_port: u16,
    /// Server's port.
    pub server_port: u16,
    /// See [`Conversation::packet_addrs`].
    pub packet_addrs: Option<(Ip, Ip)>,
    /// Client to server.
    pub ahead: Traffic,
    /// Server to client.
    pub back: Traffic,
    /// Seconds since 1970.
    pub first: u32,
    /// Seconds since 1970.
    pub last: u32,
    /// See [`Conversation::ours_client`].
    pub ours_client: bool,
    /// See [`Conversation::ours_server`].
    pub ours_server: bool,
    /// (index into the writer's units, first line).
    pub seen: &'a [(u32, u32)],
}

const ENI: u8 = 1;
const REJECTED: u8 = 1 << 1;
const SETTLED: u8 = 1 << 2;
const V6: u8 = 1 << 3;
const PACKET_ADDRS: u8 = 1 << 4;
const OURS_CLIENT: u8 = 1 << 5;
const OURS_SERVER: u8 = 1 << 6;
const SERVER: u8 = 1 << 7;

/// What block after block is written with.
#[derive(Debug, Default)]
pub struct Scratch {
    /// For each text of the writer's dictionary its number in the block at hand, or [`NONE`]. All are [`NONE`] between blocks.
    string_of: Vec<u32>,
    /// The same for units.
    unit_of: Vec<u32>,
    /// The same for who and what of calls.
    who_and_what: [Locals; 2],
    /// The conversations of the block at hand are in its first bytes; what comes after is room.
    rows: Vec<u8>,
}

/// What a conversation is written to and read from. None takes more than 212 bytes: six integers of at most 10, nine of 8, four
/// addresses of 16, and 16 single ones. So its places are told by eight bits, and 16 bytes can be touched at any of them
/// without a look at bounds.
const ROW_ROOM: usize = 256 + 16;

/// Writes one block. Rows come in [`Conversation::order`].
pub struct BlockWriter<'a> {
    strings: &'a [Box<str>],
    units: &'a [UnitId],
    scratch: &'a mut Scratch,
    local_strings: Vec<u32>,
    local_units: Vec<u32>,
    regions: Vec<(u32, u32)>,
    /// Bytes of `scratch.rows` that are in use.
    at: usize,
    count: u64,
    previous: (u32, u32),
    server: Ip,
    /// The encoded calls.
    calls: Vec<u8>,
}

impl<'a> BlockWriter<'a> {
    /// A writer over a dictionary of texts and units that the rows' indices point into.
    #[must_use]
    pub fn new(strings: &'a [Box<str>], units: &'a [UnitId], scratch: &'a mut Scratch) -> Self {
        scratch.string_of.resize(strings.len(), NONE);
        scratch.unit_of.resize(units.len(), NONE);
        Self {
            strings,
            units,
            scratch,
            local_strings: Vec::new(),
            local_units: Vec::new(),
            regions: Vec::new(),
            at: 0,
            count: 0,
            previous: (NONE, NONE),
            server: Ip(0),
            calls: Vec::new(),
        }
    }

    fn string(&mut self, index: u32) -> u32 {
        if index == NONE {
            return NONE;
        }
        let Some(local) = self.scratch.string_of.get_mut(index as usize) else { return NONE };
        if *local == NONE {
            *local = self.local_strings.len() as u32;
            self.local_strings.push(index);
        }
        *local
    }

    #[inline]
    fn unit(&mut self, index: u32) -> u32 {
        let Some(local) = self.scratch.unit_of.get_mut(index as usize) else { return NONE };
        if *local == NONE {
            *local = self.local_units.len() as u32;
            self.local_units.push(index);
        }
        *local
    }

    /// Adds a conversation.
    #[inline]
    pub fn conversation(&mut self, row: &Row<'_>) {
        let new_eni = self.count == 0 || self.previous != (row.eni, row.flow_log);
        let new_server = new_eni || self.server != row.server;
        let v6 = !row.client.is_v4() || !row.server.is_v4();
        let names = if new_eni { self.name(row) } else { (0, 0) };
        let mut units = [0; 3];
        for (local, seen) in units.iter_mut().zip(row.seen) {
            *local = self.unit(seen.0);
        }
        let rows = &mut self.scratch.rows;
        if rows.len() < self.at + ROW_ROOM {
            rows.resize(rows.len() * 2 + ROW_ROOM, 0);
        }
        let Some(bytes) = rows.get_mut(self.at..).and_then(<[u8]>::first_chunk_mut) else { return };
        let mut out = RowBytes { bytes, at: 0 };
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        out.byte(
            flag(new_eni, ENI)
                | flag(row.rejected, REJECTED)
                | flag(row.settled, SETTLED)
                | flag(v6, V6)
                | flag(row.packet_addrs.is_some(), PACKET_ADDRS)
                | flag(row.ours_client, OURS_CLIENT)
                | flag(row.ours_server, OURS_SERVER)
                | flag(new_server, SERVER),
        );
        if new_eni {
            out.int(u64::from(names.0));
            out.int(u64::from(names.1.wrapping_add(1)));
        }
        if new_server {
            out.ip(row.server, v6);
        }
        out.ip(row.client, v6);
        out.array(row.server_port.to_le_bytes());
        if !row.settled {
            out.array(row.client_port.to_le_bytes());
        }
        out.byte(row.protocol);
        if let Some((a, b)) = row.packet_addrs {
            out.ip(a, true);
            out.ip(b, true);
        }
        out.array(row.first.to_le_bytes());
        let (ahead, back, seen) = (&row.ahead, &row.back, row.seen.len().min(units.len()));
        out.words(
            [
                u64::from(ahead.flows),
                ahead.packets,
                ahead.bytes,
                u64::from(back.flows),
                back.packets,
                back.bytes,
                u64::from(row.last.saturating_sub(row.first)),
                u64::from(units[0]),
                row.seen.first().map_or(0, |s| u64::from(s.1)),
            ],
            seen as u32,
            [ahead.flags, back.flags],
        );
        for (unit, seen) in units.iter().zip(row.seen).skip(1) {
            out.int(u64::from(*unit));
            out.int(u64::from(seen.1));
        }
        self.at += usize::from(out.at);
        self.server = row.server;
        self.count += 1;
    }

    /// The local indices of a new interface and flow log; an absent flow log has [`NONE`].
    #[cold]
    fn name(&mut self, row: &Row<'_>) -> (u32, u32) {
        let (eni, flow_log, region) = (self.string(row.eni), self.string(row.flow_log), self.string(row.region));
        if region != NONE {
            self.regions.push((eni, region));
        }
        self.previous = (row.eni, row.flow_log);
        (eni, flow_log)
    }

    /// Adds the API calls, once.
    pub(crate) fn calls(&mut self, group: &CallGroup, forms: &Forms) {
        let mut calls = Vec::new();
        let mut locals = std::mem::take(&mut self.scratch.who_and_what);
        group.put(&mut calls, forms, &mut locals, self);
        self.scratch.who_and_what = locals;
        self.calls = calls;
    }

    /// The finished block.
    #[must_use]
    pub fn finish(mut self, account: &str, hour: Hour) -> Block {
        let texts: usize = self.local_strings.iter().filter_map(|i| self.strings.get(*i as usize)).map(|s| s.len() + 3).sum();
        let mut bytes = Vec::with_capacity(self.at + texts + self.local_units.len() * 16 + self.regions.len() * 6 + self.calls.len() + 64);
        put(&mut bytes, self.local_strings.len() as u64);
        for &index in &self.local_strings {
            self.scratch.string_of[index as usize] = NONE;
            let text = self.strings.get(index as usize).map_or("", |s| s);
            put(&mut bytes, text.len() as u64);
            bytes.extend_from_slice(text.as_bytes());
        }
        put(&mut bytes, self.local_units.len() as u64);
        for &index in &self.local_units {
            self.scratch.unit_of[index as usize] = NONE;
            bytes.extend_from_slice(&self.units[index as usize].0.to_le_bytes());
        }
        self.regions.sort_unstable();
        self.regions.dedup();
        put(&mut bytes, self.regions.len() as u64);
        for (eni, region) in &self.regions {
            put(&mut bytes, u64::from(*eni));
            put(&mut bytes, u64::from(*region));
        }
        put(&mut bytes, self.count);
        bytes.extend_from_slice(&self.scratch.rows[..self.at]);
        bytes.extend_from_slice(&self.calls);
        Block { account: account.to_owned(), hour, bytes }
    }
}

impl Numbers for BlockWriter<'_> {
    fn unit(&mut self, index: u32) -> u32 {
        Self::unit(self, index)
    }

    fn text(&mut self, index: u32) -> u32 {
        self.string(index)
    }
}

impl ApiRow {
    /// Every field that is an index of a text, but for an odd [`Self::event_id`].
    pub fn texts_mut(&mut self) -> [&mut u32; 12] {
        [
            &mut self.principal,
            &mut self.function,
            &mut self.service,
            &mut self.action,
            &mut self.region,
            &mut self.source,
            &mut self.access_key,
            &mut self.error,
            &mut self.step,
            &mut self.target,
            &mut self.detail,
            &mut self.replaces,
        ]
    }
}

/// The bytes of one conversation in the making.
struct RowBytes<'a> {
    bytes: &'a mut [u8; ROW_ROOM],
    at: u8,
}

impl RowBytes<'_> {
    #[inline]
    fn array<const N: usize>(&mut self, bytes: [u8; N]) {
        const { assert!(N <= 16) };
        let at = usize::from(self.at);
        self.bytes[at..at + N].copy_from_slice(&bytes);
        self.at = self.at.wrapping_add(N as u8);
    }
    /// Takes back what was written beyond its end.
    #[inline]
    fn back(&mut self, bytes: u8) {
        self.at = self.at.wrapping_sub(bytes);
    }
    #[inline]
    fn byte(&mut self, byte: u8) {
        self.array([byte]);
    }
    #[inline]
    fn ip(&mut self, ip: Ip, wide: bool) {
        if wide { self.array(ip.0.to_le_bytes()) } else { self.array((ip.0 as u32).to_le_bytes()) }
    }
    /// The numbers of a conversation, TCP flags that are not zero, and before them a word: three bits for the length of each
    /// number, two for `count`, and one for each flags byte that is there. How long a number is cannot be foretold, so all
    /// eight bytes are written whatever it is.
    #[inline]
    fn words(&mut self, values: [u64; WORDS], count: u32, flags: [u8; 2]) {
        let start = self.at;
        self.array([0; 4]);
        let mut lengths = count << COUNT_AT;
        for (n, value) in values.into_iter().enumerate() {
            let code = ((71 - value.leading_zeros()) / 8).min(7);
            lengths |= code << (3 * n);
            self.array(value.to_le_bytes());
            self.back(8 - width_of(code));
        }
        for (n, flags) in flags.into_iter().enumerate() {
            self.byte(flags);
            self.back(u8::from(flags == 0));
            lengths |= u32::from(flags != 0) << (FLAGS_AT + n);
        }
        let end = std::mem::replace(&mut self.at, start);
        self.array(lengths.to_le_bytes());
        self.at = end;
    }
    /// As [`put`]. How long an integer is cannot be foretold, so all eight bytes are written whatever it is.
    #[inline]
    fn int(&mut self, mut value: u64) {
        if value >> 56 == 0 {
            let (packed, length) = pack(value);
            self.array(packed.to_le_bytes());
            self.back(8 - length as u8);
            return;
        }
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }
}

/// Numbers of a conversation that [`RowBytes::words`] writes.
const WORDS: usize = 9;
/// Where in their word of lengths the count begins, and the bits of the flags.
const COUNT_AT: usize = 3 * WORDS;
const FLAGS_AT: usize = COUNT_AT + 2;

/// Bytes of a number whose length is told by three bits: as they say, but seven are eight.
#[inline]
fn width_of(code: u32) -> u8 {
    (code + (code + 1) / 8) as u8
}

/// Of eight bytes those that belong to a number, by its three bits.
const KEEP: [u64; 8] = [0, 0xff, 0xffff, 0xff_ffff, 0xffff_ffff, 0xff_ffff_ffff, 0xffff_ffff_ffff, u64::MAX];

/// LEB128 of an integer below 2^56, as one little-endian word, and how many of its bytes count.
#[inline]
fn pack(value: u64) -> (u64, usize) {
    let length = (63 - (value | 1).leading_zeros()) / 7 + 1;
    // Halves, quarters and eighths move apart until each byte has seven bits.
    let halves = (value & 0x0fff_ffff) | (value & 0x00ff_ffff_f000_0000) << 4;
    let quarters = (halves & 0x0000_3fff_0000_3fff) | (halves & 0x0fff_c000_0fff_c000) << 2;
    let bytes = (quarters & 0x007f_007f_007f_007f) | (quarters & 0x3f80_3f80_3f80_3f80) << 1;
    let more = 0x0080_8080_8080_8080 & ((1 << (8 * (length - 1))) - 1);
    (bytes | more, length as usize)
}

/// The integer that begins a little-endian word in LEB128, and how many bytes it has; `None` if it has more than eight.
#[inline]
fn unpack(word: u64) -> Option<(u64, usize)> {
    let ends = !word & 0x8080_8080_8080_8080;
    if ends == 0 {
        return None;
    }
    let length = ends.trailing_zeros() / 8 + 1;
    let bytes = word & (u64::MAX >> (64 - 8 * length)) & 0x7f7f_7f7f_7f7f_7f7f;
    let quarters = (bytes & 0x007f_007f_007f_007f) | (bytes & 0x7f00_7f00_7f00_7f00) >> 1;
    let halves = (quarters & 0x0000_3fff_0000_3fff) | (quarters & 0x3fff_0000_3fff_0000) >> 2;
    Some(((halves & 0x0fff_ffff) | (halves & 0x0fff_ffff_0000_0000) >> 4, length as usize))
}

/// A row on its way out of a block. Its bytes are more than any row has, so that few bounds need a look.
struct RowReader<'a> {
    bytes: &'a [u8; ROW_ROOM],
    at: u8,
}

impl RowReader<'_> {
    #[inline]
    fn array<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(N <= 16) };
        let at = usize::from(self.at);
        self.at = self.at.wrapping_add(N as u8);
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.bytes[at..at + N]);
        bytes
    }
    #[inline]
    fn ip(&mut self, wide: bool) -> Ip {
        if wide { Ip(u128::from_le_bytes(self.array())) } else { Ip::v4(u32::from_le_bytes(self.array())) }
    }
    fn int(&mut self) -> Option<u64> {
        let mut reader = Reader { bytes: self.bytes, at: usize::from(self.at) };
        let value = reader.int()?;
        self.at = u8::try_from(reader.at).ok()?;
        Some(value)
    }
    fn index(&mut self) -> Option<u32> {
        u32::try_from(self.int()?).ok()
    }
    /// What [`RowBytes::words`] wrote.
    #[inline(always)]
    fn words(&mut self) -> ([u64; WORDS], u32, [u8; 2]) {
        let lengths = u32::from_le_bytes(self.array());
        let mut values = [0; WORDS];
        for (n, value) in values.iter_mut().enumerate() {
            let code = lengths >> (3 * n) & 7;
            *value = u64::from_le_bytes(self.array()) & KEEP[code as usize];
            self.at = self.at.wrapping_sub(8 - width_of(code));
        }
        let mut flags = [0; 2];
        for (n, flags) in flags.iter_mut().enumerate() {
            let there = (lengths >> (FLAGS_AT + n) & 1) as u8;
            let [byte] = self.array();
            *flags = byte * there;
            self.at = self.at.wrapping_sub(1 - there);
        }
        (values, lengths >> COUNT_AT & 3, flags)
    }
}

/// A place in an encoded block.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    #[inline]
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let slice = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(slice)
    }
    #[inline]
    pub(crate) fn int(&mut self) -> Option<u64> {
        let word = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk).map(|b| u64::from_le_bytes(*b));
        if let Some((value, length)) = word.and_then(unpack) {
            self.at += length;
            return Some(value);
        }
        self.long_int()
    }
    /// The plain way: for integers of more than eight bytes, and near the end.
    #[cold]
    fn long_int(&mut self) -> Option<u64> {
        let (value, length) = leb128::take(self.bytes.get(self.at..)?)?;
        self.at += length;
        Some(value)
    }
    #[inline]
    pub(crate) fn index(&mut self) -> Option<u32> {
        u32::try_from(self.int()?).ok()
    }
    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    /// A count of things that take at least one byte each: bounded by what is left, so that it may size an allocation.
    pub(crate) fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.int()?).ok()?;
        (count <= self.bytes.len() - self.at).then_some(count)
    }
}

/// A block as it lies in memory or in a run file.
#[derive(Copy, Clone, Debug)]
pub struct BlockView<'a> {
    /// Account.
    pub account: &'a str,
    /// Hour.
    pub hour: Hour,
    /// The encoded conversations and calls.
    pub bytes: &'a [u8],
    /// It came with this call (of `replay`).
    pub new: bool,
}

impl Block {
    /// The block as a view.
    #[must_use]
    pub fn view(&self, new: bool) -> BlockView<'_> {
        BlockView { account: &self.account, hour: self.hour, bytes: &self.bytes, new }
    }
}

/// Decodes one block. Units have their identity only. A new block marks its flows and calls as having come with this call.
///
/// # Errors
/// When the bytes are not those of a block.
pub fn decode(block: BlockView<'_>) -> Result<AccountHour, BlockError> {
    decode_into(block, Vec::new())
}

/// [`decode`], with the memory of an empty `spare` for the conversations.
///
/// # Errors
/// When the bytes are not those of a block.
pub fn decode_into(block: BlockView<'_>, spare: Vec<Conversation>) -> Result<AccountHour, BlockError> {
    let mut reader = Reader { bytes: block.bytes, at: 0 };
    decode_inner(block, &mut reader, spare).ok_or_else(|| BlockError { account: block.account.to_owned(), hour: block.hour, at: reader.at })
}

fn decode_inner(block: BlockView<'_>, r: &mut Reader<'_>, mut conversations: Vec<Conversation>) -> Option<AccountHour> {
    let new = block.new;
    let count = r.count()?;
    let mut texts: Vec<&str> = Vec::with_capacity(count);
    for _ in 0..count {
        let length = r.count()?;
        texts.push(std::str::from_utf8(r.take(length)?).ok()?);
    }
    // Sort the dictionary, so that the order of indices is the order of texts.
    let mut order: Vec<u32> = (0..count as u32).collect();
    order.sort_unstable_by_key(|i| texts[*i as usize]);
    let mut sorted_at = vec![0u32; count];
    for (new_index, old) in order.iter().enumerate() {
        sorted_at[*old as usize] = new_index as u32;
    }
    let strings: Vec<Box<str>> = order.iter().map(|i| texts[*i as usize].into()).collect();
    let text = |index: u32| sorted_at.get(index as usize).copied();

    let count = r.count()?;
    let mut ids: Vec<UnitId> = Vec::with_capacity(count);
    for _ in 0..count {
        ids.push(UnitId(u128::from_le_bytes(r.array()?)));
    }
    let mut units: Vec<UnitRef> = ids.iter().map(|id| UnitRef { id: *id, ..UnitRef::default() }).collect();
    units.sort_unstable();
    units.dedup();
    let unit_at: Vec<u32> = ids.iter().map(|id| units.binary_search_by_key(id, |u| u.id).unwrap_or(0) as u32).collect();

    let count = r.count()?;
    let mut eni_region = Vec::with_capacity(count);
    for _ in 0..count {
        eni_region.push((text(r.index()?)?, text(r.index()?)?));
    }
    eni_region.sort_unstable();

    let count = r.count()?;
    if conversations.capacity() < count {
        // Not grown: that would copy what was in it.
        drop(conversations);
        conversations = Vec::with_capacity(count);
    }
    let mut pairs: Vec<(Ip, Ip)> = Vec::new();
    let (mut eni, mut flow_log, mut server) = (NONE, NONE, Ip(0));
    for _ in 0..count {
        // A whole row lies in so many bytes; near the end in a copy with nothing behind it.
        let left = r.bytes.get(r.at..)?;
        let mut copy;
        let bytes = match left.first_chunk() {
            Some(bytes) => bytes,
            None => {
                copy = [0; ROW_ROOM];
                copy[..left.len()].copy_from_slice(left);
                &copy
            }
        };
        let mut row = RowReader { bytes, at: 0 };
        let [flags] = row.array();
        if flags & ENI != 0 {
            eni = text(row.index()?)?;
            flow_log = match row.int()? {
                0 => NONE,
                index => text(u32::try_from(index - 1).ok()?)?,
            };
        }
        let wide = flags & V6 != 0;
        if flags & SERVER != 0 {
            server = row.ip(wide);
        }
        let client = row.ip(wide);
        let server_port = u16::from_le_bytes(row.array());
        let settled = flags & SETTLED != 0;
        let client_port = if settled { 0 } else { u16::from_le_bytes(row.array()) };
        let [protocol] = row.array();
        let packet_addrs = if flags & PACKET_ADDRS == 0 {
            0
        } else {
            pairs.push((row.ip(true), row.ip(true)));
            pairs.len() as u32
        };
        let first = u32::from_le_bytes(row.array());
        let (values, count, [ahead_flags, back_flags]) = row.words();
        let [ahead_flows, ahead_packets, ahead_bytes, back_flows, back_packets, back_bytes, span, unit, line] = values;
        let short = |value: u64| u32::try_from(value).ok();
        let ahead = Traffic { flows: short(ahead_flows)?, flags: ahead_flags, packets: ahead_packets, bytes: ahead_bytes };
        let back = Traffic { flows: short(back_flows)?, flags: back_flags, packets: back_packets, bytes: back_bytes };
        let last = u64::from(first).checked_add(span)?;
        let mut seen = Seen::default();
        if count > 0 {
            seen = Seen::at(*unit_at.get(unit as usize)?, short(line)?);
        }
        for _ in 1..count {
            seen.add(*unit_at.get(row.index()? as usize)?, row.index()?);
        }
        if usize::from(row.at) > left.len() {
            return None;
        }
        r.at += usize::from(row.at);
        conversations.push(Conversation {
            eni,
            flow_log,
            rejected: flags & REJECTED != 0,
            protocol,
            settled,
            client,
            server,
            client_port,
            server_port,
            packet_addrs,
            ahead,
            back,
            first: EventTime(i64::from(first)),
            last: EventTime(i64::try_from(last).ok()?),
            ours_client: flags & OURS_CLIENT != 0,
            ours_server: flags & OURS_SERVER != 0,
            new_flows: if new { ahead.flows.saturating_add(back.flows) } else { 0 },
            seen,
        });
    }
    let mut packet_addrs = pairs.clone();
    packet_addrs.sort_unstable();
    packet_addrs.dedup();
    if !pairs.is_empty() {
        for conversation in conversations.iter_mut().filter(|c| c.packet_addrs != 0) {
            conversation.packet_addrs = pairs.get(conversation.packet_addrs as usize - 1).map_or(0, |p| place_of(&packet_addrs, p));
        }
    }
    let calls = calls::read(r, block.hour, new, &text, &unit_at)?;
    if r.at != r.bytes.len() {
        return None;
    }
    Some(AccountHour {
        account: block.account.to_owned(),
        hour: block.hour,
        eni_region,
        strings,
        units,
        packet_addrs,
        conversations,
        calls,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_behind_their_lengths_come_back(
            bits in prop::array::uniform9(0..=64u32), any in prop::array::uniform9(any::<u64>()), count in 0..4u32, flags in any::<[u8; 2]>(), some in any::<bool>()
        ) {
            let mut values = [0; WORDS];
            for (value, (bits, any)) in values.iter_mut().zip(bits.into_iter().zip(any)) {
                *value = if bits == 0 { 0 } else { any >> (64 - bits) };
            }
            let flags = if some { flags } else { [0; 2] };
            let mut bytes = [0x55; ROW_ROOM];
            let mut row = RowBytes { bytes: &mut bytes, at: 0 };
            row.words(values, count, flags);
            let length = row.at;
            prop_assert!(usize::from(length) <= 4 + 8 * WORDS + 2);
            let mut reader = RowReader { bytes: &bytes, at: 0 };
            prop_assert_eq!((reader.words(), reader.at), ((values, count, flags), length));
        }

        #[test]
        fn integers_in_words_are_those_byte_by_byte(bits in 0..=64u32, any in any::<u64>(), after in any::<u64>()) {
            let value = if bits == 0 { 0 } else { any >> (64 - bits) };
            let (mut plain, mut bytes) = (Vec::new(), [0; ROW_ROOM]);
            put(&mut plain, value);
            let mut row = RowBytes { bytes: &mut bytes, at: 0 };
            row.int(value);
            let length = usize::from(row.at);
            prop_assert_eq!(&bytes[..length], plain.as_slice());
            plain.extend_from_slice(&after.to_le_bytes());
            let mut reader = Reader { bytes: &plain, at: 0 };
            prop_assert_eq!((reader.int(), reader.at), (Some(value), length));
            reader.at = 0;
            prop_assert_eq!((reader.long_int(), reader.at), (Some(value), length));
        }
    }
}
