//! Facts of CloudTrail events (shapes: domain/cloudtrail.md sections 4 to 6).

use std::sync::Arc;

use flowtrail_ingest::{ApiCall, EventTime, Ip, escaped};
use serde_json::Value;

use crate::arn::{account_of, function_arn, region_of};
use crate::fact::{Fact, FactKind, VpcChange, Word};
use crate::shape::{address, get, interface, list, range, text, vpc_change};

/// Facts of one CloudTrail event: interface and function changes and invocations with `customerEniId`. None for a call
/// that failed. Delivery of management events is told by [`crate::management_hour`], once an hour, not here: all other
/// calls cost two string comparisons.
#[must_use]
pub fn facts_of_call(call: &ApiCall<'_>) -> Vec<Fact> {
    match &*call.event_source {
        "lambda.amazonaws.com" => lambda(call),
        "ec2.amazonaws.com" => ec2(call),
        _ => Vec::new(),
    }
}

fn failed(call: &ApiCall<'_>) -> bool {
    call.error_code.as_deref().is_some_and(|e| !e.is_empty())
}

fn parsed(raw: Option<&[u8]>) -> Option<Value> {
    serde_json::from_slice(raw?).ok()
}

fn fact(call: &ApiCall<'_>, at: EventTime, kind: FactKind) -> Fact {
    Fact { at: Some(at), account: call.account().map(str::to_owned), region: call.region.as_deref().map(str::to_owned), kind }
}

/// A fact about a function: filed under the account and region of its ARN, for calls across accounts are recorded in both.
fn function_fact(call: &ApiCall<'_>, at: EventTime, arn: &str, kind: FactKind) -> Fact {
    Fact {
        at: Some(at),
        account: account_of(arn).or(call.account()).map(str::to_owned),
        region: region_of(arn).or(call.region.as_deref()).map(str::to_owned),
        kind,
    }
}

/// ARN and qualifier out of answer or request.
fn named(call: &ApiCall<'_>, request: Option<&Value>, response: Option<&Value>) -> Option<(Word, Option<Word>)> {
    let of_answer = response.and_then(|r| get(r, "FunctionArn"));
    let of_request = request.and_then(|r| get(r, "FunctionName"));
    let asked = of_request.and_then(Value::as_str);
    let name = of_answer.and_then(Value::as_str).or(asked)?;
    let (arn, qualifier) = function_arn(name, call.account().unwrap_or(""), call.region.as_deref().unwrap_or(""))?;
    Some((safe(&arn), qualifier.map(|q| safe(&q))))
}

fn safe(text: &str) -> Word {
    Word::from(escaped(text.as_bytes()))
}

fn lambda(call: &ApiCall<'_>) -> Vec<Fact> {
    let action = call.action();
    if action.starts_with("Invoke") {
        return invoked(call);
    }
    if !matches!(action, "CreateFunction" | "UpdateFunctionConfiguration" | "UpdateFunctionCode" | "DeleteFunction" | "PublishVersion")
        || failed(call)
    {
        return Vec::new();
    }
    let (request, response) = (parsed(call.request), parsed(call.response));
    let Some((function, qualifier)) = named(call, request.as_ref(), response.as_ref()) else { return Vec::new() };
    let flag = |name: &str| request.as_ref().and_then(|r| get(r, name)).and_then(Value::as_bool) == Some(true);
    let vpc = || match vpc_change(response.as_ref()) {
        now @ VpcChange::Now(_) => now,
        of_answer => match vpc_change(request.as_ref()) {
            VpcChange::Unchanged => of_answer,
            of_request => of_request,
        },
    };
    let kind = match action {
        "CreateFunction" => {
            // A function that is created without a VpcConfig is in no VPC.
            let vpc = match vpc() {
                VpcChange::Unchanged => VpcChange::Now(Default::default()),
                said => said,
            };
            FactKind::FunctionCreated { function: function.clone(), vpc, published: flag("Publish") }
        }
        "UpdateFunctionConfiguration" => FactKind::FunctionChanged { function: function.clone(), vpc: vpc() },
        "UpdateFunctionCode" if flag("DryRun") => return Vec::new(),
        "UpdateFunctionCode" => FactKind::FunctionChanged { function: function.clone(), vpc: VpcChange::Unchanged },
        "PublishVersion" => {
            let version = response.as_ref().and_then(|r| text(r, "Version")).or(qualifier).unwrap_or_default();
            FactKind::FunctionPublished { function: function.clone(), version }
        }
        _ => {
            let asked = request.as_ref().and_then(|r| text(r, "Qualifier"));
            FactKind::FunctionDeleted { function: function.clone(), version: asked.or(qualifier) }
        }
    };
    let mut facts = vec![function_fact(call, call.time, &function, kind)];
    if action == "UpdateFunctionCode" && flag("Publish") {
        let version = response.as_ref().and_then(|r| text(r, "Version")).unwrap_or_default();
        facts.push(function_fact(call, call.time, &function, FactKind::FunctionPublished { function: function.clone(), version }));
    }
    facts
}

