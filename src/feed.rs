//! Hands units to reader threads. Files are read by the thread that gets them; objects of buckets are fetched ahead, many
//! at once and under one budget of memory, because a single download mostly waits.
//!
//! Units come in no particular order, each once: what is found does not depend on it.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;

use crate::input::{Announced, Inputs};

/// Downloads and results that wait or are being read, at most.
#[cfg(feature = "s3")]
const IN_FLIGHT_MAX: usize = 64;

/// Some units, to be taken by any number of threads.
pub struct Feed<'a> {
    units: Vec<Unit<'a>>,
    /// Indices of units that are fetched by who takes them.
    near: Vec<usize>,
    next: AtomicUsize,
    /// Units that are fetched ahead, one queue a bucket.
    #[cfg(feature = "s3")]
    far: Vec<Far>,
}

/// A unit and where it is fetched from.
type Unit<'a> = (&'a Inputs, &'a Announced);

#[cfg(feature = "s3")]
struct Far {
    fetched: crossbeam_channel::Receiver<flowtrail_ingest::source::s3::Fetched>,
    /// Index of each object by its key.
    index: std::collections::HashMap<String, usize>,
}

/// A unit that a thread has taken. It holds its share of the budget: keep it until the bytes are read.
pub struct Taken<'a> {
    /// Its index among the units of the feed.
    pub index: usize,
    unit: Unit<'a>,
    bytes: Option<Result<Vec<u8>>>,
    #[cfg(feature = "s3")]
    _held: Option<flowtrail_ingest::source::s3::Fetched>,
}

impl<'a> Feed<'a> {
    /// Those units that are `wanted` for sure are fetched ahead where that helps, with at most about `bytes_max` in flight; of
    /// the others the taker decides.
    pub fn new(units: impl IntoIterator<Item = Unit<'a>>, wanted: impl Fn(&Announced) -> bool, bytes_max: u64) -> Self {
        let units: Vec<Unit<'a>> = units.into_iter().collect();
        #[cfg(feature = "s3")]
        {
            let mut near = Vec::new();
            let mut buckets: Vec<(&'a Inputs, &'a str, Vec<usize>)> = Vec::new();
            for (at, &(inputs, object)) in units.iter().enumerate() {
                match object.bucket.as_deref().filter(|_| inputs.s3().is_some() && wanted(object)) {
                    None => near.push(at),
                    Some(bucket) => match buckets.iter_mut().find(|b| std::ptr::eq(b.0, inputs) && b.1 == bucket) {
                        Some((_, _, which)) => which.push(at),
                        None => buckets.push((inputs, bucket, vec![at])),
                    },
                }
            }
            let share = bytes_max / (buckets.len() as u64).max(1);
            let far = buckets.into_iter().filter_map(|(inputs, bucket, which)| {
                let index = which.iter().map(|at| (units[*at].1.object.key.clone(), *at)).collect();
                let wanted: Vec<_> = which.iter().map(|at| units[*at].1.object.clone()).collect();
                Some(Far { fetched: inputs.s3()?.fetch_many(bucket, wanted, IN_FLIGHT_MAX, share), index })
            });
            let far = far.collect();
            Self { units, near, next: AtomicUsize::new(0), far }
        }
        #[cfg(not(feature = "s3"))]
        {
            let _ = (wanted, bytes_max);
            let near = (0..units.len()).collect();
            Self { units, near, next: AtomicUsize::new(0) }
        }
    }

    /// The next unit; `None` when all are taken. Waits while downloads are under way.
    pub fn take(&self) -> Option<Taken<'a>> {
        if let Some(&index) = self.near.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let unit = *self.units.get(index)?;
            return Some(Taken {
                index,
                unit,
                bytes: None,
                #[cfg(feature = "s3")]
                _held: None,
            });
        }
        #[cfg(feature = "s3")]
        for far in &self.far {
            while let Ok(mut fetched) = far.fetched.recv() {
                // Every object that is fetched was asked for.
                let Some(&index) = far.index.get(&fetched.object.key) else { continue };
                let bytes = fetched.take_bytes().map(Vec::from).map_err(anyhow::Error::from);
                return Some(Taken { index, unit: *self.units.get(index)?, bytes: Some(bytes), _held: Some(fetched) });
            }
        }
        None
    }
}

impl Taken<'_> {
    /// Its bytes, fetched now if they were not yet; for a look before [`Taken::read`].
    pub fn bytes(&mut self) -> &Result<Vec<u8>> {
        self.bytes.get_or_insert_with(|| self.unit.0.fetch(self.unit.1))
    }

    /// Puts its bytes in place of what `into` holds; they are fetched now if they were not yet. One after the other is read
    /// into the same memory.
    ///
    /// # Errors
    /// When they cannot be fetched.
    pub fn read(&mut self, into: &mut Vec<u8>) -> Result<()> {
        match self.bytes.take() {
            Some(bytes) => *into = bytes?,
            None => self.unit.0.fetch_into(self.unit.1, into)?,
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::AwsConfig;

    #[test]
    fn every_unit_is_taken_once_by_whichever_thread() {
        let folder = tempfile::tempdir().unwrap();
        for n in 0..40 {
            std::fs::write(folder.path().join(format!("{n}.log")), n.to_string()).unwrap();
        }
        let inputs = Inputs::open(&[folder.path().display().to_string()], &AwsConfig::default()).unwrap();
        let objects = inputs.list().unwrap().objects;
        let feed = Feed::new(objects.iter().skip(4).map(|o| (&inputs, o)), |_| true, 1 << 20);
        let taken = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while let Some(mut unit) = feed.take() {
                        let length = unit.bytes().as_ref().unwrap().len();
                        let mut bytes = b"of another unit".to_vec();
                        unit.read(&mut bytes).unwrap();
                        assert_eq!(
                            (bytes.len(), objects[unit.index + 4].meta.key.contains(std::str::from_utf8(&bytes).unwrap())),
                            (length, true)
                        );
                        taken.lock().unwrap().push(unit.index);
                    }
                });
            }
        });
        let mut taken = taken.into_inner().unwrap();
        taken.sort_unstable();
        assert_eq!(taken, (0..36).collect::<Vec<_>>());
    }
}
