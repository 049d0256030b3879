//! `flowtrail inspect`: the records of one file as JSON lines, rejects on standard error.

use std::io::{BufWriter, Read as _, Write};

use flowtrail_ingest::cloudtrail::{self, Item};
use flowtrail_ingest::flow::layout::Layout;
use flowtrail_ingest::flow::plain::Ask;
use flowtrail_ingest::flow::{self, FlowRows, json::row_json};
use flowtrail_ingest::inflate::{Inflater, Limits, is_gzip};
use flowtrail_ingest::sniff::{Kind, sniff};
use flowtrail_ingest::{EventTime, FlowBatch, Names, Reject, escaped};

use super::{Failure, InspectArgs};

/// Runs it. Exit 1 when the file cannot be read at all.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &InspectArgs) -> Result<i32, Failure> {
    let format = args.format.as_deref().map(super::replay::layout).transpose()?;
    let mut raw = Vec::new();
    if args.file == "-" {
        std::io::stdin().read_to_end(&mut raw).map_err(|e| Failure::Work(format!("cannot read standard input: {e}")))?;
    } else {
        raw = std::fs::read(&args.file).map_err(|e| Failure::Work(format!("cannot read {}: {e}", args.file)))?;
    }
    let mut broken = None;
    if is_gzip(&raw) {
        let mut content = Vec::new();
        let inflated = Inflater::default()
            .inflate(&raw, &mut content, Limits { whole: 4 << 30, ..Limits::default() })
            .map_err(|e| Failure::Work(format!("{}: {e}", args.file)))?;
        broken = inflated.broken;
        raw = content;
    }
    let out = std::io::stdout().lock();
    let mut out = BufWriter::new(out);
    let code = print(&raw, format.as_ref(), &mut out, 0)?;
    out.flush().map_err(|e| Failure::Work(format!("cannot write to standard output: {e}")))?;
    if let Some(reason) = broken {
        eprintln!("{}: {reason}", args.file);
        return Ok(1);
    }
    Ok(code)
}

fn print(text: &[u8], format: Option<&Layout>, out: &mut dyn Write, depth: u8) -> Result<i32, Failure> {
    let mut on_reject =
        |reject: Reject| eprintln!("position {}: {}: {}", reject.position.0, escaped(reject.reason.as_bytes()), reject.sample);
    let mut line = String::new();
    // A closed pipe ends the process by its signal; other failures are told at the flush.
    let mut on_batch = |rows: FlowRows<'_>| {
        for row in 0..rows.batch.rows() {
            line.clear();
            line.push_str(&serde_json::Value::Object(row_json(&rows, row)).to_string());
            line.push('\n');
            let _ = out.write_all(line.as_bytes());
        }
    };
    let ask = Ask::all(EventTime(i64::MAX / 2));
    let (mut names, mut batch) = (Names::default(), FlowBatch::default());
    match sniff(text, format) {
        Kind::FlowText => {
            let first = text.split(|b| *b == b'\n').next().unwrap_or_default();
            let layout = format.cloned().unwrap_or_else(|| Layout::default_for(first));
            flow::text::parse_text(text, 1, &layout, ask, &mut names, &mut batch, &mut on_batch, &mut on_reject);
        }
        Kind::FlowEnvelope => {
            flow::envelope::parse_envelope(text, format, ask, &mut names, &mut batch, &mut on_batch, &mut on_reject);
        }
        Kind::FlowParquet => {
            flow::parquet::parse_parquet(text, ask, &mut names, &mut batch, &mut on_batch, &mut on_reject)
                .map_err(|e| Failure::Work(e.to_string()))?;
        }
        Kind::CloudTrail => {
            cloudtrail::read(text, &mut |item| match item {
                Item::Call(call) => {
                    let _ = out.write_all(&cloudtrail::one_line(call.raw));
                    let _ = out.write_all(b"\n");
                }
                Item::Ignored { kind, index } => eprintln!("position {index}: {kind} is not an API call and is ignored"),
                Item::Reject(reject) => on_reject(reject),
            });
        }
        Kind::Wrapped if depth < 3 => {
            let inner = flow::envelope::peel(text, Limits::default()).map_err(|e| Failure::Work(e.to_string()))?;
            return print(&inner, format, out, depth + 1);
        }
        Kind::Facts => {
            return Err(Failure::Work(
                "this is a snapshot of interfaces or functions, not a log: replay reads it, inspect prints log records".to_owned(),
            ));
        }
        Kind::Ignored(what) => eprintln!("this is {what}: it holds no records"),
        Kind::Empty => {}
        Kind::Wrapped | Kind::Unknown => {
            return Err(Failure::Work("not recognised: neither a flow log nor CloudTrail; headerless text needs --format".to_owned()));
        }
    }
    Ok(0)
}
