#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::new_api_call::{FunctionLook, NewApiCall};
use super::new_peer::{NetworkLook, NetworkProfile, NewPeer};
use super::privilege_escalation::{PrincipalLook, PrivilegeEscalation};
use super::scan::Scan;
use super::threat_list::ThreatList;
use super::*;
use crate::hour::AccountHour;
use crate::judge::{Facts, judge_and_learn};
use crate::testing::{ACCOUNT, Lane, Maker, START, said};
use crate::window::Window;

const OWN: &str = "10.0.0.5";

/// An ordinary hour of one interface and one function.
fn usual(hour: i32) -> Maker {
    let mut maker = Maker::new(hour);
    maker.talk("eni-1", OWN, "203.0.113.9", 443, 4000, 9000).talk("eni-1", OWN, "10.0.9.20", 5432, 2000, 8000);
    maker.call("orders", "dynamodb:Query", "").call("orders", "sqs:SendMessage", "");
    maker
}

/// A lane that has seen `days` ordinary days, eight hours each.
fn grown(days: i32) -> Lane {
    let mut lane = Lane::default();
    for day in 0..days {
        for hour in 8..16 {
            let findings = lane.live(&usual(START + day * 24 + hour));
            assert_eq!(said(&findings), [], "an ordinary hour is silent");
        }
    }
    lane
}

fn check(lane: &mut Lane, hour: &Maker, expected: &[(&str, &str, &str)]) -> Vec<Finding> {
    let findings = lane.live(hour);
    let mut got = said(&findings);
    got.sort_unstable();
    assert_eq!(got, expected);
    for finding in &findings {
        assert!(finding.explanation.len() >= 200 && finding.explanation.contains("Learned:"), "{}", finding.explanation);
        assert!(finding.explanation.contains("silent") || finding.explanation.contains("information only"), "{}", finding.explanation);
        assert!(finding.title.starts_with(&finding.entity_name) && !finding.title.contains('\n'), "{}", finding.title);
        assert!(!finding.evidence.is_empty() && !finding.tactics.is_empty() && !finding.next_steps.is_empty(), "{}", finding.title);
        assert!(
            finding.finding_id.len() == 32
                && finding.first_seen >= finding.window_start.plus(-86_400)
                && finding.last_seen <= finding.window_end
        );
        for json in [&finding.learned, &finding.parameters] {
            assert!(serde_json::from_str::<Value>(json).unwrap().is_object());
        }
    }
    findings
}

#[test]
fn a_steady_entity_meets_a_stranger() {
    let mut lane = grown(16);
    let now = START + 16 * 24 + 8;
    let mut hour = usual(now);
    hour.talk("eni-1", OWN, "198.51.100.7", 4444, 12_000, 3000);
    let findings = check(&mut lane, &hour, &[("new_peer", "low", "198.51.100.7")]);
    let finding = &findings[0];
    assert_eq!(finding.title, "eni-1 talked to 198.51.100.7:4444/tcp for the first time");
    assert_eq!((finding.bytes_out, finding.bytes_in, finding.peer_port), (12_000, 3000, Some(4444)));
    for words in
        ["12 KB out, 3.0 KB in", "in 16 days and 128 active hours it had 2 peers", "port 4444/tcp is new for it too", "a.log.gz line"]
    {
        assert!(finding.explanation.contains(words), "{words} in {}", finding.explanation);
    }
    // Met once, it is known.
    let mut again = usual(now + 1);
    again.talk("eni-1", OWN, "198.51.100.7", 4444, 12_000, 3000);
    check(&mut lane, &again, &[]);
    // Neighbours of a known public address are no strangers.
    let mut neighbour = usual(now + 2);
    neighbour.talk("eni-1", OWN, "203.0.113.77", 443, 1000, 1000);
    check(&mut lane, &neighbour, &[]);
}

#[test]
fn in_warm_up_it_only_learns() {
    let mut lane = grown(13);
    let mut hour = usual(START + 13 * 24 + 8);
    hour.talk("eni-1", OWN, "198.51.100.7", 4444, 12_000, 3000).call("orders", "iam:CreateAccessKey", "AccessDenied: no such thing");
    let findings = lane.live(&hour);
    assert!(findings.iter().all(|f| f.detector == "privilege_escalation" || f.detector == "threat_list"), "{:?}", said(&findings));
    let learning = lane.profiles.learning(flowtrail_ingest::Hour(START + 13 * 24).day());
    assert_eq!(
        learning.iter().map(|l| (l.detector.as_str(), l.entities, l.ready, l.of)).collect::<Vec<_>>(),
        [("new_peer", 1, 0, 14), ("new_api_call", 1, 0, 14), ("scan", 1, 1, 3)]
    );
    let rows = lane.profiles.rows(ACCOUNT, flowtrail_ingest::Hour(START + 13 * 24).day());
    let states: Vec<_> = rows.iter().map(|r| (r.entity_kind.as_str(), r.state.as_str())).collect();
    assert!(states.contains(&("interface", "learning 13 of 14")) && states.contains(&("function", "learning 13 of 14")), "{states:?}");
    assert!(rows.iter().any(|r| r.peers.contains("203.0.113.9") && r.ports.contains("5432/tcp")), "{rows:?}");
}