fn invoked(call: &ApiCall<'_>) -> Vec<Fact> {
    let mentions = call.additional.and_then(|raw| std::str::from_utf8(raw).ok()).is_some_and(|raw| raw.contains("customerEniId"));
    if !mentions || failed(call) {
        return Vec::new();
    }
    let Some(additional) = parsed(call.additional) else { return Vec::new() };
    let Some(eni) = text(&additional, "customerEniId").filter(|e| e.starts_with("eni-")) else { return Vec::new() };
    let resources = parsed(call.resources);
    let of_resource = || {
        list(resources.as_ref())?.iter().find_map(|r| {
            let arn = r.get("ARN").or_else(|| r.get("arn"))?.as_str()?;
            arn.contains(":function:").then(|| arn.to_owned())
        })
    };
    let of_version = || get(&additional, "functionVersion")?.as_str().map(str::to_owned);
    let of_request = || get(&parsed(call.request)?, "FunctionName")?.as_str().map(str::to_owned);
    let (account, region) = (call.account().unwrap_or(""), call.region.as_deref().unwrap_or(""));
    let name = of_resource().or_else(of_version).or_else(of_request);
    let Some((arn, _)) = name.and_then(|n| function_arn(&n, account, region)) else { return Vec::new() };
    let minute = EventTime(call.time.0.div_euclid(60).saturating_mul(60));
    let kind = FactKind::Invoked { eni, function: safe(&arn) };
    vec![function_fact(call, minute, &arn, kind)]
}

fn ec2(call: &ApiCall<'_>) -> Vec<Fact> {
    let handler: fn(&ApiCall<'_>, Option<&Value>, Option<&Value>) -> Vec<FactKind> = match &*call.event_name {
        "CreateNetworkInterface" => |_, _, response| {
            let made = response.and_then(|r| get(r, "NetworkInterface")).and_then(interface);
            made.map(|i| FactKind::InterfaceCreated(Arc::new(i))).into_iter().collect()
        },
        "DeleteNetworkInterface" => |_, request, _| {
            let eni = request.and_then(|r| text(r, "NetworkInterfaceId"));
            eni.map(|eni| FactKind::InterfaceDeleted { eni }).into_iter().collect()
        },
        "ModifyNetworkInterfaceAttribute" => |_, request, _| groups_changed(request).into_iter().collect(),
        "AssignPrivateIpAddresses" | "AssignIpv6Addresses" => {
            |_, request, response| addresses(request, response, true).into_iter().collect()
        }
        "UnassignPrivateIpAddresses" | "UnassignIpv6Addresses" => {
            |_, request, response| addresses(request, response, false).into_iter().collect()
        }
        "AttachNetworkInterface" => |_, request, _| {
            let eni = request.and_then(|r| text(r, "NetworkInterfaceId"));
            let instance = request.and_then(|r| text(r, "InstanceId"));
            eni.zip(instance).map(|(eni, instance)| FactKind::InterfaceAttached { eni, instance }).into_iter().collect()
        },
        "RunInstances" => |_, _, response| instances_run(response),
        "TerminateInstances" => |_, request, response| {
            let items = list(response.or(request).and_then(|r| get(r, "InstancesSet"))).unwrap_or_default();
            items.iter().filter_map(|i| text(i, "InstanceId")).map(|instance| FactKind::InstanceTerminated { instance }).collect()
        },
        _ => return Vec::new(),
    };
    if failed(call) {
        return Vec::new();
    }
    let (request, response) = (parsed(call.request), parsed(call.response));
    handler(call, request.as_ref(), response.as_ref()).into_iter().map(|kind| fact(call, call.time, kind)).collect()
}

