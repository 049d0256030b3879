//! The stages between an object's bytes and a verdict, one by one, on seeded input in memory: what criterion times and
//! callgrind counts.
//!
//! Every stage says on every run what it saw, which must be what the generator made, so that it cannot be fast by doing
//! nothing.

#![allow(clippy::expect_used)] // It is only ever fed what this crate made.

use std::collections::BTreeSet;
use std::io::Write as _;

use arrow::array::AsArray;
use arrow::compute::sum as total;
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use flowtrail_detect::hour::Conversation;
use flowtrail_detect::{
    AccountHour, AccountProfiles, Facts, Fleet, FleetDelta, FlowCounts, JudgeConfig, Summer, UnitContext, Window, api_row,
    judge_and_learn_window, merge,
};
use flowtrail_enrich::{AddressBook, Timelines, facts_of_file};
use flowtrail_ingest::cloudtrail::{Item, call_id, read};
use flowtrail_ingest::flow::FlowRows;
use flowtrail_ingest::flow::layout::Layout;
use flowtrail_ingest::flow::parquet::parse_parquet;
use flowtrail_ingest::flow::plain::Ask;
use flowtrail_ingest::flow::text::parse_text;
use flowtrail_ingest::inflate::{Inflater, Limits};
use flowtrail_ingest::{EventTime, FlowBatch, Hour, Names, UnitId};
use flowtrail_sink::tables::{FlowNames, FlowsWriter, Pairs};
use hashbrown::HashMap;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::columns::Columns;
use crate::flows::{Record, Shape, Sums, object_records};
use crate::random::Random;
use crate::text::{Lines, header};
use crate::trail::object_events;
use crate::world::{World, WorldSize};

/// All stages, in the order of a record's way.
pub const STAGES: [&str; 12] = [
    "inflate",
    "parse",
    "parse_traffic",
    "parse_wide",
    "parquet_read",
    "parquet_write",
    "sum",
    "sum_traffic",
    "merge",
    "judge",
    "json",
    "calls",
];

/// A stage with its input.
pub struct Stage {
    /// One of [`STAGES`].
    pub name: &'static str,
    /// What is counted: `record`, `event` or `byte`.
    pub unit: &'static str,
    /// How many of them one run takes.
    pub count: u64,
    run: Box<dyn FnMut() -> u64>,
    expected: u64,
}

impl Stage {
    /// Does the work once.
    ///
    /// # Panics
    /// When it saw anything else than what was made.
    pub fn run(&mut self) {
        let seen = (self.run)();
        assert_eq!(seen, self.expected, "{} did not see what was made", self.name);
    }

    /// A stage over about `records` records; `None` if there is none of this name.
    #[must_use]
    pub fn of(name: &str, records: u64) -> Option<Self> {
        let name = STAGES.into_iter().find(|known| *known == name)?;
        Some(match name {
            "inflate" => inflate(name, records),
            "parse" => parse(name, Shape::Plain, records),
            "parse_traffic" => parse(name, Shape::Traffic, records),
            "parse_wide" => parse(name, Shape::Wide, records),
            "parquet_read" => parquet_read(name, records),
            "parquet_write" => parquet_write(name, records),
            "sum" => sum(name, Shape::Plain, records),
            "sum_traffic" => sum(name, Shape::Traffic, records),
            "merge" => merging(name, records),
            "judge" => judge(name, records),
            "json" => json(name, records / 20),
            _ => calls(name, records / 20),
        })
    }
}

/// 2026-01-05T00:00:00Z.
const START: i64 = 1_767_571_200;

fn world(shape: Shape) -> World {
    let (conversations, habit) = if shape == Shape::Traffic { (6000, 0.6) } else { (2000, 1.0) };
    World::new(WorldSize { seed: 1, accounts: 1, interfaces: 100, conversations, habit })
}

