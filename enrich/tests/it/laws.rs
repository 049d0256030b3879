//! What must hold for any facts: order and repeats do not show, and events do not speak of the time before them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use crate::common::*;
use flowtrail_enrich::fact::{Interface, VpcChange};
use flowtrail_enrich::{Fact, FactKind, Timelines, management_fact};
use flowtrail_ingest::{Hour, Ip};
use proptest::prelude::*;

const PAIRS: [&str; 4] = ["subnet-1/sg-1", "subnet-2/sg-1", "subnet-1,subnet-2/sg-1,sg-2", ""];
const NAMES: [&str; 3] = ["a", "b", "c"];
/// Minutes that facts are about.
const LAST: i64 = 3000;

fn interface() -> impl Strategy<Value = Interface> {
    (0usize..4, 0usize..2, 0u8..4, 0usize..3).prop_map(|(eni, pair, ip, name)| {
        let (eni, ip) = (format!("eni-{eni}"), format!("10.0.0.{ip}"));
        match eni.as_str() {
            "eni-3" => other_eni(&eni, "vpc-1", &ip, "RDSNetworkInterface"),
            _ => lambda_eni(&eni, PAIRS[pair], &ip, NAMES[name]),
        }
    })
}

fn eni() -> impl Strategy<Value = flowtrail_enrich::fact::Word> {
    (0usize..4).prop_map(|n| format!("eni-{n}").into())
}

/// What CloudTrail can tell.
fn event() -> impl Strategy<Value = FactKind> {
    let name = || (0usize..3).prop_map(|n| NAMES[n]);
    let pair = || (0usize..4).prop_map(|n| PAIRS[n]);
    prop_oneof![
        (name(), pair()).prop_map(|(n, p)| function_created(n, p)),
        (name(), pair()).prop_map(|(n, p)| function_changed(n, p)),
        name().prop_map(deployed),
        name().prop_map(function_deleted),
        name().prop_map(|n| FactKind::FunctionChanged { function: arn(n), vpc: VpcChange::Unsaid }),
        name().prop_map(|n| FactKind::FunctionPublished { function: arn(n), version: "1".into() }),
        (eni(), name()).prop_map(|(eni, n)| FactKind::Invoked { eni, function: arn(n) }),
        eni().prop_map(|eni| FactKind::InterfaceDeleted { eni }),
        eni().prop_map(|eni| FactKind::InterfaceGroups { eni, groups: vec!["sg-1".into()] }),
        (eni(), 0u32..4).prop_map(|(eni, n)| FactKind::AddressesAdded { eni, ranges: vec![(Ip::v4(0x0a00_0000 + n), 32)] }),
        interface().prop_map(created),
    ]
}

/// What lists and snapshots can tell.
fn snapshot() -> impl Strategy<Value = FactKind> {
    prop_oneof![
        interface().prop_map(seen),
        (0usize..3, 0usize..4, -900i64..LAST).prop_map(|(n, p, modified)| listed(NAMES[n], PAIRS[p], modified)),
        Just(FactKind::InterfacesComplete),
        any::<bool>().prop_map(|all_versions| FactKind::FunctionsComplete { all_versions }),
    ]
}

fn facts() -> impl Strategy<Value = Vec<Fact>> {
    let when = prop_oneof![4 => (0..LAST).prop_map(Some), 1 => Just(None)];
    // Coarse times, so that facts of the same second occur.
    let when = when.prop_map(|t: Option<i64>| t.map(|t| t / 50 * 50));
    let one = (when, prop_oneof![event(), snapshot()], 0u8..8).prop_map(|(at, kind, where_)| {
        let mut fact = fact(at, kind);
        match where_ {
            0 => fact.account = None,
            1 => fact.account = Some("444455556666".to_owned()),
            2 => fact.region = None,
            _ => {}
        }
        fact
    });
    let hours = prop::collection::vec(0i32..50, 0..40).prop_map(|hours| {
        let first = minute(0).hour().0;
        hours.into_iter().map(|h| management_fact(ACCOUNT, REGION, Hour(first + h))).collect::<Vec<_>>()
    });
    (prop::collection::vec(one, 0..40), hours).prop_map(|(mut facts, hours)| {
        facts.extend(hours);
        facts
    })
}