#[test]
fn an_attempt_is_told_once_and_never_learned() {
    let mut lane = grown(16);
    let now = START + 16 * 24 + 8;
    let attempt = |hour: i32| {
        let mut maker = usual(hour);
        maker.refused("eni-1", OWN, "198.51.100.7", 443);
        maker
    };
    let findings = check(&mut lane, &attempt(now), &[("new_peer", "low", "198.51.100.7")]);
    assert!(findings[0].title.contains("tried to reach (refused)"));
    check(&mut lane, &attempt(now + 1), &[]);
    // When it is answered at last, that is news.
    let mut answered = usual(now + 2);
    answered.talk("eni-1", OWN, "198.51.100.7", 443, 500, 500);
    check(&mut lane, &answered, &[("new_peer", "low", "198.51.100.7")]);
}

#[test]
fn an_upload_beyond_anything_remembered_is_medium() {
    let mut lane = grown(16);
    let mut hour = usual(START + 16 * 24 + 8);
    hour.talk("eni-1", OWN, "198.51.100.7", 443, 150_000_000, 100_000);
    let findings = check(&mut lane, &hour, &[("new_peer", "medium", "198.51.100.7")]);
    assert!(findings[0].explanation.contains("150 MB out, usually"), "{}", findings[0].explanation);
}

#[test]
fn a_function_calls_what_it_never_called() {
    let now = START + 16 * 24 + 8;
    let with = |actions: &[(&str, &str)]| {
        let mut hour = usual(now);
        actions.iter().for_each(|(action, error)| {
            hour.call("orders", action, error);
        });
        hour
    };
    let findings =
        check(&mut grown(16), &with(&[("secretsmanager:GetSecretValue", "")]), &[("new_api_call", "low", "secretsmanager:GetSecretValue")]);
    assert_eq!(findings[0].title, "orders called secretsmanager:GetSecretValue for the first time (allowed)");
    assert_eq!((findings[0].attribution.as_str(), findings[0].candidates.len()), ("exact", 1));
    assert!(findings[0].explanation.contains("it used 2 services and 2 actions"), "{}", findings[0].explanation);
    // A read of its own service is a signal at most; so is a write in a service it writes to.
    check(&mut grown(16), &with(&[("dynamodb:DescribeTable", ""), ("sqs:DeleteMessage", "")]), &[]);
    // Eight at once are one story.
    let burst: Vec<(String, &str)> =
        (0..9).map(|n| (format!("ec2:Describe{n}"), if n < 3 { "Client.UnauthorizedOperation" } else { "" })).collect();
    let burst: Vec<(&str, &str)> = burst.iter().map(|(a, e)| (a.as_str(), *e)).collect();
    let findings = check(&mut grown(16), &with(&burst), &[("new_api_call", "low", "enumeration")]);
    assert!(findings[0].title.starts_with("orders called 9 read actions") && findings[0].count == 9);
    let allowed: Vec<(&str, &str)> = burst.iter().take(7).map(|(a, _)| (*a, "")).collect();
    check(&mut grown(16), &with(&allowed), &[]);
}

#[test]
fn what_was_only_denied_is_news_again_when_it_is_allowed() {
    let now = START + 16 * 24 + 8;
    let with = |hour: i32, error: &str| {
        let mut maker = usual(hour);
        maker.call("orders", "iam:CreateUser", error);
        maker
    };
    let mut lane = grown(16);
    let told = [("new_api_call", "low", "iam:CreateUser")];
    let findings = check(&mut lane, &with(now, "AccessDenied"), &told);
    assert!(findings[0].title.ends_with("(denied)"));
    check(&mut lane, &with(now + 1, "AccessDenied"), &[]);
    let findings = check(&mut lane, &with(now + 2, ""), &told);
    assert!(findings[0].title.ends_with("(allowed)"));
    check(&mut lane, &with(now + 3, ""), &[]);
}

#[test]
fn scans_sweeps_and_slow_scans() {
    let now = START + 16 * 24 + 8;
    let mut scan = usual(now);
    for n in 0..61 {
        scan.refused("eni-1", OWN, "10.0.4.12", 8000 + n);
    }
    let findings = check(&mut grown(16), &scan, &[("scan", "high", "10.0.4.12")]);
    assert_eq!(findings[0].title, "eni-1 scanned 61 ports of 10.0.4.12");
    assert!(findings[0].explanation.contains("61 were refused or never answered, 0 were answered"), "{}", findings[0].explanation);

    let mut sweep = usual(now);
    for n in 0..30 {
        sweep.refused("eni-1", OWN, &format!("10.0.4.{n}"), 22);
    }
    check(&mut grown(16), &sweep, &[("scan", "high", "port 22/tcp")]);

    let mut many = usual(now);
    for n in 0..12 {
        many.refused("eni-1", OWN, &format!("10.0.4.{n}"), 9000 + n);
    }
    check(&mut grown(16), &many, &[("scan", "low", "many failed contacts")]);

    // A few an hour, for hours; each hour alone would be silent.
    let mut lane = grown(16);
    let mut told = Vec::new();
    for n in 0..8u16 {
        let mut hour = usual(now + i32::from(n));
        for k in 0..3 {
            hour.refused("eni-1", OWN, &format!("10.0.4.{}", n * 3 + k), 445);
        }
        told.extend(lane.live(&hour).into_iter().filter(|f| f.detector == "scan").map(|f| (n, f.severity)));
    }
    assert!(told.first().is_some_and(|t| (2..=5).contains(&t.0) && t.1 == Severity::Low), "{told:?}");

    // A dead neighbour that is asked again and again is one failure.
    let mut lane = grown(16);
    for n in 0..20 {
        let mut hour = usual(now + n);
        hour.refused("eni-1", OWN, "10.0.4.9", 445);
        check(&mut lane, &hour, &[]);
    }
}

