//! A `run` that goes on until it is told to stop, and what it tells of itself meanwhile.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take to show.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Running {
    child: Child,
    port: u16,
}

/// A port for `[metrics] listen`.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Running {
    /// Starts it; its configuration listens on `port`.
    pub fn start(command: &mut Command, port: u16) -> Self {
        Self { child: command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap(), port }
    }

    /// An answer, head and body.
    pub fn get(&self, path: &str) -> Option<String> {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    pub fn is_ok(&self, path: &str) -> bool {
        self.get(path).is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// The sum of a metric's values over all labels that hold `label`.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let answer = self.get("/metrics").unwrap_or_default();
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])) && line.contains(label);
        answer.lines().filter(of_name).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Waits for something to show.
    pub fn wait(&self, what: &str, shows: impl Fn(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !shows(self) {
            assert!(Instant::now() < until, "not within a minute: {what}; {}", self.get("/metrics").unwrap_or_default());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks it to end, which must be a good end soon; what it printed.
    pub fn stop(mut self) -> String {
        super::unix::terminate(&self.child);
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "it must end on SIGTERM");
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(0), "an end that was asked for is a good end");
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed leaves nothing behind; one that stopped it finds nothing here.
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}
