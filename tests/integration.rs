//! Tests of the whole program: the binary as a user runs it, on files, on a real S3 server, a real Kafka broker and moto.
//!
//! `tests/run` starts the services and runs this; without them (and without `CI=true`) the tests that need one say that they were skipped.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod cases;
mod harness;