#[test]
fn a_scanner_is_seen_in_its_first_hour_from_25_hosts_or_15_ports_on() {
    for (ports, expected) in [(14u16, vec![]), (15, vec![("scan", "medium", "10.0.4.12")])] {
        let mut hour = Maker::new(START);
        hour.talk("eni-1", OWN, "203.0.113.9", 443, 4000, 9000);
        for n in 0..ports {
            hour.refused("eni-1", OWN, "10.0.4.12", 8000 + n);
        }
        let findings = Lane::default().live(&hour);
        assert_eq!(
            said(&findings).into_iter().map(|s| (s.0, if s.1 == "high" { "medium" } else { s.1 }, s.2)).collect::<Vec<_>>(),
            expected,
            "{ports} ports"
        );
    }
}

#[test]
fn a_sweep_that_many_answer_is_low() {
    // (answered, failed) hosts on one port.
    for (answered, failed, expected) in
        [(15u16, 10u16, vec![("scan", "low", "port 80/tcp")]), (16, 9, vec![]), (31, 10, vec![]), (14, 10, vec![])]
    {
        let mut hour = Maker::new(START);
        for n in 0..answered {
            hour.talk("eni-1", OWN, &format!("203.0.{n}.9"), 80, 4000, 9000);
        }
        for n in 0..failed {
            hour.refused("eni-1", OWN, &format!("198.51.{n}.9"), 80);
        }
        let findings = check(&mut Lane::default(), &hour, &expected);
        if let Some(finding) = findings.first() {
            assert_eq!(finding.title, "eni-1 swept 25 hosts on port 80/tcp");
            assert!(finding.explanation.contains("10 were refused or never answered, 15 were answered"), "{}", finding.explanation);
        }
    }
}

#[test]
fn one_source_that_many_addresses_refuse_is_told_once_for_the_account() {
    let sweep = |targets: u16, answered: bool| {
        let mut hour = Maker::new(START);
        for n in 0..targets {
            hour.visited(&format!("eni-{n}"), "198.51.100.1", &format!("10.0.1.{n}"), 3389, true);
        }
        if answered {
            hour.visited("eni-99", "198.51.100.1", "10.0.1.99", 3389, false);
        }
        Lane::default().live(&hour)
    };
    assert_eq!(said(&sweep(24, false)), []);
    for (answered, level, outcome) in [(false, "informational", "all refused"), (true, "low", "1 contact answered")] {
        let findings = sweep(25, answered);
        assert_eq!(said(&findings), [("scan", level, "198.51.100.1")]);
        let finding = &findings[0];
        assert_eq!(finding.title, format!("198.51.100.1 swept 25 addresses of account {ACCOUNT} on port 3389/tcp, {outcome}"));
        assert_eq!((finding.entity_kind.as_str(), finding.entity_id.as_str(), finding.evidence.len()), ("account", ACCOUNT, 10));
        assert_eq!((finding.count, finding.bytes_in), if answered { (27, 26 * 800) } else { (25, 25 * 800) });
    }
}

#[test]
fn moving_to_neighbours_and_being_visited() {
    let now = START + 16 * 24 + 8;
    let mut lateral = usual(now);
    for n in 0..4 {
        lateral.talk("eni-1", OWN, &format!("10.0.7.{n}"), 22, 9000, 9000);
    }
    let findings = grown(16).live(&lateral);
    let [lateral] = findings.as_slice() else { panic!("one story: {:?}", said(&findings)) };
    assert_eq!((lateral.subject.as_str(), lateral.tactics.as_slice()), ("lateral movement", ["TA0008".to_owned()].as_slice()));
    assert!(lateral.severity >= Severity::Low && lateral.explanation.contains("4 internal peers"), "{}", lateral.explanation);

    let mut visited = usual(now);
    for n in 0..26 {
        visited.visited("eni-1", &format!("198.51.100.{n}"), OWN, 6379, true);
    }
    check(&mut grown(16), &visited, &[("scan", "informational", OWN)]);
    let mut found = usual(now);
    for n in 0..16 {
        found.visited("eni-1", "198.51.100.1", OWN, 6000 + n, true);
    }
    found.visited("eni-1", "198.51.100.1", OWN, 8080, false);
    check(&mut grown(16), &found, &[("scan", "low", OWN)]);
}

#[test]
fn what_nobody_can_reach_is_down_and_no_scan() {
    let enis = ["eni-1", "eni-2", "eni-3"];
    let mut hour = Maker::new(START);
    for (n, eni) in enis.iter().enumerate() {
        for k in 0..9 {
            hour.refused(eni, &format!("10.0.0.{n}"), &format!("10.0.50.{k}"), 5432);
        }
        for k in 0..9 {
            hour.refused(eni, &format!("10.0.0.{n}"), &format!("10.0.50.{k}"), 5433);
        }
    }
    let verdict = Lane::default().judge(&hour.finish());
    assert_eq!(said(&verdict.findings), []);
    assert_eq!(verdict.observations.iter().map(|o| o.kind.as_str()).collect::<Vec<_>>(), ["outage"]);
    assert!(verdict.observations[0].subject_name.contains("3 entities failed to reach 9 peers"));
}

