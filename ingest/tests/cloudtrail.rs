//! The fast scanner against its plain twin and simd-json, on records others made, on generated ones and on broken ones.
#![allow(clippy::unwrap_used)]

use std::borrow::Cow;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use flowtrail_ingest::cloudtrail::{DEPTH_MAX, Item, call_id, one_line, plain, read, scan, tree};
use proptest::prelude::*;
use serde_json::Value;

/// The folder with test data of others; `None` where it is not at hand, which is a failure on the build machines.
fn shared() -> Option<PathBuf> {
    let folder =
        std::env::var_os("FLOWTRAIL_SHARED").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    let data = folder.join("data");
    if data.is_dir() {
        return Some(data);
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "no shared data at {}", data.display());
    eprintln!("skipped: no shared data at {}", data.display());
    None
}

fn content(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return bytes;
    }
    let mut text = Vec::new();
    flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut text).unwrap();
    text
}

fn lines(path: &Path) -> Vec<Value> {
    content(path).split(|c| *c == b'\n').filter(|line| !line.is_empty()).map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// Every text with records in the shared data, and how many records it holds.
fn texts(data: &Path) -> Vec<(String, Vec<u8>, usize)> {
    let mut texts = Vec::new();
    let records = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap()["Records"].as_array().unwrap().len();
    for name in [
        "opensearch_ordinary_account.json.gz",
        "trailscraper/111111111111_CloudTrail_eu-central-1_20171211T1505Z_A6kvhMoVeCsc7v8U.json.gz",
        "trailscraper/events-for-smoke-test.json",
    ] {
        let text = content(&data.join("cloudtrail").join(name));
        texts.push((name.to_owned(), text.clone(), records(&text)));
    }
    let mut stratus: Vec<_> = std::fs::read_dir(data.join("stratus")).unwrap().map(|entry| entry.unwrap().path()).collect();
    stratus.sort();
    for path in stratus.into_iter().filter(|path| path.extension().is_some_and(|e| e == "json")) {
        let text = content(&path);
        let count = serde_json::from_slice::<Vec<Value>>(&text).unwrap().len();
        texts.push((path.display().to_string(), text, count));
    }
    let joined = |values: &[Value]| values.iter().map(|v| v.to_string()).collect::<Vec<_>>().join("\n").into_bytes();
    let events: Vec<Value> = lines(&data.join("cloudtrail/eventbridge_cloudtrail_events.jsonl"))
        .into_iter()
        .map(|row| row.get("event").cloned().unwrap_or(row))
        .collect();
    texts.push(("eventbridge".to_owned(), joined(&events), events.len()));
    let panther: Vec<Value> = lines(&data.join("panther/cases.jsonl.gz"))
        .into_iter()
        .map(|mut row| row["log"].take())
        .filter(|log| log.get("eventName").is_some() && log.get("eventSource").is_some() && log.get("eventTime").is_some())
        .collect();
    texts.push(("panther lines".to_owned(), joined(&panther), panther.len()));
    texts.push(("panther pretty".to_owned(), serde_json::to_vec_pretty(&serde_json::json!({"Records": panther})).unwrap(), panther.len()));
    texts.push(("otel".to_owned(), content(&data.join("flowlogs/otel/cloudtrail_log_cw.json")), 1));
    texts
}

/// The twins agree on a text, and no parser with a name takes what they refuse.
fn compare(raw: &[u8]) -> bool {
    let (fast, slow) = (scan::record(raw), plain::record(raw));
    assert_eq!(fast, slow, "{}", raw.escape_ascii());
    for on_set in scan::record_on_each(raw) {
        assert_eq!(on_set, slow, "{}", raw.escape_ascii());
    }
    let mut copy = raw.to_vec();
    if let Ok(value) = simd_json::serde::from_slice::<Value>(&mut copy)
        && value.is_object()
        && raw.iter().filter(|c| matches!(c, b'{' | b'[')).count() <= DEPTH_MAX
        && !["Records", "Events", "events"].iter().any(|list| value.get(*list).is_some())
    {
        let fast = fast.as_ref().unwrap_or_else(|| panic!("refused: {}", raw.escape_ascii()));
        assert_eq!(value.get("eventName").and_then(Value::as_str).unwrap_or_default(), fast.event_name);
        assert_eq!(value.get("requestParameters").filter(|v| v.is_object()).cloned(), fast.request.and_then(tree));
        assert_eq!(tree(raw), Some(value));
    }
    if fast.is_some() {
        assert!(tree(raw).is_some(), "no tree: {}", raw.escape_ascii());
        assert_eq!(tree(&one_line(raw)), tree(raw));
    }
    fast.is_some()
}

#[test]
fn every_shared_record_is_read_once_and_alike() {
    let Some(data) = shared() else { return };
    let mut total = 0;
    for (name, text, count) in texts(&data) {
        let (mut calls, mut ignored, mut rejects, mut raws) = (0, 0, 0, Vec::new());
        let outcome = read(&text, &mut |item| match item {
            Item::Call(call) => {
                calls += 1;
                raws.push((call.raw.to_vec(), call_id(call)));
            }
            Item::Ignored { .. } => ignored += 1,
            Item::Reject(_) => rejects += 1,
        });
        assert_eq!((outcome.items as usize, calls + ignored + rejects), (count, count), "{name}");
        assert!(calls * 100 >= count * 97, "{name}: {calls} of {count}");
        for (raw, id) in &raws {
            assert!(compare(raw), "{name}");
            // White space between tokens is nobody's business.
            let value = tree(raw).unwrap();
            let pretty = serde_json::to_vec_pretty(&value).unwrap();
            assert_eq!(call_id(&scan::record(&pretty).unwrap()), *id, "{name}");
            assert_eq!(*one_line(&pretty), *one_line(value.to_string().as_bytes()), "{name}");
        }
        total += calls;
    }
    assert!(total > 1000, "{total}");
}

#[test]
fn every_shared_record_breaks_alike() {
    let Some(data) = shared() else { return };
    let (mut kept, mut tried) = (0, 0);
    // A cheap generator: the same damage on every run.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for (_, text, _) in texts(&data) {
        let mut raws = Vec::new();
        read(&text, &mut |item| {
            if let Item::Call(call) = item {
                raws.push(call.raw.to_vec());
            }
        });
        for raw in raws {
            for _ in 0..12 {
                let mut broken = raw.clone();
                let at = random(broken.len());
                match random(5) {
                    0 => broken[at] = b"\"\\{}[],:0 \n\x01\x7f\x80\xff-e."[random(18)],
                    1 => broken.truncate(at),
                    2 => drop(broken.remove(at)),
                    3 => broken.insert(at, b"\"\\{}[],:019 \x80u"[random(13)]),
                    _ => {
                        // A piece of the record twice: doubled keys, doubled values.
                        let end = (at + random(80)).min(broken.len());
                        let piece = broken[at..end].to_vec();
                        broken.splice(at..at, piece);
                    }
                }
                tried += 1;
                kept += usize::from(compare(&broken));
            }
        }
    }
    // Damage inside of strings leaves records that can be read.
    assert!(kept * 10 > tried && kept < tried, "{kept} of {tried}");
}

