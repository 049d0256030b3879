//! Every rule of "who held this interface then", one line each.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use crate::common::*;
use flowtrail_enrich::fact::Interface;
use flowtrail_enrich::{Attribution, Fact, FactKind, NetworkEntity, PeerKind, Timelines};
use flowtrail_ingest::{EventTime, Ip};

/// `exact orders`, `candidates a 500 b 500`, `other rds`, …
fn told(timelines: &Timelines, eni: &str, first: i64, last: i64) -> String {
    let got = timelines.attribute(ACCOUNT, eni, minute(first), minute(last));
    let mut text = got.attribution.as_str().to_owned();
    for candidate in &got.candidates {
        text += &format!(" {}", candidate.arn.rsplit(':').next().unwrap());
        if got.candidates.len() > 1 {
            text += &format!(" {}", candidate.weight_milli);
        }
    }
    if got.attribution == Attribution::Other {
        text += &format!(" {}", got.owner.unwrap().kind);
    } else if let Some(owner) = got.owner {
        assert_eq!((owner.kind.as_str(), owner.id.as_str()), ("lambda", got.candidates[0].arn.as_str()));
    }
    text
}

fn check(name: &str, facts: BTreeSet<Fact>, asked: &[(&str, i64, i64, &str)]) {
    let timelines = Timelines::build(&facts);
    for (eni, first, last, expected) in asked {
        assert_eq!(told(&timelines, eni, *first, *last), *expected, "{name}: {eni} over {first}..{last}");
    }
}

const PAIR: &str = "subnet-1/sg-1,sg-2";
const HOUR: i64 = 60;

/// One Lambda interface and one function, listed at minute 0, management events for two days.
fn base() -> BTreeSet<Fact> {
    let mut facts = set([
        (0, FactKind::InterfacesComplete),
        (0, complete()),
        (0, seen(lambda_eni("eni-1", PAIR, "10.0.0.5", "orders"))),
        (0, listed("orders", PAIR, -5000)),
        (0, listed("elsewhere", "subnet-2/sg-1,sg-2", -5000)),
    ]);
    facts.extend(management(0..48));
    facts
}

fn with(facts: impl IntoIterator<Item = (i64, FactKind)>) -> BTreeSet<Fact> {
    let mut all = base();
    all.extend(set(facts));
    all
}

#[test]
fn one_function_left_is_exact_as_long_as_it_is_proven() {
    check(
        "a list and management events",
        base(),
        &[
            ("eni-1", HOUR, 2 * HOUR, "exact orders"),
            ("eni-1", 47 * HOUR, 48 * HOUR, "exact orders"),
            // Three quiet hours still count as covered, then nothing is proven.
            ("eni-1", 50 * HOUR, 51 * HOUR - 1, "exact orders"),
            ("eni-1", 50 * HOUR, 52 * HOUR, "candidates orders"),
            // The list speaks for the three hours before it, as its LastModified is older.
            ("eni-1", -100, -50, "exact orders"),
            ("eni-1", -170, -50, "candidates orders"),
            ("eni-9", HOUR, 2 * HOUR, "unknown"),
        ],
    );
    check(
        "no list ever: a creation alone proves nothing of the others",
        {
            let mut facts = set([(0, created(lambda_eni("eni-1", PAIR, "10.0.0.5", "orders"))), (0, function_created("orders", PAIR))]);
            facts.extend(management(0..48));
            facts
        },
        &[("eni-1", HOUR, 2 * HOUR, "candidates orders")],
    );
    check(
        "lists before and after that agree, without management events",
        set([
            (0, complete()),
            (0, listed("orders", PAIR, -5000)),
            (20 * HOUR, complete()),
            (20 * HOUR, listed("orders", PAIR, 10 * HOUR)),
            (0, seen(lambda_eni("eni-1", PAIR, "10.0.0.5", "orders"))),
        ]),
        &[("eni-1", 5 * HOUR, 15 * HOUR, "exact orders"), ("eni-1", 22 * HOUR, 30 * HOUR, "candidates orders")],
    );
    check(
        "lists before and after that differ",
        set([
            (0, complete()),
            (0, listed("orders", PAIR, -5000)),
            (20 * HOUR, complete()),
            (20 * HOUR, listed("orders", PAIR, -5000)),
            (20 * HOUR, listed("late", PAIR, 10 * HOUR)),
            (0, seen(lambda_eni("eni-1", PAIR, "10.0.0.5", "orders"))),
        ]),
        &[("eni-1", 5 * HOUR, 6 * HOUR, "candidates late 500 orders 500")],
    );
    check(
        "a later list, carried back by management events and LastModified",
        {
            let mut facts = set([
                (40 * HOUR, complete()),
                (40 * HOUR, listed("orders", PAIR, HOUR)),
                (40 * HOUR, listed("elsewhere", "subnet-2/sg-1", 20 * HOUR)),
                (20 * HOUR, deployed("elsewhere")),
                (40 * HOUR, seen(lambda_eni("eni-1", PAIR, "10.0.0.5", "orders"))),
            ]);
            facts.extend(management(0..48));
            facts
        },
        &[("eni-1", 5 * HOUR, 6 * HOUR, "exact orders"), ("eni-1", HOUR, 2 * HOUR, "candidates orders")],
    );
}

