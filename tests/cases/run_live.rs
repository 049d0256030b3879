//! `run` over a growing folder, a real bucket and a real topic at once finds what `replay` finds over the same logs; killed, too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cases::kill::start_and_kill;
use crate::harness::organisation::{Delivered, Organisation};
use crate::harness::proxy::Proxy;
use crate::harness::running::{Running, free_port};
use crate::harness::services::{Kafka, S3};
use crate::harness::tables::{assert_same_findings, findings, settled};
use crate::harness::{Chance, LIMIT, Outcome, flowtrail, number, seed};

/// An organisation whose logs arrive day by day: one account's flow logs and all snapshots in a folder, the others' flow logs in a
/// bucket, CloudTrail in a topic.
struct Live<'a> {
    s3: &'a S3,
    kafka: &'a Kafka,
    folder: tempfile::TempDir,
    bucket: String,
    topic: String,
    config: PathBuf,
    port: u16,
    organisation: &'static Organisation,
}

const PARTITIONS: i32 = 3;
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

impl<'a> Live<'a> {
    fn new(s3: &'a S3, kafka: &'a Kafka) -> Self {
        let organisation = Organisation::shared();
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (bucket, topic) = (s3.bucket("live"), kafka.topic("live", PARTITIONS));
        let config = folder.path().join("flowtrail.toml");
        std::fs::create_dir(folder.path().join("in")).unwrap();
        let port = free_port();
        let text = format!(
            "[output]\nlocation = {:?}\n[run]\nclock = \"delivery\"\ncommit_every = \"1s\"\nlist_every = \"1s\"\nlook_every = \"5s\"\n\
             [metrics]\nlisten = \"127.0.0.1:{port}\"\n{}{}\
             [[source]]\nkind = \"folder\"\nlocation = {:?}\n\
             [[source]]\nkind = \"s3\"\nlocation = \"s3://{bucket}/\"\n\
             [[source]]\nkind = \"kafka\"\nbrokers = [{:?}]\ntopics = [{topic:?}]\n",
            folder.path().join("out"),
            s3.config(),
            organisation.list_config(),
            folder.path().join("in"),
            kafka.brokers,
        );
        std::fs::write(&config, text).unwrap();
        Self { s3, kafka, folder, bucket, topic, config, port, organisation }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// AWS delivers one file.
    fn deliver(&self, file: &Delivered, first_account: &str) {
        if file.key.contains("/CloudTrail/") {
            let bytes = std::fs::read(&file.path).unwrap();
            let partition = (file.at / 300) as i32 % PARTITIONS;
            self.kafka.send(&self.topic, partition, file.at, &bytes);
        } else if file.key.contains("/vpcflowlogs/") && !file.key.contains(first_account) {
            self.s3.put(&self.bucket, &file.key, std::fs::read(&file.path).unwrap());
        } else {
            let path = self.folder.path().join("in").join(&file.key);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let whole = self.folder.path().join("new");
            std::fs::copy(&file.path, &whole).unwrap();
            // A file is taken once it has not changed for a while; this one has not for a day, and is there all at once.
            let long_ago = std::time::SystemTime::now() - Duration::from_secs(DAY as u64);
            std::fs::File::options().write(true).open(&whole).unwrap().set_modified(long_ago).unwrap();
            std::fs::rename(whole, path).unwrap();
        }
    }

    /// The files of each step of so many seconds of delivery, snapshots in the first.
    fn steps(&self, secs: i64) -> (Vec<Vec<Delivered>>, String) {
        let files = self.organisation.delivered();
        let flow = files.iter().find(|file| file.key.contains("/vpcflowlogs/")).expect("flow logs");
        let account =
            flow.key.split('/').find(|part| part.len() == 12 && part.bytes().all(|b| b.is_ascii_digit())).expect("an account").to_owned();
        let first = files.iter().map(|file| file.at).find(|at| *at > 0).unwrap();
        let mut steps: Vec<Vec<Delivered>> = Vec::new();
        for file in files {
            let step = ((file.at - first).max(0) / secs) as usize;
            steps.resize_with(steps.len().max(step + 1), Vec::new);
            steps[step].push(file);
        }
        (steps, account)
    }

    /// AWS delivers a step: in order, and all of it before anything of the next.
    fn deliver_all(&self, step: &[Delivered], account: &str) {
        step.iter().for_each(|file| self.deliver(file, account));
        self.kafka.flush();
    }

    /// `run` for ever.
    fn for_ever(&self) -> std::process::Command {
        let mut command = flowtrail();
        command.args(["run", "--json", "--config"]).arg(&self.config).envs(self.s3.env());
        command
    }

    fn run(&self) -> std::process::Command {
        let mut command = flowtrail();
        command.args(["run", "--once", "--json", "--config"]).arg(&self.config).envs(self.s3.env());
        command
    }

    fn run_to_the_end(&self) -> serde_json::Value {
        let outcome = Outcome::of(&mut self.run(), LIMIT);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        outcome.summary()
    }

    fn assert_found(&self, what: &str) {
        let expected = settled(&self.organisation.expected);
        assert!(expected.len() >= 5, "there must be something to compare: {}", expected.len());
        assert_same_findings(what, &expected, &until_last_day(&self.out(), &expected));
    }
}

/// Findings of a live run as far as the days go whose findings are expected; it may know less of the last day, never more of those before.
fn until_last_day(
    out: &Path,
    expected: &std::collections::BTreeMap<String, crate::harness::tables::Row>,
) -> std::collections::BTreeMap<String, crate::harness::tables::Row> {
    let last = expected.values().map(|row| row["window_end"].clone()).max().unwrap_or_default();
    let mut found = findings(out);
    found.retain(|id, row| expected.contains_key(id) || row["window_end"] <= last);
    found
}

/// `run` sees whatever has come when it happens to look: nobody waits for it, so every prefix of the logs is possible.
#[test]
fn run_finds_what_replay_finds_while_logs_arrive() {
    let (Some(s3), Some(kafka)) = (S3::connect(), Kafka::connect()) else { return };
    let live = Live::new(&s3, &kafka);
    let (steps, account) = live.steps(HOUR);
    assert!(steps.len() >= 15 * 24, "{} hours", steps.len());
    let running = Running::start(&mut live.for_ever(), live.port);
    running.wait("it is ready", |it| it.is_ok("/ready"));
    steps.iter().for_each(|step| live.deliver_all(step, &account));
    let before: serde_json::Value = serde_json::from_str(&running.stop()).unwrap();
    let rest = live.run_to_the_end();
    assert_eq!([&before, &rest].map(|summary| number(summary, &["late_records"])), [0, 0], "{before} {rest}");
    live.assert_found("folder, bucket and topic, hour by hour");
}

#[test]
fn run_killed_while_logs_arrive_finds_the_same() {
    let (Some(s3), Some(kafka)) = (S3::connect(), Kafka::connect()) else { return };
    let live = Live::new(&s3, &kafka);
    let (steps, account) = live.steps(HOUR);
    let mut chance = Chance(seed(7));
    let parts: Vec<&[Vec<Delivered>]> = steps.chunks(steps.len().div_ceil(30)).collect();
    let mut kills = 0;
    let (go, gone) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let (live, parts, account) = (&live, &parts, &account);
        scope.spawn(move || {
            for part in parts {
                // A part arrives while one of the runs below lives and dies.
                let Ok(()) = gone.recv() else { return };
                part.iter().for_each(|step| live.deliver_all(step, account));
            }
        });
        for _ in 0..parts.len().max(30) {
            let _ = go.send(());
            kills += u32::from(start_and_kill(&mut live.for_ever(), &mut chance, Duration::from_secs(4)));
        }
        drop(go);
    });
    assert!(kills >= 30, "only {kills} kills hit");
    let summary = live.run_to_the_end();
    assert_eq!(number(&summary, &["late_records"]), 0, "{summary}");
    live.assert_found("after thirty kills while logs arrived");
}