fn answers(timelines: &Timelines) -> Vec<String> {
    let mut answers = Vec::new();
    for eni in ["eni-0", "eni-1", "eni-2", "eni-3"] {
        for first in (-100..LAST + 300).step_by(170) {
            let (from, to) = (minute(first), minute(first + 40));
            answers.push(format!(
                "{eni} {first} {:?} {:?} {:?}",
                timelines.attribute(ACCOUNT, eni, from, to),
                timelines.entity(ACCOUNT, eni, from),
                timelines.peer(ACCOUNT, eni, Ip::v4(0x0a00_0001), from, to)
            ));
        }
    }
    answers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn neither_order_nor_repeats_nor_portions_show(facts in facts(), seed in any::<u64>(), cuts in prop::collection::vec(0usize..60, 0..4)) {
        let whole = Timelines::build(&facts.iter().cloned().collect());
        let mut shuffled: Vec<Fact> = facts.iter().cloned().chain(facts.iter().take(10).cloned()).collect();
        let mut state = seed | 1;
        for at in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            shuffled.swap(at, (state >> 33) as usize % (at + 1));
        }
        let mut portions = Timelines::default();
        let mut rest = shuffled.into_iter();
        for cut in cuts {
            portions.update(rest.by_ref().take(cut));
        }
        portions.update(rest);
        prop_assert_eq!(answers(&whole), answers(&portions));
        let as_of = minute(LAST + 100);
        prop_assert_eq!(whole.owner_rows(as_of), portions.owner_rows(as_of));
        prop_assert!(whole == portions);
    }

    /// `run` knows at a seal what `replay` knew from the start: events after the span change nothing about it. Lists may
    /// speak backwards, so here they come before; and an interface made later was not there before.
    #[test]
    fn events_do_not_speak_of_the_time_before_them(
        before in prop::collection::vec((-900i64..0, snapshot()), 0..20),
        events in prop::collection::vec((0..LAST, event()), 0..30),
        hours in prop::collection::vec(0i32..50, 0..50),
        asked in 0..LAST,
    ) {
        let start = minute(0).hour().0;
        let all: BTreeSet<Fact> = before
            .into_iter()
            // A snapshot that misses an interface of which events tell later was not complete: it must not count as such.
            .map(|(at, kind)| (if kind == FactKind::InterfacesComplete { -901 } else { at }, kind))
            .chain(events)
            .map(|(at, kind)| fact(Some(at), kind))
            .chain(hours.into_iter().map(|h| management_fact(ACCOUNT, REGION, Hour(start + h))))
            .collect();
        // Nothing is told of an interface before it is made.
        let mentioned = |f: &Fact| match &f.kind {
            FactKind::InterfaceSeen(i) | FactKind::InterfaceCreated(i) => Some(i.eni.clone()),
            FactKind::InterfaceDeleted { eni } | FactKind::InterfaceGroups { eni, .. } | FactKind::AddressesAdded { eni, .. } => Some(eni.clone()),
            _ => None,
        };
        let mut met = BTreeSet::new();
        let mut all: Vec<Fact> = all.into_iter().collect();
        all.retain(|f| mentioned(f).is_none_or(|eni| met.insert(eni) || !matches!(f.kind, FactKind::InterfaceCreated(_))));
        let all: BTreeSet<Fact> = all.into_iter().collect();
        let (first, last) = (minute(asked - 20), minute(asked));
        let known: BTreeSet<Fact> = all.iter().filter(|f| f.at.unwrap() <= last).cloned().collect();
        let (replayed, sealed) = (Timelines::build(&all), Timelines::build(&known));
        for eni in ["eni-0", "eni-1", "eni-2", "eni-3"] {
            let heard = known.iter().any(|f| match &f.kind {
                FactKind::InterfaceSeen(i) | FactKind::InterfaceCreated(i) => &*i.eni == eni,
                _ => false,
            });
            if heard {
                prop_assert_eq!(replayed.attribute(ACCOUNT, eni, first, last), sealed.attribute(ACCOUNT, eni, first, last), "{}", eni);
                prop_assert_eq!(replayed.entity(ACCOUNT, eni, last), sealed.entity(ACCOUNT, eni, last));
                let (a, b) = (&replayed, &sealed);
                for ip in (0..4).map(|n| Ip::v4(0x0a00_0000 + n)) {
                    prop_assert_eq!(a.peer(ACCOUNT, eni, ip, first, last), b.peer(ACCOUNT, eni, ip, first, last));
                    prop_assert_eq!(a.holds(ACCOUNT, eni, ip, first, last), b.holds(ACCOUNT, eni, ip, first, last));
                }
            }
        }
    }

    #[test]
    fn facts_survive_the_journal(facts in facts()) {
        let bytes = postcard::to_allocvec(&facts).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Vec<Fact>>(&bytes).unwrap(), facts);
    }

    #[test]
    fn answers_are_whole(facts in facts()) {
        let timelines = Timelines::build(&facts.into_iter().collect());
        for row in timelines.owner_rows(minute(LAST)) {
            let total: u32 = row.candidates.iter().map(|c| c.weight_milli).sum();
            prop_assert!(row.candidates.is_empty() || total == 1000, "{row:?}");
            prop_assert!(row.valid_from.is_none() || row.valid_to.is_none() || row.valid_from < row.valid_to, "{row:?}");
            let exact = row.attribution == flowtrail_enrich::Attribution::Exact;
            prop_assert_eq!(exact, row.owner_kind == "lambda" && row.owner.is_some());
            prop_assert!(!exact || row.candidates.len() == 1);
        }
    }
}
