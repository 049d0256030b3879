//! Reading from and writing to a real S3 server, whose conditional writes carry the commits.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::organisation::Organisation;
use crate::harness::services::S3;
use crate::harness::tables::{assert_same_findings, findings};
use crate::harness::{Chance, LIMIT, Outcome, flowtrail, number, seed};

/// An organisation in a bucket: the bucket's name.
pub fn upload(s3: &S3, organisation: &Organisation) -> String {
    let bucket = s3.bucket("logs");
    for file in organisation.delivered() {
        s3.put(&bucket, &file.key, std::fs::read(&file.path).unwrap());
    }
    bucket
}

/// A replay from a bucket to a prefix of another.
fn replay(s3: &S3, inputs: &[String], out: &str, organisation: &Organisation, config: &Path) -> Command {
    let mut command = flowtrail();
    command.arg("replay").args(inputs).args(["--out", out, "--json", "--config"]).arg(config).args(&organisation.list).envs(s3.env());
    command
}

fn config(s3: &S3) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("flowtrail.toml");
    std::fs::write(&path, s3.config()).unwrap();
    (folder, path)
}

#[test]
fn a_bucket_gives_the_findings_of_a_folder() {
    let Some(s3) = S3::connect() else { return };
    let organisation = Organisation::shared();
    let (_folder, config) = config(&s3);
    let (logs, out) = (upload(&s3, organisation), s3.bucket("out"));
    let inputs = [format!("s3://{logs}/")];
    let location = format!("s3://{out}/tables");
    let first = Outcome::of(&mut replay(&s3, &inputs, &location, organisation, &config), LIMIT);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    assert!(number(&first.summary(), &["units", "applied"]) > 100);
    let tables = s3.data.join(&out).join("tables");
    assert_same_findings("from S3 to S3", &organisation.expected, &findings(&tables));
    let again = Outcome::of(&mut replay(&s3, &inputs, &location, organisation, &config), LIMIT);
    assert_eq!((again.code, number(&again.summary(), &["units", "applied"])), (Some(0), 0), "a second pass applies nothing");
    assert_same_findings("a second pass", &organisation.expected, &findings(&tables));
    let told = Outcome::of(
        flowtrail()
            .args(["explain", organisation.expected.keys().next().unwrap(), "--out", &location])
            .env("AWS_ENDPOINT_URL", &s3.endpoint)
            .envs(s3.env()),
        LIMIT,
    );
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    assert!(told.stdout.len() >= 200, "{}", told.stdout);
}

#[test]
fn two_at_once_on_one_output_leave_what_one_would_have() {
    let Some(s3) = S3::connect() else { return };
    let organisation = Organisation::shared();
    let (_folder, config) = config(&s3);
    let out = s3.bucket("shared");
    let location = format!("s3://{out}");
    let inputs: Vec<String> = organisation.inputs.iter().map(|path| path.display().to_string()).collect();
    std::thread::scope(|scope| {
        let run = || Outcome::of(&mut replay(&s3, &inputs, &location, organisation, &config), LIMIT);
        let both = [scope.spawn(run), scope.spawn(run)];
        // The one that loses the race for a commit may give up and say so; neither may do harm.
        let codes = both.map(|one| one.join().unwrap()).map(|outcome| (outcome.code, outcome.stderr));
        assert!(codes.iter().any(|(code, _)| *code == Some(0)), "{codes:?}");
        assert!(codes.iter().all(|(code, stderr)| *code == Some(0) || (*code == Some(1) && !stderr.is_empty())), "{codes:?}");
    });
    let last = Outcome::of(&mut replay(&s3, &inputs, &location, organisation, &config), LIMIT);
    assert_eq!(last.code, Some(0), "{}", last.stderr);
    assert_same_findings("two at once", &organisation.expected, &findings(&s3.data.join(&out)));
}

#[test]
fn killed_while_writing_to_s3_it_goes_on() {
    let Some(s3) = S3::connect() else { return };
    let organisation = Organisation::shared();
    let (_folder, config) = config(&s3);
    let out = s3.bucket("killed");
    let location = format!("s3://{out}/a/b");
    let inputs: Vec<String> = organisation.inputs.iter().map(|path| path.display().to_string()).collect();
    let began = std::time::Instant::now();
    let timing = s3.bucket("timing");
    Outcome::of(&mut replay(&s3, &inputs, &format!("s3://{timing}"), organisation, &config), LIMIT);
    let length = began.elapsed().as_millis() as u64;
    let mut chance = Chance(seed(5));
    for _ in 0..8 {
        let mut child = replay(&s3, &inputs, &location, organisation, &config)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(chance.below(length) + 5));
        child.kill().ok();
        child.wait().unwrap();
    }
    let last = Outcome::of(&mut replay(&s3, &inputs, &location, organisation, &config), LIMIT);
    assert_eq!(last.code, Some(0), "{}", last.stderr);
    assert_same_findings("after eight kills", &organisation.expected, &findings(&s3.data.join(&out).join("a/b")));
}
