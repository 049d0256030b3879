//! Progress on standard error, when it is a terminal: objects, records, bytes, rate, time left.

use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::input::Announced;
use crate::summary::grouped;

/// A bar over the bytes of all objects; hidden where standard error is no terminal.
pub struct Progress {
    bar: ProgressBar,
    objects: AtomicU64,
    records: AtomicU64,
}

impl Progress {
    /// Over the objects that are to be read.
    #[must_use]
    pub fn new(objects: &[Announced]) -> Self {
        let bar = ProgressBar::with_draw_target(Some(objects.iter().map(|o| o.size).sum()), ProgressDrawTarget::stderr_with_hz(4));
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta} left, {msg}") {
            bar.set_style(style);
        }
        Self { bar, objects: AtomicU64::new(0), records: AtomicU64::new(0) }
    }

    /// One object is done.
    pub fn unit(&self, bytes: u64, records: u64) {
        let objects = self.objects.fetch_add(1, Ordering::Relaxed) + 1;
        let records = self.records.fetch_add(records, Ordering::Relaxed) + records;
        self.bar.inc(bytes);
        if !self.bar.is_hidden() {
            self.bar.set_message(format!("{} objects, {} records", grouped(objects), grouped(records)));
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
