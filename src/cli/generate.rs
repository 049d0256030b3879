//! `flowtrail generate`

use super::{Failure, GenerateArgs};
use crate::generate::{GenerateOptions, attack_names, run as generate};
use crate::summary::grouped;

/// Runs it.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &GenerateArgs) -> Result<i32, Failure> {
    let attacks: Vec<String> = args.attacks.split(',').map(|a| a.trim().to_owned()).filter(|a| !a.is_empty()).collect();
    let known = attack_names();
    if let Some(wrong) = attacks.iter().find(|a| !["all", "none"].contains(&a.as_str()) && !known.contains(&a.as_str())) {
        return Err(Failure::Usage(format!("there is no attack {wrong:?}; the attacks are {}, all or none", known.join(", "))));
    }
    let options = GenerateOptions {
        out: args.out.clone(),
        seed: args.seed,
        accounts: args.accounts as usize,
        functions: args.functions as usize,
        days: args.days,
        start: args.start,
        attacks,
        records: args.records,
    };
    let made = generate(&options)?;
    println!(
        "{} objects with {} flow records and {} API calls, {} attacks, {} holdings of interfaces, in {}",
        grouped(made.objects),
        grouped(made.flow_records),
        grouped(made.api_calls),
        made.attacks,
        made.holdings,
        args.out.display()
    );
    println!(
        "read them with: flowtrail replay {}/AWSLogs {}/snapshots --list c2={}/lists/c2.csv --out DIR",
        args.out.display(),
        args.out.display(),
        args.out.display()
    );
    Ok(0)
}