/// A JSON value as text, with white space, escapes and doubled keys as they may come.
fn json() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        "[a-zA-Z0-9:/. -]{0,40}".prop_map(|s| format!("\"{s}\"")),
        any::<String>().prop_map(|s| Value::from(s).to_string()),
        r#"([a-z]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4}|\\ud83d\\ude00|é|東){0,20}"#.prop_map(|s| format!("\"{s}\"")),
    ];
    let leaf = prop_oneof![
        4 => text,
        1 => r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,3})?([eE][+-]?[0-9]{1,4})?",
        1 => prop_oneof![Just("true"), Just("false"), Just("null"), Just("\"true\""), Just("tru"), Just("01"), Just("\"\\x\"")].prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            (proptest::collection::vec(inner.clone(), 0..4), space())
                .prop_map(|(items, s)| format!("[{s}{}{s}]", items.join(&format!("{s},")))),
            (proptest::collection::vec((key(), inner), 0..5), space()).prop_map(|(members, s)| object(&members, &s)),
        ]
    })
}

fn object(members: &[(String, String)], space: &str) -> String {
    let members: Vec<String> = members.iter().map(|(k, v)| format!("{space}\"{k}\"{space}:{v}{space}")).collect();
    format!("{{{space}{}}}", members.join(","))
}

