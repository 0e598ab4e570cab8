//! Long polls: parked, woken, expired, abandoned.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use super::*;
use crate::thread::lock;

fn park(key: &str, wait: Duration) -> Outcome {
    Outcome::Park { key: key.to_owned(), wait }
}

/// Answers `attempt expired` once told that there is something, or at the end.
fn patient(has_news: Arc<AtomicUsize>, wait: Duration) -> impl Fn(&Request<'_>) -> Outcome + Send + Sync {
    move |request| {
        if request.path == "/plain" {
            return echo(request);
        }
        if has_news.load(Ordering::SeqCst) == 0 && !request.expired {
            return park(request.path, wait);
        }
        Outcome::Respond(Response::json(200, &(request.attempt > 0, request.expired)))
    }
}

#[test]
fn a_parked_request_is_answered_after_a_wake_of_its_key() {
    let news = Arc::new(AtomicUsize::new(0));
    let server =
        TestServer::start(Limits { workers: 1, ..Limits::default() }, patient(news.clone(), PATIENCE));
    let mut client = server.connect();
    client.get("/a");
    server.await_parked(1);
    let mut other = server.connect();
    other.get("/plain");
    assert_eq!(other.answer(), (200, "GET /plain".to_owned()));
    server.handle.wake("/b");
    server.await_parked(1);
    news.store(1, Ordering::SeqCst);
    server.handle.wake("/a");
    assert_eq!(client.answer(), (200, "[true,false]".to_owned()));
    client.get("/plain");
    assert_eq!(client.answer(), (200, "GET /plain".to_owned()));
}

#[test]
fn a_parked_request_is_answered_at_its_deadline_and_waking_does_not_move_that() {
    let wait = Duration::from_millis(200);
    let server = TestServer::start(Limits::default(), patient(Arc::default(), wait));
    let mut client = server.connect();
    client.get("/a");
    let begun = Instant::now();
    // Woken all the while, without news.
    while server.handle.0.parked_requests() == 0 && begun.elapsed() < PATIENCE {}
    while server.handle.0.parked_requests() == 1 && begun.elapsed() < wait / 2 {
        server.handle.wake("/a");
        server.await_parked(1);
    }
    assert_eq!(client.answer(), (200, "[true,true]".to_owned()));
    assert!(begun.elapsed() >= wait && begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
}

#[test]
fn a_pipelined_request_waits_behind_the_parked_one() {
    let news = Arc::new(AtomicUsize::new(0));
    let server = TestServer::start(Limits::default(), patient(news.clone(), PATIENCE));
    let mut client = server.connect();
    client.send(get("/a") + &get("/plain") + &get("/b"));
    server.await_parked(1);
    news.store(1, Ordering::SeqCst);
    server.handle.wake("/a");
    assert_eq!(client.answer(), (200, "[true,false]".to_owned()));
    assert_eq!(client.answer(), (200, "GET /plain".to_owned()));
    assert_eq!(client.answer(), (200, "[false,false]".to_owned()));
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    let server = TestServer::start(Limits::default(), patient(Arc::default(), PATIENCE));
    let mut client = server.connect();
    client.get("/a");
    server.await_parked(1);
    drop(client);
    server.await_parked(0);
    server.await_open(0);
}

#[test]
fn without_room_a_request_is_answered_at_once() {
    let server =
        TestServer::start(Limits { parked: 2, ..Limits::default() }, patient(Arc::default(), PATIENCE));
    let mut clients: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        client.get("/a");
        server.await_parked(index + 1);
    }
    let mut third = server.connect();
    third.get("/a");
    assert_eq!(third.answer(), (200, "[true,true]".to_owned()));
}

#[test]
fn to_park_an_expired_request_is_a_bug_and_said_so() {
    let server = TestServer::start(Limits::default(), |_: &Request<'_>| park("a", Duration::ZERO));
    let mut client = server.connect();
    client.get("/");
    assert_eq!(client.answer().0, 500);
}

/// The news and the wake come after the handler looked and before the request is parked.
#[test]
fn a_wake_between_looking_and_parking_counts() {
    let server: Arc<OnceLock<ServerHandle>> = Arc::default();
    let inner = server.clone();
    let running = TestServer::start(Limits::default(), move |request: &Request<'_>| {
        if request.attempt > 0 {
            return Outcome::Respond(Response::json(200, &request.expired));
        }
        inner.wait().wake("a");
        park("a", PATIENCE)
    });
    server.set(running.handle.clone()).ok().unwrap();
    let mut client = running.connect();
    for _ in 0..100 {
        client.get("/");
        assert_eq!(client.answer(), (200, "false".to_owned()));
    }
}

/// Wakes at any moment: each number is published, then the key is woken once; a poll that gets
/// nothing before its deadline has missed its wake.
#[test]
fn no_wake_is_missed_in_many_tries() {
    const ROUNDS: u64 = 3000;
    let published: Arc<[AtomicU64; 2]> = Arc::default();
    let look = published.clone();
    let server = TestServer::start(Limits::default(), move |request: &Request<'_>| {
        let lane = usize::from(request.path == "/1");
        let after: u64 = request.query.parse().unwrap();
        let now = look[lane].load(Ordering::SeqCst);
        if request.expired {
            return Outcome::Respond(Response::json(504, &now));
        }
        if now > after {
            return Outcome::Respond(Response::json(200, &now));
        }
        park(request.path, PATIENCE / 2)
    });
    let missed = Arc::new(Mutex::new(Vec::new()));
    let pollers: Vec<_> = (0..2)
        .map(|lane: usize| {
            let (mut client, missed, published) = (server.connect(), missed.clone(), published.clone());
            let handle = server.handle.clone();
            crate::thread::spawn(format!("poller-{lane}"), move || {
                for round in 0..ROUNDS {
                    client.get(&format!("/{lane}?{round}"));
                    // Another point in the life of the request each time.
                    let moment = Instant::now() + Duration::from_micros(round % 128);
                    while Instant::now() < moment {}
                    published[lane].store(round + 1, Ordering::SeqCst);
                    handle.wake(&format!("/{lane}"));
                    let answer = client.answer();
                    if answer != (200, (round + 1).to_string()) {
                        lock(&missed).push((lane, round, answer));
                        return;
                    }
                }
            })
            .unwrap()
        })
        .collect();
    for poller in pollers {
        poller.join().unwrap();
    }
    assert!(lock(&missed).is_empty(), "{:?}", lock(&missed));
}

#[test]
fn a_response_can_wake_others_after_its_callback() {
    let done = Arc::new(AtomicUsize::new(0));
    let look = done.clone();
    let server = TestServer::start(Limits::default(), move |request: &Request<'_>| match request.path {
        "/wait" if look.load(Ordering::SeqCst) == 0 && !request.expired => park("a", PATIENCE),
        "/wait" => Outcome::Respond(Response::json(200, &request.expired)),
        _ => {
            let done = look.clone();
            let response = Response::json(200, &1).after_sent(move |_, _| done.store(1, Ordering::SeqCst));
            Outcome::Respond(response.wake_after("a"))
        }
    });
    let mut waiting = server.connect();
    waiting.get("/wait");
    server.await_parked(1);
    let mut other = server.connect();
    other.get("/go");
    assert_eq!(other.answer().0, 200);
    assert_eq!(waiting.answer(), (200, "false".to_owned()));
}
