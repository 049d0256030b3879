//! Detector 6, address on a threat list: did it talk to a listed address or range, as listed at that time?

use std::collections::BTreeMap;

use flowtrail_enrich::{ListHit, PeerKind};
use flowtrail_ingest::Ip;
use serde_json::json;
use twox_hash::XxHash3_64;

use crate::contact::{Contact, Outcome};
use crate::detectors::new_peer::{NetworkLook, NetworkProfile};
use crate::detectors::scan::fill;
use crate::detectors::{Context, Detector, closing, draft, surprise_of};
use crate::finding::{Finding, Severity, Term};
use crate::fleet::FleetDelta;
use crate::novelty::day16;
use crate::surprise::milli;
use crate::text;

/// Listed peers remembered per entity.
const LISTED_MAX: usize = 128;
/// A refused listed peer is news again after this many days.
const LISTED_DAYS: u16 = 30;

/// An entry that begins this long after a contact still tells of it (retro-match): the peer maps' memory, in seconds.
const RETRO_SECS: i64 = 30 * 86_400;

/// Detector 6.
pub struct ThreatList;

impl Detector for ThreatList {
    const NAME: &'static str = "threat_list";
    const VERSION: i32 = 2;
    type Baseline = NetworkProfile;
    type Hour<'h> = NetworkLook<'h, 'h>;

    fn judge(&self, profile: &NetworkProfile, look: &NetworkLook<'_, '_>, context: &Context<'_>) -> Vec<Finding> {
        listed(look)
            .into_iter()
            .filter_map(|((ip, outbound), (hits, contacts))| self.finding(profile, look, (ip, outbound), &hits, &contacts, context))
            .collect()
    }

    fn learn(&self, profile: &mut NetworkProfile, look: &NetworkLook<'_, '_>, context: &Context<'_>, _delta: &mut FleetDelta) {
        let day = day16(context.hour.day());
        profile.listed.retain(|l| day <= l.1.saturating_add(LISTED_DAYS));
        for ((ip, outbound), _) in listed(look) {
            if !outbound {
                continue;
            }
            let key = hash(ip);
            match profile.listed.binary_search_by_key(&key, |l| l.0) {
                Ok(at) => profile.listed[at].1 = day,
                Err(at) => profile.listed.insert(at, (key, day)),
            }
            profile.listed.truncate(LISTED_MAX);
        }
    }
}

fn hash(ip: Ip) -> u64 {
    XxHash3_64::oneshot(&ip.0.to_be_bytes())
}

type Listed = BTreeMap<(Ip, bool), (Vec<ListHit>, Vec<Contact>)>;

/// The hour's listed peers with their contacts, by (address, opened by us). One look-up per distinct address.
fn listed(look: &NetworkLook<'_, '_>) -> Listed {
    let network = look.network;
    let mut found = Listed::new();
    if !network.has_lists() {
        return found;
    }
    for peer in &network.peers {
        // Lists name public addresses; a range that covers private ones is a mistake in it.
        if peer.ip.is_private() {
            continue;
        }
        let mut hits = network.listed_within(peer.ip, peer.first, RETRO_SECS);
        if hits.is_empty() {
            continue;
        }
        // What names it at that time counts; what names it only later, where nothing else does and it answered.
        let began = |h: &ListHit| h.valid_from.is_none_or(|from| from <= peer.first);
        if hits.iter().any(began) {
            hits.retain(began);
        } else if !peer.answered || peer.outcome == Outcome::Failed {
            continue;
        }
        found.insert((peer.ip, true), (hits, network.contacts(peer).to_vec()));
    }
    let mut last: Option<(Ip, bool)> = None;
    for contact in &network.inbound {
        if contact.peer.is_private() {
            continue;
        }
        let is_listed = match last {
            Some((ip, is_listed)) if ip == contact.peer => is_listed,
            _ => {
                let hits = network.listed(contact.peer, network.conversation(*contact).first);
                let is_listed = !hits.is_empty();
                if is_listed {
                    found.entry((contact.peer, false)).or_insert_with(|| (hits, Vec::new()));
                }
                last = Some((contact.peer, is_listed));
                is_listed
            }
        };
        if is_listed && let Some(entry) = found.get_mut(&(contact.peer, false)) {
            entry.1.push(*contact);
        }
    }
    found
}

