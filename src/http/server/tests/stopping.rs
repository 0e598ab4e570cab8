//! The order of the stop.

use std::time::Duration;

use crossbeam_channel::bounded;

use super::*;

#[test]
fn stop_closes_idle_connections_and_the_listener() {
    let mut server = TestServer::start(Limits::default(), echo);
    let mut idle = server.connect();
    idle.get("/");
    assert_eq!(idle.answer().0, 200);
    server.handle.stop();
    assert!(idle.is_closed());
    server.join();
    assert!(TcpStream::connect(server.address).is_err());
    server.handle.wake("nobody");
    server.handle.stop();
}

#[test]
fn a_cancel_from_outside_is_the_same_stop() {
    let mut server = TestServer::start(Limits::default(), echo);
    server.cancel.cancel();
    server.join();
}

#[test]
fn a_server_with_a_cancelled_request_ends_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let cancel = Cancel::new();
    cancel.cancel();
    let options = ServerOptions { clock: SystemClock::shared(), cancel, limits: Limits::default() };
    let (_, threads) = Server::start(vec![(listener, Arc::new(echo) as Arc<dyn Handler>)], options).unwrap();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_parked_request_is_answered_by_the_stop() {
    let mut server = TestServer::start(Limits::default(), |request: &Request<'_>| {
        if request.expired {
            return Outcome::Respond(Response::json(200, &"nothing"));
        }
        Outcome::Park { key: "a".to_owned(), wait: PATIENCE * 10 }
    });
    let mut client = server.connect();
    client.get("/");
    server.await_parked(1);
    server.handle.stop();
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("Connection: close\r\n"), "{head}");
    server.join();
}

#[test]
fn a_request_in_hand_is_finished_and_a_half_read_one_too() {
    let (begun, has_begun) = bounded(1);
    let (go, may_go) = bounded(1);
    let mut server = TestServer::start(Limits::default(), move |request: &Request<'_>| {
        if request.path == "/slow" {
            begun.send(()).unwrap();
            may_go.recv_timeout(PATIENCE).unwrap();
        }
        echo(request)
    });
    let mut half = server.connect();
    half.send(post("/half", "Content-Length: 5", "hel"));
    let mut client = server.connect();
    client.get("/slow");
    has_begun.recv_timeout(PATIENCE).unwrap();
    await_that(|| server.handle.0.open_connections() == 2);
    server.handle.stop();
    go.send(()).unwrap();
    assert_eq!(client.answer(), (200, "GET /slow".to_owned()));
    assert!(client.is_closed());
    half.send("lo");
    assert_eq!(half.answer(), (200, "POST /half hello".to_owned()));
    assert!(half.is_closed());
    server.join();
}

#[test]
fn what_does_not_end_is_cut_off_after_its_time() {
    let stop_time = Duration::from_millis(100);
    let (told, tell) = bounded(1);
    let mut server = TestServer::start(Limits { stop_time, ..Limits::default() }, move |_: &Request<'_>| {
        let told = told.clone();
        let response = Response::new(200, "text/plain", vec![b'x'; 8 << 20]);
        Outcome::Respond(response.after_sent(move |sent, _| told.send(sent).unwrap()))
    });
    let mut half = server.connect();
    half.send("GET /");
    let mut silent = server.connect();
    silent.get("/large");
    silent.head();
    server.handle.stop();
    server.join();
    assert!(!tell.recv_timeout(PATIENCE).unwrap());
    assert!(half.is_closed());
}
