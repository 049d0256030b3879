//! The fast path against its plain twin, on every instruction set the machine has; and what lines mean.

use proptest::prelude::*;

use super::batch::{ABSENT, BATCH_ROWS, FlowBatch, Names, marks};
use super::fast::Isa;
use super::fuzzing::{Source, read, same_everywhere};
use super::layout::{DEFAULT_FORMAT, Layout};
use super::plain::Ask;
use super::text::TextReader;
use crate::ip::Ip;
use crate::time::EventTime;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn fast_and_plain_agree(seed: u64, lines in 1usize..400, stress: bool, cells: bool, flips in 0usize..4, limit in prop_oneof![Just(i64::MAX), Just(1_750_000_000)]) {
        let mut source = Source::seeded(seed);
        let mut layout = source.layout();
        let mut text = source.text(&mut layout, lines, stress);
        for _ in 0..if stress { flips } else { 0 } {
            let at = source.below(text.len().max(1));
            if let Some(byte) = text.get_mut(at) {
                *byte = source.below(256) as u8;
            }
        }
        let seen = same_everywhere(&text, &layout, Ask { cells, not_after: EventTime(limit) });
        let records: usize = seen.batches.iter().map(|(b, _)| b.rows()).sum();
        prop_assert!(records + seen.rejects.len() <= lines + flips);
        if !stress && limit == i64::MAX && layout.refuses_words() {
            prop_assert_eq!((records, seen.rejects.len()), (lines, 0), "{:?}", seen.rejects.first());
        }
    }

    #[test]
    fn any_bytes_are_survived(text: Vec<u8>, repeat in 1usize..50) {
        same_everywhere(&text.repeat(repeat), &Layout::version_2(), Ask::all(EventTime::MAX));
    }

    #[test]
    fn pieces_give_the_rows_of_the_whole(seed: u64, cut in 0usize..20_000) {
        let mut source = Source::seeded(seed);
        let mut layout = Layout::version_2();
        let text = source.text(&mut layout, 150, true);
        let cut = text[..cut.min(text.len())].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let whole = read(&text, &layout, Ask::hot(EventTime::MAX), Some(Isa::best()));
        let (mut names, mut batch, mut lines, mut rejects) = (Names::default(), FlowBatch::default(), Vec::new(), Vec::new());
        let mut reader = TextReader::new(layout, 1, Ask::hot(EventTime::MAX));
        for piece in [&text[..cut], &text[cut..]] {
            reader.read(piece, &mut names, &mut batch, &mut |r| lines.extend(r.batch.line.iter().copied()), &mut |r| rejects.push(r));
        }
        let wanted: Vec<u32> = whole.batches.iter().flat_map(|(b, _)| b.line.iter().copied()).collect();
        prop_assert_eq!((lines, rejects, names), (wanted, whole.rejects, whole.names));
    }
}

/// Reads one line of version 2 after the header, amid others, on every instruction set.
#[track_caller]
fn check(line: &str) -> Result<(FlowBatch, Names), String> {
    let good = "2 123456789010 eni-0a 10.0.0.5 203.0.113.9 40000 443 6 10 1000 1700000000 1700000060 ACCEPT OK\n".repeat(3);
    let text = format!("{DEFAULT_FORMAT}\n{good}{line}\n{good}");
    let seen = same_everywhere(text.as_bytes(), &Layout::version_2(), Ask::hot(EventTime(1_800_000_000)));
    assert_eq!(seen.batches.len(), 1);
    let (batch, _) = &seen.batches[0];
    match seen.rejects.as_slice() {
        [] => Ok((batch.clone(), seen.names)),
        [reject] => {
            assert_eq!((reject.position.0, batch.rows()), (5, 6));
            Err(reject.reason.clone())
        }
        more => panic!("{more:?}"),
    }
}

#[test]
fn what_is_wrong_is_said() {
    for (from, to, reason) in [
        ("40000", "99999", "field `srcport` is out of range: \"99999\""),
        (" 10 ", " 18446744073709551616 ", "field `packets` is out of range: \"18446744073709551616\""),
        (" 10 ", " 9223372036854775808 ", "field `packets` is out of range: \"9223372036854775808\""),
        (" 10 ", " -5 ", "field `packets` is not a number: \"-5\""),
        ("10.0.0.5", "300.0.0.5", "field `srcaddr` is not an address: \"300.0.0.5\""),
        ("10.0.0.5", "10.0.0.05", "field `srcaddr` is not an address: \"10.0.0.05\""),
        ("1700000060", "4070908860", "time 4070908860 in field `end` is in the future"),
        ("1700000060", "1800000601", "time 1800000601 in field `end` is in the future"),
        ("1700000000", "99999999999999999", "field `start` is out of range: \"99999999999999999\""),
        ("ACCEPT", "MAYBE", "field `action` has an unknown value: \"MAYBE\""),
        ("OK", "FINE", "field `log_status` has an unknown value: \"FINE\""),
        ("eni-0a", "eni\0", "field `interface_id` is not text: \"eni\\0\""),
        (" OK", "", "line has 13 fields, its header names 14"),
        (" OK", " OK more", "line has 15 fields, its header names 14"),
    ] {
        let line = "2 123456789010 eni-0a 10.0.0.5 203.0.113.9 40000 443 6 10 1000 1700000000 1700000060 ACCEPT OK".replacen(from, to, 1);
        assert_eq!(check(&line).map(|_| ()), Err(reason.to_owned()), "{line}");
    }
}

