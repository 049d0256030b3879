//! `flowtrail collect`: snapshots of interfaces and functions of every configured account and region.

use super::{CollectArgs, Failure};

/// Runs it. Exit 1 when something could not be collected.
///
/// # Errors
/// See [`Failure`].
#[cfg(not(feature = "collect"))]
pub fn run(_: &CollectArgs) -> Result<i32, Failure> {
    Err(Failure::Usage("this build cannot collect: build it with --features collect (or full)".to_owned()))
}

/// Runs it. Exit 1 when something could not be collected.
///
/// # Errors
/// See [`Failure`].
#[cfg(feature = "collect")]
pub fn run(args: &CollectArgs) -> Result<i32, Failure> {
    use std::collections::BTreeMap;
    use std::io;

    use crate::config::Config;
    use flowtrail_enrich::collect::collect;
    use flowtrail_sink::{StoreOptions, store};

    let config = match &args.config {
        Some(path) => Config::load(path)?,
        None => Config::default(),
    };
    let options = options(&config);
    let store_options = StoreOptions { region: config.aws.region.clone(), endpoint_url: config.aws.endpoint_url.clone() };
    let store = store::open(&args.out, &store_options).map_err(|e| Failure::Work(e.to_string()))?;
    let mut written: BTreeMap<String, usize> = BTreeMap::new();
    let mut out = |name: &str, bytes: &[u8]| {
        let key = format!("snapshots/{name}");
        // The store waits for the network by itself, which a thread of the runtime may do only when it says so.
        let put = || store.put(&key, bytes).map_err(io::Error::other);
        tokio::task::block_in_place(put)?;
        written.insert(key, bytes.len());
        Ok(())
    };
    let report = crate::input::runtime().block_on(collect(&options, &mut out)).map_err(|e| Failure::Work(e.to_string()))?;
    for (key, bytes) in &written {
        println!("{key}  {bytes} bytes");
    }
    println!(
        "{} snapshots: {} interfaces, {} functions and versions, in {}",
        report.snapshots,
        report.interfaces,
        report.functions,
        store.describe()
    );
    for failure in &report.failures {
        println!("failed  {} {} {}: {}", failure.account, failure.region, failure.what, failure.reason);
    }
    Ok(i32::from(!report.failures.is_empty()))
}

/// What the configuration says of collecting.
#[cfg(feature = "collect")]
pub fn options(config: &crate::config::Config) -> flowtrail_enrich::collect::CollectOptions {
    flowtrail_enrich::collect::CollectOptions {
        accounts: config.collect.accounts.clone(),
        organization: config.collect.organization,
        regions: config.collect.regions.clone(),
        role: config.collect.role.clone(),
        endpoint_url: config.aws.endpoint_url.clone(),
        region: config.aws.region.clone(),
        taken_at: crate::setup::now(),
        ..flowtrail_enrich::collect::CollectOptions::default()
    }
}
