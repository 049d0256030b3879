//! Commits under races and crashes: a crash at any write of any store leaves all of an epoch or nothing of it.

use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::store::{FolderStore, MemoryStore};

/// What a failing write does before it fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Death {
    /// The write did not happen.
    Before,
    /// The write happened and nobody heard of it.
    After,
}

/// Lets so many writes through and then fails for ever, as a killed process does.
struct Dying {
    inner: Arc<dyn Store>,
    left: Arc<AtomicI64>,
    death: Death,
    /// Reads fail after death, too: the process is gone.
    for_ever: bool,
}

impl Dying {
    fn write<T>(&self, act: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        if left > 0 || (left < 0 && !self.for_ever) {
            return act();
        }
        if left == 0 && self.death == Death::After {
            act()?;
        }
        Err(StoreError::Other { doing: "writing", at: "test".into(), why: "killed".into() })
    }

    fn read<T>(&self, act: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        if self.for_ever && self.left.load(Ordering::SeqCst) < 0 {
            return Err(StoreError::Other { doing: "reading", at: "test".into(), why: "killed".into() });
        }
        act()
    }
}

impl Store for Dying {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|| self.inner.get(key))
    }
    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.write(|| self.inner.put(key, bytes))
    }
    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        self.write(|| self.inner.put_if_absent(key, bytes))
    }
    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        self.read(|| self.inner.list(prefix))
    }
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.write(|| self.inner.delete(key))
    }
    fn publish(&self, from: &str, to: &str) -> Result<(), StoreError> {
        self.write(|| self.inner.publish(from, to))
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
}

const STEPS: u64 = 5;

/// One unit of work is a step: two output files and a segment. A roll-up in the middle, and a file that replaces another.
fn work(state: Arc<dyn Store>, output: Arc<dyn Store>, owner: u128) -> Result<(), CommitError> {
    let mut log = CommitLog::open(state, output, 3).with_owner(owner);
    let loaded = log.load()?;
    let Outcome::Committed(_) = log.claim(1, EventTime(0))? else { panic!("nobody to lose against") };
    log.sweep()?;
    let mut done = loaded.commits.iter().filter_map(|c| c.draft.positions.get("step")?.parse::<u64>().ok()).max().unwrap_or(0);
    let mut snapshot =
        loaded.commits.iter().rev().find_map(|c| c.draft.files.iter().find(|f| f.key.starts_with("eni_owners/")).map(|f| f.key.clone()));
    while done < STEPS {
        let step = done + 1;
        let files = log.stage(&[
            TableFile { folder: format!("findings/dt=2026-01-0{step}"), bytes: format!("finding {step}").into_bytes(), rows: 1 },
            TableFile { folder: "eni_owners/dt=2026-01-01".into(), bytes: format!("owners {step}").into_bytes(), rows: 1 },
        ])?;
        let new = log.segment("journal", &[b"step ", step.to_string().as_bytes()])?;
        let retired = snapshot.replace(files[1].key.clone()).into_iter().collect();
        let roll_up = step == 3;
        let mut segments = if roll_up { log.live.clone() } else { Vec::new() };
        segments.push(new);
        let positions = BTreeMap::from([("step".to_owned(), step.to_string())]);
        let draft = Draft { positions, segments, files, retired, roll_up, seen_at: EventTime(step as i64), ..Draft::default() };
        let Outcome::Committed(_) = log.commit(draft)? else { panic!("nobody to lose against") };
        log.publish()?;
        log.sweep()?;
        done = step;
    }
    Ok(())
}

/// Contents of every visible output file, sorted.
fn visible(output: &dyn Store) -> Vec<String> {
    let keys = output.list("").unwrap().into_iter().map(|(k, _)| k).filter(|k| !k.starts_with('.'));
    let mut all: Vec<String> = keys.map(|k| String::from_utf8(output.get(&k).unwrap().unwrap()).unwrap()).collect();
    all.sort();
    all
}

