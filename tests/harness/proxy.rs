//! A proxy on loopback that passes requests on as they are, except those a test wants to fail.
//!
//! The client signs the proxy's own host name and the server checks just that, so nothing has to be signed again.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What to answer instead of asking the server: (status line, error code of the XML body).
pub type Refusal = (&'static str, &'static str);

/// A running proxy; it ends with the test process.
pub struct Proxy {
    pub endpoint: String,
    refused: Arc<AtomicU64>,
}

impl Proxy {
    /// Before `upstream` (`http://host:port`). `refuse` sees the request line and the number of requests refused so far.
    pub fn before(upstream: &str, refuse: impl Fn(&str, u64) -> Option<Refusal> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let upstream = upstream.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let (refuse, refused) = (Arc::new(refuse), Arc::new(AtomicU64::new(0)));
        let counter = Arc::clone(&refused);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (upstream, refuse, counter) = (upstream.clone(), Arc::clone(&refuse), Arc::clone(&counter));
                // A client that goes away in the middle is its own business.
                std::thread::spawn(move || serve(client, &upstream, &*refuse, &counter).ok());
            }
        });
        Self { endpoint, refused }
    }

    /// Requests that were refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }
}

/// One request a connection: `Connection: close` is not a signed header.
fn serve(
    mut client: TcpStream,
    upstream: &str,
    refuse: &(dyn Fn(&str, u64) -> Option<Refusal> + Send + Sync),
    counter: &AtomicU64,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0u8; 1];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    if let Some((status, code)) = refuse(&line, counter.load(Ordering::SeqCst)) {
        counter.fetch_add(1, Ordering::SeqCst);
        let body =
            format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>said by the test</Message></Error>");
        let body = if line.starts_with("HEAD") { String::new() } else { body };
        return write!(
            client,
            "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }
    let mut server = TcpStream::connect(upstream)?;
    server.write_all(&head[..head.len() - 2])?;
    server.write_all(b"Connection: close\r\n\r\n")?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server).ok());
    std::io::copy(&mut server, &mut client)?;
    client.shutdown(std::net::Shutdown::Both)
}
