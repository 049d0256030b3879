//! API calls of everyday life, and the calls that changes are made by.

use serde_json::{Map, Value, json};

use super::archetype::Action;
use super::event::Event;
use super::flow::dotted;
use super::history::{Change, Dated};
use super::rng::Rng;
use super::traffic::Traffic;
use super::world::{Eni, Function, Holder, World};
use flowtrail_ingest::EventTime;

const HOUR: i64 = 3600;

const fn read(service: &'static str, name: &'static str) -> Action {
    Action { service, name, read_only: true }
}

/// What the inventory asks every hour.
const INVENTORY: [Action; 5] = [
    read("ec2", "DescribeNetworkInterfaces"),
    read("lambda", "ListFunctions20150331"),
    read("monitoring", "DescribeAlarms"),
    read("rds", "DescribeDBInstances"),
    read("elasticloadbalancing", "DescribeTargetHealth"),
];

/// Everything that the site's people, machines and functions call in one hour. Also marks invocations in `traffic`.
pub(crate) fn everyday(traffic: &mut Traffic<'_>) -> Vec<Event> {
    let (world, site, hour) = (traffic.world, traffic.site, traffic.hour);
    let number = ((hour - world.start) / HOUR) as u64;
    let region = world.sites[site].region.name;
    let account = world.sites[site].account;
    let mut rng = Rng::new(world.seed, &[30, site as u64, number]);
    let mut events = Vec::new();
    // Every hour has some, so that an hour without any is a hole in the trail.
    for (n, action) in INVENTORY.iter().enumerate() {
        if n < 2 || rng.chance(0.5) {
            let at = hour + n as i64 * 700 + rng.range(0, 600);
            events.push(Event::by_monitor(world, account, at).calls(region, *action));
        }
    }
    // Identities belong to the account: they show once, with its first region.
    let first = world.sites.iter().position(|s| s.account == account) == Some(site);
    if first && number % 12 == 9 {
        people(world, account, hour, &mut rng, &mut events);
    }
    for &function in &world.sites[site].functions {
        let mut rng = Rng::new(world.seed, &[31, function as u64, number]);
        of_function(traffic, function, &mut rng, &mut events);
    }
    for change in traffic.history.changes_in(hour, hour + HOUR).iter().filter(|c| c.site == site) {
        of_change(world, change, &mut events);
    }
    events.retain(|e| hour <= e.at && e.at < hour + HOUR);
    events
}

/// What people do with identities: look, and renew their own keys.
fn people(world: &World, account: usize, hour: i64, rng: &mut Rng, events: &mut Vec<Event>) {
    let (user, at) = (rng.below(2) as usize, hour + rng.range(0, HOUR));
    let name = &world.accounts[account].users[user].0;
    let event = Event::by_user(world, account, user, at);
    if rng.chance(0.05) {
        // One's own key: no user name in the request.
        let key = super::event::access_key(world, "AKIA", &[53, account as u64, hour as u64]);
        let response = json!({"accessKey": {"accessKeyId": key, "status": "Active", "userName": name}});
        events.push(event.changes("us-east-1", "iam", "CreateAccessKey", Value::Null, response));
    } else {
        let looks = [read("iam", "GetUser"), read("iam", "ListAccessKeys"), read("iam", "ListMFADevices")];
        events.push(event.calls("us-east-1", *rng.pick(&looks)));
    }
}