fn listing() -> Lane {
    let mut builder = flowtrail_enrich::AddressBook::builder();
    builder.list("feodo", Some("c2"), b"range,category,confidence,valid_from,valid_to\n198.51.100.0/28,c2,0.9,2025-03-03T00:00:00Z,\n198.51.100.64/28,tor,0.3,,\n198.51.100.128/28,c2,0.9,,2025-12-01T00:00:00Z\n");
    Lane { book: builder.build(), ..Lane::default() }
}

#[test]
fn listed_addresses_by_what_came_of_them() {
    for (what, expected) in [
        ("answered", Some("high")),
        ("unanswered", Some("medium")),
        ("refused", Some("medium")),
        ("tor", Some("low")),
        ("expired", None),
        ("visited", Some("informational")),
        ("served", Some("low")),
    ] {
        let mut hour = usual(START);
        match what {
            "answered" => hour.talk("eni-1", OWN, "198.51.100.5", 443, 9000, 9000),
            "unanswered" => hour.talk("eni-1", OWN, "198.51.100.5", 443, 600, 0),
            "refused" => hour.refused("eni-1", OWN, "198.51.100.5", 443),
            "tor" => hour.talk("eni-1", OWN, "198.51.100.70", 443, 9000, 9000),
            "expired" => hour.talk("eni-1", OWN, "198.51.100.130", 443, 9000, 9000),
            "visited" => hour.visited("eni-1", "198.51.100.5", OWN, 443, true),
            _ => hour.visited("eni-1", "198.51.100.5", OWN, 443, false),
        };
        if what == "unanswered" {
            let mut silent = hour.finish();
            for c in silent.conversations.iter_mut().filter(|c| c.server == crate::testing::ip("198.51.100.5")) {
                c.back = crate::hour::Traffic::default();
            }
            let verdict = listing().judge(&silent);
            assert_eq!(verdict.findings.iter().map(|f| f.severity.as_str()).collect::<Vec<_>>(), ["medium"], "{what}");
            continue;
        }
        let findings = listing().live(&hour);
        assert_eq!(findings.iter().map(|f| f.severity.as_str()).collect::<Vec<_>>(), expected.into_iter().collect::<Vec<_>>(), "{what}");
        if what == "answered" {
            assert!(
                findings[0].explanation.contains("listed as c2 by `feodo` since 2025-03-03 (confidence 0.9)"),
                "{}",
                findings[0].explanation
            );
        }
    }
    // Met before it was listed: said once, a level lower, and not when it did not answer.
    let mut builder = flowtrail_enrich::AddressBook::builder();
    builder.list("feodo", Some("c2"), b"range,category,confidence,valid_from,valid_to\n198.51.100.5,c2,0.9,2026-01-20T00:00:00Z,\n");
    let mut lane = Lane { book: builder.build(), ..Lane::default() };
    for (day, answers, expected) in
        [(-40, true, None), (0, false, None), (1, true, Some("medium")), (2, true, None), (16, true, Some("high"))]
    {
        let mut hour = usual(START + day * 24);
        if answers {
            hour.talk("eni-1", OWN, "198.51.100.5", 443, 9000, 9000);
        } else {
            hour.refused("eni-1", OWN, "198.51.100.5", 443);
        }
        let findings = lane.live(&hour);
        let told: Vec<&Finding> = findings.iter().filter(|f| f.detector == "threat_list").collect();
        assert_eq!(told.iter().map(|f| f.severity.as_str()).collect::<Vec<_>>(), expected.into_iter().collect::<Vec<_>>(), "day {day}");
        if expected == Some("medium") {
            assert!(told[0].title.ends_with("later listed as c2"), "{}", told[0].title);
            assert!(told[0].explanation.contains("was seen before it was listed"), "{}", told[0].explanation);
        }
    }
    // A refused one is news once.
    let mut lane = listing();
    for (n, severity) in ["medium", "low"].into_iter().enumerate() {
        let mut hour = usual(START + n as i32);
        hour.refused("eni-1", OWN, "198.51.100.5", 443);
        check(&mut lane, &hour, &[("threat_list", severity, "198.51.100.5")]);
    }
}

fn by(user: &str, source: &str, name: &str, request: Value) -> Value {
    json!({
        "userIdentity": {"type": "IAMUser", "arn": format!("arn:aws:iam::{ACCOUNT}:user/{user}"), "userName": user, "accountId": ACCOUNT, "accessKeyId": "AKIAEXAMPLE"},
        "eventSource": format!("{source}.amazonaws.com"), "eventName": name, "awsRegion": "us-east-1", "sourceIPAddress": "198.51.100.2", "recipientAccountId": ACCOUNT,
        "requestParameters": request, "responseElements": null, "eventType": "AwsApiCall",
    })
}

