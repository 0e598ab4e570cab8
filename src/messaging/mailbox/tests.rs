//! Sending and polling with a made-up inbox and outbox.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::clock::{SimulatedClock, Timestamp};
use crate::http::server::{Outcome, Request};
use crate::id::InboxId;
use crate::message::{
    Accepted, Content, Delivery, Inbound, IntakeError, NewFile, Outbound, OutboxError, Recorded, Taken,
};
use crate::messaging::drafts::Drafts;
use crate::thread::lock;

#[derive(Default)]
struct FakeIntake {
    accepted: Mutex<Vec<Inbound>>,
    files: Mutex<Vec<NewFile>>,
    answer: Mutex<Option<Result<Accepted, IntakeError>>>,
    /// While set, what was begun waits here.
    slow: Mutex<Option<Vec<Taken>>>,
}

impl Intake for FakeIntake {
    fn accept(&self, message: Inbound) -> Result<Accepted, IntakeError> {
        lock(&self.accepted).push(message);
        lock(&self.answer).clone().unwrap_or(Ok(Accepted::New(InboxId(1))))
    }

    fn begin(&self, message: Inbound, taken: Taken) {
        if let Some(waiting) = &mut *lock(&self.slow) {
            lock(&self.accepted).push(message);
            return waiting.push(taken);
        }
        taken(self.accept(message));
    }

    fn begin_with(&self, message: Inbound, files: Vec<NewFile>, taken: Taken) {
        lock(&self.files).extend(files);
        self.begin(message, taken);
    }
}

#[derive(Default)]
struct FakeOutbox {
    rows: Mutex<Vec<Outbound>>,
    sent: Mutex<Vec<i64>>,
    is_broken: Mutex<bool>,
    /// While set, what was begun waits here.
    slow: Mutex<Option<Vec<Begun>>>,
}

type Begun = (Vec<OutboxId>, Recorded);

impl FakeOutbox {
    fn add(&self, id: i64, conversation: &str, content: Content, answers: &[&str]) {
        lock(&self.rows).push(Outbound {
            id: OutboxId(id),
            instance: InstanceId::new("webhook"),
            conversation: ConversationId::new(format!("webhook:{conversation}")),
            content,
            answers: answers.iter().map(|answer| (*answer).to_owned()).collect(),
            created_at: Timestamp(1_790_000_000_000),
        });
    }

    fn say(&self, id: i64, text: &str) {
        self.add(id, "home", Content::Text { text: text.to_owned() }, &[]);
    }

    fn sent(&self) -> Vec<i64> {
        lock(&self.sent).clone()
    }

    fn set_broken(&self, is_broken: bool) {
        *lock(&self.is_broken) = is_broken;
    }
}

impl Outbox for FakeOutbox {
    fn pending(
        &self,
        instance: &InstanceId,
        conversation: Option<&ConversationId>,
        after: OutboxId,
        limit: usize,
    ) -> Result<Vec<Outbound>, OutboxError> {
        let sent = self.sent();
        let rows = lock(&self.rows);
        let wanted = rows.iter().filter(|row| {
            row.instance == *instance
                && conversation.is_none_or(|conversation| row.conversation == *conversation)
                && row.id > after
                && !sent.contains(&row.id.0)
        });
        Ok(wanted.take(limit).cloned().collect())
    }

    fn record(
        &self,
        ids: &[OutboxId],
        conversation: &ConversationId,
        delivery: Delivery,
    ) -> Result<(), OutboxError> {
        if *lock(&self.is_broken) {
            return Err(OutboxError { reason: "the disk is full".to_owned(), kind: Kind::Full });
        }
        assert!(!ids.is_empty() && delivery == Delivery::Sent { platform_id: None });
        for id in ids {
            let rows = lock(&self.rows);
            let row = rows.iter().find(|row| row.id == *id).expect("a row");
            assert_eq!(row.conversation, *conversation);
            assert!(!self.sent().contains(&id.0), "{id} recorded twice");
            lock(&self.sent).push(id.0);
        }
        Ok(())
    }

    fn begin_record(
        &self,
        ids: &[OutboxId],
        conversation: &ConversationId,
        delivery: Delivery,
        recorded: Recorded,
    ) {
        if let Some(waiting) = &mut *lock(&self.slow) {
            return waiting.push((ids.to_vec(), recorded));
        }
        recorded(self.record(ids, conversation, delivery));
    }
}

struct Fixture {
    intake: Arc<FakeIntake>,
    outbox: Arc<FakeOutbox>,
    mailbox: Mailbox,
}

