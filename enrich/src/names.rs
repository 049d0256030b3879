//! What a name is here: who held an interface or address, how sure that is, and what the other end is called.

use flowtrail_ingest::{EventTime, Ip};
use serde::{Deserialize, Serialize};

/// How sure the owner of an interface is (design/architecture.md section 3).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Attribution {
    /// Dated configuration leaves one function over the whole span, or a pre-2019 ENI names its function.
    Exact,
    /// Several functions remain, or the evidence for one is only a hint.
    Candidates,
    /// Held by something that is not a function: named.
    Other,
    /// The timeline knows the interface or address and says nobody held it then.
    Unheld,
    /// Nothing is known.
    #[default]
    Unknown,
}

impl Attribution {
    /// The word of the tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Candidates => "candidates",
            Self::Other => "other",
            Self::Unheld => "unheld",
            Self::Unknown => "unknown",
        }
    }
}

/// A function that may have done it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// Function ARN without qualifier.
    pub arn: String,
    /// Share in thousandths; the candidates of one answer sum to 1000 (rounded down, the rest to the first).
    pub weight_milli: u32,
    /// What speaks for it, e.g. `configuration since 2026-01-05T10:00:00Z`, `named in the description`.
    pub evidence: String,
}

/// Something that holds an interface and is not a function.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// `lambda`, `rds`, `nat_gateway`, `load_balancer`, `vpc_endpoint`, `instance`, `elasticache`, … else the interface type.
    pub kind: String,
    /// ARN or id: function ARN, `nat-…`, `i-…`, `vpce-…`; else the description.
    pub id: String,
    /// Name for people.
    pub name: String,
}

/// The answer to "who held this interface over this span".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributed {
    /// How sure.
    pub attribution: Attribution,
    /// The owner when one is left (`Exact`: the function) or something else holds it (`Other`).
    pub owner: Option<Owner>,
    /// Functions that may have done it, sorted by weight (falling), then ARN. One of weight 1000 when exact.
    pub candidates: Vec<Candidate>,
    /// True when the interface belongs to Lambda, whichever function.
    pub lambda: bool,
}

/// The entity that network behaviour is learned for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NetworkEntity {
    /// Lambda interfaces of one account, region, VPC and set of security groups: deploys do not change it.
    Group {
        /// Region.
        region: String,
        /// `vpc-…`
        vpc: String,
        /// Sorted `sg-…`.
        security_groups: Vec<String>,
    },
    /// Any other interface, by itself.
    Interface {
        /// `eni-…`
        eni: String,
    },
}

/// What kind of thing the other end is; decides which level of a peer key is new.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PeerKind {
    /// An owner inside the organisation (database, endpoint, function group …): known by its timeline.
    Owner,
    /// An AWS service by its published ranges, e.g. `S3`, with its region. Not EC2 or CloudFront: anyone can rent those.
    AwsService,
    /// An AWS range that anyone can rent (EC2, CLOUDFRONT, GLOBALACCELERATOR …): named, never coarsened.
    AwsRented,
    /// One of the user's own `[[network]]` ranges.
    Network,
    /// A private address nobody is known to hold.
    Private,
    /// Any other address.
    Internet,
}

/// The other end of a conversation, named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerName {
    /// What it is.
    pub kind: PeerKind,
    /// Stable key of the named thing (`rds:db-main`, `aws:S3:eu-west-1`, `net:office`, `group:eu-west-1/vpc-1/sg-1`); for
    /// `Private` and `Internet` the address.
    pub key: String,
    /// Name for people: `database db-main`, `S3 eu-west-1`, `office`; for `Private` and `Internet` the address.
    pub name: String,
    /// `src_kind`/`dst_kind` of the flows table: the owner's kind, `aws_service`, `network`, `private`, `internet`.
    pub kind_word: String,
}

/// One row of the `eni_owners` table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EniOwnerRow {
    /// Account that owns the interface; empty when no fact says.
    pub account_id: String,
    /// Region, or empty.
    pub region: String,
    /// VPC.
    pub vpc_id: Option<String>,
    /// Subnet.
    pub subnet_id: Option<String>,
    /// Interface.
    pub eni_id: String,
    /// Primary private address.
    pub ip: Option<Ip>,
    /// `lambda`, `rds`, …
    pub owner_kind: String,
    /// ARN or id.
    pub owner: Option<String>,
    /// Function name or name for people.
    pub owner_name: Option<String>,
    /// How sure.
    pub attribution: Attribution,
    /// Candidates of the interval.
    pub candidates: Vec<Candidate>,
    /// Start, included. `None`: for as long as is known.
    pub valid_from: Option<EventTime>,
    /// End, excluded. `None`: still.
    pub valid_to: Option<EventTime>,
    /// Where the answer comes from, in words.
    pub evidence: String,
}
