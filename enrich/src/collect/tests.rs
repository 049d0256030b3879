//! Paging, throttling and failures, against responses that are made up.

use aws_sdk_ec2::operation::describe_network_interfaces::DescribeNetworkInterfacesOutput;
use aws_sdk_ec2::types::{
    GroupIdentifier, NetworkInterface, NetworkInterfaceAttachment, NetworkInterfacePrivateIpAddress, NetworkInterfaceType, Tag,
};
use aws_sdk_lambda::operation::list_functions::ListFunctionsOutput;
use aws_sdk_lambda::types::{FunctionConfiguration, VpcConfigResponse};
use aws_smithy_mocks::{MockResponseInterceptor, Rule, RuleMode, create_mock_http_client, mock};

use aws_config::BehaviorVersion;

use super::*;
use crate::{FactKind, facts_of_file};

fn fast(attempts: u32) -> RetryConfig {
    retries(attempts).with_initial_backoff(Duration::from_millis(1))
}

fn ec2(rules: &[&Rule], attempts: u32) -> aws_sdk_ec2::Client {
    let answers =
        rules.iter().fold(MockResponseInterceptor::new().rule_mode(RuleMode::Sequential), |answers, rule| answers.with_rule(rule));
    let config = aws_sdk_ec2::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
        .http_client(create_mock_http_client())
        .retry_config(fast(attempts))
        .interceptor(answers);
    aws_sdk_ec2::Client::from_conf(config.build())
}

fn lambda(rules: &[&Rule], attempts: u32) -> aws_sdk_lambda::Client {
    let answers =
        rules.iter().fold(MockResponseInterceptor::new().rule_mode(RuleMode::Sequential), |answers, rule| answers.with_rule(rule));
    let config = aws_sdk_lambda::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
        .http_client(create_mock_http_client())
        .retry_config(fast(attempts))
        .interceptor(answers);
    aws_sdk_lambda::Client::from_conf(config.build())
}

fn eni(id: &str) -> NetworkInterface {
    NetworkInterface::builder()
        .network_interface_id(id)
        .owner_id("111122223333")
        .availability_zone("eu-west-1a")
        .vpc_id("vpc-1")
        .subnet_id("subnet-1")
        .interface_type(NetworkInterfaceType::Lambda)
        .description("AWS Lambda VPC ENI-orders")
        .private_ip_address("10.0.0.5")
        .private_ip_addresses(NetworkInterfacePrivateIpAddress::builder().primary(true).private_ip_address("10.0.0.5").build())
        .groups(GroupIdentifier::builder().group_id("sg-1").build())
        .attachment(NetworkInterfaceAttachment::builder().instance_owner_id("amazon-aws").build())
        .tag_set(Tag::builder().key("Name").value("n").build())
        .build()
}

fn page(ids: &'static [&'static str], token: Option<&'static str>) -> impl Fn() -> DescribeNetworkInterfacesOutput {
    move || {
        DescribeNetworkInterfacesOutput::builder()
            .set_network_interfaces(Some(ids.iter().map(|id| eni(id)).collect()))
            .set_next_token(token.map(str::to_owned))
            .build()
    }
}

#[tokio::test]
async fn interfaces_are_read_page_by_page() {
    let first = mock!(aws_sdk_ec2::Client::describe_network_interfaces)
        .match_requests(|r| r.next_token().is_none() && r.max_results() == Some(1000))
        .then_output(page(&["eni-1", "eni-2"], Some("t")));
    let second = mock!(aws_sdk_ec2::Client::describe_network_interfaces)
        .match_requests(|r| r.next_token() == Some("t"))
        .then_output(page(&["eni-3"], None));
    let found = pages::interfaces(&ec2(&[&first, &second], 3)).await.unwrap_or_default();
    let ids: Vec<&str> = found.iter().filter_map(|i| i["NetworkInterfaceId"].as_str()).collect();
    assert_eq!(ids, ["eni-1", "eni-2", "eni-3"]);
}

/// What EC2 says when it throttles.
fn throttled() -> Option<String> {
    let error = "<Error><Code>RequestLimitExceeded</Code><Message>Request limit exceeded.</Message></Error>";
    Some(format!("<Response><Errors>{error}</Errors><RequestID>r</RequestID></Response>"))
}

#[tokio::test]
async fn throttled_calls_are_tried_again_and_not_for_ever() {
    let mended = mock!(aws_sdk_ec2::Client::describe_network_interfaces)
        .sequence()
        .http_status(503, throttled())
        .times(3)
        .output(page(&["eni-1"], None))
        .build();
    let found = pages::interfaces(&ec2(&[&mended], 5)).await;
    assert_eq!(found.map(|f| f.len()), Ok(1));
    assert_eq!(mended.num_calls(), 4);
    let stuck = mock!(aws_sdk_ec2::Client::describe_network_interfaces).sequence().http_status(503, throttled()).times(20).build();
    let failed = pages::interfaces(&ec2(&[&stuck], 4)).await;
    assert!(failed.as_ref().is_err_and(|e| e.contains("RequestLimitExceeded")), "{failed:?}");
    assert_eq!(stuck.num_calls(), 4);
}

