//! One unit from bytes to contributions: inflate, recognise, parse, sum. What every reader thread does.
//!
//! A pure function of the unit's bytes, its key and the settings: no clock, no shared table. What it cannot read of a
//! unit becomes rejects or a reason; nothing here fails for bad input.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use flowtrail_detect::{Block, FlowCounts, Summer, UnitContext, api_row};
use flowtrail_enrich::Fact;
use flowtrail_ingest::cloudtrail::{self, Item};
use flowtrail_ingest::flow::layout::Layout;
use flowtrail_ingest::flow::parquet::ParquetReader;
use flowtrail_ingest::flow::plain::Ask;
use flowtrail_ingest::flow::text::TextReader;
use flowtrail_ingest::flow::{self, FlowRows};
use flowtrail_ingest::inflate::{InflateError, Inflater, Limits, is_gzip};
use flowtrail_ingest::sniff::{Kind, sniff};
use flowtrail_ingest::{ApiCall, EventTime, FlowBatch, Hour, KeyFacts, Names, Reject, UnitId};

use crate::lane::{Ended, UnitRecord};

/// How far an event may lie ahead of the moment it is read at, seconds (design/guarantees.md section 5).
const AHEAD_MAX: i64 = 600;

/// Rejects of one unit that are written as rows; the rest is counted and said in one more row.
const REJECT_ROWS_MAX: usize = 1000;

/// What decides how units are read; the same for all of a call.
#[derive(Clone, Debug)]
pub struct ReadSettings {
    /// Fields of flow-log text without header.
    pub format: Option<Layout>,
    /// `--from`.
    pub from: EventTime,
    /// `--to`.
    pub to: EventTime,
    /// The moment of reading for units that carry no delivery time.
    pub now: EventTime,
    /// `--facts-at`.
    pub facts_at: Option<EventTime>,
    /// Bounds on inflation.
    pub limits: Limits,
    /// The flows table is wanted: all columns of every record.
    pub cells: bool,
}

/// A unit as its source announces it.
#[derive(Clone, Debug)]
pub struct UnitMeta {
    /// `folder`, `s3`, `kafka`.
    pub source: &'static str,
    /// Path, key, `topic/partition`.
    pub key: String,
    /// What the key says.
    pub facts: KeyFacts,
    /// Offset in Kafka: the position of its record.
    pub offset: Option<u64>,
    /// When it was delivered: key time, broker time; `None` for files without one.
    pub delivered_at: Option<EventTime>,
}

/// What a unit gave.
#[derive(Clone, Debug)]
pub struct UnitReport {
    /// Ledger entry.
    pub record: UnitRecord,
    /// Neither logs nor facts: listed as unrecognised.
    pub unrecognised: bool,
    /// Flow records.
    pub flow: FlowCounts,
    /// CloudTrail events by kind.
    pub api_kinds: BTreeMap<String, u64>,
    /// CloudTrail events added (before repeats are known).
    pub api: u64,
    /// Ignored by kind.
    pub api_ignored: u64,
    /// API calls outside `--from`, `--to`.
    pub api_out_of_range: u64,
    /// Facts of a facts file, or of calls.
    pub facts: Vec<Fact>,
    /// … of them from facts files: counted as records.
    pub facts_counted: u64,
    /// Rejects, at most [`REJECT_ROWS_MAX`] and one that counts the rest.
    pub rejects: Vec<Reject>,
    /// Hours it contributed to: oldest and newest.
    pub hours: Option<(Hour, Hour)>,
}

/// Everything of one reader thread that is used again from unit to unit.
pub struct Reader {
    settings: ReadSettings,
    inflater: Inflater,
    content: Vec<u8>,
    batch: FlowBatch,
    parquet: ParquetReader,
    summer: Summer,
    management: Delivered,
}

/// Takes every batch of flow records with all columns, for the flows table.
pub type OnRows<'a> = dyn FnMut(&UnitMeta, FlowRows<'_>) + 'a;

impl Reader {
    /// A reader; `seed` only spreads its table in memory.
    #[must_use]
    pub fn new(settings: ReadSettings, seed: u64) -> Self {
        Self {
            settings,
            inflater: Inflater::default(),
            content: Vec::new(),
            batch: FlowBatch::default(),
            parquet: ParquetReader::default(),
            summer: Summer::new(seed),
            management: Delivered::default(),
        }
    }

