//! The traces of an attack: its connections and its API calls.

use serde_json::{Value, json};

use super::archetype::LOOKING_AROUND;
use super::attacks::{Attack, Ground, Kind, hour_of};
use super::event::{Event, access_key, function_key};
use super::flow::{Layout, dotted};
use super::life::code_update;
use super::rng::Rng;
use super::traffic::{Connection, Outcome, Traffic};
use super::world::World;

const HOUR: i64 = 3600;
const MINUTE: i64 = 60;

/// The attack's connections in this hour.
pub(crate) fn connections(traffic: &mut Traffic<'_>, attack: &Attack) {
    let world = traffic.world;
    let Some(function) = attack.function else { return };
    if attack.site != traffic.site || attack.kind.ground() != Ground::Network {
        return;
    }
    let mut dice = attack.dice(world);
    let secs = attack.end - attack.start;
    let spread = |n: u64, count: u64, dice: &mut Rng| {
        let slot = (secs / count.max(1) as i64).max(1);
        attack.start + slot * n as i64 + dice.range(0, slot)
    };
    let plain = Connection {
        eni: 0,
        peer: attack.address,
        peer_eni: attack.target,
        port: attack.port,
        start: 0,
        secs: 5,
        up: 1_500,
        down: 3_000,
        outcome: Outcome::Served,
        kept: (false, false),
        client_port: None,
    };
    let mut plans: Vec<Connection> = Vec::new();
    let with_flags = world.sites[attack.site].layout != Layout::Default;
    match attack.kind {
        Kind::NewPeer | Kind::C2 => {
            for n in 0..attack.count {
                let start = spread(n, attack.count, &mut dice);
                plans.push(Connection { start, up: dice.size(3_000), down: dice.size(6_000), ..plain.clone() });
            }
        }
        Kind::CodeSwap => {
            for n in 0..attack.count {
                let start = spread(n, attack.count, &mut dice).max(attack.start + 5 * MINUTE);
                plans.push(Connection { start, up: dice.size(30_000), down: dice.size(3_000), ..plain.clone() });
            }
        }
        Kind::Exfil | Kind::BulkUpload => {
            for n in 0..attack.count {
                let start = spread(n, attack.count, &mut dice);
                plans.push(Connection { start, secs: 40, up: 4_000_000 + dice.size(8_000_000), down: dice.size(9_000), ..plain.clone() });
            }
        }
        Kind::ReverseShell => plans.push(Connection { start: attack.start, secs, up: 64_000, down: 21_000, ..plain }),
        Kind::Mining => {
            let slot = secs / attack.count as i64;
            for n in 0..attack.count as i64 {
                // A record covers an hour at most, so a connection is cut where hours meet.
                let (from, to) = (attack.start + n * slot, attack.start + (n + 1) * slot - 1);
                let port = Some(20_000 + n as u16);
                let mut start = from;
                while start < to {
                    let end = to.min(hour_of(start) + HOUR);
                    let (up, down) = ((end - start) as u64 * 90, (end - start) as u64 * 60);
                    let kept = (start > from, end < to);
                    plans.push(Connection { start, secs: end - start, up, down, kept, client_port: port, ..plain.clone() });
                    start = end;
                }
            }
        }
        Kind::Beacon => {
            for n in 0..attack.count as i64 {
                let start = attack.start + n * 300 + dice.range(-20, 20);
                plans.push(Connection { start, secs: 2, up: 1_200 + dice.below(40), down: 700, ..plain.clone() });
            }
        }
        Kind::PortScan => {
            let ports = scanned_ports(attack.count, &mut dice);
            for (n, port) in (0..attack.count).zip(ports) {
                let outcome = failure(with_flags, &mut dice);
                plans.push(Connection { start: spread(n, attack.count, &mut dice), port, outcome, ..plain.clone() });
            }
        }
        Kind::HostSweep => {
            let Some((vpc, _)) = world.functions[function].home else { return };
            let net = &world.vpcs[vpc].subnets[1];
            let first = net.base + 16 + dice.below(u64::from(net.size) - 300) as u32;
            for n in 0..attack.count {
                let start = spread(n, attack.count, &mut dice);
                let peer = first + n as u32 * 2;
                let peer_eni = world.enis.iter().position(|e| e.vpc == vpc && e.ip == peer && e.from <= start && start < e.to);
                plans.push(Connection { start, peer, peer_eni, outcome: failure(false, &mut dice), ..plain.clone() });
            }
        }
        Kind::Lateral => {
            let Some((vpc, _)) = world.functions[function].home else { return };
            for (n, &host) in world.vpcs[vpc].instances.iter().enumerate() {
                let start = spread(n as u64, attack.count, &mut dice);
                let peer = world.enis[host].ip;
                plans.push(Connection { start, secs: 45, peer, peer_eni: Some(host), up: 5_000, down: 8_000, ..plain.clone() });
            }
        }
        _ => {}
    }
    for plan in plans {
        let mut dice = Rng::new(world.seed, &[43, attack.number as u64, plan.start as u64, u64::from(plan.port)]);
        if plan.start < traffic.hour || traffic.hour + HOUR <= plan.start {
            continue;
        }
        // A connection ends with its interface.
        let chosen = world.eni_of(function, plan.start, &mut dice).filter(|&e| plan.start + plan.secs < world.enis[e].to);
        if let Some(eni) = chosen {
            traffic.connect(&Connection { eni, ..plan }, &mut dice);
            traffic.mark(function, eni, plan.start);
        }
    }
}

