//! Services that are away, refuse or stumble: a clear error or a row, exit codes as documented, nothing else lost.

use std::path::PathBuf;
use std::time::Duration;

use crate::harness::proxy::Proxy;
use crate::harness::services::{Kafka, S3};
use crate::harness::{Outcome, flowtrail, number};

const HEADER: &str = "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status";
/// Retries with back-off have ended by then.
const PATIENCE: Duration = Duration::from_secs(180);

fn log(peer: u32) -> Vec<u8> {
    format!("{HEADER}\n2 111122223333 eni-0a 10.0.0.5 203.0.113.{peer} 40000 443 6 10 1000 1700000000 1700000060 ACCEPT OK\n").into_bytes()
}

fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A replay of `s3://bucket/` through `endpoint` to a folder.
fn replay(s3: &S3, endpoint: &str, bucket: &str, folder: &tempfile::TempDir) -> Outcome {
    let config = file(folder, "flowtrail.toml", &format!("[aws]\nregion = \"us-east-1\"\nendpoint_url = {endpoint:?}\n"));
    let mut command = flowtrail();
    command
        .arg("replay")
        .arg(format!("s3://{bucket}/"))
        .arg("--out")
        .arg(folder.path().join("out"))
        .arg("--json")
        .arg("--config")
        .arg(config);
    Outcome::of(command.envs(s3.env()), PATIENCE)
}

#[test]
fn a_bucket_that_is_not_there_is_named() {
    let Some(s3) = S3::connect() else { return };
    let folder = folder();
    let outcome = replay(&s3, &s3.endpoint, "no-such-bucket-anywhere", &folder);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("no-such-bucket-anywhere"), "{}", outcome.stderr);
}

#[test]
fn wrong_credentials_are_said() {
    let Some(s3) = S3::connect() else { return };
    let folder = folder();
    let bucket = s3.bucket("locked");
    let config = file(&folder, "flowtrail.toml", &s3.config());
    let mut command = flowtrail();
    command.arg("replay").arg(format!("s3://{bucket}/")).arg("--out").arg(folder.path().join("out")).arg("--config").arg(config);
    command.envs(s3.env()).env("AWS_SECRET_ACCESS_KEY", "not-the-secret");
    let outcome = Outcome::of(&mut command, PATIENCE);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("credentials") && !outcome.stderr.contains("not-the-secret"), "{}", outcome.stderr);
}

#[test]
fn a_store_that_is_away_is_said() {
    let Some(s3) = S3::connect() else { return };
    let folder = folder();
    let outcome = replay(&s3, "http://127.0.0.1:9", "logs", &folder);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("logs"), "{}", outcome.stderr);
}

#[test]
fn a_key_that_is_denied_is_quarantined_and_the_others_are_read() {
    let Some(s3) = S3::connect() else { return };
    let folder = folder();
    let bucket = s3.bucket("denied");
    for peer in 1..=5 {
        s3.put(&bucket, &format!("part-{peer}.log"), log(peer));
    }
    let proxy = Proxy::before(&s3.endpoint, |line, _| line.contains("part-3.log").then_some(("403 Forbidden", "AccessDenied")));
    let outcome = replay(&s3, &proxy.endpoint, &bucket, &folder);
    let summary = outcome.summary();
    assert!(proxy.refused() >= 1, "the proxy was asked");
    assert_eq!((outcome.code, number(&summary, &["records", "flow"])), (Some(1), 4), "{summary}");
    assert!(summary["quarantined"].to_string().contains("part-3.log"), "{summary}");
    // When it may be read at last, it is.
    let outcome = replay(&s3, &s3.endpoint, &bucket, &folder);
    let summary = outcome.summary();
    assert_eq!((outcome.code, number(&summary, &["units", "applied"])), (Some(0), 1), "{summary}");
}

