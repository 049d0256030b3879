//! Laws of generated organisations: what must hold for every seed.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::attacks::{Attack, Ground, Kind, busy, plan};
use super::history::{self, Change, History};
use super::traffic::Traffic;
use super::world::{DAY, Holder, World};
use super::*;

const HOUR: i64 = 3600;
const START: i64 = 1_767_571_200;

fn organisation(seed: u64) -> (World, Vec<Attack>, History) {
    let mut world = World::build(seed, START, 21, 3, 24);
    let attacks = plan(&world, &Kind::ALL);
    let history = history::plan(&mut world, &busy(&attacks));
    (world, attacks, history)
}

#[test]
fn no_two_living_interfaces_of_a_network_share_an_address() {
    for seed in 0..20 {
        let (world, ..) = organisation(seed);
        let mut lives: BTreeMap<(usize, u32), Vec<(i64, i64)>> = BTreeMap::new();
        for eni in &world.enis {
            assert!(eni.from < eni.to, "seed {seed}: {} lives backwards", eni.id);
            lives.entry((eni.vpc, eni.ip)).or_default().push((eni.from, eni.to));
        }
        for ((vpc, ip), mut spans) in lives {
            spans.sort_unstable();
            assert!(spans.windows(2).all(|w| w[0].1 < w[1].0), "seed {seed}: {vpc} {} has two holders at once", flow::dotted(ip));
        }
    }
}

#[test]
fn holdings_say_who_was_configured_and_leave_no_gap() {
    for seed in 0..20 {
        let (world, _, history) = organisation(seed);
        for (index, eni) in world.enis.iter().enumerate() {
            let Holder::Lambda { group } = eni.holder else { continue };
            let mut at = eni.from.max(world.start);
            while at < eni.to.min(world.end) {
                let holding = &history.holdings[history.holding(index, at).unwrap()];
                let configured = |t: i64| -> BTreeSet<usize> {
                    let uses = |f: &usize| {
                        let mut configs = world.functions[*f].configs.iter();
                        configs.any(|c| c.group == group && c.subnets.contains(&eni.subnet) && c.from <= t && t < c.to)
                    };
                    (0..world.functions.len()).filter(uses).collect()
                };
                let could: BTreeSet<usize> = holding.could.iter().copied().collect();
                assert_eq!(could, configured(holding.from), "seed {seed}: {}", eni.id);
                assert_eq!(could, configured(holding.to - 1), "seed {seed}: {}", eni.id);
                at = holding.to;
            }
        }
    }
}

#[test]
fn every_organisation_is_hard_enough() {
    for seed in 0..20 {
        let (world, attacks, history) = organisation(seed);
        assert_eq!(attacks.len(), Kind::ALL.len(), "seed {seed}");
        let lone = history.holdings.iter().filter(|h| h.could.len() == 1).count();
        let shared = history.holdings.iter().filter(|h| h.could.len() > 1).count();
        assert!(lone >= 10 && shared >= 5, "seed {seed}: {lone} {shared}");
        // An address that went from one group's interface to another's, or to an instance's.
        let mut held: BTreeMap<(usize, u32), BTreeSet<String>> = BTreeMap::new();
        for holding in &history.holdings {
            let eni = &world.enis[holding.eni];
            held.entry((eni.vpc, eni.ip)).or_default().insert(eni.security_groups.join(","));
        }
        assert!(held.values().any(|groups| groups.len() > 1), "seed {seed}: no address changed hands");
        let bases: BTreeSet<u32> = world.vpcs.iter().flat_map(|v| v.subnets.iter().map(|s| s.base)).collect();
        assert_eq!(bases.len(), 3, "all networks overlap");
        for what in ["created", "deleted", "moved", "deployed", "recreated"] {
            let there = history.changes.iter().any(|c| match c.what {
                Change::FunctionCreated { .. } => what == "created",
                Change::FunctionDeleted { .. } => what == "deleted",
                Change::FunctionMoved { .. } => what == "moved",
                Change::CodeDeployed { .. } => what == "deployed",
                Change::EniDeleted { .. } => what == "recreated",
                _ => false,
            });
            assert!(there, "seed {seed}: nothing was {what}");
        }
    }
}

