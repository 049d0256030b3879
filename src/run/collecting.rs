//! `[collect]`: snapshots of interfaces and functions, taken beside the loop every `collect.every`.
//!
//! What was polled becomes dated facts, which are committed before judging asks for them, so that a replay over the same
//! state uses the fact and not a new poll.

use super::{Live, Run};

#[cfg(feature = "collect")]
pub use with_collect::{Collected, Collecting};

/// Nothing is collected without the feature.
#[cfg(not(feature = "collect"))]
#[allow(clippy::unused_self)]
impl Run {
    pub(super) fn take_collected(&self, _live: &mut Live) {}

    pub(super) fn has_collected(&self, _live: &Live) -> bool {
        true
    }
}

#[cfg(feature = "collect")]
mod with_collect {
    use std::time::{Duration, Instant};

    use crossbeam_channel::{Receiver, Sender};
    use flowtrail_enrich::Fact;
    use flowtrail_enrich::collect::{CollectFailure, CollectOptions, collect};

    use super::{Live, Run};
    use crate::setup::now;

    /// What is collected, and how often.
    pub struct Collecting {
        /// As whom and where.
        pub options: CollectOptions,
        /// From the beginning of one collection to that of the next.
        pub every: Duration,
    }

    /// One collection.
    pub struct Collected {
        facts: Vec<Fact>,
        failures: Vec<CollectFailure>,
        /// Why nothing, or not all, was collected.
        failed: Option<String>,
    }

    impl Collecting {
        /// Collects for ever, on a thread of its own, until nobody takes what it brings.
        pub(in crate::run) fn begin(&self) -> Receiver<Collected> {
            // A collection that nobody has taken yet holds the next one back.
            let (sender, receiver) = crossbeam_channel::bounded(1);
            let (options, every) = (self.options.clone(), self.every);
            std::thread::spawn(move || collect_for_ever(&options, every, &sender));
            receiver
        }
    }

    fn collect_for_ever(options: &CollectOptions, every: Duration, sender: &Sender<Collected>) {
        loop {
            let began = Instant::now();
            if sender.send(collect_once(options)).is_err() {
                return;
            }
            std::thread::sleep(every.saturating_sub(began.elapsed()));
        }
    }

    fn collect_once(options: &CollectOptions) -> Collected {
        let options = CollectOptions { taken_at: now(), ..options.clone() };
        let mut collected = Collected { facts: Vec::new(), failures: Vec::new(), failed: None };
        let mut out = |name: &str, bytes: &[u8]| {
            let facts = flowtrail_enrich::facts_of_file(bytes, name, None).map_err(std::io::Error::other)?;
            collected.facts.extend(facts);
            Ok(())
        };
        match crate::input::runtime().block_on(collect(&options, &mut out)) {
            Ok(report) => collected.failures = report.failures,
            Err(error) => collected.failed = Some(error.to_string()),
        }
        collected
    }

    impl Run {
        /// Takes what was collected: the next commit has it.
        pub(in crate::run) fn take_collected(&self, live: &mut Live) {
            let Some(Ok(collected)) = live.collected.as_ref().map(Receiver::try_recv) else { return };
            live.collections += 1;
            for failure in &collected.failures {
                let (account, region, what) = (&failure.account, &failure.region, failure.what);
                tracing::warn!(%account, %region, what, reason = %failure.reason, "not collected; it is tried again");
            }
            if let Some(reason) = &collected.failed {
                tracing::warn!(reason, "nothing was collected; it is tried again");
            }
            let failures = collected.failures.len() + usize::from(collected.failed.is_some());
            self.gauges.collected(collected.facts.len() as u64, failures as u64);
            live.summary.records.facts += collected.facts.len() as u64;
            live.pending.facts.extend(collected.facts);
        }

        /// With `once`, the first collection belongs to what is there.
        pub(in crate::run) fn has_collected(&self, live: &Live) -> bool {
            live.collected.is_none() || live.collections > 0
        }
    }
}
