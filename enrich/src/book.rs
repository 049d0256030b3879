//! The address book: AWS's published ranges, the user's own networks, threat lists.

mod index;
mod list;
mod names;
mod range;
mod sweep;

use std::sync::Arc;

use flowtrail_ingest::{EventTime, Ip, escaped};
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

pub use list::{BadLine, ListReport};
pub use range::RangeError;

use crate::names::{PeerKind, PeerName};
use names::{AwsService, NameTable, Network};

/// A hit on a threat list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListHit {
    /// The list's name.
    pub list: String,
    /// `c2`, `mining_pool`, `tor`, `sinkhole`, `custom` …
    pub category: String,
    /// 0 to 1000.
    pub confidence_milli: u32,
    /// The listed range as text.
    pub range: String,
    /// When the entry began to hold.
    pub valid_from: Option<EventTime>,
    /// When it ceased to.
    pub valid_to: Option<EventTime>,
}

/// Why the address book cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// The file of AWS's ranges is not what AWS publishes.
    #[error("AWS's ranges cannot be read: {0}")]
    AwsRanges(String),
    /// A `[[network]]` is no range.
    #[error("network {name:?}: {error}")]
    Network {
        /// Its name.
        name: String,
        /// What is wrong with its range.
        error: RangeError,
    },
}

/// Names for addresses outside the organisation's interfaces. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct AddressBook {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    networks: Vec<Network>,
    network_table: NameTable,
    services: Vec<AwsService>,
    aws_table: NameTable,
    lists: Vec<String>,
    reports: Vec<ListReport>,
    index: index::Index,
}

/// Gathers what goes into an [`AddressBook`].
#[derive(Debug, Default)]
pub struct AddressBookBuilder {
    networks: Vec<Network>,
    services: Vec<AwsService>,
    aws: Vec<(u128, u128, u32)>,
    reports: Vec<ListReport>,
    index: index::Builder,
}

/// Names of lists that are categories as well: `--list c2=FILE`.
const CATEGORIES: [&str; 8] = ["c2", "mining_pool", "tor", "sinkhole", "malware", "phishing", "scanner", "proxy"];

impl AddressBookBuilder {
    /// Takes AWS's `ip-ranges.json`. Returns how many ranges it has.
    ///
    /// # Errors
    /// If it is not what AWS publishes.
    pub fn aws_ranges(&mut self, bytes: &[u8]) -> Result<usize, BookError> {
        (self.aws, self.services) = names::aws(bytes)?;
        Ok(self.aws.len())
    }

    /// Takes one of the user's own networks. The narrowest network names an address, and any of them wins over AWS.
    ///
    /// # Errors
    /// If `cidr` is no range.
    pub fn network(&mut self, cidr: &str, name: &str) -> Result<(), BookError> {
        self.networks.push(names::network(cidr, name)?);
        Ok(())
    }

    /// Takes a threat list: CSV `range[,category,confidence,valid_from,valid_to]` with or without header, or one address,
    /// CIDR or `first-last` a line. `category` is that of entries that name none; without it the list's name where that is
    /// a category, else `custom`. Lines that cannot be read are left out and told.
    pub fn list(&mut self, name: &str, category: Option<&str>, bytes: &[u8]) -> ListReport {
        let category = category.unwrap_or(if CATEGORIES.contains(&name) { name } else { "custom" });
        let category = escaped(category.as_bytes());
        let version = format!("{:032x}", XxHash3_128::oneshot(bytes));
        let mut report = ListReport { name: escaped(name.as_bytes()), version, ..ListReport::default() };
        let number = self.reports.len() as u32;
        list::read(bytes, &category, &mut report, |first, last, says| self.index.add(number, first, last, &says));
        self.reports.push(report.clone());
        report
    }