fn space() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just(String::new()), 1 => "[ \n\r\t]{0,3}"]
}

fn key() -> impl Strategy<Value = String> {
    const KEYS: [&str; 44] = [
        "eventVersion",
        "userIdentity",
        "eventTime",
        "eventSource",
        "eventName",
        "awsRegion",
        "sourceIPAddress",
        "userAgent",
        "errorCode",
        "errorMessage",
        "requestParameters",
        "responseElements",
        "additionalEventData",
        "serviceEventDetails",
        "resources",
        "requestID",
        "eventID",
        "eventType",
        "eventCategory",
        "recipientAccountId",
        "sharedEventID",
        "vpcEndpointId",
        "readOnly",
        "managementEvent",
        "addendum",
        "originalEventID",
        "type",
        "principalId",
        "arn",
        "accountId",
        "accessKeyId",
        "userName",
        "invokedBy",
        "sessionContext",
        "sessionIssuer",
        "inScopeOf",
        "issuerType",
        "credentialsIssuedTo",
        "Records",
        "detail",
        "message",
        "event\\u004eame",
        "user\\u0049dentity",
        "odd key",
    ];
    proptest::sample::select(&KEYS[..]).prop_map(str::to_owned)
}

/// A record: mostly known keys, `userIdentity` mostly with the shape it should have.
fn record() -> impl Strategy<Value = String> {
    let member = prop_oneof![
        8 => (key(), json()),
        2 => (proptest::collection::vec((key(), prop_oneof![3 => json(), 1 => proptest::collection::vec((key(), json()), 0..5).prop_map(|m| object(&[("sessionIssuer".to_owned(), object(&m, ""))], ""))]), 0..6), space()).prop_map(|(m, s)| ("userIdentity".to_owned(), object(&m, &s))),
    ];
    (proptest::collection::vec(member, 0..14), space()).prop_map(|(members, space)| object(&members, &space))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn generated_records_are_read_alike(record in record()) {
        compare(record.as_bytes());
    }

    #[test]
    fn broken_records_are_read_alike(record in record(), at in any::<proptest::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = record.into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        compare(&bytes);
    }

    #[test]
    fn any_text_comes_out_whole(parts in proptest::collection::vec(prop_oneof![3 => record(), 1 => json(), 1 => "[ -~\n]{0,40}"], 0..6), wrap in 0..6) {
        let sound = parts.iter().all(|part| serde_json::from_str::<serde::de::IgnoredAny>(part).is_ok());
        let text = match wrap {
            0 => parts.join("\n"),
            1 => parts.concat(),
            2 => format!("{{\"Records\":[{}]}}", parts.join(",")),
            3 => format!("[{}]", parts.join(", ")),
            4 => parts.iter().map(|part| serde_json::json!({"message": part}).to_string()).collect(),
            _ => Value::from(parts.join("\n")).to_string(),
        };
        let mut items = 0;
        let outcome = read(text.as_bytes(), &mut |item| {
            let index = match item {
                Item::Call(call) => {
                    assert!(tree(call.raw).is_some());
                    assert!(plain::record(call.raw).is_some_and(|slow| slow.event_name == call.event_name && slow.time == call.time));
                    call.index
                }
                Item::Ignored { index, .. } => index,
                Item::Reject(reject) => reject.position.0,
            };
            assert_eq!(index, items);
            items += 1;
        });
        prop_assert_eq!(outcome.items, items);
        // Where brackets keep the values apart, none is lost. (Envelopes within may hold any number of records.)
        let plain_values = parts.iter().all(|part| {
            let part = part.trim_start_matches(['"', ' ']);
            !part.starts_with('[') && !["\"Records\"", "message", "detail"].iter().any(|key| part.contains(key))
        });
        if sound && plain_values && (2..=3).contains(&wrap) {
            prop_assert_eq!(items, parts.len() as u64, "{}", text);
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(prop_oneof![Just(b'"'), Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b','), Just(b':'), Just(b'\\'), Just(b'\n'), any::<u8>()], 0..200)) {
        read(&bytes, &mut |_| {});
        let _ = one_line(&bytes);
        compare(&bytes);
    }
}

