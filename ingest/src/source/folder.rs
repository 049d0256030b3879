//! Files and folders.
//!
//! The walk is the same on every run: entries are taken in the order of their names. Symbolic links are followed, each
//! folder is walked once (so loops end), and real folders come before links to them, so that a file is known by the path
//! it really has. Names that begin with a dot are left out inside folders: they are what editors, copying tools and
//! flowtrail's own state leave behind. Whatever is named on the command line is read.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::Object;
use crate::time::EventTime;

/// What a walk found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Files, sorted by path.
    pub objects: Vec<Object>,
    /// Paths that could not be read; the walk went on without them.
    pub problems: Vec<Problem>,
}

/// A path that could not be read, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct Problem {
    /// The path.
    pub path: String,
    /// What went wrong, for whoever tells a missing input from a forbidden one.
    pub kind: io::ErrorKind,
    /// The same in words.
    pub reason: String,
}

/// Identity of a file or folder, whatever path leads to it.
type Inode = (u64, u64);

/// Whether a folder is looked into.
type Enter<'e> = &'e dyn Fn(&Path) -> bool;

struct Walker<'e> {
    enter: Enter<'e>,
    walk: Walk,
    folders: BTreeSet<Inode>,
    files: BTreeSet<Inode>,
    /// Links met on the way: followed when everything real is known.
    links: Vec<PathBuf>,
}

/// Finds the files in and under `inputs`.
#[must_use]
pub fn walk<P: AsRef<Path>>(inputs: &[P]) -> Walk {
    walk_where(inputs, &|_| true)
}

/// [`walk`], but only into folders that `enter` lets in.
#[must_use]
pub fn walk_where<P: AsRef<Path>>(inputs: &[P], enter: Enter<'_>) -> Walk {
    let mut walker = Walker { enter, walk: Walk::default(), folders: BTreeSet::new(), files: BTreeSet::new(), links: Vec::new() };
    for input in inputs {
        walker.entry(input.as_ref());
    }
    while !walker.links.is_empty() {
        let mut links = std::mem::take(&mut walker.links);
        links.sort();
        for link in links {
            walker.link(&link);
        }
    }
    let mut walk = walker.walk;
    // The same file may have been named twice, and by its folder besides.
    walk.objects.sort();
    walk.objects.dedup_by(|a, b| a.key == b.key);
    walk.problems.sort_by(|a, b| a.path.cmp(&b.path));
    walk
}

/// The bytes of a file, in place of what `into` holds.
///
/// # Errors
/// What the file system says; `into` is empty then.
pub fn read_into(path: &str, into: &mut Vec<u8>) -> io::Result<()> {
    into.clear();
    let mut file = fs::File::open(path)?;
    into.reserve(usize::try_from(file.metadata()?.len()).unwrap_or(0));
    file.read_to_end(into).map(|_| ()).inspect_err(|_| into.clear())
}

