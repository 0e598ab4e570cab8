//! Bytes, connections, limits.

use std::net::{Shutdown, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::bounded;

use super::super::framing::MAX_HEAD_BYTES;
use super::*;
use crate::thread::lock;

#[test]
fn a_request_may_come_byte_by_byte() {
    let server = TestServer::start(Limits::default(), echo);
    let mut client = server.connect();
    for byte in post("/a", "Content-Length: 5", "hello").bytes() {
        client.send([byte]);
    }
    assert_eq!(client.answer(), (200, "POST /a hello".to_owned()));
    for byte in post("/b", "Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n").bytes() {
        client.send([byte]);
    }
    assert_eq!(client.answer(), (200, "POST /b hello".to_owned()));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = TestServer::start(Limits::default(), echo);
    let mut client = server.connect();
    let count = 200;
    let requests: String = (0..count)
        .map(|number| post(&format!("/{number}"), "Content-Length: 2", "hi") + &get("/g"))
        .collect();
    client.send(requests);
    for number in 0..count {
        assert_eq!(client.answer(), (200, format!("POST /{number} hi")));
        assert_eq!(client.answer(), (200, "GET /g".to_owned()));
    }
    client.get("/last");
    assert_eq!(client.answer(), (200, "GET /last".to_owned()));
}

#[test]
fn a_careful_client_is_told_to_go_on_once() {
    let server = TestServer::start(Limits { body_bytes: 1 << 20, ..Limits::default() }, echo);
    let mut client = server.connect();
    client.send(post("/a", "Content-Length: 5\r\nExpect: 100-continue", ""));
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("he");
    client.send("llo");
    assert_eq!(client.answer(), (200, "POST /a hello".to_owned()));

    let mut client = server.connect();
    client.send(post("/a", "Content-Length: 5000000\r\nExpect: 100-continue", ""));
    assert_eq!(client.answer().0, 413);
    assert!(client.is_closed());
}

#[test]
fn what_is_too_large_or_malformed_is_refused_and_the_connection_closed() {
    let server = TestServer::start(Limits { body_bytes: 1 << 20, ..Limits::default() }, echo);
    let too_long = "x".repeat(3 << 20);
    let cases = [
        (post("/", &format!("Content-Length: {}", too_long.len()), &too_long), 413),
        (post("/", "Transfer-Encoding: chunked", &format!("{:x}\r\n{too_long}", too_long.len())), 413),
        (post("/", &format!("X: {}", &too_long[..2 * MAX_HEAD_BYTES]), ""), 431),
        ("hello\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), 505),
    ];
    for (bytes, status) in cases {
        let mut client = server.connect();
        client.send(bytes);
        let (answered, body) = client.answer();
        assert_eq!(answered, status, "{body}");
        assert!(body.starts_with(r#"{"error":{"kind":"invalid","message":""#), "{body}");
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert!(client.is_closed(), "{status}");
    }
    server.await_open(0);
}

#[test]
fn a_body_of_the_allowed_size_comes_through() {
    let server =
        TestServer::start(Limits { body_bytes: 1 << 20, ..Limits::default() }, |request: &Request<'_>| {
            let sum: u64 = request.body.iter().map(|byte| u64::from(*byte)).sum();
            Outcome::Respond(Response::json(200, &(request.body.len(), sum)))
        });
    let body = "z".repeat(1 << 20);
    let expected = (200, format!("[{},{}]", body.len(), body.len() * usize::from(b'z')));
    let mut client = server.connect();
    for _ in 0..3 {
        client.send(post("/", &format!("Content-Length: {}", body.len()), &body));
        assert_eq!(client.answer(), expected);
        let chunks: String = body
            .as_bytes()
            .chunks(997)
            .map(|chunk| format!("{:X}\r\n{}\r\n", chunk.len(), "z".repeat(chunk.len())))
            .collect();
        client.send(post("/", "Transfer-Encoding: chunked", &(chunks + "0\r\n\r\n")));
        assert_eq!(client.answer(), expected);
    }
}

#[test]
fn a_slow_request_is_ended_and_holds_no_worker_meanwhile() {
    let request_time = Duration::from_millis(300);
    let server = TestServer::start(Limits { workers: 1, request_time, ..Limits::default() }, echo);
    let mut slow: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    for (number, client) in slow.iter_mut().enumerate() {
        client.send(&post("/", "Content-Length: 5", "hell")[..12 + 10 * number]);
    }
    let mut quick = server.connect();
    quick.get("/quick");
    assert_eq!(quick.answer(), (200, "GET /quick".to_owned()));
    for mut client in slow {
        assert_eq!(client.answer().0, 408);
        assert!(client.is_closed());
    }
    quick.get("/still");
    assert_eq!(quick.answer(), (200, "GET /still".to_owned()));
}

#[test]
fn an_idle_connection_is_reused_and_closed_in_the_end() {
    let idle_time = Duration::from_millis(200);
    let server = TestServer::start(Limits { idle_time, ..Limits::default() }, echo);
    let mut client = server.connect();
    for _ in 0..100 {
        client.get("/again");
        assert_eq!(client.answer(), (200, "GET /again".to_owned()));
    }
    assert!(client.is_closed());
    assert!(server.connect().is_closed(), "a connection that never asks");
}

#[test]
fn the_client_decides_whether_the_connection_stays() {
    let server = TestServer::start(Limits::default(), echo);
    let cases = [
        ("GET / HTTP/1.0\r\n\r\n", "Connection: close", false),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "Connection: keep-alive", true),
        ("GET / HTTP/1.1\r\nHost: pi\r\nConnection: close\r\n\r\n", "Connection: close", false),
    ];
    for (request, expected, stays) in cases {
        let mut client = server.connect();
        client.send(request);
        let head = client.head();
        assert!(head.contains(&format!("{expected}\r\n")), "{head}");
        client.received.drain(..);
        if stays {
            client.received.clear();
            let mut again = server.connect();
            again.send(request.repeat(2));
            assert_eq!((again.answer().0, again.answer().0), (200, 200));
        } else {
            while client.receive() > 0 {}
        }
    }
}

#[test]
fn head_gets_the_length_and_no_body() {
    let (told, tell) = bounded(1);
    let server = TestServer::start(Limits::default(), move |_: &Request<'_>| {
        let told = told.clone();
        let response = Response::new(200, "text/plain", b"hello".to_vec());
        Outcome::Respond(response.after_sent(move |sent, _| told.send(sent).unwrap()))
    });
    let mut client = server.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: pi\r\n\r\n");
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("Content-Length: 5\r\n"), "{head}");
    assert!(!tell.recv_timeout(PATIENCE).unwrap());
    client.get("/");
    assert_eq!(client.answer(), (200, "hello".to_owned()));
    assert!(tell.recv_timeout(PATIENCE).unwrap());
}