#[test]
fn nesting_has_one_limit() {
    for key in ["requestParameters", "userIdentity", "addendum", "x"] {
        for depth in [DEPTH_MAX - 2, DEPTH_MAX - 1, DEPTH_MAX, DEPTH_MAX + 1, 100_000] {
            for (open, close) in [("[", "]"), ("{\"sessionContext\":", "}")] {
                let record = format!("{{\"{key}\":{}1{}}}", open.repeat(depth), close.repeat(depth));
                assert_eq!(compare(record.as_bytes()), depth < DEPTH_MAX, "{key} {open} {depth}");
            }
        }
    }
}

#[test]
fn faults_are_refused_wherever_they_stand() {
    const FAULTS: [&str; 36] = [
        "[}",
        "{]",
        r#"{"a":1]"#,
        "[1}",
        "[1,]",
        r#"{"a":1,}"#,
        "{,}",
        "[,1]",
        "[,]",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a",1}"#,
        "{1:2}",
        "{[]:1}",
        r#"{"a""b":1}"#,
        r#"{"a"::1}"#,
        "[1:2]",
        r#"["a":1]"#,
        r#""a""b""#,
        "[[1}]",
        "{}x",
        "[]]",
        r#""a"x"#,
        r#"x"a""#,
        r#"[1"a"]"#,
        "[{}{}]",
        "tru",
        "truex",
        "nul",
        "01",
        "-",
        "1.",
        "1e",
        "+1",
        r#""\x""#,
        "\"\u{1}\"",
    ];
    const GOOD: [&str; 12] = [
        "[]",
        "{}",
        "[[],{}]",
        r#"{"a":{},"b":[]}"#,
        "-0.5e+7",
        "true",
        "false",
        "null",
        r#""""#,
        r#""\\\"""#,
        r#"[{"a":[{"a":[]}]},1]"#,
        "[\"\u{7f}\"]",
    ];
    for (values, sound) in [(&FAULTS[..], false), (&GOOD[..], true)] {
        for value in values {
            for key in ["x", "eventName", "requestParameters", "userIdentity", "addendum", "resources", "readOnly"] {
                for record in [
                    format!(r#"{{"{key}":{value}}}"#),
                    format!(r#"{{"eventID":"e","{key}":{{"x":[{value}]}},"eventTime":"t"}}"#),
                    format!(r#"{{"{key}":{{"sessionContext":{{"sessionIssuer":{value}}},"inScopeOf":{value}}}}}"#),
                    format!(r#"{{"x":[{value},[]],"{key}":{value},"y":{{"z":{value}}}}}"#),
                ] {
                    assert_eq!(compare(record.as_bytes()), sound, "{record}");
                }
            }
        }
    }
}

#[test]
fn odd_shapes_leave_the_rest() {
    let check = |raw: &str, want: [Option<&str>; 4]| {
        let call = scan::record(raw.as_bytes()).unwrap();
        let text = |bytes: Option<&[u8]>| bytes.map(|b| String::from_utf8_lossy(b).into_owned());
        let got = [
            Some(call.event_name.to_string()),
            text(call.request),
            call.identity.arn.map(Cow::into_owned),
            call.identity.access_key.map(Cow::into_owned),
        ];
        assert_eq!(got.map(|o| o.filter(|s| !s.is_empty())), want.map(|o| o.map(str::to_owned)), "{raw}");
        compare(raw.as_bytes());
    };
    check(r#"{"eventName":"a","requestParameters":"x","userIdentity":null}"#, [Some("a"), None, None, None]);
    check(
        r#"{"eventName":"a","requestParameters":{"n":123456789012345678901234567890},"userIdentity":{"arn":"b","accessKeyId":""}}"#,
        [Some("a"), Some(r#"{"n":123456789012345678901234567890}"#), Some("b"), None],
    );
    check(
        r#"{"eventName":"a","eventName":"b","userIdentity":{"arn":"b"},"userIdentity":{"accessKeyId":"k"}}"#,
        [Some("b"), None, None, Some("k")],
    );
    check(r#"{"eventName":"a","eventName":1,"requestParameters":{},"requestParameters":[]}"#, [None, None, None, None]);
}
