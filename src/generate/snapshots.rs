//! What `flowtrail collect` would have written: all interfaces and all functions of a region at one moment.

use flowtrail_ingest::EventTime;
use serde_json::{Value, json};

use super::flow::dotted;
use super::life::mac;
use super::rng::Rng;
use super::world::{Eni, Holder, World};

/// All interfaces of a site.
pub(crate) fn interfaces(world: &World, site: usize, at: i64) -> Value {
    let here = world.enis.iter().filter(|e| world.vpcs[e.vpc].site == site && e.from <= at && at < e.to);
    let interfaces: Vec<Value> = here.map(|eni| interface(world, eni)).collect();
    let mut snapshot = head(world, site, at);
    snapshot["NetworkInterfaces"] = json!(interfaces);
    snapshot
}

/// All functions of a site.
pub(crate) fn functions(world: &World, site: usize, at: i64) -> Value {
    let here = world.sites[site].functions.iter().copied();
    let alive = here.filter(|&f| world.functions[f].lives.iter().any(|&(from, to)| from <= at && at < to));
    let functions: Vec<Value> = alive.map(|f| function(world, f, at)).collect();
    let mut snapshot = head(world, site, at);
    snapshot["Functions"] = json!(functions);
    snapshot
}

fn head(world: &World, site: usize, at: i64) -> Value {
    json!({
        "flowtrail_snapshot": 1, "account_id": world.account_of(site).id, "region": world.sites[site].region.name,
        "taken_at": EventTime(at).to_string(),
    })
}

fn interface(world: &World, eni: &Eni) -> Value {
    let vpc = &world.vpcs[eni.vpc];
    let subnet = &vpc.subnets[eni.subnet];
    let owner = &world.account_of(vpc.site).id;
    let ip = dotted(eni.ip);
    let mut address = json!({"Primary": true, "PrivateIpAddress": ip});
    let groups: Vec<Value> = eni.security_groups.iter().map(|g| json!({"GroupId": g, "GroupName": format!("name-{}", &g[3..9])})).collect();
    let attachment = match &eni.holder {
        Holder::Lambda { .. } if eni.interface_type == "lambda" => {
            json!({"AttachmentId": format!("ela-attach-{}", &eni.id[4..]), "DeviceIndex": 1, "InstanceOwnerId": "amazon-aws",
                "Status": "attached", "DeleteOnTermination": false})
        }
        Holder::Lambda { .. } => json!({"AttachmentId": format!("eni-attach-{}", &eni.id[4..]), "DeviceIndex": 1,
            "InstanceOwnerId": "aws-lambda", "Status": "attached", "DeleteOnTermination": false}),
        Holder::Instance(id) => json!({"AttachmentId": format!("eni-attach-{}", &eni.id[4..]), "DeviceIndex": 0, "InstanceId": id,
            "InstanceOwnerId": owner, "Status": "attached", "DeleteOnTermination": true}),
        Holder::Service(service) => json!({"AttachmentId": format!("ela-attach-{}", &eni.id[4..]), "DeviceIndex": 1,
            "InstanceOwnerId": service, "Status": "attached", "DeleteOnTermination": false}),
    };
    let tags = eni.name_tag.as_ref().map_or_else(|| json!([]), |name| json!([{"Key": "Name", "Value": name}]));
    let mut value = json!({
        "NetworkInterfaceId": eni.id, "Description": eni.description, "InterfaceType": eni.interface_type,
        "RequesterManaged": eni.requester_managed, "OwnerId": owner, "Status": "in-use", "SourceDestCheck": true,
        "SubnetId": subnet.id, "VpcId": vpc.id, "AvailabilityZone": format!("{}{}", world.sites[vpc.site].region.name, subnet.zone),
        "MacAddress": mac(eni.ip), "PrivateIpAddress": ip, "Ipv6Addresses": [], "Groups": groups, "Attachment": attachment, "TagSet": tags,
    });
    if let Some(requester) = &eni.requester_id {
        value["RequesterId"] = json!(requester);
    }
    if let Some(public) = eni.public_ip {
        let association = json!({"IpOwnerId": "amazon", "PublicIp": dotted(public)});
        address["Association"] = association.clone();
        value["Association"] = association;
    }
    value["PrivateIpAddresses"] = json!([address]);
    value
}

fn function(world: &World, index: usize, at: i64) -> Value {
    let subject = &world.functions[index];
    let configured = subject.configs.iter().find(|c| c.from <= at && at < c.to);
    let vpc_config = match configured {
        Some(config) => {
            let group = &world.groups[config.group];
            let vpc = &world.vpcs[group.vpc];
            let subnets: Vec<&str> = config.subnets.iter().map(|&s| vpc.subnets[s].id.as_str()).collect();
            json!({"SubnetIds": subnets, "SecurityGroupIds": group.security_groups, "VpcId": vpc.id, "Ipv6AllowedForDualStack": false})
        }
        None => json!({"SubnetIds": [], "SecurityGroupIds": [], "VpcId": "", "Ipv6AllowedForDualStack": false}),
    };
    let modified = subject.modified.iter().copied().filter(|&t| t <= at).max().unwrap_or(at);
    let mut rng = Rng::new(world.seed, &[58, index as u64]);
    json!({
        "FunctionName": subject.name, "FunctionArn": subject.arn, "Runtime": subject.runtime,
        "Role": format!("arn:aws:iam::{}:role/{}", world.account_of(subject.site).id, subject.role), "Handler": "app.handler",
        "CodeSize": 10_000 + rng.below(5_000_000), "Description": "", "Timeout": 60, "MemorySize": 256,
        "LastModified": EventTime(modified).to_string().replace('Z', ".000+0000"),
        "CodeSha256": format!("{}=", rng.alphanumeric(43)), "Version": "$LATEST", "VpcConfig": vpc_config,
        "TracingConfig": {"Mode": "PassThrough"}, "RevisionId": rng.uuid(), "PackageType": "Zip", "Architectures": ["x86_64"],
        "EphemeralStorage": {"Size": 512},
    })
}
