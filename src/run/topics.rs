//! Kafka topics: messages to contributions, and how far each partition's clock is.

#[cfg(feature = "kafka")]
use std::collections::BTreeMap;

use anyhow::Result;
#[cfg(not(feature = "kafka"))]
use flowtrail_ingest::EventTime;

use super::clock::Stand;
use super::{Live, Run};

#[cfg(feature = "kafka")]
pub use of_kafka::{KafkaTopic, Partitions};

/// Nothing is known of topics without the feature.
#[cfg(not(feature = "kafka"))]
#[derive(Default)]
pub struct Partitions;

#[cfg(not(feature = "kafka"))]
#[allow(clippy::unused_self, clippy::unnecessary_wraps)]
impl Run {
    pub(super) fn ask_ends(&self, _live: &mut Live, _mark: Option<EventTime>) {}

    pub(super) fn topics_were_asked_at(&self, _live: &Live, _mark: Option<EventTime>) -> bool {
        true
    }

    pub(super) fn read_topics(&self, _live: &mut Live) -> Result<bool> {
        Ok(false)
    }

    pub(super) fn topics_stand_at(&self, _live: &mut Live, _stands: &mut Vec<Stand>) {}

    pub(super) fn topics_are_read(&self, _live: &mut Live) -> bool {
        true
    }

    pub(super) fn acknowledge(&self, _live: &Live) {}

    pub(super) fn observe_topics(&self) {}

    pub(super) fn trouble_of_topics(&self) -> Option<String> {
        None
    }
}

#[cfg(feature = "kafka")]
mod of_kafka {
    use std::time::{Duration, Instant};

    use flowtrail_ingest::source::kafka::{KafkaEvent, KafkaMessage, KafkaReader, Lag, Partition};
    use flowtrail_ingest::{EventTime, KeyFacts, Position, UnitId};

    use super::{BTreeMap, Live, Result, Run, Stand};
    use crate::lane::Ended;
    use crate::reader::{ReadSettings, Reader, UnitMeta, UnitReport};
    use crate::setup::now;
    use crate::summary::Quarantined;

    /// Messages that are taken at a time, at most.
    const TAKE_MAX: usize = 50_000;
    /// How long messages are taken before listings and seals have their turn.
    const TAKE_FOR: Duration = Duration::from_secs(2);

    /// One Kafka source.
    pub struct KafkaTopic {
        /// Name in positions and metrics.
        pub name: String,
        /// The reader.
        pub reader: KafkaReader,
        /// How records are read.
        pub read: ReadSettings,
    }

    /// What is known of all partitions, by source and partition.
    #[derive(Default)]
    pub struct Partitions {
        /// Ticket of the newest question for ends, by source, and the mark that was taken before it was asked.
        asked: BTreeMap<usize, (u64, Option<EventTime>)>,
        of: BTreeMap<(usize, Partition), Known>,
    }

    struct Known {
        /// The next offset we have not taken.
        next: i64,
        /// Newest broker time taken.
        at: Option<EventTime>,
        /// The newest mark at which it was read to its end.
        ended: Option<EventTime>,
        /// When it was read from or was at its end.
        answered: Instant,
    }

    impl Run {
        /// Begins a round: asks brokers where partitions end. The mark of the round was taken before. Who has not answered the last
        /// question yet is not asked another, else rounds that are quicker than brokers would never see an answer.
        pub(in crate::run) fn ask_ends(&self, live: &mut Live, mark: Option<EventTime>) {
            for (index, topic) in self.topics.iter().enumerate() {
                let lags = topic.reader.lag();
                let answered = |ticket: u64| lags.values().all(|lag| lag.end.is_some_and(|end| end.ticket >= ticket));
                if live.partitions.asked.get(&index).is_none_or(|(ticket, _)| answered(*ticket)) {
                    live.partitions.asked.insert(index, (topic.reader.ask_ends(), mark));
                }
            }
        }

        /// True when the last question was asked with this mark everywhere.
        pub(in crate::run) fn topics_were_asked_at(&self, live: &Live, mark: Option<EventTime>) -> bool {
            live.partitions.asked.len() == self.topics.len() && live.partitions.asked.values().all(|(_, asked)| *asked == mark)
        }

