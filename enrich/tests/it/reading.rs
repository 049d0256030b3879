//! Facts out of CloudTrail events and files, in the shapes they come in.
#![allow(clippy::unwrap_used)]

use flowtrail_enrich::{Fact, FactKind, facts_of_call, facts_of_file, management_hour};
use flowtrail_ingest::{EventTime, Item, cloudtrail};
use serde_json::{Value, json};

fn of_event(mut event: Value) -> Vec<Fact> {
    for (name, value) in [
        ("eventTime", json!("2026-01-05T10:02:37Z")),
        ("awsRegion", json!("eu-west-1")),
        ("recipientAccountId", json!("111122223333")),
        ("userIdentity", json!({"type": "AssumedRole"})),
        ("eventType", json!("AwsApiCall")),
    ] {
        event.as_object_mut().unwrap().entry(name).or_insert(value);
    }
    let mut facts = Vec::new();
    cloudtrail::read(event.to_string().as_bytes(), &mut |item| match item {
        Item::Call(call) => facts.extend(facts_of_call(call)),
        _ => panic!("not read as a call"),
    });
    facts
}

/// Facts as short text: `when account region what`.
fn told(facts: &[Fact]) -> Vec<String> {
    let text = facts.iter().map(|f| {
        let at = f.at.map_or("-".to_owned(), |t| t.to_string()[11..19].to_owned());
        let what = format!("{:?}", f.kind).replace("arn:aws:lambda:eu-west-1:111122223333:function:", "~");
        format!("{at} {} {} {what}", f.account.as_deref().unwrap_or("-"), f.region.as_deref().unwrap_or("-"))
    });
    text.collect()
}

