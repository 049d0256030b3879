//! Source clocks: the time up to which a source says "all that AWS had delivered by then, you have".
//!
//! A source that has nothing more stands at the *mark*: now, or with `clock = "delivery"` the newest delivery time of all
//! sources. The mark is taken before a round of listings begins and before brokers are asked where their partitions end,
//! because an answer only speaks of what had come when it was asked for: what arrives elsewhere while a listing is under
//! way may be later than what this listing has just missed.

use std::time::{Duration, Instant};

use flowtrail_ingest::EventTime;

use super::{Live, Run};
use crate::config::Clock;
use crate::setup::now;

/// A delivery time further ahead of us than this moves no clock, seconds (design/guarantees.md section 5).
const AHEAD_MAX: i64 = 600;

/// One source's clock, and since when it has not answered.
#[derive(Clone, Debug)]
pub struct Stand {
    /// The source, for people.
    pub source: String,
    /// Its clock; `None`: it has said nothing yet.
    pub at: Option<EventTime>,
    /// When it last answered or was read from.
    pub answered: Instant,
}

/// Newest delivery time of all that was announced or read.
#[derive(Copy, Clone, Debug, Default)]
pub struct Newest(pub Option<EventTime>);

impl Newest {
    /// Takes a delivery time in; one of the future is somebody's mistake.
    pub fn hear(&mut self, at: Option<EventTime>) {
        self.0 = self.0.max(at.filter(|at| at.0 <= now().0 + AHEAD_MAX));
    }
}

/// The least clock of the sources that answer, and those that do not: they stand still for longer than `stall_limit` and
/// no longer hold sealing back. `mark` is where sealing goes on when nobody answers.
#[must_use]
pub fn least(stands: &[Stand], mark: Option<EventTime>, stall_limit: Duration) -> (Option<EventTime>, Vec<&Stand>) {
    let (moving, still): (Vec<&Stand>, Vec<&Stand>) = stands.iter().partition(|s| s.answered.elapsed() <= stall_limit);
    (moving.iter().map(|s| s.at).min().unwrap_or(mark), still)
}

impl Run {
    /// Where a source without anything more stands, as of now.
    pub(super) fn mark(&self, live: &Live) -> Option<EventTime> {
        match self.clock {
            Clock::Wall => Some(now()),
            Clock::Delivery => live.newest.0,
        }
    }

    /// The clock of all sources together.
    pub(super) fn clock_now(&self, live: &mut Live) -> Option<EventTime> {
        let mut stands: Vec<Stand> = self.listings.iter().enumerate().map(|(index, _)| self.listing_stands_at(live, index)).collect();
        self.topics_stand_at(live, &mut stands);
        let mark = self.mark(live);
        let (clock, still) = least(&stands, mark, self.stall_limit);
        for stand in &still {
            if live.still.insert(stand.source.clone()) {
                tracing::error!(
                    source = %stand.source,
                    "has not answered for {} s (state.stall_limit): sealing goes on without it, and what comes of it later is late",
                    self.stall_limit.as_secs()
                );
            }
        }
        live.still.retain(|source| still.iter().any(|s| s.source == *source));
        self.gauges.clocks(stands.iter().map(|s| (s.source.as_str(), s.at)), live.still.len());
        clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stand(at: Option<i64>, quiet_secs: u64) -> Stand {
        let answered = Instant::now().checked_sub(Duration::from_secs(quiet_secs)).unwrap_or_else(Instant::now);
        Stand { source: "s".to_owned(), at: at.map(EventTime), answered }
    }

    #[test]
    fn the_slowest_source_holds_until_it_has_stood_still_too_long() {
        let limit = Duration::from_secs(5);
        let mark = Some(EventTime(900));
        let clock = |stands: &[Stand]| {
            let (clock, still) = least(stands, mark, limit);
            (clock.map(|t| t.0), still.len())
        };
        assert_eq!(clock(&[stand(Some(500), 0), stand(Some(300), 0)]), (Some(300), 0));
        assert_eq!(clock(&[stand(Some(500), 0), stand(None, 0)]), (None, 0), "a source that has said nothing yet holds everything");
        assert_eq!(clock(&[stand(Some(500), 0), stand(Some(300), 6)]), (Some(500), 1));
        assert_eq!(clock(&[stand(Some(300), 6), stand(None, 7)]), (Some(900), 2), "with nobody left it goes by the mark");
    }

    #[test]
    fn a_delivery_time_of_the_future_moves_no_clock() {
        let mut newest = Newest::default();
        newest.hear(Some(EventTime(100)));
        newest.hear(Some(EventTime(now().0 + 86_400)));
        newest.hear(None);
        assert_eq!(newest.0, Some(EventTime(100)));
    }
}
