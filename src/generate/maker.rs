//! Makes the hours and writes their objects: several days at a time, each by one thread, one hour after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::attacks::Attack;
use super::event::Event;
use super::flow::{self, Layout, Place, Row};
use super::history::History;
use super::rng::Rng;
use super::traffic::Traffic;
use super::world::{DAY, World};
use super::{life, object, snapshots, traces};

const HOUR: i64 = 3600;

/// What was made, by one thread or by all.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) objects: u64,
    pub(crate) flow_records: u64,
    pub(crate) api_calls: u64,
    pub(crate) did: BTreeSet<(usize, usize)>,
}

pub(crate) struct Maker<'a> {
    pub(crate) world: &'a World,
    pub(crate) history: &'a History,
    pub(crate) attacks: &'a [Attack],
    pub(crate) out: &'a Path,
    /// Connections per natural connection.
    pub(crate) scale: f64,
}

impl Maker<'_> {
    /// Finds the scale that gives about `records` flow records, by making some days without writing them.
    pub(crate) fn scale_for(&self, records: u64) -> f64 {
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
    pub(crate) fn days(&self) -> anyhow::Result<Made> {
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
            traces::connections(&mut traffic, attack);
            events.extend(traces::events(self.world, attack).into_iter().filter(|e| hour <= e.at && e.at < hour + HOUR));
        }
        made.did.append(&mut traffic.did);
        made.api_calls += events.len() as u64;
        let mut rng = Rng::new(self.world.seed, &[60, site as u64, number as u64]);
        self.flow_objects(site, hour, traffic.rows, &mut rng, made)?;
        self.trail_objects(site, hour, events, &mut rng, made)
    }

    /// The hour's records in one object, or in two: each named after the last five minutes that it holds.
    fn flow_objects(&self, site: usize, hour: i64, mut rows: Vec<Row>, rng: &mut Rng, made: &mut Made) -> anyhow::Result<()> {
        rows.sort_by_key(|r| (r.eni, r.end, r.start, r.src_port, r.dst_port, r.egress));
        let place = &self.world.sites[site];
        let (half, last) = (hour + HOUR / 2, hour + HOUR - 300);
        if place.account % 3 == 1 && (hour - self.world.start) / DAY == 4 {
            // For a day somebody watches one subnet with a flow log of his own: the same traffic, told twice.
            let watched: Vec<Row> = rows.iter().filter(|r| self.world.enis[r.eni as usize].subnet == 0).cloned().collect();
            self.flow_object(site, (&place.second_flow_log, Layout::Wide), last, &watched, rng, made)?;
        }
        let log = (place.flow_log.as_str(), place.layout);
        if rng.chance(0.08) {
            let (early, late): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|r| r.end < half);
            self.flow_object(site, log, half - 300, &early, rng, made)?;
            self.flow_object(site, log, last, &late, rng, made)
        } else {
            self.flow_object(site, log, last, &rows, rng, made)
        }
    }

    /// One object of the flow log `log` (id and layout), its window beginning at `at`.
    fn flow_object(&self, site: usize, log: (&str, Layout), at: i64, rows: &[Row], rng: &mut Rng, made: &mut Made) -> anyhow::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let place = &self.world.sites[site];
        let account = &self.world.account_of(site).id;
        let zones = ["az1", "az2"].map(|zone| format!("{}-{zone}", place.region.zone_prefix));
        let mut text = Vec::with_capacity(rows.len() * 128);
        text.extend_from_slice(log.1.header().as_bytes());
        text.push(b'\n');
        for row in rows {
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
            flow::write_row(&mut text, log.1, &about, row);
        }
        let key = object::flow_key(account, place.region.name, log.0, at, &rng.hex(8));
        object::write(self.out, &key, &object::gzip(&text)?)?;
        made.objects += 1;
        made.flow_records += rows.len() as u64;
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
    pub(crate) fn snapshots(&self) -> anyhow::Result<()> {
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
