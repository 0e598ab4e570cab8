//! The IRC adapter against a server that cuts, stalls and loses, a database that refuses and an intake
//! that panics. The server is a thread of the test that speaks just enough IRC.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use spacebot::clock::{SystemClock, Timestamp};
use spacebot::config::IrcConfig;
use spacebot::error::Kind;
use spacebot::id::{ConversationId, InboxId, InstanceId, OutboxId};
use spacebot::message::{
    Accepted, Content, Delivery, Inbound, Intake, IntakeError, Outbound, Outbox, OutboxError,
};
use spacebot::messaging::irc::{self, Adapter, Pace};
use spacebot::thread::Cancel;

const DEADLINE: Duration = Duration::from_secs(20);
/// More than any test here says.
const QUEUE: usize = 1024;
/// P3: what a stop may take.
const STOP: Duration = Duration::from_millis(250);

/// What the intake does with the messages that come, in order; then it takes everything.
#[derive(Clone, Copy, PartialEq)]
enum Act {
    Refuse,
    Panic,
}

struct World {
    acts: Mutex<Vec<Act>>,
    taken: Sender<String>,
    rows: Mutex<Vec<Outbound>>,
    recorded: Sender<(OutboxId, Delivery)>,
}

impl Intake for World {
    fn accept(&self, message: Inbound) -> Result<Accepted, IntakeError> {
        let act = { self.acts.lock().unwrap().pop() };
        match act {
            Some(Act::Refuse) => Err(IntakeError::Storage("no space".to_owned(), Kind::Full)),
            Some(Act::Panic) => panic!("the intake broke"),
            None => {
                self.taken.send(message.content).unwrap();
                Ok(Accepted::New(InboxId(1)))
            }
        }
    }
}

impl Outbox for World {
    fn pending(
        &self,
        _instance: &InstanceId,
        _conversation: Option<&ConversationId>,
        _after: OutboxId,
        limit: usize,
    ) -> Result<Vec<Outbound>, OutboxError> {
        Ok(self.rows.lock().unwrap().iter().take(limit).cloned().collect())
    }

    fn record(
        &self,
        ids: &[OutboxId],
        _conversation: &ConversationId,
        delivery: Delivery,
    ) -> Result<(), OutboxError> {
        self.rows.lock().unwrap().retain(|row| !ids.contains(&row.id));
        for id in ids {
            self.recorded.send((*id, delivery.clone())).unwrap();
        }
        Ok(())
    }
}

struct Test {
    world: Arc<World>,
    listener: TcpListener,
    cancel: Cancel,
    adapter: Adapter,
    taken: Receiver<String>,
    recorded: Receiver<(OutboxId, Delivery)>,
}

impl Test {
    fn start(acts: &[Act]) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), acts)
    }

    fn on(listener: TcpListener, acts: &[Act]) -> Self {
        let ((taken_in, taken), (recorded_in, recorded)) = (bounded(QUEUE), bounded(QUEUE));
        let acts = acts.iter().rev().copied().collect();
        let world = Arc::new(World {
            acts: Mutex::new(acts),
            taken: taken_in,
            rows: Mutex::default(),
            recorded: recorded_in,
        });
        let config = IrcConfig {
            instance: InstanceId::new("irc"),
            server: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
            tls: false,
            tls_ca_file: None,
            nick: "bot".to_owned(),
            realname: "Spacebot".to_owned(),
            password: None,
            sasl_username: None,
            sasl_password: None,
            channels: vec!["#pi".to_owned()],
            dm_allowed_users: Vec::new(),
            require_mention: false,
        };
        let cancel = Cancel::new();
        let quick = Duration::from_millis(10);
        let pace = Pace { first_retry: quick, longest_retry: quick, refused_retry: quick };
        let adapter = irc::start_paced(
            config,
            world.clone(),
            world.clone(),
            SystemClock::shared(),
            cancel.clone(),
            pace,
        )
        .unwrap();
        Self { world, listener, cancel, adapter, taken, recorded }
    }

    /// The adapter's next connection.
    fn accept(&self) -> Server {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Server { lines: BufReader::new(stream.try_clone().unwrap()), stream }
    }

    fn answer(&self, id: i64, text: &str) {
        self.world.rows.lock().unwrap().push(Outbound {
            id: OutboxId(id),
            instance: InstanceId::new("irc"),
            conversation: ConversationId::new("irc:#pi"),
            content: Content::Text { text: text.to_owned() },
            answers: Vec::new(),
            created_at: Timestamp(0),
        });
        self.adapter.bell.ring();
    }

    fn recorded(&self) -> (i64, Delivery) {
        let (id, delivery) = self.recorded.recv_timeout(DEADLINE).expect("recorded");
        (id.0, delivery)
    }

    fn taken(&self) -> String {
        self.taken.recv_timeout(DEADLINE).expect("taken")
    }

    /// Stops the adapter; its thread must end within the promised time.
    fn stop(self) {
        let begun = Instant::now();
        self.cancel.cancel();
        for thread in self.adapter.threads {
            thread.join().unwrap();
        }
        assert!(begun.elapsed() < STOP + Duration::from_millis(150), "it took {:?}", begun.elapsed());
    }
}

