//! Interfaces and functions out of JSON, however it is spelled.
//!
//! One thing has three spellings: the API's (`PrivateIpAddresses`), Config's (`privateIpAddresses`) and CloudTrail's
//! (`privateIpAddressesSet.item`). What is absent or of another type than expected is absent; nothing here fails.

use flowtrail_ingest::{EventTime, Ip, escaped};
use serde_json::Value;

use crate::fact::{FunctionState, Interface, VpcChange, VpcConfig, Word};

/// A member by its API name or with a small first letter.
pub(crate) fn get<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let object = value.as_object()?;
    let found = match object.get(name) {
        Some(found) => found,
        None => {
            let mut small = name.to_owned();
            small.get_mut(..1)?.make_ascii_lowercase();
            object.get(&small)?
        }
    };
    (!found.is_null()).then_some(found)
}

/// A string member that is not empty, safe to show: control characters are escaped.
pub(crate) fn text(value: &Value, name: &str) -> Option<Word> {
    word(get(value, name)?)
}

/// A string that is not empty, safe to show.
pub(crate) fn word(value: &Value) -> Option<Word> {
    value.as_str().filter(|s| !s.is_empty()).map(|s| Word::from(escaped(s.as_bytes())))
}

/// A list: an array, or CloudTrail's `{"items":[…]}` or `{"item":[…]}`.
pub(crate) fn list(value: Option<&Value>) -> Option<&[Value]> {
    let value = value?;
    if let Some(array) = value.as_array() {
        return Some(array);
    }
    let object = value.as_object()?;
    match object.get("items").or_else(|| object.get("item")) {
        Some(Value::Array(array)) => Some(array),
        // An empty set is `{}`.
        None if object.is_empty() => Some(&[]),
        _ => None,
    }
}

/// The address in a string member.
pub(crate) fn address(value: &Value, name: &str) -> Option<Ip> {
    Ip::parse(get(value, name)?.as_str()?.trim())
}

/// A CIDR or a single address as (first address, prefix length within its family).
pub(crate) fn range(text: &str) -> Option<(Ip, u8)> {
    match text.split_once('/') {
        None => Ip::parse(text.trim()).map(|ip| (ip, if ip.is_v4() { 32 } else { 128 })),
        Some(_) => {
            let net: ipnet::IpNet = text.trim().parse().ok()?;
            Some((Ip::from(net.network()), net.prefix_len()))
        }
    }
}

/// Sorted ids of a list whose elements are strings or objects that hold one.
fn ids(items: &[Value], name: &str) -> Vec<Word> {
    let mut ids: Vec<Word> = items.iter().filter_map(|i| word(i).or_else(|| text(i, name))).collect();
    ids.sort();
    ids.dedup();
    ids
}

/// An interface; `None` without an id.
pub(crate) fn interface(value: &Value) -> Option<Interface> {
    let eni = text(value, "NetworkInterfaceId")?;
    let attachment = get(value, "Attachment");
    let mut rest = Vec::new();
    let mut primary = address(value, "PrivateIpAddress");
    let mut public = Vec::new();
    public.extend(get(value, "Association").and_then(|a| address(a, "PublicIp")));
    for item in list(get(value, "PrivateIpAddresses").or_else(|| get(value, "PrivateIpAddressesSet"))).unwrap_or_default() {
        if let Some(ip) = address(item, "PrivateIpAddress") {
            if get(item, "Primary").and_then(Value::as_bool) == Some(true) {
                primary = primary.or(Some(ip));
            }
            rest.push(ip);
        }
        public.extend(get(item, "Association").and_then(|a| address(a, "PublicIp")));
    }
    for item in list(get(value, "Ipv6Addresses").or_else(|| get(value, "Ipv6AddressesSet"))).unwrap_or_default() {
        rest.extend(address(item, "Ipv6Address"));
    }
    // IPv4 sorts before IPv6 among an interface's addresses.
    rest.sort_by_key(|ip| (!ip.is_v4(), *ip));
    rest.dedup();
    rest.retain(|ip| Some(*ip) != primary);
    let addresses: Vec<Ip> = primary.into_iter().chain(rest).collect();
    let mut prefixes = Vec::new();
    for (names, member) in [(["Ipv4Prefixes", "Ipv4PrefixSet"], "Ipv4Prefix"), (["Ipv6Prefixes", "Ipv6PrefixSet"], "Ipv6Prefix")] {
        for item in list(names.iter().find_map(|n| get(value, n))).unwrap_or_default() {
            prefixes.extend(get(item, member).and_then(Value::as_str).and_then(range));
        }
    }
    prefixes.sort();
    prefixes.dedup();
    public.sort();
    public.dedup();
    let tags = list(get(value, "TagSet").or_else(|| get(value, "Tags"))).unwrap_or_default();
    let name = tags.iter().find(|t| get(t, "Key").and_then(Value::as_str) == Some("Name")).and_then(|t| text(t, "Value"));
    Some(Interface {
        eni,
        vpc: text(value, "VpcId"),
        subnet: text(value, "SubnetId"),
        groups: list(get(value, "Groups").or_else(|| get(value, "GroupSet"))).map(|items| ids(items, "GroupId")),
        addresses,
        prefixes,
        public,
        description: text(value, "Description"),
        interface_type: text(value, "InterfaceType"),
        requester: text(value, "RequesterId"),
        instance: attachment.and_then(|a| text(a, "InstanceId")),
        instance_owner: attachment.and_then(|a| text(a, "InstanceOwnerId")),
        attached_at: attachment.and_then(|a| get(a, "AttachTime")).and_then(time),
        name,
    })
}