/// Text of one object whose records end in the five minutes from `window` on.
fn text(world: &World, shape: Shape, window: i64, records: u64, seed: u64) -> (Vec<u8>, Sums) {
    let mut text = format!("{}\n", header(shape)).into_bytes();
    let mut lines = Lines::new(world, shape);
    let mut each = |record: &Record<'_>| lines.write(record, &mut text);
    let sums = object_records(world, shape, 0, window, records, &mut Random::of(&[1, seed]), &mut each);
    (text, sums)
}

fn parsed(text: &[u8], names: &mut Names, batch: &mut FlowBatch, on_batch: &mut dyn FnMut(&FlowBatch, &Names)) {
    let mut hand_on = |rows: FlowRows<'_>| on_batch(rows.batch, rows.names);
    let mut refuse = |reject| panic!("{reject:?}");
    parse_text(text, 1, &Layout::version_2(), Ask::hot(EventTime::MAX), names, batch, &mut hand_on, &mut refuse);
}

fn inflate(name: &'static str, records: u64) -> Stage {
    let (text, _) = text(&world(Shape::Plain), Shape::Plain, START, records, 0);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    let object = gzip.write_all(&text).and_then(|()| gzip.finish()).expect("in memory");
    let (mut inflater, mut out) = (Inflater::default(), Vec::new());
    let count = text.len() as u64;
    let run = Box::new(move || {
        let done = inflater.inflate(&object, &mut out, Limits::default()).expect("within the limits");
        out.len() as u64 + u64::from(done.members)
    });
    Stage { name, unit: "byte", count, run, expected: count + 1 }
}

fn parse(name: &'static str, shape: Shape, records: u64) -> Stage {
    let (text, sums) = text(&world(shape), shape, START, records, 0);
    let mut batch = FlowBatch::default();
    let run = Box::new(move || {
        let (mut names, mut seen) = (Names::default(), 0u64);
        parsed(&text, &mut names, &mut batch, &mut |batch, _| seen += batch.rows() as u64 + batch.bytes.iter().sum::<u64>());
        seen
    });
    Stage { name, unit: "record", count: sums.records, run, expected: sums.records + sums.bytes }
}

fn parquet_read(name: &'static str, records: u64) -> Stage {
    let world = world(Shape::Plain);
    let mut columns = Columns::new(&world);
    let mut each = |record: &Record<'_>| columns.write(record);
    let sums = object_records(&world, Shape::Plain, 0, START, records, &mut Random::of(&[1, 0]), &mut each);
    let object = columns.finish().expect("in memory");
    let mut batch = FlowBatch::default();
    let run = Box::new(move || {
        let (mut names, mut seen) = (Names::default(), 0u64);
        let mut hand_on = |rows: FlowRows<'_>| seen += rows.batch.rows() as u64 + rows.batch.bytes.iter().sum::<u64>();
        let mut refuse = |reject| panic!("{reject:?}");
        parse_parquet(&object, Ask::hot(EventTime::MAX), &mut names, &mut batch, &mut hand_on, &mut refuse).expect("a flow log");
        seen
    });
    Stage { name, unit: "record", count: sums.records, run, expected: sums.records + sums.bytes }
}

