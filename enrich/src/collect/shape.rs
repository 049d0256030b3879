//! The SDK's values back into the JSON of the AWS CLI. Absent members stay absent.

use aws_sdk_ec2::types::{NetworkInterface, NetworkInterfaceAssociation};
use aws_sdk_lambda::types::FunctionConfiguration;
use flowtrail_ingest::EventTime;
use serde_json::{Map, Value, json};

/// Builds an object member by member.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn with(mut self, name: &str, value: Option<impl Into<Value>>) -> Self {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value.into());
        }
        self
    }

    fn done(self) -> Value {
        Value::Object(self.0)
    }
}

fn association(association: &NetworkInterfaceAssociation) -> Value {
    Object::default()
        .with("AllocationId", association.allocation_id())
        .with("AssociationId", association.association_id())
        .with("IpOwnerId", association.ip_owner_id())
        .with("PublicDnsName", association.public_dns_name())
        .with("PublicIp", association.public_ip())
        .done()
}

/// One interface as `describe-network-interfaces` prints it.
pub(super) fn interface(eni: &NetworkInterface) -> Value {
    let addresses: Vec<Value> = eni
        .private_ip_addresses()
        .iter()
        .map(|a| {
            Object::default()
                .with("Association", a.association().map(association))
                .with("Primary", a.primary())
                .with("PrivateDnsName", a.private_dns_name())
                .with("PrivateIpAddress", a.private_ip_address())
                .done()
        })
        .collect();
    let attachment = eni.attachment().map(|a| {
        Object::default()
            .with("AttachTime", a.attach_time().map(|t| EventTime(t.secs()).to_string()))
            .with("AttachmentId", a.attachment_id())
            .with("DeleteOnTermination", a.delete_on_termination())
            .with("DeviceIndex", a.device_index())
            .with("InstanceId", a.instance_id())
            .with("InstanceOwnerId", a.instance_owner_id())
            .with("Status", a.status().map(|s| s.as_str()))
            .done()
    });
    let v6: Vec<Value> = eni.ipv6_addresses().iter().map(|a| Object::default().with("Ipv6Address", a.ipv6_address()).done()).collect();
    let v4_prefixes: Vec<Value> =
        eni.ipv4_prefixes().iter().map(|p| Object::default().with("Ipv4Prefix", p.ipv4_prefix()).done()).collect();
    let v6_prefixes: Vec<Value> =
        eni.ipv6_prefixes().iter().map(|p| Object::default().with("Ipv6Prefix", p.ipv6_prefix()).done()).collect();
    let groups: Vec<Value> =
        eni.groups().iter().map(|g| Object::default().with("GroupId", g.group_id()).with("GroupName", g.group_name()).done()).collect();
    let tags: Vec<Value> = eni.tag_set().iter().map(|t| json!({"Key": t.key(), "Value": t.value()})).collect();
    // The wire says `nat_gateway`, the SDK's word for it is another.
    let kind = eni.interface_type().map(|t| if t.as_str() == "natGateway" { "nat_gateway" } else { t.as_str() });
    Object::default()
        .with("Association", eni.association().map(association))
        .with("Attachment", attachment)
        .with("AvailabilityZone", eni.availability_zone())
        .with("Description", eni.description())
        .with("Groups", Some(groups))
        .with("InterfaceType", kind)
        .with("Ipv6Addresses", Some(v6))
        .with("MacAddress", eni.mac_address())
        .with("NetworkInterfaceId", eni.network_interface_id())
        .with("OwnerId", eni.owner_id())
        .with("PrivateDnsName", eni.private_dns_name())
        .with("PrivateIpAddress", eni.private_ip_address())
        .with("PrivateIpAddresses", Some(addresses))
        .with("Ipv4Prefixes", Some(v4_prefixes).filter(|p| !p.is_empty()))
        .with("Ipv6Prefixes", Some(v6_prefixes).filter(|p| !p.is_empty()))
        .with("RequesterId", eni.requester_id())
        .with("RequesterManaged", eni.requester_managed())
        .with("SourceDestCheck", eni.source_dest_check())
        .with("Status", eni.status().map(|s| s.as_str()))
        .with("SubnetId", eni.subnet_id())
        .with("TagSet", Some(tags))
        .with("VpcId", eni.vpc_id())
        .done()
}

/// One function or version as `list-functions` prints it, without its environment and code.
pub(super) fn function(function: &FunctionConfiguration) -> Value {
    let vpc = function.vpc_config().map(|vpc| {
        Object::default()
            .with("SubnetIds", Some(vpc.subnet_ids().to_vec()))
            .with("SecurityGroupIds", Some(vpc.security_group_ids().to_vec()))
            .with("VpcId", vpc.vpc_id())
            .with("Ipv6AllowedForDualStack", vpc.ipv6_allowed_for_dual_stack())
            .done()
    });
    Object::default()
        .with("FunctionName", function.function_name())
        .with("FunctionArn", function.function_arn())
        .with("Runtime", function.runtime().map(|r| r.as_str()))
        .with("Role", function.role())
        .with("Description", function.description())
        .with("Timeout", function.timeout())
        .with("MemorySize", function.memory_size())
        .with("LastModified", function.last_modified())
        .with("CodeSha256", function.code_sha256())
        .with("Version", function.version())
        .with("VpcConfig", vpc)
        .with("RevisionId", function.revision_id())
        .with("State", function.state().map(|s| s.as_str()))
        .with("PackageType", function.package_type().map(|p| p.as_str()))
        .done()
}
