//! A folder as a store: temporary file, fsync, rename or hard link, fsync of the folder.
//!
//! Temporary files lie under `ROOT/.tmp/`, one folder to a store value, which holds a lock on it for as long as it
//! lives. A folder that nobody holds belongs to a process that was killed, and is removed by the next writer.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, IoSlice, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Store, StoreError, check_key};

const TEMP: &str = ".tmp";

/// See the module.
#[derive(Debug)]
pub struct FolderStore {
    root: PathBuf,
    temp: Mutex<Option<Temp>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Temp {
    folder: PathBuf,
    _lock: File,
}

impl FolderStore {
    /// A store over `root`. Touches nothing until something is written.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), temp: Mutex::new(None), next: AtomicU64::new(0) }
    }

    fn path(&self, key: &str) -> Result<PathBuf, StoreError> {
        check_key(key)?;
        Ok(self.root.join(key))
    }

    fn error(&self, doing: &'static str, key: &str, error: &io::Error) -> StoreError {
        let at = format!("{key:?} in {}", self.describe());
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { at },
            io::ErrorKind::FileTooLarge => StoreError::TooLarge { at },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreError::Denied {
                at,
                why: format!("{doing} was refused ({error}): give this user the right to, or choose another folder"),
            },
            _ => StoreError::Other { doing, at, why: error.to_string() },
        }
    }

    /// A path for a temporary file; nobody else uses it.
    fn temp_path(&self) -> io::Result<PathBuf> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut temp = self.temp.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have removed the whole output folder under us: then begin again.
        if temp.as_ref().is_none_or(|t| !t.folder.exists()) {
            *temp = Some(claim_temp(&self.root)?);
        }
        temp.as_ref().map(|t| t.folder.join(number.to_string())).ok_or_else(|| io::Error::other("no temporary folder"))
    }

    /// Writes a temporary file of parts that follow one another, not yet flushed.
    fn write_temp(&self, parts: &[&[u8]]) -> io::Result<(PathBuf, File)> {
        let path = self.temp_path()?;
        let mut file = File::create_new(&path)?;
        match write_parts(&mut file, parts) {
            Ok(()) => Ok((path, file)),
            Err(error) => {
                // A full disk gets its space back at once.
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Files of one or more parts each.
    fn put_all(&self, files: &[(&str, &[&[u8]])]) -> Result<(), StoreError> {
        // In steps over a few files each: first all writes, then all flushes (the first flush carries most of the
        // journal's work for the others), then the names, then each folder once.
        for some in files.chunks(256) {
            let mut temps = Vec::with_capacity(some.len());
            let written = some.iter().try_for_each(|(key, parts)| {
                let target = self.path(key)?;
                let (temp, file) = self.write_temp(parts).map_err(|e| self.error("writing", key, &e))?;
                temps.push((key, target, temp, file));
                Ok(())
            });
            let mut parents = BTreeSet::new();
            let named = written.and_then(|()| {
                for (key, _, _, file) in &temps {
                    file.sync_data().map_err(|e| self.error("flushing", key, &e))?;
                }
                for (key, target, temp, _) in &temps {
                    let parent = parent_of(target);
                    if parents.insert(parent.clone()) {
                        create_folders(&parent).map_err(|e| self.error("writing", key, &e))?;
                    }
                    fs::rename(temp, target).map_err(|e| self.error("writing", key, &e))?;
                }
                Ok(())
            });
            if named.is_err() {
                for (_, _, temp, _) in &temps {
                    let _ = fs::remove_file(temp);
                }
            }
            named?;
            for parent in &parents {
                sync_folder(parent).map_err(|e| self.error("flushing", &parent.display().to_string(), &e))?;
            }
        }
        Ok(())
    }

    fn collect(&self, folder: &Path, key: &str, prefix: &str, found: &mut Vec<(String, u64)>) -> Result<(), StoreError> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(e) if gone(&e) => return Ok(()),
            Err(e) => return Err(self.error("listing", key, &e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| self.error("listing", key, &e))?;
            // What has no UTF-8 name was not written by us.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if key.is_empty() && name == TEMP {
                continue;
            }
            let child = if key.is_empty() { name } else { format!("{key}/{name}") };
            let kind = match entry.file_type() {
                Ok(kind) => kind,
                Err(e) if gone(&e) => continue,
                Err(e) => return Err(self.error("listing", &child, &e)),
            };
            // Symbolic links are not followed: they could lead in a circle or out of the root.
            if kind.is_dir() {
                // Only folders that can hold the prefix, or lie below it.
                if child.starts_with(prefix) || prefix.strip_prefix(child.as_str()).is_some_and(|rest| rest.starts_with('/')) {
                    self.collect(&entry.path(), &child, prefix, found)?;
                }
            } else if kind.is_file() && child.starts_with(prefix) {
                match entry.metadata() {
                    Ok(meta) => found.push((child, meta.len())),
                    Err(e) if gone(&e) => {}
                    Err(e) => return Err(self.error("listing", &child, &e)),
                }
            }
        }
        Ok(())
    }

    fn rename_one(&self, from: &str, to: &str, parents: &mut BTreeSet<PathBuf>) -> Result<(), StoreError> {
        let (source, target) = (self.path(from)?, self.path(to)?);
        let parent = parent_of(&target);
        if parents.insert(parent.clone()) {
            create_folders(&parent).map_err(|e| self.error("publishing", to, &e))?;
        }
        match fs::rename(&source, &target) {
            Ok(()) => Ok(()),
            Err(e) if gone(&e) && target.exists() => Ok(()),
            Err(e) if gone(&e) => Err(StoreError::Missing {
                at: format!("{to:?} in {}", self.describe()),
                hint: format!(", nor does {from:?}, which it was to be published from: it was removed by hand or by another owner"),
            }),
            Err(e) => Err(self.error("publishing", to, &e)),
        }
    }
}

