//! `collect` over three accounts that moto plays: the snapshots name flows.

use std::process::Command;

use serde_json::Value;

use crate::harness::services::{moto, python, script};
use crate::harness::tables::table;
use crate::harness::{LIMIT, Outcome, flowtrail, number, replay_json};

#[test]
fn snapshots_of_three_accounts_name_flows() {
    let Some(endpoint) = moto() else { return };
    let made = Outcome::of(Command::new(python()).arg(script("moto-world.py")).arg(&endpoint), LIMIT);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let world: Value = serde_json::from_str(&made.stdout).unwrap();
    let accounts: Vec<&str> = world["accounts"].as_array().unwrap().iter().map(|account| account.as_str().unwrap()).collect();
    assert_eq!(accounts.len(), 3);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let config = folder.path().join("flowtrail.toml");
    let text = format!(
        "[aws]\nregion = \"us-east-1\"\nendpoint_url = {endpoint:?}\n[collect]\naccounts = {accounts:?}\nregions = [\"us-east-1\", \"eu-west-1\"]\nrole = \"flowtrail-read\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let snapshots = folder.path().join("snapshots");
    let mut command = flowtrail();
    command.arg("collect").arg("--out").arg(&snapshots).arg("--config").arg(&config);
    let collected =
        Outcome::of(command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test").env("AWS_REGION", "us-east-1"), LIMIT);
    assert_eq!(collected.code, Some(0), "{}", collected.stderr);

    // Each interface talks once, right after the snapshot.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let interfaces = world["interfaces"].as_array().unwrap();
    let header = "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status\n";
    let lines = interfaces.iter().map(|one| {
        let text = |key: &str| one[key].as_str().unwrap();
        format!("2 {} {} {} 203.0.113.9 40000 443 6 10 1000 {} {} ACCEPT OK\n", text("account"), text("eni"), text("ip"), now - 30, now)
    });
    let log = folder.path().join("flows.log");
    std::fs::write(&log, header.to_owned() + &lines.collect::<String>()).unwrap();
    let out = folder.path().join("out");
    replay_json(&[snapshots, log], &out, &["--tables", "findings,eni_owners,flows"]);
    let (owners, flows) = (table(&out, "eni_owners"), table(&out, "flows"));
    assert_eq!(flows.len(), interfaces.len());
    for one in interfaces {
        let (eni, functions) = (one["eni"].as_str().unwrap(), one["functions"].as_array().unwrap());
        let known: Vec<_> = owners.iter().filter(|row| row["eni_id"] == eni).collect();
        assert!(!known.is_empty(), "{eni} has no owner row");
        assert!(known.iter().all(|row| row["account_id"] == one["account"].as_str().unwrap()), "{known:?}");
        let flow = flows.iter().find(|row| row["interface_id"] == eni).unwrap();
        for function in functions {
            let arn = function.as_str().unwrap();
            let named = known.iter().any(|row| {
                row.get("owner").is_some_and(|owner| owner == arn) || row.get("candidates").is_some_and(|list| list.contains(arn))
            });
            assert!(named, "{eni} should name {arn}: {known:?}");
        }
        match functions.as_slice() {
            [only] => {
                // One snapshot without management events around it proves nothing about the minute before: then it is a candidate.
                match flow.get("function_arn") {
                    Some(arn) => assert_eq!(Some(arn.as_str()), only.as_str(), "{flow:?}"),
                    None => assert_eq!(flow["attribution"], "candidates", "{flow:?}"),
                }
                assert!(known.iter().all(|row| row["owner_kind"] == "lambda"), "{known:?}");
            }
            [] => {
                assert!(known.iter().all(|row| row["owner_kind"] != "lambda") && !flow.contains_key("function_arn"), "{known:?} {flow:?}")
            }
            _ => assert!(known.iter().all(|row| row["attribution"] == "candidates"), "several share it: {known:?}"),
        }
    }
}

#[test]
fn an_account_that_refuses_is_said_and_the_others_are_collected() {
    let Some(endpoint) = moto() else { return };
    let made = Outcome::of(Command::new(python()).arg(script("moto-world.py")).arg(&endpoint), LIMIT);
    let world: Value = serde_json::from_str(&made.stdout).unwrap();
    let account = world["accounts"][0].as_str().unwrap();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let config = folder.path().join("flowtrail.toml");
    // Twelve letters are no account: the role's ARN is refused.
    let text = format!(
        "[aws]\nregion = \"us-east-1\"\nendpoint_url = {endpoint:?}\n[collect]\naccounts = [{account:?}, \"not-an-accou\"]\nregions = [\"us-east-1\"]\nrole = \"flowtrail-read\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let snapshots = folder.path().join("snapshots");
    let mut command = flowtrail();
    command.arg("collect").arg("--out").arg(&snapshots).arg("--config").arg(&config);
    let collected =
        Outcome::of(command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test").env("AWS_REGION", "us-east-1"), LIMIT);
    assert!(matches!(collected.code, Some(1 | 2)), "{collected:?}");
    assert!(collected.stderr.contains("not-an-accou"), "{}", collected.stderr);
}

/// With a `[collect]` section `run` takes the snapshots itself: they are facts in its state before they name anything.
#[test]
fn run_collects_by_itself_and_says_what_it_could_not() {
    let Some(endpoint) = moto() else { return };
    let made = Outcome::of(Command::new(python()).arg(script("moto-world.py")).arg(&endpoint), LIMIT);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let world: Value = serde_json::from_str(&made.stdout).unwrap();
    let accounts: Vec<&str> = world["accounts"].as_array().unwrap().iter().map(|account| account.as_str().unwrap()).collect();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let input = folder.path().join("in");
    std::fs::create_dir(&input).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let header = "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status\n";
    let interfaces = world["interfaces"].as_array().unwrap();
    let lines = interfaces.iter().map(|one| {
        let text = |key: &str| one[key].as_str().unwrap();
        format!("2 {} {} {} 203.0.113.9 40000 443 6 10 1000 {} {} ACCEPT OK\n", text("account"), text("eni"), text("ip"), now - 30, now)
    });
    std::fs::write(input.join("flows.log"), header.to_owned() + &lines.collect::<String>()).unwrap();
    let config = folder.path().join("flowtrail.toml");
    let out = folder.path().join("out");
    let run = |region: &str| {
        let text = format!(
            "[output]\nlocation = {out:?}\n[aws]\nregion = \"us-east-1\"\nendpoint_url = {endpoint:?}\n[collect]\naccounts = {accounts:?}\nregions = [\"us-east-1\", {region:?}]\nrole = \"flowtrail-read\"\n[[source]]\nkind = \"folder\"\nlocation = {input:?}\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = flowtrail();
        command.args(["run", "--once", "--json", "--config"]).arg(&config);
        Outcome::of(command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test").env("AWS_REGION", "us-east-1"), LIMIT)
    };
    let outcome = run("eu-west-1");
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let summary = outcome.summary();
    assert!(number(&summary, &["records", "facts"]) >= interfaces.len() as u64, "{summary}");
    let owners = table(&out, "eni_owners");
    for one in interfaces {
        let eni = one["eni"].as_str().unwrap();
        assert!(owners.iter().any(|row| row["eni_id"] == eni), "{eni} has no owner row");
    }
    // A region that nobody knows: said, and the run goes on.
    let outcome = run("no-such-region-1");
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}
