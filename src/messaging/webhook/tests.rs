//! Paths, methods and tokens; and the whole way once over a real socket.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use super::*;
use crate::clock::{SystemClock, Timestamp};
use crate::http::server::{Header, Limits, Server, ServerHandle, ServerOptions};
use crate::id::{ConversationId, InboxId, InstanceId, OutboxId};
use crate::message::{
    Accepted, Content, Delivery, Inbound, Intake, IntakeError, Outbound, Outbox, OutboxError,
};
use crate::messaging::drafts::Drafts;
use crate::thread::{Cancel, lock};

/// An agent that answers in the moment in which it is asked: with the same text.
#[derive(Default)]
struct Parrot {
    rows: Mutex<Vec<Outbound>>,
    recorded: Mutex<Vec<OutboxId>>,
    server: OnceLock<ServerHandle>,
}

impl Intake for Parrot {
    fn accept(&self, message: Inbound) -> Result<Accepted, IntakeError> {
        let mut rows = lock(&self.rows);
        let id = i64::try_from(rows.len()).unwrap() + 1;
        let key = message.conversation.clone();
        rows.push(Outbound {
            id: OutboxId(id),
            instance: message.instance,
            conversation: message.conversation,
            content: Content::Text { text: message.content },
            answers: vec![message.platform_id],
            created_at: Timestamp(0),
        });
        drop(rows);
        if let Some(server) = self.server.get() {
            server.wake(key.as_str());
        }
        Ok(Accepted::New(InboxId(id)))
    }
}

impl Outbox for Parrot {
    fn pending(
        &self,
        _: &InstanceId,
        conversation: Option<&ConversationId>,
        after: OutboxId,
        limit: usize,
    ) -> Result<Vec<Outbound>, OutboxError> {
        let recorded = lock(&self.recorded);
        let rows = lock(&self.rows);
        let wanted = rows.iter().filter(|row| {
            Some(&row.conversation) == conversation && row.id > after && !recorded.contains(&row.id)
        });
        Ok(wanted.take(limit).cloned().collect())
    }

    fn record(&self, ids: &[OutboxId], _: &ConversationId, _: Delivery) -> Result<(), OutboxError> {
        lock(&self.recorded).extend(ids);
        Ok(())
    }
}

fn webhook(parrot: &Arc<Parrot>, token: Option<&str>) -> Webhook {
    let clock = SystemClock::shared();
    let mailbox = Mailbox::new(
        parrot.clone(),
        parrot.clone(),
        Arc::new(Drafts::new(&*clock)),
        clock,
        InstanceId::new("webhook"),
    );
    Webhook::new(mailbox, token.map(Secret::new))
}

fn ask(webhook: &Webhook, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, Response) {
    let headers: Vec<Header<'_>> =
        headers.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
    let body = br#"{"conversation_id":"c","sender_id":"u","content":"x"}"#;
    let request = Request { method, path, query: "", headers: &headers, body, attempt: 0, expired: false };
    match webhook.handle(&request) {
        Outcome::Respond(response) => (response.status(), response),
        Outcome::Later(later) => later.answer().map(|response| (response.status(), response)).unwrap(),
        Outcome::Park { .. } | Outcome::Stream(_) => panic!("parked"),
    }
}

#[test]
fn every_path_knows_its_methods() {
    let webhook = webhook(&Arc::default(), None);
    let cases = [
        ("GET", "/health", 200, None),
        ("HEAD", "/health", 200, None),
        ("POST", "/health", 405, Some("GET, HEAD")),
        ("POST", "/send", 202, None),
        ("GET", "/send", 405, Some("POST")),
        ("GET", "/poll/c", 200, None),
        ("GET", "/poll/a%2Fb%20%C3%A9", 200, None),
        ("HEAD", "/poll/c", 405, Some("GET")),
        ("POST", "/poll/c", 405, Some("GET")),
        ("GET", "/poll/%FF", 400, None),
        ("GET", "/poll/", 400, None),
        ("GET", "/poll/a/b", 404, None),
        ("GET", "/poll", 404, None),
        ("GET", "/", 404, None),
        ("POST", "/send/", 404, None),
    ];
    for (method, path, status, allow) in cases {
        let (found, response) = ask(&webhook, method, path, &[("Host", "127.0.0.1")]);
        assert_eq!(found, status, "{method} {path}: {response:?}");
        assert_eq!(response.header("Allow"), allow, "{method} {path}");
    }
}

#[test]
fn a_token_guards_everything_but_health() {
    let guarded = webhook(&Arc::default(), Some("secret"));
    let paths = [("POST", "/send", 202), ("GET", "/poll/c", 200), ("GET", "/nothing", 404)];
    for (method, path, status) in paths {
        for header in ["Bearer wrong", "secret", ""] {
            let (found, response) = ask(&guarded, method, path, &[("Authorization", header)]);
            assert_eq!(found, 401, "{path} {header}");
            assert_eq!(response.header("WWW-Authenticate"), Some("Bearer"));
        }
        let headers = [("Authorization", "Bearer secret"), ("Host", "pi.example"), ("Origin", "http://x")];
        assert_eq!(ask(&guarded, method, path, &headers).0, status, "{path}");
    }
    assert_eq!(ask(&guarded, "GET", "/health", &[]).0, 200);
}

#[test]
fn without_a_token_web_pages_are_refused() {
    let parrot = Arc::default();
    let open = webhook(&parrot, None);
    let host = ("Host", "localhost:18789");
    for headers in [[host, ("Origin", "https://evil.example")], [host, ("Sec-Fetch-Site", "cross-site")]] {
        for (method, path) in [("POST", "/send"), ("GET", "/poll/c")] {
            assert_eq!(ask(&open, method, path, &headers).0, 403, "{path} {headers:?}");
        }
    }
    assert!(lock(&parrot.rows).is_empty());
}

/// One request on a connection of its own; the response as text.
fn fetch(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn a_waiting_poll_gets_the_answer_over_the_wire() {
    let parrot = Arc::new(Parrot::default());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let handler: Arc<dyn Handler> = Arc::new(webhook(&parrot, None));
    let options =
        ServerOptions { clock: SystemClock::shared(), cancel: Cancel::new(), limits: Limits::default() };
    let (server, threads) = Server::start(vec![(listener, handler)], options).unwrap();
    parrot.server.set(server.clone()).ok().unwrap();

    for round in 1..=20 {
        let poller = crate::thread::spawn("poller", move || {
            fetch(address, "GET /poll/home?wait=20 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        })
        .unwrap();
        let message = format!(
            r#"{{"conversation_id":"home","sender_id":"u","content":"hi {round}","message_id":"m{round}"}}"#
        );
        let length = message.len();
        let head = format!("POST /send HTTP/1.0\r\nContent-Length: {length}\r\n\r\n");
        let accepted = fetch(address, &(head + &message));
        assert!(accepted.starts_with("HTTP/1.1 202 Accepted\r\n"), "{accepted}");
        let answer = poller.join().unwrap();
        let expected = format!(
            r#"{{"messages":[{{"id":{round},"kind":"text","content":"hi {round}","in_reply_to":["m{round}"],"created_at":"1970-01-01T00:00:00Z"}}]}}"#
        );
        assert!(answer.ends_with(&expected), "{answer}");
    }
    server.stop();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(lock(&parrot.recorded).len(), 20);
}
