//! Facts in, names out.

mod attribution;
mod common;
mod laws;
mod reading;
mod shared_data;
