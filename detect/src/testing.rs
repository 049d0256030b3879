//! Account-hours for tests, told call by call, in whatever order.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use flowtrail_enrich::{AddressBook, Fact, Timelines};
use flowtrail_ingest::cloudtrail::{Item, call_id};
use flowtrail_ingest::{EventTime, Hour, Ip, UnitId};

use crate::finding::Finding;
use crate::fleet::{Fleet, FleetDelta};
use crate::hour::{AccountHour, ApiRow, Conversation, NONE, Seen, Traffic, UnitRef};
use crate::judge::{Facts, JudgeConfig, Verdict, judge, learn};
use crate::profile::AccountProfiles;

pub(crate) const ACCOUNT: &str = "111122223333";
/// 2026-01-05T00:00Z, a Monday.
pub(crate) const START: i32 = 491_088;

/// An account-hour in the making.
pub(crate) struct Maker {
    hour: Hour,
    strings: Vec<String>,
    conversations: Vec<Conversation>,
    calls: Vec<ApiRow>,
}

pub(crate) fn ip(text: &str) -> Ip {
    Ip::parse(text).unwrap()
}

pub(crate) fn traffic(packets: u64, bytes: u64, flags: u8) -> Traffic {
    Traffic { flows: u32::from(packets > 0), flags, packets, bytes }
}

impl Maker {
    pub(crate) fn new(hour: i32) -> Self {
        Self { hour: Hour(hour), strings: Vec::new(), conversations: Vec::new(), calls: Vec::new() }
    }

    fn text(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return NONE;
        }
        let at = self.strings.iter().position(|s| s == text).unwrap_or_else(|| {
            self.strings.push(text.to_owned());
            self.strings.len() - 1
        });
        at as u32
    }

    /// Adds a conversation as it is; `eni` and `flow_log` as text.
    pub(crate) fn raw(&mut self, eni: &str, flow_log: &str, conversation: Conversation) -> &mut Self {
        let (eni, flow_log) = (self.text(eni), self.text(flow_log));
        let first = self.hour.start().plus(60 + self.conversations.len() as i64 % 3000);
        let mut seen = Seen::default();
        seen.add(0, 2 + self.conversations.len() as u32);
        self.conversations.push(Conversation { eni, flow_log, first, last: first.plus(30), seen, ..conversation });
        self
    }

    /// `own` asked `peer` at `port` and was answered.
    pub(crate) fn talk(&mut self, eni: &str, own: &str, peer: &str, port: u16, sent: u64, received: u64) -> &mut Self {
        let conversation = Conversation {
            protocol: 6,
            settled: true,
            client: ip(own),
            server: ip(peer),
            server_port: port,
            ahead: traffic(6 + sent / 1000, sent, 3),
            back: traffic(6 + received / 1000, received, 19),
            ours_client: true,
            ..Conversation::default()
        };
        self.raw(eni, "", conversation)
    }

    /// `own` tried `peer` at `port` and was refused.
    pub(crate) fn refused(&mut self, eni: &str, own: &str, peer: &str, port: u16) -> &mut Self {
        let conversation = Conversation {
            protocol: 6,
            rejected: true,
            settled: true,
            client: ip(own),
            server: ip(peer),
            server_port: port,
            ahead: traffic(1, 60, 2),
            ours_client: true,
            ..Conversation::default()
        };
        self.raw(eni, "", conversation)
    }

    /// `visitor` tried `own` at `port`.
    pub(crate) fn visited(&mut self, eni: &str, visitor: &str, own: &str, port: u16, rejected: bool) -> &mut Self {
        let conversation = Conversation {
            protocol: 6,
            rejected,
            settled: true,
            client: ip(visitor),
            server: ip(own),
            server_port: port,
            ahead: traffic(8, 800, 2),
            back: if rejected { Traffic::default() } else { traffic(8, 900, 18) },
            ours_server: true,
            ..Conversation::default()
        };
        self.raw(eni, "", conversation)
    }

    /// The function called `service:Action`; writes are actions that do not begin like reads.
    pub(crate) fn call(&mut self, function: &str, action: &str, error: &str) -> &mut Self {
        let arn = format!("arn:aws:lambda:eu-west-1:{ACCOUNT}:function:{function}");
        let (service, action) = action.split_once(':').unwrap();
        let event = serde_json::json!({
            "eventVersion": "1.11",
            "userIdentity": {"type": "AssumedRole", "principalId": format!("AROAX:{function}"), "arn": format!("arn:aws:sts::{ACCOUNT}:assumed-role/{function}-role/{function}"),
                "accountId": ACCOUNT, "accessKeyId": "ASIAEXAMPLE",
                "sessionContext": {"sessionIssuer": {"type": "Role", "arn": format!("arn:aws:iam::{ACCOUNT}:role/{function}-role")}},
                "inScopeOf": {"issuerType": "AWS::Lambda::Function", "credentialsIssuedTo": arn}},
            "eventSource": format!("{service}.amazonaws.com"), "eventName": action, "awsRegion": "eu-west-1", "sourceIPAddress": "10.0.0.5",
            "eventType": "AwsApiCall", "recipientAccountId": ACCOUNT,
        });
        let mut event = event;
        if !error.is_empty() {
            event["errorCode"] = error.into();
        }
        self.event(event)
    }

    /// Adds a CloudTrail event; `eventTime` and `eventID` are made up where absent.
    pub(crate) fn event(&mut self, mut event: serde_json::Value) -> &mut Self {
        let number = self.calls.len();
        if event.get("eventTime").is_none() {
            event["eventTime"] = self.hour.start().plus(number as i64 % 3600).to_string().into();
        }
        if event.get("eventID").is_none() {
            event["eventID"] = format!("{}-{number}", self.hour.0).into();
        }
        let text = serde_json::to_vec(&event).unwrap();
        let mut rows = Vec::new();
        flowtrail_ingest::cloudtrail::read(&text, &mut |item| {
            if let Item::Call(call) = item {
                rows.push(crate::api_row(call, call_id(call), &mut |t| self.text(t)));
            }
        });
        assert_eq!(rows.len(), 1, "one event: {event}");
        self.calls.extend(rows.into_iter().map(|row| ApiRow { position: number as u64, ..row }));
        self
    }

    /// The hour, with everything sorted as merging leaves it.
    pub(crate) fn finish(&self) -> AccountHour {
        let mut order: Vec<u32> = (0..self.strings.len() as u32).collect();
        order.sort_by_key(|n| &self.strings[*n as usize]);
        let place = |old: u32| order.iter().position(|o| *o == old).map_or(NONE, |n| n as u32);
        let mut hour = AccountHour {
            account: ACCOUNT.to_owned(),
            hour: self.hour,
            strings: order.iter().map(|n| self.strings[*n as usize].as_str().into()).collect(),
            units: vec![UnitRef { id: UnitId(1), source: "folder".into(), key: "logs/a.log.gz".into() }],
            conversations: self
                .conversations
                .iter()
                .map(|c| Conversation { eni: place(c.eni), flow_log: place(c.flow_log), ..*c })
                .collect(),
            calls: self.calls.clone(),
            ..AccountHour::default()
        };
        for row in &mut hour.calls {
            for index in row.texts_mut() {
                *index = place(*index);
            }
            if let Some(index) = row.event_id.index_mut() {
                *index = place(*index);
            }
        }
        hour.conversations.sort_by_key(Conversation::order);
        hour.calls.sort_by_key(|r| (r.time, r.id));
        hour
    }
}