impl ThreatList {
    fn finding(
        &self,
        profile: &NetworkProfile,
        look: &NetworkLook<'_, '_>,
        (ip, outbound): (Ip, bool),
        hits: &[ListHit],
        contacts: &[Contact],
        context: &Context<'_>,
    ) -> Option<Finding> {
        let network = look.network;
        let best = contacts.iter().map(|c| c.outcome).max().unwrap_or(Outcome::Failed);
        let rejected = contacts.iter().all(|c| network.conversation(*c).rejected);
        let answered = best != Outcome::Failed
            && contacts.iter().any(|c| {
                let conversation = network.conversation(*c);
                !conversation.rejected && c.sent(conversation).packets > 0 && c.received(conversation).packets > 0
            });
        let met = profile.listed.binary_search_by_key(&hash(ip), |l| l.0).is_ok();
        let strongest = hits.iter().max_by(|a, b| {
            a.confidence_milli.cmp(&b.confidence_milli).then_with(|| b.list.cmp(&a.list)).then_with(|| b.range.cmp(&a.range))
        });
        let first_second = contacts.iter().map(|c| network.conversation(*c).first).min()?;
        let later = outbound && hits.iter().all(|h| h.valid_from.is_some_and(|from| from > first_second));
        // Before it was listed it is told once; the contacts after it are the same story until it is listed.
        if later && met {
            return None;
        }
        let confidence = strongest.map_or(1000, |h| h.confidence_milli);
        let by_confidence = match confidence {
            700.. => Severity::High,
            400.. => Severity::Medium,
            _ => Severity::Low,
        };
        // Whoever may be reached from the internet is visited by listed addresses; that is news only if it answers.
        let mut severity = match (outbound, answered, rejected) {
            (true, true, _) => by_confidence,
            (true, false, false) => Severity::Medium.min(by_confidence),
            (true, false, true) if met => Severity::Low,
            (true, false, true) => Severity::Medium.min(by_confidence),
            (false, true, _) if network.lambda => Severity::Medium.min(by_confidence),
            (false, true, _) => Severity::Low,
            (false, false, _) => Severity::Informational,
        };
        // Nobody could know it then: a level less.
        if later {
            severity = if severity >= Severity::High { Severity::Medium } else { Severity::Low };
        }
        let first = contacts.first().copied();
        let name = network.name_of(
            first.and_then(|c| network.enis.get(c.eni as usize)).map_or("", |e| e.eni),
            ip,
            context.hour.start(),
            context.hour.end(),
        );
        // One address of a content network serves thousands of tenants.
        let shared = name.kind == PeerKind::AwsRented && !name.key.contains("EC2");
        if shared {
            severity = severity.min(Severity::Low);
        }
        let mut finding = draft::<Self>(context, &network.id, &network.name, network.region.as_deref());
        fill(&mut finding, look, contacts);
        let (list, category) = strongest.map_or(("", "custom"), |h| (h.list.as_str(), h.category.as_str()));
        let since = strongest.and_then(|h| h.valid_from).map_or_else(String::new, |t| format!(" since {}", t.day()));
        let until = strongest.and_then(|h| h.valid_to).map_or_else(String::new, |t| format!(" until {}", t.day()));
        finding.severity = severity;
        // Within its level, by confidence.
        finding.score_milli = milli(surprise_of(severity)) + i64::from(confidence.min(999));
        finding.subject_kind = "peer".into();
        finding.subject = ip.to_string();
        finding.subject_name = name.name.clone();
        finding.peer_ip = Some(ip);
        finding.peer_port = first.map(|c| i32::from(c.port));
        finding.protocol = first.map(|c| i32::from(c.protocol));
        finding.direction = Some(if outbound { "out" } else { "in" }.into());
        let (tactics, techniques): (&[&str], &[&str]) = match category {
            "tor" => (&["TA0011"], &["T1090.003"]),
            "mining_pool" => (&["TA0040"], &["T1496.001"]),
            _ => (&["TA0011"], &["T1071"]),
        };
        finding.tactics = tactics.iter().map(|t| (*t).to_owned()).collect();
        finding.techniques = techniques.iter().map(|t| (*t).to_owned()).collect();
        finding.learned = json!({ "met_before": met, "lists": hits.iter().map(|h| json!({ "list": h.list, "category": h.category, "confidence_milli": h.confidence_milli, "range": h.range })).collect::<Vec<_>>() }).to_string();
        let confidence_text = format!("{}.{}", confidence / 1000, confidence % 1000 / 100);
        finding.evidence_terms.push(Term {
            kind: "list".into(),
            s_milli: finding.score_milli,
            says: format!("listed as {category} by `{list}`{since}{until} (confidence {confidence_text})"),
        });
        let bytes = text::bytes((finding.bytes_out.max(0) as u64).saturating_add(finding.bytes_in.max(0) as u64));
        let did = match (outbound, answered, rejected) {
            (true, true, _) => format!("exchanged {bytes} with {ip}"),
            (true, false, false) => format!("sent to {ip}, which did not answer"),
            (true, false, true) => format!("tried to reach {ip} and was refused"),
            (false, true, _) => format!("answered {ip}: {bytes}"),
            (false, false, _) => format!("was visited by {ip} and did not answer"),
        };
        let said = network.said();
        let as_what = if later { "later listed" } else { "listed" };
        finding.title = format!("{said} {did}, {as_what} as {category}");
        let others: Vec<&str> = hits.iter().map(|h| h.list.as_str()).filter(|l| *l != list).collect();
        let range = strongest.map_or("", |h| h.range.as_str());
        let is_listed = if later { "was seen before it was listed: it is listed" } else { "is listed" };
        let lies = if range.is_empty() || range == finding.subject { String::new() } else { format!("lies in {range} and ") };
        // A gateway's own interface shows what others send through it.
        let forwarded = if network.forwards {
            "\nIt forwards what others send: who it was stands in the flow records of the interfaces behind it at that time."
        } else {
            ""
        };
        finding.explanation = format!(
            "`{said}` {did}, {} ({}). The address {lies}{is_listed} as {category} by `{list}`{since}{until} (confidence {confidence_text}){}.\n\
             Learned: {}.\n\
             Unusual because listed addresses have no business here, whatever was usual before; {}.{forwarded}\n\
             It would have stayed silent had no list named the address {}{}.\n{}",
            text::during(context.hour),
            text::count(finding.count.max(0) as u64, "flow record"),
            if others.is_empty() { String::new() } else { format!(", also by {}", text::listed(others, 4)) },
            if met {
                "it met this address before, within the last 30 days, when it was on a list too"
            } else {
                "no contact with this address while it was listed is known from the last 30 days"
            },
            match (answered, outbound) {
                (true, true) => "it answered, so data may have gone both ways",
                (false, true) => "nothing came back, so the attempt failed",
                _ => "the other side began",
            },
            if later { "within 30 days after" } else { "at that time" },
            if shared { "; the level is held at low because content networks share addresses among many tenants" } else { "" },
            closing(&finding),
        );
        finding.next_steps = format!(
            "1. Read the list's own entry for {ip}: what was seen there and when.\n\
             2. Query `flows` for {ip} over all accounts, and `api_calls` for what the function's role did since.\n\
             3. If it answered: treat the function as compromised. Set its reserved concurrency to 0, keep the code package, rotate its role's credentials and block the address.",
        );
        Some(finding)
    }
}