/// What a function calls in an hour, and what Lambda does for it.
fn of_function(traffic: &mut Traffic<'_>, index: usize, rng: &mut Rng, events: &mut Vec<Event>) {
    let (world, site, hour) = (traffic.world, traffic.site, traffic.hour);
    let function = &world.functions[index];
    let region = world.sites[site].region.name;
    let account = world.sites[site].account;
    let mean = function.archetype.connections(hour / HOUR + 72, function.phase, rng);
    let middle = hour + rng.range(60, HOUR - 60);
    if mean <= 0.0 || !world.alive(index, middle) || rng.chance(0.3 / mean) {
        return;
    }
    let role_arn = format!("arn:aws:iam::{}:role/{}", world.accounts[account].id, function.role);
    if rng.chance(0.5) {
        let request = json!({"roleArn": role_arn, "roleSessionName": function.name, "durationSeconds": 43_200});
        let mut event = Event::by_service(account, "lambda.amazonaws.com", middle).calls(region, read("sts", "AssumeRole"));
        event.request = request;
        events.push(event);
    }
    if rng.chance(0.25) {
        // A cold start: the service makes the log stream with the function's role.
        let stream = format!("2026/[$LATEST]{}", rng.hex(32));
        let request = json!({"logGroupName": format!("/aws/lambda/{}", function.name), "logStreamName": stream});
        let event = Event::by_lambda_with_role(world, index, &function.name, middle + 1);
        events.push(event.changes(region, "logs", "CreateLogStream", request, Value::Null));
    }
    // Rarely active functions do everything they do each time.
    let each = if mean < 2.0 { 1.0 } else { 0.4 };
    let born = function.lives.iter().map(|l| l.0).filter(|&b| b <= hour).max().unwrap_or(hour).max(world.start);
    let deployed: Vec<(i64, Action)> = function.deploys.iter().filter_map(|d| d.action.map(|a| (d.at + 1_800, a))).collect();
    for (from, action) in function.actions.iter().map(|a| (i64::MIN, *a)).chain(deployed) {
        let at = hour + rng.range(0, HOUR);
        if from <= at && world.alive(index, at) && (rng.chance(each) || hour - born < 12 * HOUR) {
            let mut event = Event::by_function(world, index, at).calls(region, action);
            event.request = request_of(function, action);
            events.push(if rng.chance(0.005) { throttled(event) } else { event });
        }
    }
    if world.sites[site].data_events {
        for _ in 0..rng.below(3) {
            invoke(traffic, index, rng, events);
        }
    }
}

fn throttled(mut event: Event) -> Event {
    event.error = Some(("ThrottlingException", "Rate exceeded".to_owned()));
    event.response = Value::Null;
    event
}

fn request_of(function: &Function, action: Action) -> Value {
    match action.service {
        "dynamodb" => json!({"tableName": function.name}),
        "s3" => json!({"bucketName": format!("{}-data", function.name), "Host": format!("{}-data.s3.amazonaws.com", function.name)}),
        "sqs" => {
            json!({"queueUrl": format!("https://sqs.amazonaws.com/{}", function.name), "attributeNames": ["ApproximateNumberOfMessages"]})
        }
        "kms" => json!({"encryptionContext": {"app": function.name}, "encryptionAlgorithm": "SYMMETRIC_DEFAULT"}),
        "sns" => json!({"topicArn": format!("{}-topic", function.name), "message": "HIDDEN_DUE_TO_SECURITY_REASONS"}),
        "secretsmanager" => json!({"secretId": format!("prod/{}", function.name)}),
        _ => Value::Null,
    }
}

/// A data event: somebody invokes the function, which leaves through one of its interfaces.
fn invoke(traffic: &mut Traffic<'_>, index: usize, rng: &mut Rng, events: &mut Vec<Event>) {
    let (world, site) = (traffic.world, traffic.site);
    let function = &world.functions[index];
    let at = traffic.hour + rng.range(0, HOUR);
    if !world.alive(index, at) {
        return;
    }
    let eni = world.eni_of(index, at, rng);
    if function.home.is_some() && eni.is_none() {
        return;
    }
    let caller = *rng.pick(&["apigateway.amazonaws.com", "events.amazonaws.com"]);
    let mut event = Event::by_service(world.sites[site].account, caller, at);
    event = event.changes(world.sites[site].region.name, "lambda", "Invoke", Value::Null, Value::Null);
    let mut data = Map::new();
    let mut additional = json!({"functionVersion": format!("{}:$LATEST", function.arn)});
    additional["customerEniId"] = json!(eni.map_or("", |e| &world.enis[e].id));
    data.insert("additionalEventData".to_owned(), additional);
    let account = &world.account_of(site).id;
    data.insert("resources".to_owned(), json!([{"accountId": account, "type": "AWS::Lambda::Function", "ARN": function.arn}]));
    event.data = Some(data);
    events.push(event);
    if let Some(eni) = eni {
        traffic.mark(index, eni, at);
    }
}

/// `vpcConfig` as requests and responses have it; in a response with the VPC.
fn vpc_config(world: &World, function: usize, config: Option<usize>, with_vpc: bool) -> Value {
    let Some(config) = config.map(|c| &world.functions[function].configs[c]) else {
        return json!({"subnetIds": [], "securityGroupIds": []});
    };
    let group = &world.groups[config.group];
    let vpc = &world.vpcs[group.vpc];
    let subnets: Vec<&str> = config.subnets.iter().map(|&s| vpc.subnets[s].id.as_str()).collect();
    let mut value = json!({"subnetIds": subnets, "securityGroupIds": group.security_groups});
    if with_vpc {
        value["vpcId"] = json!(vpc.id);
    }
    value
}

