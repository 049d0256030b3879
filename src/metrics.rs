//! Health, readiness and Prometheus metrics of `run`, over a listener of three paths.

use std::io::{Read, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use flowtrail_ingest::{EventTime, Hour};
use metrics::{counter, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::cli::Failure;
use crate::setup::now;
use crate::summary::{Findings, Summary};

/// No commit for this long and something waiting: not healthy, seconds.
const STUCK_SECS: i64 = 900;

/// What the driver tells; cheap to clone.
#[derive(Clone, Default)]
pub struct Gauges {
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    ready: AtomicBool,
    committed_at: AtomicI64,
    waiting: AtomicI64,
}

impl Gauges {
    /// Installs the recorder, and listens when an address is configured.
    ///
    /// # Errors
    /// `Failure::Work` when the address cannot be listened on.
    pub fn listen(address: Option<&str>) -> Result<Self, Failure> {
        let gauges = Self::default();
        gauges.state.committed_at.store(now().0, Ordering::Relaxed);
        let Some(address) = address else { return Ok(gauges) };
        let handle = PrometheusBuilder::new().install_recorder().map_err(|e| Failure::Work(format!("metrics: {e}")))?;
        let listener = TcpListener::bind(address).map_err(|e| {
            Failure::Work(format!("cannot listen on {address} ([metrics] listen): {e}; choose a free port, or leave it out"))
        })?;
        let state = Arc::clone(&gauges.state);
        std::thread::spawn(move || serve(&listener, &handle, &state));
        Ok(gauges)
    }

    /// The state is loaded and sources are open.
    pub fn ready(&self) {
        self.state.ready.store(true, Ordering::Relaxed);
    }

    /// A commit was made.
    pub fn committed(&self, at: EventTime) {
        self.state.committed_at.store(at.0, Ordering::Relaxed);
    }

    /// A source failed; it is tried again.
    #[allow(clippy::unused_self)]
    pub fn trouble(&self, source: &str) {
        counter!("flowtrail_source_failures_total", "source" => source.to_owned()).increment(1);
    }

    /// How far behind now each source's clock is, and how many sources stand still.
    #[allow(clippy::unused_self)]
    pub fn clocks<'s>(&self, clocks: impl Iterator<Item = (&'s str, Option<EventTime>)>, still: usize) {
        for (source, at) in clocks {
            if let Some(at) = at.filter(|at| *at > EventTime::MIN) {
                gauge!("flowtrail_source_clock_timestamp_seconds", "source" => source.to_owned()).set(at.0 as f64);
                gauge!("flowtrail_source_lag_seconds", "source" => source.to_owned()).set((now().0 - at.0).max(0) as f64);
            }
        }
        gauge!("flowtrail_sources_still").set(still as f64);
    }

    /// A collection of snapshots is done: facts in it, and what could not be read.
    #[cfg(feature = "collect")]
    #[allow(clippy::unused_self)]
    pub fn collected(&self, facts: u64, failures: u64) {
        counter!("flowtrail_collections_total").increment(1);
        counter!("flowtrail_collected_facts_total").increment(facts);
        counter!("flowtrail_collect_failures_total").increment(failures);
        if failures == 0 {
            gauge!("flowtrail_collected_timestamp_seconds").set(now().0 as f64);
        }
    }

    /// Messages that wait in a partition.
    #[cfg(feature = "kafka")]
    #[allow(clippy::unused_self)]
    pub fn lag(&self, partition: &str, messages: u64) {
        gauge!("flowtrail_lag_messages", "partition" => partition.to_owned()).set(messages as f64);
    }

    /// Everything that is counted.
    pub fn update(&self, summary: &Summary, waiting: u64, sealed_before: Option<Hour>, findings: Findings) {
        self.state.waiting.store(i64::try_from(waiting).unwrap_or(i64::MAX), Ordering::Relaxed);
        let units = &summary.units;
        for (ended, count) in [
            ("applied", units.applied),
            ("duplicate", units.duplicate),
            ("late", units.late),
            ("quarantined", units.quarantined),
            ("ignored", units.ignored),
        ] {
            counter!("flowtrail_units_total", "ended" => ended).absolute(count);
        }
        let records = &summary.records;
        for (kind, count) in [("flow", records.flow), ("api", records.api), ("api_ignored", records.api_ignored), ("facts", records.facts)]
        {
            counter!("flowtrail_records_total", "kind" => kind).absolute(count);
        }
        counter!("flowtrail_rejects_total").absolute(summary.rejects);
        counter!("flowtrail_late_records_total").absolute(summary.late_records);
        for (severity, count) in [
            ("informational", findings.informational),
            ("low", findings.low),
            ("medium", findings.medium),
            ("high", findings.high),
            ("critical", findings.critical),
        ] {
            gauge!("flowtrail_findings", "severity" => severity).set(count as f64);
        }
        gauge!("flowtrail_units_waiting").set(waiting as f64);
        if let Some(hour) = sealed_before {
            gauge!("flowtrail_sealed_through_timestamp_seconds").set(hour.start().0 as f64);
            gauge!("flowtrail_open_hours").set((now().0 - hour.start().0).max(0) as f64 / 3600.0);
        }
        gauge!("flowtrail_commit_age_seconds").set((now().0 - self.state.committed_at.load(Ordering::Relaxed)).max(0) as f64);
    }
}

/// A request's head, which may come in pieces. To leave some of it unread would reset the connection under the answer.
fn head(stream: &mut impl Read) -> Vec<u8> {
    let mut request = Vec::new();
    let mut piece = [0u8; 2048];
    while request.len() < 16 << 10 && !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece) {
            Ok(read @ 1..) => request.extend_from_slice(&piece[..read]),
            Ok(0) | Err(_) => break,
        }
    }
    request
}

fn serve(listener: &TcpListener, handle: &PrometheusHandle, state: &State) {
    for stream in listener.incoming() {
        handle.run_upkeep();
        let Ok(mut stream) = stream else { continue };
        // One request at a time is enough for a scraper; nobody may hold it up.
        let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
        let _ = stream.set_write_timeout(Some(Duration::from_secs(2)));
        let request = head(&mut stream);
        let line = String::from_utf8_lossy(&request);
        let path = line.split_whitespace().nth(1).unwrap_or("");
        let stuck = state.waiting.load(Ordering::Relaxed) > 0 && now().0 - state.committed_at.load(Ordering::Relaxed) > STUCK_SECS;
        let (status, body) = match path {
            "/metrics" => ("200 OK", handle.render()),
            "/health" if stuck => ("503 Service Unavailable", format!("units wait and nothing was committed for {STUCK_SECS} s\n")),
            "/health" => ("200 OK", "ok\n".to_owned()),
            "/ready" if state.ready.load(Ordering::Relaxed) => ("200 OK", "ready\n".to_owned()),
            "/ready" => ("503 Service Unavailable", "loading\n".to_owned()),
            _ => ("404 Not Found", "there are /metrics, /health and /ready\n".to_owned()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_comes_in_pieces_is_read_to_its_end() {
        let mut pieces = b"GET ".chain(&b"/health"[..]).chain(&b" HTTP/1.1\r\nHost: x\r\n\r"[..]).chain(&b"\nbody"[..]);
        assert!(head(&mut pieces).starts_with(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(head(&mut &b"GET /cut"[..]), b"GET /cut");
        assert_eq!(head(&mut std::io::repeat(b'x')).len(), 16 << 10);
    }
}