#[tokio::test]
async fn a_list_that_points_to_itself_is_not_complete() {
    let circle = mock!(aws_sdk_ec2::Client::describe_network_interfaces).sequence().output(page(&["eni-1"], Some("t"))).times(2).build();
    let failed = pages::interfaces(&ec2(&[&circle], 1)).await;
    assert!(failed.as_ref().is_err_and(|e| e.contains("does not end")), "{failed:?}");
}

fn function(arn: &str, version: &str) -> FunctionConfiguration {
    FunctionConfiguration::builder()
        .function_arn(arn)
        .version(version)
        .last_modified("2026-01-05T10:00:00.000+0000")
        .vpc_config(VpcConfigResponse::builder().subnet_ids("subnet-1").security_group_ids("sg-1").vpc_id("vpc-1").build())
        .build()
}

#[tokio::test]
async fn functions_are_read_with_all_versions() {
    let arn = "arn:aws:lambda:eu-west-1:111122223333:function:orders";
    let all = aws_sdk_lambda::types::FunctionVersion::All;
    let wanted = all.clone();
    let first = mock!(aws_sdk_lambda::Client::list_functions)
        .match_requests(move |r| r.marker().is_none() && r.function_version() == Some(&all))
        .sequence()
        .http_status(429, Some(r#"{"__type":"TooManyRequestsException","Reason":"CallerRateLimitExceeded"}"#.to_owned()))
        .output(move || ListFunctionsOutput::builder().functions(function(arn, "$LATEST")).next_marker("m").build())
        .build();
    let second = mock!(aws_sdk_lambda::Client::list_functions)
        .match_requests(move |r| r.marker() == Some("m") && r.function_version() == Some(&wanted))
        .then_output(move || ListFunctionsOutput::builder().functions(function(&format!("{arn}:1"), "1")).build());
    let found = pages::functions(&lambda(&[&first, &second], 3)).await.unwrap_or_default();
    assert_eq!(found.iter().filter_map(|f| f["Version"].as_str()).collect::<Vec<_>>(), ["$LATEST", "1"]);
}

/// A snapshot is read back as what it was made of.
#[test]
fn snapshots_are_facts() {
    let place = Place { account: "111122223333".to_owned(), region: "eu-west-1".to_owned(), role: None };
    let taken_at = EventTime(1_767_600_000);
    let bytes = snapshot(&place, taken_at, "NetworkInterfaces", vec![shape::interface(&eni("eni-1"))]);
    let facts = facts_of_file(&bytes, "x", None).unwrap_or_default();
    assert!(facts.iter().all(|f| f.at == Some(taken_at) && f.account.as_deref() == Some("111122223333")), "{facts:?}");
    let seen = facts.iter().find_map(|f| match &f.kind {
        FactKind::InterfaceSeen(seen) => Some(seen),
        _ => None,
    });
    assert!(seen.is_some_and(|s| s.groups.is_some() && s.name.as_deref() == Some("n") && s.addresses.len() == 1), "{facts:?}");
    assert!(facts.iter().any(|f| f.kind == FactKind::InterfacesComplete));
    let bytes = snapshot(
        &place,
        taken_at,
        "Functions",
        vec![shape::function(&function("arn:aws:lambda:eu-west-1:111122223333:function:f:1", "1"))],
    );
    let facts = facts_of_file(&bytes, "x", None).unwrap_or_default();
    assert!(facts.iter().any(|f| f.kind == FactKind::FunctionsComplete { all_versions: true }), "{facts:?}");
    assert_eq!(file_name(&place, taken_at, "eni"), "111122223333_eu-west-1_20260105T080000Z_eni.json");
}

#[test]
fn roles_by_name_and_by_arn() {
    for (role, region, arn) in [
        ("flowtrail-read", "eu-west-1", "arn:aws:iam::111122223333:role/flowtrail-read"),
        ("security/reader", "eu-west-1", "arn:aws:iam::111122223333:role/security/reader"),
        ("reader", "cn-north-1", "arn:aws-cn:iam::111122223333:role/reader"),
        ("arn:aws:iam::999999999999:role/reader", "eu-west-1", "arn:aws:iam::111122223333:role/reader"),
    ] {
        assert_eq!(role_arn(role, "111122223333", region), arn);
    }
}