/// Every record into the table `flows`, with names that are given and not looked up. The rows are counted, and their bytes
/// read back from the files, which is a small part of the work.
fn parquet_write(name: &'static str, records: u64) -> Stage {
    let (text, sums) = text(&world(Shape::Plain), Shape::Plain, START, records, 0);
    let (layout, mut names, mut batches) = (Layout::version_2(), Names::default(), Vec::new());
    let mut keep = |rows: FlowRows<'_>| batches.push(rows.batch.clone());
    let mut refuse = |reject| panic!("{reject:?}");
    parse_text(&text, 1, &layout, Ask::all(EventTime::MAX), &mut names, &mut FlowBatch::default(), &mut keep, &mut refuse);
    let mut writer = FlowsWriter::default();
    let run = Box::new(move || {
        let mut known = HashMap::new();
        let mut files = Vec::new();
        writer.begin("logs/object.log.gz", EventTime(START));
        for batch in &batches {
            let rows = FlowRows { text: &text, layout: &layout, batch, names: &names };
            let mut pair = |pairs: &mut Pairs, numbers: &mut Vec<u32>| {
                numbers.extend((0..batch.rows()).map(|row| {
                    let key = (batch.interface[row], batch.src[row], batch.dst[row]);
                    *known.entry(key).or_insert_with(|| {
                        let kind = pairs.symbols().intern(if batch.src[row] >> 24 == 10 { "lambda" } else { "internet" });
                        pairs.find(rows, row, FlowNames { src_kind: kind, ..FlowNames::default() })
                    })
                }));
            };
            files.extend(writer.push(rows, &mut pair).expect("in memory"));
        }
        files.extend(writer.finish().expect("in memory"));
        files.into_iter().map(|file| file.rows + sum_of("bytes", file.bytes)).sum()
    });
    Stage { name, unit: "record", count: sums.records, run, expected: sums.records + sums.bytes }
}

/// The sum of a 64-bit column of a Parquet file.
fn sum_of(column: &str, file: Vec<u8>) -> u64 {
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file)).expect("a Parquet file");
    let only = ProjectionMask::columns(reader.parquet_schema(), [column]);
    let batches = reader.with_projection(only).build().expect("that column");
    batches.map(|batch| total(batch.expect("sound pages").column(0).as_primitive::<Int64Type>()).unwrap_or(0) as u64).sum()
}

fn unit(n: u64) -> UnitContext {
    UnitContext {
        id: UnitId(u128::from(n) << 64 | 1),
        flow_log: Some("fl-0".to_owned()),
        account: None,
        region: Some(crate::world::REGION.to_owned()),
        from: EventTime::MIN,
        to: EventTime::MAX,
    }
}

fn sum(name: &'static str, shape: Shape, records: u64) -> Stage {
    let (text, sums) = text(&world(shape), shape, START, records, 0);
    let (mut names, mut batches) = (Names::default(), Vec::new());
    parsed(&text, &mut names, &mut FlowBatch::default(), &mut |batch, _| batches.push(batch.clone()));
    let mut summer = Summer::new(1);
    let run = Box::new(move || {
        let mut counts = FlowCounts::default();
        batches.iter().for_each(|batch| summer.add(&unit(1), batch, &names, &mut counts));
        let blocks = summer.flush();
        assert!(!blocks.is_empty());
        counts.records + counts.bytes
    });
    Stage { name, unit: "record", count: sums.records, run, expected: sums.records + sums.bytes }
}

/// The blocks of one hour, twelve objects one by one; their account, hour and flow records with a conversation.
fn blocks(world: &World, shape: Shape, hour: i64, records: u64) -> (Vec<flowtrail_detect::Block>, u64) {
    let (mut blocks, mut flows) = (Vec::new(), 0);
    for n in 0..12 {
        let (text, sums) = text(world, shape, START + hour * 3600 + n * 300 - 1, records / 12, (hour * 12 + n) as u64);
        let mut summer = Summer::new(1);
        let mut counts = FlowCounts::default();
        let mut add = |batch: &FlowBatch, names: &Names| summer.add(&unit((hour * 12 + n) as u64), batch, names, &mut counts);
        parsed(&text, &mut Names::default(), &mut FlowBatch::default(), &mut add);
        flows += sums.records - sums.nodata;
        blocks.extend(summer.flush());
    }
    (blocks, flows)
}

fn flows(hour: &AccountHour) -> u64 {
    hour.conversations.iter().map(Conversation::flows).sum()
}

