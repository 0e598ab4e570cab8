//! A model provider that says what a test wants: OpenAI chat completions and Responses, Anthropic Messages
//! and Gemini, over real HTTP on a loopback port.
//!
//! Scripted, it plays the exchanges of a JSON file (see `tests/fixtures/llm/README.md`): each request
//! has to match the next `expect` and gets its `say`; [`Double::finish`] fails on a request that did
//! not match and on an exchange that was not asked for. Programmed, it answers every request from a
//! closure, fast enough for benches: a thread per connection, keep-alive, one write per answer.
//!
//! Use it from any integration test with `#[path = "support/llm.rs"] mod llm_double;`.
#![allow(dead_code, unused_imports, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

#[path = "llm/expect.rs"]
mod expect;
#[path = "llm/gemini.rs"]
mod gemini;
#[path = "local_model.rs"]
mod local_model;
#[path = "llm/odd.rs"]
mod odd;
#[path = "llm/render.rs"]
mod render;
#[path = "llm/responses.rs"]
mod responses;
#[path = "llm/say.rs"]
mod say;
#[path = "llm/script.rs"]
pub mod script;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use spacebot::thread::{lock, spawn};

pub use local_model::stand_in;
pub use render::{CACHED_TOKENS, INPUT_TOKENS, OUTPUT_TOKENS};
pub use say::{Answer, At, Body, Odd, Request, Say, ToolCall, WireFormat};

use expect::mismatch;
use render::render;
use say::array;

/// A request larger than this is a mistake of the test.
const REQUEST_BYTES_MAX: usize = 64 << 20;

/// A request that is waited for, and its answer.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// As in the fixture's `expect`.
    pub expect: Value,
    pub say: Say,
}

enum Mind {
    Script { left: VecDeque<Exchange>, ordered: bool },
    Program(Arc<dyn Fn(&Request) -> Say + Send + Sync>),
}

#[derive(Default)]
struct Seen {
    requests: Vec<Request>,
    problems: Vec<String>,
    /// Responses that have fallen silent so far.
    hanging: usize,
}

struct Shared {
    mind: Mutex<Mind>,
    seen: Mutex<Seen>,
    changed: Condvar,
    connections: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
    closing: AtomicBool,
    /// Requests are kept for the test to look at; a bench sends too many.
    keep_requests: bool,
}

/// The running server. A scripted one has to be finished.
#[must_use = "a double that is not finished does not check its script"]
pub struct Double {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
    finished: bool,
}

impl Double {
    /// Plays `exchanges` of the JSON file at `path`.
    pub fn script(path: &Path) -> Self {
        let text =
            std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let exchanges = array(&file["exchanges"]).iter();
        let exchanges = exchanges.map(|exchange| Exchange {
            expect: exchange["expect"].clone(),
            say: Say::from_json(&exchange["say"]),
        });
        Self::exchanges(exchanges.collect(), !file["unordered"].as_bool().unwrap_or(false))
    }

    /// Plays `exchanges`; unordered, a request gets the first one left that it matches.
    pub fn exchanges(exchanges: Vec<Exchange>, ordered: bool) -> Self {
        Self::start(Mind::Script { left: exchanges.into(), ordered }, true)
    }

    /// Answers every request from `program`, and keeps no record of them.
    pub fn answering(program: impl Fn(&Request) -> Say + Send + Sync + 'static) -> Self {
        Self::start(Mind::Program(Arc::new(program)), false)
    }

    /// As [`Double::answering`], and keeps the requests.
    pub fn recording(program: impl Fn(&Request) -> Say + Send + Sync + 'static) -> Self {
        Self::start(Mind::Program(Arc::new(program)), true)
    }