fn steps(state: &Arc<dyn Store>, output: &Arc<dyn Store>) -> (u64, Vec<String>) {
    let mut log = CommitLog::open(state.clone(), output.clone(), 3);
    let loaded = log.load().unwrap();
    let step = loaded.commits.iter().filter_map(|c| c.draft.positions.get("step")?.parse().ok()).max().unwrap_or(0);
    let texts = loaded.segments.iter().map(|s| String::from_utf8(log.read(s).unwrap()).unwrap()).collect();
    (step, texts)
}

fn expected(step: u64) -> Vec<String> {
    let mut all: Vec<String> = (1..=step).map(|n| format!("finding {n}")).collect();
    if step > 0 {
        all.push(format!("owners {step}"));
    }
    all
}

#[test]
fn a_crash_at_any_write_leaves_all_or_nothing() {
    for death in [Death::Before, Death::After] {
        let mut kills = 0;
        for writes in 0.. {
            let (state, output): (Arc<dyn Store>, Arc<dyn Store>) = (Arc::new(MemoryStore::default()), Arc::new(MemoryStore::default()));
            let left = Arc::new(AtomicI64::new(writes));
            let dying = |inner: &Arc<dyn Store>| -> Arc<dyn Store> {
                Arc::new(Dying { inner: inner.clone(), left: left.clone(), death, for_ever: true })
            };
            let ended = work(dying(&state), dying(&output), 1);
            // Before anybody repairs: nothing of a step that was not committed, and of committed ones all but the last.
            let (step, texts) = steps(&state, &output);
            let seen = visible(&*output);
            assert!(
                seen.iter().all(|s| s.rsplit(' ').next().unwrap().parse::<u64>().unwrap() <= step),
                "{death:?} {writes}: {seen:?} at step {step}"
            );
            assert!((1..step).all(|n| seen.contains(&format!("finding {n}"))), "{death:?} {writes}: {seen:?} at step {step}");
            assert_eq!(texts, (1..=step).map(|n| format!("step {n}")).collect::<Vec<_>>());
            // The next owner publishes what was committed, before it does anything else.
            let mut next = CommitLog::open(state.clone(), output.clone(), 3).with_owner(2);
            next.load().unwrap();
            assert!(matches!(next.claim(1, EventTime(9)).unwrap(), Outcome::Committed(_)));
            assert_eq!(visible(&*output), expected(step), "{death:?} {writes}");
            work(state.clone(), output.clone(), 3).unwrap();
            assert_eq!(visible(&*output), expected(STEPS), "{death:?} {writes}");
            assert!(output.list(STAGING).unwrap().is_empty(), "{death:?} {writes}: staging not swept");
            let left_over = state.list("3/").unwrap().iter().filter(|(k, _)| k.ends_with(".seg")).count();
            assert_eq!(left_over as u64, STEPS, "{death:?} {writes}: orphans not swept");
            if ended.is_ok() {
                break;
            }
            kills += 1;
        }
        assert!(kills > 30, "only {kills} places to die");
    }
}

#[test]
fn a_write_that_fails_once_can_be_told_from_one_that_worked() {
    // Only the answer to the record is lost: the log reads it back and goes on; a record that is not there is an error.
    for (death, committed) in [(Death::After, true), (Death::Before, false)] {
        let (state, output): (Arc<dyn Store>, Arc<dyn Store>) = (Arc::new(MemoryStore::default()), Arc::new(MemoryStore::default()));
        let flaky: Arc<dyn Store> = Arc::new(Dying { inner: state.clone(), left: Arc::new(AtomicI64::new(0)), death, for_ever: false });
        let mut log = CommitLog::open(flaky, output, 0);
        log.load().unwrap();
        let draft = Draft { seen_at: EventTime(7), ..Draft::default() };
        let first = log.commit(draft.clone());
        assert_eq!(first.is_ok(), committed);
        if !committed {
            assert!(matches!(log.commit(draft).unwrap(), Outcome::Committed(c) if c.epoch == 1));
        }
        assert_eq!(log.epoch(), 1);
    }
}