#[test]
fn run_killed_thirty_times_finds_the_same() {
    let (Some(s3), Some(kafka)) = (S3::connect(), Kafka::connect()) else { return };
    let live = Live::new(&s3, &kafka);
    let (steps, account) = live.steps(DAY);
    let mut chance = Chance(seed(3));
    let (mut kills, mut length) = (0, Duration::from_secs(3));
    let per_step = 30usize.div_ceil(steps.len());
    for step in &steps {
        live.deliver_all(step, &account);
        for _ in 0..per_step {
            kills += u32::from(start_and_kill(&mut live.run(), &mut chance, length));
        }
        if chance.below(2) == 0 {
            let began = Instant::now();
            live.run_to_the_end();
            length = began.elapsed();
        }
    }
    for _ in 0..200 {
        if kills >= 30 {
            break;
        }
        kills += u32::from(start_and_kill(&mut live.run(), &mut chance, length));
    }
    assert!(kills >= 30, "only {kills} kills hit");
    live.run_to_the_end();
    live.assert_found("after thirty kills");
}

/// `run` without `--once`: health, readiness and metrics while it reads, and an end on SIGTERM.
#[test]
fn a_running_one_tells_how_it_is() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let input = folder.path().join("in");
    std::fs::create_dir(&input).unwrap();
    let port = free_port();
    let config = folder.path().join("flowtrail.toml");
    let text = format!(
        "[output]\nlocation = {:?}\n[run]\nclock = \"delivery\"\ncommit_every = \"1s\"\nlist_every = \"1s\"\n[[source]]\nkind = \"folder\"\nlocation = {input:?}\n[metrics]\nlisten = \"127.0.0.1:{port}\"\n",
        folder.path().join("out")
    );
    std::fs::write(&config, text).unwrap();
    let running = Running::start(flowtrail().arg("run").arg("--config").arg(&config), port);
    running.wait("it is healthy", |it| it.is_ok("/health"));
    running.wait("it is ready", |it| it.is_ok("/ready"));
    // A log arrives: moved into place whole, as a careful writer does.
    std::fs::write(folder.path().join("new.log"), log(9)).unwrap();
    std::fs::rename(folder.path().join("new.log"), input.join("new.log")).unwrap();
    running.wait("the record is counted in the metrics", |it| it.metric("flowtrail_records_total", "flow") == 1.0);
    assert!(running.stop().contains("1 applied"));
}

