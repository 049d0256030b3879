//! A generated organisation, made once a test run, and its files in the order in which AWS would have delivered them.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{LIMIT, Outcome, findings_of_replay, flowtrail};
use crate::harness::tables::Row;

/// Where it lies, and what is in it.
pub struct Organisation {
    pub root: PathBuf,
    /// Everything a reader should get; the truth and the lists stay out.
    pub inputs: Vec<PathBuf>,
    /// `--list …`, when attacks need one.
    pub list: Vec<String>,
    /// What one undisturbed replay finds.
    pub expected: std::collections::BTreeMap<String, Row>,
}

/// One file of it.
#[derive(Clone, Debug)]
pub struct Delivered {
    pub path: PathBuf,
    /// Path below the root.
    pub key: String,
    /// When AWS wrote it, by its name (seconds since 1970); snapshots come first.
    pub at: i64,
}

impl Organisation {
    /// Three accounts, long enough for warm detectors, small enough for dozens of runs over it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Organisation> = OnceLock::new();
        SHARED.get_or_init(|| {
            let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("organisation-{}", std::process::id()));
            std::fs::remove_dir_all(&root).ok();
            let world = root.join("world");
            let args = ["--seed", "11", "--accounts", "3", "--functions", "12", "--days", "18"];
            let made = Outcome::of(flowtrail().arg("generate").arg("--out").arg(&world).args(args), LIMIT);
            assert_eq!(made.code, Some(0), "{}", made.stderr);
            let mut inputs: Vec<PathBuf> = std::fs::read_dir(&world).unwrap().map(|entry| entry.unwrap().path()).collect();
            inputs.retain(|path| !path.ends_with("truth.json") && !path.ends_with("lists"));
            inputs.sort();
            let list = world.join("lists/c2.csv");
            let list = if list.exists() { vec!["--list".to_owned(), format!("c2={}", list.display())] } else { Vec::new() };
            let expected = findings_of_replay(&inputs, &root.join("expected"), &list);
            assert!(expected.len() >= 5, "an organisation with attacks has findings, not {}", expected.len());
            Self { root: world, inputs, list, expected }
        })
    }

    /// The `[[list]]` part of a configuration.
    pub fn list_config(&self) -> String {
        let file = self.root.join("lists/c2.csv");
        if file.exists() { format!("[[list]]\nname = \"c2\"\nfile = {file:?}\ncategory = \"c2\"\n") } else { String::new() }
    }

    /// All files, by time of delivery.
    pub fn delivered(&self) -> Vec<Delivered> {
        let mut found = Vec::new();
        for input in &self.inputs {
            walk(input, &mut found);
        }
        let mut delivered: Vec<Delivered> = found
            .into_iter()
            .map(|path| {
                let key = path.strip_prefix(&self.root).unwrap().to_str().unwrap().to_owned();
                let at = key_time(&key).unwrap_or(0);
                Delivered { path, key, at }
            })
            .collect();
        delivered.sort_by(|a, b| (a.at, &a.key).cmp(&(b.at, &b.key)));
        delivered
    }
}

fn walk(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            walk(&entry.unwrap().path(), found);
        }
    } else {
        found.push(path.to_owned());
    }
}

/// The time in the name of a log object (`…_20260105T1620Z_…`), in seconds since 1970.
pub fn key_time(key: &str) -> Option<i64> {
    let name = key.rsplit('/').next()?;
    let stamp = name.split('_').find(|part| part.len() == 14 && part.as_bytes()[8] == b'T' && part.ends_with('Z'))?;
    let iso = format!("{}-{}-{}T{}:{}:00Z", &stamp[..4], &stamp[4..6], &stamp[6..8], &stamp[9..11], &stamp[11..13]);
    flowtrail_ingest::EventTime::parse(&iso).map(|time| time.0)
}
