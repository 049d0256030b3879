//! Inputs for measuring flowtrail: flow logs and CloudTrail objects of any size, the same for the same seed on any number of threads.
//!
//! Read in this order: [`random`] (the only source of chance), [`world`] (who talks to whom), [`flows`] (their records), [`trail`] (their
//! API calls), [`text`] and [`columns`] (how AWS writes flow records), [`objects`] (keys, gzip, threads). [`inflate`] is the floor that
//! speeds are quoted against; [`stages`] are what is between the two.

pub mod columns;
pub mod flows;
pub mod inflate;
pub mod objects;
pub mod process;
pub mod random;
pub mod stages;
pub mod text;
pub mod trail;
pub mod world;
