//! The whole binary on a real InspIRCd: TLS, SASL, channels, direct messages, splitting, reconnects.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/irc_server.rs"]
mod irc_server;

use daemon::{DEADLINE, Home, eventually};
use irc_server::{IrcServer, Person};

fn config(server: &IrcServer, password: &str) -> String {
    format!(
        "[messaging.irc]\nserver = \"localhost\"\nport = {}\ntls_ca_file = \"{}\"\nnick = \"pibot\"\nsasl_username = \"pibot\"\n\
         sasl_password = \"{password}\"\nchannels = [\"#pi\"]\ndm_allowed_users = [\"alice\", \"*!*@*\"]\n",
        server.tls,
        server.certificate().display()
    )
}

#[test]
fn people_are_answered_in_channels_and_directly_over_tls_and_sasl() {
    let Some(server) = IrcServer::start() else { return };
    server.register("pibot", "s3cret");
    let mut alice = Person::connect(server.plain, "alice");
    alice.write("JOIN #pi");
    alice.wait_for(" 366 ");
    let home = Home::new(&config(&server, "s3cret"));
    let daemon = home.start();
    eventually("it is connected", DEADLINE, || {
        let state = daemon.status()["adapters"]["irc"].as_str().unwrap().to_owned();
        assert!(!state.contains("not connected"), "{state}");
        state.contains("connected as")
    });
    alice.wait_for("JOIN :#pi");
    alice.write("PRIVMSG #pi :pibot: remember that the cellar key hangs by the door");
    let answer = alice.wait_for("PRIVMSG #pi :Noted");
    assert!(answer.starts_with(":pibot!") && answer.contains("cellar key"), "{answer}");
    alice.write("PRIVMSG pibot :where is the cellar key?");
    assert!(alice.wait_for("PRIVMSG alice :").contains("by the door"));
    // An answer of several lines arrives whole, each line within the limit.
    alice.write("PRIVMSG #pi :pibot, help");
    let last = loop {
        let line = alice.wait_for("PRIVMSG #pi :");
        assert!(line.len() <= 510, "{} bytes: {line}", line.len());
        if line.contains("Everything you write is kept") {
            break line;
        }
    };
    assert!(last.starts_with(":pibot!"));
    // Not named in company: not for it.
    alice.write("PRIVMSG #pi :help, somebody!");
    assert!(alice.hears_nothing_of("PRIVMSG #pi :No language"));
    assert!(daemon.status()["adapters"]["irc"].as_str().unwrap().contains("connected as pibot"));
    let (status, log) = daemon.stop();
    assert!(status.success() && !log.contains("s3cret"), "{log}");
    assert!(alice.wait_for("QUIT").contains("pibot"));
    let count = |state: &str| {
        let db = spacebot::db::Db::open_inline(&home.database(), None).unwrap();
        let sql = format!("SELECT count(*) FROM outbox WHERE state = '{state}' AND platform_id IS NOT NULL");
        db.read(|connection| Ok(connection.query_row(&sql, [], |row| row.get::<_, i64>(0))?)).unwrap()
    };
    assert_eq!(count("sent"), 3, "every answer was confirmed by its echo, with the server's id");
}

#[test]
fn what_a_channel_plays_back_on_joining_is_information_and_answered_by_nobody() {
    let Some(server) = IrcServer::start() else { return };
    server.register("pibot", "s3cret");
    let mut alice = Person::connect(server.plain, "alice");
    alice.write("JOIN #pi");
    alice.wait_for(" 366 ");
    // The server keeps the last ten messages of an hour and plays them to whoever joins.
    alice.write("MODE #pi +H 10:1h");
    assert!(alice.wait_for_any(&[" MODE #pi ", " 472 ", " 482 "]).contains(" MODE #pi "));
    alice.write("PRIVMSG #pi :the soup is on the stove");
    alice.write("PRIVMSG #pi :pibot: are you awake?");
    let home = Home::new(&config(&server, "s3cret"));
    let daemon = home.start();
    alice.wait_for("JOIN :#pi");
    alice.write("PRIVMSG #pi :pibot: help");
    alice.wait_for("PRIVMSG #pi :");
    daemon.kill();
    // It is played back once more, and nothing comes of it.
    let daemon = home.start();
    alice.wait_for("JOIN :#pi");
    alice.write("PRIVMSG #pi :pibot: remember that the milk is sour");
    alice.wait_for("PRIVMSG #pi :Noted");
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let db = spacebot::db::Db::open_inline(&home.database(), None).unwrap();
    let said = |sql: &str| {
        db.read(|connection| {
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })
        .unwrap()
    };
    let inbox = said("SELECT content FROM inbox ORDER BY id");
    assert_eq!(inbox, ["help", "remember that the milk is sour"]);
    let earlier = said("SELECT content FROM conversation_messages WHERE role = 'earlier'");
    assert_eq!(earlier.len(), 1, "{earlier:?}");
    assert!(
        earlier[0].contains(r#""from":"alice","text":"the soup is on the stove"}"#)
            && earlier[0].contains(r#""text":"pibot: are you awake?"}"#)
            && !earlier[0].contains("help"),
        "{earlier:?}"
    );
}

#[test]
fn a_wrong_password_is_no_way_in() {
    let Some(server) = IrcServer::start() else { return };
    server.register("pibot", "s3cret");
    let home = Home::new(&config(&server, "wrong"));
    let daemon = home.start();
    let state = || daemon.status()["adapters"]["irc"].as_str().unwrap().to_owned();
    eventually("the refusal is told", DEADLINE, || state().contains("SASL"));
    let mut person = Person::connect(server.plain, "person");
    person.write("WHOIS pibot");
    assert!(
        person.wait_for_any(&[" 311 ", " 401 "]).contains(" 401 "),
        "it must not be there without its account"
    );
    let (_, log) = daemon.stop();
    assert!(!log.contains("wrong\""), "{log}");
}

#[test]
fn an_answer_waits_while_the_server_is_away() {
    let Some(server) = IrcServer::start() else { return };
    server.register("pibot", "s3cret");
    let mut alice = Person::connect(server.plain, "alice");
    alice.write("JOIN #pi");
    alice.wait_for(" 366 ");
    let home = Home::new(&config(&server, "s3cret"));
    let first = home.start();
    alice.wait_for("JOIN :#pi");
    alice.write("PRIVMSG #pi :pibot: remember that the milk is sour");
    alice.wait_for("PRIVMSG #pi :Noted");
    // A power cut right after a message: it is answered after the next start.
    alice.write("PRIVMSG #pi :pibot: what do you know about the milk?");
    let inbox = || {
        let db = spacebot::db::Db::open_inline(&home.database(), None).unwrap();
        db.read(|connection| {
            Ok(connection.query_row("SELECT count(*) FROM inbox", [], |row| row.get::<_, i64>(0))?)
        })
        .unwrap()
    };
    eventually("the message is in the inbox", DEADLINE, || inbox() == 2);
    first.kill();
    let second = home.start();
    alice.wait_for_any(&["PRIVMSG #pi :I have noted", "milk is sour"]);
    drop(second);
}
