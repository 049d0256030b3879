//! What a layout asks of the fast path, compiled once.

use crate::flow::batch::marks;
use crate::flow::layout::{HOT, Hot, Layout};

/// The work of one layout.
pub(in crate::flow) struct Plan {
    /// Columns in a line.
    pub columns: usize,
    /// Hot columns to convert: what, and where it stands.
    pub(super) work: Vec<(Hot, usize)>,
    /// Runs `first..=last` of neighbouring columns that seldom change from line to line (version, account, interface):
    /// each is compared with the line before as one stretch of bytes.
    pub(super) sticky: Vec<(usize, usize)>,
    pub(super) version: Option<usize>,
    pub(super) account: Option<usize>,
    pub(super) interface: Option<usize>,
    /// For every hot column that the layout lacks, all rows: they have no value there.
    pub(super) lacking: [u64; HOT],
}

impl Plan {
    /// `None` for layouts in which a header line could pass for a record: the plain path looks at each line for that.
    pub(in crate::flow) fn of(layout: &Layout) -> Option<Self> {
        if !layout.refuses_words() {
            return None;
        }
        let mut plan = Self {
            columns: layout.len(),
            work: Vec::new(),
            sticky: Vec::new(),
            version: layout.hot(Hot::Version),
            account: layout.hot(Hot::Account),
            interface: layout.hot(Hot::Interface),
            lacking: [u64::MAX; HOT],
        };
        for at in 0..layout.len() {
            let Some(hot) = layout.hot_at(at) else { continue };
            plan.lacking[hot as usize] = 0;
            if matches!(hot, Hot::Version | Hot::Account | Hot::Interface) {
                match plan.sticky.last_mut() {
                    Some((_, last)) if *last + 1 == at => *last = at,
                    _ => plan.sticky.push((at, at)),
                }
            } else {
                plan.work.push((hot, at));
            }
        }
        Some(plan)
    }
}

/// Marks that stand for two columns or one having a value, with those columns.
pub(super) const THERE: [(u16, Hot, Hot); 5] = [
    (marks::ADDRS, Hot::Src, Hot::Dst),
    (marks::PORTS, Hot::SrcPort, Hot::DstPort),
    (marks::PROTOCOL, Hot::Protocol, Hot::Protocol),
    (marks::TCP_FLAGS, Hot::TcpFlags, Hot::TcpFlags),
    (marks::TIMES, Hot::Start, Hot::End),
];