    /// The finished book.
    #[must_use]
    pub fn build(self) -> AddressBook {
        let networks = self.networks.iter().enumerate().map(|(n, net)| (net.first.0, net.last.0, n as u32)).collect();
        let services = &self.services;
        // Ranges of service AMAZON hold the others; of two equal ranges the one that says more counts.
        let says_more = |_, n: u32| services.get(n as usize).is_some_and(|s| s.service != "AMAZON");
        let aws_table = NameTable::new(self.aws, says_more);
        AddressBook {
            inner: Arc::new(Inner {
                network_table: NameTable::new(networks, |_, _| ()),
                networks: self.networks,
                aws_table,
                services: self.services,
                lists: self.reports.iter().map(|r| r.name.clone()).collect(),
                reports: self.reports,
                index: self.index.build(),
            }),
        }
    }
}

impl AddressBook {
    /// An empty builder.
    #[must_use]
    pub fn builder() -> AddressBookBuilder {
        AddressBookBuilder::default()
    }

    /// Names an address by the user's networks, then AWS's ranges; `Private` or `Internet` when neither knows it.
    #[must_use]
    pub fn name(&self, ip: Ip) -> PeerName {
        let inner = &*self.inner;
        let text = ip.to_string();
        if let Some(network) = inner.network_table.find(ip).and_then(|n| inner.networks.get(n as usize)) {
            let name = network.name.clone();
            return PeerName { kind: PeerKind::Network, key: format!("net:{name}"), name, kind_word: "network".to_owned() };
        }
        if ip.is_private() {
            return PeerName { kind: PeerKind::Private, key: text.clone(), name: text, kind_word: "private".to_owned() };
        }
        if let Some(service) = inner.aws_table.find(ip).and_then(|n| inner.services.get(n as usize)) {
            let AwsService { service: name, region } = service;
            return if service.rented() {
                // Whoever rents it is unknown: the address is the key, and the range only part of the name.
                let name = format!("{text} ({name} {region})");
                PeerName { kind: PeerKind::AwsRented, key: text, name, kind_word: "internet".to_owned() }
            } else {
                let key = format!("aws:{name}:{region}");
                PeerName { kind: PeerKind::AwsService, key, name: format!("{name} {region}"), kind_word: "aws_service".to_owned() }
            };
        }
        PeerName { kind: PeerKind::Internet, key: text.clone(), name: text, kind_word: "internet".to_owned() }
    }

    /// The kind of [`Self::name`], without making a text.
    #[must_use]
    pub fn kind(&self, ip: Ip) -> PeerKind {
        let inner = &*self.inner;
        if inner.network_table.find(ip).is_some_and(|n| inner.networks.get(n as usize).is_some()) {
            return PeerKind::Network;
        }
        if ip.is_private() {
            return PeerKind::Private;
        }
        match inner.aws_table.find(ip).and_then(|n| inner.services.get(n as usize)) {
            Some(service) if service.rented() => PeerKind::AwsRented,
            Some(_) => PeerKind::AwsService,
            None => PeerKind::Internet,
        }
    }

    /// List entries that hold `ip` at `at`, sorted by (list, range).
    #[must_use]
    pub fn listed(&self, ip: Ip, at: EventTime) -> Vec<ListHit> {
        let inner = &*self.inner;
        inner.index.at(ip, &inner.lists, |from, to| from.is_none_or(|f| f <= at) && to.is_none_or(|t| at < t))
    }

    /// List entries that hold `ip` at `at` or begin to within `secs` after it, sorted like [`Self::listed`]: for telling
    /// that something was met before it was listed.
    #[must_use]
    pub fn listed_within(&self, ip: Ip, at: EventTime, secs: i64) -> Vec<ListHit> {
        let inner = &*self.inner;
        let last = at.plus(secs);
        inner.index.at(ip, &inner.lists, |from, to| from.is_none_or(|f| f <= last) && to.is_none_or(|t| at < t))
    }

    /// True if there is any list entry to ask for.
    #[must_use]
    pub fn has_lists(&self) -> bool {
        !self.inner.index.is_empty()
    }

    /// The lists in force, in the order they were given.
    #[must_use]
    pub fn lists(&self) -> &[ListReport] {
        &self.inner.reports
    }
}

#[cfg(test)]
mod tests;
