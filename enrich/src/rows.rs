//! The rows of `eni_owners`: one interface's holders, cut wherever the answer changes.

use flowtrail_ingest::EventTime;

use crate::account::{Account, Answer, Invocations};
use crate::interfaces::{End, InterfaceHistory};
use crate::names::{Attribution, EniOwnerRow};

/// A stretch over which the answer is the same.
struct Stretch {
    from: i64,
    to: i64,
    answer: Answer,
    /// Why its existence is not certain here, if it is not.
    doubt: Option<String>,
    spell: usize,
}

/// Adds the rows of one interface as of `as_of`. Nobody's time (before it was made, after it was gone) has no row.
pub(crate) fn rows(account: &Account, history: &InterfaceHistory, invocations: &Invocations, as_of: i64, rows: &mut Vec<EniOwnerRow>) {
    let (begin, end) = bounds(history);
    if begin.is_some_and(|b| b > as_of) {
        return;
    }
    let begin_at = begin.unwrap_or(i64::MIN);
    let end_at = end.filter(|e| *e <= as_of).unwrap_or_else(|| as_of.saturating_add(1));
    let mut edges = account.edges(history, invocations);
    edges.retain(|e| *e > begin_at && *e < end_at);
    edges.push(begin_at);
    edges.sort_unstable();
    edges.dedup();
    let mut stretches: Vec<Stretch> = Vec::new();
    for (at, from) in edges.iter().enumerate() {
        let to = edges.get(at + 1).copied().unwrap_or(end_at);
        // The time before the first fact has no beginning: it is asked for at its end.
        let asked = if *from == i64::MIN { to.saturating_sub(1) } else { *from };
        let doubt = doubt(history, asked);
        let mut answer = account.answer(history, invocations, asked, asked);
        if doubt.is_some() && answer.attribution == Attribution::Exact {
            (answer.attribution, answer.owner) = (Attribution::Candidates, None);
        }
        let spell = history.spells.partition_point(|s| s.from <= asked).saturating_sub(1);
        let same = |s: &&mut Stretch| {
            s.answer.attribution == answer.attribution
                && s.answer.owner == answer.owner
                && s.doubt == doubt
                && s.answer.functions.iter().map(|f| &f.0).eq(answer.functions.iter().map(|f| &f.0))
                && primary(history, s.spell) == primary(history, spell)
        };
        match stretches.last_mut().filter(same) {
            // The reason of the latest part is told: it is the best known.
            Some(before) => (before.to, before.answer) = (to, answer),
            None => stretches.push(Stretch { from: *from, to, answer, doubt, spell }),
        }
    }
    for stretch in stretches {
        if stretch.answer.attribution == Attribution::Unheld {
            continue;
        }
        rows.push(row(history, invocations, stretch, end, as_of));
    }
}

/// When it began and ended to be, where known; a change between two snapshots counts with both ends.
fn bounds(history: &InterfaceHistory) -> (Option<i64>, Option<i64>) {
    let begin = history.created.or(history.absent_before.map(|list| list.saturating_add(1)));
    let end = match history.end {
        End::Open => None,
        End::At(at) => Some(at),
        End::Between(_, list) => Some(list),
    };
    (begin, end)
}

fn doubt(history: &InterfaceHistory, at: i64) -> Option<String> {
    match (history.end, history.created, history.absent_before, history.heard) {
        (End::Between(last, list), ..) if at > last => Some(format!("last seen {}, gone by {}", EventTime(last), EventTime(list))),
        (_, None, Some(list), Some((first, _))) if at < first => {
            Some(format!("not there at {}, first seen {}", EventTime(list), EventTime(first)))
        }
        _ => None,
    }
}

fn primary(history: &InterfaceHistory, spell: usize) -> Option<flowtrail_ingest::Ip> {
    history.spells.get(spell)?.interface().addresses.first().copied()
}

fn row(history: &InterfaceHistory, invocations: &Invocations, stretch: Stretch, end: Option<i64>, as_of: i64) -> EniOwnerRow {
    let evidence = evidence(history, &stretch);
    let ip = primary(history, stretch.spell);
    let valid_to = (stretch.to <= as_of || end == Some(stretch.to)).then_some(EventTime(stretch.to));
    let attributed = stretch.answer.weighed(&history.eni, invocations, stretch.to.min(as_of));
    let (kind, owner, name) = match (&attributed.owner, history.lambda.is_some()) {
        (Some(owner), _) => (owner.kind.clone(), Some(owner.id.clone()), Some(owner.name.clone())),
        (None, true) => {
            // One candidate is no proof, but a name to show.
            let only = match attributed.candidates.as_slice() {
                [only] => Some(crate::arn::name_of(&only.arn).to_owned()),
                _ => None,
            };
            ("lambda".to_owned(), None, only)
        }
        (None, false) => ("unknown".to_owned(), None, None),
    };
    EniOwnerRow {
        account_id: history.account.to_string(),
        region: history.region.to_string(),
        vpc_id: history.vpc.as_ref().map(|v| v.to_string()),
        subnet_id: history.subnet.as_ref().map(|s| s.to_string()),
        eni_id: history.eni.to_string(),
        ip,
        owner_kind: kind,
        owner,
        owner_name: name,
        attribution: attributed.attribution,
        candidates: attributed.candidates,
        valid_from: (stretch.from != i64::MIN).then_some(EventTime(stretch.from)),
        valid_to,
        evidence,
    }
}

fn evidence(history: &InterfaceHistory, stretch: &Stretch) -> String {
    let answer = &stretch.answer;
    let mut text = match (answer.attribution, answer.functions.as_slice()) {
        (Attribution::Exact, [(_, why)]) => format!("the only function with its subnet and security groups; {why}"),
        (Attribution::Candidates, [(_, why)]) => format!("one function, not proven; {why}"),
        (Attribution::Candidates, many) => format!("{} functions may use it", many.len()),
        (Attribution::Other, _) => "its description, type and attachment".to_owned(),
        (Attribution::Unknown, _) if answer.lambda => "Lambda's, no function known for it".to_owned(),
        _ => "nothing is known of its holder".to_owned(),
    };
    if history.lambda.as_ref().is_some_and(|l| l.legacy.is_some()) {
        text = "a pre-2019 interface of one function, named by its RequesterId".to_owned();
    }
    if let Some(doubt) = &stretch.doubt {
        text = format!("{text}; {doubt}");
    } else if history.heard.is_none() {
        text = format!("{text}; from a snapshot without a date");
    }
    text
}