/// A contact that leads nowhere. Resets can be told from answers only where the flow log has flags.
fn failure(with_flags: bool, dice: &mut Rng) -> Outcome {
    match dice.below(4) {
        0 => Outcome::Blocked,
        1 if with_flags => Outcome::Refused,
        _ => Outcome::Dropped,
    }
}

fn scanned_ports(count: u64, dice: &mut Rng) -> Vec<u16> {
    const COMMON: [u16; 20] = [21, 22, 23, 25, 53, 80, 110, 135, 139, 143, 389, 443, 445, 1433, 2375, 3306, 3389, 5432, 5985, 9200];
    let mut ports = COMMON.to_vec();
    while (ports.len() as u64) < count {
        let port = 1 + dice.below(10_000) as u16;
        if !ports.contains(&port) && port != 8080 {
            ports.push(port);
        }
    }
    dice.shuffle(&mut ports);
    ports
}

/// The attack's API calls. Only those in the hour count; the caller picks them.
pub(crate) fn events(world: &World, attack: &Attack) -> Vec<Event> {
    let mut dice = Rng::new(world.seed, &[44, attack.number as u64]);
    let site = &world.sites[attack.site];
    let (account, region) = (site.account, site.region.name);
    let owner = &world.accounts[account].id;
    let secs = attack.end - attack.start;
    let by_user = |at: i64| {
        let mut event = Event::by_user(world, account, 0, at);
        event.source = dotted(attack.address);
        event
    };
    let admin = "arn:aws:iam::aws:policy/AdministratorAccess";
    let mut events = Vec::new();
    match (attack.kind, attack.function) {
        (Kind::NewApiCall, Some(function)) => {
            for n in 0..attack.count as i64 {
                let at = attack.start + secs * n / attack.count as i64;
                let mut event = Event::by_function(world, function, at).calls(region, attack.action);
                event.request = match attack.action.name {
                    "GetSecretValue" => json!({"secretId": "prod/payments/master"}),
                    "GetParametersByPath" => json!({"path": "/prod/", "recursive": true, "withDecryption": true}),
                    "CreateUser" => json!({"userName": "svc-sync"}),
                    "ScheduleKeyDeletion" => json!({"keyId": dice.uuid(), "pendingWindowInDays": 7}),
                    "StopLogging" => json!({"name": "org-trail"}),
                    _ => json!({"functionName": world.functions[function].name, "memorySize": 3_008}),
                };
                events.push(event);
            }
        }
        (Kind::ApiEnumeration, Some(function)) => {
            let mut actions = LOOKING_AROUND.to_vec();
            dice.shuffle(&mut actions);
            for (n, action) in actions.into_iter().take(attack.count as usize).enumerate() {
                let at = attack.start + secs * n as i64 / attack.count as i64;
                let event = Event::by_function(world, function, at).calls(region, action);
                let subject = &world.functions[function];
                let principal = format!("arn:aws:sts::{owner}:assumed-role/{}/{}", subject.role, subject.name);
                events.push(if dice.chance(0.4) { event.denied(&principal) } else { event });
            }
        }
        (Kind::FunctionRoleEscalation, Some(function)) => {
            let request = json!({"roleName": world.functions[function].role, "policyArn": admin});
            let event = Event::by_function(world, function, attack.start + secs / 2);
            events.push(event.changes(region, "iam", "AttachRolePolicy", request, Value::Null));
        }
        (Kind::StolenCredentials, Some(function)) => {
            let key = function_key(world, function, attack.start);
            for (n, action) in
                [super::archetype::EVERYDAY[3], LOOKING_AROUND[0], LOOKING_AROUND[1], LOOKING_AROUND[8]].into_iter().enumerate()
            {
                let mut event = Event::by_function(world, function, attack.start + secs * n as i64 / 4).calls(region, action);
                // The same key, from a laptop.
                event.identity["accessKeyId"] = json!(key);
                event.source = dotted(attack.address);
                event.agent = "aws-cli/2.15.30 Python/3.11.8 Linux/6.6.15-amd64 exe/x86_64.kali.2024 prompt/off".to_owned();
                events.push(event);
            }
        }
        (Kind::CodeSwap, Some(function)) => events.push(code_update(world, function, by_user(attack.start))),
        (Kind::PrivilegeEscalation, _) => {
            let user = &attack.subject;
            let arn = format!("arn:aws:iam::{owner}:user/{user}");
            let response = json!({"user": {"userName": user, "arn": arn, "path": "/", "userId": format!("AIDA{}", dice.base32(17))}});
            events.push(by_user(attack.start).changes(region, "iam", "CreateUser", json!({"userName": user}), response));
            let request = json!({"userName": user, "policyArn": admin});
            events.push(by_user(attack.start + 20).changes(region, "iam", "AttachUserPolicy", request, Value::Null));
        }
        (Kind::BackdoorUser, _) => {
            let user = &attack.subject;
            let key = access_key(world, "AKIA", &[57, attack.number as u64]);
            let response = json!({"accessKey": {"accessKeyId": key, "status": "Active", "userName": user}});
            events.push(by_user(attack.start + 5).changes(region, "iam", "CreateAccessKey", json!({"userName": user}), response));
        }
        (Kind::BackdoorRole, _) => {
            let role = &attack.subject;
            let foreign = format!("arn:aws:iam::{}:root", dice.text(12, b"23456789"));
            let trust = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": foreign}, "Action": "sts:AssumeRole"}]});
            let request = json!({"roleName": role, "assumeRolePolicyDocument": trust.to_string()});
            let response = json!({"role": {"roleName": role, "arn": format!("arn:aws:iam::{owner}:role/{role}"), "path": "/"}});
            events.push(by_user(attack.start).changes(region, "iam", "CreateRole", request, response));
            let request = json!({"roleName": role, "policyArn": admin});
            events.push(by_user(attack.start + 15).changes(region, "iam", "AttachRolePolicy", request, Value::Null));
        }
        (Kind::BackdoorPermission, _) => {
            let arn = &attack.subject;
            let statement =
                json!({"Sid": "public", "Effect": "Allow", "Principal": "*", "Action": "lambda:InvokeFunction", "Resource": arn});
            let request = json!({"functionName": arn, "statementId": "public", "action": "lambda:InvokeFunction", "principal": "*"});
            let response = json!({"statement": statement.to_string()});
            events.push(by_user(attack.start + 30).changes(region, "lambda", "AddPermission20150331v2", request, response));
        }
        _ => {}
    }
    events
}
