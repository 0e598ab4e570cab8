//! `make bench`: the figures of the daemon, measured on the release binary with a model double that
//! answers at once. Prints one line for each; nothing here passes or fails.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/support/daemon.rs"]
mod daemon;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use daemon::{Client, Daemon, Home};

fn main() {
    let port = instant_model();
    let config = format!(
        "[llm.provider.double]\napi_type = \"openai_chat_completions\"\nbase_url = \"http://127.0.0.1:{port}/v1\"\napi_key = \"k\"\n\
         [defaults.routing]\nchannel = \"double/model\"\n"
    );
    start_time();
    idle();
    one_at_a_time(&config);
    sixteen_at_once(&config);
    loaded_in_turn(port);
    stop_latency();
}

fn line(figure: &str, value: impl std::fmt::Display) {
    println!("{figure:<58} {value}");
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() - 1) * percent / 100].as_secs_f64() * 1e3
}

fn start_time() {
    let mut times = Vec::new();
    for _ in 0..20 {
        let home = Home::new("");
        drop(home.start());
        // The second start has its folders, like every start of a unit.
        let started = Instant::now();
        let daemon = home.start();
        daemon.client("c").send("m", "help");
        times.push(started.elapsed());
    }
    times.sort();
    line(
        "exec to first accepted message, p50 / p99, ms",
        format!("{:.1} / {:.1}", percentile(&times, 50), percentile(&times, 99)),
    );
}

struct Reading {
    rss_kib: u64,
    threads: u64,
    cpu: Duration,
    written: u64,
}

fn read(daemon: &Daemon<'_>) -> Reading {
    let file = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", daemon.pid())).unwrap();
    let number = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let status = file("status");
    let stat = file("stat");
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // utime and stime in ticks of 10 ms.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Reading {
        rss_kib: number(&status, "VmRSS"),
        threads: number(&status, "Threads"),
        cpu: Duration::from_millis(ticks * 10),
        written: number(&file("io"), "write_bytes"),
    }
}

fn idle() {
    let home = Home::new("");
    let daemon = home.start();
    // The wait is the daemon's own: a poll that nobody answers.
    let mut client = daemon.client("nobody");
    client.poll(30);
    let reading = read(&daemon);
    line(
        "idle after 30 s: RSS MiB / threads",
        format!("{:.1} / {}", reading.rss_kib as f64 / 1024.0, reading.threads),
    );
}

fn one_at_a_time(config: &str) {
    let home = Home::new(config);
    let daemon = home.start();
    let mut client = daemon.client("one");
    let mut number = 0;
    let mut run = |count: usize| {
        let mut times = Vec::new();
        let before = read(&daemon);
        for _ in 0..count {
            number += 1;
            let id = format!("m{number}");
            let started = Instant::now();
            client.send(&id, "hello there");
            client.answer(&id);
            times.push(started.elapsed());
        }
        let after = read(&daemon);
        times.sort();
        (times, (after.cpu - before.cpu) / count as u32, (after.written - before.written) / count as u64)
    };
    run(50);
    let (times, cpu, written) = run(1000);
    line(
        "one message over the webhook, p50 / p99, ms",
        format!("{:.2} / {:.2}", percentile(&times, 50), percentile(&times, 99)),
    );
    line("CPU per message in that run, ms", format!("{:.2}", cpu.as_secs_f64() * 1e3));
    line("bytes written to disk per message, KiB", format!("{:.1}", written as f64 / 1024.0));
    run(6000);
    let (_, cpu, _) = run(1000);
    line("CPU per message after 7,000 messages, ms", format!("{:.2}", cpu.as_secs_f64() * 1e3));
    line("RSS after 8,000 messages, MiB", format!("{:.1}", read(&daemon).rss_kib as f64 / 1024.0));
}

fn sixteen_at_once(config: &str) {
    const CLIENTS: usize = 16;
    const EACH: usize = 250;
    let home = Home::new(config);
    let daemon = home.start();
    daemon.client("warm").ask("warm", "hello");
    let mut rounds = 0;
    let mut round = || {
        rounds += 1;
        let started = Instant::now();
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let name = format!("c{client}-{rounds}");
                let mut client: Client = daemon.client(&name);
                scope.spawn(move || {
                    for number in 0..EACH {
                        client.ask(&format!("{name}-{number}"), "hello there");
                    }
                });
            }
        });
        (CLIENTS * EACH) as f64 / started.elapsed().as_secs_f64()
    };
    let first = round();
    let rss = read(&daemon).rss_kib as f64 / 1024.0;
    line("messages/s with 16 conversations at once", format!("{first:.0}"));
    line("RSS after 4,000 messages at 16 at once, MiB", format!("{rss:.1}"));
    let second = round();
    line("again: messages/s, RSS MiB", format!("{second:.0}, {:.1}", read(&daemon).rss_kib as f64 / 1024.0));
}