fn fixture() -> Fixture {
    let (intake, outbox) = (Arc::new(FakeIntake::default()), Arc::new(FakeOutbox::default()));
    let clock = SimulatedClock::starting_at(Timestamp(1_790_000_000_123));
    let mailbox = Mailbox::new(
        intake.clone(),
        outbox.clone(),
        Arc::new(Drafts::new(&*clock)),
        clock,
        InstanceId::new("webhook"),
    );
    Fixture { intake, outbox, mailbox }
}

fn request<'a>(query: &'a str, body: &'a [u8]) -> Request<'a> {
    Request { method: "", path: "", query, headers: &[], body, attempt: 0, expired: false }
}

fn respond(outcome: Outcome) -> Response {
    match outcome {
        Outcome::Respond(response) => response,
        Outcome::Later(later) => later.answer().expect("an answer"),
        Outcome::Park { key, .. } => panic!("parked for {key}"),
        Outcome::Stream(_) => panic!("a stream"),
    }
}

fn body(response: &Response) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}

impl Fixture {
    fn send(&self, body: impl AsRef<[u8]>) -> Response {
        respond(self.mailbox.send(&request("", body.as_ref())))
    }

    fn poll(&self, query: &str) -> Response {
        respond(self.mailbox.poll("home", &request(query, &[])))
    }

    /// Polls, lets the response go out (or not), and returns the ids in it.
    fn fetch(&self, query: &str, sent: bool) -> Vec<i64> {
        let response = self.poll(query);
        assert_eq!(response.status(), 200, "{response:?}");
        let found = ids(&response);
        response.finish(sent);
        found
    }
}

fn ids(response: &Response) -> Vec<i64> {
    let body = body(response);
    body["messages"].as_array().unwrap().iter().map(|message| message["id"].as_i64().unwrap()).collect()
}

#[test]
fn a_message_is_accepted_as_it_was_sent() {
    let fixture = fixture();
    let response = fixture.send(
        r#"{"conversation_id":"home","sender_id":"u1","content":"hi\nthere","agent_id":"main",
            "message_id":"m1","sender_name":"Ada"}"#,
    );
    assert_eq!(response.status(), 202);
    assert_eq!(body(&response), json!({"accepted": true, "message_id": "m1", "duplicate": false}));
    let expected = Inbound {
        instance: InstanceId::new("webhook"),
        platform_id: "home/m1".to_owned(),
        conversation: ConversationId::new("webhook:home"),
        agent: Some("main".into()),
        sender_id: "u1".to_owned(),
        sender_name: "Ada".to_owned(),
        content: "hi\nthere".to_owned(),
        sent_at: Timestamp(1_790_000_000_123),
        direct: true,
        addressed: true,
        place: "webhook / home".to_owned(),
    };
    assert_eq!(*lock(&fixture.intake.accepted), [expected]);
}