#[test]
fn a_panic_is_a_500_and_the_worker_goes_on() {
    let server =
        TestServer::start(Limits { workers: 1, ..Limits::default() }, |request: &Request<'_>| match request
            .path
        {
            "/panic" => panic!("on purpose"),
            "/late" => Outcome::Respond(Response::json(200, &1).after_sent(|_, _| panic!("on purpose"))),
            _ => echo(request),
        });
    let mut client = server.connect();
    for (target, status) in [("/panic", 500), ("/late", 200), ("/x", 200), ("/panic", 500), ("/x", 200)] {
        client.get(target);
        assert_eq!(client.answer().0, status, "{target}");
    }
}

#[test]
fn the_callback_says_whether_the_bytes_went_out() {
    const LARGE: usize = 8 << 20;
    let (told, tell) = bounded(4);
    let response_time = Duration::from_millis(300);
    let limits = Limits { response_time, workers: 1, ..Limits::default() };
    let server = TestServer::start(limits, move |request: &Request<'_>| {
        let told = told.clone();
        let size = if request.path == "/large" { LARGE } else { 1 };
        let response = Response::new(200, "text/plain", vec![b'x'; size]);
        Outcome::Respond(response.after_sent(move |sent, _| told.send(sent).unwrap()))
    });
    let mut reader = server.connect();
    reader.get("/large");
    assert_eq!(reader.answer().1.len(), LARGE);
    assert!(tell.recv_timeout(PATIENCE).unwrap(), "read to the end");

    let mut gone = server.connect();
    gone.get("/large");
    gone.head();
    drop(gone);
    assert!(!tell.recv_timeout(PATIENCE).unwrap(), "the client left");

    let mut silent = server.connect();
    silent.get("/large");
    reader.get("/small");
    assert_eq!(reader.answer(), (200, "x".to_owned()));
    assert!(tell.recv_timeout(PATIENCE).unwrap(), "the worker is free while somebody does not read");
    assert!(!tell.recv_timeout(PATIENCE).unwrap(), "the time was over");
}

