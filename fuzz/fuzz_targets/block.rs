#![no_main]

flowtrail_fuzz::target!("block");
