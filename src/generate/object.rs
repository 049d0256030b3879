//! Objects under the key layout of the buckets that AWS delivers to.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use flate2::{Compression, GzBuilder};
use flowtrail_ingest::EventTime;

/// `2026/01/05` of a time.
fn folders(at: i64) -> String {
    EventTime(at).day().to_string().replace('-', "/")
}

/// `20260105T1055Z` of a time.
fn stamp(at: i64) -> String {
    let text = EventTime(at).to_string().replace(['-', ':'], "");
    format!("{}Z", text.get(..13).unwrap_or(&text))
}

/// Key of a flow-log object whose window begins at `at`.
pub(crate) fn flow_key(account: &str, region: &str, flow_log: &str, at: i64, hash: &str) -> String {
    let day = folders(at);
    format!("AWSLogs/{account}/vpcflowlogs/{region}/{day}/{account}_vpcflowlogs_{region}_{flow_log}_{}_{hash}.log.gz", stamp(at))
}

/// Key of a trail object delivered at `at`.
pub(crate) fn trail_key(account: &str, region: &str, at: i64, hash: &str) -> String {
    let day = folders(at);
    format!("AWSLogs/{account}/CloudTrail/{region}/{day}/{account}_CloudTrail_{region}_{}_{hash}.json.gz", stamp(at))
}

/// Path of a `collect` snapshot; `what` is `eni` or `functions`.
pub(crate) fn snapshot_path(account: &str, region: &str, at: i64, what: &str) -> String {
    format!("snapshots/{account}_{region}_{}_{what}.json", stamp(at))
}

/// gzip without a time in its header, so that equal content gives equal bytes.
pub(crate) fn gzip(content: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::with_capacity(content.len() / 6 + 64), Compression::new(6));
    encoder.write_all(content)?;
    Ok(encoder.finish()?)
}

/// Writes a file below `out`, with the folders it needs.
pub(crate) fn write(out: &Path, key: &str, content: &[u8]) -> anyhow::Result<()> {
    let path = out.join(key);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_as_aws_lays_them_out() {
        let at = EventTime::parse("2026-01-05T10:55:00Z").map_or(0, |t| t.0);
        assert_eq!(
            flow_key("111122223333", "eu-west-1", "fl-0a", at, "ab12"),
            "AWSLogs/111122223333/vpcflowlogs/eu-west-1/2026/01/05/111122223333_vpcflowlogs_eu-west-1_fl-0a_20260105T1055Z_ab12.log.gz"
        );
        assert_eq!(
            trail_key("111122223333", "eu-west-1", at, "kpaMYavMQA9Ahp7L"),
            "AWSLogs/111122223333/CloudTrail/eu-west-1/2026/01/05/111122223333_CloudTrail_eu-west-1_20260105T1055Z_kpaMYavMQA9Ahp7L.json.gz"
        );
    }
}
