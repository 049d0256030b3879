#![no_main]

flowtrail_fuzz::target!("trail_text");
