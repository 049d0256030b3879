//! From address to name.
//!
//! [`fact`] says what was learned and when; [`timeline`] turns a set of facts into the answer to "who held this
//! interface then"; [`names`] are the answers; [`book`] knows addresses outside.
//!
//! A timeline is built from an `account`'s `functions` and `interfaces`; `proof` says over which spans the
//! functions are completely known, `holder` reads the marks of interfaces that are not Lambda's, `peers` finds the
//! holder of an address.

mod account;
mod arn;
pub mod book;
#[cfg(feature = "collect")]
pub mod collect;
pub mod fact;
mod fact_calls;
mod fact_files;
mod functions;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod holder;
mod interfaces;
pub mod names;
mod peers;
mod proof;
mod rows;
mod shape;
mod spans;
pub mod timeline;

pub use book::{AddressBook, AddressBookBuilder, ListHit, ListReport};
pub use fact::{Fact, FactKind, Words, facts_of_call, facts_of_file, management_fact, management_hour};
pub use names::{Attributed, Attribution, Candidate, EniOwnerRow, NetworkEntity, Owner, PeerKind, PeerName};
pub use timeline::Timelines;