#[test]
fn changes_of_functions_show_when_they_happened() {
    let day = 24 * HOUR;
    check(
        "a second function on the pair",
        with([(day, function_created("payments", PAIR))]),
        &[
            ("eni-1", day - HOUR, day - 1, "exact orders"),
            ("eni-1", day - 1, day + 1, "candidates orders 500 payments 500"),
            ("eni-1", day + HOUR, day + 2 * HOUR, "candidates orders 500 payments 500"),
        ],
    );
    check(
        "it moves to another pair: the old interface serves until the change is in force, and invocations last",
        with([
            (day, function_changed("orders", "subnet-2/sg-9")),
            (day, created(lambda_eni("eni-2", "subnet-2/sg-9", "10.0.2.5", "orders"))),
        ]),
        &[
            ("eni-1", day + 5, day + 10, "exact orders"),
            ("eni-1", day + 29, day + 29, "exact orders"),
            ("eni-1", day + 31, day + 40, "candidates orders"),
            ("eni-2", day + 5, day + 10, "exact orders"),
        ],
    );
    check(
        "moved onto the pair, with the one there before moving away",
        with([(day, function_changed("elsewhere", PAIR)), (day, function_changed("orders", "subnet-3/sg-9"))]),
        &[("eni-1", day + 5, day + 10, "candidates elsewhere 500 orders 500"), ("eni-1", day + 31, day + 60, "exact elsewhere")],
    );
    check(
        "deleted: the interface stays a while, and the name is a hint",
        with([(day, function_deleted("orders"))]),
        &[("eni-1", day + 5, day + 10, "exact orders"), ("eni-1", day + 16, day + 20, "candidates orders")],
    );
    check(
        "a deploy changes nothing, and a published version keeps the pair",
        with([
            (day, deployed("orders")),
            (day + 1, FactKind::FunctionPublished { function: arn("orders"), version: "1".into() }),
            (day + 2, function_changed("orders", "subnet-3/sg-9")),
        ]),
        &[("eni-1", day - 1, day + 2, "exact orders"), ("eni-1", day + 60, day + 90, "exact orders")],
    );
    check(
        "nobody knows what it was changed to",
        with([(day, FactKind::FunctionChanged { function: arn("elsewhere"), vpc: flowtrail_enrich::fact::VpcChange::Unsaid })]),
        &[("eni-1", day - 60, day - 1, "exact orders"), ("eni-1", day + 60, day + 61, "candidates orders")],
    );
}