    /// True when the table should be flushed before the next unit.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.summer.is_full()
    }

    /// The contributions since the last flush.
    pub fn flush(&mut self) -> Vec<Block> {
        self.management = Delivered::default();
        self.summer.flush()
    }

    /// True for flow logs, in whatever envelope; nothing is read through.
    pub fn is_flow_log(&mut self, raw: &[u8]) -> bool {
        let mut content = std::mem::take(&mut self.content);
        let is = match is_gzip(raw) {
            false => self.peeled(raw, 0).is_some_and(|(kind, _)| is_flow_log(kind)),
            true => match self.inflater.inflate(raw, &mut content, self.settings.limits) {
                Ok(_) => self.peeled(&content, 0).is_some_and(|(kind, _)| is_flow_log(kind)),
                // Nothing else comes in that size.
                Err(error) => matches!(error, InflateError::OverWhole(_)),
            },
        };
        self.content = content;
        is
    }

    /// The kind of a text, and the text without what it is wrapped in.
    fn peeled<'t>(&self, text: &'t [u8], depth: u8) -> Option<(Kind, Cow<'t, [u8]>)> {
        match sniff(text, self.settings.format.as_ref()) {
            Kind::Wrapped if depth < 3 => {
                let inner = flow::envelope::peel(text, self.settings.limits).ok()?;
                self.peeled(&inner, depth + 1).map(|(kind, text)| (kind, Cow::Owned(text.into_owned())))
            }
            kind => Some((kind, Cow::Borrowed(text))),
        }
    }

    /// Hands out the CloudTrail events of a unit once more, in their order; of anything else nothing.
    pub fn calls(&mut self, raw: &[u8], on: &mut dyn FnMut(&ApiCall<'_>)) {
        let mut content = std::mem::take(&mut self.content);
        let text: &[u8] = if is_gzip(raw) {
            match self.inflater.inflate(raw, &mut content, self.settings.limits) {
                // What came before a break was counted, too.
                Ok(_) => &content,
                Err(_) => &[],
            }
        } else {
            raw
        };
        if let Some((Kind::CloudTrail, text)) = self.peeled(text, 0) {
            cloudtrail::read(&text, &mut |item| {
                if let Item::Call(call) = item {
                    on(call);
                }
            });
        }
        self.content = content;
    }

    /// Reads one unit and adds it to the table.
    pub fn read(&mut self, id: UnitId, meta: &UnitMeta, raw: &[u8], on_rows: Option<&mut OnRows<'_>>) -> UnitReport {
        let mut report = UnitReport::new(id, meta, raw.len());
        let mut content = std::mem::take(&mut self.content);
        self.read_content(id, meta, raw, &mut content, &mut report, on_rows);
        // One object of a gigabyte must not hold its memory for the rest of the run.
        content.clear();
        content.shrink_to(64 << 20);
        self.content = content;
        report.record.records = report.flow.records + report.api + report.facts_counted;
        report.record.nodata = report.flow.nodata;
        report.record.skipdata = report.flow.skipdata;
        report.record.hour = report.hours.map(|h| h.1).or(meta.delivered_at.map(EventTime::hour));
        report
    }

    fn read_content(
        &mut self,
        id: UnitId,
        meta: &UnitMeta,
        raw: &[u8],
        content: &mut Vec<u8>,
        report: &mut UnitReport,
        on_rows: Option<&mut OnRows<'_>>,
    ) {
        let mut broken = None;
        let text: &[u8] = if is_gzip(raw) {
            match self.inflater.inflate(raw, content, self.settings.limits) {
                Ok(inflated) => {
                    if inflated.members == 0 && content.is_empty() {
                        return report.quarantine(inflated.broken.unwrap_or_else(|| "broken gzip: nothing could be read".to_owned()));
                    }
                    broken = inflated.broken;
                    content
                }
                Err(InflateError::OverWhole(_)) => return self.stream(id, meta, raw, report, on_rows),
                Err(error) => return report.quarantine(error.to_string()),
            }
        } else {
            raw
        };
        self.read_text(id, meta, text, report, on_rows, 0);
        if let Some(reason) = broken {
            let reason = format!("{reason}; what came before the break is counted");
            if report.flow.records + report.api + report.facts_counted + report.rejects_counted() > 0 {
                report.record.ended = Ended::Salvaged;
                report.record.reason = reason;
            } else {
                report.quarantine(reason);
            }
        }
    }

    /// An object too large to be held whole: flow-log text in pieces; nothing else comes in that size.
    fn stream(&mut self, id: UnitId, meta: &UnitMeta, raw: &[u8], report: &mut UnitReport, mut on_rows: Option<&mut OnRows<'_>>) {
        let unit = self.unit(id, meta);
        let ask = self.ask(meta);
        let mut names = Names::default();
        let mut batch = std::mem::take(&mut self.batch);
        let mut reader: Option<TextReader> = None;
        let mut refused = false;
        let limits = self.settings.limits;
        let format = self.settings.format.clone();
        let mut inflater = std::mem::take(&mut self.inflater);
        let summer = &mut self.summer;
        let done = inflater.stream(raw, limits, &mut |piece| {
            if refused {
                return;
            }
            let text = reader.get_or_insert_with(|| {
                refused = sniff(&piece[..piece.len().min(1 << 20)], format.as_ref()) != Kind::FlowText;
                TextReader::new(format.clone().unwrap_or_else(|| Layout::default_for(first_line(piece))), 1, ask)
            });
            if refused {
                return;
            }
            let (flow, rejects) = (&mut report.flow, &mut report.rejects);
            let counted = &mut report.record.rejects;
            text.read(
                piece,
                &mut names,
                &mut batch,
                &mut |rows| {
                    summer.add(&unit, rows.batch, rows.names, flow);
                    if let Some(on_rows) = on_rows.as_deref_mut() {
                        on_rows(meta, rows);
                    }
                },
                &mut |reject| keep_reject(rejects, counted, reject),
            );
        });
        self.inflater = inflater;
        self.batch = batch;
        report.record.stream = "flow log".to_owned();
        match done {
            Err(error) if report.flow.records > 0 => {
                report.record.ended = Ended::Salvaged;
                report.record.reason = format!("{error}; what came before is counted");
            }
            Err(error) => report.quarantine(error.to_string()),
            Ok(_) if refused => report.quarantine("content is larger than what is held in memory and is no flow-log text".to_owned()),
            Ok(inflated) => {
                if let Some(reason) = inflated.broken {
                    report.record.ended = Ended::Salvaged;
                    report.record.reason = format!("{reason}; what came before the break is counted");
                }
                report.note_hours(report.flow.newest);
            }
        }
    }

    fn read_text(
        &mut self,
        id: UnitId,
        meta: &UnitMeta,
        text: &[u8],
        report: &mut UnitReport,
        on_rows: Option<&mut OnRows<'_>>,
        depth: u8,
    ) {
        let kind = sniff(text, self.settings.format.as_ref());
        match kind {
            Kind::FlowText | Kind::FlowParquet | Kind::FlowEnvelope => self.read_flows(id, meta, kind, text, report, on_rows),
            Kind::CloudTrail => self.read_calls(id, meta, text, report),
            Kind::Facts => match flowtrail_enrich::facts_of_file(text, &meta.key, self.settings.facts_at) {
                Ok(facts) => {
                    report.record.stream = "facts".to_owned();
                    report.facts_counted = facts.len() as u64;
                    report.facts = facts;
                }
                Err(reason) => report.quarantine(reason),
            },
            Kind::Wrapped if depth < 3 => match flow::envelope::peel(text, self.settings.limits) {
                Ok(inner) => self.read_text(id, meta, &inner, report, on_rows, depth + 1),
                Err(error) => report.quarantine(error.to_string()),
            },
            Kind::Ignored(what) => report.ignore(what),
            Kind::Empty => report.record.stream = "empty".to_owned(),
            Kind::Wrapped | Kind::Unknown => {
                report.unrecognised = true;
                report.ignore("not recognised");
            }
        }
    }

    fn unit(&self, id: UnitId, meta: &UnitMeta) -> UnitContext {
        UnitContext {
            id,
            flow_log: meta.facts.flow_log.clone(),
            account: meta.facts.account.clone(),
            region: meta.facts.region.clone(),
            from: self.settings.from,
            to: self.settings.to,
        }
    }

    fn ask(&self, meta: &UnitMeta) -> Ask {
        // A file's own delivery time bounds its records; a file without one is read "now".
        Ask { cells: self.settings.cells, not_after: meta.delivered_at.unwrap_or(self.settings.now) }
    }

    fn read_flows(
        &mut self,
        id: UnitId,
        meta: &UnitMeta,
        kind: Kind,
        text: &[u8],
        report: &mut UnitReport,
        mut on_rows: Option<&mut OnRows<'_>>,
    ) {
        let unit = self.unit(id, meta);
        let ask = self.ask(meta);
        let mut names = Names::default();
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        let summer = &mut self.summer;
        let (counts, rejects, counted) = (&mut report.flow, &mut report.rejects, &mut report.record.rejects);
        let mut on_batch = |rows: FlowRows<'_>| {
            summer.add(&unit, rows.batch, rows.names, counts);
            if let Some(on_rows) = on_rows.as_deref_mut() {
                on_rows(meta, rows);
            }
        };
        let mut on_reject = |reject: Reject| keep_reject(rejects, counted, reject);
        let format = self.settings.format.as_ref();
        let mut failed = None;
        match kind {
            Kind::FlowParquet => {
                let read = self.parquet.read(text, ask, &mut names, &mut batch, &mut on_batch, &mut on_reject);
                if let Err(error) = read {
                    failed = Some(error);
                }
            }
            Kind::FlowEnvelope => {
                flow::envelope::parse_envelope(text, format, ask, &mut names, &mut batch, &mut on_batch, &mut on_reject);
            }
            _ => {
                let layout = format.cloned().unwrap_or_else(|| Layout::default_for(first_line(text)));
                flow::text::parse_text(text, 1, &layout, ask, &mut names, &mut batch, &mut on_batch, &mut on_reject);
            }
        }
        batch.clear();
        self.batch = batch;
        report.record.stream = meta.facts.flow_log.clone().unwrap_or_else(|| "flow log".to_owned());
        report.note_hours(report.flow.newest);
        match failed {
            Some(error) if report.flow.records > 0 => {
                report.record.ended = Ended::Salvaged;
                report.record.reason = format!("{error}; what came before is counted");
            }
            Some(flow::parquet::FlowError::NotFlowLog(what)) => {
                report.unrecognised = true;
                report.ignore(&format!("Parquet, but no flow log: {what}"));
            }
            Some(error) => report.quarantine(error.to_string()),
            None => {}
        }
    }

    fn read_calls(&mut self, id: UnitId, meta: &UnitMeta, text: &[u8], report: &mut UnitReport) {
        let unit = self.unit(id, meta);
        let latest = meta.delivered_at.unwrap_or(self.settings.now).plus(AHEAD_MAX);
        let (summer, management, settings) = (&mut self.summer, &mut self.management, &self.settings);
        let outcome = cloudtrail::read(text, &mut |item| match item {
            Item::Call(call) => {
                if call.time > latest {
                    let reason = format!("eventTime {} is in the future", call.time);
                    keep_reject(&mut report.rejects, &mut report.record.rejects, Reject::new(call.index, reason, call.raw));
                    return;
                }
                match report.api_kinds.get_mut(call.kind()) {
                    Some(count) => *count += 1,
                    None => drop(report.api_kinds.insert(call.kind().to_owned(), 1)),
                }
                if call.time < settings.from || call.time >= settings.to {
                    report.api_out_of_range += 1;
                    return;
                }
                add_call(summer, management, &unit, meta, call, report);
            }
            Item::Ignored { kind, .. } => {
                report.api_ignored += 1;
                *report.api_kinds.entry(kind.to_owned()).or_default() += 1;
            }
            Item::Reject(reject) => keep_reject(&mut report.rejects, &mut report.record.rejects, reject),
        });
        report.record.stream = "CloudTrail".to_owned();
        if outcome.items == 0 && outcome.digests > 0 {
            report.ignore("CloudTrail digest");
        }
    }
}