        /// Takes what topics have for us, for a while. True if there was something.
        pub(in crate::run) fn read_topics(&self, live: &mut Live) -> Result<bool> {
            let mut any = false;
            for (index, topic) in self.topics.iter().enumerate() {
                let mut reading = Reading::default();
                let deadline = Instant::now() + TAKE_FOR;
                let mut taken = 0usize;
                while let Ok(event) = topic.reader.events().try_recv() {
                    match event {
                        KafkaEvent::Message(message) => {
                            any = true;
                            taken += 1;
                            self.note_position(live, index, topic, &message);
                            self.read_message(live, topic, &mut reading, &message);
                        }
                        KafkaEvent::End { .. } => {}
                        KafkaEvent::Gap { partition, from, to } => {
                            let lost = format!("{}/{} from offset {from} to {to}", partition.0, partition.1);
                            tracing::error!(%lost, "records were deleted by the brokers before they were read");
                            let reason = "deleted by the brokers' retention before it was read".to_owned();
                            live.summary.units.quarantined += 1;
                            live.summary.set_aside(Quarantined { source: format!("kafka:{lost}"), reason });
                            live.rows.quarantine.push(flowtrail_sink::tables::set_aside::QuarantineRow {
                                time: now(),
                                source: "kafka".to_owned(),
                                key: format!("{}/{}", partition.0, partition.1),
                                position: u64::try_from(from).ok(),
                                reason: format!("deleted by the brokers' retention before it was read, up to offset {to}"),
                                sample: String::new(),
                            });
                            live.partitions.known(index, &partition, to).next = to;
                        }
                        KafkaEvent::Failed(error) => return Err(anyhow::Error::new(error).context(format!("source {}", topic.name))),
                    }
                    if taken >= TAKE_MAX || Instant::now() > deadline {
                        break;
                    }
                }
                if let Some(mut reader) = reading.reader {
                    live.take_blocks(reader.flush());
                }
                for report in reading.reports.into_values() {
                    self.admit(live, report);
                }
            }
            Ok(any)
        }

        fn note_position(&self, live: &mut Live, index: usize, topic: &KafkaTopic, message: &KafkaMessage) {
            let at = delivered_at(message);
            live.newest.hear(at);
            let known = live.partitions.known(index, &message.partition, message.offset);
            known.next = message.offset + 1;
            known.at = known.at.max(at);
            known.answered = Instant::now();
            let name = position_name(topic, &message.partition);
            live.pending.positions.insert(name.clone(), (message.offset + 1).to_string());
            if let Some(at) = known.at {
                live.pending.clocks.insert(name, at);
            }
        }

        /// The partition is the ledger's unit, its positions tell what was read of it; a message that cannot be read, or is none
        /// of ours, is counted by itself and named with its offset.
        fn read_message(&self, live: &mut Live, topic: &KafkaTopic, reading: &mut Reading, message: &KafkaMessage) {
            let key = format!("{}/{}", message.partition.0, message.partition.1);
            let offset = u64::try_from(message.offset).unwrap_or_default();
            let id = UnitId::of_bytes(format!("kafka:{key}").as_bytes());
            let meta = UnitMeta {
                source: "kafka",
                key: key.clone(),
                facts: KeyFacts::default(),
                offset: Some(offset),
                delivered_at: delivered_at(message),
            };
            let reader = reading
                .reader
                .get_or_insert_with(|| Reader::new(ReadSettings { now: now(), ..topic.read.clone() }, crate::setup::random_seed()));
            let mut report = reader.read(id, &meta, &message.payload, None);
            for reject in &mut report.rejects {
                reject.position = Position(offset);
            }
            if reader.is_full() {
                live.take_blocks(reader.flush());
            }
            live.pending.coverage.add_unit(&report.record);
            match report.record.ended {
                Ended::Quarantined | Ended::Salvaged | Ended::Ignored => {
                    report.record.key = format!("{key}@{offset}");
                    report.record.id = UnitId::default();
                    self.admit(live, report);
                }
                _ => match reading.reports.get_mut(&key) {
                    None => {
                        reading.reports.insert(key, report);
                    }
                    Some(sum) => {
                        live.summary.units.applied += 1;
                        sum.absorb(report);
                    }
                },
            }
        }