#[test]
fn descriptions_are_hints_and_old_ones_are_proof() {
    let only = |kind| BTreeSet::from([fact(None, kind)]);
    check("a description alone", only(seen(lambda_eni("eni-1", PAIR, "10.0.0.5", "orders"))), &[("eni-1", 0, 9, "candidates orders")]);
    check(
        "another function is configured so, undated: both",
        BTreeSet::from([
            fact(None, seen(lambda_eni("eni-1", PAIR, "10.0.0.5", "orders"))),
            fact(None, listed("payments", PAIR, 0)),
            fact(None, listed("orders", "subnet-7/sg-1", 0)),
        ]),
        &[("eni-1", 0, 9, "candidates orders 500 payments 500")],
    );
    check(
        "the function it names is known to be configured otherwise, and the pair is proven",
        with([(0, seen(lambda_eni("eni-2", PAIR, "10.0.0.6", "elsewhere")))]),
        &[("eni-2", HOUR, 2 * HOUR, "exact orders")],
    );
    let legacy = Interface {
        eni: "eni-1".into(),
        description: Some("AWS Lambda VPC ENI: 26578289-8b35-4f36-a046-ceda51a45800".into()),
        requester: Some("AROAEXAMPLE:old-job".into()),
        ..Interface::default()
    };
    check("pre-2019", only(seen(legacy)), &[("eni-1", 0, 9, "exact old-job")]);
    let bare = Interface { eni: "eni-1".into(), interface_type: Some("lambda".into()), ..Interface::default() };
    check("Lambda's, nobody named", only(seen(bare)), &[("eni-1", 0, 9, "unknown")]);
}

#[test]
fn invocations_weigh_and_exclude_nobody() {
    let day = 24 * HOUR;
    let invoked = |at, eni: &str, name| (at, FactKind::Invoked { eni: eni.into(), function: arn(name) });
    let mut facts = vec![(day, function_created("payments", PAIR))];
    facts.extend((0..7).map(|n| invoked(day + 60 + n, "eni-1", "payments")));
    facts.push(invoked(day + 60, "eni-2", "orders"));
    check(
        "seen on this interface within a day",
        with(facts.clone()),
        &[
            ("eni-1", day + 70, day + 120, "candidates payments 889 orders 111"),
            // None before the span ended.
            ("eni-1", day + 30, day + 40, "candidates orders 500 payments 500"),
            ("eni-1", 2 * day + 70, 2 * day + 120, "candidates orders 500 payments 500"),
        ],
    );
    check(
        "a function that is not configured so was seen using it: no proof any more",
        with([invoked(day, "eni-1", "elsewhere")]),
        &[
            ("eni-1", day - 60, day - 1, "exact orders"),
            ("eni-1", day, day + 5, "candidates elsewhere 667 orders 333"),
            ("eni-1", day + 60, day + 65, "exact orders"),
        ],
    );
}

#[test]
fn interfaces_end_and_others_hold_them() {
    let day = 24 * HOUR;
    check(
        "deleted by an event",
        with([(day, FactKind::InterfaceDeleted { eni: "eni-1".into() })]),
        &[("eni-1", day - 1, day, "exact orders"), ("eni-1", day, day + 9, "unheld"), ("eni-1", day + 5, day + 9, "unheld")],
    );
    check(
        "gone from a later snapshot: traffic in between proves that it was still there",
        with([(day, FactKind::InterfacesComplete)]),
        &[("eni-1", day - 60, day - 50, "exact orders"), ("eni-1", day, day + 9, "unheld")],
    );
    check(
        "not there before it was made",
        with([(day, created(lambda_eni("eni-2", PAIR, "10.0.0.6", "orders")))]),
        &[("eni-2", day - 60, day - 1, "unheld"), ("eni-2", day, day + 9, "exact orders")],
    );
    check(
        "its groups were changed by hand: those before and after count",
        with([
            (day, FactKind::InterfaceGroups { eni: "eni-1".into(), groups: vec!["sg-3".into()] }),
            (0, listed("other", "subnet-1/sg-3", -5000)),
        ]),
        &[("eni-1", day - 60, day - 50, "exact orders"), ("eni-1", day + 60, day + 65, "candidates orders 500 other 500")],
    );
    check(
        "a terminated instance takes its interfaces along",
        with([
            (0, seen(Interface { instance: Some("i-1".into()), ..other_eni("eni-3", "vpc-1", "10.0.9.1", "") })),
            (day, FactKind::InstanceTerminated { instance: "i-1".into() }),
        ]),
        &[("eni-3", day - 9, day - 1, "other instance"), ("eni-3", day + 9, day + 10, "unheld")],
    );
    check(
        "other holders",
        BTreeSet::from([
            fact(None, seen(other_eni("eni-3", "vpc-1", "10.0.9.1", "RDSNetworkInterface"))),
            fact(None, seen(other_eni("eni-4", "vpc-1", "10.0.9.2", "Interface for NAT Gateway nat-1"))),
        ]),
        &[("eni-3", 0, 9, "other rds"), ("eni-4", 0, 9, "other nat_gateway")],
    );
}

