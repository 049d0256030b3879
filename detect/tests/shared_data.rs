//! Detector 13 and the changes against events that others recorded: the Stratus Red Team techniques, a benign account,
//! and rule cases of Panther. The data is not part of this repository; without it the tests say so and pass, but for CI.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use flowtrail_detect::hour::NONE;
use flowtrail_detect::{
    AccountHour, ApiRow, Facts, Finding, Fleet, FleetDelta, JudgeConfig, Observation, Severity, UnitRef, Window, api_row,
};
use flowtrail_detect::{AccountProfiles, judge_and_learn_window};
use flowtrail_enrich::{AddressBook, Timelines};
use flowtrail_ingest::cloudtrail::{Item, call_id, read};
use flowtrail_ingest::{Hour, UnitId};

#[allow(clippy::disallowed_methods)] // Where the data lies is a matter of the machine that tests.
fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("FLOWTRAIL_SHARED")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")), PathBuf::from);
    let found = root.join(path);
    if found.exists() {
        return Some(found);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing", found.display());
    println!("skipped: {} is missing", found.display());
    None
}

fn unzipped(path: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut text).unwrap();
    text
}

/// Judges and learns all events of a file, account by account, hour by hour.
fn replay(text: &[u8]) -> (Vec<Finding>, Vec<Observation>) {
    let mut hours: BTreeMap<(String, Hour), (Vec<String>, Vec<ApiRow>)> = BTreeMap::new();
    read(text, &mut |item| {
        if let Item::Call(call) = item {
            let (strings, rows) = hours.entry((call.account().unwrap_or("unknown").to_owned(), call.time.hour())).or_default();
            let mut intern = |text: &str| {
                let at = strings.iter().position(|s| s == text).unwrap_or_else(|| {
                    strings.push(text.to_owned());
                    strings.len() - 1
                });
                at as u32
            };
            let row = api_row(call, call_id(call), &mut intern);
            rows.push(ApiRow { position: call.index, ..row });
        }
    });
    let (timelines, book) = (Timelines::default(), AddressBook::default());
    let facts = Facts { timelines: &timelines, book: &book };
    let mut profiles: BTreeMap<String, AccountProfiles> = BTreeMap::new();
    let (mut findings, mut observations) = (Vec::new(), Vec::new());
    for ((account, hour), (strings, mut rows)) in hours {
        rows.sort_by_key(|r| (r.time, r.id));
        rows.dedup_by_key(|r| (r.time, r.id));
        let hour = AccountHour {
            account: account.clone(),
            hour,
            strings: strings.into_iter().map(Into::into).collect(),
            units: vec![UnitRef { id: UnitId(1), source: "folder".into(), key: "events.json".into() }],
            calls: rows,
            ..AccountHour::default()
        };
        assert!(hour.calls.iter().all(|c| c.service != NONE && c.action != NONE));
        let window = Window::build(&hour, &facts);
        let profile = profiles.entry(account).or_default();
        let verdict = judge_and_learn_window(&JudgeConfig::default(), profile, &Fleet::default(), &mut FleetDelta::default(), &window);
        findings.extend(verdict.findings);
        observations.extend(verdict.observations);
    }
    (findings, observations)
}

#[test]
fn stratus_techniques() {
    let Some(folder) = shared("data/stratus") else { return };
    let expected: BTreeMap<&str, (&str, &str)> = BTreeMap::from([
        ("aws.persistence.iam-backdoor-user", ("high", "T1098.001")),
        ("aws.persistence.iam-create-admin-user", ("high", "T1098.003")),
        ("aws.persistence.iam-create-backdoor-role", ("high", "T1136.003")),
        ("aws.persistence.lambda-backdoor-function", ("high", "T1546")),
    ]);
    let observed: BTreeMap<&str, &str> = BTreeMap::from([
        ("aws.persistence.lambda-overwrite-code", "code_change"),
        ("aws.persistence.lambda-layer-extension", "layer_change"),
    ]);
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (findings, observations) = replay(&std::fs::read(&path).unwrap());
        match expected.get(name.as_str()) {
            Some((severity, technique)) => {
                let [finding] = findings.as_slice() else { panic!("{name}: one finding, not {findings:?}") };
                assert_eq!((finding.detector.as_str(), finding.severity.as_str()), ("privilege_escalation", *severity), "{name}");
                assert!(
                    finding.tactics.iter().any(|t| t == "TA0003") && finding.techniques.iter().any(|t| t == technique),
                    "{name}: {:?}",
                    finding.techniques
                );
                assert!(
                    finding.explanation.len() >= 60
                        && !finding.evidence.is_empty()
                        && finding.evidence.iter().all(|e| e.event_id.is_some()),
                    "{name}"
                );
            }
            None => assert!(findings.iter().all(|f| f.severity <= Severity::Informational), "{name}: {findings:?}"),
        }
        let kinds: Vec<&str> = observations.iter().map(|o| o.kind.as_str()).collect();
        assert_eq!(kinds, observed.get(name.as_str()).copied().into_iter().collect::<Vec<_>>(), "{name}");
        seen += usize::from(expected.contains_key(name.as_str()) || observed.contains_key(name.as_str()));
    }
    assert_eq!(seen, expected.len() + observed.len());
}

#[test]
fn an_ordinary_account_is_silent() {
    let Some(path) = shared("data/cloudtrail/opensearch_ordinary_account.json.gz") else { return };
    let (findings, _) = replay(&unzipped(&path));
    assert!(findings.iter().all(|f| f.severity == Severity::Informational), "{findings:?}");
}

#[test]
fn rule_cases_of_others_do_not_explode() {
    let Some(path) = shared("data/panther/cases.jsonl.gz") else { return };
    let logs: Vec<String> = String::from_utf8(unzipped(&path))
        .unwrap()
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap().get("log").map(ToString::to_string))
        .collect();
    let (findings, _) = replay(logs.join("\n").as_bytes());
    let loud: Vec<&str> = findings.iter().filter(|f| f.severity >= Severity::Low).map(|f| f.title.as_str()).collect();
    assert!((4..=10).contains(&loud.len()), "{loud:?}");
    assert!(findings.iter().all(|f| f.detector == "privilege_escalation"));
}
