#![no_main]

flowtrail_fuzz::target!("flow_made");