fn add_call(
    summer: &mut Summer,
    management: &mut Delivered,
    unit: &UnitContext,
    meta: &UnitMeta,
    call: &ApiCall<'_>,
    report: &mut UnitReport,
) {
    report.api += 1;
    let hour = call.time.hour();
    report.hours = Some(report.hours.map_or((hour, hour), |(a, b)| (a.min(hour), b.max(hour))));
    let account = call.account().or(meta.facts.account.as_deref()).unwrap_or("unknown");
    let row = api_row(call, cloudtrail::call_id(call), &mut |text| summer.intern(text));
    summer.add_call(unit, account, row, meta.offset.unwrap_or(call.index));
    if let Some((account, region, hour)) = flowtrail_enrich::management_hour(call)
        && management.is_first(account, region, hour)
    {
        report.facts.push(flowtrail_enrich::management_fact(account, region, hour));
    }
    report.facts.extend(flowtrail_enrich::facts_of_call(call));
}

/// Accounts, regions and hours that management events were seen of.
#[derive(Default)]
struct Delivered {
    seen: HashSet<(String, String, Hour)>,
    /// The last one asked for: neighbours in an object are of one hour.
    last: Option<(String, String, Hour)>,
}

impl Delivered {
    fn is_first(&mut self, account: &str, region: &str, hour: Hour) -> bool {
        if self.last.as_ref().is_some_and(|last| last.0 == account && last.1 == region && last.2 == hour) {
            return false;
        }
        let this = (account.to_owned(), region.to_owned(), hour);
        self.last = Some(this.clone());
        self.seen.insert(this)
    }
}