#[test]
fn entities_do_not_change_with_deploys_and_place_is_known() {
    let day = 24 * HOUR;
    let timelines = Timelines::build(&with([
        (day, function_created("payments", PAIR)),
        (day, created(lambda_eni("eni-2", PAIR, "10.0.0.6", "payments"))),
        (day, seen(other_eni("eni-3", "vpc-1", "10.0.9.1", "RDSNetworkInterface"))),
    ]));
    let group = NetworkEntity::Group {
        region: REGION.to_owned(),
        vpc: "vpc-1".to_owned(),
        security_groups: vec!["sg-1".to_owned(), "sg-2".to_owned()],
    };
    for (eni, at) in [("eni-1", -900), ("eni-1", 0), ("eni-1", 3 * day), ("eni-2", day), ("eni-2", 0)] {
        assert_eq!(timelines.entity(ACCOUNT, eni, minute(at)), group, "{eni} at {at}");
    }
    for eni in ["eni-3", "eni-9"] {
        assert_eq!(timelines.entity(ACCOUNT, eni, minute(day)), NetworkEntity::Interface { eni: eni.to_owned() });
    }
    assert_eq!(timelines.place(ACCOUNT, "eni-1", minute(0)), Some((REGION.to_owned(), "vpc-1".to_owned())));
    assert_eq!(timelines.place(ACCOUNT, "eni-9", minute(0)), None);
    assert_eq!(timelines.functions(ACCOUNT), ["elsewhere", "orders", "payments"].map(|name| arn(name).to_string()));
    // Facts may stand under another account than the records; a single one that knows the interface answers.
    assert_eq!(timelines.entity("999999999999", "eni-1", minute(0)), group);
}