#[test]
fn lambda_events() {
    let base = "10:02:37 111122223333 eu-west-1";
    let vpc = json!({"subnetIds": ["subnet-2", "subnet-1"], "securityGroupIds": ["sg-1"], "vpcId": "vpc-1"});
    let now = r#"vpc: Now(VpcConfig { subnets: ["subnet-1", "subnet-2"], groups: ["sg-1"] })"#;
    for (name, request, response, expected) in [
        (
            "CreateFunction20150331",
            json!({"functionName": "f", "vpcConfig": vpc}),
            json!({"functionName": "f", "functionArn": "arn:aws:lambda:eu-west-1:111122223333:function:f"}),
            vec![format!(r#"{base} FunctionCreated {{ function: "~f", {now}, published: false }}"#)],
        ),
        (
            "CreateFunction20150331",
            json!({"functionName": "f", "publish": true}),
            Value::Null,
            vec![format!(
                r#"{base} FunctionCreated {{ function: "~f", vpc: Now(VpcConfig {{ subnets: [], groups: [] }}), published: true }}"#
            )],
        ),
        (
            "UpdateFunctionConfiguration20150331v2",
            json!({"functionName": "111122223333:function:f"}),
            json!({"functionArn": "arn:aws:lambda:eu-west-1:111122223333:function:f:2", "vpcConfig": vpc}),
            vec![format!(r#"{base} FunctionChanged {{ function: "~f", {now} }}"#)],
        ),
        (
            "UpdateFunctionConfiguration20150331v2",
            json!({"functionName": "f", "memorySize": 512}),
            json!({"functionName": "f"}),
            vec![format!(r#"{base} FunctionChanged {{ function: "~f", vpc: Unchanged }}"#)],
        ),
        (
            "UpdateFunctionConfiguration20150331v2",
            json!({"functionName": "f", "vpcConfig": {"subnetIds": ["subnet-1"]}}),
            Value::Null,
            vec![format!(r#"{base} FunctionChanged {{ function: "~f", vpc: Unsaid }}"#)],
        ),
        (
            "UpdateFunctionCode20150331v2",
            json!({"functionName": "arn:aws:lambda:eu-west-1:111122223333:function:f", "publish": true}),
            json!({"version": "7"}),
            vec![
                format!(r#"{base} FunctionChanged {{ function: "~f", vpc: Unchanged }}"#),
                format!(r#"{base} FunctionPublished {{ function: "~f", version: "7" }}"#),
            ],
        ),
        ("UpdateFunctionCode20150331v2", json!({"functionName": "f", "dryRun": true}), Value::Null, vec![]),
        (
            "DeleteFunction20150331",
            json!({"functionName": "f"}),
            Value::Null,
            vec![format!(r#"{base} FunctionDeleted {{ function: "~f", version: None }}"#)],
        ),
        (
            "DeleteFunction20150331",
            json!({"functionName": "f", "qualifier": "3"}),
            Value::Null,
            vec![format!(r#"{base} FunctionDeleted {{ function: "~f", version: Some("3") }}"#)],
        ),
        ("GetFunction20150331v2", json!({"functionName": "f"}), Value::Null, vec![]),
        ("DeleteFunction20150331", json!("f"), json!([]), vec![]),
    ] {
        let event =
            json!({"eventSource": "lambda.amazonaws.com", "eventName": name, "requestParameters": request, "responseElements": response});
        assert_eq!(told(&of_event(event.clone())), expected, "{name} {request}");
        let mut failed = event;
        failed["errorCode"] = json!("AccessDenied");
        assert_eq!(told(&of_event(failed)), Vec::<String>::new(), "{name} failed");
    }
}

#[test]
fn invocations_count_by_the_minute() {
    let invoke = |additional: Value| {
        told(&of_event(json!({
            "eventSource": "lambda.amazonaws.com", "eventName": "Invoke", "requestParameters": null, "additionalEventData": additional,
            "resources": [{"accountId": "111122223333", "type": "AWS::Lambda::Function", "ARN": "arn:aws:lambda:eu-west-1:111122223333:function:f"}],
        })))
    };
    let expected = [r#"10:02:00 111122223333 eu-west-1 Invoked { eni: "eni-1", function: "~f" }"#];
    assert_eq!(
        invoke(json!({"customerEniId": "eni-1", "functionVersion": "arn:aws:lambda:eu-west-1:111122223333:function:f:$LATEST"})),
        expected
    );
    assert!(invoke(json!({"customerEniId": ""})).is_empty());
    assert!(invoke(json!({"functionVersion": "f"})).is_empty());
}

#[test]
fn interface_events() {
    let ec2 = |name: &str, request: Value, response: Value| {
        of_event(json!({"eventSource": "ec2.amazonaws.com", "eventName": name, "requestParameters": request, "responseElements": response}))
    };
    // The shape of domain/cloudtrail.md section 6.
    let created = ec2(
        "CreateNetworkInterface",
        json!({"subnetId": "subnet-1", "groupSet": {"items": [{"groupId": "sg-1"}]}, "privateIpAddressesSet": {}}),
        json!({"requestId": "r", "networkInterface": {"networkInterfaceId": "eni-1", "subnetId": "subnet-1", "vpcId": "vpc-1",
            "availabilityZone": "eu-west-1a", "description": "RDSNetworkInterface", "ownerId": "111122223333", "requesterId": "amazon-rds",
            "status": "pending", "privateIpAddress": "10.0.1.5", "interfaceType": "interface",
            "groupSet": {"items": [{"groupId": "sg-2", "groupName": "g"}, {"groupId": "sg-1"}]},
            "privateIpAddressesSet": {"item": [{"privateIpAddress": "10.0.1.5", "primary": true}, {"privateIpAddress": "10.0.1.9"}]},
            "ipv6AddressesSet": {}, "tagSet": {"items": [{"key": "Name", "value": "db\u{1b}[31m"}]}}}),
    );
    let [Fact { kind: FactKind::InterfaceCreated(made), .. }] = created.as_slice() else { panic!("{created:?}") };
    assert_eq!((&*made.eni, made.vpc.as_deref(), made.subnet.as_deref()), ("eni-1", Some("vpc-1"), Some("subnet-1")));
    assert_eq!(made.groups.as_ref().unwrap().iter().map(|g| &**g).collect::<Vec<_>>(), ["sg-1", "sg-2"]);
    assert_eq!(made.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.1.5", "10.0.1.9"]);
    assert_eq!(made.name.as_deref(), Some("db\\u{1b}[31m"), "no control characters in names");
    for (name, request, response, expected) in [
        (
            "DeleteNetworkInterface",
            json!({"networkInterfaceId": "eni-1"}),
            json!({"_return": true}),
            r#"InterfaceDeleted { eni: "eni-1" }"#,
        ),
        (
            "ModifyNetworkInterfaceAttribute",
            json!({"networkInterfaceId": "eni-1", "groupSet": {"items": [{"groupId": "sg-9"}]}}),
            Value::Null,
            r#"InterfaceGroups { eni: "eni-1", groups: ["sg-9"] }"#,
        ),
        (
            "UnassignPrivateIpAddresses",
            json!({"networkInterfaceId": "eni-1", "privateIpAddressesSet": {"item": [{"privateIpAddress": "10.0.1.9"}]}}),
            Value::Null,
            r#"AddressesRemoved { eni: "eni-1", ranges: [(Ip(281470849515785), 32)] }"#,
        ),
        (
            "AttachNetworkInterface",
            json!({"networkInterfaceId": "eni-1", "instanceId": "i-1"}),
            Value::Null,
            r#"InterfaceAttached { eni: "eni-1", instance: "i-1" }"#,
        ),
        (
            "TerminateInstances",
            json!({"instancesSet": {"items": [{"instanceId": "i-1"}]}}),
            Value::Null,
            r#"InstanceTerminated { instance: "i-1" }"#,
        ),
    ] {
        assert_eq!(told(&ec2(name, request, response)), [format!("10:02:37 111122223333 eu-west-1 {expected}")], "{name}");
    }
    assert!(
        ec2("ModifyNetworkInterfaceAttribute", json!({"networkInterfaceId": "eni-1", "description": {"value": "x"}}), Value::Null)
            .is_empty()
    );
    assert!(ec2("DescribeInstances", json!({}), Value::Null).is_empty());
}

#[test]
fn management_events_prove_delivery() {
    let hour = |event: Value| {
        let mut got = None;
        cloudtrail::read(event.to_string().as_bytes(), &mut |item| {
            if let Item::Call(call) = item {
                got = management_hour(call).map(|(a, r, h)| format!("{a} {r} {h}"));
            }
        });
        got
    };
    let event = |more: Value| {
        let mut event = json!({"eventTime": "2026-01-05T10:02:37Z", "eventSource": "s3.amazonaws.com", "eventName": "GetObject",
            "awsRegion": "eu-west-1", "recipientAccountId": "1", "userIdentity": {}, "errorCode": "AccessDenied"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    let yes = Some("1 eu-west-1 2026-01-05T10:00:00Z".to_owned());
    assert_eq!(hour(event(json!({"eventCategory": "Management", "managementEvent": true}))), yes);
    assert_eq!(hour(event(json!({"managementEvent": true}))), yes);
    assert_eq!(hour(event(json!({"eventSource": "iam.amazonaws.com"}))), yes);
    assert_eq!(hour(event(json!({"eventCategory": "Data", "managementEvent": false}))), None);
    assert_eq!(hour(event(json!({}))), None, "an S3 object read of the time before categories");
}

fn of_file(file: &str) -> Vec<String> {
    told(&facts_of_file(file.as_bytes(), "facts.json", EventTime::parse("2026-01-05T12:00:00Z")).unwrap())
}

#[test]
fn files_say_what_is_complete() {
    let count = |file: &str, word: &str| of_file(file).iter().filter(|f| f.contains(word)).count();
    let eni = |id: &str| json!({"NetworkInterfaceId": id, "OwnerId": "111122223333", "AvailabilityZone": "eu-west-1a", "PrivateIpAddress": "10.0.0.5"});
    let whole = json!({"NetworkInterfaces": [eni("eni-1"), eni("eni-2")]}).to_string();
    assert_eq!((count(&whole, "InterfaceSeen"), count(&whole, "InterfacesComplete")), (2, 1));
    assert!(of_file(&whole)[0].starts_with("12:00:00 111122223333 eu-west-1 "));
    let cut = json!({"NetworkInterfaces": [eni("eni-1")], "NextToken": "x"}).to_string();
    assert_eq!((count(&cut, "InterfaceSeen"), count(&cut, "InterfacesComplete")), (1, 0));
    let pages = format!("{cut}\n{whole}");
    assert_eq!((count(&pages, "InterfaceSeen"), count(&pages, "InterfacesComplete")), (2, 1));
    // One interface a line, as jq would print them: nobody says that it is all.
    let lines = format!("{}\n{}\n", eni("eni-1"), eni("eni-2"));
    assert_eq!((count(&lines, "InterfaceSeen"), count(&lines, "InterfacesComplete")), (2, 0));
    let empty =
        r#"{"flowtrail_snapshot":1,"account_id":"1","region":"eu-west-1","taken_at":"2026-01-05T13:00:00Z","NetworkInterfaces":[]}"#;
    assert_eq!(of_file(empty), ["13:00:00 1 eu-west-1 InterfacesComplete"]);
    let functions = r#"{"flowtrail_snapshot":1,"account_id":"111122223333","region":"eu-west-1","taken_at":"2026-01-05T13:00:00Z","Functions":[
        {"FunctionArn":"arn:aws:lambda:eu-west-1:111122223333:function:f:2","Version":"2","LastModified":"2026-01-04T00:00:00.000+0000",
         "VpcConfig":{"SubnetIds":["s"],"SecurityGroupIds":["g"],"VpcId":"v"}}]}"#;
    let told = of_file(functions);
    assert!(told[0].ends_with("FunctionsComplete { all_versions: true }"), "{told:?}");
    assert!(told[1].contains(r#"function: "~f", version: Some("2")"#), "{told:?}");
    // Undated: nothing is proven absent.
    let undated = facts_of_file(whole.as_bytes(), "", None).unwrap();
    assert!(undated.iter().all(|f| f.at.is_none() && f.kind != FactKind::InterfacesComplete));
}

#[test]
fn config_items_are_dated_facts() {
    let file = json!({"fileVersion": "1.0", "configurationItems": [
        {"configurationItemCaptureTime": "2026-01-05T09:00:00.000Z", "configurationItemStatus": "OK", "resourceType": "AWS::EC2::NetworkInterface",
         "resourceId": "eni-1", "awsAccountId": "111122223333", "awsRegion": "eu-west-1",
         "configuration": {"networkInterfaceId": "eni-1", "subnetId": "s", "vpcId": "v", "groups": [{"groupId": "g"}], "privateIpAddress": "10.0.0.5",
            "privateIpAddresses": [{"privateIpAddress": "10.0.0.5", "primary": true, "association": {"publicIp": "203.0.113.5"}}]}},
        {"configurationItemCaptureTime": "2026-01-05T09:30:00.000Z", "configurationItemStatus": "ResourceDeleted",
         "resourceType": "AWS::EC2::NetworkInterface", "resourceId": "eni-2", "awsAccountId": "111122223333", "awsRegion": "eu-west-1"},
        {"configurationItemCaptureTime": "2026-01-05T09:40:00.000Z", "configurationItemStatus": "OK", "resourceType": "AWS::Lambda::Function",
         "resourceId": "f", "awsAccountId": "111122223333", "awsRegion": "eu-west-1",
         "configuration": "{\"functionName\":\"f\",\"vpcConfig\":{\"subnetIds\":[\"s\"],\"securityGroupIds\":[\"g\"]}}"},
        {"configurationItemCaptureTime": "2026-01-05T09:50:00.000Z", "configurationItemStatus": "OK", "resourceType": "AWS::EC2::Instance"},
        "nonsense", 7, {}]});
    let told = of_file(&file.to_string());
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("09:00:00 111122223333 eu-west-1 InterfaceSeen") && told[0].contains("public: [Ip("), "{told:?}");
    assert!(told[1].ends_with(r#"InterfaceDeleted { eni: "eni-2" }"#), "{told:?}");
    assert!(told[2].contains(r#"FunctionState { function: "~f", version: None, vpc: Some(VpcConfig { subnets: ["s"]"#), "{told:?}");
}

#[test]
fn odd_shapes_survive() {
    for file in [
        "",
        "{}",
        "[]",
        "7",
        r#"{"NetworkInterfaces":7}"#,
        r#"{"NetworkInterfaces":[7,null,[],{},{"NetworkInterfaceId":7}]}"#,
        r#"{"Functions":[{"FunctionArn":"arn:aws:iam::1:role/x"},{"FunctionName":"f"}]}"#,
        r#"{"configurationItems":[{"configurationItemCaptureTime":"soon"}]}"#,
    ] {
        let facts: Vec<String> = of_file(file).into_iter().filter(|f| !f.contains("Complete")).collect();
        assert!(facts.len() <= 1, "{file}: {facts:?}");
    }
    let odd = r#"{"NetworkInterfaces":[{"NetworkInterfaceId":"eni-1","Groups":"x","PrivateIpAddresses":[{"PrivateIpAddress":"300.1.1.1"},5],
        "Attachment":[],"TagSet":{"a":1},"Description":7,"Ipv6Addresses":{},"SubnetId":null}]}"#;
    assert_eq!(of_file(odd).len(), 1);
    assert!(facts_of_file(br#"{"NetworkInterfaces":[{"NetworkInterfaceId":"eni-1"}"#, "", None).is_err());
    assert_eq!(facts_of_file(b"not JSON", "", None), Ok(vec![]));
}