#[test]
fn attacks_stand_on_their_own() {
    for seed in 0..20 {
        let (world, attacks, history) = organisation(seed);
        let mut calm: BTreeSet<usize> = BTreeSet::new();
        for attack in &attacks {
            assert!(attack.start >= START + 15 * DAY && attack.start < attack.end && attack.end < world.end, "seed {seed}: {attack:?}");
            let Some(function) = attack.function else { continue };
            let home = world.functions[function].home;
            let near = |f: usize| f == function || (home.is_some() && world.functions[f].home.map(|h| h.1) == home.map(|h| h.1));
            let disturbed = history.changes_in(attack.start - DAY, attack.end).iter().any(|c| match c.what {
                Change::CodeDeployed { function } | Change::Tuned { function } | Change::FunctionCreated { function, .. } => near(function),
                _ => false,
            });
            assert!(!disturbed, "seed {seed}: a deployment within a day of {attack:?}");
            if attack.kind.ground() == Ground::Network && attack.kind.detector() == "new_peer" {
                assert!(calm.insert(home.unwrap().1), "seed {seed}: two new peers of one group");
            }
        }
    }
}

#[test]
fn records_lie_in_their_hour_at_living_interfaces() {
    for seed in 0..3 {
        let (world, attacks, history) = organisation(seed);
        for hour in (0..21 * 24).step_by(17).map(|h| START + h * HOUR) {
            for site in 0..world.sites.len() {
                let mut traffic = Traffic::new(&world, &history, site, hour);
                traffic.everyday(1.0);
                for attack in attacks.iter().filter(|a| a.site == site) {
                    traces::connections(&mut traffic, attack);
                }
                for row in &traffic.rows {
                    let eni = &world.enis[row.eni as usize];
                    assert!(hour <= row.start && row.start <= row.end && row.end < hour + HOUR, "{row:?}");
                    assert!(eni.from <= row.start && row.end < eni.to, "seed {seed}: {} is not there: {row:?}", eni.id);
                    assert_eq!(world.vpcs[eni.vpc].site, site);
                    assert!(row.status != flow::Status::Ok || [row.src, row.dst].contains(&eni.ip), "{row:?}");
                }
                for (holding, function) in &traffic.did {
                    assert!(history.holdings[*holding].could.contains(function), "seed {seed}: traffic of a function that could not");
                }
            }
        }
    }
}

fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().display().to_string(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, seed: u64| {
        let out = folder.path().join(name);
        let small = GenerateOptions { out: out.clone(), seed, accounts: 2, functions: 9, days: 3, ..GenerateOptions::default() };
        (run(&small).unwrap(), files(&out))
    };
    let first = make("a", 5);
    assert_eq!(first, make("b", 5));
    assert_ne!(first.1["truth.json"], make("c", 6).1["truth.json"]);
    let objects = first.1.keys().filter(|k| k.starts_with("AWSLogs/")).count() as u64;
    assert_eq!(first.0.objects, objects, "every object is counted");
}

#[test]
fn records_come_out_about_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    for (name, records) in [("more", 200_000u64), ("many", 600_000)] {
        let out = folder.path().join(name);
        let options = GenerateOptions { out, days: 4, functions: 8, records: Some(records), ..GenerateOptions::default() };
        let got = run(&options).unwrap().flow_records;
        assert!(got.abs_diff(records) < records / 4, "{records} asked, {got} made");
    }
}

#[test]
fn wrong_options_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let plain = GenerateOptions { out: folder.path().join("x"), days: 1, functions: 1, accounts: 1, ..GenerateOptions::default() };
    for (options, words) in [
        (GenerateOptions { attacks: vec!["frobnicate".to_owned()], ..plain.clone() }, "frobnicate"),
        (GenerateOptions { accounts: 0, ..plain.clone() }, "--accounts"),
        (GenerateOptions { days: 0, ..plain.clone() }, "--days"),
    ] {
        assert!(run(&options).unwrap_err().to_string().contains(words));
    }
    run(&plain).unwrap();
    assert!(run(&plain).unwrap_err().to_string().contains("already"), "nothing is overwritten");
}
