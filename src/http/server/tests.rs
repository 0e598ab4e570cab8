//! The server as a client sees it, over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod later;
mod parking;
mod stopping;
mod streams;
mod transport;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Handler, Limits, Outcome, Request, Response, Server, ServerHandle, ServerOptions};
use crate::clock::SystemClock;
use crate::thread::Cancel;

/// Longer than anything here takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

struct TestServer {
    handle: ServerHandle,
    cancel: Cancel,
    threads: Vec<JoinHandle<()>>,
    address: SocketAddr,
}

impl TestServer {
    fn start(limits: Limits, handler: impl Fn(&Request<'_>) -> Outcome + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let cancel = Cancel::new();
        let options = ServerOptions { clock: SystemClock::shared(), cancel: cancel.clone(), limits };
        let listeners: Vec<(TcpListener, Arc<dyn Handler>)> = vec![(listener, Arc::new(handler))];
        let (handle, threads) = Server::start(listeners, options).unwrap();
        Self { handle, cancel, threads, address }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { stream, received: Vec::new() }
    }

    /// Returns when so many requests are parked.
    fn await_parked(&self, count: usize) {
        await_that(|| self.handle.0.parked_requests() == count);
    }

    fn await_open(&self, count: usize) {
        await_that(|| self.handle.0.open_connections() == count);
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.handle.stop();
        if !std::thread::panicking() {
            self.join();
        }
    }
}

/// For state that no event announces.
fn await_that(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "this never came true");
        std::thread::yield_now();
    }
}

struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    fn get(&mut self, target: &str) {
        self.send(get(target));
    }

    /// The head up to and with its empty line.
    fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                return String::from_utf8(self.received.drain(..end + 4).collect()).unwrap();
            }
            assert!(self.receive() > 0, "the end came before the head");
        }
    }

    fn receive(&mut self) -> usize {
        let mut chunk = [0; 65536];
        let count = self.stream.read(&mut chunk).unwrap();
        self.received.extend_from_slice(&chunk[..count]);
        count
    }

    /// Status and body of the next response.
    fn answer(&mut self) -> (u16, String) {
        let head = self.head();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap_or("0");
        let length: usize = length.parse().unwrap();
        while self.received.len() < length {
            assert!(self.receive() > 0, "the end came before the body");
        }
        let body = String::from_utf8(self.received.drain(..length).collect()).unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    fn is_closed(&mut self) -> bool {
        self.received.is_empty() && matches!(self.stream.read(&mut [0; 1]), Ok(0))
    }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: pi\r\n\r\n")
}

fn post(target: &str, fields: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: pi\r\n{fields}\r\n\r\n{body}")
}

/// Answers with what it understood.
fn echo(request: &Request<'_>) -> Outcome {
    let body = String::from_utf8_lossy(request.body);
    let text = format!("{} {} {body}", request.method, request.path);
    Outcome::Respond(Response::new(200, "text/plain", text.trim_end().to_owned().into_bytes()))
}