/// The region that an interface's availability zone tells.
pub(crate) fn interface_region(value: &Value) -> Option<String> {
    let zone = get(value, "AvailabilityZone")?.as_str()?;
    crate::arn::region_of_zone(zone).map(|r| escaped(r.as_bytes()))
}

/// A moment: text in one of AWS's ways, or seconds or milliseconds since 1970.
pub(crate) fn time(value: &Value) -> Option<EventTime> {
    match value {
        Value::String(text) => EventTime::parse(text),
        Value::Number(number) => {
            let n = number.as_f64()?;
            // Past the year 5138 as seconds: it is milliseconds.
            let secs = if n.abs() >= 1e11 { n / 1000.0 } else { n };
            (secs.is_finite() && secs.abs() < 1e12).then_some(EventTime(secs as i64))
        }
        _ => None,
    }
}

/// A `VpcConfig`. `None` when one of the lists is missing although the other names something: half of it is no knowledge.
pub(crate) fn vpc_config(value: &Value) -> Option<VpcConfig> {
    value.as_object()?;
    let subnets = list(get(value, "SubnetIds")).map(|items| ids(items, "SubnetId"));
    let groups = list(get(value, "SecurityGroupIds")).map(|items| ids(items, "SecurityGroupId"));
    match (subnets, groups) {
        (Some(subnets), Some(groups)) => Some(VpcConfig { subnets, groups }),
        (None, None) => Some(VpcConfig::default()),
        (Some(one), None) | (None, Some(one)) => one.is_empty().then(VpcConfig::default),
    }
}

/// What the parameters or the answer of a call say about a function's network configuration.
pub(crate) fn vpc_change(value: Option<&Value>) -> VpcChange {
    let Some(value) = value else { return VpcChange::Unchanged };
    if get(value, "Omitted").is_some_and(|o| o.as_bool() == Some(true) || o.as_str() == Some("true")) {
        return VpcChange::Unsaid;
    }
    match get(value, "VpcConfig") {
        None => VpcChange::Unchanged,
        Some(config) => vpc_config(config).map_or(VpcChange::Unsaid, VpcChange::Now),
    }
}

/// A function of `ListFunctions` or of a Config item; `None` without an ARN or, where account and region are known, a name.
pub(crate) fn function(value: &Value, account: &str, region: &str) -> Option<FunctionState> {
    let named = get(value, "FunctionArn").or_else(|| get(value, "FunctionName"))?.as_str()?;
    let (arn, qualifier) = crate::arn::function_arn(named, account, region)?;
    let version = text(value, "Version").filter(|v| &**v != "$LATEST").or(qualifier.map(|q| Word::from(escaped(q.as_bytes()))));
    let vpc = match get(value, "VpcConfig") {
        // Lists leave the member out for functions outside a VPC.
        None => Some(VpcConfig::default()),
        Some(config) => vpc_config(config),
    };
    let modified = get(value, "LastModified").and_then(time);
    Some(FunctionState { function: Word::from(escaped(arn.as_bytes())), version, vpc, modified })
}
