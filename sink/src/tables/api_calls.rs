//! `api_calls`: every API call, with the columns of AWS's own Athena table for CloudTrail (CloudTrail user guide,
//! "Create a table for CloudTrail logs in Athena"), and whose call it was beside them.

use std::collections::BTreeMap;

use flowtrail_ingest::{ApiCall, EventTime};
use serde_json::{Map, Value};

use super::{Columns, Row, Table, TableError, TableFile, Timed, encode};

/// Bytes of text kept over all open hours, unless the caller says otherwise.
pub const BYTES_MAX: usize = 64 << 20;

/// One call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ApiCallRow {
    /// `eventTime`.
    pub time: EventTime,
    /// The record as it came, without its envelope.
    pub raw: String,
    /// Exact function, where the record names one or its principal leaves only one.
    pub function_arn: Option<String>,
    /// Role or user ARN, `service:NAME` or `account:ID`.
    pub principal: Option<String>,
    /// Key of the unit.
    pub source_key: String,
    /// Index in `Records`, line or offset.
    pub position: u64,
    /// The record's fields by name; null for what cannot be parsed.
    fields: Map<String, Value>,
}

impl ApiCallRow {
    /// The row of a call.
    #[must_use]
    pub fn new(call: &ApiCall<'_>, function_arn: Option<String>, principal: Option<String>, source_key: &str) -> Self {
        let raw = String::from_utf8_lossy(call.raw).into_owned();
        // A record that ingest could read and serde cannot (numbers out of range) still has its raw text and time.
        let mut fields: Map<String, Value> = serde_json::from_str(&raw).unwrap_or_default();
        for (name, value) in [("eventTime", &call.time_text), ("eventSource", &call.event_source), ("eventName", &call.event_name)] {
            if !fields.get(name).is_some_and(Value::is_string) {
                fields.insert(name.to_owned(), Value::String(value.clone().into_owned()));
            }
        }
        Self { time: call.time, raw, function_arn, principal, source_key: source_key.to_owned(), position: call.index, fields }
    }

