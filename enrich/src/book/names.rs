//! Named ranges: the user's own networks and AWS's published ones; the narrowest wins.

use flowtrail_ingest::{Ip, escaped};
use serde::Deserialize;

use super::BookError;
use super::range::{parse, shown};
use super::sweep::sweep;

/// Ranges of which the best over each address was chosen: sorted, disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NameTable {
    segments: Vec<(u128, u128, u32)>,
}

impl NameTable {
    /// Of ranges `(first, last, payload)`, keeps over each address the one that `rank` puts highest; ties go to the
    /// smaller payload.
    pub(super) fn new<R: Ord>(mut ranges: Vec<(u128, u128, u32)>, rank: impl Fn(u128, u32) -> R) -> Self {
        ranges.sort_unstable();
        ranges.dedup();
        let mut segments: Vec<(u128, u128, u32)> = Vec::with_capacity(ranges.len());
        sweep(&ranges, |first, last, over| {
            let best = over.iter().filter_map(|n| ranges.get(*n)).max_by_key(|(a, b, payload)| {
                // The narrower range is the greater, before anything else is asked.
                (std::cmp::Reverse(b - a), rank(b - a, *payload), std::cmp::Reverse(*payload))
            });
            if let Some((_, _, payload)) = best {
                match segments.last_mut() {
                    Some((_, end, before)) if *before == *payload && end.checked_add(1) == Some(first) => *end = last,
                    _ => segments.push((first, last, *payload)),
                }
            }
        });
        Self { segments }
    }

    pub(super) fn find(&self, ip: Ip) -> Option<u32> {
        let after = self.segments.partition_point(|(first, _, _)| *first <= ip.0);
        let (_, last, payload) = self.segments.get(after.checked_sub(1)?)?;
        (ip.0 <= *last).then_some(*payload)
    }
}

/// The user's own network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) first: Ip,
    pub(super) last: Ip,
    pub(super) name: String,
}

pub(super) fn network(cidr: &str, name: &str) -> Result<Network, BookError> {
    let (first, last) = parse(cidr).map_err(|error| BookError::Network { name: name.to_owned(), error })?;
    let name = if name.trim().is_empty() { shown(first, last) } else { escaped(name.trim().as_bytes()) };
    Ok(Network { first, last, name })
}

/// One service in one region, as AWS publishes them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AwsService {
    pub(super) service: String,
    pub(super) region: String,
}

impl AwsService {
    /// True for ranges whose addresses anyone can rent or put his own content behind: an address there says nothing of who
    /// is at the other end.
    pub(super) fn rented(&self) -> bool {
        matches!(
            &*self.service,
            "EC2"
                | "CLOUDFRONT"
                | "CLOUDFRONT_ORIGIN_FACING"
                | "GLOBALACCELERATOR"
                | "API_GATEWAY"
                | "CODEBUILD"
                | "CLOUD9"
                | "WORKSPACES_GATEWAYS"
        )
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    prefixes: Vec<Prefix>,
    #[serde(default)]
    ipv6_prefixes: Vec<Prefix>,
}

#[derive(Deserialize)]
struct Prefix {
    #[serde(alias = "ipv6_prefix")]
    ip_prefix: String,
    #[serde(default)]
    service: String,
    #[serde(default)]
    region: String,
}

/// AWS's ranges out of `ip-ranges.json`, and the services they point to.
pub(super) fn aws(bytes: &[u8]) -> Result<(Vec<(u128, u128, u32)>, Vec<AwsService>), BookError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let file: File = serde_json::from_slice(bytes).map_err(|e| BookError::AwsRanges(e.to_string()))?;
    let mut found: Vec<(u128, u128, AwsService)> = Vec::new();
    for prefix in file.prefixes.iter().chain(&file.ipv6_prefixes) {
        let (first, last) = parse(&prefix.ip_prefix).map_err(|e| BookError::AwsRanges(e.to_string()))?;
        let safe = |text: &str| escaped(text.as_bytes());
        found.push((first.0, last.0, AwsService { service: safe(&prefix.service), region: safe(&prefix.region) }));
    }
    if found.is_empty() {
        return Err(BookError::AwsRanges("it has neither prefixes nor ipv6_prefixes".to_owned()));
    }
    let mut services: Vec<AwsService> = found.iter().map(|(_, _, s)| s.clone()).collect();
    services.sort();
    services.dedup();
    let ranges = found
        .into_iter()
        .map(|(first, last, service)| (first, last, services.binary_search(&service).unwrap_or_default() as u32))
        .collect();
    Ok((ranges, services))
}
