//! Flow records of one object: runs of one interface, liked peers, heavy-tailed sizes.

use std::net::Ipv4Addr;

use crate::random::Random;
use crate::world::{Interface, World};

/// Which flow logs to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The default format of version 2: several records a conversation, one interface after another; gzip makes a seventh of it.
    Plain,
    /// Many short connections with flags and direction, as real networks have: both directions side by side.
    Traffic,
    /// All 29 fields of versions 2 to 5 in one custom format.
    Wide,
}

/// One flow record, before it is written down.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Whose record it is.
    pub interface: &'a Interface,
    /// Sender.
    pub source: Ipv4Addr,
    /// Receiver.
    pub destination: Ipv4Addr,
    /// Sender's port.
    pub source_port: u16,
    /// Receiver's port.
    pub destination_port: u16,
    /// IANA number.
    pub protocol: u8,
    /// Packets of this direction.
    pub packets: u64,
    /// Bytes of this direction.
    pub bytes: u64,
    /// Seconds since 1970.
    pub start: i64,
    /// Seconds since 1970.
    pub end: i64,
    /// ACCEPT, else REJECT.
    pub accepted: bool,
    /// OR of the flags of all packets.
    pub tcp_flags: u8,
    /// Leaves the interface.
    pub egress: bool,
    /// A line without traffic (NODATA): only interface, account and times count.
    pub nodata: bool,
}

/// What the records of one object add up to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    /// Lines, NODATA among them.
    pub records: u64,
    /// NODATA lines.
    pub nodata: u64,
    /// REJECT records.
    pub rejected: u64,
    /// Over all records.
    pub packets: u64,
    /// Over all records.
    pub bytes: u64,
    /// Distinct (interface, addresses, serving port, protocol, action), object by object.
    pub conversations: u64,
}

impl Sums {
    /// Adds those of another object.
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.nodata += other.nodata;
        self.rejected += other.rejected;
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.conversations += other.conversations;
    }
}

/// Hands `count` records of one object to `each`: those of `account` that end in the five minutes from `window` (seconds since 1970) on.
pub fn object_records<'a>(
    world: &'a World,
    shape: Shape,
    account: usize,
    window: i64,
    count: u64,
    random: &mut Random,
    each: &mut dyn FnMut(&Record<'a>),
) -> Sums {
    let mut sums = Sums::default();
    let mut seen = hashbrown::HashSet::new();
    let mut left = count;
    while left > 0 {
        let interface = world.busy_interface(account, random);
        let mut run = random.run_length(if shape == Shape::Traffic { 12.0 } else { 20.0 }).min(left as usize);
        left -= run as u64;
        // An interface's records of one aggregation interval share its edges, give or take a few seconds.
        let interval_end = window + random.below(300) as i64;
        let interval = 50 + random.below(10) as i64;
        while run > 0 {
            let mut emit = |record: Record<'a>, serving: (Ipv4Addr, u16)| {
                sums.records += 1;
                if record.nodata {
                    sums.nodata += 1;
                } else {
                    sums.rejected += u64::from(!record.accepted);
                    sums.packets += record.packets;
                    sums.bytes += record.bytes;
                    seen.insert((interface.index as u32, serving.0, serving.1, record.protocol, record.accepted));
                }
                each(&record);
            };
            let jitter = if random.per_mille(500) { random.below(6) as i64 } else { 0 };
            let blank = Record {
                interface,
                source: interface.ip,
                destination: interface.ip,
                source_port: 0,
                destination_port: 0,
                protocol: 0,
                packets: 0,
                bytes: 0,
                start: interval_end - interval,
                end: (interval_end - jitter).max(window),
                accepted: true,
                tcp_flags: 0,
                egress: true,
                nodata: false,
            };
            run -= 1;
            if random.per_mille(1) {
                emit(Record { nodata: true, ..blank }, (Ipv4Addr::UNSPECIFIED, 0));
                continue;
            }
            // An answer follows most calls, so this makes 3 of 100 lines.
            if random.per_mille(if shape == Shape::Traffic { 60 } else { 48 }) {
                // Somebody on the internet knocks, and the security group refuses.
                let source = Ipv4Addr::from(0x2d00_0000 + random.below(0x00ff_ffff) as u32);
                let port = [22, 23, 80, 445, 3389, 8080, 6379, 5900][random.below(8) as usize];
                let source_port = 32768 + random.below(28000) as u16;
                emit(
                    Record {
                        source,
                        source_port,
                        destination_port: port,
                        protocol: 6,
                        packets: 1,
                        bytes: 40 + 4 * random.below(6),
                        accepted: false,
                        tcp_flags: 2,
                        egress: false,
                        ..blank
                    },
                    (source, port),
                );
                continue;
            }
            let conversation = world.conversation(interface, random);
            let local_port = 1024 + random.below(64_000) as u16;
            let packets = random.heavy(if shape == Shape::Traffic { 3 } else { 1 }, 1.1);
            let mean_size = if random.per_mille(300) { 52 + random.below(40) } else { 60 + random.below(1300) };
            let (syn, last) = if shape == Shape::Traffic { (2, 1) } else { (2 * random.below(2) as u8, random.below(2) as u8) };
            let tcp = conversation.protocol == 6;
            let out = Record {
                destination: conversation.peer,
                source_port: local_port,
                destination_port: conversation.port,
                protocol: conversation.protocol,
                packets,
                bytes: packets * mean_size,
                tcp_flags: if tcp { syn | last } else { 0 },
                ..blank
            };
            let back = Record {
                source: conversation.peer,
                destination: interface.ip,
                source_port: conversation.port,
                destination_port: local_port,
                packets: packets.max(2) - packets / 3,
                bytes: (packets.max(2) - packets / 3) * 60,
                tcp_flags: if tcp { (syn * 9) | last } else { 0 },
                egress: false,
                ..out
            };
            let serving = (conversation.peer, conversation.port);
            emit(out, serving);
            // The answer is the next line of the run in real logs: always where connections are short, mostly elsewhere.
            if run > 0 && (shape == Shape::Traffic || random.per_mille(600)) {
                run -= 1;
                emit(back, serving);
            }
        }
    }
    sums.conversations = seen.len() as u64;
    sums
}
