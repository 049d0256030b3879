//! CloudTrail from a real Kafka broker, in every form in which it is put there.

use serde_json::{Value, json};

use crate::harness::services::Kafka;
use crate::harness::tables::table;
use crate::harness::{LIMIT, Outcome, flowtrail, number};

const AT: i64 = 1_700_000_000;

fn event(id: usize) -> Value {
    json!({"eventVersion": "1.08", "eventTime": "2023-11-14T22:13:20Z", "eventSource": "s3.amazonaws.com", "eventName": "GetObject",
        "awsRegion": "us-east-1", "sourceIPAddress": "10.0.0.5", "userIdentity": {"type": "AWSService"}, "recipientAccountId": "111122223333",
        "eventID": format!("00000000-0000-0000-0000-{id:012}"), "eventType": "AwsApiCall"})
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap()
}

struct Reader {
    folder: tempfile::TempDir,
    config: std::path::PathBuf,
}

impl Reader {
    fn of(kafka: &Kafka, topic: &str, options: &str) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let config = folder.path().join("flowtrail.toml");
        let text = format!(
            "[output]\nlocation = {:?}\ntables = [\"findings\", \"rejects\", \"quarantine\"]\n[run]\nclock = \"delivery\"\n\
             [[source]]\nkind = \"kafka\"\nbrokers = [{:?}]\ntopics = [{topic:?}]\n{options}",
            folder.path().join("out"),
            kafka.brokers
        );
        std::fs::write(&config, text).unwrap();
        Self { folder, config }
    }

    fn run(&self) -> Value {
        let outcome = Outcome::of(flowtrail().args(["run", "--once", "--json", "--config"]).arg(&self.config), LIMIT);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        outcome.summary()
    }
}

#[test]
fn every_form_of_message_is_read() {
    let Some(kafka) = Kafka::connect() else { return };
    let topic = kafka.topic("forms", 3);
    let string = |value: &Value| Value::String(value.to_string());
    let messages: Vec<(Vec<u8>, u64)> = vec![
        (event(1).to_string().into_bytes(), 1),
        (json!({"Records": [event(2), event(3)]}).to_string().into_bytes(), 2),
        (gzip(json!({"Records": [event(4)]}).to_string().as_bytes()), 1),
        (
            json!({"version": "0", "id": "e", "detail-type": "AWS API Call via CloudTrail", "source": "aws.s3", "account": "111122223333",
                "time": "2023-11-14T22:13:21Z", "region": "us-east-1", "resources": [], "detail": event(5)})
            .to_string()
            .into_bytes(),
            1,
        ),
        (
            json!({"messageType": "DATA_MESSAGE", "owner": "111122223333", "logGroup": "trail", "logStream": "111122223333_CloudTrail_us-east-1",
                "subscriptionFilters": ["f"], "logEvents": [{"id": "1", "timestamp": AT * 1000, "message": event(6).to_string()},
                {"id": "2", "timestamp": AT * 1000, "message": event(7).to_string()}]})
            .to_string()
            .into_bytes(),
            2,
        ),
        // Firehose: one after another, no newline between.
        (format!("{}{}", event(8), event(9)).into_bytes(), 2),
        (json!({"EventId": "x", "EventName": "GetObject", "CloudTrailEvent": event(10).to_string()}).to_string().into_bytes(), 1),
        // Kafka Connect's converter with schemas, and a string in a string.
        (json!({"schema": {"type": "string", "optional": false}, "payload": event(11).to_string()}).to_string().into_bytes(), 1),
        (string(&event(12)).to_string().into_bytes(), 1),
    ];
    let expected: u64 = messages.iter().map(|(_, events)| events).sum();
    for (index, (value, _)) in messages.iter().enumerate() {
        kafka.send(&topic, (index % 3) as i32, AT + 300, value);
    }
    kafka.flush();
    let reader = Reader::of(&kafka, &topic, "");
    let summary = reader.run();
    assert_eq!((number(&summary, &["records", "api"]), number(&summary, &["rejects"])), (expected, 0), "{summary}");
}

#[test]
fn it_goes_on_where_it_committed_and_counts_repeats() {
    let Some(kafka) = Kafka::connect() else { return };
    let topic = kafka.topic("goes-on", 2);
    let reader = Reader::of(&kafka, &topic, "");
    let send = |ids: std::ops::Range<usize>, at: i64| {
        ids.for_each(|id| kafka.send(&topic, (id % 2) as i32, at, event(id).to_string().as_bytes()));
        kafka.flush();
    };
    send(0..50, AT + 60);
    assert_eq!(number(&reader.run(), &["records", "api"]), 50);
    assert_eq!(number(&reader.run(), &["records", "api"]), 0, "nothing new");
    send(40..80, AT + 120);
    let summary = reader.run();
    assert_eq!((number(&summary, &["records", "api"]), number(&summary, &["records", "api_duplicate"])), (30, 10), "{summary}");
}

#[test]
fn a_poisoned_message_is_set_aside_and_the_next_is_read() {
    let Some(kafka) = Kafka::connect() else { return };
    let topic = kafka.topic("poison", 1);
    let bad: [&[u8]; 6] = [b"", b"not json", b"{\"Records\":[", b"\x1f\x8b\x08\x00broken", b"{\"hello\":1}", b"\xff\xfe\0\0"];
    for (index, value) in bad.iter().enumerate() {
        kafka.send(&topic, 0, AT + 60, value);
        kafka.send(&topic, 0, AT + 60, event(index).to_string().as_bytes());
    }
    kafka.flush();
    let reader = Reader::of(&kafka, &topic, "");
    let outcome = Outcome::of(flowtrail().args(["run", "--once", "--json", "--config"]).arg(&reader.config), LIMIT);
    let summary = outcome.summary();
    assert_eq!(number(&summary, &["records", "api"]), bad.len() as u64, "{summary}");
    // Recognised and broken: the cut JSON is a reject, the broken gzip is quarantined. What is no log at all is ignored, and said
    // (design/interface.md section 1); an empty message holds nothing.
    let counts = [["rejects"].as_slice(), &["units", "quarantined"], &["units", "ignored"]].map(|path| number(&summary, path));
    assert_eq!(counts, [1, 1, 3], "{summary}");
    let named = |list: &str| summary[list].to_string();
    for offset in [2, 8, 10] {
        assert!(named("unrecognised").contains(&format!("/0@{offset}\"")), "message {offset}: {summary}");
    }
    assert!(named("quarantined").contains("/0@6\""), "{summary}");
    let out = reader.folder.path().join("out");
    let (rejects, quarantine) = (table(&out, "rejects"), table(&out, "quarantine"));
    assert_eq!((rejects.len(), quarantine.len()), (1, 1), "{rejects:?} {quarantine:?}");
    assert_eq!(rejects[0]["position"], "4");
    assert!(outcome.code == Some(i32::from(number(&summary, &["units", "quarantined"]) > 0)), "{outcome:?}");
}

#[test]
fn settings_reach_librdkafka() {
    let Some(kafka) = Kafka::connect() else { return };
    let topic = kafka.topic("settings", 1);
    kafka.send(&topic, 0, AT + 60, event(1).to_string().as_bytes());
    kafka.flush();
    let options = "[source.options]\n\"fetch.wait.max.ms\" = 20\n\"check.crcs\" = true\n\"client.id\" = \"flowtrail-tests\"\n";
    assert_eq!(number(&Reader::of(&kafka, &topic, options).run(), &["records", "api"]), 1);
}