/// One record of just now.
fn log(peer: u8) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let line = format!("2 111122223333 eni-0a 10.0.0.5 203.0.113.{peer} 40000 443 6 10 1000 {} {} ACCEPT OK", now - 60, now);
    let header = "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status";
    format!("{header}\n{line}\n")
}

/// A bucket that is gone for a while costs nothing: units rest, and are read when it is back.
#[test]
fn a_bucket_that_goes_away_and_comes_back_is_read_to_its_end() {
    let Some(s3) = S3::connect() else { return };
    let bucket = s3.bucket("away");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (away, gone) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (is_away, is_gone) = (Arc::clone(&away), Arc::clone(&gone));
    // First objects only, then everything.
    let proxy = Proxy::before(&s3.endpoint, move |line, _| {
        let listing = line.contains("list-type");
        let refuse = is_gone.load(Ordering::SeqCst) || (is_away.load(Ordering::SeqCst) && !listing);
        refuse.then_some(("404 Not Found", "NoSuchBucket"))
    });
    let port = free_port();
    let config = folder.path().join("flowtrail.toml");
    let text = format!(
        "[output]\nlocation = {:?}\n[run]\ncommit_every = \"1s\"\nlist_every = \"1s\"\n[aws]\nregion = \"us-east-1\"\nendpoint_url = {:?}\n[[source]]\nkind = \"s3\"\nlocation = \"s3://{bucket}/\"\n[metrics]\nlisten = \"127.0.0.1:{port}\"\n",
        folder.path().join("out"),
        proxy.endpoint
    );
    std::fs::write(&config, text).unwrap();
    (1..4).for_each(|peer| s3.put(&bucket, &format!("{peer}.log"), log(peer).into_bytes()));
    let mut command = flowtrail();
    command.args(["run", "--json", "--config"]).arg(&config).envs(s3.env());
    let running = Running::start(&mut command, port);
    let applied = |it: &Running| it.metric("flowtrail_units_total", "applied");
    running.wait("three are read", |it| applied(it) == 3.0);
    away.store(true, Ordering::SeqCst);
    (4..7).for_each(|peer| s3.put(&bucket, &format!("{peer}.log"), log(peer).into_bytes()));
    running.wait("three cannot be fetched", |it| it.metric("flowtrail_source_failures_total", "") >= 3.0);
    gone.store(true, Ordering::SeqCst);
    let failures = running.metric("flowtrail_source_failures_total", "");
    running.wait("nor listed", |it| it.metric("flowtrail_source_failures_total", "") >= failures + 3.0);
    assert!(running.is_ok("/health"));
    away.store(false, Ordering::SeqCst);
    gone.store(false, Ordering::SeqCst);
    running.wait("all are read", |it| applied(it) == 6.0);
    let summary: serde_json::Value = serde_json::from_str(&running.stop()).unwrap();
    let counts = [["units", "applied"], ["units", "quarantined"], ["records", "flow"]].map(|path| number(&summary, &path));
    assert_eq!(counts, [6, 0, 6], "{summary}");
}
