//! `flowtrail generate`: whole organisations, made up, with attacks in them and the truth about both.
//!
//! Read in this order: [`world`] (accounts, networks, functions and their habits), [`history`] (what changes, and the truth about
//! who held which interface), [`attacks`] (who does what he should not), [`traffic`] and [`life`] (one hour's flow records and API
//! calls), [`object`] (the files). Everything is decided by the seed; hours are made independently of each other, in any order
//! and by several threads, and memory holds one hour a thread.

mod archetype;
mod attacks;
mod event;
mod flow;
mod history;
mod life;
mod object;
mod rng;
mod snapshots;
mod traffic;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, bail};
use flowtrail_ingest::EventTime;
use serde_json::{Value, json};

use attacks::{Attack, Kind};
use event::Event;
use flow::{Place, Row};
use history::History;
use rng::Rng;
use traffic::Traffic;
use world::{DAY, STILL, World};

const HOUR: i64 = 3600;

/// What to make.
#[derive(Clone, Debug)]
pub(crate) struct GenerateOptions {
    /// A folder that does not hold a generated organisation yet.
    pub(crate) out: PathBuf,
    pub(crate) seed: u64,
    pub(crate) accounts: usize,
    /// Over all accounts.
    pub(crate) functions: usize,
    pub(crate) days: u32,
    pub(crate) start: EventTime,
    /// Names of kinds, `all` or `none`.
    pub(crate) attacks: Vec<String>,
    /// About how many flow records there shall be; by default what the functions give.
    pub(crate) records: Option<u64>,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            out: PathBuf::new(),
            seed: 1,
            accounts: 3,
            functions: 24,
            days: 21,
            // 2026-01-05, a Monday.
            start: EventTime(1_767_571_200),
            attacks: vec!["all".to_owned()],
            records: None,
        }
    }
}

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) objects: u64,
    /// Lines, those without data included.
    pub(crate) flow_records: u64,
    /// Calls, each counted once.
    pub(crate) api_calls: u64,
    pub(crate) attacks: usize,
    pub(crate) holdings: usize,
}

/// Names of all kinds of attack.
pub(crate) fn attack_names() -> Vec<&'static str> {
    Kind::ALL.iter().map(|k| k.name()).collect()
}

/// Makes an organisation.
///
/// # Errors
/// Options that make no sense, a folder that is taken, and what the file system says.
pub(crate) fn run(options: &GenerateOptions) -> anyhow::Result<Summary> {
    let kinds = kinds(&options.attacks)?;
    if options.accounts == 0 || options.accounts > 10_000 {
        bail!("--accounts must lie between 1 and 10000, not {}", options.accounts);
    }
    if options.functions > 100_000 {
        bail!("--functions must be at most 100000, not {}", options.functions);
    }
    if options.days == 0 || options.days > 3_660 {
        bail!("--days must lie between 1 and 3660, not {}", options.days);
    }
    for taken in ["AWSLogs", "truth.json"] {
        if options.out.join(taken).exists() {
            bail!("{} holds a generated organisation already: give another folder or remove it", options.out.display());
        }
    }
    let start = options.start.0 - options.start.0.rem_euclid(HOUR);
    let mut world = World::build(options.seed, start, i64::from(options.days), options.accounts, options.functions);
    let attacks = attacks::plan(&world, &kinds);
    for attack in attacks.iter().filter(|a| a.kind == Kind::CodeSwap) {
        if let Some(function) = attack.function {
            world.functions[function].modified.push(attack.start);
        }
    }
    let history = history::plan(&mut world, &attacks::busy(&attacks));
    let maker = Maker { scale: 1.0, world: &world, history: &history, attacks: &attacks, out: &options.out };
    let maker = Maker { scale: options.records.map_or(1.0, |records| maker.scale_for(records)), ..maker };
    let made = maker.days()?;
    maker.snapshots()?;
    object::write(&options.out, "lists/c2.csv", attacks::listed(&world, &attacks).as_bytes())?;
    object::write(&options.out, "truth.json", truth(&world, &history, &attacks, &made.did).as_bytes())?;
    Ok(Summary {
        objects: made.objects,
        flow_records: made.flow_records,
        api_calls: made.api_calls,
        attacks: attacks.len(),
        holdings: history.holdings.len(),
    })
}

fn kinds(names: &[String]) -> anyhow::Result<Vec<Kind>> {
    let mut kinds = Vec::new();
    for name in names.iter().map(|n| n.trim()).filter(|n| !n.is_empty()) {
        match name {
            "all" => kinds.extend(Kind::ALL),
            "none" => {}
            _ => match Kind::ALL.iter().find(|k| k.name() == name) {
                Some(kind) => kinds.push(*kind),
                None => bail!("no attack is called {name:?}; there are {}", attack_names().join(", ")),
            },
        }
    }
    Ok(kinds)
}

