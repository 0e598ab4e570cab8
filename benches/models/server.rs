//! The far side of the figures: an OpenAI chat endpoint on plain TCP, faster than whatever is measured
//! against it, and a bare client that reads what it sends and understands nothing of it.

#![allow(unreachable_pub)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

/// Longest wait of one side for the other.
const PATIENCE: Duration = Duration::from_secs(240);
/// The end of a chunked body.
pub const END: &[u8] = b"0\r\n\r\n";
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
/// What the answers to small requests say.
const ANSWER: &str = "A short answer, as most of them are.";

/// Answers one request, whose body it gets. Err: the client has gone.
type Answer = dyn Fn(&mut TcpStream, Vec<u8>) -> std::io::Result<()> + Send + Sync;

/// One thread per connection, kept alive.
pub fn serve(answer: impl Fn(&mut TcpStream, Vec<u8>) -> std::io::Result<()> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer: Arc<Answer> = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), answer.clone());
            stream.set_nodelay(true).unwrap();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while let Some(body) = read_request(&mut reader) {
                    if answer(&mut stream, body).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// None at the end of the connection.
fn read_request(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

/// One event of a stream, as a chunk of its body.
fn event(data: &str) -> String {
    let event = format!("data: {data}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len())
}

fn chunk(delta: &str, finish: &str) -> String {
    event(&format!(
        r#"{{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}"#
    ))
}

/// A piece of the arguments of the one call.
pub fn arguments(json: &str) -> String {
    let json = serde_json::Value::from(json);
    chunk(&format!(r#"{{"tool_calls":[{{"index":0,"function":{{"arguments":{json}}}}}]}}"#), "null")
}

/// A stream that calls `reply`, up to where its words begin.
pub fn opening() -> String {
    let call = r#"{"role":"assistant","tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"reply","arguments":""}}]}"#;
    format!("{HEAD}{}", chunk(call, "null"))
}

/// What stands behind the last word.
pub fn closing() -> String {
    let end = std::str::from_utf8(END).unwrap();
    format!("{}{}{}{end}", arguments("\"}"), chunk("{}", "\"tool_calls\""), event("[DONE]"))
}

/// Answers at once, streamed or whole as it is asked to; keeps the last request's body.
pub fn at_once() -> (u16, Arc<Mutex<Vec<u8>>>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let last = kept.clone();
    let text = format!(r#"{{"role":"assistant","content":"{ANSWER}"}}"#);
    let end = std::str::from_utf8(END).unwrap();
    let stream = format!("{HEAD}{}{}{}{end}", chunk(&text, "null"), chunk("{}", "\"stop\""), event("[DONE]"));
    let whole = format!(
        r#"{{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{text},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18}}}}"#
    );
    let whole = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{whole}",
        whole.len()
    );
    let port = serve(move |client, body| {
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        *last.lock().unwrap() = body;
        let answer = if json["stream"] == true { &stream } else { &whole };
        client.write_all(answer.as_bytes())
    });
    (port, kept)
}

/// Opens a stream, writes the first words of it when it is told that everybody waits for them, and says when;
/// the rest comes when these have been seen.
pub struct FirstWords {
    pub port: u16,
    opened: Receiver<()>,
    waited_for: Sender<()>,
    written: Receiver<Instant>,
    seen: Sender<()>,
}

impl FirstWords {
    pub const TEXT: &str = "Hello";

    pub fn new() -> Self {
        let ((open, opened), (waited_for, wait)) = (bounded(1), bounded(1));
        let ((write, written), (seen, see)) = (bounded(1), bounded(1));
        let words = arguments(&format!("{{\"content\":\"{} there ", Self::TEXT));
        let (opening, closing) = (opening(), closing());
        let port = serve(move |client, _| {
            client.write_all(opening.as_bytes())?;
            open.send(()).unwrap();
            wait.recv_timeout(PATIENCE).unwrap();
            let now = Instant::now();
            client.write_all(words.as_bytes())?;
            write.send(now).unwrap();
            see.recv_timeout(PATIENCE).unwrap();
            client.write_all(closing.as_bytes())
        });
        Self { port, opened, waited_for, written, seen }
    }

    /// Waits until the stream is open.
    pub fn opened(&self) {
        self.opened.recv_timeout(PATIENCE).unwrap();
    }

    /// From now on the words may come.
    pub fn write(&self) {
        self.waited_for.send(()).unwrap();
    }

    /// The words have been seen at `now`: how long they took.
    pub fn seen(&self, now: Instant) -> Duration {
        let written = self.written.recv_timeout(PATIENCE).unwrap();
        self.seen.send(()).unwrap();
        now.duration_since(written)
    }
}

/// A stream of `count` words of a reply, each in a write of its own when it is `asked_for` or, without,
/// at once.
pub struct Words {
    pub port: u16,
    taken: Option<Arc<AtomicUsize>>,
}

impl Words {
    pub fn new(count: usize, word: &str, asked_for: bool) -> Self {
        let (opening, closing, word) = (opening(), closing(), arguments(word));
        let first = arguments("{\"content\":\"");
        let taken = asked_for.then(Arc::<AtomicUsize>::default);
        let asked = taken.clone();
        let port = serve(move |client, _| {
            client.write_all(format!("{opening}{first}").as_bytes())?;
            let Some(asked) = &asked else {
                client.write_all(word.repeat(count).as_bytes())?;
                return client.write_all(closing.as_bytes());
            };
            for number in 0..count {
                // The opening counts for one.
                while asked.load(Ordering::SeqCst) <= number {
                    std::thread::yield_now();
                }
                client.write_all(word.as_bytes())?;
            }
            client.write_all(closing.as_bytes())
        });
        Self { port, taken }
    }

    /// So many pieces have come: the next may.
    pub fn took(&self, pieces: usize) {
        if let Some(taken) = &self.taken {
            taken.store(pieces, Ordering::SeqCst);
        }
    }
}

/// Streams that stop before their end until all have come so far.
pub struct Held {
    pub port: u16,
    arrived: Receiver<()>,
    release: Sender<()>,
}

impl Held {
    /// Replies of `bytes`, `piece` bytes at a time.
    pub fn new(bytes: usize, piece: usize) -> Self {
        let ((arrive, arrived), (release, released)) = (bounded(64), bounded::<()>(64));
        let (opening, closing) = (opening(), closing());
        let first = arguments("{\"content\":\"Well, ");
        let piece_text = format!("{} ", "x".repeat(piece - 1));
        // In writes of some 64 KiB.
        let in_one = (64 << 10) / piece;
        let block = arguments(&piece_text).repeat(in_one);
        // The first answer is short: it warms up who asks for it.
        let warm = AtomicBool::new(false);
        let port = serve(move |client, _| {
            client.write_all(format!("{opening}{first}").as_bytes())?;
            if warm.swap(true, Ordering::SeqCst) {
                for _ in 0..bytes / (in_one * piece) {
                    client.write_all(block.as_bytes())?;
                }
                arrive.send(()).unwrap();
                // Nobody releases those of a daemon that is killed.
                released.recv_timeout(PATIENCE).map_err(std::io::Error::other)?;
            }
            client.write_all(closing.as_bytes())
        });
        Self { port, arrived, release }
    }

    pub fn wait_for(&self, streams: usize) {
        (0..streams).for_each(|_| self.arrived.recv_timeout(PATIENCE).unwrap());
    }

    pub fn release(&self, streams: usize) {
        (0..streams).for_each(|_| self.release.send(()).unwrap());
    }
}

/// A client that only reads.
pub struct Bare {
    stream: TcpStream,
    request: Vec<u8>,
}

impl Bare {
    pub fn new(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        let body = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hello"}]}"#;
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: double\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Self { stream, request: format!("{head}{body}").into_bytes() }
    }

    pub fn ask(&mut self) {
        self.stream.write_all(&self.request).unwrap();
    }

    /// Reads until `done` with a piece.
    pub fn read_until(&mut self, mut done: impl FnMut(&[u8]) -> bool) {
        let mut buffer = [0; 8 << 10];
        loop {
            let length = self.stream.read(&mut buffer).unwrap();
            assert!(length > 0, "the server has gone");
            if done(&buffer[..length]) {
                return;
            }
        }
    }

    pub fn read_to_end(&mut self) {
        self.read_until(|piece| piece.ends_with(END));
    }
}
