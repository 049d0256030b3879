//! Temporary: runs the generator before the command line is there.
#[path = "../generate/mod.rs"]
mod generate;
fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let get = |i: usize, d: u64| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(d);
    let o = generate::GenerateOptions {
        out: args[1].clone().into(),
        seed: get(2, 1),
        accounts: get(3, 3) as usize,
        functions: get(4, 24) as usize,
        days: get(5, 21) as u32,
        records: args.get(6).and_then(|a| a.parse().ok()),
        ..Default::default()
    };
    println!("{:?}", generate::run(&o)?);
    Ok(())
}