/// What one thread made.
#[derive(Debug, Default)]
struct Made {
    objects: u64,
    flow_records: u64,
    api_calls: u64,
    did: BTreeSet<(usize, usize)>,
}

struct Maker<'a> {
    world: &'a World,
    history: &'a History,
    attacks: &'a [Attack],
    out: &'a Path,
    /// Connections per natural connection.
    scale: f64,
}

impl Maker<'_> {
    /// Finds the scale that gives about `records` flow records, by making some days without writing them.
    fn scale_for(&self, records: u64) -> f64 {
        let days = self.world.days();
        // A working day and a day off, past the first days in which everybody shows everything.
        let day_of = |weekday: i64| (3..days).find(|d| (self.world.start / DAY + d + 3).rem_euclid(7) == weekday).unwrap_or(days - 1);
        let (work, off) = (day_of(2), day_of(5));
        let count = |day: i64, scale: f64| -> u64 {
            (0..24)
                .map(|hour| (0..self.world.sites.len()).map(|site| self.rows(site, day * 24 + hour, scale).len() as u64).sum::<u64>())
                .sum()
        };
        let mut scale = 1.0;
        for _ in 0..3 {
            let natural = (count(work, scale) * 5 + count(off, scale) * 2) as f64 / 7.0 * days as f64;
            scale = (scale * records as f64 / natural.max(1.0)).clamp(0.001, 1e6);
        }
        scale
    }

    fn rows(&self, site: usize, hour: i64, scale: f64) -> Vec<Row> {
        let mut traffic = Traffic::new(self.world, self.history, site, self.world.start + hour * HOUR);
        traffic.everyday(scale);
        traffic.rows
    }

    /// All days, shared out over the cores.
    fn days(&self) -> anyhow::Result<Made> {
        let days = self.world.days() as usize;
        let next = AtomicUsize::new(0);
        let work = || -> anyhow::Result<Made> {
            let mut made = Made::default();
            loop {
                let day = next.fetch_add(1, Ordering::Relaxed);
                if day >= days {
                    return Ok(made);
                }
                for hour in day * 24..(day + 1) * 24 {
                    for site in 0..self.world.sites.len() {
                        self.hour(site, hour as i64, &mut made)?;
                    }
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(days).min(16);
        let mut all = Made::default();
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            for worker in workers {
                let made = worker.join().map_err(|_| anyhow::anyhow!("a thread that makes hours broke down"))??;
                all.objects += made.objects;
                all.flow_records += made.flow_records;
                all.api_calls += made.api_calls;
                all.did.extend(made.did);
            }
            anyhow::Ok(())
        })?;
        Ok(all)
    }

    /// One site's hour: its flow records and its API calls.
    fn hour(&self, site: usize, number: i64, made: &mut Made) -> anyhow::Result<()> {
        let hour = self.world.start + number * HOUR;
        let mut traffic = Traffic::new(self.world, self.history, site, hour);
        traffic.everyday(self.scale);
        let mut events = life::everyday(&mut traffic);
        for attack in self.attacks.iter().filter(|a| a.site == site && a.start - HOUR < hour + HOUR && hour < a.end + HOUR) {
            attacks::connections(&mut traffic, attack);
            events.extend(attacks::events(self.world, attack).into_iter().filter(|e| hour <= e.at && e.at < hour + HOUR));
        }
        made.did.append(&mut traffic.did);
        made.flow_records += traffic.rows.len() as u64;
        made.api_calls += events.len() as u64;
        let mut rng = Rng::new(self.world.seed, &[60, site as u64, number as u64]);
        self.flow_objects(site, hour, traffic.rows, &mut rng, made)?;
        self.trail_objects(site, hour, events, &mut rng, made)
    }

    /// The hour's records in one object, or in two: each named after the last five minutes that it holds.
    fn flow_objects(&self, site: usize, hour: i64, mut rows: Vec<Row>, rng: &mut Rng, made: &mut Made) -> anyhow::Result<()> {
        rows.sort_by_key(|r| (r.eni, r.end, r.start, r.src_port, r.dst_port, r.egress));
        let half = hour + HOUR / 2;
        let (early, late): (Vec<Row>, Vec<Row>) =
            if rng.chance(0.08) { rows.into_iter().partition(|r| r.end < half) } else { (Vec::new(), rows) };
        let place = &self.world.sites[site];
        let account = &self.world.account_of(site).id;
        for (at, rows) in [(half - 300, early), (hour + HOUR - 300, late)] {
            if rows.is_empty() {
                continue;
            }
            let mut text = Vec::with_capacity(rows.len() * 128);
            text.extend_from_slice(place.layout.header().as_bytes());
            text.push(b'\n');
            // Zone ids by zone letter, made once.
            let zones = ['a', 'b'].map(|zone| format!("{}-az{}", place.region.zone_prefix, if zone == 'a' { 1 } else { 2 }));
            for row in &rows {
                let eni = &self.world.enis[row.eni as usize];
                let vpc = &self.world.vpcs[eni.vpc];
                let subnet = &vpc.subnets[eni.subnet];
                let about = Place {
                    account,
                    region: place.region.name,
                    vpc: &vpc.id,
                    subnet: &subnet.id,
                    zone: &zones[usize::from(subnet.zone == 'b')],
                    instance: eni.instance().unwrap_or("-"),
                    eni: &eni.id,
                    s3: (place.region.s3, place.region.s3 + 0xffff),
                };
                flow::write_row(&mut text, place.layout, &about, row);
            }
            let key = object::flow_key(account, place.region.name, &place.flow_log, at, &rng.hex(8));
            object::write(self.out, &key, &object::gzip(&text)?)?;
            made.objects += 1;
        }
        Ok(())
    }

    /// The hour's calls, an object for each region they are recorded in. Now and then a second object brings some of them late,
    /// and some again.
    fn trail_objects(&self, site: usize, hour: i64, mut events: Vec<Event>, rng: &mut Rng, made: &mut Made) -> anyhow::Result<()> {
        let account = &self.world.account_of(site).id;
        events.sort_by_key(|e| e.at);
        let mut by_region: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for event in &events {
            by_region.entry(event.region).or_default().push(event.json(self.world, rng));
        }
        for (region, mut records) in by_region {
            let mut put = |at: i64, records: &[Value], rng: &mut Rng| {
                let body = serde_json::to_vec(&json!({ "Records": records }))?;
                object::write(self.out, &object::trail_key(account, region, at, &rng.alphanumeric(16)), &object::gzip(&body)?)?;
                made.objects += 1;
                anyhow::Ok(())
            };
            let delivered = hour + HOUR + rng.range(4, 10) * 60;
            if records.len() > 4 && rng.chance(0.03) {
                let late = records.split_off(records.len() - 1 - rng.below(2) as usize);
                let again = records[..rng.below(3) as usize].iter();
                let second: Vec<Value> = late.iter().chain(again).cloned().collect();
                put(delivered + 20 * 60, &second, rng)?;
            }
            put(delivered, &records, rng)?;
        }
        Ok(())
    }

    /// Snapshots of interfaces and functions: at the beginning, and then as the site's habit is.
    fn snapshots(&self) -> anyhow::Result<()> {
        for (site, place) in self.world.sites.iter().enumerate() {
            let mut rng = Rng::new(self.world.seed, &[61, site as u64]);
            // A little before the first record, so that all of them have it behind them.
            let mut times = vec![self.world.start - 20 * 60];
            let step = if place.snapshot_days == 0 { (self.world.days() - 1).max(1) } else { place.snapshot_days };
            let mut day = step;
            while day < self.world.days() {
                times.push(self.world.start + day * DAY + rng.range(3600, 4 * 3600));
                day += step;
            }
            let account = &self.world.account_of(site).id;
            for at in times {
                for (what, content) in
                    [("eni", snapshots::interfaces(self.world, site, at)), ("functions", snapshots::functions(self.world, site, at))]
                {
                    let path = object::snapshot_path(account, place.region.name, at, what);
                    object::write(self.out, &path, &serde_json::to_vec(&content)?).context("while writing snapshots")?;
                }
            }
        }
        Ok(())
    }
}