fn merging(name: &'static str, records: u64) -> Stage {
    let (blocks, all) = blocks(&world(Shape::Plain), Shape::Plain, 0, records);
    let mut hours: Vec<Hour> = blocks.iter().map(|b| b.hour).collect();
    hours.sort_unstable();
    hours.dedup();
    // An object's records may end in the next hour or the one before: each hour is merged by itself, as it is judged.
    let run = Box::new(move || {
        let of = |hour: &Hour| blocks.iter().filter(|b| b.hour == *hour).map(|b| b.view(false)).collect::<Vec<_>>();
        hours.iter().map(|hour| flows(&merge(&of(hour)).expect("whole blocks").0)).sum()
    });
    Stage { name, unit: "record", count: all, run, expected: all }
}

/// Names, judges and learns one hour after twelve that were learned before: one more every run.
fn judge(name: &'static str, records: u64) -> Stage {
    let world = world(Shape::Plain);
    let mut facts = BTreeSet::new();
    for text in [world.network_interfaces_json(0).to_string(), world.functions_json(0).to_string()] {
        facts.extend(facts_of_file(text.as_bytes(), "facts.json", Some(EventTime(START))).expect("facts"));
    }
    let (timelines, book) = (Timelines::build(&facts), AddressBook::builder().build());
    let (config, fleet, mut profiles) = (JudgeConfig::default(), Fleet::default(), AccountProfiles::default());
    let merged = |hour: i64| {
        let (blocks, _) = blocks(&world, Shape::Plain, hour, records);
        let of_hour = blocks.iter().filter(|b| i64::from(b.hour.0) == START / 3600 + hour);
        merge(&of_hour.map(|b| b.view(false)).collect::<Vec<_>>()).expect("whole blocks").0
    };
    let mut look = move |hour: &AccountHour| {
        let facts = Facts { timelines: &timelines, book: &book };
        let window = Window::build(hour, &facts);
        let verdict = judge_and_learn_window(&config, &mut profiles, &fleet, &mut FleetDelta::default(), &window);
        verdict.attribution.iter().sum::<u64>()
    };
    for hour in 0..12 {
        look(&merged(hour));
    }
    let mut hour = merged(12);
    let count = flows(&hour);
    let run = Box::new(move || {
        let seen = look(&hour);
        hour.hour = Hour(hour.hour.0 + 1);
        seen
    });
    Stage { name, unit: "record", count, run, expected: count }
}

fn events(count: u64) -> Vec<u8> {
    let mut text = Vec::new();
    object_events(&world(Shape::Plain), 0, START, count, &mut Random::of(&[1, 0]), &mut text);
    text
}

fn json(name: &'static str, count: u64) -> Stage {
    let text = events(count);
    let run = Box::new(move || {
        let mut seen = 0;
        read(&text, &mut |item| match item {
            Item::Call(call) => seen += u64::from(!call.event_name.is_empty() && call.time.0 >= START),
            other => panic!("{other:?}"),
        });
        seen
    });
    Stage { name, unit: "event", count, run, expected: count }
}

fn calls(name: &'static str, count: u64) -> Stage {
    let text = events(count);
    let mut summer = Summer::new(1);
    let run = Box::new(move || {
        let mut seen = 0;
        read(&text, &mut |item| match item {
            Item::Call(call) => {
                let row = api_row(call, call_id(call), &mut |text| summer.intern(text));
                summer.add_call(&unit(1), call.account().unwrap_or_default(), row, call.index);
                seen += 1;
            }
            other => panic!("{other:?}"),
        });
        assert!(!summer.flush().is_empty());
        seen
    });
    Stage { name, unit: "event", count, run, expected: count }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_sees_what_was_made_again_and_again() {
        for name in STAGES {
            let mut stage = Stage::of(name, 3000).expect("a stage");
            stage.run();
            stage.run();
            assert!(stage.count >= 100, "{name}: {} {}s", stage.count, stage.unit);
        }
        assert!(Stage::of("nothing", 1).is_none());
    }

    #[test]
    #[should_panic(expected = "did not see what was made")]
    fn a_stage_that_sees_less_is_told() {
        let mut stage = Stage::of("parse", 1000).expect("a stage");
        stage.expected += 1;
        stage.run();
    }
}
