//! Entities: whom behaviour is learned for.

use flowtrail_enrich::NetworkEntity;
use serde::{Deserialize, Serialize};

/// What an entity is.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EntityKind {
    /// A Lambda function, by what its code calls.
    Function,
    /// The Lambda interfaces of one VPC and set of security groups.
    Network,
    /// One interface of another owner.
    #[default]
    Interface,
    /// A role or user.
    Principal,
    /// A whole account.
    Account,
}

impl EntityKind {
    /// The word of the tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Network => "network",
            Self::Interface => "interface",
            Self::Principal => "principal",
            Self::Account => "account",
        }
    }
}

/// Identity of an entity inside its account: stays the same whatever is learned about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntityId {
    /// What it is.
    pub kind: EntityKind,
    /// ARN of a function or principal, `region/VPC/sg-1,sg-2` of a network entity, ENI id, account id.
    pub id: Box<str>,
}

impl EntityId {
    /// An entity of this kind and id.
    #[must_use]
    pub fn new(kind: EntityKind, id: &str) -> Self {
        Self { kind, id: id.into() }
    }

    /// The entity of an interface.
    #[must_use]
    pub fn of_network(entity: &NetworkEntity) -> Self {
        match entity {
            NetworkEntity::Group { region, vpc, security_groups } => {
                Self::new(EntityKind::Network, &format!("{region}/{vpc}/{}", security_groups.join(",")))
            }
            NetworkEntity::Interface { eni } => Self::new(EntityKind::Interface, eni),
        }
    }
}

/// A function ARN without version or alias: `arn:aws:lambda:eu-west-1:111122223333:function:orders`.
/// `None` for what is no function ARN.
#[must_use]
pub fn unqualified(arn: &str) -> Option<&str> {
    // Byte by byte: what searches long texts costs more than these few bytes, and every call bears one.
    let after_colon = |text: &'_ [u8]| text.iter().position(|b| *b == b':').map(|at| at + 1);
    let rest = arn.as_bytes().strip_prefix(b"arn:")?;
    let rest = &rest[after_colon(rest)?..];
    let rest = rest.strip_prefix(b"lambda:")?;
    let rest = &rest[after_colon(rest)?..];
    let rest = &rest[after_colon(rest)?..];
    let named = rest.strip_prefix(b"function:")?;
    let name = after_colon(named).map_or(named.len(), |after| after - 1);
    if name == 0 { None } else { arn.get(..arn.len() - named.len() + name) }
}

/// The last element of an ARN or path: the name that people use.
#[must_use]
pub fn short_name(arn: &str) -> &str {
    arn.rsplit([':', '/']).next().filter(|name| !name.is_empty()).unwrap_or(arn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qualifiers_are_cut_off_function_arns_only() {
        for (arn, expected) in [
            ("arn:aws:lambda:eu-west-1:111122223333:function:orders", Some("arn:aws:lambda:eu-west-1:111122223333:function:orders")),
            (
                "arn:aws:lambda:eu-west-1:111122223333:function:orders:$LATEST",
                Some("arn:aws:lambda:eu-west-1:111122223333:function:orders"),
            ),
            ("arn:aws-cn:lambda:cn-north-1:1:function:a:7", Some("arn:aws-cn:lambda:cn-north-1:1:function:a")),
            ("arn:aws:lambda:eu-west-1:111122223333:layer:x:1", None),
            ("orders", None),
            ("arn:aws:lambda:eu-west-1:111122223333:function:", None),
        ] {
            assert_eq!(unqualified(arn), expected, "{arn}");
        }
        assert_eq!(short_name("arn:aws:iam::1:role/service/ci"), "ci");
        assert_eq!(short_name("orders"), "orders");
    }
}