    fn start(mind: Mind, keep_requests: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            mind: Mutex::new(mind),
            seen: Mutex::default(),
            changed: Condvar::new(),
            connections: AtomicUsize::new(0),
            open: Mutex::default(),
            closing: AtomicBool::new(false),
            keep_requests,
        });
        let accepting = shared.clone();
        let accepting = spawn("llm-double", move || accept(&listener, &accepting)).unwrap();
        Self { address, shared, accepting: Some(accepting), finished: false }
    }

    /// The configured `base_url` of a provider that lives here. The provider's name is part of the
    /// path, so that a script can tell several apart.
    pub fn base_url(&self, provider: &str, wire: WireFormat) -> String {
        match wire {
            WireFormat::OpenAi | WireFormat::Responses => format!("http://{}/{provider}/v1", self.address),
            WireFormat::Anthropic | WireFormat::Gemini => format!("http://{}/{provider}", self.address),
        }
    }

    /// `http://127.0.0.1:port`, for paths of the test's own.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// TCP connections taken so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> Vec<Request> {
        assert!(self.shared.keep_requests, "this double keeps no requests: Double::recording does");
        lock(&self.shared.seen).requests.clone()
    }

    /// Waits until `count` requests have come.
    pub fn wait_for_requests(&self, count: usize, deadline: Duration) {
        self.wait(deadline, "requests", |seen| seen.requests.len() >= count);
    }

    /// Waits until `count` responses have fallen silent.
    pub fn wait_until_hanging(&self, count: usize, deadline: Duration) {
        self.wait(deadline, "silent responses", |seen| seen.hanging >= count);
    }

    fn wait(&self, deadline: Duration, what: &str, done: impl Fn(&Seen) -> bool) {
        let until = Instant::now() + deadline;
        let mut seen = lock(&self.shared.seen);
        while !done(&seen) {
            let left = until.checked_duration_since(Instant::now());
            let left = left.unwrap_or_else(|| panic!("no {what} within {deadline:?}: {:?}", seen.problems));
            seen = self.shared.changed.wait_timeout(seen, left).unwrap().0;
        }
    }

    /// Closes the server.
    ///
    /// # Panics
    /// When a request did not match the script, or an exchange was not asked for.
    pub fn finish(mut self) {
        self.close();
        self.finished = true;
        let mut problems = std::mem::take(&mut lock(&self.shared.seen).problems);
        if let Mind::Script { left, .. } = &*lock(&self.shared.mind) {
            problems.extend(left.iter().map(|exchange| format!("never asked for: {}", exchange.expect)));
        }
        assert!(problems.is_empty(), "the model double: {problems:#?}");
    }

    fn close(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        for stream in lock(&self.shared.open).drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
        if let Some(accepting) = self.accepting.take() {
            // Wakes the accept; it sees `closing`.
            drop(TcpStream::connect(self.address));
            accepting.join().unwrap();
        }
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.close();
        let scripted = matches!(&*lock(&self.shared.mind), Mind::Script { .. });
        if scripted && !self.finished && !std::thread::panicking() {
            panic!("a scripted model double was dropped without finish()");
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.closing.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        stream.set_nodelay(true).unwrap();
        lock(&shared.open).push(stream.try_clone().unwrap());
        let connection = shared.clone();
        // Ends when either side closes the connection.
        spawn("llm-double-line", move || serve(stream, &connection)).unwrap();
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer) {
        let say = match request {
            Ok(request) => {
                let say = decide(shared, &request);
                write_response(&mut stream, shared, &say, request.wire, request.streamed)
            }
            Err(problem) => {
                lock(&shared.seen).problems.push(problem);
                None
            }
        };
        if say.is_none() {
            break;
        }
    }
    stream.shutdown(Shutdown::Both).ok();
}

/// None: the client is done.
fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Result<Request, String>> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut headers);
        match head.parse(buffer) {
            Ok(httparse::Status::Complete(length)) => {
                let method = head.method.unwrap_or_default().to_owned();
                let asked = head.path.unwrap_or_default();
                let (path, query) = asked.split_once('?').unwrap_or((asked, ""));
                let (path, query) = (path.to_owned(), query.to_owned());
                let headers: Vec<(String, String)> = head
                    .headers
                    .iter()
                    .map(|header| {
                        (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned())
                    })
                    .collect();
                let size = headers.iter().find(|(name, _)| name == "content-length");
                let size: usize = size.and_then(|(_, size)| size.parse().ok()).unwrap_or(0);
                while buffer.len() < length + size {
                    read_more(stream, buffer)?;
                }
                let json = serde_json::from_slice(&buffer[length..length + size]);
                let body = String::from_utf8_lossy(&buffer[length..length + size]).into_owned();
                buffer.drain(..length + size);
                let wire = match () {
                    () if path.ends_with("/chat/completions") => WireFormat::OpenAi,
                    () if path.ends_with("/v1/messages") => WireFormat::Anthropic,
                    () if path.ends_with("/responses") => WireFormat::Responses,
                    () if path.ends_with("enerateContent") => WireFormat::Gemini,
                    // Where a session is asked for; it has no format.
                    () if method == "GET" => WireFormat::OpenAi,
                    () => return Some(Err(format!("no such path: {path}"))),
                };
                let json: Value = match json {
                    _ if method == "GET" => Value::Null,
                    Ok(json) => json,
                    Err(error) => return Some(Err(format!("the request's body: {error}"))),
                };
                let streamed = json["stream"].as_bool().unwrap_or(path.ends_with(":streamGenerateContent"));
                return Some(Ok(Request { method, path, query, wire, streamed, headers, json, body }));
            }
            Ok(httparse::Status::Partial) => read_more(stream, buffer)?,
            Err(error) => return Some(Err(format!("the request's head: {error}"))),
        }
    }
}

fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut chunk = [0_u8; 16 << 10];
    match stream.read(&mut chunk) {
        Ok(length @ 1..) if buffer.len() + length <= REQUEST_BYTES_MAX => {
            buffer.extend_from_slice(&chunk[..length]);
            Some(())
        }
        _ => None,
    }
}