#[test]
fn escalations_by_what_the_calls_contain() {
    let trust = |principal: &str| json!({"roleName": "r", "assumeRolePolicyDocument": json!({"Statement": [{"Effect": "Allow", "Principal": {"AWS": principal}, "Action": "sts:AssumeRole"}]}).to_string()});
    let inline = |action: &str| json!({"roleName": "r", "policyName": "p", "policyDocument": json!({"Statement": {"Effect": "Allow", "Action": action, "Resource": "*"}}).to_string()});
    let admin = "arn:aws:iam::aws:policy/AdministratorAccess";
    let function = format!("arn:aws:lambda:us-east-1:{ACCOUNT}:function:f");
    let cases: Vec<(&str, &str, Value, Option<(&str, &str)>)> = vec![
        ("iam", "AttachUserPolicy", json!({"policyArn": admin, "userName": "eve"}), Some(("high", "eve"))),
        ("iam", "AttachUserPolicy", json!({"policyArn": "arn:aws:iam::aws:policy/ReadOnlyAccess", "userName": "eve"}), None),
        (
            "iam",
            "AttachRolePolicy",
            json!({"policyArn": format!("arn:aws:iam::{ACCOUNT}:policy/team-admin"), "roleName": "r"}),
            Some(("medium", "r")),
        ),
        ("iam", "PutRolePolicy", inline("*"), Some(("high", "r"))),
        ("iam", "PutRolePolicy", inline("s3:GetObject"), None),
        (
            "iam",
            "SetDefaultPolicyVersion",
            json!({"policyArn": "arn:aws:iam::1:policy/x", "versionId": "v1"}),
            Some(("medium", "arn:aws:iam::1:policy/x")),
        ),
        ("iam", "CreateAccessKey", json!({"userName": "bob"}), Some(("high", "bob"))),
        ("iam", "CreateAccessKey", json!({"userName": "alice"}), None),
        ("iam", "CreateAccessKey", json!({}), None),
        ("iam", "CreateLoginProfile", json!({"userName": "bob"}), Some(("high", "bob"))),
        ("iam", "AddUserToGroup", json!({"userName": "bob", "groupName": "Admins"}), Some(("medium", "bob"))),
        ("iam", "CreateRole", trust("arn:aws:iam::999988887777:root"), Some(("low", "r"))),
        ("iam", "CreateRole", trust(&format!("arn:aws:iam::{ACCOUNT}:root")), None),
        (
            "iam",
            "UpdateAssumeRolePolicy",
            json!({"roleName": "r", "policyDocument": trust("*")["assumeRolePolicyDocument"]}),
            Some(("high", "r")),
        ),
        (
            "lambda",
            "AddPermission20150331v2",
            json!({"functionName": "f", "principal": "*", "action": "lambda:InvokeFunction"}),
            Some(("high", &function)),
        ),
        (
            "lambda",
            "AddPermission20150331v2",
            json!({"functionName": "f", "principal": "999988887777", "action": "lambda:InvokeFunction"}),
            Some(("high", &function)),
        ),
        (
            "lambda",
            "AddPermission20150331v2",
            json!({"functionName": "f", "principal": "s3.amazonaws.com", "sourceAccount": ACCOUNT}),
            None,
        ),
        (
            "lambda",
            "AddPermission20150331v2",
            json!({"functionName": "f", "principal": "*", "principalOrgID": "o-1"}),
            Some(("low", &function)),
        ),
        ("lambda", "CreateFunctionUrlConfig", json!({"functionName": "f", "authType": "NONE"}), Some(("high", &function))),
        ("lambda", "CreateFunctionUrlConfig", json!({"functionName": "f", "authType": "AWS_IAM"}), None),
        (
            "lambda",
            "UpdateFunctionConfiguration20150331v2",
            json!({"functionName": "f", "layers": ["arn:aws:lambda:us-east-1:999988887777:layer:x:1"]}),
            Some(("low", &function)),
        ),
        ("lambda", "UpdateFunctionCode20150331v2", json!({"functionName": "f"}), None),
    ];
    for (source, name, request, expected) in cases {
        let mut hour = Maker::new(START);
        hour.event(by("alice", source, name, request.clone()));
        let expected: Vec<_> = expected.into_iter().map(|(severity, subject)| ("privilege_escalation", severity, subject)).collect();
        check(&mut Lane::default(), &hour, &expected);
    }
}

#[test]
fn a_denied_escalation_is_low_and_a_failed_one_nothing() {
    for (code, expected) in [("AccessDenied", vec![("privilege_escalation", "low", "bob")]), ("NoSuchEntityException", vec![])] {
        let mut event = by("alice", "iam", "CreateAccessKey", Value::Null);
        event["errorCode"] = code.into();
        event["errorMessage"] = "User: arn:aws:iam::1:user/alice is not authorized to perform: iam:CreateAccessKey on resource: user bob because no policy allows it".into();
        let mut hour = Maker::new(START);
        hour.event(event);
        check(&mut Lane::default(), &hour, &expected);
    }
}

#[test]
fn steps_of_one_day_make_one_pattern() {
    let trust = json!({"roleName": "r", "assumeRolePolicyDocument": json!({"Statement": [{"Effect": "Allow", "Principal": {"AWS": "999988887777"}}]}).to_string()});
    let attach = json!({"policyArn": "arn:aws:iam::aws:policy/ReadOnlyAccess", "roleName": "r"});
    let (mut first, mut second) = (Maker::new(START), Maker::new(START + 5));
    first.event(by("alice", "iam", "CreateRole", trust.clone()));
    second.event(by("alice", "iam", "AttachRolePolicy", attach.clone()));
    let mut lane = Lane::default();
    check(&mut lane, &first, &[("privilege_escalation", "low", "r")]);
    let findings = check(&mut lane, &second, &[("privilege_escalation", "high", "r")]);
    assert!(findings[0].explanation.contains("a backdoor role") && findings[0].evidence.len() == 2, "{}", findings[0].explanation);
    // Two days apart they are two things.
    let mut lane = Lane::default();
    check(&mut lane, &first, &[("privilege_escalation", "low", "r")]);
    let mut late = Maker::new(START + 49);
    late.event(by("alice", "iam", "AttachRolePolicy", attach.clone()));
    check(&mut lane, &late, &[]);
    // In one second, in either order.
    for turned in [false, true] {
        let mut events = [by("alice", "iam", "CreateRole", trust.clone()), by("alice", "iam", "AttachRolePolicy", attach.clone())];
        if turned {
            events.reverse();
        }
        let mut hour = Maker::new(START);
        for mut event in events {
            event["eventTime"] = crate::testing::at(START, 7).to_string().into();
            hour.event(event);
        }
        check(&mut Lane::default(), &hour, &[("privilege_escalation", "high", "r")]);
    }
}