impl Walker<'_> {
    fn problem(&mut self, path: &Path, error: &io::Error) {
        self.walk.problems.push(Problem { path: path.to_string_lossy().into_owned(), kind: error.kind(), reason: error.to_string() });
    }

    /// A path to follow wherever it leads.
    fn entry(&mut self, path: &Path) {
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => self.folder(path, &meta),
            Ok(meta) => self.file(path, &meta),
            Err(error) => self.problem(path, &error),
        }
    }

    fn link(&mut self, path: &Path) {
        match fs::metadata(path) {
            // Already here under its own name.
            Ok(meta) if self.folders.contains(&inode(&meta)) || self.files.contains(&inode(&meta)) => {}
            Ok(meta) if meta.is_dir() => self.folder(path, &meta),
            Ok(meta) if meta.is_file() => self.file(path, &meta),
            Ok(_) => {}
            Err(error) => self.problem(path, &error),
        }
    }

    fn folder(&mut self, path: &Path, meta: &Metadata) {
        // A stack of its own: how deep folders nest is not ours to say.
        let mut folders = vec![(path.to_path_buf(), inode(meta))];
        while let Some((path, id)) = folders.pop() {
            if !(self.enter)(&path) || !self.folders.insert(id) {
                continue;
            }
            let entries = match fs::read_dir(&path) {
                Ok(entries) => entries,
                Err(error) => {
                    self.problem(&path, &error);
                    continue;
                }
            };
            for entry in entries {
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(error) => {
                        self.problem(&path, &error);
                        break;
                    }
                };
                if entry.file_name().as_encoded_bytes().starts_with(b".") {
                    continue;
                }
                let path = entry.path();
                // Of the entry itself: a link is not followed here.
                match entry.metadata() {
                    Ok(meta) if meta.is_symlink() => self.links.push(path),
                    Ok(meta) if meta.is_dir() => folders.push((path, inode(&meta))),
                    Ok(meta) if meta.is_file() => self.file(&path, &meta),
                    // Pipes, sockets and devices hold no logs; opening one could wait for ever.
                    Ok(_) => {}
                    Err(error) => self.problem(&path, &error),
                }
            }
        }
    }

    fn file(&mut self, path: &Path, meta: &Metadata) {
        self.files.insert(inode(meta));
        let Some(key) = path.to_str() else {
            return self.problem(path, &io::Error::new(io::ErrorKind::InvalidInput, "the path is not UTF-8: rename it"));
        };
        let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        self.walk.objects.push(Object {
            source: "folder",
            key: key.to_owned(),
            size: meta.len(),
            etag: None,
            modified: modified.and_then(|since| i64::try_from(since.as_secs()).ok()).map(EventTime),
        });
    }
}

#[cfg(unix)]
fn inode(meta: &Metadata) -> Inode {
    use std::os::unix::fs::MetadataExt as _;
    (meta.dev(), meta.ino())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn keys(walk: &Walk, root: &Path) -> Vec<String> {
        walk.objects.iter().map(|o| o.key.strip_prefix(root.to_str().unwrap()).unwrap_or(&o.key).to_owned()).collect()
    }

    #[test]
    fn a_folder_is_walked_in_order_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for path in ["b/AWSLogs/2.log", "b/AWSLogs/1.log", "b/.state/x", "z.json", ".hidden"] {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), path).unwrap();
        }
        symlink(root, root.join("b/loop")).unwrap();
        symlink(root.join("b/AWSLogs"), root.join("a")).unwrap();
        symlink(root.join("z.json"), root.join("y.json")).unwrap();
        symlink(root.join("gone"), root.join("dangling")).unwrap();
        symlink("self", root.join("self")).unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("o.log"), "o").unwrap();
        symlink(outside.path(), root.join("out")).unwrap();

        let found = walk(&[root]);
        assert_eq!(keys(&found, root), ["/b/AWSLogs/1.log", "/b/AWSLogs/2.log", "/out/o.log", "/z.json"]);
        assert_eq!(found.objects[3].size, 6);
        assert!(found.objects[3].modified.is_some_and(|t| t.0 > 1_600_000_000));
        let problems: Vec<_> = found.problems.iter().map(|p| p.path.rsplit('/').next().unwrap()).collect();
        assert_eq!(problems, ["dangling", "self"]);

        let named = walk(&[root.join(".hidden"), root.join("z.json"), root.join("z.json"), root.join("nothing")]);
        assert_eq!(keys(&named, root), ["/.hidden", "/z.json"]);
        assert_eq!(named.problems.len(), 1);
        assert_eq!(named.problems[0].kind, io::ErrorKind::NotFound);
        let mut bytes = b"of another file".to_vec();
        read_into(&named.objects[1].key, &mut bytes).unwrap();
        assert_eq!(bytes, b"z.json");
        assert_eq!(walk(&[root, root]), walk(&[root]));
        let without = walk_where(&[root], &|folder| !folder.ends_with("AWSLogs"));
        // By the link it has another name, which nobody keeps out.
        assert_eq!(keys(&without, root), ["/a/1.log", "/a/2.log", "/out/o.log", "/z.json"]);
    }
}
