//! From address to name.
//!
//! [`fact`] says what was learned and when; [`timeline`] turns a set of facts into the answer to "who held this
//! interface then"; [`names`] are the answers; [`book`] knows addresses outside.

pub mod book;
pub mod fact;
pub mod names;
pub mod timeline;

pub use book::{AddressBook, ListHit};
pub use fact::{Fact, facts_of_call, facts_of_file};
pub use names::{Attributed, Attribution, Candidate, EniOwnerRow, NetworkEntity, Owner, PeerKind, PeerName};
pub use timeline::Timelines;
