//! `make bench`: what a call of a model costs on our side, beside a bare client of the same server in the
//! same run. Prints one line for each; nothing here passes or fails. docs/MODELS.md has the table.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/support/daemon.rs"]
mod daemon;
#[path = "../tests/support/local_model.rs"]
mod local_model;
#[path = "models/server.rs"]
mod server;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use daemon::{DEADLINE, Home, eventually};
use nix::sys::resource::{UsageWho, getrusage};
use rig_core::completion::{CompletionRequest, ToolDefinition};
use rig_core::message::{Message, ToolName};
use serde_json::json;
use spacebot::clock::SystemClock;
use spacebot::config::{ApiType, LlmConfig, ProviderConfig, RoutingConfig, Secret};
use spacebot::db::{Db, Schema};
use spacebot::id::ProcessKind;
use spacebot::llm::{Delta, LlmManager, SpacebotModel, Tuning};
use spacebot::onlookers::ONLOOKERS_MAX;
use spacebot::thread::Cancel;
use spacebot::usage::{Ledger, Rules};

use server::{Bare, FirstWords, Held, Words};

/// Calls of each kind in a comparison; their order alternates.
const CALLS: usize = 500;
const DELTAS: usize = 10_000;
/// Times that so many are measured.
const ROUNDS: usize = 5;
const STREAMS: usize = 16;
const STREAM_BYTES: usize = 1 << 20;
/// Bytes of a delta where its size matters: what a provider sends at a time.
const PIECE: usize = 32;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|figure| figure == "onlookers") {
        return cost_of_deltas_in_the_daemon();
    }
    if let ["streams", port] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return streams(port.parse().unwrap());
    }
    first_words_in_the_process();
    first_words_in_a_poll();
    cost_of_deltas();
    cost_of_deltas_in_the_daemon();
    cost_of_calls();
    memory_of_streams();
    memory_of_the_daemon();
}

fn line(figure: &str, value: impl std::fmt::Display) {
    println!("{figure:<66} {value}");
}

/// Milliseconds below which `percent` of them are.
fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort();
    times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3
}

/// The line of ours beside the base, p50 and p99.
fn compare(figure: &str, ours: &mut [Duration], base: &mut [Duration]) {
    let [ours50, ours99, base50, base99] =
        [percentile(ours, 50), percentile(ours, 99), percentile(base, 50), percentile(base, 99)];
    let added = ours50 - base50;
    line(figure, format!("{ours50:.3} / {ours99:.3}, bare {base50:.3} / {base99:.3}, added p50 {added:.3}"));
}

fn provider(port: u16) -> ProviderConfig {
    ProviderConfig {
        base_url: Some(format!("http://127.0.0.1:{port}/v1")),
        api_key: Some(Secret::new("key")),
        ..ProviderConfig::new("double", ApiType::OpenAiCompatible)
    }
}

fn manager(port: u16, streamed: bool) -> LlmManager {
    let config = LlmConfig { providers: vec![provider(port)], ..LlmConfig::default() };
    let tuning = Tuning { streamed, ..Tuning::default() };
    let offline = local_model::stand_in(|_| Ok("offline stand-in".to_owned()));
    LlmManager::tuned(&config, SystemClock::shared(), offline, tuning)
}

fn model_of(manager: &LlmManager) -> SpacebotModel {
    let routing = RoutingConfig { channel: "double/m".to_owned(), ..RoutingConfig::default() };
    manager.model_for(&routing, ProcessKind::Channel)
}

fn model(port: u16) -> SpacebotModel {
    model_of(&manager(port, true))
}

/// The config of a daemon whose channels, and nothing else, have a model at this port.
fn config(port: u16) -> String {
    format!(
        "[llm.provider.double]\napi_type = \"openai_chat_completions\"\nbase_url = \"http://127.0.0.1:{port}/v1\"\napi_key = \"k\"\n\
         [defaults.routing]\nchannel = \"double/model\"\nbranch = \"offline/responder\"\nworker = \"offline/responder\"\n\
         compactor = \"offline/responder\"\ncortex = \"offline/responder\"\n"
    )
}

fn short_request() -> CompletionRequest {
    let mut request = CompletionRequest::new("What is 2 + 3?");
    request.tools = vec![tool(0)];
    request
}