fn groups_changed(request: Option<&Value>) -> Option<FactKind> {
    let eni = text(request?, "NetworkInterfaceId")?;
    let mut groups: Vec<Word> =
        list(get(request?, "GroupSet"))?.iter().filter_map(|g| text(g, "GroupId").or_else(|| crate::shape::word(g))).collect();
    groups.sort();
    groups.dedup();
    (!groups.is_empty()).then_some(FactKind::InterfaceGroups { eni, groups })
}

/// Addresses and prefixes that a call names, in the request or (chosen by EC2) in the answer.
fn addresses(request: Option<&Value>, response: Option<&Value>, added: bool) -> Option<FactKind> {
    let eni = text(request?, "NetworkInterfaceId")?;
    let mut ranges: Vec<(Ip, u8)> = Vec::new();
    for side in [request, response].into_iter().flatten() {
        // The answer's members sit in an element of the call's name in some versions.
        let inner = get(side, "AssignPrivateIpAddressesResponse").or_else(|| get(side, "AssignIpv6AddressesResponse")).unwrap_or(side);
        for set in ["PrivateIpAddressesSet", "AssignedPrivateIpAddressesSet", "AssignedIpv6Addresses", "Ipv6Addresses", "Ipv6AddressesSet"]
        {
            for item in list(get(inner, set)).unwrap_or_default() {
                let ip = address(item, "PrivateIpAddress")
                    .or_else(|| address(item, "Ipv6Address"))
                    .or_else(|| item.as_str().and_then(|s| Ip::parse(s.trim())));
                ranges.extend(ip.map(|ip| (ip, if ip.is_v4() { 32 } else { 128 })));
            }
        }
        for set in ["AssignedIpv4PrefixSet", "AssignedIpv6PrefixSet", "Ipv4PrefixSet", "Ipv6PrefixSet"] {
            for item in list(get(inner, set)).unwrap_or_default() {
                let cidr = get(item, "Ipv4Prefix").or_else(|| get(item, "Ipv6Prefix")).unwrap_or(item);
                ranges.extend(cidr.as_str().and_then(range));
            }
        }
    }
    ranges.sort();
    ranges.dedup();
    if ranges.is_empty() {
        return None;
    }
    Some(if added { FactKind::AddressesAdded { eni, ranges } } else { FactKind::AddressesRemoved { eni, ranges } })
}

/// RunInstances makes the instances' interfaces without an event of their own.
fn instances_run(response: Option<&Value>) -> Vec<FactKind> {
    let mut facts = Vec::new();
    for instance in list(response.and_then(|r| get(r, "InstancesSet"))).unwrap_or_default() {
        let id = text(instance, "InstanceId");
        let tags = list(get(instance, "TagSet")).unwrap_or_default();
        let name = tags.iter().find(|t| get(t, "Key").and_then(Value::as_str) == Some("Name")).and_then(|t| text(t, "Value"));
        for item in list(get(instance, "NetworkInterfaceSet")).unwrap_or_default() {
            if let Some(mut made) = interface(item) {
                made.vpc = made.vpc.or_else(|| text(instance, "VpcId"));
                made.subnet = made.subnet.or_else(|| text(instance, "SubnetId"));
                made.instance = made.instance.or_else(|| id.clone());
                made.name = made.name.or_else(|| name.clone());
                facts.push(FactKind::InterfaceCreated(Arc::new(made)));
            }
        }
    }
    facts
}
