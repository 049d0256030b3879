//! A contact: one conversation seen from the entity it belongs to.

use flowtrail_ingest::Ip;

use crate::hour::{Conversation, Traffic};

/// TCP flags as flow logs give them: FIN 1, SYN 2, RST 4, SYN-ACK 18 (domain/flow-logs.md).
const SYN: u8 = 2;
const RST: u8 = 4;
const SYN_ACK: u8 = 18;
const TCP: u8 = 6;

/// A conversation, oriented: which end is the entity's, who the other end is, which port served.
///
/// Only what sorting, grouping and most questions need is copied; the sums are read from the conversation.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contact {
    /// The other end.
    pub peer: Ip,
    /// Service port.
    pub port: u16,
    /// IANA protocol.
    pub protocol: u8,
    /// The entity's end is the conversation's `client`.
    pub own_client: bool,
    /// Index of the interface in its entity's hour.
    pub eni: u32,
    /// Index in [`crate::hour::AccountHour::conversations`].
    pub conversation: u32,
    /// How it went for the side that opened it.
    pub outcome: Outcome,
}

/// Whether the other end took part.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Refused, reset at once, or never answered.
    Failed,
    /// The records do not tell.
    Unclear,
    /// Answered.
    Succeeded,
}

impl Contact {
    /// From the entity to the peer.
    #[must_use]
    pub fn sent(self, conversation: &Conversation) -> &Traffic {
        if self.own_client { &conversation.ahead } else { &conversation.back }
    }

    /// From the peer to the entity.
    #[must_use]
    pub fn received(self, conversation: &Conversation) -> &Traffic {
        if self.own_client { &conversation.back } else { &conversation.ahead }
    }

    /// How the contact went, for the side that asked (`outbound`: the entity): success is a SYN-ACK, or without
    /// flags more than 3 packets back; failure is REJECT, no packet back, or nothing but resets (detectors.md 8).
    #[must_use]
    pub fn went(self, conversation: &Conversation, outbound: bool) -> Outcome {
        if conversation.rejected {
            return Outcome::Failed;
        }
        let (asked, answer) = if outbound {
            (self.sent(conversation), self.received(conversation))
        } else {
            (self.received(conversation), self.sent(conversation))
        };
        if self.protocol != TCP {
            return if answer.packets > 0 && asked.packets > 0 { Outcome::Succeeded } else { Outcome::Unclear };
        }
        // At most so many packets a record, in whole numbers.
        let at_most = |t: &Traffic, packets: u64| t.packets < (packets + 1) * u64::from(t.flows.max(1));
        // All is worked out without a branch: which of it holds cannot be foretold.
        let succeeded = (answer.flags & SYN_ACK == SYN_ACK) | ((answer.packets > 3) & (answer.flags != RST));
        let began = asked.flags & SYN != 0;
        // The tail of a long connection can stand alone at the edge of an hour; a refused one is a few SYNs.
        let unanswered = began | ((asked.flags == 0) & at_most(asked, 6));
        let reset = (answer.flags == RST) & at_most(answer, 3);
        // Without the flags column: one packet back for each try is a reset.
        let dropped = (answer.flags == 0) & at_most(answer, 1) & (began | ((asked.flags == 0) & at_most(asked, 3)));
        let failed = if answer.packets == 0 { unanswered } else { reset | dropped };
        match (succeeded, failed) {
            (true, _) => Outcome::Succeeded,
            (false, true) => Outcome::Failed,
            (false, false) => Outcome::Unclear,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(flows: u32, packets: u64, flags: u8) -> Traffic {
        Traffic { flows, flags, packets, bytes: packets * 60 }
    }

    #[test]
    fn outcomes_follow_flags_and_else_packets() {
        use Outcome::{Failed, Succeeded, Unclear};
        for (protocol, rejected, ahead, back, expected) in [
            (6, true, traffic(1, 3, 2), Traffic::default(), Failed),
            (6, false, traffic(1, 3, 2), Traffic::default(), Failed),
            (6, false, traffic(1, 9, 3), traffic(1, 8, 19), Succeeded),
            (6, false, traffic(1, 2, 18), traffic(1, 2, 18), Succeeded),
            (6, false, traffic(1, 1, 2), traffic(1, 1, 4), Failed),
            (6, false, traffic(1, 8, 0), traffic(1, 7, 0), Succeeded),
            (6, false, traffic(1, 1, 0), traffic(1, 1, 0), Failed),
            (6, false, traffic(1, 40, 0), Traffic::default(), Unclear),
            (6, false, traffic(1, 5, 0), traffic(1, 3, 0), Unclear),
            (17, false, traffic(1, 1, 0), traffic(1, 1, 0), Succeeded),
            (17, false, traffic(1, 1, 0), Traffic::default(), Unclear),
        ] {
            let conversation = Conversation { rejected, protocol, ahead, back, ..Conversation::default() };
            let contact = Contact { peer: Ip::v4(1), port: 443, protocol, own_client: true, eni: 0, conversation: 0, outcome: Unclear };
            assert_eq!(contact.went(&conversation, true), expected, "{conversation:?}");
            let turned = Conversation { ahead: back, back: ahead, ..conversation };
            assert_eq!(Contact { own_client: false, ..contact }.went(&turned, true), expected, "turned round");
        }
    }
}
