//! What an interface's own marks say of its holder (tables: domain/lambda-enis.md sections 2 and 6).

use std::sync::LazyLock;

use regex::Regex;

use crate::fact::Interface;
use crate::names::Owner;

/// What a Lambda interface says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LambdaMark {
    /// The function whose creation made a shared interface: a hint.
    pub(crate) described: Option<String>,
    /// The one function of a pre-2019 interface: proof.
    pub(crate) legacy: Option<String>,
}

const LAMBDA: &str = "AWS Lambda VPC ENI";

// The regex of domain/lambda-enis.md section 2, checked there against the three forms.
static DESCRIBED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"^AWS Lambda VPC ENI(?:: (?P<legacy>[0-9a-f-]{36})|-(?P<fn>.+?)(?:-(?P<uuid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}))?)$",
    )
    .ok()
});

/// The mark of a Lambda interface; `None` when it is not Lambda's.
pub(crate) fn lambda_mark(interface: &Interface) -> Option<LambdaMark> {
    let description = interface.description.as_deref().unwrap_or("");
    if interface.interface_type.as_deref() != Some("lambda") && !description.starts_with(LAMBDA) {
        return None;
    }
    let mut mark = LambdaMark::default();
    if let Some(found) = DESCRIBED.as_ref().and_then(|r| r.captures(description)) {
        if found.name("legacy").is_some() {
            mark.legacy = interface.requester.as_deref().and_then(session_function);
        } else {
            mark.described = found.name("fn").map(|m| m.as_str().to_owned());
        }
    }
    Some(mark)
}

/// The function in a `RequesterId` of `AROA…:{function name}`. Twelve digits and `awslambda_…` are sessions of the
/// service and name none.
fn session_function(requester: &str) -> Option<String> {
    let (role, session) = requester.split_once(':')?;
    let digits = session.len() == 12 && session.bytes().all(|c| c.is_ascii_digit());
    (role.starts_with("ARO") && !session.is_empty() && !digits && !session.starts_with("awslambda_")).then(|| session.to_owned())
}

/// Who else holds an interface, and the key that stays when its interfaces are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) owner: Owner,
    /// Stable within the organisation: the thing's id where the description tells it, the security groups of things that
    /// come and go (tasks, pods, jobs), else the interface.
    pub(crate) key: String,
    /// Name for people with its noun: `NAT gateway nat-1`.
    pub(crate) spoken: String,
}

/// How a row of the table finds the id: after a prefix up to a blank, the whole rest, or not at all.
#[derive(Copy, Clone)]
enum Id {
    /// The first word after the prefix.
    Word,
    /// All that follows the prefix.
    Rest,
    /// None: the interface stands for itself.
    Itself,
    /// None, and interfaces are replaced all the time: its VPC and security groups.
    Group,
}

/// Prefix of the description (compared without case), kind, noun, where the id is.
const TABLE: [(&str, &str, &str, Id); 41] = [
    ("elb app/", "load_balancer", "load balancer", Id::Rest),
    ("elb net/", "load_balancer", "load balancer", Id::Rest),
    ("elb gwy/", "load_balancer", "load balancer", Id::Rest),
    ("elb ", "load_balancer", "load balancer", Id::Rest),
    ("interface for nat gateway ", "nat_gateway", "NAT gateway", Id::Word),
    ("rdsnetworkinterface", "rds", "database", Id::Itself),
    ("network interface for dbproxy ", "rds_proxy", "database proxy", Id::Word),
    ("network interface for dbproxy", "rds_proxy", "database proxy", Id::Itself),
    ("elasticache ", "elasticache", "cache", Id::Rest),
    ("elasticache+", "elasticache", "cache", Id::Rest),
    ("redshiftnetworkinterface", "redshift", "warehouse", Id::Itself),
    ("dmsnetworkinterface", "dms", "migration task", Id::Itself),
    ("dax ", "dax", "cache", Id::Rest),
    ("efs mount target for ", "efs", "file system", Id::Word),
    ("vpc endpoint interface ", "vpc_endpoint", "VPC endpoint", Id::Word),
    ("network interface for transit gateway attachment ", "transit_gateway", "transit gateway attachment", Id::Word),
    ("arn:aws:ecs:", "ecs", "container tasks", Id::Group),
    ("arn:aws-cn:ecs:", "ecs", "container tasks", Id::Group),
    ("arn:aws-us-gov:ecs:", "ecs", "container tasks", Id::Group),
    ("amazon eks ", "eks", "Kubernetes control plane", Id::Word),
    ("aws-k8s-", "eks", "Kubernetes pods", Id::Group),
    ("aws elasticmapreduce", "emr", "EMR nodes", Id::Group),
    ("aws created network interface for directory ", "directory", "directory", Id::Word),
    ("attached to glue using role: ", "glue", "Glue jobs", Id::Rest),
    ("[do not delete] eni managed by sagemaker", "sagemaker", "SageMaker", Id::Group),
    ("[do not delete] network interface created to access resources in your vpc for sagemaker", "sagemaker", "SageMaker", Id::Group),
    ("cloudhsm managed interface", "cloudhsm", "HSM", Id::Itself),
    ("cloudhsm eni", "cloudhsm", "HSM", Id::Itself),
    ("created by amazon workspaces", "workspaces", "WorkSpaces", Id::Group),
    ("datasync", "datasync", "DataSync", Id::Group),
    ("aws codebuild", "codebuild", "CodeBuild jobs", Id::Group),
    ("do not delete - amazon msk network interface for cluster ", "msk", "Kafka cluster", Id::Word),
    ("do not delete - amazon msk", "msk", "Kafka cluster", Id::Itself),
    ("amazon msk network interface for cluster ", "msk", "Kafka cluster", Id::Word),
    ("es ", "opensearch", "search domain", Id::Rest),
    ("amazonmq network interface", "mq", "message broker", Id::Itself),
    ("created for amazon fsx", "fsx", "file system", Id::Itself),
    ("amazon fsx", "fsx", "file system", Id::Itself),
    ("route 53 resolver: ", "route53_resolver", "DNS resolver", Id::Word),
    ("network interface for nat gateway ", "nat_gateway", "NAT gateway", Id::Word),
    ("branch eni", "eks", "Kubernetes pods", Id::Group),
];

