#![no_main]

flowtrail_fuzz::target!("facts_file");
