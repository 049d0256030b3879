//! `replay` and `run` killed at random moments and started again, as if nothing had happened.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::organisation::Organisation;
use crate::harness::tables::{assert_same_findings, findings, parquet_files};
use crate::harness::{Chance, LIMIT, Outcome, flowtrail, seed};

/// Starts `command`, and kills it after a random part of `length`. Whether it was still running.
pub fn start_and_kill(command: &mut Command, chance: &mut Chance, length: Duration) -> bool {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_micros(chance.below(length.as_micros() as u64 + 1));
    while Instant::now() < until {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // SIGKILL: nothing can be tidied up.
    child.kill().unwrap();
    child.wait().unwrap().code().is_none()
}

#[test]
fn a_replay_killed_thirty_times_finds_the_same() {
    let organisation = Organisation::shared();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let replay = |out: &str| {
        let mut command = flowtrail();
        command.arg("replay").args(&organisation.inputs).arg("--out").arg(folder.path().join(out)).args(&organisation.list);
        command
    };
    let began = Instant::now();
    assert_eq!(Outcome::of(&mut replay("timing"), LIMIT).code, Some(0));
    let length = began.elapsed();
    let mut chance = Chance(seed(1));
    let (mut kills, mut round) = (0, 0);
    for _ in 0..120 {
        if kills == 30 {
            break;
        }
        let out = folder.path().join(format!("out-{round}"));
        if start_and_kill(&mut replay(&format!("out-{round}")), &mut chance, length) {
            kills += 1;
            let half_written = |path: &std::path::PathBuf| {
                let file = std::fs::File::open(path).unwrap();
                parquet::file::reader::SerializedFileReader::new(file).is_err()
            };
            let visible = parquet_files(&out.join("findings"));
            assert!(!visible.iter().any(half_written), "no half-written file may show");
        } else {
            assert_same_findings("it ended before it was killed", &organisation.expected, &findings(&out));
            round += 1;
        }
    }
    assert_eq!(kills, 30, "a replay takes {length:?}");
    let out = format!("out-{round}");
    assert_eq!(Outcome::of(&mut replay(&out), LIMIT).code, Some(0));
    assert_same_findings("after thirty kills", &organisation.expected, &findings(&folder.path().join(out)));
}
