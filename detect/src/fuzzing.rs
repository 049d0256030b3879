//! What is fuzzed in this crate; see `flowtrail_ingest`'s module of the same name.
#![allow(missing_docs, clippy::unwrap_used)]

use flowtrail_ingest::flow::layout::{DEFAULT_FORMAT, Layout};
use flowtrail_ingest::flow::plain::Ask;
use flowtrail_ingest::flow::text::parse_text;
use flowtrail_ingest::{EventTime, FlowBatch, Hour, Names, UnitId};

use crate::block::{BlockView, decode};
use crate::hour::NONE;
use crate::merge::merge;
use crate::sum::{FlowCounts, Summer, UnitContext};

/// A name, what is run on every input, and inputs to begin with.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

pub const TARGETS: [Target; 2] = [("block", block, block_seeds), ("sums", sums, sum_seeds)];

/// A stored block: an error, or an hour whose indices all lead somewhere and that can be merged.
fn block(bytes: &[u8]) {
    let view = BlockView { account: "111122223333", hour: Hour(491_088), bytes, new: bytes.len().is_multiple_of(2) };
    let Ok(hour) = decode(view) else { return };
    let known = |index: u32| index == NONE || (index as usize) < hour.strings.len();
    assert!(hour.strings.is_sorted() && hour.units.is_sorted());
    assert!(hour.eni_region.iter().all(|(eni, region)| known(*eni) && known(*region)));
    for conversation in &hour.conversations {
        assert!(known(conversation.eni) && known(conversation.flow_log) && conversation.first <= conversation.last);
        assert!(conversation.seen.len() <= 3 && conversation.seen.iter().all(|(unit, _)| (*unit as usize) < hour.units.len()));
    }
    for mut call in hour.calls.clone() {
        assert!(call.texts_mut().into_iter().all(|index| known(*index)) && (call.unit as usize) < hour.units.len());
    }
    let (twice, _) = merge(&[view, view]).unwrap();
    assert!(twice.conversations.len() <= hour.conversations.len() && twice.calls.len() <= hour.calls.len());
}

/// A flow log as two units, summed together, apart, and in the other order: equal hours, and nothing gets lost.
fn sums(text: &[u8]) {
    let cut = text.iter().take(text.len() / 2).rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let units = [(context(1), &text[..cut]), (context(2), &text[cut..])];
    let mut counts = FlowCounts::default();
    let mut told = Vec::new();
    for (order, flush) in [([0, 1], false), ([1, 0], true)] {
        let (mut summer, mut blocks) = (Summer::new(order[0] as u64), Vec::new());
        counts = FlowCounts::default();
        for n in order {
            let (unit, text) = &units[n];
            let (mut names, mut batch) = (Names::default(), FlowBatch::default());
            let mut add = |rows: flowtrail_ingest::flow::FlowRows<'_>| summer.add(unit, rows.batch, rows.names, &mut counts);
            parse_text(text, 1, &Layout::version_2(), Ask::hot(EventTime::MAX), &mut names, &mut batch, &mut add, &mut |_| {});
            if flush {
                blocks.extend(summer.flush());
            }
        }
        blocks.extend(summer.flush());
        let mut keys: Vec<_> = blocks.iter().map(|b| (b.account.clone(), b.hour)).collect();
        keys.sort();
        keys.dedup();
        let hours = keys.iter().map(|key| {
            let views: Vec<_> = blocks.iter().filter(|b| (&b.account, b.hour) == (&key.0, key.1)).map(|b| b.view(true)).collect();
            merge(&views).unwrap().0
        });
        told.push(hours.collect::<Vec<_>>());
    }
    assert_eq!(told[0], told[1]);
    let flows: u64 = told[0].iter().flat_map(|h| &h.conversations).map(crate::hour::Conversation::flows).sum();
    assert_eq!(flows + counts.nodata + counts.skipdata + counts.unplaced, counts.records);
}

fn context(n: u128) -> UnitContext {
    UnitContext {
        id: UnitId(n),
        flow_log: Some(format!("fl-{n}")).filter(|_| n == 1),
        account: Some("111122223333".to_owned()),
        region: Some("eu-west-1".to_owned()),
        from: EventTime::MIN,
        to: EventTime::MAX,
    }
}

fn sum_seeds() -> Vec<Vec<u8>> {
    let line = |n: usize, more: &str| {
        let (a, b) = if n.is_multiple_of(2) { (n % 5, 9) } else { (9, n % 5) };
        let (p, q) = [(443, 40_000 + n), (40_000 + n, 443), (5000, 6000), (0, 0)][n % 4];
        format!(
            "2 {} eni-{} 10.0.0.{a} 10.0.0.{b} {p} {q} {} 3 {} {} {} ACCEPT OK{more}\n",
            ["1", "unknown", "-"][n % 3],
            n % 3,
            [6, 17, 1][n % 3],
            n * 50,
            1_700_000_000 + n * 900,
            1_700_000_030 + n * 900
        )
    };
    let plain: String = (0..24).map(|n| line(n, "")).collect();
    let custom = format!("{DEFAULT_FORMAT} tcp-flags flow-direction pkt-srcaddr pkt-dstaddr\n");
    let wide: String = (0..24)
        .map(|n| line(n, &format!(" {} {} 10.0.0.{} 2001:db8::{n}", [2, 18, 3, 0][n % 4], ["egress", "ingress", "-"][n % 3], n % 4)))
        .collect();
    let v6: String = plain.replace("10.0.0.", "2001:db8::");
    [plain.clone(), custom + &wide, v6 + &plain].map(String::into_bytes).to_vec()
}

fn block_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for text in sum_seeds() {
        let mut summer = Summer::new(1);
        let (mut names, mut batch) = (Names::default(), FlowBatch::default());
        let mut add =
            |rows: flowtrail_ingest::flow::FlowRows<'_>| summer.add(&context(1), rows.batch, rows.names, &mut FlowCounts::default());
        parse_text(&text, 1, &Layout::version_2(), Ask::hot(EventTime::MAX), &mut names, &mut batch, &mut add, &mut |_| {});
        for n in 0..3 {
            let mut row = crate::hour::ApiRow { time: EventTime(1_700_000_000 + n), id: n as u128, ..Default::default() };
            for (at, index) in row.texts_mut().into_iter().enumerate() {
                *index = if at % 4 == 3 { NONE } else { summer.intern(&format!("text-{}", at as i64 * n)) };
            }
            summer.add_call(&context(2), "1", row, n as u64);
        }
        seeds.extend(summer.flush().into_iter().map(|b| b.bytes));
    }
    seeds.push(Vec::new());
    seeds
}

/// Damaged seeds of each target, in ordinary tests.
#[cfg(test)]
const ROUNDS: usize = 3000;

#[cfg(test)]
#[path = "../../fuzz/batter.rs"]
mod batter;
