//! Interfaces of real accounts.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use flowtrail_enrich::{Attribution, EniOwnerRow, Fact, Timelines, facts_of_file};
use flowtrail_ingest::EventTime;
use serde_json::Value;

/// The folder of data by others; skipped where it is not at hand, unless this is the build that must have it.
#[allow(clippy::disallowed_methods)] // Where the data lies is a matter of the machine that tests.
fn data(path: &str) -> Option<String> {
    let root = std::env::var("FLOWTRAIL_SHARED")
        .map_or_else(|_| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")), PathBuf::from);
    let file = root.join("data").join(path);
    match std::fs::read_to_string(&file) {
        Ok(text) => Some(text),
        Err(error) => {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{}: {error}", file.display());
            println!("skipped: {} is not there", file.display());
            None
        }
    }
}

fn rows(facts: Vec<Fact>) -> BTreeMap<String, Vec<EniOwnerRow>> {
    let timelines = Timelines::build(&facts.into_iter().collect::<BTreeSet<_>>());
    let mut by_eni: BTreeMap<String, Vec<EniOwnerRow>> = BTreeMap::new();
    for row in timelines.owner_rows(EventTime(1_800_000_000)) {
        by_eni.entry(row.eni_id.clone()).or_default().push(row);
    }
    by_eni
}

#[test]
fn described_functions_are_candidates_and_no_more() {
    let Some(snapshot) = data("eni/sbom_harbor_network_interfaces.json") else { return };
    let expected = data("eni/sbom_harbor_expected_functions.jsonl").unwrap();
    let by_eni = rows(facts_of_file(snapshot.as_bytes(), "eni.json", None).unwrap());
    let mut lambda = 0;
    for line in expected.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let rows = &by_eni[line["NetworkInterfaceId"].as_str().unwrap()];
        match line["function_name"].as_str() {
            Some(name) => {
                lambda += 1;
                assert!(rows.iter().all(|r| r.owner_kind == "lambda" && r.attribution == Attribution::Candidates), "{rows:?}");
                assert!(rows.iter().any(|r| r.candidates.iter().any(|c| c.arn.rsplit(':').next() == Some(name))), "{name}: {rows:?}");
            }
            None => assert!(rows.iter().all(|r| r.owner_kind != "lambda"), "{rows:?}"),
        }
    }
    assert_eq!((lambda, by_eni.len()), (16, 17));
}

#[test]
fn recorded_responses() {
    let Some(recorded) = data("eni/c7n_ec2_DescribeNetworkInterfaces.jsonl") else { return };
    for dated in [None, Some(EventTime(1_750_000_000))] {
        let (mut facts, mut lambda, mut all) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for line in recorded.lines() {
            let response = serde_json::from_str::<Value>(line).unwrap()["response"].take();
            facts.extend(facts_of_file(response.to_string().as_bytes(), "eni.json", dated).unwrap());
            for eni in response["NetworkInterfaces"].as_array().into_iter().flatten() {
                let id = eni["NetworkInterfaceId"].as_str().unwrap().to_owned();
                if eni["InterfaceType"] == "lambda" || eni["Description"].as_str().is_some_and(|d| d.starts_with("AWS Lambda VPC ENI")) {
                    lambda.insert(id.clone());
                }
                all.insert(id);
            }
        }
        let by_eni = rows(facts);
        let got: BTreeSet<String> =
            by_eni.iter().filter(|(_, rows)| rows.iter().any(|r| r.owner_kind == "lambda")).map(|(eni, _)| eni.clone()).collect();
        assert_eq!(got, lambda);
        assert_eq!(by_eni.into_keys().collect::<BTreeSet<_>>(), all);
    }
}

#[test]
fn a_demo_account_ties_its_function_to_its_interfaces() {
    let Some(interfaces) = data("eni/cloudmapper_demo/ec2-describe-network-interfaces.json") else { return };
    let functions = data("eni/cloudmapper_demo/lambda-list-functions.json").unwrap();
    let mut facts = facts_of_file(interfaces.as_bytes(), "a", None).unwrap();
    let seen = facts.len();
    facts.extend(facts_of_file(functions.as_bytes(), "b", None).unwrap());
    assert!(seen > 0 && facts.len() > seen);
    assert_eq!(rows(facts).len(), seen);
}
