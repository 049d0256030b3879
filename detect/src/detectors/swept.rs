//! Detector 8 from the other side: one source that many of our addresses refuse, on one port. Each of them sees a single
//! knock, so only the account as a whole can tell. One finding per source and day.

use flowtrail_enrich::{Attribution, PeerKind};
use flowtrail_ingest::Ip;
use serde_json::json;

use crate::contact::{Contact, Outcome};
use crate::detectors::scan::{SWEEP_HOSTS, Scan, own_address};
use crate::detectors::{Context, coverage, draft, pointers, surprise_of};
use crate::entity::{EntityId, EntityKind};
use crate::finding::{Finding, Severity, Term};
use crate::surprise::milli;
use crate::text;
use crate::tries::Tries;
use crate::window::{NetworkHour, Window};

/// One refused knock: whose, at which port, at which network, and which of its inbound contacts.
type Knock = (Ip, u16, u8, u32, u32);

/// What this hour's sources from outside did to the account as a whole.
#[must_use]
pub fn swept(window: &Window<'_>, context: &Context<'_>) -> Vec<Finding> {
    let mut knocks: Vec<Knock> = Vec::new();
    let mut tries = Tries::default();
    for (at, network) in window.networks.iter().enumerate() {
        for (n, c) in network.inbound.iter().enumerate().filter(|(_, c)| network.was_rejected(c)) {
            tries.add(c.peer);
            knocks.push((c.peer, c.port, c.protocol, at as u32, n as u32));
        }
    }
    // Who knocked less often than at so many targets swept nothing: that is nearly everybody.
    knocks.retain(|knock| tries.at_most(knock.0) >= SWEEP_HOSTS);
    knocks.sort_unstable();
    let mut findings = Vec::new();
    for of_source in knocks.chunk_by(|a, b| a.0 == b.0).filter(|k| k.len() >= SWEEP_HOSTS) {
        let mut ports: Vec<(u16, u8)> = Vec::new();
        let mut wide: Vec<Knock> = Vec::new();
        for of_port in of_source.chunk_by(|a, b| (a.1, a.2) == (b.1, b.2)) {
            if targets(window, of_port) >= SWEEP_HOSTS {
                ports.push((of_port[0].1, of_port[0].2));
                wide.extend_from_slice(of_port);
            }
        }
        if !wide.is_empty() {
            findings.extend(finding(window, of_source[0].0, &ports, &wide, context));
        }
    }
    findings
}

/// The contact of a knock, and whose it is.
fn contact<'w, 'a>(window: &'w Window<'a>, knock: &Knock) -> Option<(&'w NetworkHour<'a>, Contact)> {
    let network = window.networks.get(knock.3 as usize)?;
    Some((network, *network.inbound.get(knock.4 as usize)?))
}

/// Distinct addresses among knocks.
fn targets(window: &Window<'_>, knocks: &[Knock]) -> usize {
    let address = |k: &Knock| contact(window, k).map(|(network, contact)| (k.3, own_address(network, &contact)));
    let mut all: Vec<(u32, Ip)> = knocks.iter().filter_map(address).collect();
    all.sort_unstable();
    all.dedup();
    all.len()
}

fn finding(window: &Window<'_>, source: Ip, ports: &[(u16, u8)], knocks: &[Knock], context: &Context<'_>) -> Option<Finding> {
    let hour = window.hour;
    let first = window.networks.get(knocks.first()?.3 as usize)?;
    let eni = first.enis.get(contact(window, knocks.first()?)?.1.eni as usize).map_or("", |e| e.eni);
    let name = first.name_of(eni, source, hour.hour.start(), hour.hour.end());
    // One of our own that sweeps its neighbours is told where it did so.
    if name.kind == PeerKind::Owner {
        return None;
    }
    let hosts = targets(window, knocks);
    let answered: Vec<Contact> = window
        .networks
        .iter()
        .flat_map(|n| &n.inbound)
        .filter(|c| c.peer == source && ports.contains(&(c.port, c.protocol)) && c.outcome == Outcome::Succeeded)
        .copied()
        .collect();
    let severity = if answered.is_empty() { Severity::Informational } else { Severity::Low };
    let contacts: Vec<Contact> = answered.iter().copied().chain(knocks.iter().filter_map(|k| Some(contact(window, k)?.1))).collect();
    let said_ports: Vec<String> = ports.iter().map(|(port, protocol)| text::port(*port, *protocol)).collect();
    let said_ports = text::listed(said_ports.iter().map(String::as_str), 4);
    let mut finding =
        draft::<Scan>(context, &EntityId::new(EntityKind::Account, context.account), context.account, first.region.as_deref());
    finding.attribution = Attribution::Other.as_str().to_owned();
    finding.severity = severity;
    finding.score_milli = milli(surprise_of(severity));
    finding.subject_kind = "source".into();
    finding.subject = source.to_string();
    finding.subject_name.clone_from(&name.name);
    finding.peer_ip = Some(source);
    finding.peer_port = ports.first().map(|p| i32::from(p.0));
    finding.protocol = ports.first().map(|p| i32::from(p.1));
    finding.direction = Some("in".into());
    finding.tactics = vec!["TA0007".into()];
    finding.techniques = vec!["T1046".into(), "T1018".into()];
    let conversations = || contacts.iter().map(|c| (c, first.conversation(*c)));
    finding.first_seen = conversations().map(|(_, c)| c.first).min()?;
    finding.last_seen = conversations().map(|(_, c)| c.last).max()?;
    finding.count = conversations().map(|(_, c)| c.flows()).sum::<u64>().min(i64::MAX as u64) as i64;
    let sum = |of: &dyn Fn(&Contact) -> u64| contacts.iter().map(of).fold(0, u64::saturating_add).min(i64::MAX as u64) as i64;
    finding.bytes_out = sum(&|c| c.sent(first.conversation(*c)).bytes);
    finding.bytes_in = sum(&|c| c.received(first.conversation(*c)).bytes);
    finding.evidence = first.evidence(&contacts);
    finding.learned = json!({}).to_string();
    let ours = text::count(hosts as u64, "address");
    let outcome = match answered.len() {
        0 => "all refused".to_owned(),
        n => format!("{} answered", text::count(n as u64, "contact")),
    };
    finding.evidence_terms.push(Term {
        kind: "walk".into(),
        s_milli: finding.score_milli,
        says: format!("{ours} of this account refused it on port {said_ports}"),
    });
    finding.title = format!("{source} swept {ours} of account {} on port {said_ports}, {outcome}", context.account);
    let called = if name.name == finding.subject { String::new() } else { format!(" ({})", name.name) };
    finding.explanation = format!(
        "{source}{called} tried port {said_ports} at {ours} of account {} and was refused, {}; {outcome}.\n\
         Learned: nothing is learned of refused visitors; this counts from {SWEEP_HOSTS} addresses on.\n\
         Unusual {}.\n\
         It would have stayed silent below {SWEEP_HOSTS} addresses refusing it on one port in an hour.\n\
         {}\nWho: {source} is none of the organisation's known interfaces.\n{}",
        context.account,
        text::during(context.hour),
        if answered.is_empty() {
            "only in number: what the internet can reach is swept every day"
        } else {
            "because it was answered too: what it looked for, it found"
        },
        coverage(&finding),
        pointers(&finding),
    );
    finding.next_steps = format!(
        "1. If anything answered: see in `flows` what {source} did there afterwards, and close the port to it.\n\
         2. Ask whether port {said_ports} of these addresses has to be reachable from outside at all."
    );
    Some(finding)
}