/// `truth.json`: one attack and one holding a line.
fn truth(world: &World, history: &History, attacks: &[Attack], did: &BTreeSet<(usize, usize)>) -> String {
    let time = |at: i64| EventTime(at).to_string();
    let arns = |functions: &mut dyn Iterator<Item = usize>| functions.map(|f| world.functions[f].arn.as_str()).collect::<BTreeSet<_>>();
    let attacks: Vec<String> = attacks
        .iter()
        .map(|a| {
            json!({
                "kind": a.kind.name(), "account_id": world.account_of(a.site).id, "function": a.function.map(|f| &world.functions[f].arn),
                "detector": a.kind.detector(), "start": time(a.start), "end": time(a.end), "subject": a.subject,
                "strength": (a.strength * 100.0).round() / 100.0,
            })
            .to_string()
        })
        .collect();
    let names: Vec<String> = history
        .holdings
        .iter()
        .enumerate()
        .map(|(index, holding)| {
            let eni = &world.enis[holding.eni];
            json!({
                "eni": eni.id, "ip": flow::dotted(eni.ip), "from": time(holding.from),
                "to": (holding.to < STILL).then(|| time(holding.to)),
                "could": arns(&mut holding.could.iter().copied()),
                "did": arns(&mut did.range((index, 0)..(index + 1, 0)).map(|&(_, f)| f)),
            })
            .to_string()
        })
        .collect();
    format!("{{\"attacks\":[\n{}\n],\"names\":[\n{}\n]}}\n", attacks.join(",\n"), names.join(",\n"))
}