#[test]
fn who_does_it_every_week_is_told_as_information_and_a_function_is_critical() {
    let key = |hour: i32, user: &str| {
        let mut maker = Maker::new(hour);
        maker.event(by("onboarding", "iam", "CreateAccessKey", json!({"userName": user})));
        maker
    };
    let mut lane = Lane::default();
    for day in 0..5 {
        check(&mut lane, &key(START + day * 24, &format!("user{day}")), &[("privilege_escalation", "high", &format!("user{day}"))]);
    }
    check(&mut lane, &key(START + 200, "user9"), &[("privilege_escalation", "informational", "user9")]);
    check(&mut lane, &key(START + 60 * 24, "user10"), &[("privilege_escalation", "high", "user10")]);

    let mut hour = Maker::new(START);
    let mut event =
        by("x", "iam", "AttachRolePolicy", json!({"policyArn": "arn:aws:iam::aws:policy/AdministratorAccess", "roleName": "orders-role"}));
    event["userIdentity"] = json!({"type": "AssumedRole", "arn": "arn:aws:sts::1:assumed-role/orders-role/orders", "sessionContext": {"sessionIssuer": {"arn": "arn:aws:iam::1:role/orders-role"}},
        "inScopeOf": {"issuerType": "AWS::Lambda::Function", "credentialsIssuedTo": "arn:aws:lambda:eu-west-1:111122223333:function:orders"}});
    hour.event(event);
    let findings = check(&mut Lane::default(), &hour, &[("privilege_escalation", "critical", "orders-role")]);
    assert!(findings[0].candidates[0].arn.ends_with(":function:orders"));
}

/// An event of `orders`' own code.
fn by_orders(source: &str, name: &str, request: Value) -> Value {
    let mut event = by("x", source, name, request);
    event["userIdentity"] = json!({"type": "AssumedRole", "arn": "arn:aws:sts::1:assumed-role/orders-role/orders", "sessionContext": {"sessionIssuer": {"arn": "arn:aws:iam::1:role/orders-role"}},
        "inScopeOf": {"issuerType": "AWS::Lambda::Function", "credentialsIssuedTo": "arn:aws:lambda:eu-west-1:111122223333:function:orders"}});
    event
}

#[test]
fn a_functions_own_attempt_that_is_denied_is_low_and_as_medium_as_its_lesser_deeds() {
    let request = json!({"policyArn": "arn:aws:iam::aws:policy/AdministratorAccess", "roleName": "orders-role"});
    let mut event = by_orders("iam", "AttachRolePolicy", request);
    event["errorCode"] = "AccessDenied".into();
    let mut hour = Maker::new(START);
    hour.event(event);
    check(&mut Lane::default(), &hour, &[("privilege_escalation", "low", "orders-role")]);
    let mut hour = Maker::new(START);
    hour.event(by_orders("iam", "AddUserToGroup", json!({"userName": "bob", "groupName": "Admins"})));
    check(&mut Lane::default(), &hour, &[("privilege_escalation", "high", "bob")]);
}

#[test]
fn changing_what_runs_in_a_strange_function_is_told_and_more_memory_is_not() {
    let function = format!("arn:aws:lambda:us-east-1:{ACCOUNT}:function:f");
    for (request, expected) in [
        (json!({"functionName": "f", "handler": "x.y"}), vec![("privilege_escalation", "low", function.as_str())]),
        (json!({"functionName": "f", "memorySize": 512}), vec![]),
    ] {
        let mut lane = Lane::default();
        lane.profiles.since = Some(flowtrail_ingest::Hour(START - 8 * 24));
        let mut hour = Maker::new(START);
        hour.event(by("alice", "lambda", "UpdateFunctionConfiguration20150331v2", request));
        check(&mut lane, &hour, &expected);
        // The second time it is no stranger to it.
        let mut again = Maker::new(START + 1);
        again.event(by("alice", "lambda", "UpdateFunctionCode20150331v2", json!({"functionName": "f"})));
        check(&mut lane, &again, &[]);
    }
}

#[test]
fn a_busy_role_hides_nothing_and_costs_little() {
    let trust =
        json!({"roleName": "r", "policyDocument": json!({"Statement": [{"Effect": "Allow", "Principal": {"AWS": ACCOUNT}}]}).to_string()});
    let mut hour = Maker::new(START);
    hour.event(by("alice", "iam", "UpdateAssumeRolePolicy", trust));
    let mut take = |role: &str| {
        hour.event(by("alice", "sts", "AssumeRole", json!({"roleArn": format!("arn:aws:iam::{ACCOUNT}:role/{role}")})));
    };
    (0..3000).for_each(|n| take(&format!("everyday-{}", n % 7)));
    take("r");
    (0..400).for_each(|n| {
        hour.event(by("alice", "lambda", "PublishVersion20150331", json!({"functionName": format!("f{n}")})));
    });
    let findings = Lane::default().live(&hour);
    assert_eq!(said(&findings), [("privilege_escalation", "high", "arn:aws:iam::111122223333:role/r")]);
    assert_eq!(findings[0].evidence.len(), 2);
}

