//! Whatever bytes come over the webhook: no answer of the daemon is an error of its own, nothing is lost,
//! and what it was asked to remember is found again and exported as it was.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use daemon::{DEADLINE, Home};
use serde_json::json;

/// Status of a raw request; bodies here need not be text.
fn post(port: u16, body: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let head = format!(
        "POST /send HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A server may refuse before it has read everything.
    stream.write_all(body).ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split_whitespace().nth(1).unwrap_or("none").parse();
    status.unwrap_or_else(|_| panic!("no status in {answer:?}"))
}

fn body(content: &str) -> Vec<u8> {
    format!("{{\"conversation_id\":\"c\",\"sender_id\":\"una\",\"content\":{content}}}").into_bytes()
}

#[test]
fn strange_bodies_are_taken_or_refused_and_never_break_anything() {
    let home = Home::new("");
    let daemon = home.start();
    let quoted = |text: &str| json!(text).to_string();
    let taken = [
        quoted("remember that a bell \u{7} and a tab \t are inside"),
        quoted("\u{202e}remember that this is right to left: مرحبا بالعالم"),
        quoted("remember that 👩‍👩‍👧‍👦🏳️‍🌈 \u{1F468}\u{200D}\u{1F469} live here"),
        quoted("remember that \"content:x\" AND NOT (y OR z~2) is syntax*"),
        quoted("recall '; DROP TABLE memories; --"),
        quoted(&format!("recall {}", "word ".repeat(10_000))),
        quoted(&format!("remember that it ends far away{}here", " ".repeat(90_000))),
    ];
    for content in &taken {
        assert_eq!(post(home.webhook, &body(content)), 202, "{}", &content[..content.len().min(60)]);
    }
    let refused = [
        body(&quoted("remember that NUL \0 is inside")),
        body("\"\""),
        body("\"   \""),
        // A lone half of a pair is no text.
        body("\"\\ud800 remember\""),
        body("7"),
        body("null"),
        [&body("\"")[..body("\"").len() - 1], b"\xff\xfe\"}"].concat(),
        body(&quoted(&" ".repeat(10_000_000))),
        body(&quoted(&"x".repeat(200_000))),
        b"".to_vec(),
        b"\0\0\0\0".to_vec(),
        b"[]".to_vec(),
        vec![b'['; 100_000],
    ];
    for (number, bytes) in refused.iter().enumerate() {
        let status = post(home.webhook, bytes);
        assert!((400..500).contains(&status), "{number}: {status}");
    }
    // What is longer than a memory may be is said so, in the chat.
    let mut client = daemon.client("long");
    let long = client.ask("m1", &format!("remember that {}", "a ".repeat(30_000)));
    assert!(!long.is_empty());
    assert!(!client.ask("m2", "recall bell").is_empty());
    // The others are answered each in its turn, and nobody waited for those.
    let mut said = daemon.client("c");
    let started = Instant::now();
    loop {
        let export = home.command(&["memory", "export"]).output().unwrap();
        assert!(export.status.success(), "{}", String::from_utf8_lossy(&export.stderr));
        let export = String::from_utf8_lossy(&export.stdout).into_owned();
        if export.contains('👩') {
            break;
        }
        said.poll(1);
        let late = started.elapsed() > DEADLINE;
        assert!(!late, "it is not remembered: {export}\n{:?}\n{}", said.said, daemon.status());
    }
    let found = client.ask("m3", "what do you know about who lives here?");
    assert!(found.contains('👩'), "{found}");
    let (status, log) = daemon.stop();
    assert!(status.success() && !log.contains("panic"), "{log}");
    let export = home.command(&["memory", "export"]).output().unwrap();
    let export = String::from_utf8(export.stdout).unwrap();
    assert!(export.contains("a bell \\u0007 and a tab") && export.contains("مرحبا"), "{export}");
}
