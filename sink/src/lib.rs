//! From findings to readers: stores, Parquet tables, commits and segments.
