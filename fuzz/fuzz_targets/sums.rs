#![no_main]

flowtrail_fuzz::target!("sums");