fn tool(number: usize) -> ToolDefinition {
    let parameters =
        json!({"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}}});
    ToolDefinition::new(ToolName::new(format!("add{number}")).unwrap(), "Adds two numbers.", parameters)
}

/// As a conversation of some length sends it: about 6,000 tokens.
fn long_request() -> CompletionRequest {
    let mut request = short_request();
    request.tools = (0..20).map(tool).collect();
    let words = "so many words as people write ".repeat(18);
    request.chat_history = (0..20)
        .flat_map(|_| [Message::user(words.clone()), Message::assistant(words.clone())])
        .chain([Message::user("What is 2 + 3?")])
        .collect();
    request
}

fn call(model: &SpacebotModel, request: &CompletionRequest, on_delta: &mut dyn FnMut(Delta<'_>)) {
    model.call(request, &Cancel::new(), on_delta).unwrap();
}

/// From the write of the first words of a reply to our caller's delta.
fn first_words_in_the_process() {
    let server = FirstWords::new();
    let (model, request) = (model(server.port), short_request());
    let mut bare = Bare::new(server.port);
    let (mut ours, mut base) = (Vec::new(), Vec::new());
    for _ in 0..CALLS {
        base.push(bare_first_words(&mut bare, &server));
        let mut took = None;
        call(&model, &request, &mut |delta| match delta {
            Delta::Call { .. } => {
                server.opened();
                server.write();
            }
            Delta::Arguments { json, .. } if json.contains(FirstWords::TEXT) => {
                took = Some(server.seen(Instant::now()));
            }
            _ => {}
        });
        ours.push(took.unwrap());
    }
    compare("first words to the caller's delta, p50 / p99, ms", &mut ours[10..], &mut base[10..]);
}

fn bare_first_words(bare: &mut Bare, server: &FirstWords) -> Duration {
    bare.ask();
    server.opened();
    bare.read_until(|piece| piece.ends_with(b"\n\n\r\n"));
    server.write();
    bare.read_until(|piece| piece.windows(FirstWords::TEXT.len()).any(|w| w == FirstWords::TEXT.as_bytes()));
    let took = server.seen(Instant::now());
    bare.read_to_end();
    took
}

/// From the write of the first words to a poll that the whole daemon has parked.
fn first_words_in_a_poll() {
    let server = FirstWords::new();
    let home = Home::new(&config(server.port));
    let daemon = home.start();
    let mut client = daemon.client("c");
    let mut bare = Bare::new(server.port);
    let mut poll = TcpStream::connect(("127.0.0.1", home.webhook)).unwrap();
    let health = format!("http://127.0.0.1:{}/health", home.webhook);
    let (mut ours, mut base) = (Vec::new(), Vec::new());
    for number in 0..CALLS {
        base.push(bare_first_words(&mut bare, &server));
        let id = format!("m{number}");
        client.send(&id, "hello");
        server.opened();
        poll.write_all(b"GET /poll/c?after=0&wait=30&draft=0&from=0 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            .unwrap();
        // When these have been answered, the poll has been looked at.
        (0..3).for_each(|_| assert_eq!(daemon::get(&health).0, 200));
        server.write();
        let mut piece = [0; 4 << 10];
        let length = poll.read(&mut piece).unwrap();
        let now = Instant::now();
        let text = String::from_utf8_lossy(&piece[..length]);
        assert!(text.contains(FirstWords::TEXT) && text.contains("\"draft\""), "{text}");
        ours.push(server.seen(now));
        client.answer(&id);
        // Says that it has come, so that the next poll does not get it.
        client.poll(0);
    }
    compare("first words to a parked poll, p50 / p99, ms", &mut ours[10..], &mut base[10..]);
}

/// Of this thread.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    let of =
        |time: nix::sys::time::TimeVal| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000);
    of(usage.user_time()) + of(usage.system_time())
}

fn each(total: Duration, count: usize) -> f64 {
    total.as_secs_f64() * 1e6 / count as f64
}

fn cost_of_deltas() {
    let request = short_request();
    for (how, asked_for) in [("one by one", true), ("all at once", false)] {
        let server = Words::new(DELTAS, "word ", asked_for);
        let model = model(server.port);
        let mut bare = Bare::new(server.port);
        let (mut ours, mut base, mut seen) = (Duration::ZERO, Duration::ZERO, 0);
        for _ in 0..ROUNDS {
            server.took(0);
            let (before, mut pieces) = (cpu(), 0);
            bare.ask();
            bare.read_until(|piece| {
                pieces += 1;
                server.took(pieces);
                piece.ends_with(server::END)
            });
            base += cpu() - before;
            server.took(0);
            let (before, mut pieces) = (cpu(), 0);
            call(&model, &request, &mut |delta| {
                if matches!(delta, Delta::Arguments { .. }) {
                    pieces += 1;
                    server.took(pieces);
                }
            });
            seen += pieces;
            ours += cpu() - before;
        }
        assert!(seen >= ROUNDS * DELTAS, "{seen}");
        let [ours, base] = [ours, base].map(|total| each(total, ROUNDS * DELTAS));
        line(
            &format!("CPU per delta, {how}, µs"),
            format!("{ours:.2}, bare {base:.2}, {:.1} times", ours / base),
        );
    }
}

/// User and system time of a process.
fn cpu_of(pid: nix::unistd::Pid) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // In ticks of 10 ms.
    Duration::from_millis((fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10)
}

/// With nobody who looks on, with one and with as many as may, in turn in one daemon.
fn cost_of_deltas_in_the_daemon() {
    let server = Words::new(DELTAS, "word ", false);
    let home = Home::new(&config(server.port));
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.ask("warm", "hello");
    let looks = [0, 1, ONLOOKERS_MAX];
    let (mut spent, mut got) = ([Duration::ZERO; 3], [0; 3]);
    for round in 0..ROUNDS {
        for (index, count) in looks.into_iter().enumerate() {
            let onlookers: Vec<_> = (0..count).map(|_| Onlooker::start(home.api)).collect();
            eventually("onlookers", DEADLINE, || daemon.status()["onlookers"] == count);
            let before = cpu_of(daemon.pid());
            client.ask(&format!("m{round}-{count}"), "hello");
            // What they have not read yet is part of what they cost.
            got[index] += onlookers.into_iter().map(Onlooker::until_the_end).sum::<usize>();
            spent[index] += cpu_of(daemon.pid()) - before;
            eventually("that they are gone", DEADLINE, || daemon.status()["onlookers"] == 0);
        }
    }
    let alone = each(spent[0], ROUNDS * DELTAS);
    line("CPU of the daemon per delta, all at once, turn included, µs", format!("{alone:.1}"));
    for (index, count) in looks.into_iter().enumerate().skip(1) {
        let each = each(spent[index], ROUNDS * DELTAS);
        let events = got[index] / (count * ROUNDS);
        line(
            &format!("the same with {count} onlookers, µs"),
            format!("{each:.1}, {:.2} times; each saw {events} events of a turn", each / alone),
        );
    }
}

/// `GET /api/events`, read as fast as it comes by a thread of its own.
struct Onlooker {
    stream: TcpStream,
    reading: std::thread::JoinHandle<usize>,
}

impl Onlooker {
    fn start(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"GET /api/events HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let reading = std::thread::spawn(move || {
            let mut count = 0;
            for line in lines.map_while(Result::ok) {
                count += usize::from(line.starts_with("data: "));
                if line.contains("\"ended\"") {
                    break;
                }
            }
            count
        });
        Self { stream, reading }
    }

    /// Events until the turn was over.
    fn until_the_end(self) -> usize {
        let count = self.reading.join().unwrap();
        self.stream.shutdown(std::net::Shutdown::Both).ok(); // the daemon may have been faster
        count
    }
}

