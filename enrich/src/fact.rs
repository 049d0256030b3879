//! Facts: dated pieces of outside knowledge. A set of them; the same fact learned twice is one.

use std::sync::Arc;

use flowtrail_ingest::{ApiCall, EventTime, Hour, Ip};
use serde::{Deserialize, Serialize};

pub use crate::fact_calls::facts_of_call;
pub use crate::fact_files::facts_of_file;

/// An id or name: shared, because millions of facts speak of few things.
pub type Word = Arc<str>;

/// Words met so far, one copy each: facts that were read from the state bring a copy of their own of every word.
#[derive(Debug, Default)]
pub struct Words(hashbrown::HashSet<Word>);

impl Words {
    fn share(&mut self, word: &mut Word) {
        *word = self.0.get_or_insert_with(&**word, |text| Word::from(text)).clone();
    }

    fn share_config(&mut self, config: &mut VpcConfig) {
        config.subnets.iter_mut().chain(&mut config.groups).for_each(|word| self.share(word));
    }
}

impl Fact {
    /// Shares the words that many facts have in common; the fact is equal to what it was.
    pub fn share_words(&mut self, words: &mut Words) {
        match &mut self.kind {
            FactKind::InterfaceSeen(shown) | FactKind::InterfaceCreated(shown) => {
                let Some(shown) = Arc::get_mut(shown) else { return };
                let one = [&mut shown.vpc, &mut shown.subnet, &mut shown.interface_type, &mut shown.instance_owner];
                one.into_iter().flatten().chain(shown.groups.iter_mut().flatten()).for_each(|word| words.share(word));
            }
            FactKind::FunctionSeen(state) => {
                if let Some(config) = Arc::get_mut(state).and_then(|state| state.vpc.as_mut()) {
                    words.share_config(config);
                }
            }
            FactKind::FunctionCreated { vpc: VpcChange::Now(config), .. }
            | FactKind::FunctionChanged { vpc: VpcChange::Now(config), .. } => {
                words.share_config(config);
            }
            _ => {}
        }
    }
}

/// One fact. `Ord` so that a set of facts has one order on every machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fact {
    /// When it held or happened; `None` for a snapshot without a date.
    pub at: Option<EventTime>,
    /// Account, where the fact says.
    pub account: Option<String>,
    /// Region, where the fact says.
    pub region: Option<String>,
    /// What was learned.
    pub kind: FactKind,
}

/// What a fact says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FactKind {
    /// At least one management event of the account and region was delivered for the hour that begins at `at`.
    ManagementDelivered,
    /// Every interface of the account and region was in the snapshot taken at `at`: one that was not did not exist.
    InterfacesComplete,
    /// Every function of the account and region was in the list taken at `at`.
    FunctionsComplete {
        /// The list held published versions too (`FunctionVersion=ALL`).
        all_versions: bool,
    },
    /// An interface as a snapshot or a Config item showed it.
    InterfaceSeen(Arc<Interface>),
    /// An interface was made (CreateNetworkInterface, RunInstances).
    InterfaceCreated(Arc<Interface>),
    /// An interface was deleted.
    InterfaceDeleted {
        /// `eni-…`
        eni: Word,
    },
    /// An interface was given other security groups by hand.
    InterfaceGroups {
        /// `eni-…`
        eni: Word,
        /// Sorted `sg-…`.
        groups: Vec<Word>,
    },
    /// Addresses were assigned to an interface.
    AddressesAdded {
        /// `eni-…`
        eni: Word,
        /// Addresses and prefixes, each with its prefix length (an address: 32 or 128), sorted.
        ranges: Vec<(Ip, u8)>,
    },
    /// Addresses were taken from an interface.
    AddressesRemoved {
        /// `eni-…`
        eni: Word,
        /// As in `AddressesAdded`.
        ranges: Vec<(Ip, u8)>,
    },
    /// An interface was attached to an instance.
    InterfaceAttached {
        /// `eni-…`
        eni: Word,
        /// `i-…`
        instance: Word,
    },
    /// An instance was terminated: its interfaces go with it, unless one is seen later.
    InstanceTerminated {
        /// `i-…`
        instance: Word,
    },
    /// A function, or a published version of it, as a list or a Config item showed it.
    FunctionSeen(Arc<FunctionState>),
    /// A function was created.
    FunctionCreated {
        /// ARN without qualifier.
        function: Word,
        /// Its network configuration.
        vpc: VpcChange,
        /// `publish: true`: version 1 was published at once.
        published: bool,
    },
    /// A function's code or configuration was changed.
    FunctionChanged {
        /// ARN without qualifier.
        function: Word,
        /// What became of its network configuration.
        vpc: VpcChange,
    },
    /// A version was published: it keeps the configuration of that moment.
    FunctionPublished {
        /// ARN without qualifier.
        function: Word,
        /// Version, e.g. `3`; empty when the event does not say.
        version: Word,
    },
    /// A function, or one version of it, was deleted.
    FunctionDeleted {
        /// ARN without qualifier.
        function: Word,
        /// The version, when only that was deleted.
        version: Option<Word>,
    },
    /// A function was invoked and used this interface (`additionalEventData.customerEniId`); `at` is the minute.
    Invoked {
        /// `eni-…`
        eni: Word,
        /// ARN without qualifier.
        function: Word,
    },
}