/// Long conversations that are answered one after another, as if the daemon had been started after a
/// busy month: the first answer loads the window, and nothing of it may stay.
fn loaded_in_turn(port: u16) {
    const CONVERSATIONS: usize = 200;
    const MESSAGES: usize = 200;
    let home = Home::new(&format!(
        "[llm.provider.double]\napi_type = \"openai_chat_completions\"\nbase_url = \"http://127.0.0.1:{port}/v1\"\napi_key = \"k\"\n\
         [defaults]\nhistory_messages = 1000\n[defaults.routing]\nchannel = \"double/model\"\n"
    ));
    let names: Vec<String> = (0..CONVERSATIONS).map(|number| format!("c{number}")).collect();
    let daemon = home.start();
    names.iter().for_each(|name| {
        daemon.client(name).ask(&format!("{name}-first"), "hello there");
    });
    daemon.stop();
    // Each has two lines now, and gets copies of them.
    rusqlite::Connection::open(home.database())
        .unwrap()
        .execute(
            "WITH RECURSIVE copy (number) AS (SELECT 2 UNION ALL SELECT number + 2 FROM copy WHERE number + 2 < ?1)
             INSERT INTO conversation_messages (channel_id, role, sender_name, sender_id, content, created_at)
             SELECT channel_id, role, sender_name, sender_id, content, created_at
             FROM conversation_messages, copy ORDER BY channel_id, number, id",
            [MESSAGES],
        )
        .unwrap();
    let daemon = home.start();
    let rss = || read(&daemon).rss_kib as f64 / 1024.0;
    let load = |name: &String| {
        let mut client = daemon.client(name);
        let started = Instant::now();
        client.ask(&format!("{name}-second"), "hello there");
        started.elapsed()
    };
    load(&names[0]);
    let first = rss();
    let mut times: Vec<_> = names[1..].iter().map(load).collect();
    times.sort();
    line(
        "one message in each of 200 conversations of 200, p50 / p99, ms",
        format!("{:.2} / {:.2}", percentile(&times, 50), percentile(&times, 99)),
    );
    line("RSS after the first and the last of them, MiB", format!("{first:.1} / {:.1}", rss()));
}

/// From the request to cancel to the answer that says so, for a turn that waits for a silent model.
fn stop_latency() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked_send, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            read_request(&mut BufReader::new(stream.try_clone().unwrap()));
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: hold on\n\n")
                .unwrap();
            asked_send.send(()).ok();
            open.push(stream);
        }
    });
    let home = Home::new(&format!(
        "[llm.provider.slow]\napi_type = \"openai_chat_completions\"\nbase_url = \"http://127.0.0.1:{port}/v1\"\napi_key = \"k\"\n\
         [defaults.routing]\nchannel = \"slow/model\"\n"
    ));
    let daemon = home.start();
    let mut client = daemon.client("c");
    let mut times = Vec::new();
    for number in 0..100 {
        let id = format!("m{number}");
        client.send(&id, "hello");
        asked.recv_timeout(Duration::from_secs(10)).unwrap();
        let process = daemon.status()["processes"][0]["process"].as_str().unwrap().to_owned();
        let body =
            serde_json::json!({ "agent_id": "main", "process_type": "channel", "process_id": process });
        let started = Instant::now();
        ureq::post(format!("http://127.0.0.1:{}/api/channels/cancel-process", home.api))
            .send(body.to_string())
            .unwrap();
        client.answer(&id);
        times.push(started.elapsed());
    }
    times.sort();
    line(
        "stop of a turn on a silent stream, to its answer, p99, ms",
        format!("{:.1}", percentile(&times, 99)),
    );
}

/// An OpenAI chat endpoint that calls `reply` at once; one thread per connection, kept alive.
fn instant_model() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || serve(stream.unwrap()));
        }
    });
    port
}

fn serve(stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    let chunk = |delta: &str, finish: &str| {
        format!(
            "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
        )
    };
    let call = r#"{"role":"assistant","tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"reply","arguments":"{\"content\":\"hello back\"}"}}]}"#;
    let body = format!("{}{}data: [DONE]\n\n", chunk(call, "null"), chunk("{}", "\"tool_calls\""));
    let response = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    while read_request(&mut reader) {
        if writer.write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

/// Reads one request with its body; false at the end of the connection.
fn read_request(reader: &mut impl BufRead) -> bool {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return false;
        }
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink()).is_ok()
}
