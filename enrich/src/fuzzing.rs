//! What is fuzzed in this crate; see `flowtrail_ingest`'s module of the same name.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;

use flowtrail_ingest::cloudtrail::{Item, read};
use flowtrail_ingest::{EventTime, Ip};

use crate::{AddressBook, Fact, FactKind, Timelines, facts_of_call, facts_of_file};

/// A name, what is run on every input, and inputs to begin with.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

pub const TARGETS: [Target; 3] = [("facts_file", file, file_seeds), ("facts_calls", calls, call_seeds), ("threat_list", list, list_seeds)];

/// Snapshots and Config items: what was learned makes the same timelines at once and bit by bit, and they answer.
fn file(data: &[u8]) {
    let key = "AWSLogs/111122223333/Config/eu-west-1/2026/1/5/x.json";
    let Ok(facts) = facts_of_file(data, key, Some(EventTime(1_767_571_200))) else { return };
    timelines(&facts);
}

/// CloudTrail records that tell of interfaces and functions.
fn calls(data: &[u8]) {
    let mut facts = Vec::new();
    read(data, &mut |item| {
        if let Item::Call(call) = item {
            facts.extend(facts_of_call(call));
        }
    });
    timelines(&facts);
}

fn timelines(facts: &[Fact]) {
    let whole: BTreeSet<Fact> = facts.iter().cloned().collect();
    let built = Timelines::build(&whole);
    let mut grown = Timelines::default();
    facts.iter().rev().for_each(|fact| grown.update(std::iter::once(fact.clone())));
    assert_eq!(built, grown, "facts learned one by one");
    let _ = built.owner_rows(EventTime(1_800_000_000));
    for fact in facts.iter().take(20) {
        let account = fact.account.as_deref().unwrap_or("111122223333");
        let at = fact.at.unwrap_or(EventTime(1_767_571_200));
        if let FactKind::InterfaceSeen(interface) = &fact.kind {
            let (first, last) = (at, at.plus(60));
            assert_eq!(built.attribute(account, &interface.eni, first, last), grown.attribute(account, &interface.eni, first, last));
            let _ = built.entity(account, &interface.eni, at);
            let _ = built.peer(account, &interface.eni, Ip::v4(0x0a00_0005), first, last);
        }
        let _ = built.functions(account);
    }
}

/// A threat list: every line is an entry, bad, or none; what is listed is found under the addresses beside it, too.
fn list(data: &[u8]) {
    let mut builder = AddressBook::builder();
    let report = builder.list("fuzzed", None, data);
    assert!(report.entries + report.bad <= data.split(|b| *b == b'\n').count() as u64);
    assert!(report.samples.len() as u64 <= report.bad);
    let book = builder.build();
    assert_eq!(book.has_lists(), report.entries > 0);
    let words = data.split(|b| !b.is_ascii_hexdigit() && !matches!(b, b'.' | b':')).filter_map(|w| Ip::parse(std::str::from_utf8(w).ok()?));
    for ip in words.take(20) {
        for near in [ip.0.wrapping_sub(1), ip.0, ip.0.wrapping_add(1)].map(Ip) {
            let hits = book.listed(near, EventTime(1_767_571_200));
            assert!(hits.len() as u64 <= report.entries);
            let _ = book.listed_within(near, EventTime(1_767_571_200), 86_400);
            let _ = book.name(near);
        }
    }
}