/// An interface as something showed it. A field that was absent or of an odd type is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Interface {
    /// `eni-…`
    pub eni: Word,
    /// `vpc-…`
    pub vpc: Option<Word>,
    /// `subnet-…`
    pub subnet: Option<Word>,
    /// Sorted `sg-…`; `None` when the source has no such field.
    pub groups: Option<Vec<Word>>,
    /// Private addresses, the primary one first, the others sorted; IPv6 ones after.
    pub addresses: Vec<Ip>,
    /// Delegated prefixes (/28, /80) and assigned ranges: first address and length, sorted.
    pub prefixes: Vec<(Ip, u8)>,
    /// Public addresses tied to it (`Association.PublicIp`), sorted.
    pub public: Vec<Ip>,
    /// `Description`, control characters escaped.
    pub description: Option<Word>,
    /// `InterfaceType`.
    pub interface_type: Option<Word>,
    /// `RequesterId`.
    pub requester: Option<Word>,
    /// `Attachment.InstanceId`.
    pub instance: Option<Word>,
    /// `Attachment.InstanceOwnerId`.
    pub instance_owner: Option<Word>,
    /// `Attachment.AttachTime`: it existed then.
    pub attached_at: Option<EventTime>,
    /// The tag `Name`.
    pub name: Option<Word>,
}

/// A function's network configuration. Empty lists: it is in no VPC.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VpcConfig {
    /// Sorted `subnet-…`.
    pub subnets: Vec<Word>,
    /// Sorted `sg-…`.
    pub groups: Vec<Word>,
}

/// What an event says about a function's network configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum VpcChange {
    /// The event leaves it as it was.
    Unchanged,
    /// It is this from now on.
    Now(VpcConfig),
    /// It may have changed and the event does not say to what (left-out parameters).
    Unsaid,
}

/// A function or one published version as a list showed it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FunctionState {
    /// ARN without qualifier.
    pub function: Word,
    /// `None`: `$LATEST`.
    pub version: Option<Word>,
    /// Its network configuration; `None` when the source does not say.
    pub vpc: Option<VpcConfig>,
    /// `LastModified`: nothing about it changed since.
    pub modified: Option<EventTime>,
}

/// Account, region and hour that a management event proves delivery for. Failed calls count: they were delivered too.
/// Callers need one fact an hour ([`management_fact`]), so they remember what they have and no call costs anything.
#[must_use]
pub fn management_hour<'c>(call: &'c ApiCall<'_>) -> Option<(&'c str, &'c str, Hour)> {
    let management = match (call.category.as_deref(), call.management) {
        (Some(category), _) => category == "Management",
        (None, Some(management)) => management,
        // Before version 1.07 records say neither; these services' data events are the common ones.
        (None, None) => !(matches!(call.service(), "s3" | "dynamodb") || call.event_name.starts_with("Invoke")),
    };
    if !management {
        return None;
    }
    let region = call.region.as_deref().filter(|r| !r.is_empty())?;
    Some((call.account()?, region, call.time.hour()))
}

/// The fact that management events of `account` and `region` were delivered for `hour` (see [`management_hour`]).
#[must_use]
pub fn management_fact(account: &str, region: &str, hour: Hour) -> Fact {
    Fact { at: Some(hour.start()), account: Some(account.to_owned()), region: Some(region.to_owned()), kind: FactKind::ManagementDelivered }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn shared_words_change_no_fact() {
        let seen = |eni: &str| Fact {
            at: None,
            account: None,
            region: None,
            kind: FactKind::InterfaceSeen(Arc::new(Interface {
                eni: eni.into(),
                vpc: Some("vpc-1".into()),
                groups: Some(vec!["sg-1".into()]),
                ..Interface::default()
            })),
        };
        let (mut words, mut facts) = (Words::default(), vec![seen("eni-1"), seen("eni-2")]);
        facts.iter_mut().for_each(|fact| fact.share_words(&mut words));
        assert_eq!(facts, [seen("eni-1"), seen("eni-2")]);
        let vpcs: Vec<&Word> = facts
            .iter()
            .filter_map(|fact| if let FactKind::InterfaceSeen(shown) = &fact.kind { shown.vpc.as_ref() } else { None })
            .collect();
        assert!(Arc::ptr_eq(vpcs[0], vpcs[1]), "two copies of one word");
    }
}
