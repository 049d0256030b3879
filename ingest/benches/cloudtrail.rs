//! CloudTrail from text to records: bytes and records a second, for the shapes it comes in.
//!
//! `cargo bench -p flowtrail-ingest --bench cloudtrail`. The ordinary object goes the fast path; escapes, white space and
//! envelopes show what each of them costs on top.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use flowtrail_ingest::cloudtrail::{Item, call_id, read};

const RECORDS: usize = 400;

/// A record of some 1.8 kB, as an SDK in a function makes them.
fn record(n: usize) -> String {
    let (function, key) = (n % 37, n.wrapping_mul(0x9e37_79b9) & 0xffff_ffff);
    let identity = format!(
        r#"{{"type":"AssumedRole","principalId":"AROA0123456789ABCDEF:worker-{function}","arn":"arn:aws:sts::111122223333:assumed-role/worker-{function}-role/worker-{function}","accountId":"111122223333","accessKeyId":"ASIA0123456789{key:08X}","sessionContext":{{"sessionIssuer":{{"type":"Role","principalId":"AROA0123456789ABCDEF","arn":"arn:aws:iam::111122223333:role/worker-{function}-role","accountId":"111122223333","userName":"worker-{function}-role"}},"attributes":{{"creationDate":"2026-01-05T00:00:17Z","mfaAuthenticated":"false"}}}},"inScopeOf":{{"issuerType":"AWS::Lambda::Function","credentialsIssuedTo":"arn:aws:lambda:eu-west-1:111122223333:function:worker-{function}"}}}}"#
    );
    format!(
        r#"{{"eventVersion":"1.11","userIdentity":{identity},"eventTime":"2026-01-05T00:{:02}:{:02}Z","eventSource":"s3.amazonaws.com","eventName":"GetObject","awsRegion":"eu-west-1","sourceIPAddress":"34.240.17.{}","userAgent":"Boto3/1.40.61 md/Botocore#1.40.61 ua/2.1 os/linux#5.10.245-243.979.amzn2.x86_64 md/arch#x86_64 lang/python#3.12.11 md/pyimpl#CPython exec-env/AWS_Lambda_python3.12 m/D,b,Z,n cfg/retry-mode#legacy Botocore/1.40.61","requestParameters":{{"bucketName":"worker-data","Host":"worker-data.s3.eu-west-1.amazonaws.com","key":"in/2026/01/05/part-{n:05}.parquet"}},"responseElements":null,"additionalEventData":{{"SignatureVersion":"SigV4","CipherSuite":"TLS_AES_128_GCM_SHA256","bytesTransferredIn":0,"AuthenticationMethod":"AuthHeader","bytesTransferredOut":{}}},"requestID":"{key:08x}-0000-4000-8000-{n:012x}","eventID":"{n:08x}-1111-4111-8111-{key:012x}","readOnly":true,"resources":[{{"accountId":"111122223333","type":"AWS::S3::Object","ARN":"arn:aws:s3:::worker-data/in"}}],"eventType":"AwsApiCall","managementEvent":false,"recipientAccountId":"111122223333","eventCategory":"Data","tlsDetails":{{"tlsVersion":"TLSv1.3","cipherSuite":"TLS_AES_128_GCM_SHA256","clientProvidedHostHeader":"s3.eu-west-1.amazonaws.com"}}}}"#,
        n / 60 % 60,
        n % 60,
        n % 250,
        n * 977 % 100_000,
    )
}

/// The shapes by name.
fn shapes() -> Vec<(&'static str, String)> {
    let records: Vec<String> = (0..RECORDS).map(record).collect();
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let object = |records: &[String]| format!("{{\"Records\":[{}]}}", records.join(","));
    let pretty = serde_json::from_str::<serde_json::Value>(&object(&records)).and_then(|all| serde_json::to_string_pretty(&all));
    let policy: Vec<String> = records.iter().map(|r| r.replace("\"key\":", r#""policyDocument":"{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Allow\",\"Action\":\"s3:*\",\"Resource\":\"*\"}]}","key":"#)).collect();
    let mut events = String::new();
    for record in &records {
        let _ = writeln!(
            events,
            r#"{{"version":"0","id":"x","detail-type":"AWS API Call via CloudTrail","source":"aws.s3","account":"111122223333","resources":[],"detail":{record}}}"#
        );
    }
    let messages: Vec<String> =
        records.iter().map(|r| format!(r#"{{"id":"1","timestamp":1767571200000,"message":{}}}"#, quoted(r))).collect();
    vec![
        ("object", object(&records)),
        ("lines", records.join("\n")),
        ("escapes", object(&policy)),
        ("beyond ASCII", object(&records.iter().map(|r| r.replace("worker-data/in", "worker-data/été")).collect::<Vec<_>>())),
        ("pretty", pretty.unwrap()),
        ("EventBridge", events),
        (
            "CloudWatch",
            format!(r#"{{"messageType":"DATA_MESSAGE","owner":"1","logGroup":"g","logStream":"s","logEvents":[{}]}}"#, messages.join(",")),
        ),
    ]
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args().sample_size(20).measurement_time(Duration::from_secs(2));
    let mut group = criterion.benchmark_group("CloudTrail");
    for (name, text) in &shapes() {
        let count = |text: &[u8]| {
            let (mut calls, mut ids) = (0, 0u128);
            read(text, &mut |item| {
                if let Item::Call(call) = item {
                    calls += 1;
                    ids ^= call_id(call);
                }
            });
            (calls, ids)
        };
        assert_eq!(count(text.as_bytes()).0, RECORDS, "{name}");
        group.throughput(Throughput::Elements(RECORDS as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), text, |b, text| b.iter(|| count(black_box(text.as_bytes()))));
    }
    group.finish();
    criterion.final_summary();
}