impl Store for FolderStore {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match fs::read(self.path(key)?) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if gone(&e) => Ok(None),
            Err(e) => Err(self.error("reading", key, &e)),
        }
    }

    fn get_range(&self, key: &str, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        self.append_range(key, offset, len, &mut bytes)?;
        Ok(bytes)
    }

    fn request_bytes(&self) -> u64 {
        1 << 16
    }

    fn append_range(&self, key: &str, offset: u64, len: u64, to: &mut Vec<u8>) -> Result<(), StoreError> {
        let mut read = || -> io::Result<()> {
            let mut file = File::open(self.root.join(key))?;
            // Never more than is there, whatever an index says.
            let len = len.min(file.metadata()?.len().saturating_sub(offset));
            file.seek(io::SeekFrom::Start(offset))?;
            to.reserve(usize::try_from(len).unwrap_or(0));
            file.take(len).read_to_end(to)?;
            Ok(())
        };
        check_key(key)?;
        read().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => StoreError::Missing { at: format!("{key:?} in {}", self.describe()), hint: String::new() },
            _ => self.error("reading", key, &e),
        })
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.put_many(&[(key.to_owned(), bytes)])
    }

    fn put_parts(&self, key: &str, parts: &[&[u8]]) -> Result<(), StoreError> {
        self.put_all(&[(key, parts)])
    }

    fn put_many(&self, files: &[(String, &[u8])]) -> Result<(), StoreError> {
        let files: Vec<(&str, &[&[u8]])> = files.iter().map(|(key, bytes)| (key.as_str(), std::slice::from_ref(bytes))).collect();
        self.put_all(&files)
    }

    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        let target = self.path(key)?;
        if target.exists() {
            return Ok(false);
        }
        let parent = parent_of(&target);
        create_folders(&parent).map_err(|e| self.error("writing", key, &e))?;
        let (temp, file) = self.write_temp(&[bytes]).map_err(|e| self.error("writing", key, &e))?;
        // A hard link fails if the name is taken and shows the whole file at once; a rename would replace.
        let linked = file.sync_data().map_err(|e| self.error("flushing", key, &e)).and_then(|()| match fs::hard_link(&temp, &target) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) if matches!(e.kind(), io::ErrorKind::Unsupported) || e.raw_os_error() == Some(1) => Err(StoreError::Denied {
                at: format!("{key:?} in {}", self.describe()),
                why: format!("hard links are refused ({e}), and commits need them: put this folder on a file system that has them"),
            }),
            Err(e) => Err(self.error("linking", key, &e)),
        });
        let _ = fs::remove_file(&temp);
        if linked? {
            sync_folder(&parent).map_err(|e| self.error("flushing", key, &e))?;
            return Ok(true);
        }
        Ok(false)
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let mut found = Vec::new();
        // Begin at the deepest folder that the prefix names.
        let key = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let folder = if key.is_empty() { self.root.clone() } else { self.path(key)? };
        self.collect(&folder, key, prefix, &mut found)?;
        found.sort_unstable();
        Ok(found)
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        match fs::remove_file(self.path(key)?) {
            Ok(()) => Ok(()),
            Err(e) if gone(&e) => Ok(()),
            Err(e) => Err(self.error("removing", key, &e)),
        }
    }

    fn publish(&self, from: &str, to: &str) -> Result<(), StoreError> {
        self.publish_many(&[(from.to_owned(), to.to_owned())])
    }

    fn publish_many(&self, moves: &[(String, String)]) -> Result<(), StoreError> {
        let mut parents = BTreeSet::new();
        let renamed = moves.iter().try_for_each(|(from, to)| self.rename_one(from, to, &mut parents));
        for parent in &parents {
            if parent.exists() {
                sync_folder(parent).map_err(|e| self.error("flushing", &parent.display().to_string(), &e))?;
            }
        }
        renamed
    }

    fn describe(&self) -> String {
        format!("folder {}", self.root.display())
    }
}

