//! Who is there: accounts, interfaces, functions and the peers they talk to. A function of the seed and the counts alone, so that more
//! records or more days mean more of the same, never other entities.

use std::net::Ipv4Addr;

use crate::random::{Random, Zipf, mix};

/// How large the world is, and the seed it comes from.
#[derive(Clone, Debug)]
pub struct WorldSize {
    /// Equal seeds make equal worlds.
    pub seed: u64,
    /// AWS accounts.
    pub accounts: usize,
    /// Interfaces over all accounts.
    pub interfaces: usize,
    /// (peer, port) pairs that one interface talks to.
    pub conversations: usize,
    /// How much an interface keeps to its usual ones: the exponent of their Zipf distribution.
    pub habit: f64,
}

/// One network interface.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Index over all accounts.
    pub index: usize,
    /// Index of its account.
    pub account: usize,
    /// `eni-…`
    pub eni: String,
    /// Its private address.
    pub ip: Ipv4Addr,
    /// Number of its subnet in its account.
    pub subnet: usize,
    /// Held by Lambda (two of three); the others are instances.
    pub lambda: bool,
}

/// One peer of one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// The other end.
    pub peer: Ipv4Addr,
    /// The port that serves, at the peer.
    pub port: u16,
    /// 6 TCP, 17 UDP.
    pub protocol: u8,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct World {
    /// What was asked for.
    pub size: WorldSize,
    /// Ordered by account.
    pub interfaces: Vec<Interface>,
    per_account: usize,
    busy: Zipf,
    conversation: Zipf,
    peer: Zipf,
}

/// Peers on the internet that all interfaces share, from the most to the least liked.
const PEERS: usize = 4096;
/// Where everything runs.
pub const REGION: &str = "eu-west-1";

impl World {
    /// Builds it; ten million interfaces would be too many for their 10.x addresses, nothing below is.
    pub fn new(size: WorldSize) -> Self {
        let per_account = size.interfaces.div_ceil(size.accounts.max(1)).max(1);
        let interfaces = (0..per_account * size.accounts.max(1))
            .map(|index| {
                let within = (index % per_account) as u32;
                Interface {
                    index,
                    account: index / per_account,
                    eni: format!("eni-0{:016x}", mix(size.seed ^ mix(index as u64))),
                    // Half a subnet of 256 in use; .0 to .3 are AWS's own.
                    ip: Ipv4Addr::from(0x0a00_0000 + ((within / 120) << 8) + 4 + (within % 120) * 2),
                    subnet: within as usize / 120,
                    lambda: index % 3 != 2,
                }
            })
            .collect();
        Self {
            interfaces,
            per_account,
            busy: Zipf::new(per_account, 0.6),
            conversation: Zipf::new(size.conversations, size.habit),
            peer: Zipf::new(PEERS, 0.9),
            size,
        }
    }

    /// The 12 digits of an account.
    pub fn account_id(&self, account: usize) -> String {
        format!("{:012}", 111_122_223_333 + account as u64 * 1_000_003)
    }

    /// One interface of an account, the busy ones more often.
    pub fn busy_interface(&self, account: usize, random: &mut Random) -> &Interface {
        &self.interfaces[account * self.per_account + self.busy.rank(random.bits())]
    }

    /// All interfaces of an account.
    pub fn interfaces_of(&self, account: usize) -> &[Interface] {
        &self.interfaces[account * self.per_account..(account + 1) * self.per_account]
    }

    /// One conversation of an interface, the usual ones more often. Nothing is stored: its number decides what it is.
    pub fn conversation(&self, interface: &Interface, random: &mut Random) -> Conversation {
        let number = self.conversation.rank(random.bits()) as u64;
        let bits = mix(self.size.seed ^ mix(interface.index as u64 ^ mix(number ^ 0xc0)));
        let chance = bits % 100;
        let mut of_it = Random::of(&[bits]);
        if chance < 25 {
            // In the own network: databases, caches, endpoints.
            let peer = 0x0a00_ff00 + (of_it.below(60) as u32);
            let port = [5432, 3306, 6379, 443, 53, 9092][of_it.below(6) as usize];
            Conversation { peer: peer.into(), port, protocol: if port == 53 { 17 } else { 6 } }
        } else {
            let port = [443, 443, 443, 443, 443, 443, 80, 8443, 53, 123][of_it.below(10) as usize];
            Conversation { peer: self.public_peer(of_it.bits()), port, protocol: if port == 53 || port == 123 { 17 } else { 6 } }
        }
    }

