//! `run` over a growing folder, a real bucket and a real topic at once finds what `replay` finds over the same logs; killed, too.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cases::kill::start_and_kill;
use crate::harness::organisation::{Delivered, Organisation};
use crate::harness::services::{Kafka, S3};
use crate::harness::tables::{assert_same_findings, findings, settled};
use crate::harness::{Chance, LIMIT, Outcome, flowtrail, seed};

/// An organisation whose logs arrive day by day: one account's flow logs and all snapshots in a folder, the others' flow logs in a
/// bucket, CloudTrail in a topic.
struct Live<'a> {
    s3: &'a S3,
    kafka: &'a Kafka,
    folder: tempfile::TempDir,
    bucket: String,
    topic: String,
    config: PathBuf,
    organisation: &'static Organisation,
}

const PARTITIONS: i32 = 3;
const DAY: i64 = 86_400;

impl<'a> Live<'a> {
    fn new(s3: &'a S3, kafka: &'a Kafka) -> Self {
        let organisation = Organisation::shared();
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (bucket, topic) = (s3.bucket("live"), kafka.topic("live", PARTITIONS));
        let config = folder.path().join("flowtrail.toml");
        std::fs::create_dir(folder.path().join("in")).unwrap();
        let text = format!(
            "[output]\nlocation = {:?}\n[run]\nclock = \"delivery\"\ncommit_every = \"1s\"\n{}{}\
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
        Self { s3, kafka, folder, bucket, topic, config, organisation }
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
            std::fs::copy(&file.path, &path).unwrap();
            // A file is taken once it has not changed for a while; this one has not for a day.
            let long_ago = std::time::SystemTime::now() - Duration::from_secs(DAY as u64);
            std::fs::File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
        }
    }

    /// The files of each step, snapshots in the first.
    fn steps(&self) -> (Vec<Vec<Delivered>>, String) {
        let files = self.organisation.delivered();
        let flow = files.iter().find(|file| file.key.contains("/vpcflowlogs/")).expect("flow logs");
        let account =
            flow.key.split('/').find(|part| part.len() == 12 && part.bytes().all(|b| b.is_ascii_digit())).expect("an account").to_owned();
        let first = files.iter().map(|file| file.at).find(|at| *at > 0).unwrap();
        let mut steps: Vec<Vec<Delivered>> = Vec::new();
        for file in files {
            let step = ((file.at - first).max(0) / DAY) as usize;
            while steps.len() <= step {
                steps.push(Vec::new());
            }
            steps[step].push(file);
        }
        (steps, account)
    }

    fn run(&self) -> std::process::Command {
        let mut command = flowtrail();
        command.args(["run", "--once", "--json", "--config"]).arg(&self.config).envs(self.s3.env());
        command
    }

    fn run_to_the_end(&self) {
        let outcome = Outcome::of(&mut self.run(), LIMIT);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
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

#[test]
#[ignore = "with clock = \"delivery\" a source that is idle between two arrivals stands at the newest delivery of all, so hours can seal before its part has come"]
fn run_finds_what_replay_finds_while_logs_arrive() {
    let (Some(s3), Some(kafka)) = (S3::connect(), Kafka::connect()) else { return };
    let live = Live::new(&s3, &kafka);
    let (steps, account) = live.steps();
    assert!(steps.len() >= 15, "{} days", steps.len());
    for (index, step) in steps.iter().enumerate() {
        step.iter().for_each(|file| live.deliver(file, &account));
        live.kafka.flush();
        // Some days come together, as after a night in which nobody looked.
        if index % 3 != 1 {
            live.run_to_the_end();
        }
    }
    live.run_to_the_end();
    live.assert_found("folder, bucket and topic, day by day");
}

#[test]
fn run_killed_thirty_times_finds_the_same() {
    let (Some(s3), Some(kafka)) = (S3::connect(), Kafka::connect()) else { return };
    let live = Live::new(&s3, &kafka);
    let (steps, account) = live.steps();
    let mut chance = Chance(seed(3));
    let (mut kills, mut length) = (0, Duration::from_secs(3));
    let per_step = 30usize.div_ceil(steps.len());
    for step in &steps {
        step.iter().for_each(|file| live.deliver(file, &account));
        live.kafka.flush();
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
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = folder.path().join("flowtrail.toml");
    let text = format!(
        "[output]\nlocation = {:?}\n[run]\nclock = \"delivery\"\ncommit_every = \"1s\"\nlist_every = \"1s\"\n[[source]]\nkind = \"folder\"\nlocation = {input:?}\n[metrics]\nlisten = \"127.0.0.1:{port}\"\n",
        folder.path().join("out")
    );
    std::fs::write(&config, text).unwrap();
    let mut child = flowtrail()
        .arg("run")
        .arg("--config")
        .arg(&config)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let get = |path: &str| -> Option<String> {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    let wait = |what: &str, ready: &dyn Fn() -> bool| {
        let until = Instant::now() + Duration::from_secs(60);
        while !ready() {
            assert!(Instant::now() < until, "not within a minute: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let ok = |path: &str| get(path).is_some_and(|answer| answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.0 200"));
    wait("it is healthy", &|| ok("/health"));
    wait("it is ready", &|| ok("/ready"));
    // A log arrives: moved into place whole, as a careful writer does.
    let line = "2 111122223333 eni-0a 10.0.0.5 203.0.113.9 40000 443 6 10 1000 1700000000 1700000060 ACCEPT OK";
    let header = "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status";
    std::fs::write(folder.path().join("new.log"), format!("{header}\n{line}\n")).unwrap();
    std::fs::rename(folder.path().join("new.log"), input.join("new.log")).unwrap();
    let counted = |answer: &str| answer.lines().any(|line| !line.starts_with('#') && line.contains("record") && line.ends_with(" 1"));
    wait("the record is counted in the metrics", &|| get("/metrics").is_some_and(|answer| counted(&answer)));
    // SAFETY: a signal to our own child.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGTERM) }, 0);
    let until = Instant::now() + Duration::from_secs(30);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < until, "it must end on SIGTERM");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(0), "an end that was asked for is a good end");
}