#[test]
fn addresses_are_names_where_one_holder_covers_the_time() {
    let ip = |text: &str| Ip::parse(text).unwrap();
    let mut facts = with([
        (0, seen(other_eni("eni-db", "vpc-1", "10.0.9.1", "RDSNetworkInterface"))),
        (0, seen(other_eni("eni-lb", "vpc-1", "10.0.9.2", "ELB app/web/50dc6c495c0c9188"))),
        (600, FactKind::InterfaceDeleted { eni: "eni-lb".into() }),
        (900, created(other_eni("eni-new", "vpc-1", "10.0.9.2", "ElastiCache sessions"))),
        (0, seen(other_eni("eni-far", "vpc-2", "10.77.0.1", "EFS mount target for fs-1 (fsmt-1)"))),
        (0, seen(other_eni("eni-same", "vpc-2", "10.0.8.8", "DAX d"))),
        (0, seen(other_eni("eni-twin1", "vpc-2", "10.78.0.1", "DAX e"))),
        (0, seen(other_eni("eni-twin2", "vpc-3", "10.78.0.1", "DAX f"))),
        (
            0,
            seen(Interface {
                public: vec![ip("203.0.113.9")],
                ..other_eni("eni-nat", "vpc-1", "10.0.9.3", "Interface for NAT Gateway nat-1")
            }),
        ),
        (0, seen(Interface { prefixes: vec![(ip("10.0.64.0"), 28)], ..other_eni("eni-node", "vpc-1", "10.0.9.4", "aws-K8S-i-1") })),
        (300, FactKind::AddressesAdded { eni: "eni-db".into(), ranges: vec![(ip("10.0.9.9"), 32)] }),
        (400, FactKind::AddressesRemoved { eni: "eni-db".into(), ranges: vec![(ip("10.0.9.9"), 32)] }),
    ]);
    facts.extend(set([(0, seen(lambda_eni("eni-5", "subnet-5/sg-5", "10.0.0.99", "x")))]));
    let timelines = Timelines::build(&facts);
    let peer = |address: &str, first: i64, last: i64| {
        let got = timelines.peer(ACCOUNT, "eni-1", ip(address), minute(first), minute(last));
        got.map(|p| {
            assert_eq!(p.kind, PeerKind::Owner);
            p.key
        })
    };
    for (address, first, last, expected) in [
        ("10.0.9.1", 10, 20, Some("eni:eni-db")),
        ("10.0.9.2", 10, 599, Some("load_balancer:app/web/50dc6c495c0c9188")),
        // Given to another: named only where one of them has it all the time.
        ("10.0.9.2", 590, 610, None),
        ("10.0.9.2", 700, 800, None),
        ("10.0.9.2", 900, 950, Some("elasticache:sessions")),
        ("10.0.9.9", 310, 390, Some("eni:eni-db")),
        ("10.0.9.9", 310, 410, None),
        ("10.0.9.9", 410, 420, None),
        // Elsewhere in the organisation, if no more than one has it and it cannot be ours.
        ("10.77.0.1", 10, 20, Some("efs:fs-1")),
        ("10.78.0.1", 10, 20, None),
        ("10.0.8.8", 10, 20, None),
        ("203.0.113.9", 10, 20, Some("nat_gateway:nat-1")),
        ("10.0.64.7", 10, 20, Some("eks:eu-west-1/vpc-1/sg-other")),
        ("10.0.64.16", 10, 20, None),
        ("10.0.0.99", 10, 20, Some("group:eu-west-1/vpc-1/sg-5")),
        ("192.0.2.1", 10, 20, None),
    ] {
        assert_eq!(peer(address, first, last).as_deref(), expected, "{address} over {first}..{last}");
    }
    let holds = |eni, address: &str, at| timelines.holds(ACCOUNT, eni, ip(address), minute(at), minute(at + 5));
    assert!(holds("eni-1", "10.0.0.5", 10) && !holds("eni-1", "10.0.0.6", 10));
    assert!(holds("eni-db", "10.0.9.9", 350) && !holds("eni-db", "10.0.9.9", 450));
    assert!(holds("eni-node", "10.0.64.15", 10));
}

#[test]
fn rows_tell_the_same_in_order() {
    let day = 24 * HOUR;
    let facts = with([
        (day, function_created("payments", PAIR)),
        (30 * HOUR, FactKind::InterfaceDeleted { eni: "eni-1".into() }),
        (day, created(lambda_eni("eni-2", "subnet-2/sg-1,sg-2", "10.0.0.6", "elsewhere"))),
        (0, seen(other_eni("eni-3", "vpc-1", "10.0.9.1", "RDSNetworkInterface"))),
    ]);
    let rows = Timelines::build(&facts).owner_rows(minute(48 * HOUR));
    let edge = |t: Option<EventTime>| t.map_or(String::new(), |t| ((t.0 - START) / 60).to_string());
    let told: Vec<String> = rows
        .iter()
        .map(|r| {
            let names: Vec<&str> = r.candidates.iter().map(|c| c.arn.rsplit(':').next().unwrap()).collect();
            let (kind, how) = (&r.owner_kind, r.attribution.as_str());
            format!("{} {kind} {how} [{}] {}..{}", r.eni_id, names.join(" "), edge(r.valid_from), edge(r.valid_to))
        })
        .collect();
    assert_eq!(
        told,
        [
            "eni-1 lambda candidates [orders] ..-165",
            "eni-1 lambda exact [orders] -165..1440",
            "eni-1 lambda candidates [orders payments] 1440..1800",
            "eni-2 lambda exact [elsewhere] 1440..",
            "eni-3 rds other [] ..",
        ]
    );
    assert!(rows.iter().all(|r| r.account_id == ACCOUNT && r.region == REGION && r.vpc_id.as_deref() == Some("vpc-1") && r.ip.is_some()));
    assert_eq!(rows[1].owner.as_deref(), Some(&*arn("orders")));
    assert_eq!(rows[1].owner_name.as_deref(), Some("orders"));
    assert!(rows.iter().all(|r| !r.evidence.is_empty()));
}
