//! Flow logs: text and Parquet into columns.

pub mod batch;