/// Interface types that say the kind when the description does not.
const TYPES: [(&str, &str, &str); 9] = [
    ("nat_gateway", "nat_gateway", "NAT gateway"),
    ("natgateway", "nat_gateway", "NAT gateway"),
    ("network_load_balancer", "load_balancer", "load balancer"),
    ("gateway_load_balancer", "load_balancer", "load balancer"),
    ("vpc_endpoint", "vpc_endpoint", "VPC endpoint"),
    ("gateway_load_balancer_endpoint", "vpc_endpoint", "VPC endpoint"),
    ("transit_gateway", "transit_gateway", "transit gateway"),
    ("efs", "efs", "file system"),
    ("branch", "eks", "Kubernetes pods"),
];

/// Requesters that say the kind when neither of them does.
const REQUESTERS: [(&str, &str, &str); 3] =
    [("amazon-elb", "load_balancer", "load balancer"), ("amazon-rds", "rds", "database"), ("amazon-elasticache", "elasticache", "cache")];

/// Names the holder of an interface that is not Lambda's. `region` may be empty.
pub(crate) fn holder(interface: &Interface, region: &str) -> Holder {
    let description = interface.description.as_deref().unwrap_or("");
    let lower = description.to_ascii_lowercase();
    // `ES` is too short a word to be taken in any case.
    let of_description =
        TABLE.iter().find(|(prefix, ..)| lower.starts_with(prefix) && (*prefix != "es " || description.starts_with("ES ")));
    let fsx = lower.starts_with("created for ") && lower.contains("amazon fsx");
    let (kind, noun, id, how) = if let Some((prefix, kind, noun, how)) = of_description {
        let rest = description.get(prefix.len()..).unwrap_or("").trim();
        let id = match how {
            Id::Word => rest.split_whitespace().next().map(|w| w.trim_end_matches([',', ':', '.'])),
            Id::Rest => Some(rest),
            Id::Itself | Id::Group => None,
        };
        (*kind, *noun, id.filter(|i| !i.is_empty()), *how)
    } else if fsx {
        ("fsx", "file system", None, Id::Itself)
    } else if let Some(instance) = interface.instance.as_deref() {
        ("instance", "instance", Some(instance), Id::Rest)
    } else {
        let kind_of = interface.interface_type.as_deref().unwrap_or("");
        let requester = interface.requester.as_deref().unwrap_or("");
        let found = TYPES.iter().find(|(t, ..)| *t == kind_of).or_else(|| REQUESTERS.iter().find(|(r, ..)| *r == requester));
        match found {
            Some((_, kind, noun)) => (*kind, *noun, None, Id::Itself),
            None => (if kind_of.is_empty() { "interface" } else { kind_of }, "interface", None, Id::Itself),
        }
    };
    // `ELB app/name/hash`: the prefix's `app/` belongs to the id, the middle is the name.
    let id = match (kind, id) {
        ("load_balancer", Some(_)) => description.get(4..).map(str::trim),
        (_, id) => id,
    };
    let short = match (kind, id) {
        ("load_balancer", Some(id)) => id.split('/').nth(1).or(Some(id)),
        // ARNs say their name last.
        (_, Some(id)) if id.starts_with("arn:") => id.rsplit(['/', ':']).find(|p| !p.is_empty()),
        (_, id) => id,
    };
    let eni = &*interface.eni;
    let name = interface.name.as_deref().filter(|_| kind != "load_balancer").or(short);
    let groups = || interface.groups.as_ref().filter(|g| !g.is_empty()).map(|g| g.join(","));
    let anonymous = match how {
        Id::Group => groups().map(|g| format!("{region}/{}/{g}", interface.vpc.as_deref().unwrap_or(""))),
        _ => None,
    };
    // What an interface without marks is for is learned late, by its attachment: its key must not wait for that.
    let key = match (id.filter(|_| kind != "instance"), &anonymous) {
        (Some(id), _) => format!("{kind}:{id}"),
        (None, Some(groups)) => format!("{kind}:{groups}"),
        (None, None) => format!("eni:{eni}"),
    };
    let shown = name.map(str::to_owned).or_else(|| anonymous.and(groups())).unwrap_or_else(|| eni.to_owned());
    Holder {
        owner: Owner {
            kind: kind.to_owned(),
            id: id.map(str::to_owned).unwrap_or_else(|| if description.is_empty() { eni.to_owned() } else { description.to_owned() }),
            name: name.unwrap_or(if description.is_empty() { eni } else { description }).to_owned(),
        },
        key,
        spoken: format!("{noun} {shown}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eni(description: &str, kind: &str) -> Interface {
        Interface {
            eni: "eni-1".into(),
            vpc: Some("vpc-1".into()),
            groups: Some(vec!["sg-1".into(), "sg-2".into()]),
            description: Some(description.into()),
            interface_type: Some(kind.into()),
            ..Interface::default()
        }
    }

    #[test]
    fn lambda_interfaces_by_their_three_forms() {
        let uuid = "1b2c3d4e-5f60-4711-8899-aabbccddeeff";
        for (description, kind, requester, expected) in [
            (format!("AWS Lambda VPC ENI-orders-worker-{uuid}"), "lambda", "AROAX:749600000000", Some((Some("orders-worker"), None))),
            ("AWS Lambda VPC ENI-SendSecurityHubSummaryEmail".to_owned(), "lambda", "", Some((Some("SendSecurityHubSummaryEmail"), None))),
            (format!("AWS Lambda VPC ENI: {uuid}"), "interface", "AROAX:deploy-lambda", Some((None, Some("deploy-lambda")))),
            (format!("AWS Lambda VPC ENI: {uuid}"), "interface", "AROAX:749600000000", Some((None, None))),
            (format!("AWS Lambda VPC ENI: {uuid}"), "interface", "AROAX:awslambda_7_20260101000000000", Some((None, None))),
            ("AWS Lambda VPC ENI".to_owned(), "lambda", "", Some((None, None))),
            (String::new(), "lambda", "", Some((None, None))),
            ("RDSNetworkInterface".to_owned(), "interface", "amazon-rds", None),
        ] {
            let mut interface = eni(&description, kind);
            interface.requester = Some(requester.into());
            let got = lambda_mark(&interface);
            let expected = expected
                .map(|(described, legacy)| LambdaMark { described: described.map(str::to_owned), legacy: legacy.map(str::to_owned) });
            assert_eq!(got, expected, "{description}");
        }
    }

    #[test]
    fn other_holders_by_their_descriptions() {
        for (description, kind, key, owner, spoken) in [
            ("ELB app/web/50dc6c495c0c9188", "interface", "load_balancer:app/web/50dc6c495c0c9188", "web", "load balancer web"),
            ("ELB old-classic", "interface", "load_balancer:old-classic", "old-classic", "load balancer old-classic"),
            ("Interface for NAT Gateway nat-1", "nat_gateway", "nat_gateway:nat-1", "nat-1", "NAT gateway nat-1"),
            ("RDSNetworkInterface", "interface", "eni:eni-1", "RDSNetworkInterface", "database eni-1"),
            ("ElastiCache sessions-001", "interface", "elasticache:sessions-001", "sessions-001", "cache sessions-001"),
            ("EFS mount target for fs-1 (fsmt-2)", "efs", "efs:fs-1", "fs-1", "file system fs-1"),
            ("VPC Endpoint Interface vpce-1", "vpc_endpoint", "vpc_endpoint:vpce-1", "vpce-1", "VPC endpoint vpce-1"),
            (
                "arn:aws:ecs:eu-west-1:111122223333:attachment/aa",
                "interface",
                "ecs:eu-west-1/vpc-1/sg-1,sg-2",
                "arn:aws:ecs:eu-west-1:111122223333:attachment/aa",
                "container tasks sg-1,sg-2",
            ),
            ("aws-K8S-i-0abc", "interface", "eks:eu-west-1/vpc-1/sg-1,sg-2", "aws-K8S-i-0abc", "Kubernetes pods sg-1,sg-2"),
            (
                "Route 53 Resolver: rni-1:rslvr-in-2",
                "interface",
                "route53_resolver:rni-1:rslvr-in-2",
                "rni-1:rslvr-in-2",
                "DNS resolver rni-1:rslvr-in-2",
            ),
            (
                "Created for the Amazon FSx file system",
                "interface",
                "eni:eni-1",
                "Created for the Amazon FSx file system",
                "file system eni-1",
            ),
            ("", "quicksight", "eni:eni-1", "eni-1", "interface eni-1"),
        ] {
            let got = holder(&eni(description, kind), "eu-west-1");
            assert_eq!((got.key.as_str(), got.owner.name.as_str(), got.spoken.as_str()), (key, owner, spoken), "{description}");
        }
        let mut instance = eni("", "interface");
        instance.instance = Some("i-1".into());
        instance.name = Some("bastion".into());
        let got = holder(&instance, "");
        assert_eq!((got.key.as_str(), got.owner.id.as_str(), got.spoken.as_str()), ("eni:eni-1", "i-1", "instance bastion"));
    }
}
