//! Facts in few words, for the tests of timelines.

use std::collections::BTreeSet;

use flowtrail_enrich::fact::{FunctionState, Interface, VpcChange, VpcConfig, Word};
use flowtrail_enrich::{Fact, FactKind, management_fact};
use flowtrail_ingest::{EventTime, Hour, Ip};

pub(crate) const ACCOUNT: &str = "111122223333";
pub(crate) const REGION: &str = "eu-west-1";

/// Times in the tests are minutes after this hour of 2026-01-05.
pub(crate) const START: i64 = 1_767_571_200;

pub(crate) fn minute(minutes: i64) -> EventTime {
    EventTime(START + minutes * 60)
}

pub(crate) fn fact(at: Option<i64>, kind: FactKind) -> Fact {
    Fact { at: at.map(minute), account: Some(ACCOUNT.to_owned()), region: Some(REGION.to_owned()), kind }
}

pub(crate) fn arn(name: &str) -> Word {
    format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}").into()
}

/// `subnet/sg,sg`; empty: in no VPC.
pub(crate) fn config(text: &str) -> VpcConfig {
    let Some((subnets, groups)) = text.split_once('/') else { return VpcConfig::default() };
    let words = |text: &str| text.split(',').map(Word::from).collect();
    VpcConfig { subnets: words(subnets), groups: words(groups) }
}

/// A Lambda interface: `eni`, `subnet/sg,sg`, address, function in the description.
pub(crate) fn lambda_eni(eni: &str, pair: &str, ip: &str, described: &str) -> Interface {
    let pair = config(pair);
    Interface {
        eni: eni.into(),
        vpc: Some("vpc-1".into()),
        subnet: pair.subnets.first().cloned(),
        groups: Some(pair.groups),
        addresses: Ip::parse(ip).into_iter().collect(),
        description: Some(format!("AWS Lambda VPC ENI-{described}-1b2c3d4e-5f60-4711-8899-aabbccddeeff").into()),
        interface_type: Some("lambda".into()),
        ..Interface::default()
    }
}

pub(crate) fn other_eni(eni: &str, vpc: &str, ip: &str, description: &str) -> Interface {
    Interface {
        eni: eni.into(),
        vpc: Some(vpc.into()),
        subnet: Some(format!("subnet-of-{vpc}").into()),
        groups: Some(vec!["sg-other".into()]),
        addresses: Ip::parse(ip).into_iter().collect(),
        description: Some(description.into()),
        interface_type: Some("interface".into()),
        ..Interface::default()
    }
}

pub(crate) fn seen(interface: Interface) -> FactKind {
    FactKind::InterfaceSeen(interface.into())
}

pub(crate) fn created(interface: Interface) -> FactKind {
    FactKind::InterfaceCreated(interface.into())
}

/// A function in a list; `modified` in minutes.
pub(crate) fn listed(name: &str, pair: &str, modified: i64) -> FactKind {
    let state = FunctionState { function: arn(name), version: None, vpc: Some(config(pair)), modified: Some(minute(modified)) };
    FactKind::FunctionSeen(state.into())
}

pub(crate) fn function_created(name: &str, pair: &str) -> FactKind {
    FactKind::FunctionCreated { function: arn(name), vpc: VpcChange::Now(config(pair)), published: false }
}

pub(crate) fn function_changed(name: &str, pair: &str) -> FactKind {
    FactKind::FunctionChanged { function: arn(name), vpc: VpcChange::Now(config(pair)) }
}

pub(crate) fn deployed(name: &str) -> FactKind {
    FactKind::FunctionChanged { function: arn(name), vpc: VpcChange::Unchanged }
}

pub(crate) fn function_deleted(name: &str) -> FactKind {
    FactKind::FunctionDeleted { function: arn(name), version: None }
}

pub(crate) fn complete() -> FactKind {
    FactKind::FunctionsComplete { all_versions: false }
}

/// A management event in each of the hours after the start.
pub(crate) fn management(hours: std::ops::Range<i32>) -> impl Iterator<Item = Fact> {
    let first = minute(0).hour().0;
    hours.map(move |h| management_fact(ACCOUNT, REGION, Hour(first + h)))
}

pub(crate) fn set(facts: impl IntoIterator<Item = (i64, FactKind)>) -> BTreeSet<Fact> {
    facts.into_iter().map(|(at, kind)| fact(Some(at), kind)).collect()
}