/// One small answer, whole and streamed, against a bare POST of the same bytes.
fn cost_of_calls() {
    let folder = tempfile::tempdir().unwrap();
    let (db, writer) = Db::open_as(&folder.path().join("global.db"), "instance", Schema::Instance).unwrap();
    let ledger = Ledger::open(db.clone(), SystemClock::shared(), Rules::default()).unwrap();
    for (length, request) in [("short", short_request()), ("long", long_request())] {
        for (how, streamed) in [("whole", false), ("streamed", true)] {
            let (port, kept) = server::at_once();
            // Booked as the daemon books, without a ceiling.
            let model = model_of(&manager(port, streamed).metered(std::sync::Arc::new(ledger.clone())));
            call(&model, &request, &mut |_| {});
            let body = kept.lock().unwrap().clone();
            let http = ureq::Agent::new_with_defaults();
            let (mut ours, mut base) = (Vec::new(), Vec::new());
            for _ in 0..CALLS {
                let started = Instant::now();
                post(&http, port, &body);
                base.push(started.elapsed());
                let started = Instant::now();
                call(&model, &request, &mut |_| {});
                ours.push(started.elapsed());
            }
            let bytes = body.len();
            let figure = format!("{length} call ({bytes} bytes), {how}, p50 / p99, ms");
            compare(&figure, &mut ours, &mut base);
        }
    }
    drop(ledger);
    db.close();
    writer.join().unwrap();
}

