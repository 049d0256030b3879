//! One line of a flow log, and the three formats in which the organisation's accounts write it.

/// How an account's flow log is set up.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// The 14 fields of version 2.
    Default,
    /// All 29 fields of version 5.
    Wide,
    /// A selection in an order of its own.
    Custom,
}

const DEFAULT: &str = "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status";
const WIDE: &str = "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status \
                    vpc-id subnet-id instance-id tcp-flags type pkt-srcaddr pkt-dstaddr region az-id sublocation-type sublocation-id \
                    pkt-src-aws-service pkt-dst-aws-service flow-direction traffic-path";
const CUSTOM: &str = "interface-id vpc-id flow-direction srcaddr srcport dstaddr dstport protocol tcp-flags start end packets bytes \
                      action log-status account-id version";

impl Layout {
    pub(crate) fn header(self) -> &'static str {
        match self {
            Self::Default => DEFAULT,
            Self::Wide => WIDE,
            Self::Custom => CUSTOM,
        }
    }
}

/// What a line says of its interval.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    NoData,
    SkipData,
}

/// One flow record, in one direction at one interface.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Index into the world's interfaces.
    pub(crate) eni: u32,
    pub(crate) status: Status,
    pub(crate) src: u32,
    pub(crate) dst: u32,
    /// Addresses inside the packet; different from the outer ones only at a NAT gateway.
    pub(crate) packet_src: u32,
    pub(crate) packet_dst: u32,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) protocol: u8,
    pub(crate) flags: u8,
    pub(crate) rejected: bool,
    pub(crate) egress: bool,
    /// `traffic-path` of egress.
    pub(crate) path: u8,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) start: i64,
    pub(crate) end: i64,
}

/// What a line says of its interface.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) account: &'a str,
    pub(crate) region: &'a str,
    pub(crate) vpc: &'a str,
    pub(crate) subnet: &'a str,
    pub(crate) zone: &'a str,
    pub(crate) instance: &'a str,
    pub(crate) eni: &'a str,
    /// First and last address of the region's S3.
    pub(crate) s3: (u32, u32),
}

/// Appends one line.
pub(crate) fn write_row(out: &mut Vec<u8>, layout: Layout, place: &Place<'_>, row: &Row) {
    let mut line = Line { out };
    let ok = row.status == Status::Ok;
    let word = match row.status {
        Status::Ok => "OK",
        Status::NoData => "NODATA",
        Status::SkipData => "SKIPDATA",
    };
    let action = match (ok, row.rejected) {
        (false, _) => "-",
        (true, true) => "REJECT",
        (true, false) => "ACCEPT",
    };
    let direction = if row.egress { "egress" } else { "ingress" };
    match layout {
        Layout::Default | Layout::Wide => {
            line.number(if layout == Layout::Wide { 5 } else { 2 });
            line.text(place.account);
            line.text(place.eni);
            line.address(ok, row.src);
            line.address(ok, row.dst);
            for value in [u64::from(row.src_port), u64::from(row.dst_port), u64::from(row.protocol), row.packets, row.bytes] {
                line.known(ok, value);
            }
            line.number(row.start as u64);
            line.number(row.end as u64);
            line.text(action);
            line.text(word);
            if layout == Layout::Wide {
                line.text(place.vpc);
                line.text(place.subnet);
                line.text(place.instance);
                line.known(ok, u64::from(row.flags));
                line.text(if ok { "IPv4" } else { "-" });
                line.address(ok, row.packet_src);
                line.address(ok, row.packet_dst);
                line.text(place.region);
                line.text(place.zone);
                line.text("-");
                line.text("-");
                let service = |ip| if ok && (place.s3.0..=place.s3.1).contains(&ip) { "S3" } else { "-" };
                line.text(service(row.packet_src));
                line.text(service(row.packet_dst));
                line.text(if ok { direction } else { "-" });
                line.known(ok && row.egress, u64::from(row.path));
            }
        }
        Layout::Custom => {
            line.text(place.eni);
            line.text(place.vpc);
            line.text(if ok { direction } else { "-" });
            line.address(ok, row.src);
            line.known(ok, u64::from(row.src_port));
            line.address(ok, row.dst);
            for value in [u64::from(row.dst_port), u64::from(row.protocol), u64::from(row.flags)] {
                line.known(ok, value);
            }
            line.number(row.start as u64);
            line.number(row.end as u64);
            line.known(ok, row.packets);
            line.known(ok, row.bytes);
            line.text(action);
            line.text(word);
            line.text(place.account);
            line.number(5);
        }
    }
    line.end();
}

struct Line<'a> {
    out: &'a mut Vec<u8>,
}

impl Line<'_> {
    fn text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b' ');
    }

    fn number(&mut self, value: u64) {
        push_number(self.out, value);
        self.out.push(b' ');
    }

    fn known(&mut self, known: bool, value: u64) {
        if known { self.number(value) } else { self.text("-") }
    }

    fn address(&mut self, known: bool, ip: u32) {
        if !known {
            return self.text("-");
        }
        for (n, byte) in ip.to_be_bytes().into_iter().enumerate() {
            if n > 0 {
                self.out.push(b'.');
            }
            push_number(self.out, u64::from(byte));
        }
        self.out.push(b' ');
    }

    fn end(&mut self) {
        if let Some(last) = self.out.last_mut() {
            *last = b'\n';
        }
    }
}

fn push_number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// An IPv4 address as text.
pub(crate) fn dotted(ip: u32) -> String {
    std::net::Ipv4Addr::from(ip).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(status: Status) -> Row {
        Row {
            eni: 0,
            status,
            src: 0x0a00_1005,
            dst: 0xcb00_7109,
            packet_src: 0x0a00_1005,
            packet_dst: 0xcb00_7109,
            src_port: 40_000,
            dst_port: 443,
            protocol: 6,
            flags: 3,
            rejected: false,
            egress: true,
            path: 1,
            packets: 10,
            bytes: 1_000,
            start: 1_700_000_000,
            end: 1_700_000_059,
        }
    }

    #[test]
    fn every_layout_has_as_many_values_as_names() {
        let place = Place { account: "1", region: "r", vpc: "v", subnet: "s", zone: "z", instance: "-", eni: "eni-1", s3: (0, 0) };
        for layout in [Layout::Default, Layout::Wide, Layout::Custom] {
            for status in [Status::Ok, Status::NoData, Status::SkipData] {
                let mut out = Vec::new();
                write_row(&mut out, layout, &place, &row(status));
                let line = String::from_utf8(out).unwrap_or_default();
                assert!(line.ends_with('\n') && !line.contains("  "), "{line}");
                let names: Vec<&str> = layout.header().split(' ').collect();
                let values: Vec<&str> = line.trim_end().split(' ').collect();
                assert_eq!(names.len(), values.len(), "{layout:?}: {line}");
                let at = |name: &str| names.iter().position(|n| *n == name).map(|n| values[n]);
                assert_eq!(at("interface-id"), Some("eni-1"));
                assert_eq!(at("end"), Some("1700000059"));
                assert_eq!(at("dstaddr"), Some(if status == Status::Ok { "203.0.113.9" } else { "-" }));
            }
        }
    }
}