fn file_seeds() -> Vec<Vec<u8>> {
    let interface = r#"{"NetworkInterfaceId":"eni-0a","OwnerId":"111122223333","VpcId":"vpc-1","SubnetId":"subnet-1","AvailabilityZone":"eu-west-1a","Status":"in-use","RequesterManaged":false,"InterfaceType":"lambda","Description":"AWS Lambda VPC ENI-orders-6f1c2b9e-0000-4000-8000-000000000001","PrivateIpAddress":"10.0.0.5","PrivateIpAddresses":[{"Primary":true,"PrivateIpAddress":"10.0.0.5"}],"Groups":[{"GroupId":"sg-1","GroupName":"g"}],"TagSet":[],"Attachment":{"InstanceOwnerId":"amazon-aws","Status":"attached","DeviceIndex":1}}"#;
    let function = r#"{"FunctionName":"orders","FunctionArn":"arn:aws:lambda:eu-west-1:111122223333:function:orders","Role":"arn:aws:iam::111122223333:role/r","LastModified":"2026-01-01T00:00:00.000+0000","Version":"$LATEST","State":"Active","VpcConfig":{"SubnetIds":["subnet-1"],"SecurityGroupIds":["sg-1"],"VpcId":"vpc-1"}}"#;
    let config = r#"{"configurationItemCaptureTime":"2026-01-05T00:00:00.000Z","configurationItemStatus":"OK","awsAccountId":"111122223333","awsRegion":"eu-west-1","resourceType":"AWS::EC2::NetworkInterface","resourceId":"eni-0a","ARN":"arn:x","configuration":"#;
    let deleted = r#"{"configurationItemCaptureTime":"2026-01-06T00:00:00.000Z","configurationItemStatus":"ResourceDeleted","awsAccountId":"111122223333","awsRegion":"eu-west-1","resourceType":"AWS::Lambda::Function","resourceId":"orders"}"#;
    let lower =
        interface.replace("NetworkInterfaceId", "networkInterfaceId").replace("Description", "description").replace("Groups", "groups");
    [
        format!(r#"{{"NetworkInterfaces":[{interface},{}]}}"#, interface.replace("eni-0a", "eni-0b")),
        format!(r#"{{"Functions":[{function}],"NextMarker":"m"}}{{"Functions":[{}]}}"#, function.replace("orders", "mailer")),
        format!(r#"{{"flowtrail_snapshot":1,"account_id":"111122223333","region":"eu-west-1","taken_at":"2026-01-05T00:00:00Z","NetworkInterfaces":[{interface}],"Functions":[{function}]}}"#),
        format!(r#"{{"fileVersion":"1.0","configurationItems":[{config}{lower}}},{deleted}]}}"#),
        format!(r#"{{"configurationItem":{config}{}}}}}"#, serde_json::Value::from(lower.as_str())),
        format!("[{interface},{function}]"),
    ]
    .map(String::into_bytes)
    .to_vec()
}

fn call_seeds() -> Vec<Vec<u8>> {
    let call = |name: &str, source: &str, request: &str, response: &str| {
        format!(
            r#"{{"eventTime":"2026-01-05T10:00:00Z","eventSource":"{source}.amazonaws.com","eventName":"{name}","awsRegion":"eu-west-1","recipientAccountId":"111122223333","eventCategory":"Management","managementEvent":true,"userIdentity":{{"type":"AssumedRole","accountId":"111122223333","invokedBy":"lambda.amazonaws.com"}},"requestParameters":{request},"responseElements":{response}}}"#
        )
        .into_bytes()
    };
    let interface = r#"{"networkInterface":{"networkInterfaceId":"eni-0a","ownerId":"111122223333","vpcId":"vpc-1","subnetId":"subnet-1","availabilityZone":"eu-west-1a","description":"AWS Lambda VPC ENI-orders-6f1c2b9e-0000-4000-8000-000000000001","interfaceType":"lambda","privateIpAddress":"10.0.0.5","groupSet":{"items":[{"groupId":"sg-1"}]}}}"#;
    let function = r#"{"functionName":"orders","functionArn":"arn:aws:lambda:eu-west-1:111122223333:function:orders","version":"$LATEST","vpcConfig":{"subnetIds":["subnet-1"],"securityGroupIds":["sg-1"],"vpcId":"vpc-1"}}"#;
    vec![
        call("CreateNetworkInterface", "ec2", r#"{"subnetId":"subnet-1"}"#, interface),
        call("DeleteNetworkInterface", "ec2", r#"{"networkInterfaceId":"eni-0a"}"#, r#"{"_return":true}"#),
        call("CreateFunction20150331", "lambda", r#"{"functionName":"orders","vpcConfig":{"subnetIds":["subnet-1"],"securityGroupIds":["sg-1"]}}"#, function),
        call("UpdateFunctionConfiguration20150331v2", "lambda", r#"{"functionName":"orders","vpcConfig":{"subnetIds":[],"securityGroupIds":[]}}"#, function),
        call("DeleteFunction20150331", "lambda", r#"{"functionName":"orders"}"#, "null"),
        [call("Invoke", "lambda", r#"{"functionName":"orders"}"#, "null"), b"\n".to_vec()].concat(),
        br#"{"eventTime":"2026-01-05T10:00:00Z","eventSource":"lambda.amazonaws.com","eventName":"Invoke","eventCategory":"Data","resources":[{"ARN":"arn:aws:lambda:eu-west-1:111122223333:function:orders"}],"additionalEventData":{"customerEniId":"eni-0a"}}"#.to_vec(),
    ]
}

fn list_seeds() -> Vec<Vec<u8>> {
    [
        "range,category,confidence,valid_from,valid_to\n192.0.2.0/24,c2,0.9,2026-01-01T00:00:00Z,2027-01-01T00:00:00Z\n203.0.113.9,tor,80,,\n2001:db8::/32,c2,,2026-01-01,\n",
        "# comment\n192.0.2.1\n192.0.2.0/30\n192.0.2.4-192.0.2.9\n; more\n// more\n\n::1\n::ffff:10.0.0.1\n",
        "first_seen,ip_address,type\n2026-01-01 00:00:00,198.51.100.7,\"mining, pool\"\n2026-01-01,198.51.100.300,x\n",
        "\u{feff}10.0.0.0/8,c2,2,3,4\n10.0.0.0/33\n0.0.0.0/0\n::/0\n",
    ]
    .map(|s| s.as_bytes().to_vec())
    .to_vec()
}

/// Damaged seeds of each target, in ordinary tests.
#[cfg(test)]
const ROUNDS: usize = 1500;

#[cfg(test)]
#[path = "../../fuzz/batter.rs"]
mod batter;
