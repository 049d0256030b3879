//! Broken, hostile and odd input: each kind of `tests/bad_input/README.md`, beside a good file that must not suffer.

use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::harness::unix::{is_root, make_pipe};
use crate::harness::{Chance, LIMIT, Outcome, flowtrail, number, replay};

/// Records in a good file.
const GOOD: u64 = 99;
const HEADER: &str = "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status";

fn line(last_octet: u64) -> String {
    format!("2 111122223333 eni-0a 10.0.0.5 203.0.113.{last_octet} 40{last_octet:03} 443 6 10 1000 1700000000 1700000060 ACCEPT OK\n")
}

fn body() -> String {
    (1..=GOOD).map(line).collect()
}

fn good() -> String {
    format!("{HEADER}\n{}", body())
}

/// A good file with one more line before the others.
fn with_line(line: &[u8]) -> Vec<u8> {
    [HEADER.as_bytes(), b"\n", line, b"\n", body().as_bytes()].concat()
}

/// The fields of a good line, one of them changed.
fn field(index: usize, value: &str) -> Vec<u8> {
    let line = line(7);
    let mut fields: Vec<&str> = line.trim_end().split(' ').collect();
    fields[index] = value;
    with_line(fields.join(" ").as_bytes())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap()
}

fn event(id: &str) -> Value {
    json!({"eventVersion": "1.08", "eventTime": "2023-11-14T22:13:20Z", "eventSource": "s3.amazonaws.com", "eventName": "GetObject",
        "awsRegion": "us-east-1", "sourceIPAddress": "10.0.0.5", "userIdentity": {"type": "AWSService"}, "recipientAccountId": "111122223333",
        "eventID": id, "eventType": "AwsApiCall"})
}

fn changed(id: &str, key: &str, value: Value) -> Value {
    let mut event = event(id);
    event[key] = value;
    event
}

fn without(id: &str, key: &str) -> Value {
    let mut event = event(id);
    event.as_object_mut().unwrap().remove(key);
    event
}

fn records(events: &[Value]) -> Vec<u8> {
    json!({ "Records": events }).to_string().into_bytes()
}

/// Two good events with `middle`, as it is, between them.
fn around(middle: &str) -> Vec<u8> {
    format!("{{\"Records\":[{},{middle},{}]}}", event("first"), event("last")).into_bytes()
}