fn is_flow_log(kind: Kind) -> bool {
    matches!(kind, Kind::FlowText | Kind::FlowParquet | Kind::FlowEnvelope)
}

fn keep_reject(rejects: &mut Vec<Reject>, counted: &mut u64, reject: Reject) {
    *counted += 1;
    if rejects.len() < REJECT_ROWS_MAX {
        rejects.push(reject);
    }
}

fn first_line(text: &[u8]) -> &[u8] {
    let end = text.iter().take(1 << 16).position(|b| *b == b'\n').unwrap_or(text.len().min(1 << 16));
    &text[..end]
}

impl UnitReport {
    fn new(id: UnitId, meta: &UnitMeta, bytes: usize) -> Self {
        Self {
            record: UnitRecord {
                id,
                source: meta.source.to_owned(),
                key: meta.key.clone(),
                bytes: bytes as u64,
                ended: Ended::Applied,
                reason: String::new(),
                stream: String::new(),
                account: meta.facts.account.clone().unwrap_or_default(),
                region: meta.facts.region.clone().unwrap_or_default(),
                hour: None,
                delivered_at: meta.delivered_at,
                records: 0,
                rejects: 0,
                nodata: 0,
                skipdata: 0,
            },
            unrecognised: false,
            flow: FlowCounts::default(),
            api_kinds: BTreeMap::new(),
            api: 0,
            api_ignored: 0,
            api_out_of_range: 0,
            facts: Vec::new(),
            facts_counted: 0,
            rejects: Vec::new(),
            hours: None,
        }
    }