/// Response of the calls that create or change a function.
fn function_response(world: &World, function: usize, config: Option<usize>, at: i64, state: &str) -> Value {
    let subject = &world.functions[function];
    let mut rng = Rng::new(world.seed, &[54, function as u64, at as u64]);
    json!({
        "functionName": subject.name, "functionArn": subject.arn, "runtime": subject.runtime,
        "role": format!("arn:aws:iam::{}:role/{}", world.account_of(subject.site).id, subject.role), "handler": "app.handler",
        "codeSize": 10_000 + rng.below(5_000_000), "description": "", "timeout": 60, "memorySize": 256,
        "lastModified": EventTime(at).to_string().replace('Z', ".000+0000"), "codeSha256": format!("{}=", rng.alphanumeric(43)),
        "version": "$LATEST", "vpcConfig": vpc_config(world, function, config, true), "environment": {},
        "tracingConfig": {"mode": "PassThrough"}, "revisionId": rng.uuid(), "state": state, "packageType": "Zip",
        "architectures": ["x86_64"], "ephemeralStorage": {"size": 512},
    })
}

/// The configuration in force at a time.
fn config_at(function: &Function, at: i64) -> Option<usize> {
    function.configs.iter().position(|c| c.from <= at && at < c.to)
}

fn of_change(world: &World, change: &Dated, events: &mut Vec<Event>) {
    let at = change.at;
    let region = world.sites[change.site].region.name;
    let account = world.sites[change.site].account;
    let account_id = &world.accounts[account].id;
    let pipeline = |at| Event::by_pipeline(world, account, at);
    match change.what {
        Change::FunctionCreated { function, config, retried } => {
            let subject = &world.functions[function];
            let role_arn = format!("arn:aws:iam::{account_id}:role/{}", subject.role);
            let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
            let request = json!({"roleName": subject.role, "assumeRolePolicyDocument": trust});
            let response = json!({"role": {"roleName": subject.role, "roleId": subject.role_id, "arn": role_arn, "path": "/"}});
            events.push(pipeline(at - 30).changes(region, "iam", "CreateRole", request, response));
            let policy = "arn:aws:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole";
            let request = json!({"roleName": subject.role, "policyArn": policy});
            events.push(pipeline(at - 25).changes(region, "iam", "AttachRolePolicy", request, Value::Null));
            let request = json!({
                "functionName": subject.name, "runtime": subject.runtime, "role": role_arn, "handler": "app.handler",
                "code": {"s3Bucket": "artifacts", "s3Key": format!("{}.zip", subject.name)}, "timeout": 60, "memorySize": 256,
                "publish": false, "packageType": "Zip", "environment": {}, "vpcConfig": vpc_config(world, function, config, false),
            });
            let create = |at| pipeline(at).changes(region, "lambda", "CreateFunction20150331", request.clone(), Value::Null);
            if retried {
                // The role is not ready yet: usual with Terraform.
                let mut failed = create(at - 12);
                failed.error =
                    Some(("InvalidParameterValueException", "The role defined for the function cannot be assumed by Lambda.".to_owned()));
                events.push(failed);
            }
            let mut created = create(at);
            created.response = function_response(world, function, config, at, "Pending");
            events.push(created);
            let request = json!({
                "functionName": subject.name, "statementId": "schedule", "action": "lambda:InvokeFunction",
                "principal": "events.amazonaws.com", "sourceArn": format!("arn:aws:events:{region}:{account_id}:rule/{}", subject.name),
            });
            let statement = json!({"Sid": "schedule", "Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"},
                "Action": "lambda:InvokeFunction", "Resource": subject.arn});
            let response = json!({"statement": statement.to_string()});
            events.push(pipeline(at + 8).changes(region, "lambda", "AddPermission20150331v2", request, response));
        }
        Change::FunctionDeleted { function } => {
            let request = json!({"functionName": world.functions[function].name});
            events.push(pipeline(at).changes(region, "lambda", "DeleteFunction20150331", request, Value::Null));
        }
        Change::FunctionMoved { function, config } => {
            let request = json!({
                "functionName": world.functions[function].arn, "vpcConfig": vpc_config(world, function, Some(config), false),
            });
            let response = function_response(world, function, Some(config), at, "Active");
            events.push(pipeline(at).changes(region, "lambda", "UpdateFunctionConfiguration20150331v2", request, response));
        }
        Change::Tuned { function } => {
            let subject = &world.functions[function];
            let request = json!({"functionName": subject.name, "memorySize": 512});
            let response = function_response(world, function, config_at(subject, at), at, "Active");
            events.push(pipeline(at).changes(region, "lambda", "UpdateFunctionConfiguration20150331v2", request, response));
        }
        Change::CodeDeployed { function } => {
            events.push(code_update(world, function, pipeline(at)));
            let subject = &world.functions[function];
            let mut response = function_response(world, function, config_at(subject, at), at + 6, "Active");
            response["version"] = json!((2 + at / 86_400 % 40).to_string());
            let request = json!({"functionName": subject.name});
            events.push(pipeline(at + 6).changes(region, "lambda", "PublishVersion20150331", request, response));
        }
        Change::EniCreated { eni } => events.push(eni_created(world, &world.enis[eni], region, account, at)),
        Change::EniDeleted { eni } => {
            let gone = &world.enis[eni];
            let mut rng = Rng::new(world.seed, &[55, eni as u64]);
            let request = json!({"networkInterfaceId": gone.id});
            let response = json!({"requestId": rng.uuid(), "_return": true});
            let event = by_lambda(world, gone, account, at).changes(region, "ec2", "DeleteNetworkInterface", request, response);
            events.push(event);
        }
    }
}

