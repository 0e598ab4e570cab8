//! Answers that go on.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::super::{Ring, Source, Stream};
use super::*;
use crate::thread::lock;

/// What the test puts into a stream.
#[derive(Default)]
struct Well {
    pieces: Mutex<VecDeque<Vec<u8>>>,
    ring: Mutex<Option<Ring>>,
    over: AtomicBool,
    /// Times that the server asked.
    asked: AtomicUsize,
    dropped: AtomicUsize,
}

impl Well {
    fn pour(&self, piece: impl Into<Vec<u8>>) {
        lock(&self.pieces).push_back(piece.into());
        self.ring();
    }

    fn ring(&self) {
        if let Some(ring) = &*lock(&self.ring) {
            ring();
        }
    }
}

struct FromWell(Arc<Well>);

impl Source for FromWell {
    fn begin(&mut self, ring: Ring) {
        *lock(&self.0.ring) = Some(ring);
    }

    fn next(&mut self, quiet: bool) -> Option<Vec<u8>> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        let piece = lock(&self.0.pieces).pop_front();
        match piece {
            None if self.0.over.load(Ordering::SeqCst) => None,
            None if quiet => Some(b".".to_vec()),
            None => Some(Vec::new()),
            piece => piece,
        }
    }
}

impl Drop for FromWell {
    fn drop(&mut self) {
        lock(&self.0.ring).take();
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

fn start(limits: Limits, pause: Duration) -> (TestServer, Arc<Well>) {
    let well = Arc::new(Well::default());
    let drawn = well.clone();
    let server = TestServer::start(limits, move |request| match request.path {
        "/stream" => {
            let source = FromWell(drawn.clone());
            Outcome::Stream(Stream::new("text/event-stream", "well".to_owned(), pause, source))
        }
        _ => echo(request),
    });
    (server, well)
}

impl Client {
    fn reads(&mut self, expected: &str) {
        while self.received.len() < expected.len() {
            assert!(self.receive() > 0, "the end came before {expected:?}");
        }
        let read: Vec<u8> = self.received.drain(..expected.len()).collect();
        assert_eq!(String::from_utf8(read).unwrap(), expected);
    }
}

#[test]
fn pieces_come_as_they_are_there_and_the_end_is_the_end_of_the_connection() {
    let (server, well) = start(Limits::default(), Duration::from_secs(60));
    let mut client = server.connect();
    client.get("/stream");
    let head = client.head();
    assert!(head.contains("Content-Type: text/event-stream\r\nConnection: close"), "{head}");
    server.await_parked(1);
    for word in ["one ", "two ", "three"] {
        well.pour(word);
        client.reads(word);
    }
    well.over.store(true, Ordering::SeqCst);
    well.ring();
    assert!(client.is_closed());
    server.await_open(0);
    await_that(|| well.dropped.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_stream_holds_no_worker_and_says_something_now_and_then() {
    let limits = Limits { workers: 1, ..Limits::default() };
    let (server, _well) = start(limits, Duration::from_millis(20));
    let mut streaming = server.connect();
    streaming.get("/stream");
    streaming.head();
    streaming.reads("..");
    let mut other = server.connect();
    other.get("/else");
    assert_eq!(other.answer(), (200, "GET /else".to_owned()));
    streaming.reads("..");
}

#[test]
fn a_client_that_goes_away_and_a_stop_end_it() {
    let (mut server, well) = start(Limits::default(), Duration::from_secs(60));
    let mut leaving = server.connect();
    leaving.get("/stream");
    leaving.head();
    server.await_parked(1);
    drop(leaving);
    server.await_open(0);
    await_that(|| well.dropped.load(Ordering::SeqCst) == 1);
    let mut staying = server.connect();
    staying.get("/stream");
    staying.head();
    server.await_parked(1);
    server.cancel.cancel();
    assert!(staying.is_closed());
    server.join();
    assert_eq!(well.dropped.load(Ordering::SeqCst), 2);
}

#[test]
fn who_reads_nothing_is_asked_nothing_and_cut_off_in_time() {
    let limits = Limits { idle_time: Duration::from_millis(300), ..Limits::default() };
    let (server, well) = start(limits, Duration::from_secs(60));
    let mut client = server.connect();
    client.get("/stream");
    client.head();
    server.await_parked(1);
    // More than the buffers of both sockets take.
    for _ in 0..64 {
        well.pour(vec![b'x'; 1 << 20]);
    }
    server.await_open(0);
    assert!(well.asked.load(Ordering::SeqCst) < 40, "it was asked on and on");
    await_that(|| well.dropped.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_head_request_gets_the_head_only() {
    let (server, well) = start(Limits::default(), Duration::from_secs(60));
    let mut client = server.connect();
    client.send("HEAD /stream HTTP/1.1\r\nHost: pi\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 200"));
    assert!(client.is_closed());
    await_that(|| well.dropped.load(Ordering::SeqCst) == 1);
}