    /// Adds another record of the same unit (Kafka).
    #[cfg(feature = "kafka")]
    pub fn absorb(&mut self, other: Self) {
        self.record.absorb(&other.record);
        self.record.hour = self.record.hour.max(other.record.hour);
        self.record.delivered_at = self.record.delivered_at.max(other.record.delivered_at);
        self.flow.records += other.flow.records;
        self.flow.nodata += other.flow.nodata;
        self.flow.skipdata += other.flow.skipdata;
        self.flow.unplaced += other.flow.unplaced;
        self.flow.out_of_range += other.flow.out_of_range;
        self.flow.packets += other.flow.packets;
        self.flow.bytes += other.flow.bytes;
        for (kind, count) in other.api_kinds {
            *self.api_kinds.entry(kind).or_default() += count;
        }
        self.api += other.api;
        self.api_ignored += other.api_ignored;
        self.api_out_of_range += other.api_out_of_range;
        self.facts.extend(other.facts);
        self.facts_counted += other.facts_counted;
        self.rejects.extend(other.rejects);
    }

    /// A unit that could not even be fetched.
    #[must_use]
    pub fn unreadable(id: UnitId, meta: &UnitMeta, reason: String) -> Self {
        let mut report = Self::new(id, meta, 0);
        report.quarantine(reason);
        report
    }

    /// Lines and records that could not be read, those without a row included.
    #[must_use]
    pub fn rejects_counted(&self) -> u64 {
        self.record.rejects
    }

    fn quarantine(&mut self, reason: String) {
        self.record.ended = Ended::Quarantined;
        self.record.reason = reason;
    }

    fn ignore(&mut self, reason: &str) {
        self.record.ended = Ended::Ignored;
        self.record.reason = reason.to_owned();
    }

    fn note_hours(&mut self, newest: i64) {
        if newest > 0 {
            let hour = EventTime(newest).hour();
            self.hours = Some(self.hours.map_or((hour, hour), |(a, b)| (a.min(hour), b.max(hour))));
        }
    }
}