/// New code for a function, uploaded by whoever `event` says.
pub(crate) fn code_update(world: &World, function: usize, event: Event) -> Event {
    let subject = &world.functions[function];
    let (at, region) = (event.at, world.sites[subject.site].region.name);
    let request = json!({
        "functionName": subject.name, "s3Bucket": "artifacts", "s3Key": format!("{}.zip", subject.name), "publish": false, "dryRun": false,
    });
    let response = function_response(world, function, config_at(subject, at), at, "Active");
    event.changes(region, "lambda", "UpdateFunctionCode20150331v2", request, response)
}

/// Lambda at work on its interfaces, with the role of the function that they were made for.
fn by_lambda(world: &World, eni: &Eni, account: usize, at: i64) -> Event {
    match (&eni.holder, eni.made_for) {
        (Holder::Lambda { .. }, Some(function)) => {
            let session = format!("awslambda_{}_{}", at % 997, EventTime(at).to_string().replace(['-', ':', 'T', 'Z'], "") + "123");
            let mut event = Event::by_lambda_with_role(world, function, &session, at);
            event.source = "lambda.amazonaws.com".to_owned();
            event.agent = "lambda.amazonaws.com".to_owned();
            event
        }
        _ => Event::by_pipeline(world, account, at),
    }
}

fn eni_created(world: &World, eni: &Eni, region: &'static str, account: usize, at: i64) -> Event {
    let vpc = &world.vpcs[eni.vpc];
    let subnet = &vpc.subnets[eni.subnet];
    let groups: Vec<Value> = eni.security_groups.iter().map(|g| json!({"groupId": g})).collect();
    let named: Vec<Value> = eni.security_groups.iter().map(|g| json!({"groupId": g, "groupName": format!("name-{}", &g[3..9])})).collect();
    let ip = dotted(eni.ip);
    let mut rng = Rng::new(world.seed, &[56, at as u64, u64::from(eni.ip)]);
    let request = json!({
        "subnetId": subnet.id, "description": eni.description, "groupSet": {"items": groups}, "privateIpAddressesSet": {},
        "ipv6AddressCount": 0, "clientToken": rng.uuid(),
    });
    let mut interface = json!({
        "networkInterfaceId": eni.id, "subnetId": subnet.id, "vpcId": vpc.id, "availabilityZone": format!("{region}{}", subnet.zone),
        "description": eni.description, "ownerId": world.accounts[account].id, "requesterManaged": eni.requester_managed,
        "status": "pending", "macAddress": mac(eni.ip), "privateIpAddress": ip, "sourceDestCheck": true,
        "interfaceType": eni.interface_type, "groupSet": {"items": named},
        "privateIpAddressesSet": {"item": [{"privateIpAddress": ip, "primary": true}]}, "ipv6AddressesSet": {}, "tagSet": {},
    });
    if let Some(requester) = &eni.requester_id {
        interface["requesterId"] = json!(requester);
    }
    let response = json!({"requestId": rng.uuid(), "networkInterface": interface});
    by_lambda(world, eni, account, at).changes(region, "ec2", "CreateNetworkInterface", request, response)
}

pub(crate) fn mac(ip: u32) -> String {
    let [a, b, c, d] = ip.to_be_bytes();
    format!("0a:5e:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}
