#![no_main]

flowtrail_fuzz::target!("threat_list");