fn post(http: &ureq::Agent, port: u16, body: &[u8]) {
    let mut response = http
        .post(format!("http://127.0.0.1:{port}/v1/chat/completions"))
        .header("content-type", "application/json")
        .send(body)
        .unwrap();
    assert!(response.body_mut().read_to_string().unwrap().contains("short answer"));
}

/// MiB now, and the most so far.
fn memory(pid: impl std::fmt::Display) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let number = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    };
    (number("VmRSS"), number("VmHWM"))
}

/// In a process of their own, so that nothing else is in the figure.
fn memory_of_streams() {
    let server = Held::new(STREAM_BYTES, PIECE);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["streams", &server.port.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut tell = child.stdin.take().unwrap();
    let mut step = |tell_it: bool| {
        if tell_it {
            tell.write_all(b"\n").unwrap();
        } else {
            said.read_line(&mut String::new()).unwrap();
        }
    };
    step(false);
    let before = memory(child.id()).0;
    step(true);
    server.wait_for(STREAMS);
    // It says so when all of it is there.
    step(false);
    let held = memory(child.id()).0;
    server.release(STREAMS);
    step(false);
    let (after, most) = memory(child.id());
    step(true);
    child.wait().unwrap();
    line(
        "16 streams of 1 MiB: before / held / most / after, MiB of RSS",
        format!("{before:.1} / {held:.1} / {most:.1} / {after:.1}"),
    );
}

/// What the child process does.
fn streams(port: u16) {
    spacebot::allocator::tune();
    let model = model(port);
    call(&model, &CompletionRequest::new("warm"), &mut |_| {});
    let mut order = String::new();
    println!("ready");
    std::io::stdin().read_line(&mut order).unwrap();
    let left = AtomicUsize::new(STREAMS);
    std::thread::scope(|scope| {
        for _ in 0..STREAMS {
            scope.spawn(|| {
                let mut bytes = 0;
                call(&model, &CompletionRequest::new("go on"), &mut |delta| {
                    let Delta::Arguments { json, .. } = delta else { return };
                    let before = bytes;
                    bytes += json.len();
                    let is_there = before < STREAM_BYTES && bytes >= STREAM_BYTES;
                    if is_there && left.fetch_sub(1, Ordering::SeqCst) == 1 {
                        println!("there");
                    }
                });
            });
        }
    });
    println!("over");
    std::io::stdin().read_line(&mut order).unwrap();
}

fn memory_of_the_daemon() {
    let server = Held::new(STREAM_BYTES, PIECE);
    let home = Home::new(&config(server.port));
    let daemon = home.start();
    daemon.client("c").ask("warm", "warm");
    let before = memory(daemon.pid()).0;
    let started = Instant::now();
    for number in 0..STREAMS {
        daemon.client(&format!("c{number}")).send("m", "go on");
    }
    server.wait_for(STREAMS);
    let took = started.elapsed().as_secs_f64();
    // The wait is the daemon's own: a poll that nobody answers. What is on its way comes meanwhile.
    daemon.client("nobody").poll(3);
    let (held, most) = memory(daemon.pid());
    line(
        "the same in the daemon: before / held / most, MiB of RSS",
        format!("{before:.1} / {held:.1} / {most:.1} (all there after {took:.1} s)"),
    );
    daemon.kill();
}
