//! One file a subject.

mod bad_input;
mod bad_services;
#[cfg(feature = "collect")]
mod collect;
mod kafka;
mod kill;
mod run_live;
mod s3;
