use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> Ip {
    Ip::parse(text).unwrap_or_default()
}

fn at(text: &str) -> EventTime {
    EventTime::parse(text).unwrap_or_default()
}

#[test]
fn names_by_networks_then_aws_then_nothing() {
    let mut book = AddressBook::builder();
    let ranges = br#"{"syncToken":"1","prefixes":[
        {"ip_prefix":"192.0.2.0/24","region":"eu-west-1","service":"AMAZON","network_border_group":"eu-west-1"},
        {"ip_prefix":"192.0.2.0/24","region":"eu-west-1","service":"S3","network_border_group":"eu-west-1"},
        {"ip_prefix":"198.51.100.0/24","region":"eu-west-1","service":"AMAZON"},
        {"ip_prefix":"198.51.100.128/25","region":"eu-west-1","service":"EC2"},
        {"ip_prefix":"203.0.113.0/24","region":"GLOBAL","service":"CLOUDFRONT"}],
        "ipv6_prefixes":[{"ipv6_prefix":"2001:db8:1::/48","region":"us-east-1","service":"DYNAMODB"}]}"#;
    assert_eq!(book.aws_ranges(ranges), Ok(6));
    for (cidr, name) in [("10.20.0.0/16", "office"), ("10.20.7.0/24", "lab"), ("203.0.113.200/32", "our CDN")] {
        assert_eq!(book.network(cidr, name), Ok(()));
    }
    assert!(book.network("10.20.0.0/99", "wrong").is_err());
    assert!(AddressBook::builder().aws_ranges(b"{}").is_err());
    let book = book.build();
    for (address, kind, key, name) in [
        ("10.20.1.1", PeerKind::Network, "net:office", "office"),
        ("10.20.7.1", PeerKind::Network, "net:lab", "lab"),
        ("10.21.0.1", PeerKind::Private, "10.21.0.1", "10.21.0.1"),
        ("192.0.2.9", PeerKind::AwsService, "aws:S3:eu-west-1", "S3 eu-west-1"),
        ("198.51.100.9", PeerKind::AwsService, "aws:AMAZON:eu-west-1", "AMAZON eu-west-1"),
        ("198.51.100.200", PeerKind::AwsRented, "198.51.100.200", "198.51.100.200 (EC2 eu-west-1)"),
        ("203.0.113.9", PeerKind::AwsRented, "203.0.113.9", "203.0.113.9 (CLOUDFRONT GLOBAL)"),
        ("203.0.113.200", PeerKind::Network, "net:our CDN", "our CDN"),
        ("2001:db8:1::9", PeerKind::AwsService, "aws:DYNAMODB:us-east-1", "DYNAMODB us-east-1"),
        ("2001:db8:2::9", PeerKind::Internet, "2001:db8:2::9", "2001:db8:2::9"),
    ] {
        let got = book.name(ip(address));
        assert_eq!(book.kind(ip(address)), kind, "{address}, without text");
        assert_eq!((got.kind, got.key.as_str(), got.name.as_str()), (kind, key, name), "{address}");
    }
}

#[test]
fn lists_are_read_as_they_come_and_bad_lines_are_told() {
    let mut builder = AddressBook::builder();
    let csv = "# a feed\nrange,category,confidence,valid_from,valid_to\n192.0.2.10,c2,0.9,2026-03-03T00:00:00Z,2026-04-01T00:00:00Z\n\
        192.0.2.0/24,scanner,50,,\n\"198.51.100.1-198.51.100.5\",,,,\n300.1.1.1,c2,,,\n192.0.2.3,c2,7000,,\n192.0.2.4,c2,,soon,\n";
    let report = builder.list("feodo", Some("c2"), csv.as_bytes());
    assert_eq!((report.entries, report.bad), (3, 3));
    assert_eq!(report.samples.iter().map(|b| b.line).collect::<Vec<_>>(), [6, 7, 8]);
    let plain = "203.0.113.7 ; SBL1\n2001:db8::/32 # v6\r\n203.0.113.8:443\nnonsense\n";
    let report = builder.list("drop", None, plain.as_bytes());
    assert_eq!((report.entries, report.bad), (3, 1));
    let book = builder.build();
    assert!(book.has_lists() && !AddressBook::default().has_lists());
    let told = |address: &str, when: &str| -> Vec<String> {
        let hits = book.listed(ip(address), at(when));
        hits.iter().map(|h| format!("{} {} {} {}", h.list, h.category, h.confidence_milli, h.range)).collect()
    };
    let (in_march, in_may) = ("2026-03-10T00:00:00Z", "2026-05-01T00:00:00Z");
    assert_eq!(told("192.0.2.10", in_march), ["feodo scanner 500 192.0.2.0/24", "feodo c2 900 192.0.2.10"]);
    assert_eq!(told("192.0.2.10", in_may), ["feodo scanner 500 192.0.2.0/24"]);
    assert_eq!(told("192.0.2.11", in_may), ["feodo scanner 500 192.0.2.0/24"]);
    assert_eq!(told("198.51.100.5", in_may), ["feodo c2 1000 198.51.100.1-198.51.100.5"]);
    assert_eq!(told("198.51.100.6", in_may), Vec::<String>::new());
    assert_eq!(told("203.0.113.7", in_may), ["drop custom 1000 203.0.113.7"]);
    assert_eq!(told("203.0.113.8", in_may), ["drop custom 1000 203.0.113.8"]);
    assert_eq!(told("2001:db8:5::1", in_may), ["drop custom 1000 2001:db8::/32"]);
    let within = |when: &str, days: i64| book.listed_within(ip("192.0.2.10"), at(when), days * 86_400).len();
    assert_eq!((within("2026-02-20", 30), within("2026-02-20", 1), within(in_march, 30), within(in_may, 30)), (2, 1, 2, 1));
    assert_ne!(book.lists()[0].version, book.lists()[1].version);
}

proptest! {
    /// Whatever overlaps what, and wherever upper halves are crossed: an address has the entries whose ranges hold it.
    #[test]
    fn the_index_agrees_with_asking_every_entry(
        entries in prop::collection::vec((0u32..0x3_0000, 0u32..0x1_8000, 0u32..3), 0..20),
        asked in prop::collection::vec(0u32..0x5_0000, 1..40),
    ) {
        let lines: Vec<(u32, u32, u32)> = entries.iter().map(|(first, length, confidence)| (*first, first + length, confidence * 500)).collect();
        let text: String = lines.iter().map(|(a, b, c)| format!("{}-{},x,{}\n", Ip::v4(*a), Ip::v4(*b), f64::from(*c) / 1000.0)).collect();
        let mut builder = AddressBook::builder();
        let report = builder.list("l", None, text.as_bytes());
        prop_assert_eq!(report.bad, 0);
        let book = builder.build();
        for address in asked {
            let mut expected: Vec<(String, u32)> = lines
                .iter()
                .filter(|(a, b, _)| (*a..=*b).contains(&address))
                .map(|(a, b, c)| (super::range::shown(Ip::v4(*a), Ip::v4(*b)), *c))
                .collect();
            expected.sort();
            expected.dedup();
            let mut got: Vec<(String, u32)> =
                book.listed(Ip::v4(address), EventTime(0)).into_iter().map(|h| (h.range, h.confidence_milli)).collect();
            got.sort();
            prop_assert_eq!(got, expected);
        }
    }
}