#[test]
fn changes_are_observations_and_dry_runs_are_none() {
    let mut hour = Maker::new(START);
    hour.event(by("ci", "lambda", "UpdateFunctionCode20150331v2", json!({"functionName": "f"})));
    hour.event(by("ci", "lambda", "UpdateFunctionCode20150331v2", json!({"functionName": "f", "dryRun": true})));
    hour.event(by(
        "ci",
        "lambda",
        "UpdateFunctionConfiguration20150331v2",
        json!({"functionName": "f", "layers": ["arn:aws:lambda:us-east-1:111122223333:layer:x:1"]}),
    ));
    hour.event(by("ci", "lambda", "UpdateFunctionConfiguration20150331v2", json!({"functionName": "f", "timeout": 9})));
    hour.event(by("ci", "lambda", "PublishVersion20150331", json!({"functionName": "f"})));
    let mut failed = by("ci", "lambda", "UpdateFunctionCode20150331v2", json!({"functionName": "f"}));
    failed["errorCode"] = "ResourceNotFoundException".into();
    hour.event(failed);
    let mut lane = Lane::default();
    let verdict = lane.judge(&hour.finish());
    assert_eq!(
        verdict.observations.iter().map(|o| o.kind.as_str()).collect::<Vec<_>>(),
        ["code_change", "layer_change", "configuration_change", "version_published"]
    );
    let arn = format!("arn:aws:lambda:us-east-1:{ACCOUNT}:function:f");
    assert!(verdict.observations.iter().all(|o| o.entity_id == arn && o.evidence.len() == 1 && o.subject_name.ends_with("by ci")));
    lane.learn(&hour.finish());
    let hours = |h: i32| lane.profiles.deployed(&arn, flowtrail_ingest::Hour(START + h));
    assert!(hours(0) && hours(24) && !hours(25));
}

/// Hours with something for every detector.
fn eventful() -> Vec<AccountHour> {
    let mut hours: Vec<AccountHour> = (0..16).flat_map(|day| (8..16).map(move |hour| usual(START + day * 24 + hour).finish())).collect();
    let now = START + 16 * 24 + 8;
    for n in 0..6 {
        let mut hour = usual(now + n);
        hour.talk("eni-1", OWN, &format!("198.51.{n}.7"), 4444, 12_000, 3000).talk("eni-1", OWN, "198.51.100.5", 443, 900, 900);
        for k in 0..40 {
            hour.refused("eni-1", OWN, &format!("10.0.{n}.{k}"), 22);
        }
        for k in 0..9 {
            hour.call("orders", &format!("ec2:Describe{n}x{k}"), "");
        }
        hour.call("orders", "iam:CreateAccessKey", "").event(by("alice", "iam", "CreateAccessKey", json!({"userName": format!("bob{n}")})));
        hours.push(hour.finish());
    }
    hours
}

#[test]
fn the_laws_hold_for_every_detector() {
    let hours = eventful();
    let lane = listing();
    let facts = Facts { timelines: &lane.timelines, book: &lane.book };
    let views: Vec<_> = hours.iter().map(|h| lane.fleet.view(h.hour.day())).collect();
    let contexts = || -> Vec<Context<'_>> {
        let context = |(h, view)| {
            let h: &AccountHour = h;
            Context {
                config: &lane.config,
                fleet: view,
                account: &h.account,
                hour: h.hour,
                since: Some(flowtrail_ingest::Hour(START)),
                outage: &[],
            }
        };
        hours.iter().zip(&views).map(context).collect()
    };
    let windows: Vec<Window<'_>> = hours.iter().map(|h| Window::build(h, &facts)).collect();
    // A look is taken with the profile; the empty one makes every peer of every hour a first contact.
    let stranger = NetworkProfile::default();
    let looks = || -> Vec<NetworkLook<'_, '_>> { windows.iter().map(|w| NetworkLook::new(&w.networks[0], &stranger, false)).collect() };
    check_laws(&NewPeer, &looks(), &contexts());
    check_laws(&Scan, &looks(), &contexts());
    check_laws(&ThreatList, &looks(), &contexts());
    let functions: Vec<FunctionLook<'_, '_>> =
        windows.iter().map(|w| FunctionLook { hour: w.hour, function: &w.functions[0], deployed: false }).collect();
    check_laws(&NewApiCall, &functions, &contexts());
    let busy: Vec<usize> = (0..windows.len()).filter(|n| !windows[*n].principals.is_empty()).collect();
    let principals: Vec<PrincipalLook<'_, '_>> =
        busy.iter().map(|n| PrincipalLook { hour: windows[*n].hour, principal: &windows[*n].principals[0] }).collect();
    let mut contexts = contexts();
    check_laws(&PrivilegeEscalation, &principals, &contexts.split_off(hours.len() - principals.len()));
}

