//! CloudTrail objects: what functions, services, roles and people of the same world call, in the shapes of real records.

use std::fmt::Write as _;

use flowtrail_ingest::time::EventTime;

use crate::random::{Random, Zipf};
use crate::world::{Interface, REGION, World, function_name, uuid};

/// (service, action, data event, read-only, request parameters, resource type) of calls that code makes.
const CALLS: [(&str, &str, bool, bool, &str, &str); 12] = [
    (
        "s3",
        "GetObject",
        true,
        true,
        r#"{"bucketName":"@-data","Host":"@-data.s3.eu-west-1.amazonaws.com","key":"in/2026/01/05/part-%.parquet"}"#,
        "AWS::S3::Object",
    ),
    (
        "dynamodb",
        "GetItem",
        true,
        true,
        r#"{"tableName":"@-state","key":{"id":"~"},"consistentRead":false,"returnConsumedCapacity":"NONE"}"#,
        "AWS::DynamoDB::Table",
    ),
    (
        "kms",
        "Decrypt",
        false,
        true,
        r#"{"encryptionContext":{"aws:lambda:FunctionArn":"@"},"encryptionAlgorithm":"SYMMETRIC_DEFAULT"}"#,
        "AWS::KMS::Key",
    ),
    (
        "s3",
        "PutObject",
        true,
        false,
        r#"{"bucketName":"@-data","Host":"@-data.s3.eu-west-1.amazonaws.com","key":"out/2026/01/05/part-%.parquet","x-amz-server-side-encryption":"aws:kms"}"#,
        "AWS::S3::Object",
    ),
    ("dynamodb", "UpdateItem", true, false, r#"{"tableName":"@-state","key":{"id":"~"},"returnValues":"NONE"}"#, "AWS::DynamoDB::Table"),
    ("secretsmanager", "GetSecretValue", false, true, r#"{"secretId":"@/database"}"#, "AWS::SecretsManager::Secret"),
    ("sts", "GetCallerIdentity", false, true, "null", "AWS::IAM::Role"),
    (
        "sqs",
        "ReceiveMessage",
        true,
        true,
        r#"{"queueUrl":"https://sqs.eu-west-1.amazonaws.com/@","maxNumberOfMessages":10,"waitTimeSeconds":20}"#,
        "AWS::SQS::Queue",
    ),
    ("ssm", "GetParametersByPath", false, true, r#"{"path":"/@/","recursive":true,"withDecryption":true}"#, "AWS::SSM::Parameter"),
    (
        "logs",
        "CreateLogStream",
        false,
        false,
        r#"{"logGroupName":"/aws/lambda/@","logStreamName":"2026/01/05/[$LATEST]~"}"#,
        "AWS::Logs::LogGroup",
    ),
    (
        "ec2",
        "DescribeInstances",
        false,
        true,
        r#"{"instancesSet":{},"filterSet":{"items":[{"name":"tag:app","valueSet":{"items":[{"value":"@"}]}}]}}"#,
        "AWS::EC2::Instance",
    ),
    (
        "sns",
        "Publish",
        true,
        false,
        r#"{"topicArn":"arn:aws:sns:eu-west-1:111122223333:@","message":"HIDDEN_DUE_TO_SECURITY_REASONS"}"#,
        "AWS::SNS::Topic",
    ),
];

/// Appends one whole object, `{"Records":[…]}`, of `count` events of `account` in the five minutes from `window` on.
pub fn object_events(world: &World, account: usize, window: i64, count: u64, random: &mut Random, out: &mut Vec<u8>) {
    let likes = Zipf::new(CALLS.len(), 0.8);
    let mut text = String::with_capacity(2048);
    out.extend_from_slice(br#"{"Records":["#);
    for index in 0..count {
        text.clear();
        if index > 0 {
            text.push(',');
        }
        event(world, account, window + (index * 300 / count) as i64, &likes, random, &mut text);
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(b"]}");
}

fn event(world: &World, account: usize, at: i64, likes: &Zipf, random: &mut Random, out: &mut String) {
    let account_id = world.account_id(account);
    let interface = world.busy_interface(account, random);
    let name = function_name(interface.index);
    let who = random.below(100);
    let (service, action, data, read_only, request, resource) = CALLS[likes.rank(random.bits())];
    out.push_str(r#"{"eventVersion":"1.11","userIdentity":"#);
    if who < 12 {
        out.push_str(r#"{"type":"AWSService","invokedBy":"lambda.amazonaws.com"}"#);
    } else {
        identity(world, account, interface, at, who < 85, out);
    }
    let ip = if who < 12 {
        "lambda.amazonaws.com".to_string()
    } else {
        format!("34.24{}.{}.{}", interface.index % 8, interface.index % 250, account + 1)
    };
    let agent = match who {
        0..12 => "lambda.amazonaws.com",
        12..85 => {
            "Boto3/1.40.61 md/Botocore#1.40.61 ua/2.1 os/linux#5.10.245-243.979.amzn2.x86_64 md/arch#x86_64 lang/python#3.12.11 md/pyimpl#CPython exec-env/AWS_Lambda_python3.12 m/D,b,Z,n cfg/retry-mode#legacy Botocore/1.40.61"
        }
        _ => "aws-sdk-go-v2/1.39.2 ua/2.1 os/linux lang/go#1.25.1 md/GOARCH#arm64 md/GOOS#linux api/ec2#1.253.0 m/E,g",
    };
    let (service, action, data, read_only, request, resource) = if who < 12 {
        ("sts", "AssumeRole", false, true, "", "AWS::IAM::Role")
    } else {
        (service, action, data, read_only, request, resource)
    };
    let time = EventTime(at);
    let _ = write!(
        out,
        r#","eventTime":"{time}","eventSource":"{service}.amazonaws.com","eventName":"{action}","awsRegion":"{REGION}","sourceIPAddress":"{ip}","userAgent":"{agent}""#
    );
    if random.per_mille(15) {
        let _ = write!(
            out,
            r#","errorCode":"AccessDenied","errorMessage":"User: arn:aws:sts::{account_id}:assumed-role/{name}-role/{name} is not authorized to perform: {service}:{action} because no identity-based policy allows the {service}:{action} action""#
        );
    }
    out.push_str(r#","requestParameters":"#);
    if who < 12 {
        let _ = write!(
            out,
            r#"{{"roleArn":"arn:aws:iam::{account_id}:role/{name}-role","roleSessionName":"{name}"}},"responseElements":{{"credentials":{{"accessKeyId":"ASIA{:016X}","sessionToken":"REDACTED","expiration":"{}"}}}}"#,
            random.bits(),
            EventTime(at + 43_200)
        );
    } else {
        for piece in request.chars() {
            match piece {
                '@' => out.push_str(&name),
                '%' => drop(write!(out, "{:05}", random.below(40_000))),
                '~' => drop(write!(out, "{:016x}", random.bits())),
                other => out.push(other),
            }
        }
        out.push_str(if read_only {
            r#","responseElements":null"#
        } else {
            r#","responseElements":{"x-amz-server-side-encryption":"aws:kms","x-amz-version-id":"null"}"#
        });
    }
    if data {
        let _ = write!(
            out,
            r#","additionalEventData":{{"SignatureVersion":"SigV4","CipherSuite":"TLS_AES_128_GCM_SHA256","bytesTransferredIn":0,"AuthenticationMethod":"AuthHeader","bytesTransferredOut":{}}}"#,
            random.heavy(200, 0.9)
        );
    }
    let _ = write!(out, r#","requestID":"{}","eventID":"{}","readOnly":{read_only}"#, uuid(random), uuid(random));
    let _ = write!(
        out,
        r#","resources":[{{"accountId":"{account_id}","type":"{resource}","ARN":"arn:aws:{service}:{REGION}:{account_id}:{name}-data"}}],"eventType":"AwsApiCall","managementEvent":{},"recipientAccountId":"{account_id}","eventCategory":"{}","tlsDetails":{{"tlsVersion":"TLSv1.3","cipherSuite":"TLS_AES_128_GCM_SHA256","clientProvidedHostHeader":"{service}.{REGION}.amazonaws.com"}}}}"#,
        !data,
        if data { "Data" } else { "Management" },
    );
}

/// An assumed role: a function's own credentials, or some other workload's.
fn identity(world: &World, account: usize, interface: &Interface, at: i64, function: bool, out: &mut String) {
    let account_id = world.account_id(account);
    let name = function_name(interface.index);
    let (role, session) =
        if function { (format!("{name}-role"), name) } else { ("deploy-agent".to_string(), format!("run-{}", interface.index)) };
    // Credentials live for hours: the same key and creation date over many events.
    let mut of_session = Random::of(&[world.size.seed, interface.index as u64, (at / 14_400) as u64]);
    let (key, created) = (of_session.bits(), EventTime(at - at.rem_euclid(14_400) + of_session.below(60) as i64));
    let principal = Random::of(&[world.size.seed, interface.index as u64, 9]).bits();
    let _ = write!(
        out,
        r#"{{"type":"AssumedRole","principalId":"AROA{principal:016X}:{session}","arn":"arn:aws:sts::{account_id}:assumed-role/{role}/{session}","accountId":"{account_id}","accessKeyId":"ASIA{key:016X}","sessionContext":{{"sessionIssuer":{{"type":"Role","principalId":"AROA{principal:016X}","arn":"arn:aws:iam::{account_id}:role/{role}","accountId":"{account_id}","userName":"{role}"}},"attributes":{{"creationDate":"{created}","mfaAuthenticated":"false"}}}}"#
    );
    if function {
        let arn = world.function_arn(account, interface.index);
        let _ = write!(
            out,
            r#","inScopeOf":{{"issuerType":"AWS::Lambda::Function","credentialsIssuedTo":"{arn}","credentialsIssuedToVersion":"{arn}:$LATEST"}}"#
        );
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::WorldSize;

    #[test]
    fn an_object_is_json_with_distinct_events_of_the_usual_size() {
        let world = World::new(WorldSize { seed: 3, accounts: 2, interfaces: 60, conversations: 10, habit: 1.0 });
        let mut out = Vec::new();
        object_events(&world, 1, 1_767_571_200, 2000, &mut Random::of(&[1]), &mut out);
        let parsed: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        let records = parsed["Records"].as_array().expect("an array");
        assert_eq!(records.len(), 2000);
        let ids: std::collections::BTreeSet<_> = records.iter().map(|record| record["eventID"].to_string()).collect();
        assert_eq!(ids.len(), 2000);
        let size = out.len() / 2000;
        assert!((1600..2100).contains(&size), "{size} bytes an event");
        assert!(records.iter().all(|record| record["eventTime"].as_str().is_some_and(|time| time.starts_with("2026-01-05T00:0"))));
    }
}
