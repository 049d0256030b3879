//! Flow records as AWS writes them to text objects: a header line, then one line a record.

use std::net::Ipv4Addr;

use crate::flows::{Record, Shape};
use crate::world::{REGION, World, instance_id, subnet_id, vpc_id};

/// The header line of a shape's format.
pub fn header(shape: Shape) -> &'static str {
    match shape {
        Shape::Plain => {
            "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status"
        }
        Shape::Traffic => {
            "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status vpc-id \
             subnet-id instance-id tcp-flags type pkt-srcaddr pkt-dstaddr flow-direction"
        }
        Shape::Wide => {
            "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status vpc-id \
             subnet-id instance-id tcp-flags type pkt-srcaddr pkt-dstaddr region az-id sublocation-type sublocation-id \
             pkt-src-aws-service pkt-dst-aws-service flow-direction traffic-path"
        }
    }
}

/// Writes the lines of one shape. What only the interface decides is prepared once per interface.
pub struct Lines<'w> {
    world: &'w World,
    shape: Shape,
    interface: usize,
    front: Vec<u8>,
    place: Vec<u8>,
}

impl<'w> Lines<'w> {
    /// For the records of one world.
    pub fn new(world: &'w World, shape: Shape) -> Self {
        Self { world, shape, interface: usize::MAX, front: Vec::new(), place: Vec::new() }
    }

    /// Appends one line, its newline included.
    pub fn write(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        let interface = record.interface;
        if self.interface != interface.index {
            self.interface = interface.index;
            let version = if self.shape == Shape::Plain { 2 } else { 5 };
            let account = interface.account;
            self.front = format!("{version} {} {} ", self.world.account_id(account), interface.eni).into_bytes();
            let instance = if interface.lambda { "-".to_string() } else { instance_id(interface) };
            self.place = format!(" {} {} {instance} ", vpc_id(account), subnet_id(account, interface.subnet)).into_bytes();
        }
        out.extend_from_slice(&self.front);
        if record.nodata {
            out.extend_from_slice(b"- - - - - - - ");
            number(record.start as u64, out);
            out.push(b' ');
            number(record.end as u64, out);
            out.extend_from_slice(b" - NODATA");
            for _ in 14..header(self.shape).split(' ').count() {
                out.extend_from_slice(b" -");
            }
            out.push(b'\n');
            return;
        }
        address(record.source, out);
        out.push(b' ');
        address(record.destination, out);
        for value in [
            u64::from(record.source_port),
            u64::from(record.destination_port),
            u64::from(record.protocol),
            record.packets,
            record.bytes,
            record.start as u64,
            record.end as u64,
        ] {
            out.push(b' ');
            number(value, out);
        }
        out.extend_from_slice(if record.accepted { b" ACCEPT OK" } else { b" REJECT OK" });
        if self.shape != Shape::Plain {
            out.extend_from_slice(&self.place);
            number(u64::from(record.tcp_flags), out);
            out.extend_from_slice(b" IPv4 ");
            address(record.source, out);
            out.push(b' ');
            address(record.destination, out);
            if self.shape == Shape::Wide {
                out.push(b' ');
                out.extend_from_slice(REGION.as_bytes());
                out.extend_from_slice(b" euw1-az2 - - ");
                out.extend_from_slice(service(record.source));
                out.push(b' ');
                out.extend_from_slice(service(record.destination));
            }
            out.extend_from_slice(if record.egress { b" egress" } else { b" ingress" });
            if self.shape == Shape::Wide {
                out.extend_from_slice(match (record.egress, record.destination.octets()[0]) {
                    (false, _) => b" -",
                    (true, 10) => b" 1",
                    (true, _) => b" 8",
                });
            }
        }
        out.push(b'\n');
    }
}

fn service(address: Ipv4Addr) -> &'static [u8] {
    match address.octets()[0] {
        0x34 => b"AMAZON",
        0x36 => b"EC2",
        0x03 => b"S3",
        _ => b"-",
    }
}

/// Appends a number in decimal.
pub fn number(value: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn address(address: Ipv4Addr, out: &mut Vec<u8>) {
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        number(u64::from(octet), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::object_records;
    use crate::random::Random;
    use crate::world::WorldSize;

    #[test]
    fn every_line_has_the_fields_that_its_header_names() {
        let world = World::new(WorldSize { seed: 3, accounts: 2, interfaces: 20, conversations: 50, habit: 1.0 });
        for (shape, fields) in [(Shape::Plain, 14), (Shape::Traffic, 22), (Shape::Wide, 29)] {
            let (mut out, mut lines) = (Vec::new(), Lines::new(&world, shape));
            let mut each = |record: &Record<'_>| lines.write(record, &mut out);
            let sums = object_records(&world, shape, 1, 1_767_571_200, 5000, &mut Random::of(&[1]), &mut each);
            let text = String::from_utf8(out).expect("ASCII");
            assert_eq!(header(shape).split(' ').count(), fields);
            assert_eq!(text.lines().count() as u64, sums.records);
            assert!(text.lines().all(|line| line.split(' ').count() == fields), "{shape:?}");
            let bytes: u64 = text.lines().filter_map(|line| line.split(' ').nth(9)?.parse::<u64>().ok()).sum();
            assert_eq!(bytes, sums.bytes);
            assert!(sums.rejected > 50 && sums.rejected < 250, "3 % are refused: {}", sums.rejected);
        }
    }
}