    /// One of the shared internet addresses.
    fn public_peer(&self, bits: u64) -> Ipv4Addr {
        let rank = self.peer.rank(bits) as u64;
        // Blocks that AWS and large sites really use, so that the text has their look.
        let block = [0x3400_0000u32, 0x3600_0000, 0x0300_0000, 0x1200_0000, 0x6810_0000, 0x8efa_0000][(rank % 6) as usize];
        Ipv4Addr::from(block + (mix(self.size.seed ^ rank) as u32 & 0x000f_ffff))
    }

    /// `describe-network-interfaces` of one account, as the AWS CLI prints it.
    pub fn network_interfaces_json(&self, account: usize) -> serde_json::Value {
        let owner = self.account_id(account);
        let list: Vec<_> = self
            .interfaces_of(account)
            .iter()
            .map(|one| {
                let common = serde_json::json!({
                    "NetworkInterfaceId": one.eni, "OwnerId": owner, "VpcId": vpc_id(account), "SubnetId": subnet_id(account, one.subnet),
                    "AvailabilityZone": format!("{REGION}a"), "Status": "in-use", "RequesterManaged": false,
                    "PrivateIpAddress": one.ip.to_string(), "PrivateIpAddresses": [{"Primary": true, "PrivateIpAddress": one.ip.to_string()}],
                    "Groups": [{"GroupId": group_id(one), "GroupName": format!("g{}", one.index)}], "TagSet": [],
                });
                let mut fields = common;
                if one.lambda {
                    let uuid = uuid(&mut Random::of(&[self.size.seed, one.index as u64, 5]));
                    fields["InterfaceType"] = "lambda".into();
                    fields["Description"] = format!("AWS Lambda VPC ENI-{}-{uuid}", function_name(one.index)).into();
                    fields["Attachment"] = serde_json::json!({"InstanceOwnerId": "amazon-aws", "Status": "attached", "DeviceIndex": 1});
                } else {
                    fields["InterfaceType"] = "interface".into();
                    fields["Description"] = "".into();
                    fields["Attachment"] = serde_json::json!({"InstanceId": instance_id(one), "InstanceOwnerId": owner, "Status": "attached"});
                }
                fields
            })
            .collect();
        serde_json::json!({ "NetworkInterfaces": list })
    }

    /// `list-functions` of one account: one function to each Lambda interface, with security groups of its own.
    pub fn functions_json(&self, account: usize) -> serde_json::Value {
        let list: Vec<_> = self
            .interfaces_of(account)
            .iter()
            .filter(|one| one.lambda)
            .map(|one| {
                let name = function_name(one.index);
                serde_json::json!({
                    "FunctionName": name, "FunctionArn": self.function_arn(account, one.index), "Runtime": "python3.12", "Version": "$LATEST",
                    "Role": format!("arn:aws:iam::{}:role/{name}-role", self.account_id(account)), "LastModified": "2025-11-03T10:00:00.000+0000",
                    "VpcConfig": {"SubnetIds": [subnet_id(account, one.subnet)], "SecurityGroupIds": [group_id(one)], "VpcId": vpc_id(account)},
                })
            })
            .collect();
        serde_json::json!({ "Functions": list })
    }

    /// The ARN of the function behind interface `index`.
    pub fn function_arn(&self, account: usize, index: usize) -> String {
        format!("arn:aws:lambda:{REGION}:{}:function:{}", self.account_id(account), function_name(index))
    }
}

/// The name of the function behind interface `index`.
pub fn function_name(index: usize) -> String {
    let what = ["orders", "billing", "thumbnails", "sync", "export", "audit", "search-index", "mailer"][index % 8];
    format!("{what}-worker-{index}")
}

/// The only VPC of an account.
pub fn vpc_id(account: usize) -> String {
    format!("vpc-0{:016x}", mix(account as u64 ^ 0x1000))
}

/// A subnet of an account.
pub fn subnet_id(account: usize, subnet: usize) -> String {
    format!("subnet-0{:016x}", mix((account as u64) << 32 ^ subnet as u64 ^ 0x2000))
}

/// The instance of an interface that is not Lambda's.
pub fn instance_id(interface: &Interface) -> String {
    format!("i-0{:016x}", mix(interface.index as u64 ^ 0x3000))
}

fn group_id(interface: &Interface) -> String {
    format!("sg-0{:016x}", mix(interface.index as u64 ^ 0x4000))
}

/// A random UUID as text.
pub fn uuid(random: &mut Random) -> String {
    let (high, low) = (random.bits(), random.bits());
    format!("{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}", high >> 32, (high >> 16) & 0xffff, high & 0xfff, low >> 52, low & 0xffff_ffff_ffff)
}