fn decide(shared: &Shared, request: &Request) -> Say {
    let program = match &*lock(&shared.mind) {
        Mind::Program(program) => Some(program.clone()),
        Mind::Script { .. } => None,
    };
    let decided = match program {
        Some(program) => Ok(program(request)),
        None => next_of_script(shared, request),
    };
    // Told only now: a test that waits for the request may finish the script next.
    let mut seen = lock(&shared.seen);
    if shared.keep_requests {
        seen.requests.push(request.clone());
        shared.changed.notify_all();
    }
    decided.unwrap_or_else(|problem| {
        let say = Say::error(400, "invalid_request_error", &format!("not expected: {problem}"));
        seen.problems.push(format!("{problem}, in {}", request.json));
        say
    })
}

fn next_of_script(shared: &Shared, request: &Request) -> Result<Say, String> {
    let mut mind = lock(&shared.mind);
    let Mind::Script { left, ordered } = &mut *mind else { return Err("no script".to_owned()) };
    let fits = |exchange: &Exchange| mismatch(&exchange.expect, request);
    let index = if *ordered {
        let next = left.front().ok_or("an exchange more than the script has")?;
        fits(next).map_or(Ok(0), Err)?
    } else {
        let found = left.iter().position(|exchange| fits(exchange).is_none());
        found.ok_or("no exchange is left that matches")?
    };
    left.remove(index).map(|exchange| exchange.say).ok_or_else(|| "no such exchange".to_owned())
}

/// None: the connection is at its end.
fn write_response(
    stream: &mut TcpStream,
    shared: &Shared,
    say: &Say,
    wire: WireFormat,
    streamed: bool,
) -> Option<()> {
    if let Some(end) = end_at(shared, stream, say, At::Start) {
        return end;
    }
    let (events, is_stream) = render(say, wire, streamed && !say.whole);
    let events = odd::changed(events, say, is_stream);
    let mut head = format!("HTTP/1.1 {} Double\r\n", say.status);
    head.push_str("request-id: req_double\r\nx-request-id: req_double\r\n");
    if !say.headers.iter().any(|(name, _)| name == "content-type") {
        let content_type = if is_stream { "text/event-stream" } else { "application/json" };
        head.push_str(&format!("content-type: {content_type}\r\n"));
    }
    for (name, value) in &say.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if say.odd.gzip || say.odd.head_pause.is_some() {
        return odd::write(stream, &head, &events, &say.odd);
    }
    if is_stream {
        head.push_str("transfer-encoding: chunked\r\n\r\n");
    } else {
        let size: usize = events.iter().map(String::len).sum();
        head.push_str(&format!("content-length: {size}\r\n\r\n"));
    }
    let is_plain = say.cut.is_none() && say.hang.is_none() && say.dribble.is_none() && say.pause.is_none();
    if is_plain {
        let mut whole = head.into_bytes();
        for event in &events {
            push_piece(&mut whole, event.as_bytes(), is_stream);
        }
        push_piece(&mut whole, b"", is_stream);
        return stream.write_all(&whole).ok();
    }
    stream.write_all(head.as_bytes()).ok()?;
    if let Some(end) = end_at(shared, stream, say, At::Headers) {
        return end;
    }
    write_slowly(stream, shared, say, &events, is_stream)
}

fn push_piece(whole: &mut Vec<u8>, piece: &[u8], is_stream: bool) {
    if is_stream {
        whole.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
    }
    whole.extend_from_slice(piece);
    if is_stream {
        whole.extend_from_slice(b"\r\n");
    }
}

fn write_slowly(
    stream: &mut TcpStream,
    shared: &Shared,
    say: &Say,
    events: &[String],
    is_stream: bool,
) -> Option<()> {
    let mut bytes = 0;
    for (index, event) in events.iter().enumerate() {
        if let Some(end) = end_at(shared, stream, say, At::Events(index)) {
            return end;
        }
        let size = say.dribble.unwrap_or(event.len()).max(1);
        for piece in event.as_bytes().chunks(size) {
            let limit = match say.cut.or(say.hang) {
                Some(At::Bytes(limit)) => limit.saturating_sub(bytes).min(piece.len()),
                _ => piece.len(),
            };
            if let Some(pause) = say.pause {
                std::thread::sleep(pause);
            }
            let mut out = Vec::new();
            push_piece(&mut out, &piece[..limit], is_stream && limit > 0);
            stream.write_all(&out).ok()?;
            bytes += limit;
            if limit < piece.len() {
                return end_at(shared, stream, say, say.cut.or(say.hang)?)?;
            }
        }
    }
    if let Some(end) = end_at(shared, stream, say, At::Events(events.len())) {
        return end;
    }
    let mut out = Vec::new();
    push_piece(&mut out, b"", is_stream);
    stream.write_all(&out).ok()
}

/// Whether the response ends at this moment, by a cut or by silence.
fn end_at(shared: &Shared, stream: &mut TcpStream, say: &Say, at: At) -> Option<Option<()>> {
    if say.cut == Some(at) {
        return Some(None);
    }
    if say.hang == Some(at) {
        lock(&shared.seen).hanging += 1;
        shared.changed.notify_all();
        // Silent until the client leaves or the double closes.
        let mut byte = [0_u8; 1];
        while matches!(stream.read(&mut byte), Ok(1..)) {}
        return Some(None);
    }
    None
}