fn parquet(columns: Vec<(&str, arrow::array::ArrayRef)>) -> Vec<u8> {
    let batch = arrow::array::RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn strings(values: &[&str]) -> arrow::array::ArrayRef {
    std::sync::Arc::new(arrow::array::StringArray::from(values.to_vec()))
}

/// Two flow records in Parquet, every column text.
fn flow_parquet() -> Vec<u8> {
    let lines = [line(1), line(2)];
    let rows: Vec<Vec<&str>> = lines.iter().map(|line| line.trim_end().split(' ').collect()).collect();
    let names: Vec<String> = HEADER.split(' ').map(|name| name.replace('-', "_")).collect();
    parquet(names.iter().enumerate().map(|(index, name)| (name.as_str(), strings(&[rows[0][index], rows[1][index]]))).collect())
}

/// What must come of a file, beyond the good one beside it.
#[derive(Clone, Copy, Debug, Default)]
struct Expected {
    /// Flow records: from, to.
    flow: (u64, u64),
    /// API events: from, to.
    api: (u64, u64),
    /// Events counted by kind but not judged.
    api_ignored: u64,
    /// Rejects: at least.
    rejects: u64,
    /// The unit is quarantined, which is exit 1.
    quarantined: bool,
    /// It is named among what was not recognised.
    unrecognised: bool,
    /// One of the two must be, or something must have been rejected; the reader may choose.
    said: bool,
}

const NOTHING: Expected =
    Expected { flow: (0, 0), api: (0, 0), api_ignored: 0, rejects: 0, quarantined: false, unrecognised: false, said: false };

fn flows(n: u64) -> Expected {
    Expected { flow: (n, n), ..NOTHING }
}

fn calls(n: u64) -> Expected {
    Expected { api: (n, n), ..NOTHING }
}

impl Expected {
    fn rejects(self, rejects: u64) -> Self {
        Self { rejects, ..self }
    }
}

const QUARANTINED: Expected = Expected { quarantined: true, ..NOTHING };
const UNRECOGNISED: Expected = Expected { unrecognised: true, ..NOTHING };
const SAID: Expected = Expected { said: true, ..NOTHING };

type Case = (&'static str, &'static str, Vec<u8>, Expected);

/// (kind, file name, content, what must come of it)
fn files() -> Vec<Case> {
    let member = gzip(good().as_bytes());
    let mut wrong_sum = member.clone();
    let sum_at = wrong_sum.len() - 8;
    wrong_sum[sum_at] ^= 0xff;
    let mut chance = Chance(7);
    let noise: Vec<u8> = (0..20_000).map(|_| chance.below(256) as u8).collect();
    let mut bad_footer = flow_parquet();
    let footer = bad_footer.len() - 30;
    bad_footer[footer..footer + 20].fill(0xff);
    let bomb = |byte: u8, megabytes: usize| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let block = vec![byte; 1 << 20];
        (0..megabytes).try_for_each(|_| encoder.write_all(&block)).unwrap();
        encoder.finish().unwrap()
    };
    let insight = json!({"eventVersion": "1.07", "eventTime": "2023-11-14T22:13:20Z", "awsRegion": "us-east-1", "eventID": "i",
        "eventType": "AwsCloudTrailInsight", "recipientAccountId": "111122223333", "sharedEventID": "s", "eventCategory": "Insight",
        "insightDetails": {"state": "Start", "eventSource": "ec2.amazonaws.com", "eventName": "RunInstances", "insightType": "ApiCallRateInsight"}});
    vec![
        // ---- bytes
        ("empty file", "empty.log", Vec::new(), NOTHING),
        ("empty gzip", "empty.log.gz", gzip(b""), NOTHING),
        ("two bytes of gzip", "magic.gz", b"\x1f\x8b".to_vec(), QUARANTINED),
        ("garbage behind a gzip header", "garbage.gz", [b"\x1f\x8b\x08\x00".as_slice(), &noise].concat(), QUARANTINED),
        ("noise", "noise.bin", noise.clone(), SAID),
        ("half a gzip", "half.log.gz", member[..member.len() / 2].to_vec(), Expected { flow: (1, GOOD - 1), said: true, ..NOTHING }),
        ("gzip with a wrong checksum", "sum.log.gz", wrong_sum, Expected { flow: (1, GOOD), said: true, ..NOTHING }),
        ("several gzip members", "members.log.gz", [member.clone(), gzip(body().replace("eni-0a", "eni-0b").as_bytes())].concat(), flows(2 * GOOD)),
        ("gzip within gzip", "twice.log.gz", gzip(&member), SAID),
        ("gzip bomb of zeros", "bomb.gz", bomb(0, 1024), SAID),
        ("gzip bomb of newlines", "newlines.log.gz", gzip(&[good().as_bytes(), &vec![b'\n'; 64 << 20]].concat()), Expected { flow: (0, GOOD), ..NOTHING }),
        ("UTF-16", "utf16.log", good().encode_utf16().flat_map(u16::to_le_bytes).collect(), SAID),
        ("UTF-8 with a byte order mark", "bom.log", format!("\u{feff}{}", good()).into_bytes(), flows(GOOD)),
        ("another program's text", "notes.txt", b"Dear diary,\ntoday nothing happened.\n".to_vec(), UNRECOGNISED),
        // ---- flow lines
        ("header only", "header.log", format!("{HEADER}\n").into_bytes(), NOTHING),
        ("header of unknown names", "unknown.log", b"alpha beta gamma\n1 2 3\n".to_vec(), UNRECOGNISED),
        ("too few fields", "few.log", with_line(b"2 111122223333 eni-0a 10.0.0.5"), flows(GOOD).rejects(1)),
        ("too many fields", "many.log", with_line(format!("{} extra more", line(7).trim_end()).as_bytes()), flows(GOOD).rejects(1)),
        ("lines that end in CRLF", "crlf.log", good().replace('\n', "\r\n").into_bytes(), flows(GOOD)),
        ("no newline at the end", "cut.log", good().trim_end().as_bytes().to_vec(), flows(GOOD)),
        ("two spaces in a row", "spaces.log", good().replace(" 443 ", "  443 ").into_bytes(), flows(GOOD)),
        ("empty lines", "blank.log", good().replace('\n', "\n\n").into_bytes(), flows(GOOD)),
        ("line of 10 MB", "long.log", with_line(&vec![b'x'; 10_000_000]), flows(GOOD).rejects(1)),
        ("NUL bytes", "nul.log", with_line(b"\0\0\0"), flows(GOOD).rejects(1)),
        ("invalid UTF-8", "latin1.log", with_line(b"2 111122223333 eni-\xe9\xff 10.0.0.5 203.0.113.9 40000 443 6 1 1 1700000000 1700000060 ACCEPT OK"), Expected { flow: (GOOD, GOOD + 1), ..NOTHING }),
        ("escape codes in a field", "escape.log", field(2, "eni-\u{1b}[31mred"), Expected { flow: (GOOD, GOOD + 1), ..NOTHING }),
        ("port over 65535", "port.log", field(5, "99999"), flows(GOOD).rejects(1)),
        ("number over 64 bits", "over.log", field(8, "18446744073709551616"), flows(GOOD).rejects(1)),
        ("negative number", "negative.log", field(9, "-5"), flows(GOOD).rejects(1)),
        ("number with letters", "letters.log", field(9, "1e3"), flows(GOOD).rejects(1)),
        ("address that is none", "address.log", field(3, "300.0.0.5"), flows(GOOD).rejects(1)),
        ("broken IPv6 address", "ipv6.log", field(3, "2001:db8::1::2"), flows(GOOD).rejects(1)),
        ("times in milliseconds", "millis.log", with_line(line(7).trim_end().replace("1700000000 1700000060", "1700000000000 1700000060000").as_bytes()), flows(GOOD + 1)),
        ("end in the far future", "future.log", with_line(line(7).trim_end().replace("1700000000 1700000060", "4070908800 4070908860").as_bytes()), flows(GOOD).rejects(1)),
        // ---- CloudTrail
        ("no records", "none.json", b"{\"Records\":[]}".to_vec(), NOTHING),
        ("records of the wrong shape", "shapes.json", b"{\"Records\":[1,null,\"x\",[],{}]}".to_vec(), NOTHING.rejects(5)),
        ("truncated Records", "cut.json", records(&[event("a"), event("b")])[..500].to_vec(), Expected { api: (0, 1), said: true, ..NOTHING }),
        ("truncated Records in gzip", "cut.json.gz", gzip(&records(&[event("a"), event("b")])[..500]), Expected { api: (0, 1), said: true, ..NOTHING }),
        ("nesting 100,000 deep", "deep.json", [b"{\"Records\":[".to_vec(), b"{\"a\":".repeat(100_000), b"1".to_vec(), b"}".repeat(100_000), b"]}".to_vec()].concat(), SAID),
        ("one record nested 10,000 deep", "deeper.json", around(&format!("{{\"eventName\":\"x\",\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000))), Expected { api: (0, 3), said: true, ..NOTHING }),
        ("duplicate keys", "keys.json", String::from_utf8(records(&[event("a")])).unwrap().replace("\"eventName\"", "\"eventName\":\"Other\",\"eventName\"").into_bytes(), Expected { api: (0, 1), ..NOTHING }),
        ("invalid UTF-8 in an event", "utf8.json", { let text = records(&[event("a")]); let at = text.windows(9).position(|w| w == b"GetObject").unwrap(); let mut text = text; text.splice(at + 3..at + 3, *b"\xff\xfe"); text }, Expected { api: (0, 1), said: false, ..NOTHING }),
        ("number over 64 bits in an event", "number.json", around(&changed("n", "requestParameters", json!({"n": 1})).to_string().replace("{\"n\":1}", "{\"n\":123456789012345678901234567890}")), Expected { api: (2, 3), ..NOTHING }),
        ("bad escape in an event", "escape.json", around(&event("n").to_string().replace("GetObject", "Get\\qObject")), Expected { api: (0, 3), said: true, ..NOTHING }),
        ("event without name, source or time", "thin.json", records(&[event("a"), without("b", "eventName"), without("c", "eventSource"), without("d", "eventTime")]), calls(1).rejects(3)),
        ("event time that is none", "time.json", records(&[event("a"), changed("b", "eventTime", json!("yesterday")), changed("c", "eventTime", json!(17))]), calls(1).rejects(2)),
        ("event time with a space or without a zone", "zone.json", records(&[changed("a", "eventTime", json!("2023-11-14 22:13:20")), changed("b", "eventTime", json!("2023-11-14T22:13:20.123Z"))]), calls(2)),
        ("event in the far future", "future.json", records(&[event("a"), changed("b", "eventTime", json!("2099-01-01T00:00:00Z"))]), calls(1).rejects(1)),
        ("odd shapes of known fields", "odd.json", records(&[
            changed("a", "userIdentity", Value::Null), changed("b", "requestParameters", json!("text")), changed("c", "resources", json!({})),
            changed("d", "userIdentity", json!({"sessionContext": [], "arn": 5})), changed("e", "errorCode", json!({"a": 1})),
        ]), calls(5)),
        ("event of 2 MB", "large.json", records(&[changed("a", "requestParameters", json!({"body": "x".repeat(2 << 20)})), event("b")]), calls(2)),
        ("the same event twice", "repeat.json", records(&[event("a"), event("a")]), calls(1)),
        ("digest", "digest.json.gz", gzip(br#"{"awsAccountId":"111122223333","digestStartTime":"2023-11-14T21:13:20Z","digestEndTime":"2023-11-14T22:13:20Z","logFiles":[]}"#), NOTHING),
        ("Insight event", "insight.json", records(&[event("a"), insight]), Expected { api_ignored: 1, ..calls(1) }),
        ("kind of event nobody knows", "kind.json", records(&[changed("a", "eventType", json!("AwsFutureThing"))]), calls(1)),
        ("one broken line among lines of JSON", "lines.jsonl", format!("{}\n{{\"eventName\":\n{}\n", event("a"), event("b")).into_bytes(), calls(2).rejects(1)),
        ("JSON of another kind", "other.json", b"{\"hello\":\"world\"}".to_vec(), UNRECOGNISED),
        ("JSON that ends in the middle", "brace.json", b"{\"Records\"".to_vec(), SAID),
        // ---- Parquet
        ("Parquet with a broken footer", "footer.parquet", bad_footer, QUARANTINED),
        ("half a Parquet file", "half.parquet", { let whole = flow_parquet(); whole[..whole.len() / 2].to_vec() }, QUARANTINED),
        ("four bytes of Parquet", "magic.parquet", b"PAR1".to_vec(), QUARANTINED),
        ("Parquet of another kind", "sales.parquet", parquet(vec![("shop", strings(&["a", "b"])), ("price", strings(&["1", "2"]))]), UNRECOGNISED),
        ("Parquet whose numbers are text", "text.parquet", flow_parquet(), flows(2)),
        // ---- snapshots
        ("interfaces of odd shapes", "interfaces.json", br#"{"NetworkInterfaces":[null,7,{},{"NetworkInterfaceId":5},{"NetworkInterfaceId":"eni-0c","Groups":"none","PrivateIpAddress":{"a":1},"Attachment":[]}]}"#.to_vec(), NOTHING),
        ("truncated snapshot", "snapshot.json", br#"{"NetworkInterfaces":[{"NetworkInterfaceId":"eni-0d","OwnerId":"1111"#.to_vec(), SAID),
    ]
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// A folder `in` with a good file in it.
fn beside_good() -> Folder {
    let folder = Folder::new();
    // Other interface and addresses than the bad files have, so that neither hides behind the other.
    folder.write("in/good.log", good().replace("eni-0a", "eni-0e").as_bytes());
    folder
}

const NO: [&str; 0] = [];

#[test]
fn every_kind_of_bad_file_is_said_and_harms_nothing_else() {
    let mut wrong = Vec::new();
    for (kind, name, content, expected) in files() {
        let folder = beside_good();
        folder.write(&format!("in/{name}"), &content);
        let outcome = replay(&[folder.path("in")], &folder.path("out"), &NO);
        let Ok(summary) = serde_json::from_str::<Value>(&outcome.stdout) else {
            wrong.push(format!("{kind}: no summary; exit {:?}, stderr {}", outcome.code, outcome.stderr));
            continue;
        };
        let mut check = |what: &str, ok: bool| {
            if !ok {
                wrong.push(format!("{kind}: {what}; expected {expected:?}, exit {:?}, summary {summary}", outcome.code));
            }
        };
        let names = |key: &str| summary[key].as_array().is_some_and(|list| list.iter().any(|one| one.to_string().contains(name)));
        let (quarantined, unrecognised) = (names("quarantined"), names("unrecognised"));
        let rejects = number(&summary, &["rejects"]);
        let flow = number(&summary, &["records", "flow"]);
        let api = number(&summary, &["records", "api"]);
        check("flow records", (expected.flow.0 + GOOD..=expected.flow.1 + GOOD).contains(&flow));
        check("API events", (expected.api.0..=expected.api.1).contains(&api));
        check("ignored events", number(&summary, &["records", "api_ignored"]) == expected.api_ignored);
        check("rejects", rejects >= expected.rejects);
        check("quarantined", !expected.quarantined || quarantined);
        check("unrecognised", !expected.unrecognised || unrecognised);
        check("nothing is said of it", !expected.said || quarantined || unrecognised || rejects > 0);
        check("exit code", outcome.code == Some(i32::from(quarantined)));
        check("bounded memory", number(&summary, &["peak_rss_bytes"]) < 700_000_000);
        check("an escape code reached the terminal", !(outcome.stdout.clone() + &outcome.stderr).contains('\u{1b}'));
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_list_of_kinds_is_complete() {
    let listed = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bad_input/README.md")).unwrap();
    let kinds = files();
    let missing: Vec<_> = kinds.iter().map(|(kind, ..)| *kind).filter(|kind| !listed.contains(&format!("| {kind} |"))).collect();
    assert!(missing.is_empty(), "tests/bad_input/README.md does not list {missing:?}");
    assert!(kinds.len() >= 40, "{}", kinds.len());
}

/// Replays the folder's `in`, gives the summary, and asserts that the good file was read whole.
fn replay_beside(folder: &Folder) -> (Outcome, Value) {
    let mut command = flowtrail();
    command.arg("replay").arg(folder.path("in")).arg("--out").arg(folder.path("out")).arg("--json");
    let outcome = Outcome::of(&mut command, Duration::from_secs(60));
    let summary = outcome.summary();
    assert!(number(&summary, &["records", "flow"]) >= GOOD, "{summary}");
    (outcome, summary)
}

#[test]
fn a_loop_of_symlinks_ends() {
    let folder = beside_good();
    std::os::unix::fs::symlink("..", folder.path("in/loop")).unwrap();
    std::os::unix::fs::symlink("loop-b", folder.path("in/loop-a")).unwrap();
    std::os::unix::fs::symlink("loop-a", folder.path("in/loop-b")).unwrap();
    let (_, summary) = replay_beside(&folder);
    assert_eq!(number(&summary, &["records", "flow"]), GOOD, "the loop must not be read round and round: {summary}");
}

#[test]
fn a_link_to_nowhere_is_said() {
    let folder = beside_good();
    std::os::unix::fs::symlink("nowhere.log.gz", folder.path("in/dangling.log.gz")).unwrap();
    let (outcome, summary) = replay_beside(&folder);
    assert!((summary.to_string() + &outcome.stderr).contains("dangling.log.gz"), "{summary} {}", outcome.stderr);
}

#[test]
fn pipes_and_devices_are_not_waited_for() {
    let folder = beside_good();
    make_pipe(&folder.path("in/pipe.log"));
    std::os::unix::fs::symlink("/dev/zero", folder.path("in/zero.log")).unwrap();
    replay_beside(&folder);
}

#[test]
fn a_file_that_gives_an_error_when_read_is_said() {
    let folder = beside_good();
    // The memory of a process cannot be read from its start: an input/output error for everybody, the superuser too.
    std::os::unix::fs::symlink("/proc/self/mem", folder.path("in/broken-disk.log")).unwrap();
    let (outcome, summary) = replay_beside(&folder);
    assert!((summary.to_string() + &outcome.stderr).contains("broken-disk.log"), "{summary} {}", outcome.stderr);
}

#[test]
fn a_file_that_may_not_be_read_is_said() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    // A folder that everybody reaches, since the superuser may read everything and has to become nobody here.
    let folder = Folder(tempfile::tempdir().unwrap());
    folder.write("in/good.log", good().as_bytes());
    let denied = folder.write("in/denied.log", good().as_bytes());
    let binary = folder.path("flowtrail");
    fs::copy(env!("CARGO_BIN_EXE_flowtrail"), &binary).unwrap();
    fs::create_dir(folder.path("home")).unwrap();
    for (path, mode) in [
        (folder.path(""), 0o755),
        (folder.path("in"), 0o755),
        (folder.path("in/good.log"), 0o644),
        (denied, 0o000),
        (folder.path("home"), 0o777),
        (binary.clone(), 0o755),
    ] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut command = std::process::Command::new(&binary);
    command.arg("replay").arg(folder.path("in")).arg("--out").arg(folder.path("home/out")).arg("--json").current_dir(folder.path("home"));
    if is_root() {
        command.uid(65_534).gid(65_534);
    }
    let outcome = Outcome::of(&mut command, LIMIT);
    let summary = outcome.summary();
    assert_eq!(outcome.code, Some(1), "{summary}");
    assert_eq!(number(&summary, &["records", "flow"]), GOOD);
    assert!(summary["quarantined"].to_string().contains("denied.log"), "{summary}");
}

#[test]
fn names_of_files_cannot_write_to_the_terminal() {
    let folder = beside_good();
    folder.write("in/a\u{1b}[31m\nb.bin", b"\x1f\x8bnot gzip");
    let odd = folder.path("in").join(std::ffi::OsStr::from_bytes(b"not-utf8-\xff\xfe.log"));
    fs::write(odd, good().replace("eni-0a", "eni-0f")).unwrap();
    for more in [vec!["--json"], Vec::new()] {
        let mut command = flowtrail();
        command.arg("replay").arg(folder.path("in")).arg("--out").arg(folder.path("out")).args(more);
        let outcome = Outcome::of(&mut command, LIMIT);
        assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
        assert!(!(outcome.stdout + &outcome.stderr).contains('\u{1b}'));
    }
    fs::remove_dir_all(folder.path("out")).unwrap();
    let (_, summary) = replay_beside(&folder);
    assert!(summary["quarantined"].to_string().contains("b.bin"), "{summary}");
}

#[test]
fn the_same_object_with_other_content_is_quarantined() {
    let folder = Folder::new();
    let key = "AWSLogs/111122223333/vpcflowlogs/eu-west-1/2023/11/14/111122223333_vpcflowlogs_eu-west-1_fl-0a_20231114T2210Z_0000aaaa.log";
    folder.write(&format!("in/a/{key}"), good().as_bytes());
    folder.write(&format!("in/b/{key}"), format!("{}{}", good(), line(200)).as_bytes());
    let outcome = replay(&[folder.path("in")], &folder.path("out"), &NO);
    let summary = outcome.summary();
    assert_eq!(
        (outcome.code, number(&summary, &["units", "applied"]), number(&summary, &["units", "quarantined"])),
        (Some(1), 1, 1),
        "{summary}"
    );
}

#[test]
fn a_file_size_limit_stops_it_loudly_and_it_goes_on_without() {
    let folder = Folder::new();
    let lines: String = (0..60_000u64).map(|n| line(n % 250).replace("eni-0a", &format!("eni-0{:x}", n / 100))).collect();
    folder.write("in/a.log", format!("{HEADER}\n{lines}").as_bytes());
    let tables = "--tables=flows,findings";
    // 1 block of 512 bytes (or 1024, as the shell has it): the first table that is written hits it.
    let mut limited = std::process::Command::new("sh");
    limited.arg("-c").arg("ulimit -f 1; exec \"$@\"").arg("sh").arg(env!("CARGO_BIN_EXE_flowtrail"));
    limited.arg("replay").arg(folder.path("in")).arg("--out").arg(folder.path("out")).arg("--json").arg(tables);
    let outcome = Outcome::of(&mut limited, LIMIT);
    assert_eq!(outcome.code, Some(1), "a full disk is an error, not a signal: {outcome:?}");
    assert!(outcome.stderr.to_lowercase().contains("large") || outcome.stderr.contains("limit"), "{}", outcome.stderr);
    assert!(crate::harness::tables::table(&folder.path("out"), "flows").is_empty(), "half a table is visible");
    let summary = crate::harness::replay_json(&[folder.path("in")], &folder.path("out"), &[tables]);
    assert_eq!(number(&summary, &["records", "flow"]), 60_000);
    assert_eq!(crate::harness::tables::table(&folder.path("out"), "flows").len(), 60_000);
}

#[test]
fn an_output_that_cannot_be_written_is_said() {
    let folder = beside_good();
    let file = folder.write("file", b"here already");
    for out in [file.clone(), file.join("below"), PathBuf::from("/proc/nowhere/out")] {
        let outcome = Outcome::of(flowtrail().arg("replay").arg(folder.path("in")).arg("--out").arg(&out), LIMIT);
        assert!(matches!(outcome.code, Some(1 | 2)), "{out:?}: {outcome:?}");
        assert!(outcome.stderr.contains(&out.display().to_string()), "the message must name {out:?}: {}", outcome.stderr);
    }
    assert_eq!(fs::read(file).unwrap(), b"here already");
}

/// (arguments, exit code, what the message must name)
#[test]
fn wrong_use_is_told_apart_from_bad_data() {
    let folder = beside_good();
    let input = folder.path("in").display().to_string();
    let out = folder.path("out").display().to_string();
    let config = |name: &str, text: &str| folder.write(name, text.as_bytes()).display().to_string();
    let misspelt = config("misspelt.toml", "[output]\nlocation = \"x\"\nlocatoin = \"y\"\n");
    let wrong_type = config("type.toml", "[state]\nretention = \"soon\"\n");
    let wrong_kind = config("kind.toml", "[[source]]\nkind = \"carrier-pigeon\"\n");
    let not_toml = config("not.toml", "{\"output\": 1}");
    let latin = folder.path("latin.toml");
    fs::write(&latin, b"[output]\nlocation = \"\xe9\"\n").unwrap();
    let latin = latin.display().to_string();
    let missing_list = format!("c2={}", folder.path("no-list.csv").display());
    let cases: Vec<(Vec<&str>, i32, &str)> = vec![
        (vec!["replay"], 2, "INPUT"),
        (vec!["frobnicate"], 2, "frobnicate"),
        (vec!["replay", &input, "--out", &out, "--from", "yesterday-ish"], 2, "yesterday-ish"),
        (vec!["replay", &input, "--out", &out, "--tables", "findings,feelings"], 2, "feelings"),
        (vec!["replay", &input, "--out", &out, "--list", "c2"], 2, "NAME=FILE"),
        (vec!["replay", &input, "--out", &out, "--list", &missing_list], 1, "no-list.csv"),
        (vec!["replay", &input, "--out", &out, "--threads", "none"], 2, "none"),
        (vec!["replay", "/nothing/here", "--out", &out], 1, "/nothing/here"),
        (vec!["inspect", "/nothing/here"], 1, "/nothing/here"),
        (vec!["run", "--config", "/nothing/here.toml"], 2, "/nothing/here.toml"),
        (vec!["run", "--config", &misspelt], 2, "locatoin"),
        (vec!["check", "--config", &misspelt], 2, "3"),
        (vec!["check", "--config", &wrong_type], 2, "soon"),
        (vec!["check", "--config", &wrong_kind], 2, "carrier-pigeon"),
        (vec!["check", "--config", &not_toml], 2, "not.toml"),
        (vec!["check", "--config", &latin], 2, "latin.toml"),
    ];
    for (arguments, code, names) in cases {
        let outcome = Outcome::of(flowtrail().args(&arguments), LIMIT);
        assert_eq!(outcome.code, Some(code), "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(names), "{arguments:?} must name {names:?}: {}", outcome.stderr);
    }
}

#[test]
fn rows_of_a_list_that_cannot_be_read_are_named() {
    let folder = beside_good();
    let list = folder.write("c2.csv", b"range,category\n203.0.113.0/24,c2\nnot-an-address,c2\n203.0.113.0/99,c2\n");
    let outcome = replay(&[folder.path("in")], &folder.path("out"), &["--list".to_owned(), format!("c2={}", list.display())]);
    let said = outcome.stdout.clone() + &outcome.stderr;
    assert!(said.contains("not-an-address") || said.contains("c2.csv"), "{said}");
}

/// What a name from a log must not do to a terminal.
#[test]
fn names_of_functions_cannot_write_to_the_terminal() {
    let folder = beside_good();
    let name = "\u{1b}[31m<script>alert(1)</script>'; drop table--";
    let interfaces = json!({"NetworkInterfaces": [{"NetworkInterfaceId": "eni-0e", "OwnerId": "111122223333", "VpcId": "vpc-1", "SubnetId": "subnet-1",
        "InterfaceType": "lambda", "Status": "in-use", "PrivateIpAddress": "10.0.0.5", "Groups": [{"GroupId": "sg-1"}],
        "Description": format!("AWS Lambda VPC ENI-{name}-12345678-1234-1234-1234-123456789012")}]});
    folder.write("in/interfaces.json", interfaces.to_string().as_bytes());
    let outcome = Outcome::of(flowtrail().arg("replay").arg(folder.path("in")).arg("--out").arg(folder.path("out")), LIMIT);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let entity = Outcome::of(flowtrail().args(["entity", "eni-0e", "--out"]).arg(folder.path("out")), LIMIT);
    assert!(entity.stdout.contains("eni-0e"), "{entity:?}");
    for text in [&outcome.stdout, &outcome.stderr, &entity.stdout, &entity.stderr] {
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}

/// Good files keep their rows and rejects keep theirs in one commit, readable by others.
#[test]
fn rejects_are_rows_with_position_and_sample() {
    let folder = Folder::new();
    folder.write("in/a.log", &with_line(b"2 111122223333 \x1b[31m 10.0.0.5"));
    let outcome = replay(&[folder.path("in")], &folder.path("out"), &NO);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let rows = crate::harness::tables::table(&folder.path("out"), "rejects");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert!(rows[0]["key"].ends_with("a.log") && rows[0]["position"] == "2", "the header is line 1: {rows:?}");
    assert!(rows[0]["sample"].contains("111122223333") && !rows[0]["sample"].contains('\u{1b}'), "{rows:?}");
    assert!(!rows[0]["reason"].is_empty());
    assert!(Path::new(&folder.path("out")).join("rejects").exists());
}

/// What was set aside is told once, however often the same files are given, and again when it fails in another way.
#[test]
fn what_was_set_aside_is_said_once() {
    use crate::harness::tables::table;
    let folder = beside_good();
    folder.write("in/line.log", &with_line(b"2 111122223333 eni-0a"));
    folder.write("in/broken.log.gz", b"\x1f\x8b\x08\x00broken");
    let key = "in/AWSLogs/111122223333/vpcflowlogs/eu-west-1/2023/11/14/111122223333_vpcflowlogs_eu-west-1_fl-0a_20231114T2215Z_a.log.gz";
    folder.write(key, b"\x1f\x8b\x08\x00and so is this");
    let out = folder.path("out");
    for round in 1..=3 {
        let outcome = replay(&[folder.path("in")], &out, &NO);
        assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
        assert_eq!(number(&outcome.summary(), &["units", "quarantined"]), 2, "tried again, round {round}");
        assert_eq!((table(&out, "rejects").len(), table(&out, "quarantine").len()), (1, 2), "round {round}");
    }
    // Mended, its records count.
    folder.write(key, &gzip(good().replace("eni-0a", "eni-0b").as_bytes()));
    let outcome = replay(&[folder.path("in")], &out, &NO);
    assert_eq!((outcome.code, number(&outcome.summary(), &["records", "flow"])), (Some(1), GOOD));
    assert_eq!(table(&out, "quarantine").len(), 2);
}
