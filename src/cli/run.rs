//! `flowtrail run`

use std::time::Duration;

use flowtrail_ingest::EventTime;
use flowtrail_ingest::inflate::Limits;

use super::{Failure, RunArgs};
use crate::config::{Config, SourceConfig, datetime};
use crate::input::Inputs;
use crate::metrics::Gauges;
use crate::reader::ReadSettings;
use crate::run::{Listing, Run};
use crate::setup::{Setup, now};

/// Runs it. Exit 1 when a unit was quarantined (`--once`) or something outside failed.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &RunArgs) -> Result<i32, Failure> {
    let began = std::time::Instant::now();
    let config = Config::load(&args.config)?;
    if let Some(folder) = config.rules.folders.first() {
        return Err(Failure::Usage(format!("Sigma rules are not evaluated yet ({}): leave [rules] out", folder.display())));
    }
    if config.source.is_empty() {
        return Err(Failure::Usage(format!("{} names no [[source]]: there is nothing to read", args.config.display())));
    }
    if let Some(table) = config.output.tables.iter().find(|t| ["flows", "api_calls"].contains(&t.as_str())) {
        return Err(Failure::Usage(format!("the table {table} is written by replay only; leave it out of [output] tables")));
    }
    #[cfg(not(feature = "collect"))]
    if config.collect.on {
        return Err(Failure::Usage(
            "this build cannot collect: build it with --features collect (or full), or leave [collect] out".to_owned(),
        ));
    }
    #[cfg(feature = "collect")]
    let collecting = config.collect.on.then(|| crate::run::Collecting {
        options: super::collect::options(&config),
        every: Duration::from_secs(u64::try_from(config.collect.every.0.max(1)).unwrap_or(900)),
    });
    let gauges = Gauges::listen(config.metrics.listen.as_deref())?;
    let setup = Setup::open(&config, None, &[], &[])?;
    let mut listings = Vec::new();
    #[cfg(feature = "kafka")]
    let mut topics = Vec::new();
    for source in &config.source {
        match source {
            SourceConfig::Folder { location, format } => {
                let name = location.display().to_string();
                listings.push(listing(&config, &name, format.as_deref(), None)?);
            }
            SourceConfig::S3 { location, start, format } => {
                listings.push(listing(&config, location, format.as_deref(), start.as_ref().and_then(datetime_start))?);
            }
            #[cfg(feature = "kafka")]
            SourceConfig::Kafka { .. } => topics.push(kafka(&config, &setup, source)?),
            #[cfg(not(feature = "kafka"))]
            SourceConfig::Kafka { .. } => {
                return Err(Failure::Usage("this build cannot read Kafka: build it with --features kafka (or full)".to_owned()));
            }
            SourceConfig::Sqs { .. } => return Err(Failure::Usage("SQS is not read yet; list the bucket with kind = \"s3\"".to_owned())),
        }
    }
    let span = |secs: i64| Duration::from_secs(u64::try_from(secs).unwrap_or(0));
    let run = Run {
        setup,
        listings,
        #[cfg(feature = "kafka")]
        topics,
        #[cfg(feature = "collect")]
        collecting,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        clock: config.run.clock,
        look_every: span(config.run.look_every.0),
        commit_every: span(config.run.commit_every.0),
        list_every: span(config.run.list_every.0.max(1)),
        stall_limit: span(config.state.stall_limit.0),
        ledger_days: i32::from(config.state.ledger_days),
        memory: config.state.memory.0,
        once: args.once,
        gauges,
    };
    let mut summary = run.run()?;
    summary.measure(began.elapsed().as_secs_f64());
    if args.json {
        println!("{}", summary.json());
    } else {
        print!("{}", summary.table());
    }
    Ok(i32::from(summary.units.quarantined > 0))
}

fn settings(format: Option<&str>) -> Result<ReadSettings, Failure> {
    Ok(ReadSettings {
        format: format.map(super::replay::layout).transpose()?,
        from: EventTime::MIN,
        to: EventTime::MAX,
        now: now(),
        facts_at: None,
        limits: Limits::default(),
        cells: false,
    })
}

fn listing(config: &Config, location: &str, format: Option<&str>, start: Option<EventTime>) -> Result<Listing, Failure> {
    Ok(Listing {
        name: location.to_owned(),
        inputs: Inputs::open(&[location.to_owned()], &config.aws)?,
        read: settings(format)?,
        start: start.unwrap_or(EventTime::MIN),
    })
}

/// The first moment of a day, or the moment.
fn datetime_start(value: &toml::value::Datetime) -> Option<EventTime> {
    datetime(value).map(|t| if value.time.is_none() { t.plus(-86_400) } else { t })
}

/// What the configuration says of a Kafka source, for whoever connects to it.
#[cfg(feature = "kafka")]
pub fn kafka_options(config: &Config, source: &SourceConfig) -> Result<flowtrail_ingest::source::kafka::KafkaOptions, Failure> {
    let SourceConfig::Kafka { brokers, topics, group, options, aws_msk_iam } = source else {
        return Err(Failure::Usage("not a kafka source".to_owned()));
    };
    #[cfg(not(feature = "kafka-msk-iam"))]
    if *aws_msk_iam {
        let _ = config;
        return Err(Failure::Usage(
            "this build cannot log in to MSK with IAM: build it with --features kafka-msk-iam (or full)".to_owned(),
        ));
    }
    #[cfg(feature = "kafka-msk-iam")]
    let msk_iam = aws_msk_iam
        .then(|| flowtrail_ingest::source::msk::MskIam::connect(brokers, config.aws.region.as_deref(), crate::input::runtime()))
        .transpose()
        .map_err(Failure::Work)?;
    let text = |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Ok(flowtrail_ingest::source::kafka::KafkaOptions {
        brokers: brokers.clone(),
        topics: topics.clone(),
        group: group.clone(),
        options: options.iter().map(|(key, value)| (key.clone(), text(value))).collect(),
        start: std::collections::BTreeMap::new(),
        queue_max: 10_000,
        #[cfg(feature = "kafka-msk-iam")]
        msk_iam,
    })
}

#[cfg(feature = "kafka")]
fn kafka(config: &Config, setup: &Setup, source: &SourceConfig) -> Result<crate::run::KafkaTopic, Failure> {
    use flowtrail_ingest::source::kafka::{KafkaOptions, KafkaReader};
    let options = kafka_options(config, source)?;
    // Positions of our own decide where to go on; they are in the commits.
    let name = format!("kafka:{}", options.brokers.join(","));
    let prefix = format!("{name}/");
    let start = crate::lane::positions(&setup.state)?
        .into_iter()
        .filter_map(|(key, offset)| {
            let (topic, partition) = key.strip_prefix(&prefix)?.rsplit_once('/')?;
            Some(((topic.to_owned(), partition.parse().ok()?), offset.parse().ok()?))
        })
        .collect();
    let reader = KafkaReader::connect(&KafkaOptions { start, ..options }).map_err(|e| Failure::Work(e.to_string()))?;
    Ok(crate::run::KafkaTopic { name, reader, read: settings(None)? })
}
