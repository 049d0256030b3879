use super::*;
use crate::flow::layout::DEFAULT_FORMAT;

const LINE: &str = "2 123456789010 eni-1235b8ca123456789 172.31.16.139 172.31.16.21 20641 22 6 20 4249 1418530010 1418530070 ACCEPT OK";

#[track_caller]
fn check(content: impl AsRef<[u8]>, kind: Kind) {
    let content = content.as_ref();
    assert_eq!(sniff(content, None), kind, "{}", String::from_utf8_lossy(&content[..content.len().min(200)]));
}

#[test]
fn texts() {
    check("", Kind::Empty);
    check("\u{feff} \r\n", Kind::Empty);
    check(format!("{DEFAULT_FORMAT}\n"), Kind::FlowText);
    check(format!("\u{feff}{}\r\n{LINE}\r\n", DEFAULT_FORMAT.replace('-', "_")), Kind::FlowText);
    check("resource-type tgw-id tgw-attachment-id\n", Kind::FlowText);
    check(LINE, Kind::FlowText);
    check("2 123456789010 eni-1235b8ca123456789 - - 1", Kind::FlowText);
    check("6 TransitGateway 123456789010 tgw-1", Kind::FlowText);
    check(format!("{LINE}{LINE}{LINE}"), Kind::FlowEnvelope);
    check("range,category\n10.0.0.0/8,c2\n", Kind::Ignored("address list"));
    for other in ["type", "10.0.0.1\n10.0.0.2\n", "GET / HTTP/1.1 200", "\0\0\0", "START RequestId: 1", "a b c\n1 2 3"] {
        check(other, Kind::Unknown);
    }
    check(b"PAR1\x15\x04", Kind::FlowParquet);
    check("H4sIAAAAAAAA", Kind::Wrapped);
    let format = Layout::compile("srcaddr dstaddr").unwrap();
    assert_eq!(sniff(b"10.0.0.1 10.0.0.2", Some(&format)), Kind::FlowText);
    assert_eq!(sniff(b"10.0.0.1 10.0.0.2", None), Kind::Unknown);
}

#[test]
fn cloudtrail_in_its_many_coats() {
    let record = r#"{"userIdentity":{"type":"Root","x":["{"]},"eventVersion":"1.08","eventName":"Invoke"}"#;
    let quoted = serde_json::to_string(record).unwrap();
    for content in [
        format!(r#"{{"Records":[{record}]}}"#),
        format!("[\n {record} ]"),
        format!("{record}\n{record}"),
        format!(r#"{{"version":"0","detail-type":"AWS API Call via CloudTrail","detail":{record}}}"#),
        format!(r#"{{"messageType":"DATA_MESSAGE","logEvents":[{{"id":"1","message":{quoted}}}]}}"#),
        format!(r#"{{"messageType":"CONTROL_MESSAGE","logEvents":[{{"id":"","message":"CWL CONTROL MESSAGE"}}]}}{{"message":{quoted}}}"#),
        format!(r#"{{"EventId":"1","CloudTrailEvent":{quoted}}}"#),
        format!(r#"{{"schema":{{}},"payload":{record}}}"#),
        format!(r#"{{"schema":{{}},"payload":{quoted}}}"#),
        serde_json::to_string(&quoted).unwrap(),
        r#"{"Records":[]}"#.to_owned(),
        r#"{"Records":[1,null,"x",[],{}]}"#.to_owned(),
        format!(r#"{{"Records":[{}"#, r#"{"a":"#.repeat(100_000)),
        format!(r#"{{"Records":[{record},{{"event"#),
    ] {
        check(content, Kind::CloudTrail);
    }
}

#[test]
fn other_json() {
    check(r#"{"flowtrail_snapshot":1,"account_id":"1"}"#, Kind::Facts);
    check("{\n \"NetworkInterfaces\": []}", Kind::Facts);
    check(r#"{"NextMarker":null,"Functions":[{}]}"#, Kind::Facts);
    check(r#"{"fileVersion":"1.0","configurationItems":[]}"#, Kind::Facts);
    check(r#"{"awsAccountId":"1","digestStartTime":"2023-11-14T21:13:20Z","logFiles":[]}"#, Kind::Ignored("CloudTrail digest"));
    check(r#"{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","s3":{}}]}"#, Kind::Ignored("S3 event notification"));
    check(r#"{"messageType":"CONTROL_MESSAGE","logEvents":[]}"#, Kind::Ignored("CloudWatch control message"));
    check(r#"{"awslogs":{"data":"H4sI"}}"#, Kind::Wrapped);
    check(r#"{"requestId":"1","records":[{"data":"H4sI"}]}"#, Kind::Wrapped);
    check(format!(r#"{{"messageType":"DATA_MESSAGE","logEvents":[{{"message":"{LINE}\n"}}]}}"#), Kind::FlowEnvelope);
    check(format!(r#"{{"message":"{LINE}"}}{{"message":"{LINE}"}}"#), Kind::FlowEnvelope);
    check(r#"{"messageType":"DATA_MESSAGE","logEvents":[{"message":"START RequestId: 1"}]}"#, Kind::Unknown);
    for other in ["{", "{}", "[", "[]", "[1]", r#"{"attacks":[],"names":[]}"#, "{\"Records\":5}", "\"", "\"x\"", "{garbage}", "[[[["] {
        check(other, Kind::Unknown);
    }
}

proptest::proptest! {
    #[test]
    fn nothing_upsets_it(content: Vec<u8>, at in 0usize..400, byte: u8) {
        let _ = sniff(&content, None);
        let mut json = format!(r#"{{"messageType":"DATA_MESSAGE","logEvents":[{{"message":"{LINE}\n"}}],"detail":{{"payload":"{{\"message\":\"x\"}}"}}}}"#).into_bytes();
        let at = at % json.len();
        json[at] = byte;
        let _ = sniff(&json, None);
        json.truncate(at);
        let _ = sniff(&json, None);
    }
}
