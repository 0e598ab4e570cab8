//! Messages that come while a turn runs, and messages that come together: the whole binary, with a double
//! for the model.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/irc_server.rs"]
mod irc_server;
#[path = "support/llm.rs"]
mod llm_double;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use daemon::{DEADLINE, Daemon, Home, eventually};
use irc_server::{IrcServer, Person};
use llm_double::script::{calls, config, last_message, offers};
use llm_double::{Double, Request, Say};
use serde_json::json;
use spacebot::db::Db;

/// Holds a model's reply: it says that it was asked, and goes on when it may.
struct Held {
    asked: Mutex<Sender<()>>,
    go_on: Mutex<Receiver<()>>,
}

/// The reply's end, and those of the test.
fn held() -> (Held, Receiver<()>, Sender<()>) {
    let ((asked, was_asked), (let_go, go_on)) = (channel(), channel());
    (Held { asked: Mutex::new(asked), go_on: Mutex::new(go_on) }, was_asked, let_go)
}

impl Held {
    fn wait(&self) {
        self.asked.lock().unwrap().send(()).unwrap();
        self.go_on.lock().unwrap().recv_timeout(DEADLINE).unwrap();
    }
}

/// The hub has seen what was confirmed before: it takes what waits in any order, so one answer is not enough.
fn settle(daemon: &daemon::Daemon<'_>) {
    (0..30).for_each(|_| drop(daemon.status()));
}

#[test]
fn a_message_that_comes_while_the_model_thinks_reaches_the_second_call_of_the_same_turn() {
    let (hold, asked, let_go) = held();
    let double = Double::recording(move |request: &Request| match last_message(request) {
        last if last.contains("on Saturday, sorry") => {
            calls(&[("reply", json!({ "content": "Saturday it is" }))])
        }
        last if last.contains("for Friday") => {
            hold.wait();
            calls(&[("react", json!({ "emoji": "👀" }))])
        }
        last => panic!("unexpected: {last}"),
    });
    let home = Home::new(&config(&double, ""));
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.send("1", "book a table for Friday");
    asked.recv_timeout(DEADLINE).unwrap();
    client.send("2", "on Saturday, sorry");
    settle(&daemon);
    let_go.send(()).unwrap();
    assert_eq!(client.answer("2"), "Saturday it is");
    assert_eq!(client.answer("1"), "Saturday it is");
    assert_eq!(client.said.iter().filter(|said| said.contains("Saturday")).count(), 1, "{:?}", client.said);
    let (status, _) = daemon.stop();
    assert!(status.success());
    assert_eq!(double.requests().len(), 2, "one turn of two calls");
    let second = double.requests()[1].json["messages"].as_array().unwrap().clone();
    let kinds: Vec<_> = second.iter().map(|message| message["role"].as_str().unwrap_or("?")).collect();
    assert_eq!(kinds[kinds.len() - 4..], ["user", "assistant", "tool", "user"], "behind the result");
}

#[test]
fn a_turn_that_is_killed_after_it_has_heard_a_message_leaves_both_for_the_next_start() {
    let ((first, asked, let_go), (second, has_heard, _never)) = (held(), held());
    let calls_so_far = AtomicUsize::new(0);
    let double = Double::answering(move |request: &Request| {
        let last = last_message(request);
        match calls_so_far.fetch_add(1, Ordering::SeqCst) {
            0 => first.wait(),
            1 => {
                assert!(last.contains("second"), "{last}");
                second.wait();
            }
            _ => return calls(&[("reply", json!({ "content": "after the start" }))]),
        }
        calls(&[("react", json!({ "emoji": "👀" }))])
    });
    let home = Home::new(&config(&double, ""));
    let daemon = home.start();
    let client = daemon.client("c");
    client.send("1", "first");
    asked.recv_timeout(DEADLINE).unwrap();
    client.send("2", "second");
    settle(&daemon);
    let_go.send(()).unwrap();
    has_heard.recv_timeout(DEADLINE).unwrap();
    daemon.kill();
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.answer("1");
    client.answer("2");
    assert_eq!(
        client.said,
        ["after the start", "after the start"],
        "one turn for each, as nobody waits for them"
    );
    assert_eq!((client.answers["1"].len(), client.answers["2"].len()), (1, 1), "{:?}", client.answers);
    let (status, _) = daemon.stop();
    assert!(status.success());
}

