//! `flowtrail generate`: whole organisations, made up, with attacks in them and the truth about both.
//!
//! Read in this order: [`world`] and [`build`] (accounts, networks, functions and their habits), [`history`] (what changes, and the
//! truth about who held which interface), [`attacks`] (who does what he should not), [`traffic`], [`life`] and [`traces`] (one hour's
//! flow records and API calls), [`maker`] and [`object`] (the files). Everything is decided by the seed; hours are made independently of each other, in any order
//! and by several threads, and memory holds one hour a thread.

mod archetype;
mod attacks;
mod build;
mod event;
mod flow;
mod history;
mod life;
mod maker;
mod object;
mod rng;
mod snapshots;
#[cfg(test)]
mod tests;
mod traces;
mod traffic;
mod world;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::bail;
use flowtrail_ingest::EventTime;
use serde_json::json;

use attacks::{Attack, Kind};
use history::History;
use maker::Maker;
use world::World;

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
                // What is still held is held as far as the logs go; nothing is known of later.
                "to": time(holding.to.min(world.end)),
                "could": arns(&mut holding.could.iter().copied()),
                "did": arns(&mut did.range((index, 0)..(index + 1, 0)).map(|&(_, f)| f)),
            })
            .to_string()
        })
        .collect();
    format!("{{\"attacks\":[\n{}\n],\"names\":[\n{}\n]}}\n", attacks.join(",\n"), names.join(",\n"))
}