#[test]
fn odd_lines_that_are_records() {
    let row = |line: &str| {
        let (batch, names) = check(line).unwrap();
        assert_eq!(batch.rows(), 7);
        (batch, names)
    };
    let (batch, _) = row("2 unknown - - - - - - - - 1700000000 1700000060 - NODATA");
    assert_eq!((batch.marks[3], batch.account[3], batch.interface[3]), (marks::NODATA | marks::TIMES, ABSENT, ABSENT));
    let (batch, names) = row("2 1 eni-0b 2001:db8::1 2001:db8::2 1 2 6 1 1 1700000000 1700000060 REJECT OK");
    assert_eq!((batch.src_ip(3), batch.marks[3] & marks::V6), (Ip::parse("2001:db8::1").unwrap(), marks::V6));
    assert_eq!((batch.marks[3] & marks::REJECT, &*names.interfaces[batch.interface[3] as usize]), (marks::REJECT, "eni-0b"));
    // Milliseconds, a protocol that does not exist, runs of spaces, a carriage return.
    let (batch, _) = row("2 1  eni-0b 10.0.0.1 10.0.0.2 0 0 8080 1 12345678901 1700000000000 1700000060999 ACCEPT OK\r");
    assert_eq!((batch.start[3], batch.end[3], batch.bytes[3], batch.protocol[3]), (1_700_000_000, 1_700_000_060, 12_345_678_901, 0));
    assert_eq!(batch.marks[3], marks::ADDRS | marks::PORTS | marks::TIMES);
}

#[test]
fn a_second_header_switches_the_layout_and_is_no_record() {
    let line = "10.0.0.1 10.0.0.2\n".repeat(20);
    let text = format!("srcaddr dstaddr\n{line}dstaddr srcaddr\n{line}dstaddr srcaddr\n{line}");
    let seen = same_everywhere(text.as_bytes(), &Layout::version_2(), Ask::hot(EventTime::MAX));
    let sources: Vec<_> = seen.batches.iter().map(|(b, _)| (b.rows(), b.src_ip(0).to_string(), b.line[0])).collect();
    assert_eq!(sources, [(20, "10.0.0.1".to_owned(), 2), (40, "10.0.0.2".to_owned(), 23)]);
    assert_eq!((seen.rejects.len(), seen.next_line), (0, 64));
}

#[test]
fn inner_addresses_are_kept_where_they_differ() {
    let layout = Layout::compile("srcaddr dstaddr pkt-srcaddr pkt-dstaddr").unwrap();
    // The last two: inner addresses that begin as the outer ones do, and the other way round.
    let lines = [
        "10.0.1.5 10.0.0.220 10.0.1.5 203.0.113.5",
        "10.0.0.1 10.0.0.2 10.0.0.1 10.0.0.2",
        "10.0.0.1 10.0.0.2 - 10.0.0.9",
        "- - 10.0.0.1 10.0.0.2",
        "10.0.0.1 10.0.0.2 10.0.0.1 10.0.0.23",
        "10.0.0.1 10.0.0.23 10.0.0.1 10.0.0.2",
    ];
    let seen = same_everywhere(format!("{}\n", lines.join("\n")).repeat(30).as_bytes(), &layout, Ask::hot(EventTime::MAX));
    let (batch, _) = &seen.batches[0];
    let ip = |text| Ip::parse(text).unwrap();
    let inner = [(0, "10.0.1.5", "203.0.113.5"), (2, "10.0.0.1", "10.0.0.9"), (4, "10.0.0.1", "10.0.0.23"), (5, "10.0.0.1", "10.0.0.2")];
    assert_eq!(batch.packet_addrs[..4], inner.map(|(row, a, b)| (row, ip(a), ip(b))));
    assert_eq!(
        (batch.packet_addrs.len(), batch.marks[..6].iter().map(|m| m & marks::PKT != 0).collect::<Vec<_>>()),
        (120, vec![true, false, true, false, true, true])
    );
}

#[test]
fn batches_are_cut_by_their_length_alone() {
    let line = "2 123456789010 eni-0a 10.0.0.5 203.0.113.9 40000 443 6 10 1000 1700000000 1700000060 ACCEPT OK\n";
    let seen = same_everywhere(line.repeat(BATCH_ROWS * 2 + 1).as_bytes(), &Layout::version_2(), Ask::hot(EventTime::MAX));
    assert_eq!(seen.batches.iter().map(|(b, _)| b.rows()).collect::<Vec<_>>(), [BATCH_ROWS, BATCH_ROWS, 1]);
}