#[test]
fn two_owners_one_winner() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..20u32 {
        let root = dir.path().join(round.to_string());
        let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let store: Arc<dyn Store> = Arc::new(FolderStore::new(&root));
                    scope.spawn(move || {
                        let mut log = CommitLog::open(store.clone(), store, round);
                        log.load().unwrap();
                        log.claim(0, EventTime(1)).unwrap()
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let won = outcomes.iter().filter(|o| matches!(o, Outcome::Committed(c) if c.epoch == 1)).count();
        let late = outcomes.iter().filter(|o| matches!(o, Outcome::Committed(c) if c.epoch == 2)).count();
        let lost = outcomes.iter().filter(|o| **o == Outcome::Superseded).count();
        assert_eq!((won, late + lost), (1, 1), "{outcomes:?}");
    }
}

#[test]
fn a_sleeping_owner_loses() {
    let (state, output): (Arc<dyn Store>, Arc<dyn Store>) = (Arc::new(MemoryStore::default()), Arc::new(MemoryStore::default()));
    let mut sleeper = CommitLog::open(state.clone(), output.clone(), 3);
    sleeper.load().unwrap();
    let _ = sleeper.claim(0, EventTime(0)).unwrap();
    let mut born_asleep = CommitLog::open(state.clone(), output.clone(), 3);
    let files = sleeper.stage(&[TableFile { folder: "findings/dt=2026-01-09".into(), bytes: b"of a dream".to_vec(), rows: 1 }]).unwrap();
    // Others work on, roll up and prune, so that the sleeper's next epoch is free again.
    work(state.clone(), output.clone(), 5).unwrap();
    assert!(state.get("3/00000000000000000002.commit").unwrap().is_none(), "the test wants epoch 2 pruned");
    assert_eq!(sleeper.commit(Draft { files, ..Draft::default() }).unwrap(), Outcome::Superseded);
    assert_eq!(born_asleep.commit(Draft::default()).unwrap(), Outcome::Superseded);
    assert_eq!(visible(&*output), expected(STEPS));
    assert_eq!(steps(&state, &output).0, STEPS);
}

#[test]
fn a_broken_chain_is_said() {
    let (state, output): (Arc<dyn Store>, Arc<dyn Store>) = (Arc::new(MemoryStore::default()), Arc::new(MemoryStore::default()));
    work(state.clone(), output.clone(), 5).unwrap();
    let load = || CommitLog::open(state.clone(), output.clone(), 3).load().map(|_| ()).map_err(|e| e.to_string());
    load().unwrap();
    let key = "3/00000000000000000005.commit";
    let good = state.get(key).unwrap().unwrap();
    let mut other = decode(key, &good).unwrap();
    other.owner += 1;
    state.put(key, &encode(&other).unwrap()).unwrap();
    assert!(load().unwrap_err().contains("is not the record that the next one followed"));
    let mut bad = good.clone();
    bad[30] ^= 1;
    state.put(key, &bad).unwrap();
    assert!(load().unwrap_err().contains(key));
    state.delete(key).unwrap();
    assert!(load().unwrap_err().contains("is missing"));
    state.put(key, &good).unwrap();
    let segment = CommitLog::open(state.clone(), output.clone(), 3).load().unwrap().segments[0].clone();
    state.put(&segment.key, b"rubbish").unwrap();
    assert!(CommitLog::open(state.clone(), output, 3).read(&segment).unwrap_err().to_string().contains("is damaged"));
}

#[test]
fn equal_files_of_an_epoch_are_two_files() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let mut log = CommitLog::open(store.clone(), store, 0);
    log.load().unwrap();
    let same = TableFile { folder: "rejects/dt=2026-01-01".into(), bytes: b"r".to_vec(), rows: 1 };
    let mut keys: Vec<String> = log.stage(&[same.clone(), same.clone()]).unwrap().into_iter().map(|f| f.key).collect();
    keys.extend(log.stage(&[same]).unwrap().into_iter().map(|f| f.key));
    keys.dedup();
    assert_eq!(keys.len(), 3, "{keys:?}");
    assert!(keys[0].starts_with("rejects/dt=2026-01-01/0-1-") && keys[0].ends_with(".parquet"), "{}", keys[0]);
}