#[test]
fn files_are_taken_as_they_were_sent_and_refused_as_a_whole() {
    let fixture = fixture();
    let file = |name: &str, data: &str| json!({"name": name, "type": "image/png", "data": data});
    let send = |content: &str, files: Vec<Value>| {
        let body =
            json!({"conversation_id": "c", "sender_id": "u", "content": content, "attachments": files});
        fixture.send(body.to_string())
    };
    assert_eq!(send("", vec![file("a.png", "aGk="), file("b", "")]).status(), 202);
    let new = |name: &str, bytes: &[u8]| NewFile {
        name: name.to_owned(),
        media_type: "image/png".to_owned(),
        bytes: bytes.to_vec(),
    };
    assert_eq!(std::mem::take(&mut *lock(&fixture.intake.files)), [new("a.png", b"hi"), new("b", b"")]);
    let megabyte = "AAAA".repeat((1 << 20) / 3 + 1);
    let cases = [
        (413, "may have 8 attachments, not 9", "x", vec![file("a", ""); 9]),
        (413, "may have 5 MiB together", "x", vec![file("a", &megabyte); 5]),
        (413, "may have 5 MiB together", "x", vec![file("a", &megabyte.repeat(6))]),
        (400, "data of attachment 2 is not base64", "x", vec![file("a", "aGk="), file("b", "?")]),
        (400, "name of attachment 1 holds a line break", "x", vec![file("a\nb", "aGk=")]),
        (400, "name of attachment 1 is missing", "x", vec![file(" ", "aGk=")]),
        (400, "missing field `data`", "x", vec![json!({"name": "a", "type": "b"})]),
        (400, "A command takes no attachments", "/status", vec![file("a", "aGk=")]),
        (400, "content is empty", "", vec![]),
    ];
    for (status, words, content, files) in cases {
        let response = send(content, files);
        let told = body(&response)["error"]["message"].to_string();
        assert_eq!(response.status(), status, "{words}: {told}");
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(lock(&fixture.intake.files).is_empty());
    assert_eq!(lock(&fixture.intake.accepted).len(), 1);
}

#[test]
fn without_an_id_each_message_gets_its_own() {
    let fixture = fixture();
    let text = r#"{"conversation_id":"home","sender_id":"u1","content":"hi"}"#;
    let given: Vec<String> =
        (0..100).map(|_| body(&fixture.send(text))["message_id"].as_str().unwrap().to_owned()).collect();
    let distinct: std::collections::HashSet<&String> = given.iter().collect();
    assert_eq!(distinct.len(), 100);
    let accepted = lock(&fixture.intake.accepted);
    assert_eq!(accepted[0].platform_id, format!("home/{}", given[0]));
    assert_eq!(accepted[0].sender_name, "u1");
}

#[test]
fn the_same_client_id_in_two_conversations_is_two_messages() {
    let fixture = fixture();
    for conversation in ["a", "b"] {
        let text =
            json!({"conversation_id": conversation, "sender_id": "u", "content": "x", "message_id": "1"});
        assert_eq!(fixture.send(text.to_string()).status(), 202);
    }
    let accepted = lock(&fixture.intake.accepted);
    assert_ne!(accepted[0].platform_id, accepted[1].platform_id);
}

#[test]
fn what_the_intake_says_is_what_the_client_reads() {
    let storage = |kind| Err(IntakeError::Storage("the disk is full".to_owned(), kind));
    let cases = [
        (Ok(Accepted::Duplicate), 202, json!({"accepted": true, "message_id": "m", "duplicate": true})),
        (
            Ok(Accepted::Refused("nobody here listens to you")),
            403,
            json!({"error": {"kind": "invalid", "message": "Not accepted: nobody here listens to you."}}),
        ),
        (
            storage(Kind::Full),
            503,
            json!({"error": {"kind": "full", "message":
                "Try again in a moment: the message could not be stored: the disk is full."}}),
        ),
        (
            Err(IntakeError::Stopping),
            503,
            json!({"error": {"kind": "transient", "message": "Try again in a moment: the daemon is stopping."}}),
        ),
        (
            Err(IntakeError::UnknownAgent("bob".to_owned())),
            404,
            json!({"error": {"kind": "not_found", "message": "Not accepted: there is no agent named \"bob\"."}}),
        ),
        (
            storage(Kind::Bug),
            500,
            json!({"error": {"kind": "bug", "message":
                "The daemon could not do this because of an error of its own."}}),
        ),
    ];
    for (answer, status, expected) in cases {
        let fixture = fixture();
        *lock(&fixture.intake.answer) = Some(answer);
        let response =
            fixture.send(r#"{"conversation_id":"c","sender_id":"u","content":"x","message_id":"m"}"#);
        assert_eq!((response.status(), body(&response)), (status, expected));
        assert_eq!(response.header("Retry-After").is_some(), status == 503);
    }
}

#[test]
fn a_malformed_message_is_refused_with_the_field_and_not_passed_on() {
    let long = "x".repeat(MAX_ID_BYTES + 1);
    let huge = "x".repeat(100_001);
    let with = |field: &str, value: &str| {
        let mut message = json!({"conversation_id": "c", "sender_id": "u", "content": "x"});
        message[field] = json!(value);
        message.to_string()
    };
    let cases = [
        (String::new(), "JSON object"),
        ("[]".to_owned(), "JSON object"),
        ("{".to_owned(), "not as expected"),
        (r#"{"sender_id":"u","content":"x"}"#.to_owned(), "conversation_id"),
        (r#"{"conversation_id":"c","content":"x"}"#.to_owned(), "sender_id"),
        (r#"{"conversation_id":"c","sender_id":"u"}"#.to_owned(), "content"),
        (r#"{"conversation_id":7,"sender_id":"u","content":"x"}"#.to_owned(), "string"),
        (with("color", "red"), "`color`"),
        (with("conversation_id", ""), "conversation_id"),
        (with("conversation_id", &long), "conversation_id"),
        (with("sender_id", "a\nb"), "sender_id"),
        (with("sender_id", " "), "sender_id"),
        (with("sender_name", "a\u{2028}b"), "sender_name"),
        (with("message_id", &long), "message_id"),
        (with("agent_id", "\u{7}"), "agent_id"),
        (with("content", ""), "content"),
        (with("content", "\n \t"), "content"),
        (with("content", "a\0b"), "content"),
        (with("content", &huge), "content"),
    ];
    for (text, expected) in cases {
        let fixture = fixture();
        let response = fixture.send(&text);
        assert_eq!(response.status(), 400, "{text:.80}");
        let message = body(&response)["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(expected), "{message} for {text:.80}");
        assert!(lock(&fixture.intake.accepted).is_empty());
    }
    let largest = with("content", &huge[1..]);
    assert_eq!(fixture().send(largest).status(), 202);
}

#[test]
fn a_poll_shows_every_kind_of_answer() {
    let fixture = fixture();
    let text = Content::Text { text: "hello".to_owned() };
    fixture.outbox.add(3, "home", text, &["home/m1", "elsewhere/m2", "home"]);
    let reaction = Content::Reaction { emoji: "👍".to_owned(), target: "home/m1".to_owned() };
    fixture.outbox.add(4, "home", reaction, &[]);
    fixture.outbox.add(5, "other", Content::Text { text: "not yours".to_owned() }, &[]);
    let response = fixture.poll("");
    let expected = json!({"messages": [
        {"id": 3, "kind": "text", "content": "hello", "in_reply_to": ["m1", "elsewhere/m2", "home"],
         "created_at": "2026-09-21T14:13:20Z"},
        {"id": 4, "kind": "reaction", "emoji": "👍", "target": "m1", "in_reply_to": [],
         "created_at": "2026-09-21T14:13:20Z"},
    ]});
    assert_eq!((response.status(), body(&response)), (200, expected));
}

#[test]
fn a_plain_poll_records_after_the_bytes_went_out() {
    let fixture = fixture();
    fixture.outbox.say(1, "one");
    fixture.outbox.say(2, "two");
    fixture.outbox.say(3, "three");
    let response = fixture.poll("limit=2");
    assert_eq!(ids(&response), [1, 2]);
    assert!(fixture.outbox.sent().is_empty(), "not before they are sent");
    response.finish(true);
    assert_eq!(fixture.outbox.sent(), [1, 2]);
    assert_eq!(fixture.fetch("", false), [3]);
    assert_eq!(fixture.outbox.sent(), [1, 2], "the client was gone");
    assert_eq!(fixture.fetch("", true), [3]);
    assert!(fixture.fetch("", true).is_empty());
}

#[test]
fn two_plain_polls_never_carry_the_same_answer() {
    let fixture = fixture();
    fixture.outbox.say(1, "one");
    let first = fixture.poll("");
    assert!(fixture.fetch("", true).is_empty());
    let parked = fixture.mailbox.poll("home", &request("wait=5", &[]));
    assert!(matches!(parked, Outcome::Park { .. }));
    fixture.outbox.add(2, "other", Content::Text { text: "x".to_owned() }, &[]);
    assert_eq!(ids(&respond(fixture.mailbox.poll("other", &request("", &[])))), [2]);
    first.finish(true);
    fixture.outbox.say(3, "three");
    assert_eq!(fixture.fetch("", true), [3]);
}

#[test]
fn an_answer_that_cannot_be_recorded_is_not_sent_again() {
    let fixture = fixture();
    fixture.outbox.say(1, "one");
    fixture.outbox.set_broken(true);
    assert_eq!(fixture.fetch("", true), [1]);
    fixture.outbox.say(2, "two");
    let response = fixture.poll("");
    assert_eq!(response.status(), 503, "{response:?}");
    fixture.outbox.set_broken(false);
    assert!(fixture.fetch("", true).is_empty(), "first the old answer is recorded");
    assert_eq!(fixture.outbox.sent(), [1]);
    assert_eq!(fixture.fetch("", true), [2]);
    assert_eq!(fixture.outbox.sent(), [1, 2]);
}

#[test]
fn with_after_an_answer_comes_until_it_is_acknowledged() {
    let fixture = fixture();
    for id in 1..=3 {
        fixture.outbox.say(id, "x");
    }
    assert_eq!(fixture.fetch("after=0", true), [1, 2, 3]);
    assert_eq!(fixture.fetch("after=0", true), [1, 2, 3]);
    assert!(fixture.outbox.sent().is_empty());
    assert_eq!(fixture.fetch("after=2&limit=5", true), [3]);
    assert_eq!(fixture.outbox.sent(), [1, 2]);
    fixture.outbox.set_broken(true);
    assert_eq!(fixture.poll("after=3").status(), 503);
    fixture.outbox.set_broken(false);
    assert!(fixture.fetch("after=3", true).is_empty());
    assert_eq!(fixture.outbox.sent(), [1, 2, 3]);
}

#[test]
fn many_answers_are_acknowledged_at_once() {
    let fixture = fixture();
    for id in 1..=250 {
        fixture.outbox.say(id, "x");
    }
    assert_eq!(fixture.fetch("after=249", true), [250]);
    assert_eq!(fixture.outbox.sent(), (1..=249).collect::<Vec<_>>());
}

#[test]
fn a_response_is_bounded_in_messages_and_bytes() {
    let fixture = fixture();
    for id in 1..=150 {
        fixture.outbox.say(id, "x");
    }
    assert_eq!(fixture.fetch("after=0", true).len(), 100);
    let fixture = self::fixture();
    for id in 1..=3 {
        fixture.outbox.say(id, &"x".repeat(300 << 10));
    }
    fixture.outbox.say(4, &"x".repeat(600 << 10));
    for expected in [1, 2, 3, 4] {
        assert_eq!(fixture.fetch("", true), [expected]);
    }
}

#[test]
fn a_long_poll_is_parked_under_the_full_name_and_answers_when_it_expires() {
    let fixture = fixture();
    for query in ["wait=7", "wait=7&after=0"] {
        let Outcome::Park { key, wait } = fixture.mailbox.poll("home", &request(query, &[])) else {
            panic!("not parked");
        };
        assert_eq!((key.as_str(), wait), ("webhook:home", Duration::from_secs(7)));
        let again = Request { attempt: 1, expired: true, ..request(query, &[]) };
        let response = respond(fixture.mailbox.poll("home", &again));
        assert_eq!((response.status(), body(&response)), (200, json!({"messages": []})));
    }
    fixture.outbox.say(1, "x");
    let again = Request { attempt: 1, ..request("wait=7", &[]) };
    assert_eq!(ids(&respond(fixture.mailbox.poll("home", &again))), [1]);
}

#[test]
fn a_query_is_checked() {
    let fixture = fixture();
    let cases = [
        ("wait=31", "wait"),
        ("wait=-1", "wait"),
        ("wait=", "wait"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("after=x", "after"),
        ("after=9223372036854775808", "after"),
        ("wait=1&wait=1", "wait"),
        ("since=3", "since"),
        ("wait=%", "percent"),
    ];
    for (query, expected) in cases {
        let response = fixture.poll(query);
        let message = body(&response)["error"]["message"].as_str().unwrap().to_owned();
        assert_eq!(response.status(), 400, "{query}");
        assert!(message.contains(expected), "{message}");
    }
    let response = respond(fixture.mailbox.poll("a\nb", &request("", &[])));
    assert_eq!(response.status(), 400);
}

#[test]
fn a_send_is_answered_by_its_commit_and_not_before() {
    let fixture = fixture();
    *lock(&fixture.intake.slow) = Some(Vec::new());
    let body = json!({ "conversation_id": "home", "sender_id": "u", "content": "x", "message_id": "m" });
    let send = || fixture.mailbox.send(&request("", body.to_string().as_bytes()));
    let Outcome::Later(first) = send() else { panic!("answered before the commit") };
    assert!(first.answer().is_none());
    let Outcome::Later(second) = send() else { panic!("answered before the commit") };
    let mut waiting = lock(&fixture.intake.slow).take().unwrap();
    waiting.pop().unwrap()(Ok(Accepted::New(InboxId(2))));
    assert_eq!(second.answer().unwrap().status(), 202);
    // Nobody waits for the first any more; its commit is none of the mailbox's business.
    waiting.pop().unwrap()(Ok(Accepted::New(InboxId(1))));
}

#[test]
fn while_an_answer_is_being_recorded_no_other_poll_carries_it() {
    let fixture = fixture();
    fixture.outbox.say(1, "one");
    *lock(&fixture.outbox.slow) = Some(Vec::new());
    assert_eq!(fixture.fetch("", true), [1]);
    assert!(fixture.fetch("", true).is_empty(), "it is still pending, and in our hand");
    let waiting = lock(&fixture.outbox.slow).take().unwrap();
    let [(ids, recorded)] = <[_; 1]>::try_from(waiting).ok().unwrap();
    fixture
        .outbox
        .record(&ids, &ConversationId::new("webhook:home"), Delivery::Sent { platform_id: None })
        .unwrap();
    recorded(Ok(()));
    fixture.outbox.say(2, "two");
    assert_eq!(fixture.fetch("", true), [2]);
    assert_eq!(fixture.outbox.sent(), [1, 2]);
}