struct Server {
    lines: BufReader<TcpStream>,
    stream: TcpStream,
}

impl Server {
    fn write(&mut self, line: &str) {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
    }

    /// Reads on until a line that contains `part`.
    fn wait_for(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the adapter hung up before {part}");
            if line.contains(part) {
                return line.trim_end().to_owned();
            }
        }
    }

    fn welcome(&mut self) {
        self.wait_for("USER ");
        self.write(":irc.test CAP * LS :echo-message message-tags");
        self.write(":irc.test CAP bot ACK :message-tags");
        self.write(":irc.test CAP bot ACK :echo-message");
        self.wait_for("CAP END");
        self.write(":irc.test 001 bot :Welcome bot!b@host");
        self.write(":irc.test 376 bot :End");
        self.wait_for("JOIN #pi");
        self.write(":bot!b@host JOIN #pi");
    }
}

#[test]
fn after_a_cut_it_comes_back_and_an_answer_under_way_is_unknown_and_not_sent_again() {
    let test = Test::start(&[]);
    let mut server = test.accept();
    server.welcome();
    test.answer(1, "one");
    server.wait_for("PRIVMSG #pi :one");
    assert_eq!(test.recorded(), (1, Delivery::Sending), "noted before its first byte");
    drop(server);
    let mut server = test.accept();
    let (id, delivery) = test.recorded();
    assert!(id == 1 && matches!(&delivery, Delivery::Unknown { .. }), "{delivery:?}");
    server.welcome();
    test.answer(2, "two");
    let line = server.wait_for("PRIVMSG");
    assert!(line.ends_with(":two"), "the unknown answer was sent again: {line}");
    server.write("@msgid=m2 :bot!b@host PRIVMSG #pi :two");
    assert_eq!(test.recorded(), (2, Delivery::Sending));
    assert_eq!(test.recorded(), (2, Delivery::Sent { platform_id: Some("m2".to_owned()) }));
    test.stop();
}

#[test]
fn a_message_that_the_disk_refuses_is_held_and_stored_later_in_its_order() {
    let test = Test::start(&[Act::Refuse, Act::Refuse]);
    let mut server = test.accept();
    server.welcome();
    server.write(":una!u@h PRIVMSG #pi :first");
    server.write(":una!u@h PRIVMSG #pi :second");
    assert_eq!((test.taken(), test.taken()), ("first".to_owned(), "second".to_owned()));
    test.stop();
}

#[test]
fn a_panic_in_the_adapter_is_contained_and_it_starts_again() {
    let test = Test::start(&[Act::Panic]);
    let mut server = test.accept();
    server.welcome();
    server.write(":una!u@h PRIVMSG #pi :this breaks it");
    let mut server = test.accept();
    server.welcome();
    server.write(":una!u@h PRIVMSG #pi :this does not");
    assert_eq!(test.taken(), "this does not");
    assert!(test.adapter.state.describe().contains("connected as bot"));
    test.stop();
}

#[test]
fn an_adapter_that_keeps_breaking_stays_down_and_says_so() {
    let test = Test::start(&[Act::Panic; 16]);
    for _ in 0..6 {
        let mut server = test.accept();
        server.welcome();
        server.write(":una!u@h PRIVMSG #pi :this breaks it");
    }
    for thread in test.adapter.threads {
        thread.join().unwrap();
    }
    assert!(test.adapter.state.describe().contains("stays down"), "{}", test.adapter.state.describe());
}

#[test]
fn a_stop_ends_it_in_every_state() {
    // Connected, and the server says nothing.
    let test = Test::start(&[]);
    let silent = test.accept();
    test.stop();
    drop(silent);
    // Registered and idle.
    let test = Test::start(&[]);
    let mut server = test.accept();
    server.welcome();
    test.stop();
    assert!(server.wait_for("QUIT").starts_with("QUIT"));
    // In the middle of a long answer.
    let test = Test::start(&[]);
    let mut server = test.accept();
    server.welcome();
    test.answer(1, &"many words ".repeat(500));
    server.wait_for("PRIVMSG");
    assert_eq!(test.recorded(), (1, Delivery::Sending));
    let recorded = test.recorded.clone();
    test.stop();
    let (_, delivery) = recorded.recv_timeout(DEADLINE).unwrap();
    assert!(matches!(&delivery, Delivery::Unknown { .. }), "{delivery:?}");
    // Holding a message that cannot be stored.
    let test = Test::start(&[Act::Refuse; 100]);
    let mut server = test.accept();
    server.welcome();
    server.write(":una!u@h PRIVMSG #pi :kept?");
    server.write("PING :seen");
    test.stop();
}

#[test]
fn a_server_that_does_not_answer_the_dial_does_not_hold_the_stop() {
    // A backlog that is full: connections to it neither come about nor fail.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let _waiting: Vec<_> = (0..4096)
        .map_while(|_| TcpStream::connect_timeout(&address, Duration::from_millis(50)).ok())
        .collect();
    Test::on(listener, &[]).stop();
}