        /// Every partition's clock: the newest broker time taken, or the mark of the last question that found it at its end.
        pub(in crate::run) fn topics_stand_at(&self, live: &mut Live, stands: &mut Vec<Stand>) {
            for (index, topic) in self.topics.iter().enumerate() {
                let (ticket, mark) = live.partitions.asked.get(&index).copied().unwrap_or_default();
                // Before the queue is found empty: what is passed later may still wait in it.
                let lags = topic.reader.lag();
                let empty = topic.reader.events().is_empty();
                for (partition, lag) in lags {
                    let committed = live.lane.clocks.get(&position_name(topic, &partition)).copied();
                    let known = live.partitions.known(index, &partition, lag.first);
                    known.at = known.at.max(committed);
                    if is_read(known, &lag, ticket, empty) {
                        known.ended = known.ended.max(mark);
                        known.answered = Instant::now();
                    }
                    let source = format!("{} {}/{}", topic.name, partition.0, partition.1);
                    stands.push(Stand { source, at: known.at.max(known.ended), answered: known.answered });
                }
            }
        }

        /// True when every partition was read up to where it ended when that was last asked for.
        pub(in crate::run) fn topics_are_read(&self, live: &mut Live) -> bool {
            self.topics.iter().enumerate().all(|(index, topic)| {
                let (ticket, _) = live.partitions.asked.get(&index).copied().unwrap_or_default();
                let lags = topic.reader.lag();
                let empty = topic.reader.events().is_empty();
                lags.iter().all(|(partition, lag)| is_read(live.partitions.known(index, partition, lag.first), lag, ticket, empty))
            })
        }

        /// Tells the groups how far we have committed, for lag tools.
        pub(in crate::run) fn acknowledge(&self, live: &Live) {
            for topic in &self.topics {
                let next = live.lane.positions.iter().filter_map(|(key, offset)| {
                    let (name, partition) = key.strip_prefix(&format!("{}/", topic.name))?.rsplit_once('/')?;
                    Some(((name.to_owned(), partition.parse().ok()?), offset.parse().ok()?))
                });
                topic.reader.acknowledge(&next.collect());
            }
        }

        pub(in crate::run) fn observe_topics(&self) {
            for topic in &self.topics {
                for (partition, lag) in topic.reader.lag() {
                    self.gauges.lag(&format!("{}/{}", partition.0, partition.1), lag.messages());
                }
            }
        }

        /// What brokers are waited for.
        pub(in crate::run) fn trouble_of_topics(&self) -> Option<String> {
            self.topics.iter().find_map(|topic| topic.reader.trouble().map(|trouble| format!("{}: {trouble}", topic.name)))
        }
    }

    /// One turn of reading: equal partitions of it are one unit.
    #[derive(Default)]
    struct Reading {
        reader: Option<Reader>,
        reports: BTreeMap<String, UnitReport>,
    }

    impl Partitions {
        /// `first`: where reading of a partition begins that nothing is known of yet.
        fn known(&mut self, source: usize, partition: &Partition, first: i64) -> &mut Known {
            self.of.entry((source, partition.clone())).or_insert_with(|| Known {
                next: first,
                at: None,
                ended: None,
                answered: Instant::now(),
            })
        }
    }

    fn is_read(known: &Known, lag: &Lag, ticket: u64, empty: bool) -> bool {
        let taken = if empty { known.next.max(lag.passed) } else { known.next };
        lag.end.is_some_and(|end| end.ticket >= ticket && taken >= end.offset)
    }

    fn position_name(topic: &KafkaTopic, partition: &Partition) -> String {
        format!("{}/{}/{}", topic.name, partition.0, partition.1)
    }

    fn delivered_at(message: &KafkaMessage) -> Option<EventTime> {
        message.timestamp_ms.map(|ms| EventTime(ms.div_euclid(1000)))
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use flowtrail_ingest::source::kafka::EndOf;

        #[test]
        fn an_end_of_before_the_question_proves_nothing() {
            let known = Known { next: 10, at: None, ended: None, answered: Instant::now() };
            let lag = |ticket, offset, passed| Lag { end: Some(EndOf { ticket, offset }), passed, at_end: true, ..Lag::default() };
            assert!(!is_read(&known, &Lag { at_end: true, ..Lag::default() }, 1, true), "it was at its end once, but nobody asked");
            assert!(!is_read(&known, &lag(1, 10, 0), 2, true), "an answer to an earlier question");
            assert!(is_read(&known, &lag(2, 10, 0), 2, false) && is_read(&known, &lag(3, 10, 0), 2, false));
            assert!(!is_read(&known, &lag(2, 11, 0), 2, true), "one more is there");
            assert!(is_read(&known, &lag(2, 11, 11), 2, true), "the last one was a transaction's end, which nobody is handed");
            assert!(!is_read(&known, &lag(2, 11, 11), 2, false), "what was passed may still wait for us");
        }
    }
}
