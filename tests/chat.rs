//! `spacebot chat` against the real daemon: what a person or a script reads when something is wrong, and
//! the exit code: 0 answered, 1 not (the reason on standard error), 2 a wrong command line or config.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use daemon::{DEADLINE, Home, eventually};
use nix::pty::openpty;

fn outcome(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Runs `spacebot chat` with this on its standard input.
fn piped(home: &Home, input: &[u8]) -> Output {
    let mut command = home.command(&["chat"]);
    let mut chat =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A chat that ends early does not read the rest.
    chat.stdin.take().unwrap().write_all(input).ok();
    chat.wait_with_output().unwrap()
}

fn background(home: &Home, arguments: &[&str]) -> Child {
    home.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A provider that takes the request and never answers; sends a note for every request.
fn silent_provider() -> (String, mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (note, notes) = mpsc::channel();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if stream.read(&mut [0; 4096]).unwrap_or(0) > 0 && note.send(()).is_err() {
                return;
            }
            open.push(stream);
        }
    });
    let config = format!(
        "[llm.provider.slow]\napi_type = \"openai_chat_completions\"\nbase_url = \"http://127.0.0.1:{port}/v1\"\n\
         api_key = \"k\"\n[defaults.routing]\nchannel = \"slow/model\"\n"
    );
    (config, notes)
}

#[test]
fn without_a_daemon_it_says_where_it_looked_and_what_to_do() {
    let home = Home::new("");
    for output in [home.chat_once("hello"), piped(&home, b"hello\n")] {
        let (code, printed, said) = outcome(&output);
        assert_eq!((code, printed.as_str()), (Some(1), ""), "{said}");
        let address = format!("spacebot: no daemon answers at http://127.0.0.1:{}/api: ", home.api);
        assert!(said.starts_with(&address) && said.contains("start it with `spacebot run`"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn something_else_on_the_port_is_not_taken_for_the_daemon() {
    let home = Home::new("");
    let listener = TcpListener::bind(("127.0.0.1", home.api)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if stream.read(&mut [0; 4096]).unwrap_or(0) > 0 {
                stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\nhello\n").ok();
            }
        }
    });
    let (code, _, said) = outcome(&home.chat_once("hello"));
    assert_eq!(code, Some(1));
    assert!(said.contains("not the API of this daemon"), "{said}");
}

#[test]
fn a_wrong_token_is_named_and_never_shown() {
    let home = Home::new("");
    let with_token = |token: &str| {
        let text = format!(
            "[messaging.webhook]\nport = {}\n[api]\nport = {}\nauth_token = \"{token}\"\n",
            home.webhook, home.api
        );
        std::fs::write(home.folder().join("config.toml"), text).unwrap();
    };
    with_token("right-token");
    let daemon = home.start();
    assert_eq!(outcome(&home.chat_once("help")).0, Some(0));
    with_token("wrong-token");
    for output in [home.chat_once("help"), piped(&home, b"help\n")] {
        let (code, printed, said) = outcome(&output);
        assert_eq!((code, printed.as_str()), (Some(1), ""), "{said}");
        assert!(said.contains("does not take the token of this config"), "{said}");
        assert!(!said.contains("wrong-token") && !said.contains("right-token"), "{said}");
    }
    drop(daemon);
}

#[test]
fn what_the_daemon_refuses_is_told_in_its_words() {
    let home = Home::new("");
    let _daemon = home.start();
    let output = home.command(&["chat", "--once", "hi", "--agent", "nobody"]).output().unwrap();
    let (code, _, said) = outcome(&output);
    assert_eq!(code, Some(1));
    assert!(said.contains("the daemon refused: Not accepted: there is no agent named \"nobody\"."), "{said}");
    // A session is any text.
    let output = home.command(&["chat", "--once", "help", "--session", "a/b ?é"]).output().unwrap();
    let (code, printed, said) = outcome(&output);
    assert_eq!(code, Some(0), "{said}");
    assert!(printed.contains("remember"), "{printed}");
}

#[test]
fn a_switched_off_api_and_a_wrong_command_line_are_told() {
    let home = Home::new("");
    std::fs::write(home.folder().join("config.toml"), "[api]\nenabled = false\n").unwrap();
    let (code, _, said) = outcome(&home.chat_once("hi"));
    assert_eq!(code, Some(1));
    assert!(said.contains("the API is switched off in the config (hint: set api.enabled = true)"), "{said}");
    let cut = std::ffi::OsStr::from_bytes(b"--once=caf\xc3");
    let output = home.command(&["chat"]).arg(cut).output().unwrap();
    let (code, _, said) = outcome(&output);
    assert!(code == Some(2) && said.contains("UTF-8"), "{code:?} {said}");
    std::fs::write(home.folder().join("config.toml"), "[api]\nprt = 1\n").unwrap();
    let (code, _, said) = outcome(&home.chat_once("hi"));
    assert!(code == Some(2) && said.contains("did you mean `port`?"), "{code:?} {said}");
}

#[test]
fn a_stop_in_mid_answer_is_told_at_once_and_the_answer_comes_after_the_next_start() {
    for by_power_cut in [false, true] {
        let (config, asked) = silent_provider();
        let mut home = Home::new(&config);
        let daemon = home.start();
        let chat = background(&home, &["chat", "--once", "help"]);
        asked.recv_timeout(DEADLINE).unwrap();
        let begun = Instant::now();
        if by_power_cut {
            daemon.kill();
        } else {
            let (status, log) = daemon.stop();
            assert!(status.success(), "{log}");
        }
        let (code, printed, said) = outcome(&chat.wait_with_output().unwrap());
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        assert_eq!((code, printed.as_str()), (Some(1), ""), "{said}");
        assert!(said.contains("the daemon stopped before it answered; the message is kept"), "{said}");
        home.configure("");
        let daemon = home.start();
        let (code, printed, said) = outcome(&home.chat_once("status"));
        assert_eq!(code, Some(0), "{said}");
        let everything = printed + &said + &outcome(&piped(&home, b"")).1;
        assert!(everything.contains("remember"), "the kept message was not answered: {everything}");
        drop(daemon);
    }
}

#[test]
fn the_end_of_a_pipe_waits_for_the_answers() {
    let home = Home::new("");
    let _daemon = home.start();
    // The last line has no end.
    let (code, printed, said) = outcome(&piped(&home, b"remember that the key is at Anna's\n\n  \nhelp"));
    assert_eq!((code, said.as_str()), (Some(0), ""), "{printed}");
    assert!(printed.contains("the key is at Anna's") && printed.contains("what do you know"), "{printed}");
    // What was fetched is off the list, at the latest with the next commit.
    eventually("nothing is left", DEADLINE, || {
        outcome(&piped(&home, b"")) == (Some(0), "".into(), "".into())
    });
    let (code, printed, _) = outcome(&piped(&home, b"/quit\nhelp\n"));
    assert_eq!((code, printed.as_str()), (Some(0), ""), "nothing after /quit is sent");
}

#[test]
fn a_line_that_cannot_be_sent_is_told_and_the_others_are_sent() {
    let home = Home::new("");
    let _daemon = home.start();
    let longest = format!("help {}", "é".repeat(49_997));
    let mut input = vec![b'x'; 8 << 20];
    input.extend_from_slice(b"\ncaf\xc3\n");
    input.extend_from_slice(longest.as_bytes());
    input.extend_from_slice(b"\nhelp");
    let (code, printed, said) = outcome(&piped(&home, &input));
    assert_eq!(code, Some(1), "{said}");
    assert!(printed.contains("remember"), "{printed}");
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "not sent: the message is longer than 100000 bytes",
            "not sent: the line is not UTF-8 text",
            "spacebot: 2 of the lines were not sent",
        ]
    );
    let long = "x".repeat(100_001);
    let (code, _, said) = outcome(&home.chat_once(&long));
    assert!(code == Some(1) && said == "spacebot: the message is longer than 100000 bytes\n", "{said}");
}