#[test]
fn a_store_that_asks_to_slow_down_is_asked_again() {
    let Some(s3) = S3::connect() else { return };
    let folder = folder();
    let bucket = s3.bucket("slow");
    for peer in 1..=5 {
        s3.put(&bucket, &format!("part-{peer}.log"), log(peer));
    }
    let proxy = Proxy::before(&s3.endpoint, |_, refused| (refused < 2).then_some(("503 Slow Down", "SlowDown")));
    let outcome = replay(&s3, &proxy.endpoint, &bucket, &folder);
    let summary = outcome.summary();
    assert_eq!(proxy.refused(), 2);
    assert_eq!((outcome.code, number(&summary, &["records", "flow"])), (Some(0), 5), "{summary}");
}

#[test]
fn a_key_that_is_gone_after_the_listing_is_quarantined() {
    let Some(s3) = S3::connect() else { return };
    let folder = folder();
    let bucket = s3.bucket("gone");
    for peer in 1..=3 {
        s3.put(&bucket, &format!("part-{peer}.log"), log(peer));
    }
    let gone = |line: &str, _| (line.contains("part-2.log") && !line.contains("list-type")).then_some(("404 Not Found", "NoSuchKey"));
    let proxy = Proxy::before(&s3.endpoint, gone);
    let outcome = replay(&s3, &proxy.endpoint, &bucket, &folder);
    let summary = outcome.summary();
    assert_eq!((outcome.code, number(&summary, &["records", "flow"])), (Some(1), 2), "{summary}");
    assert!(summary["quarantined"].to_string().contains("part-2.log"), "{summary}");
}

/// `run --once` on one Kafka source.
fn run_kafka(brokers: &str, topic: &str, options: &str, folder: &tempfile::TempDir) -> Outcome {
    let text = format!(
        "[output]\nlocation = {:?}\n[run]\nclock = \"delivery\"\n[[source]]\nkind = \"kafka\"\nbrokers = [{brokers:?}]\ntopics = [{topic:?}]\n{options}",
        folder.path().join("out")
    );
    let config = file(folder, "flowtrail.toml", &text);
    Outcome::of(flowtrail().args(["run", "--once", "--json", "--config"]).arg(config), PATIENCE)
}

#[test]
fn a_broker_that_is_away_at_the_start_is_named() {
    let folder = folder();
    let outcome = run_kafka("127.0.0.1:9", "cloudtrail", "", &folder);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("127.0.0.1:9"), "{}", outcome.stderr);
}

#[test]
fn a_topic_that_is_not_there_is_named() {
    let Some(kafka) = Kafka::connect() else { return };
    let folder = folder();
    let outcome = run_kafka(&kafka.brokers, "no-such-topic", "", &folder);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("no-such-topic"), "{}", outcome.stderr);
}

#[test]
fn an_option_that_librdkafka_does_not_know_is_named() {
    let folder = folder();
    let outcome = run_kafka("127.0.0.1:9", "cloudtrail", "[source.options]\n\"no.such.option\" = \"1\"\n", &folder);
    assert!(matches!(outcome.code, Some(1 | 2)), "{outcome:?}");
    assert!(outcome.stderr.contains("no.such.option"), "{}", outcome.stderr);
}

#[test]
fn credentials_that_the_broker_does_not_want_are_said() {
    let Some(kafka) = Kafka::connect() else { return };
    let folder = folder();
    let topic = kafka.topic("plain", 1);
    // The broker's listener has no authentication, so the handshake for it cannot succeed.
    let options = "[source.options]\n\"security.protocol\" = \"SASL_PLAINTEXT\"\n\"sasl.mechanism\" = \"PLAIN\"\n\"sasl.username\" = \"u\"\n\"sasl.password\" = \"secret-word\"\n";
    let outcome = run_kafka(&kafka.brokers, &topic, options, &folder);
    assert!(matches!(outcome.code, Some(1 | 2)), "{outcome:?}");
    assert!(!outcome.stderr.is_empty() && !outcome.stderr.contains("secret-word"), "{}", outcome.stderr);
}
