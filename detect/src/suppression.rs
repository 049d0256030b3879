//! Suppressions: mute a notice for a while, never the signal.

use flowtrail_ingest::EventTime;

use crate::finding::Finding;
use crate::judge::Suppression;

/// The suppression that mutes this finding, as text for `suppressed_by`.
#[must_use]
pub fn muted_by(finding: &Finding, suppressions: &[Suppression]) -> Option<String> {
    let hit = suppressions.iter().find(|s| mutes(s, finding))?;
    Some(format!("{} {}: {} ({})", hit.detector, hit.entity, hit.reason, hit.owner))
}

fn mutes(suppression: &Suppression, finding: &Finding) -> bool {
    let at: EventTime = finding.first_seen;
    at < suppression.until
        && glob(&suppression.detector, &finding.detector)
        && (glob(&suppression.entity, &finding.entity_id) || finding.candidates.iter().any(|c| glob(&suppression.entity, &c.arn)))
}

/// `*` matches any run of characters, everything else itself.
#[must_use]
pub fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| text.strip_prefix(head)) else { return false };
    let Some(last) = pattern.rsplit_once('*').map(|(_, last)| last) else { return rest.is_empty() };
    let middle: Vec<&str> = parts.collect();
    for part in &middle[..middle.len().saturating_sub(1)] {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowtrail_enrich::Candidate;

    #[test]
    fn stars_match_runs() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "x", true),
            ("", "", true),
            ("", "x", false),
            ("scan", "scan", true),
            ("scan", "scanner", false),
            ("arn:aws:lambda:*:*:function:crawler-*", "arn:aws:lambda:eu-west-1:1:function:crawler-7", true),
            ("arn:aws:lambda:*:*:function:crawler-*", "arn:aws:lambda:eu-west-1:1:function:orders", false),
            ("a*a", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("a**c", "ac", true),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_suppression_ends_and_reaches_candidates() {
        let finding = Finding {
            detector: "new_peer".into(),
            entity_id: "eu-west-1/vpc-1/sg-1".into(),
            candidates: vec![Candidate { arn: "arn:aws:lambda:eu-west-1:1:function:crawler-7".into(), weight_milli: 1000, evidence: String::new() }],
            first_seen: EventTime(100),
            ..Finding::default()
        };
        let suppression = |until, detector: &str| Suppression {
            detector: detector.into(),
            entity: "*:function:crawler-*".into(),
            until: EventTime(until),
            reason: "meets new peers by design".into(),
            owner: "team-search".into(),
        };
        assert!(muted_by(&finding, &[suppression(101, "new_peer")]).is_some_and(|s| s.contains("by design")));
        assert!(muted_by(&finding, &[suppression(101, "*")]).is_some());
        assert_eq!(muted_by(&finding, &[suppression(100, "new_peer"), suppression(101, "scan")]), None);
    }
}
