//! What a layout asks of the fast path, compiled once.

use super::isa::{SLOTS, Slots};
use crate::flow::layout::{HOT, Hot, Layout};

/// Eight bytes at or before the end of a field, and what they should be. A number of more digits than eight is two slots.
#[derive(Copy, Clone, Debug)]
pub(in crate::flow) struct Slot {
    /// What it is part of.
    pub hot: Hot,
    /// The column.
    pub column: u32,
    /// Bytes between the end of the field and the last of the eight: 0, or 8 for the upper half of a long number.
    pub skip: u32,
    /// Most bytes the field may have.
    pub most: u32,
    /// Greatest value.
    pub max: u64,
    /// For words: the two that are known, the bytes before them zero. Numbers have none.
    pub words: Option<[u64; 2]>,
}

/// The work of one layout.
pub(in crate::flow) struct Plan {
    /// Columns in a line.
    pub columns: usize,
    /// Addresses to convert: what, and where it stands.
    pub(super) addresses: Vec<(Hot, usize)>,
    /// Addresses that stand side by side: both, and where the first stands.
    pub(super) pairs: Vec<([Hot; 2], usize)>,
    /// The pairs of outer and of inner addresses: where each first one stands. The inner ones mostly are the very bytes of
    /// the outer ones; `pairs` has them not.
    pub(super) inner: Option<[usize; 2]>,
    /// Numbers and words to convert, at most [`SLOTS`].
    pub(super) slots: Slots,
    /// For every hot column its (lower) slot; [`SLOTS`] if it has none.
    pub(super) slot_of: [usize; HOT],
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
            addresses: Vec::new(),
            pairs: Vec::new(),
            inner: None,
            slots: Slots::new(Vec::new()),
            slot_of: [SLOTS; HOT],
            sticky: Vec::new(),
            version: layout.hot(Hot::Version),
            account: layout.hot(Hot::Account),
            interface: layout.hot(Hot::Interface),
            lacking: [u64::MAX; HOT],
        };
        let mut slots = Vec::new();
        for at in 0..layout.len() {
            let Some(hot) = layout.hot_at(at) else { continue };
            plan.lacking[hot as usize] = 0;
            let slot = Slot { hot, column: at as u32, skip: 0, most: 8, max: i64::MAX as u64, words: None };
            let slot = match hot {
                Hot::Version | Hot::Account | Hot::Interface => {
                    match plan.sticky.last_mut() {
                        Some((_, last)) if *last + 1 == at => *last = at,
                        _ => plan.sticky.push((at, at)),
                    }
                    continue;
                }
                Hot::Src | Hot::Dst | Hot::PktSrc | Hot::PktDst => {
                    match plan.addresses.last() {
                        Some((before, column)) if column + 1 == at => {
                            plan.pairs.push(([*before, hot], *column));
                            plan.addresses.pop();
                        }
                        _ => plan.addresses.push((hot, at)),
                    }
                    continue;
                }
                Hot::Start | Hot::End => {
                    plan.slot_of[hot as usize] = slots.len();
                    slots.push(Slot { most: 16, ..slot });
                    slots.push(Slot { skip: 8, most: 16, ..slot });
                    continue;
                }
                Hot::SrcPort | Hot::DstPort | Hot::TcpFlags => Slot { max: u64::from(u16::MAX), ..slot },
                Hot::Protocol => Slot { max: u64::from(u8::MAX), ..slot },
                Hot::Packets | Hot::Bytes => slot,
                Hot::Action => Slot { words: Some([word(b"ACCEPT"), word(b"REJECT")]), ..slot },
                Hot::LogStatus => Slot { words: Some([word(b"OK"), word(b"NODATA")]), ..slot },
                Hot::Direction => Slot { words: Some([word(b"ingress"), word(b"egress")]), ..slot },
            };
            plan.slot_of[hot as usize] = slots.len();
            slots.push(slot);
        }
        debug_assert!(slots.len() <= SLOTS);
        let pair_of = |pair: [Hot; 2]| plan.pairs.iter().position(|p| p.0 == pair);
        if let (Some(outer), Some(inner)) = (pair_of([Hot::Src, Hot::Dst]), pair_of([Hot::PktSrc, Hot::PktDst])) {
            plan.inner = Some([plan.pairs[outer].1, plan.pairs[inner].1]);
            plan.pairs.remove(inner);
        }
        plan.slots = Slots::new(slots);
        Some(plan)
    }
}

/// A word as the last bytes of eight.
fn word(text: &[u8]) -> u64 {
    text.iter().fold(0, |word, byte| word >> 8 | u64::from(*byte) << 56)
}