#[test]
fn equal_hours_are_judged_alike_however_they_were_told_and_profiles_survive_their_encoding() {
    let (mut straight, mut encoded) = (listing(), listing());
    let mut said_something = 0;
    for hour in eventful() {
        let verdict = straight.judge(&hour);
        assert_eq!(verdict, straight.judge(&hour), "a second look says the same");
        let (mut profiles, mut delta) = (straight.profiles.clone(), straight.delta.clone());
        let facts = Facts { timelines: &straight.timelines, book: &straight.book };
        let at_once = judge_and_learn(&straight.config, &mut profiles, &straight.fleet, &mut delta, &hour, &facts);
        assert_eq!(verdict, encoded.judge(&hour));
        said_something += verdict.findings.len();
        straight.learn(&hour);
        assert_eq!((&at_once, &profiles, &delta), (&verdict, &straight.profiles, &straight.delta), "judging and learning at once");
        encoded.learn(&hour);
        let bytes = postcard::to_stdvec(&(&encoded.profiles, &encoded.delta)).unwrap();
        (encoded.profiles, encoded.delta) = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(straight.profiles, encoded.profiles);
    }
    assert!(said_something >= 20, "{said_something}");
    let bytes = postcard::to_stdvec(&straight.profiles).unwrap();
    assert!(bytes.len() < 40_000, "three entities in {} bytes", bytes.len());

    // The same hour told backwards.
    let tell = |turned: bool| {
        let mut peers: Vec<u16> = (0..40).collect();
        if turned {
            peers.reverse();
        }
        let mut hour = Maker::new(START);
        for n in peers {
            hour.refused("eni-1", OWN, &format!("10.0.4.{n}"), 22);
        }
        let mut hour = hour.finish();
        for (n, c) in hour.conversations.iter_mut().enumerate() {
            c.first = crate::testing::at(START, n as i64);
            c.last = c.first;
            c.seen = crate::hour::Seen::default();
            c.seen.add(0, n as u32);
        }
        hour
    };
    assert_eq!(listing().judge(&tell(false)), listing().judge(&tell(true)));
}

#[test]
fn hostile_names_are_escaped_and_suppressions_mute() {
    let mut hour = Maker::new(START);
    hour.event(by("alice", "iam", "CreateAccessKey", json!({"userName": "bob\u{1b}[31m\n<script>"})));
    let mut lane = Lane::default();
    lane.config.suppressions.push(crate::judge::Suppression {
        detector: "privilege_escalation".into(),
        entity: "arn:aws:iam::*:user/al*".into(),
        until: crate::testing::at(START + 1, 0),
        reason: "drill".into(),
        owner: "red".into(),
    });
    let verdict = lane.judge(&hour.finish());
    let finding = &verdict.findings[0];
    for text in [&finding.title, &finding.explanation, &finding.next_steps, &finding.subject, &finding.subject_name] {
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
    assert!(finding.suppressed_by.as_ref().is_some_and(|s| s.contains("drill")) && finding.severity == Severity::High);
}

/// This thread's processor time in nanoseconds, from the kernel's count of hundredths of a second.
fn cpu() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let ticks: u64 = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2).map(|t| t.parse::<u64>().unwrap()).sum();
    ticks * 10_000_000
}

/// A look's cost, to be read by a person: `cargo test --release -p flowtrail-detect --lib speed -- --ignored --nocapture`.
#[test]
#[ignore = "prints times"]
fn speed_of_a_look() {
    const ROUNDS: u64 = 40;
    let mut sample = Maker::new(START);
    sample.talk("eni-0", "10.0.0.0", "203.0.113.9", 443, 4000, 9000).call("orders", "dynamodb:Query", "");
    let sample = sample.finish();
    let per = |what: &str, count: u32, work: &mut dyn FnMut()| {
        let began = cpu();
        (0..ROUNDS).for_each(|_| work());
        println!("{what}: {} ns each", (cpu() - began) / (u64::from(count) * ROUNDS));
    };
    // Interfaces of few, many and very many peers; each peer is one conversation.
    for (enis, peers) in [(2000u32, 20u32), (100, 400), (10, 4000)] {
        let count = enis * peers;
        let mut hour = AccountHour { conversations: Vec::new(), calls: Vec::new(), ..sample.clone() };
        let base = hour.strings.len() as u32;
        hour.strings.extend((0..enis).map(|n| format!("eni-{n:06}").into()));
        for n in 0..count {
            let eni = base + n / peers;
            let server = flowtrail_ingest::Ip::v4(0x2000_0000 + (n % peers) * 31);
            hour.conversations.push(Conversation {
                eni,
                client: flowtrail_ingest::Ip::v4(0x0a00_0000 + eni),
                server,
                ..sample.conversations[0]
            });
        }
        let mut lane = Lane::default();
        (0..3).for_each(|_| lane.learn(&hour));
        println!("{enis} interfaces with {peers} peers:");
        let (timelines, book) = (flowtrail_enrich::Timelines::default(), flowtrail_enrich::AddressBook::default());
        let facts = Facts { timelines: &timelines, book: &book };
        per("  window, by conversation", count, &mut || assert_eq!(Window::build(&hour, &facts).networks.len() as u32, enis));
        per("  window and judging", count, &mut || drop(lane.judge(&hour)));
        per("  window, judging and learning", count, &mut || {
            assert_eq!(judge_and_learn(&lane.config, &mut lane.profiles, &lane.fleet, &mut lane.delta, &hour, &facts).findings.len(), 0);
        });
    }
    let count = 50_000;
    let calls = (0..count).map(|n| crate::hour::ApiRow { id: u128::from(n), ..sample.calls[0] }).collect();
    let hour = AccountHour { conversations: Vec::new(), calls, ..sample };
    let mut lane = Lane::default();
    per("calls, window and learning", count, &mut || lane.learn(&hour));
}

use crate::hour::Conversation;
