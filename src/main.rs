//! The binary: arguments, configuration, command.
//!
//! Read in this order: [`cli`] (what can be asked), [`config`], [`setup`], then the two drivers, [`replay`] and [`run`], with
//! what they share: [`input`] (where units are), [`reader`] (a unit's bytes to contributions), [`lane`] (what is kept),
//! [`judging`] (hours to verdicts), [`coverage`] (what was there to be read), [`publish`] (verdicts to tables).

mod api_calls;
mod cli;
mod config;
mod coverage;
mod feed;
mod flows;
mod generate;
mod input;
mod judging;
mod lane;
mod metrics;
mod process;
mod progress;
mod publish;
mod reader;
mod replay;
mod run;
mod setup;
mod stored;
mod summary;
mod wrap;

use clap::Parser as _;
use cli::{Cli, Command, Failure};

fn main() {
    process::keep_freed_memory();
    process::prepare_signals();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")),
        )
        .init();
    // clap ends wrong usage with exit code 2 and words.
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Command::Replay(args) => cli::replay::run(args),
        Command::Inspect(args) => cli::inspect::run(args),
        Command::Generate(args) => cli::generate::run(args),
        Command::Explain(args) => cli::explain::explain(args),
        Command::Entity(args) => cli::entity::entity(args),
        Command::Check(args) => cli::check::run(args),
        Command::Athena(args) => cli::athena::run(args),
        Command::Run(args) => cli::run::run(args),
        Command::Collect(args) => cli::collect::run(args),
        Command::Requeue(args) => cli::requeue::run(args),
        Command::Compact(args) => cli::compact::run(args),
    };
    let code = match outcome {
        Ok(code) => code,
        Err(Failure::Work(message)) => {
            eprintln!("flowtrail: {message}");
            1
        }
        Err(Failure::Usage(message)) => {
            eprintln!("flowtrail: {message}");
            2
        }
    };
    std::process::exit(code);
}