#[test]
fn what_several_people_write_together_is_one_turn() {
    let Some(server) = IrcServer::start() else { return };
    let double = Double::recording(|_| calls(&[("reply", json!({ "content": "good evening, both" }))]));
    let mut people = ["alice", "bruno"].map(|name| Person::connect(server.plain, name));
    for person in &mut people {
        person.write("JOIN #pi");
        person.wait_for(" 366 ");
    }
    let irc = format!(
        "[messaging.irc]\nserver = \"localhost\"\nport = {}\ntls_ca_file = \"{}\"\nnick = \"pibot\"\nchannels = [\"#pi\"]\n",
        server.tls,
        server.certificate().display()
    );
    let home = Home::new(&format!("{}{irc}", config(&double, "")));
    let daemon = home.start();
    eventually("it is connected", DEADLINE, || {
        daemon.status()["adapters"]["irc"].as_str().unwrap().contains("connected as")
    });
    people[0].wait_for("JOIN :#pi");
    for person in &mut people {
        person.write("PRIVMSG #pi :pibot: good evening");
    }
    people[0].wait_for("PRIVMSG #pi :good evening, both");
    assert!(people[0].hears_nothing_of("PRIVMSG #pi :good evening, both"));
    let (status, _) = daemon.stop();
    assert!(status.success());
    let requests = double.requests();
    assert_eq!(requests.len(), 1, "one turn for both");
    let last = last_message(&requests[0]);
    for part in ["2 messages came together", "from=\\\"alice", "from=\\\"bruno", "<people>", "just now"] {
        assert!(last.contains(part), "{part} is not in {last}");
    }
}

#[test]
fn what_one_person_asked_for_stands_with_their_name_and_what_they_said_alone_does_not() {
    let Some(server) = IrcServer::start() else { return };
    let double = Double::recording(|request| {
        let last = last_message(request);
        match () {
            () if !offers(request, "branch") => {
                Say::text(if last.contains("Find the key") { "The key is blue." } else { "It is kept." })
            }
            () if last.contains("<result") => calls(&[("reply", json!({ "content": "found out" }))]),
            () if last.contains(">find the key<") => {
                calls(&[("branch", json!({ "description": "Find the key." }))])
            }
            () if last.contains(">keep the secret<") => {
                calls(&[("branch", json!({ "description": "Keep the secret." }))])
            }
            () if last.contains(">good evening<") => {
                calls(&[("reply", json!({ "content": "good evening" }))])
            }
            () => calls(&[("reply", json!({ "content": "begun" }))]),
        }
    });
    let mut people = ["alice", "bruno"].map(|name| Person::connect(server.plain, name));
    for person in &mut people {
        person.write("JOIN #pi");
        person.wait_for(" 366 ");
    }
    let irc = format!(
        "[messaging.irc]\nserver = \"localhost\"\nport = {}\ntls_ca_file = \"{}\"\nnick = \"pibot\"\nchannels = [\"#pi\"]\n\
         dm_allowed_users = [\"*\"]\n",
        server.tls,
        server.certificate().display()
    );
    let mut home = Home::new(&format!("{}{irc}", config(&double, "")));
    let daemon = home.start();
    let connected = |daemon: &Daemon<'_>| {
        eventually("it is connected", DEADLINE, || {
            daemon.status()["adapters"]["irc"].as_str().unwrap().contains("connected as")
        });
    };
    connected(&daemon);
    people[0].wait_for("JOIN :#pi");
    people[0].write("PRIVMSG #pi :pibot: find the key");
    people[0].wait_for("PRIVMSG #pi :found out");
    people[0].write("PRIVMSG pibot :keep the secret");
    people[0].wait_for("PRIVMSG alice :found out");
    let (status, _) = daemon.stop();
    assert!(status.success());
    // Whoever wrote it is somebody whom the operator knows by now.
    let db = Db::open_inline(&home.database(), None).unwrap();
    let sender: String = db
        .read(|connection| {
            let sql = "SELECT sender_id FROM inbox WHERE sender_name = 'alice' LIMIT 1";
            Ok(connection.query_row(sql, [], |row| row.get(0))?)
        })
        .unwrap();
    drop(db);
    let human = format!(
        "[[humans]]\nid = \"alice\"\nname = \"Alice Arden\"\nrole = \"keeper of keys\"\ndescription = \"\"\"Has a\ncellar.\"\"\"\n\
         platform_ids = [\"irc:{sender}\"]\n"
    );
    home.configure(&format!("{}{irc}{human}", config(&double, "")));
    let daemon = home.start();
    connected(&daemon);
    // It has left and come back.
    people[1].wait_for("QUIT");
    people[1].wait_for("JOIN :#pi");
    people[1].write("PRIVMSG #pi :pibot: good evening");
    people[1].wait_for("PRIVMSG #pi :good evening");
    let (status, _) = daemon.stop();
    assert!(status.success());
    let last = last_message(double.requests().last().unwrap());
    let list = last.split("<people>").nth(1).unwrap().split("</people>").next().unwrap().replace("\\n", "\n");
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 5, "{list}");
    assert!(lines[1].starts_with("bruno | just now"), "{list}");
    assert!(lines[2].starts_with("Alice Arden | ") && lines[2].ends_with(" | keeper of keys"), "{list}");
    assert_eq!(lines[3], "  about: Has a cellar.");
    assert!(lines[4].ends_with("branch_completed | here | Find the key.: The key is blue."), "{list}");
    assert!(!list.contains("secret"), "what she said alone: {list}");
}