    fn get(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.fields.get(*first)?, |value, name| value.get(name)).filter(|v| !v.is_null())
    }

    /// A member as AWS's table has it: strings as they are, all else as JSON.
    fn text(&self, path: &[&str]) -> Option<String> {
        self.get(path).map(plain)
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Columns that are strings: name in the table and in the record.
const BEFORE: [(&str, &str); 13] = [
    ("eventtime", "eventTime"),
    ("eventsource", "eventSource"),
    ("eventname", "eventName"),
    ("awsregion", "awsRegion"),
    ("sourceipaddress", "sourceIPAddress"),
    ("useragent", "userAgent"),
    ("errorcode", "errorCode"),
    ("errormessage", "errorMessage"),
    ("requestparameters", "requestParameters"),
    ("responseelements", "responseElements"),
    ("additionaleventdata", "additionalEventData"),
    ("requestid", "requestID"),
    ("eventid", "eventID"),
];
const AFTER: [(&str, &str); 9] = [
    ("eventtype", "eventType"),
    ("apiversion", "apiVersion"),
    ("readonly", "readOnly"),
    ("recipientaccountid", "recipientAccountId"),
    ("serviceeventdetails", "serviceEventDetails"),
    ("sharedeventid", "sharedEventID"),
    ("vpcendpointid", "vpcEndpointId"),
    ("vpcendpointaccountid", "vpcEndpointAccountId"),
    ("eventcategory", "eventCategory"),
];

/// A struct column of strings at `path`, null where the record has no object there.
fn texts_at(rows: &[ApiCallRow], path: &[&str], members: &[(&str, &str)]) -> (Vec<bool>, Columns) {
    let mut columns = Columns::new();
    let objects: Vec<Option<&Value>> = rows.iter().map(|r| r.get(path).filter(|v| v.is_object())).collect();
    for (name, key) in members {
        columns.maybe_text(name, objects.iter().map(|o| o.and_then(|o| o.get(key)).filter(|v| !v.is_null()).map(plain)));
    }
    (objects.iter().map(Option::is_some).collect(), columns)
}

fn identity(rows: &[ApiCallRow]) -> (Vec<bool>, Columns) {
    let (there, mut columns) = texts_at(
        rows,
        &["userIdentity"],
        &[
            ("type", "type"),
            ("principalid", "principalId"),
            ("arn", "arn"),
            ("accountid", "accountId"),
            ("invokedby", "invokedBy"),
            ("accesskeyid", "accessKeyId"),
            ("username", "userName"),
        ],
    );
    let (in_place, on_behalf) =
        texts_at(rows, &["userIdentity", "onBehalfOf"], &[("userid", "userId"), ("identitystorearn", "identityStoreArn")]);
    columns.group("onbehalfof", in_place, on_behalf);

    let (in_session, _) = texts_at(rows, &["userIdentity", "sessionContext"], &[]);
    let mut session = Columns::new();
    let (has, attributes) = texts_at(
        rows,
        &["userIdentity", "sessionContext", "attributes"],
        &[("mfaauthenticated", "mfaAuthenticated"), ("creationdate", "creationDate")],
    );
    session.group("attributes", has, attributes);
    let (has, issuer) = texts_at(
        rows,
        &["userIdentity", "sessionContext", "sessionIssuer"],
        &[("type", "type"), ("principalid", "principalId"), ("arn", "arn"), ("accountid", "accountId"), ("username", "userName")],
    );
    session.group("sessionissuer", has, issuer);
    session.maybe_text("ec2roledelivery", rows.iter().map(|r| r.text(&["userIdentity", "sessionContext", "ec2RoleDelivery"])));
    let (has, web) = texts_at(
        rows,
        &["userIdentity", "sessionContext", "webIdFederationData"],
        &[("federatedprovider", "federatedProvider"), ("attributes", "attributes")],
    );
    session.group("webidfederationdata", has, web);
    columns.group("sessioncontext", in_session, session);
    (there, columns)
}

impl Row for ApiCallRow {
    const TABLE: Table = Table::ApiCalls;

    fn sort(rows: &mut [Self]) {
        rows.sort_by(|a, b| (a.time, &a.raw, &a.source_key, a.position).cmp(&(b.time, &b.raw, &b.source_key, b.position)));
    }

    fn columns(rows: &[Self]) -> Columns {
        let mut c = Columns::new();
        c.maybe_text("eventversion", rows.iter().map(|r| r.text(&["eventVersion"])));
        let (there, members) = identity(rows);
        c.group("useridentity", there, members);
        for (name, key) in BEFORE {
            c.maybe_text(name, rows.iter().map(|r| r.text(&[key])));
        }
        let resources: Vec<&[Value]> =
            rows.iter().map(|r| r.get(&["resources"]).and_then(Value::as_array).map_or(&[][..], Vec::as_slice)).collect();
        c.structs("resources", resources.into_iter(), |all| {
            let mut members = Columns::new();
            for (name, keys) in [("arn", ["ARN", "arn"]), ("accountid", ["accountId", "accountID"]), ("type", ["type", "type"])] {
                members.maybe_text(name, all.iter().map(|v| keys.iter().find_map(|k| v.get(k)).filter(|v| !v.is_null()).map(plain)));
            }
            members
        });
        for (name, key) in AFTER {
            c.maybe_text(name, rows.iter().map(|r| r.text(&[key])));
        }
        let (there, members) = texts_at(
            rows,
            &["addendum"],
            &[
                ("reason", "reason"),
                ("updatedfields", "updatedFields"),
                ("originalrequestid", "originalRequestID"),
                ("originaleventid", "originalEventID"),
            ],
        );
        c.group("addendum", there, members);
        c.maybe_text("sessioncredentialfromconsole", rows.iter().map(|r| r.text(&["sessionCredentialFromConsole"])));
        c.maybe_text("edgedevicedetails", rows.iter().map(|r| r.text(&["edgeDeviceDetails"])));
        let (there, members) = texts_at(
            rows,
            &["tlsDetails"],
            &[("tlsversion", "tlsVersion"), ("ciphersuite", "cipherSuite"), ("clientprovidedhostheader", "clientProvidedHostHeader")],
        );
        c.group("tlsdetails", there, members);
        c.maybe_text("function_arn", rows.iter().map(|r| r.function_arn.as_deref()))
            .maybe_text("principal", rows.iter().map(|r| r.principal.as_deref()))
            .text("source_key", rows.iter().map(|r| r.source_key.as_str()))
            .count("position", rows.iter().map(|r| r.position))
            .text("raw", rows.iter().map(|r| r.raw.as_str()));
        c
    }
}

impl Timed for ApiCallRow {
    fn time(&self) -> EventTime {
        self.time
    }
}

/// Gathers calls and gives files of one hour each. Whether a call was admitted before is the caller's to know.
#[derive(Debug)]
pub struct ApiCallsWriter {
    bytes_max: usize,
    bytes: usize,
    hours: BTreeMap<i64, (usize, Vec<ApiCallRow>)>,
}

impl Default for ApiCallsWriter {
    fn default() -> Self {
        Self::new(BYTES_MAX)
    }
}

impl ApiCallsWriter {
    /// Keeps about `bytes_max` bytes of text in memory.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, hours: BTreeMap::new() }
    }

    /// Takes in a row. Returns the files that became full.
    ///
    /// # Errors
    /// When a file cannot be encoded, which no input should bring about.
    pub fn push(&mut self, row: ApiCallRow) -> Result<Vec<TableFile>, TableError> {
        // The text, once more as parsed fields, and what holds them.
        let bytes = 3 * row.raw.len() + row.source_key.len() + 1000;
        let (held, rows) = self.hours.entry(super::clamped(row.time).0.div_euclid(3600)).or_default();
        *held += bytes;
        rows.push(row);
        self.bytes += bytes;
        let mut full = Vec::new();
        while self.bytes > self.bytes_max {
            let Some(hour) = self.hours.iter().max_by_key(|(_, (bytes, _))| *bytes).map(|(h, _)| *h) else { break };
            full.extend(self.write(hour)?);
        }
        Ok(full)
    }

    /// Writes what is open.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn finish(&mut self) -> Result<Vec<TableFile>, TableError> {
        let hours: Vec<i64> = self.hours.keys().copied().collect();
        hours.into_iter().filter_map(|hour| self.write(hour).transpose()).collect()
    }

    fn write(&mut self, hour: i64) -> Result<Option<TableFile>, TableError> {
        let Some((bytes, rows)) = self.hours.remove(&hour) else { return Ok(None) };
        self.bytes -= bytes;
        let folder = Table::ApiCalls.folder(EventTime(hour.saturating_mul(3600)));
        Ok(Some(TableFile { folder, rows: rows.len() as u64, bytes: encode(rows)? }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::borrow::Cow;

    use serde_json::json;

    use super::*;
    use crate::tables::read_rows;

    fn row(raw: &str, time: i64, index: u64) -> ApiCallRow {
        let call = ApiCall {
            raw: raw.as_bytes(),
            index,
            time: EventTime(time),
            time_text: Cow::Owned(EventTime(time).to_string()),
            event_source: Cow::Borrowed("lambda.amazonaws.com"),
            event_name: Cow::Borrowed("Invoke"),
            ..ApiCall::default()
        };
        ApiCallRow::new(&call, Some("arn:aws:lambda:eu-west-1:1:function:f".into()), None, "a.json.gz")
    }

    #[test]
    fn columns_are_those_of_aws() {
        let raw = json!({
            "eventVersion": "1.11", "eventTime": "2023-07-10T11:45:12Z", "eventSource": "s3.amazonaws.com", "eventName": "GetObject",
            "userIdentity": {"type": "AssumedRole", "arn": "arn:aws:sts::1:assumed-role/r/s", "accountId": "1",
                "sessionContext": {"sessionIssuer": {"type": "Role", "userName": "r"}, "attributes": {"mfaAuthenticated": "false"}, "webIdFederationData": {}}},
            "requestParameters": {"bucketName": "b", "n": [1, 2]}, "responseElements": null, "readOnly": true,
            "resources": [{"ARN": "arn:aws:s3:::b", "accountId": "1", "type": "AWS::S3::Bucket"}, {"ARNPrefix": "x"}],
            "tlsDetails": {"tlsVersion": "TLSv1.3"}
        })
        .to_string();
        let odd = r#"{"userIdentity":"nobody","resources":{"a":1},"eventID":7}"#;
        let bytes = encode(vec![row(odd, 1_688_989_513, 1), row(&raw, 1_688_989_512, 0)]).unwrap();
        let rows = read_rows(bytes).unwrap();
        let first = &rows[0];
        assert_eq!(first["useridentity"]["sessioncontext"]["sessionissuer"]["username"], "r");
        assert_eq!(first["useridentity"]["sessioncontext"]["attributes"]["mfaauthenticated"], "false");
        assert_eq!(first["useridentity"]["onbehalfof"], Value::Null);
        assert_eq!(first["requestparameters"], r#"{"bucketName":"b","n":[1,2]}"#);
        assert_eq!(
            (&first["responseelements"], &first["readonly"], &first["eventname"]),
            (&Value::Null, &json!("true"), &json!("GetObject"))
        );
        assert_eq!(
            first["resources"],
            json!([{"arn": "arn:aws:s3:::b", "accountid": "1", "type": "AWS::S3::Bucket"}, {"arn": null, "accountid": null, "type": null}])
        );
        assert_eq!((&first["tlsdetails"]["tlsversion"], &first["addendum"], &first["raw"]), (&json!("TLSv1.3"), &Value::Null, &json!(raw)));
        let second = &rows[1];
        assert_eq!((&second["useridentity"], &second["resources"], &second["eventid"]), (&Value::Null, &json!([]), &json!("7")));
        assert_eq!((&second["eventname"], &second["position"]), (&json!("Invoke"), &json!(1)));
        assert_eq!(second["function_arn"], "arn:aws:lambda:eu-west-1:1:function:f");
    }

    #[test]
    fn hours_part_and_memory_has_a_bound() {
        let mut writer = ApiCallsWriter::new(200_000);
        let mut files = Vec::new();
        for n in 0..1000i64 {
            files.extend(writer.push(row(&format!(r#"{{"eventID":"{n}"}}"#), n * 60, n as u64)).unwrap());
        }
        assert!(!files.is_empty(), "the bound was not kept");
        files.extend(writer.finish().unwrap());
        let mut ids: Vec<i64> = Vec::new();
        for file in &files {
            for row in read_rows(file.bytes.clone()).unwrap() {
                let id: i64 = row["eventid"].as_str().unwrap().parse().unwrap();
                assert!(file.folder.ends_with(&format!("hour={:02}", id / 60)), "{} {id}", file.folder);
                ids.push(id);
            }
        }
        ids.sort_unstable();
        assert!(ids.into_iter().eq(0..1000));
    }
}
