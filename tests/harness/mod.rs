//! The binary, and what it left behind.

pub mod organisation;
pub mod proxy;
pub mod running;
pub mod services;
pub mod tables;
pub mod unix;

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The binary under test, plain and without colours.
pub fn flowtrail() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtrail"));
    command.env("NO_COLOR", "1").env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// What a call of the binary came to.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; none when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Runs to the end; a command that takes longer than `limit` is killed and fails the test.
    pub fn of(command: &mut Command, limit: Duration) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let reader = |mut pipe: Box<dyn Read + Send>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                pipe.read_to_end(&mut bytes).map(|_| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
            })
        };
        let stdout = reader(Box::new(child.stdout.take().expect("piped")));
        let stderr = reader(Box::new(child.stderr.take().expect("piped")));
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("own child") {
                break status;
            }
            if began.elapsed() > limit {
                child.kill().and_then(|()| child.wait()).expect("own child");
                panic!("{command:?} was not done after {limit:?}; it said: {}", stderr.join().unwrap());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let outcome = Self { code: status.code(), stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() };
        assert!(!outcome.stderr.contains("panicked at"), "{command:?} panicked: {}", outcome.stderr);
        outcome
    }

    /// The summary of `--json`.
    pub fn summary(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: exit {:?}, stdout {:?}, stderr {:?}", self.code, self.stdout, self.stderr))
    }
}

/// Long enough for any single call on a slow machine.
pub const LIMIT: Duration = Duration::from_secs(600);

/// `flowtrail replay INPUTS --out OUT --json MORE`.
pub fn replay<I: AsRef<OsStr>, A: AsRef<OsStr>>(inputs: &[I], out: &Path, more: &[A]) -> Outcome {
    Outcome::of(flowtrail().arg("replay").args(inputs).arg("--out").arg(out).arg("--json").args(more), LIMIT)
}

/// [`replay`] that must end well; its summary.
pub fn replay_json<I: AsRef<OsStr>, A: AsRef<OsStr>>(inputs: &[I], out: &Path, more: &[A]) -> Value {
    let outcome = replay(inputs, out, more);
    assert_eq!(outcome.code, Some(0), "replay: {}", outcome.stderr);
    outcome.summary()
}

/// A number of a summary, by its path.
pub fn number(summary: &Value, path: &[&str]) -> u64 {
    let found = path.iter().fold(summary, |value, key| &value[key]);
    found.as_u64().unwrap_or_else(|| panic!("{path:?} is {found} in {summary}"))
}

/// Seeded chance for the tests themselves (SplitMix64).
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// The seed of a randomised test: `FLOWTRAIL_TEST_SEED`, else `default`. A failure says which it was.
pub fn seed(default: u64) -> u64 {
    let seed = std::env::var("FLOWTRAIL_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    println!("FLOWTRAIL_TEST_SEED={seed}");
    seed
}

/// The findings that stand after one replay.
pub fn findings_of_replay<I: AsRef<OsStr>, A: AsRef<OsStr>>(
    inputs: &[I],
    out: &Path,
    more: &[A],
) -> std::collections::BTreeMap<String, tables::Row> {
    replay_json(inputs, out, more);
    tables::findings(out)
}