#[test]
fn an_answer_that_cannot_be_printed_is_no_success() {
    let home = Home::new("");
    let _daemon = home.start();
    let mut command = home.command(&["chat", "--once", "help"]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = command.stdout(full).output().unwrap();
    let (code, _, said) = outcome(&output);
    assert!(code == Some(1) && said.contains("the answer cannot be printed: No space left"), "{said}");
}

#[test]
fn on_a_terminal_ctrl_d_leaves_and_a_restart_of_the_daemon_is_told() {
    let home = Home::new("");
    let daemon = home.start();
    let terminal = openpty(None, None).unwrap();
    let (mut keys, screen) = (File::from(terminal.master.try_clone().unwrap()), File::from(terminal.master));
    let mut chat = home
        .command(&["chat"])
        .stdin(terminal.slave.try_clone().unwrap())
        .stdout(terminal.slave)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (seen, screen_lines) = mpsc::channel();
    std::thread::spawn(move || {
        // The end of a terminal is an error.
        for line in BufReader::new(screen).lines().map_while(Result::ok) {
            if seen.send(line).is_err() {
                return;
            }
        }
    });
    let see = |what: &str| {
        while !screen_lines.recv_timeout(DEADLINE).expect(what).contains(what) {}
    };
    see("/quit or Ctrl-D leaves");
    keys.write_all(b"help\n").unwrap();
    see("remember");
    daemon.kill();
    let mut told = BufReader::new(chat.stderr.take().unwrap()).lines();
    let lost = told.next().unwrap().unwrap();
    assert!(lost.contains("no daemon answers at") && lost.ends_with("; trying again"), "{lost}");
    keys.write_all(b"help me\n").unwrap();
    let not_sent = told.next().unwrap().unwrap();
    assert!(not_sent.starts_with("not sent: no daemon answers at"), "{not_sent}");
    let _daemon = home.start();
    assert_eq!(told.next().unwrap().unwrap(), "the daemon is back");
    keys.write_all(b"help\n").unwrap();
    see("remember");
    // Ctrl-D.
    keys.write_all(b"\x04").unwrap();
    assert_eq!(chat.wait().unwrap().code(), Some(0));
}