impl Drop for FolderStore {
    fn drop(&mut self) {
        if let Some(temp) = self.temp.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = fs::remove_dir_all(&temp.folder);
            // Only when nobody else has one in there.
            let _ = fs::remove_dir(self.root.join(TEMP));
        }
    }
}

/// Writes parts one behind the other, without putting them together first.
fn write_parts(file: &mut File, parts: &[&[u8]]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut rest = slices.as_mut_slice();
    // Skips what is empty: a call that is asked for nothing writes nothing, as a full disk does.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn parent_of(path: &Path) -> PathBuf {
    path.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    match File::open(folder)?.sync_all() {
        // Some network file systems cannot flush a folder; they write names through.
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}

/// Creates missing folders and flushes the name of each in its parent.
fn create_folders(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let parent = parent_of(folder);
    create_folders(&parent)?;
    match fs::create_dir(folder) {
        Ok(()) => sync_folder(&parent),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(e) => Err(e),
    }
}

/// Makes a temporary folder of our own and removes those whose owners died.
fn claim_temp(root: &Path) -> io::Result<Temp> {
    let all = root.join(TEMP);
    create_folders(&all)?;
    for entry in fs::read_dir(&all)?.flatten() {
        // Without a lock file: somebody is just making it, or it is not ours to judge.
        let Ok(lock) = File::open(entry.path().join("lock")) else { continue };
        if lock.try_lock().is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    // A name is used once in a process: two stores that take one another's folder for dead must not end up in the same.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    for _ in 0..10_000 {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = all.join(format!("{}-{number}", std::process::id()));
        match fs::create_dir(&folder) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            // The owner of the last other one has just tidied up.
            Err(e) if gone(&e) => {
                create_folders(&all)?;
                continue;
            }
            Err(e) => return Err(e),
        }
        let lock = File::create_new(folder.join("lock"))?;
        match lock.try_lock() {
            // Where locks do not exist nobody can take it for dead either.
            Ok(()) | Err(TryLockError::Error(_)) => {}
            // A neighbour took it for dead between the two steps and is removing it.
            Err(TryLockError::WouldBlock) => continue,
        }
        if folder.join("lock").exists() {
            return Ok(Temp { folder, _lock: lock });
        }
    }
    Err(io::Error::other(format!("no room for a temporary folder in {}", all.display())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_the_laws() {
        let dir = tempfile::tempdir().unwrap();
        super::super::laws::check_store(&FolderStore::new(dir.path().join("deep/root")));
    }

    #[test]
    fn links_are_not_followed_and_rubbish_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("out");
        let dead = root.join(".tmp/999999-0");
        fs::create_dir_all(&dead).unwrap();
        fs::write(dead.join("lock"), "").unwrap();
        fs::write(dead.join("7"), "half").unwrap();
        let (store, other) = (FolderStore::new(&root), FolderStore::new(&root));
        store.put("a/x", b"1").unwrap();
        assert!(!dead.exists(), "the folder of a dead writer is still there");
        let living = store.temp.lock().unwrap().as_ref().unwrap().folder.clone();
        other.put("a/y", b"2").unwrap();
        assert!(living.exists(), "a living writer's folder was swept");
        #[cfg(unix)]
        std::os::unix::fs::symlink(&root, root.join("a/loop")).unwrap();
        assert_eq!(store.list("a/").unwrap(), [("a/x".to_owned(), 1), ("a/y".to_owned(), 1)]);
        drop((store, other));
        assert!(!root.join(TEMP).exists());
    }

    #[test]
    fn an_unwritable_place_is_said() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "x").unwrap();
        let error = FolderStore::new(dir.path().join("file")).put("a/b", b"x").unwrap_err().to_string();
        assert!(error.contains("a/b") && error.contains("file"), "{error}");
        let kinds = FolderStore::new("/x");
        let full = kinds.error("writing", "k", &io::Error::from(io::ErrorKind::StorageFull)).to_string();
        assert!(full.contains("no space left") && full.contains("free some space"), "{full}");
        let large = kinds.error("writing", "k", &io::Error::from(io::ErrorKind::FileTooLarge)).to_string();
        assert!(large.contains("ulimit -f"), "{large}");
        let denied = kinds.error("writing", "k", &io::Error::from(io::ErrorKind::PermissionDenied)).to_string();
        assert!(denied.contains("no permission") && denied.contains("another folder"), "{denied}");
    }

    #[test]
    fn many_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = FolderStore::new(dir.path());
        let files: Vec<(String, Vec<u8>)> = (0..600).map(|n| (format!("t/{}/{n:03}", n % 7), vec![n as u8; n])).collect();
        let views: Vec<(String, &[u8])> = files.iter().map(|(k, b)| (k.clone(), b.as_slice())).collect();
        store.put_many(&views).unwrap();
        let listed = store.list("t/").unwrap();
        assert_eq!(listed.len(), 600);
        assert_eq!(listed.iter().map(|(_, n)| n).sum::<u64>(), (0..600).sum::<u64>());
    }
}