#[test]
fn one_connection_too_many_is_told_so() {
    let server = TestServer::start(Limits { connections: 3, ..Limits::default() }, echo);
    let mut clients: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.get("/");
        assert_eq!(client.answer().0, 200);
    }
    let mut refused = server.connect();
    refused.get("/");
    let head = refused.head();
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("Retry-After: 1\r\n"), "{head}");
    drop(refused);
    drop(clients.pop());
    // The refused one counts until its end was noticed.
    await_that(|| {
        let mut next = server.connect();
        next.get("/");
        next.answer().0 == 200
    });
}

#[test]
fn many_connections_at_once_are_served_by_few_threads() {
    let server = TestServer::start(Limits::default(), echo);
    let mut clients: Vec<Client> = (0..250).map(|_| server.connect()).collect();
    for round in 0..4 {
        for client in &mut clients {
            client.get(&format!("/{round}"));
        }
        for client in clients.iter_mut().rev() {
            assert_eq!(client.answer(), (200, format!("GET /{round}")));
        }
    }
    assert_eq!(server.threads.len(), 5);
}

#[test]
fn large_bodies_share_a_bounded_memory() {
    let limits = Limits { held_bytes: 100_000, ..Limits::default() };
    let server = TestServer::start(limits, echo);
    let body = "x".repeat(80_000);
    let request = post("/", &format!("Content-Length: {}", body.len()), &body);
    let mut first = server.connect();
    first.send(&request[..request.len() - 1]);
    let holds = |bytes| server.handle.0.held.load(std::sync::atomic::Ordering::Relaxed) == bytes;
    await_that(|| holds(body.len()));

    let mut second = server.connect();
    second.send(&request[..200]);
    let (status, text) = second.answer();
    assert_eq!(status, 503, "{text}");
    let mut small = server.connect();
    small.send(post("/s", "Content-Length: 2", "ok"));
    assert_eq!(small.answer(), (200, "POST /s ok".to_owned()));

    first.send("x");
    assert_eq!(first.answer().0, 200);
    // The answer is read a moment before its body is given back.
    await_that(|| holds(0));
    let mut third = server.connect();
    third.send(&request);
    assert_eq!(third.answer().0, 200);
}

#[test]
fn each_listener_has_its_handler() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (mut listeners, mut addresses) = (Vec::<(TcpListener, Arc<dyn Handler>)>::new(), Vec::new());
    for name in ["first", "second"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        addresses.push(listener.local_addr().unwrap());
        let seen = seen.clone();
        let handler = move |_: &Request<'_>| {
            lock(&seen).push(name);
            Outcome::Respond(Response::json(200, &name))
        };
        listeners.push((listener, Arc::new(handler)));
    }
    let options =
        ServerOptions { clock: SystemClock::shared(), cancel: Cancel::new(), limits: Limits::default() };
    let (handle, threads) = Server::start(listeners, options).unwrap();
    let mut server = TestServer { handle, cancel: Cancel::new(), threads, address: addresses[1] };
    let mut client = server.connect();
    client.get("/");
    assert_eq!(client.answer().1, "\"second\"");
    server.address = addresses[0];
    let mut client = server.connect();
    client.get("/");
    assert_eq!(client.answer().1, "\"first\"");
    assert_eq!(*lock(&seen), ["second", "first"]);
}
