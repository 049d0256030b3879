//! CloudTrail under fuzzing: the fast scanner against its plain twin, and the walk through envelopes.

use super::{ApiCall, DEPTH_MAX, Item, call_id, one_line, plain, read, scan, tree};

/// One record: the twins agree on it, simd-json takes nothing that they refuse, and the tree has what the fields have.
pub(crate) fn record(raw: &[u8]) {
    let (fast, slow) = (scan::record(raw), plain::record(raw));
    assert_eq!(fast, slow);
    let mut copy = raw.to_vec();
    if let Ok(value) = simd_json::serde::from_slice::<serde_json::Value>(&mut copy)
        && value.is_object()
        && raw.iter().filter(|c| matches!(c, b'{' | b'[')).count() <= DEPTH_MAX
        && !["Records", "Events", "events"].iter().any(|list| value.get(*list).is_some())
    {
        assert!(fast.is_some(), "simd-json reads what the scanner refuses");
        assert_eq!(tree(raw), Some(value));
    }
    let Some(call) = fast else { return };
    let whole = tree(raw);
    assert!(whole.is_some());
    assert_eq!(tree(&one_line(raw)), whole);
    assert_eq!(scan::record(&one_line(raw)).map(|c| call_id(&c)), Some(call_id(&call)));
    for part in
        [call.request, call.response, call.additional, call.resources, call.service_details, call.identity_raw].into_iter().flatten()
    {
        assert!(tree(part).is_some());
    }
}

/// An object, file or message: every record comes out once, numbered as it comes, and as the plain twin reads it.
pub(crate) fn text(data: &[u8]) {
    let mut items = 0;
    let outcome = read(data, &mut |item| {
        let index = match &item {
            Item::Call(call) => {
                let alone = ApiCall { index: 0, ..(*call).clone() };
                assert_eq!(plain::record(call.raw).as_ref(), Some(&alone));
                call.index
            }
            Item::Ignored { index, .. } => *index,
            Item::Reject(reject) => reject.position.0,
        };
        assert_eq!(index, items);
        items += 1;
    });
    assert_eq!(outcome.items, items);
}

pub(crate) const RECORD: &str = r#"{"eventVersion":"1.08","userIdentity":{"type":"AssumedRole","principalId":"AROA:fn","arn":"arn:aws:sts::1:assumed-role/r/fn","accountId":"1","accessKeyId":"ASIA","sessionContext":{"sessionIssuer":{"arn":"arn:aws:iam::1:role/r","userName":"r"}},"invokedBy":"lambda.amazonaws.com","inScopeOf":{"issuerType":"AWS::Lambda::Function","credentialsIssuedTo":"arn:aws:lambda:eu-west-1:1:function:f"}},"eventTime":"2023-11-14T22:13:20Z","eventSource":"s3.amazonaws.com","eventName":"GetObject","awsRegion":"eu-west-1","sourceIPAddress":"10.0.0.1","userAgent":"[aws-cli/2 \"x\"]","errorCode":"AccessDenied","errorMessage":"caf\u00e9 \ud83d\ude00 é","requestParameters":{"bucketName":"b","n":[1,-0.5e+3,true,null,{"a":{}}]},"responseElements":null,"additionalEventData":{"SignatureVersion":"SigV4"},"requestID":"q","eventID":"id","readOnly":true,"resources":[{"ARN":"a"}],"eventType":"AwsApiCall","managementEvent":"false","recipientAccountId":"1","sharedEventID":"s","vpcEndpointId":"v","eventCategory":"Management","addendum":{"originalEventID":"o"},"serviceEventDetails":{"k":"v"}}"#;

pub(crate) fn record_seeds() -> Vec<Vec<u8>> {
    let short = r#"{"eventTime":"2023-11-14T22:13:20Z","eventSource":"iam.amazonaws.com","eventName":"CreateUser20150331v2"}"#;
    let spaced = RECORD.replace("\":", "\" : ").replace(",\"", " ,\r\n\t\"");
    let twice = RECORD.replace("\"eventID\":\"id\"", "\"eventID\":\"id\",\"eventID\":7,\"userIdentity\":{},\"event\\u004eame\":\"x\"");
    let deep = format!("{{\"requestParameters\":{{\"a\":{}1{}}}}}", "[".repeat(509), "]".repeat(509));
    [RECORD, short, &spaced, &twice, &deep, r#"{"Records":[{"eventName":"x"}]}"#].map(|s| s.as_bytes().to_vec()).to_vec()
}

pub(crate) fn text_seeds() -> Vec<Vec<u8>> {
    use base64::Engine as _;
    let r = RECORD;
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let watch = format!(r#"{{"messageType":"DATA_MESSAGE","owner":"1","logEvents":[{{"id":"1","timestamp":1,"message":{}}}]}}"#, quoted(r));
    let coded = base64::engine::general_purpose::STANDARD.encode(crate::inflate::fuzzing::gzip(watch.as_bytes()));
    let mut seeds: Vec<Vec<u8>> = [
        r.to_owned(),
        format!("{{\"Records\":[{r},{r}]}}"),
        format!("[{r},\n{r}]"),
        format!("{r}\n{r}\r\n\n{}", &r[..300]),
        format!(r#"{{"version":"0","detail-type":"AWS API Call via CloudTrail","source":"aws.s3","resources":[],"detail":{r}}}"#),
        r#"{"detail-type":"EC2 Instance State-change Notification","detail":{"instance-id":"i-1"}}"#.to_owned(),
        r#"{"eventType":"AwsCloudTrailInsight","eventCategory":"Insight"}"#.to_owned(),
        r#"{"awsAccountId":"1","digestStartTime":"2023-11-14T21:13:20Z","logFiles":[]}"#.to_owned(),
        format!("{watch}{watch}"),
        format!("{coded}\n{coded}\n"),
        format!(r#"{{"awslogs":{{"data":"{coded}"}}}}"#),
        format!(r#"{{"Events":[{{"EventId":"x","CloudTrailEvent":{}}}],"NextToken":"t"}}"#, quoted(r)),
        format!(r#"{{"schema":{{"type":"string"}},"payload":{}}}"#, quoted(&watch)),
        format!(r#"{{"event":{{"original":{}}}}}"#, quoted(r)),
        quoted(&quoted(r)),
    ]
    .map(String::into_bytes)
    .to_vec();
    seeds.push(crate::inflate::fuzzing::gzip(r.as_bytes()));
    seeds
}
