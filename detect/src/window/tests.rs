#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use flowtrail_enrich::facts_of_file;
use proptest::prelude::*;

use super::*;
use crate::hour::Traffic;
use crate::testing::{ACCOUNT, Lane, Maker, START, at, ip, traffic};

fn with_window<T>(lane: &Lane, hour: &Maker, check: impl FnOnce(&Window<'_>) -> T) -> T {
    let hour = hour.finish();
    let facts = Facts { timelines: &lane.timelines, book: &lane.book };
    check(&Window::build(&hour, &facts))
}

/// (outbound, peer, port) of every contact of the only entity.
fn contacts(hour: &Maker) -> Vec<(bool, String, u16)> {
    with_window(&Lane::default(), hour, |w| {
        let n = &w.networks[0];
        let side = |out: bool, c: &Contact| (out, c.peer.to_string(), c.port);
        n.outbound.iter().map(|c| side(true, c)).chain(n.inbound.iter().map(|c| side(false, c))).collect()
    })
}

fn plain(client: &str, server: &str) -> Conversation {
    Conversation {
        protocol: 6,
        settled: true,
        client: ip(client),
        server: ip(server),
        server_port: 443,
        ahead: traffic(8, 800, 0),
        back: traffic(8, 800, 0),
        ..Conversation::default()
    }
}

#[test]
fn sides_come_from_flow_direction_else_from_the_shared_address() {
    let mut hour = Maker::new(START);
    hour.raw("eni-1", "", Conversation { ours_server: true, ..plain("203.0.113.1", "203.0.113.2") });
    hour.raw("eni-1", "", Conversation { ours_client: true, ..plain("203.0.113.3", "203.0.113.4") });
    assert_eq!(contacts(&hour), [(true, "203.0.113.4".into(), 443), (false, "203.0.113.1".into(), 443)]);

    // No direction, no facts: the address that all share is ours.
    let mut hour = Maker::new(START);
    hour.raw("eni-1", "", plain("10.0.0.5", "203.0.113.2")).raw("eni-1", "", plain("10.0.0.9", "10.0.0.5"));
    assert_eq!(contacts(&hour), [(true, "203.0.113.2".into(), 443), (false, "10.0.0.9".into(), 443)]);

    // One conversation shares both; an interface's own address is private.
    let mut hour = Maker::new(START);
    hour.raw("eni-1", "", plain("198.51.100.7", "10.0.0.5"));
    assert_eq!(contacts(&hour), [(false, "198.51.100.7".into(), 443)]);
    let mut hour = Maker::new(START);
    hour.raw("eni-1", "", plain("10.0.0.9", "10.0.0.5"));
    assert_eq!(contacts(&hour), [], "nothing tells which end is ours");
}

#[test]
fn unsettled_conversations_are_settled_at_the_look() {
    let unsettled = |client: (&str, u16), server: (&str, u16), ahead: Traffic, back: Traffic| Conversation {
        protocol: 6,
        client: ip(client.0),
        client_port: client.1,
        server: ip(server.0),
        server_port: server.1,
        ahead,
        back,
        ours_client: true,
        ..Conversation::default()
    };
    let both = traffic(9, 900, 0);
    // The lower port serves.
    let mut hour = Maker::new(START);
    hour.raw("eni-1", "", unsettled(("10.0.0.5", 50_000), ("10.0.0.9", 30_000), both, both));
    assert_eq!(contacts(&hour), [(true, "10.0.0.9".into(), 30_000)]);
    // But an end with several partners serves, whatever its number.
    let mut hour = Maker::new(START);
    hour.raw("eni-1", "", unsettled(("10.0.0.5", 38_080), ("10.0.0.9", 30_001), both, both));
    hour.raw("eni-1", "", unsettled(("10.0.0.5", 38_080), ("10.0.0.9", 30_002), both, both));
    assert_eq!(contacts(&hour), [(false, "10.0.0.9".into(), 38_080), (false, "10.0.0.9".into(), 38_080)]);
    // Nothing came from us: a visit, at whatever port, and so is ICMP that was asked of us.
    let mut hour = Maker::new(START);
    hour.raw("eni-1", "", unsettled(("10.0.0.5", 50_000), ("203.0.113.9", 40_000), Traffic::default(), both));
    hour.raw("eni-1", "", Conversation { protocol: 1, ..unsettled(("10.0.0.5", 0), ("203.0.113.8", 0), Traffic::default(), both) });
    assert_eq!(contacts(&hour), [(false, "203.0.113.8".into(), 0), (false, "203.0.113.9".into(), 50_000)]);
}

#[test]
fn of_two_flow_logs_the_one_with_more_records_is_taken_per_action() {
    let mut hour = Maker::new(START);
    let ours = || Conversation { ours_client: true, ..plain("10.0.0.5", "203.0.113.1") };
    hour.raw("eni-1", "fl-b", ours()).raw("eni-1", "fl-b", Conversation { server: ip("203.0.113.2"), ..ours() });
    hour.raw("eni-1", "fl-a", ours());
    hour.raw("eni-1", "fl-a", Conversation { rejected: true, server: ip("203.0.113.3"), ..ours() });
    assert_eq!(contacts(&hour), [(true, "203.0.113.1".into(), 443), (true, "203.0.113.2".into(), 443), (true, "203.0.113.3".into(), 443)]);
    with_window(&Lane::default(), &hour, |w| assert_eq!(w.attribution, [0, 0, 0, 0, 8], "every record counts, of either flow log"));
    // A tie goes to the smaller id.
    let mut hour = Maker::new(START);
    hour.raw("eni-1", "fl-b", ours()).raw("eni-1", "fl-a", Conversation { server: ip("203.0.113.7"), ..ours() });
    assert_eq!(contacts(&hour), [(true, "203.0.113.7".into(), 443)]);
}

fn facts() -> BTreeSet<flowtrail_enrich::Fact> {
    let eni = |id: &str, address: &str, subnet: &str| {
        serde_json::json!({"NetworkInterfaceId": id, "OwnerId": ACCOUNT, "VpcId": "vpc-1", "SubnetId": subnet, "InterfaceType": "lambda", "Status": "in-use",
            "PrivateIpAddress": address, "Groups": [{"GroupId": "sg-1"}], "AvailabilityZone": "eu-west-1a", "Description": "AWS Lambda VPC ENI-orders-00000000-0000-0000-0000-000000000000"})
    };
    let function = |name: &str, subnet: &str| {
        serde_json::json!({"FunctionName": name, "FunctionArn": format!("arn:aws:lambda:eu-west-1:{ACCOUNT}:function:{name}"), "LastModified": "2025-12-01T00:00:00.000+0000",
            "Version": "$LATEST", "VpcConfig": {"SubnetIds": [subnet], "SecurityGroupIds": ["sg-1"], "VpcId": "vpc-1"}})
    };
    let snapshot = |member: &str, items: Vec<serde_json::Value>| {
        serde_json::json!({"flowtrail_snapshot": 1, "account_id": ACCOUNT, "region": "eu-west-1", "taken_at": at(START - 24, 0).to_string(), member: items}).to_string()
    };
    let mut facts = BTreeSet::new();
    let interfaces = snapshot("NetworkInterfaces", vec![eni("eni-1", "10.0.0.5", "subnet-1"), eni("eni-2", "10.0.0.6", "subnet-2")]);
    let functions = snapshot("Functions", vec![function("orders", "subnet-1"), function("billing", "subnet-2")]);
    for text in [interfaces, functions] {
        facts.extend(facts_of_file(text.as_bytes(), "snapshot.json", None).unwrap());
    }
    facts
}

#[test]
fn lambda_interfaces_of_one_group_are_one_entity_and_never_serve() {
    let lane = Lane::with_facts(&facts());
    let mut hour = Maker::new(START);
    let low =
        |own: &str| Conversation { settled: false, client_port: 1026, server_port: 40_000, ours_client: false, ..plain(own, "10.0.9.9") };
    hour.raw("eni-1", "", low("10.0.0.5")).raw("eni-2", "", low("10.0.0.6"));
    with_window(&lane, &hour, |w| {
        let [group] = w.networks.as_slice() else { panic!("one entity, not {}", w.networks.len()) };
        assert_eq!((group.id.kind, &*group.id.id), (EntityKind::Network, "eu-west-1/vpc-1/sg-1"));
        assert!(group.lambda && group.inbound.is_empty());
        assert_eq!(group.outbound.iter().map(|c| (c.port, c.eni)).collect::<Vec<_>>(), [(40_000, 0), (40_000, 1)]);
        assert_eq!(group.peers.len(), 1);
        let names =
            |enis: std::ops::Range<u32>| group.attribution(enis).1.into_iter().map(|c| short_name(&c.arn).to_owned()).collect::<Vec<_>>();
        assert_eq!((names(0..1), names(1..2)), (vec!["orders".to_owned()], vec!["billing".to_owned()]));
        assert_eq!(names(0..2), ["billing", "orders"], "a contact of both interfaces may be either's");
        assert_eq!(group.attribution(0..2).1.iter().map(|c| c.weight_milli).sum::<u32>(), 1000);
        assert_ne!(group.attribution(0..2).0, Attribution::Exact);
    });
}

#[test]
fn only_calls_of_a_functions_own_code_count() {
    let mut hour = Maker::new(START);
    hour.call("orders", "s3:GetObject", "").call("orders", "s3:GetObject", "AccessDenied").call("orders", "s3:PutObject", "");
    hour.call("orders", "ec2:CreateNetworkInterface", "Client.DryRunOperation");
    hour.event(serde_json::json!({
        "eventSource": "logs.amazonaws.com", "eventName": "CreateLogStream", "userAgent": "awslambda-worker/1.0", "recipientAccountId": ACCOUNT,
        "userIdentity": {"type": "AssumedRole", "inScopeOf": {"issuerType": "AWS::Lambda::Function", "credentialsIssuedTo": format!("arn:aws:lambda:eu-west-1:{ACCOUNT}:function:orders")}},
    }));
    with_window(&Lane::default(), &hour, |w| {
        let actions: Vec<_> = w.functions[0].actions.iter().map(|a| (a.action, a.count, a.denied, a.write)).collect();
        assert_eq!((w.functions.len(), actions), (1, vec![("GetObject", 2, 1, false), ("PutObject", 1, 0, true)]));
    });
}

proptest! {
    /// Whatever stands in an hour, every record is accounted for and building it does not fail.
    #[test]
    fn every_record_is_accounted_for(rows in prop::collection::vec((0u8..3, 0u8..3, any::<[u8; 2]>(), any::<[u16; 2]>(), any::<[bool; 5]>(), any::<[u16; 2]>()), 0..60)) {
        let mut hour = Maker::new(START);
        for (eni, log, ends, ports, [settled, rejected, a, b, tcp], packets) in &rows {
            let conversation = Conversation {
                protocol: if *tcp { 6 } else { 1 }, settled: *settled, rejected: *rejected, ours_client: *a, ours_server: *b,
                client: Ip::v4(0x0a00_0000 + u32::from(ends[0] % 8)), server: Ip::v4(0xcb00_7100 + u32::from(ends[1] % 8)),
                client_port: if *settled { 0 } else { ports[0] }, server_port: ports[1],
                ahead: traffic(u64::from(packets[0] % 20), 1, 0), back: traffic(u64::from(packets[1] % 20), 1, 0), ..Conversation::default()
            };
            hour.raw(&format!("eni-{eni}"), &format!("fl-{log}"), conversation);
        }
        let hour = hour.finish();
        let lane = Lane::default();
        let facts = Facts { timelines: &lane.timelines, book: &lane.book };
        let window = Window::build(&hour, &facts);
        let flows: u64 = hour.conversations.iter().map(Conversation::flows).sum();
        prop_assert_eq!(window.attribution.iter().sum::<u64>(), flows);
        for network in &window.networks {
            prop_assert!(network.outbound.is_sorted());
            let contacts: u32 = network.peers.iter().map(|p| p.contacts.len() as u32).sum();
            prop_assert_eq!(contacts as usize, network.outbound.len());
            prop_assert!(network.peers.is_sorted_by(|a, b| a.ip < b.ip));
        }
    }
}
