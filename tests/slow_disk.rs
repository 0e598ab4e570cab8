//! What the daemon does over HTTP while the disk keeps it waiting: whoever only asks is answered, a send
//! is answered by its commit and not before, and too many are refused and not lost.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use daemon::{DEADLINE, Daemon, HeldDatabase, Home, eventually, get};

/// Commits are given up after 5 s, which would let everybody go on.
const BEFORE_COMMITS_FAIL: Duration = Duration::from_secs(4);
/// Messages that may wait for their commit at once.
const WAITING_MAX: usize = 128;

/// A send whose answer is read later, if ever.
struct Send {
    stream: TcpStream,
    conversation: String,
}

impl Send {
    fn new(daemon: &Daemon<'_>, conversation: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", daemon.home.webhook)).unwrap();
        let body = format!(
            r#"{{"conversation_id":"{conversation}","sender_id":"una","content":"help","message_id":"m"}}"#
        );
        let length = body.len();
        let head = format!(
            "POST /send HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        Self { stream, conversation: conversation.to_owned() }
    }

    fn is_answered(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        match self.stream.peek(&mut [0]) {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn answer(&mut self) -> String {
        self.stream.set_nonblocking(false).unwrap();
        self.stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

fn is_accepted(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 202 ")
}

#[test]
fn sixteen_slow_commits_keep_nobody_from_asking_and_are_not_confirmed_before_they_are_done() {
    let home = Home::new("");
    let daemon = home.start();
    // An answer that waits to be fetched: fetching it writes too.
    daemon.client("fetched").send("m", "help");
    eventually("the turn is over", DEADLINE, || daemon.status()["busy"].as_array().unwrap().is_empty());
    let held = HeldDatabase::hold(&home.database());
    let begun = Instant::now();
    let mut sends: Vec<_> = (0..16).map(|number| Send::new(&daemon, &format!("c{number}"))).collect();
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", home.webhook);
    for round in 0..8 {
        assert_eq!(get(&url("/health")), (200, serde_json::json!({ "status": "ok" })));
        assert_eq!(get(&url("/poll/c1?after=0")).0, 200);
        let (status, fetched) = get(&url("/poll/fetched"));
        // Handed out once; recording that waits for the disk, and nobody else gets it meanwhile.
        assert_eq!((status, fetched["messages"].as_array().unwrap().len()), (200, usize::from(round == 0)));
    }
    assert_eq!(daemon.status()["stopping"], false);
    assert!(begun.elapsed() < BEFORE_COMMITS_FAIL, "the answers waited for the disk");
    assert!(!sends.iter().any(Send::is_answered), "confirmed before its commit");
    held.release();
    for send in &mut sends {
        let answer = send.answer();
        assert!(is_accepted(&answer), "{answer}");
        assert!(!daemon.client(&send.conversation).answer("m").is_empty());
    }
}

#[test]
fn too_many_sends_are_refused_with_a_time_to_come_back_and_none_is_lost_or_doubled() {
    const MANY: usize = WAITING_MAX + 40;
    let home = Home::new("");
    let daemon = home.start();
    let held = HeldDatabase::hold(&home.database());
    let begun = Instant::now();
    let mut sends: Vec<_> = (0..MANY).map(|number| Send::new(&daemon, &format!("c{number}"))).collect();
    let answered = |sends: &[Send]| sends.iter().filter(|send| send.is_answered()).count();
    eventually("the refusals", DEADLINE, || answered(&sends) >= MANY - WAITING_MAX);
    assert!(begun.elapsed() < BEFORE_COMMITS_FAIL, "the refusals waited for the disk");
    assert_eq!(get(&format!("http://127.0.0.1:{}/health", home.webhook)).0, 200);
    assert_eq!(answered(&sends), MANY - WAITING_MAX);
    let refused: Vec<_> = sends.extract_if(.., |send| send.is_answered()).collect();
    for mut send in refused {
        let answer = send.answer();
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nRetry-After: 2\r\n"), "{answer}");
        assert!(answer.contains("too many messages wait for the disk"), "{answer}");
    }
    held.release();
    let accepted = sends.iter_mut().map(Send::answer).filter(|answer| is_accepted(answer)).count();
    assert_eq!(accepted, WAITING_MAX);
    // Who was refused comes again; who was not, too, and is known.
    for number in 0..MANY {
        let answer = Send::new(&daemon, &format!("c{number}")).answer();
        assert!(is_accepted(&answer), "{answer}");
        let duplicate = sends.iter().any(|send| send.conversation == format!("c{number}"));
        assert!(answer.contains(&format!("\"duplicate\":{duplicate}")), "{answer}");
    }
    for number in 0..MANY {
        let mut client = daemon.client(&format!("c{number}"));
        client.answer("m");
        client.poll(0);
        assert_eq!(client.answers["m"].len(), 1, "c{number}");
    }
}