/// A lane of one account: hours in, findings out.
#[derive(Default)]
pub(crate) struct Lane {
    pub(crate) config: JudgeConfig,
    pub(crate) profiles: AccountProfiles,
    pub(crate) fleet: Fleet,
    pub(crate) delta: FleetDelta,
    pub(crate) timelines: Timelines,
    pub(crate) book: AddressBook,
}

impl Lane {
    pub(crate) fn with_facts(facts: &BTreeSet<Fact>) -> Self {
        Self { timelines: Timelines::build(facts), ..Self::default() }
    }

    pub(crate) fn judge(&self, hour: &AccountHour) -> Verdict {
        judge(&self.config, &self.profiles, &self.fleet, hour, &Facts { timelines: &self.timelines, book: &self.book })
    }

    pub(crate) fn learn(&mut self, hour: &AccountHour) {
        learn(
            &self.config,
            &mut self.profiles,
            &self.fleet,
            &mut self.delta,
            hour,
            &Facts { timelines: &self.timelines, book: &self.book },
        );
    }

    /// Judges and learns.
    pub(crate) fn live(&mut self, hour: &Maker) -> Vec<Finding> {
        let hour = hour.finish();
        let verdict = self.judge(&hour);
        self.learn(&hour);
        verdict.findings
    }
}

/// What a test compares of findings.
pub(crate) fn said(findings: &[Finding]) -> Vec<(&str, &str, &str)> {
    findings.iter().map(|f| (f.detector.as_str(), f.severity.as_str(), f.subject.as_str())).collect()
}

pub(crate) fn at(hour: i32, secs: i64) -> EventTime {
    Hour(hour).start().plus(secs)
}
