//! Answers that somebody else makes.

use std::sync::Mutex;
use std::time::Duration;

use super::super::{Promise, promise};
use super::*;
use crate::thread::lock;

type Promises = Arc<Mutex<Vec<Promise>>>;

fn late() -> Response {
    Response::error(503, crate::error::Kind::Transient, "late")
}

fn done(text: &str) -> Response {
    Response::new(200, "text/plain", text.as_bytes().to_vec())
}

/// Collects the promises; `/plain` is answered at once.
fn promising(promises: Promises, wait: Duration) -> impl Fn(&Request<'_>) -> Outcome + Send + Sync {
    move |request| {
        if request.path == "/plain" {
            return echo(request);
        }
        let (promise, later) = promise(wait, late);
        lock(&promises).push(promise);
        Outcome::Later(later)
    }
}

fn await_promises(promises: &Promises, count: usize) {
    await_that(|| lock(promises).len() == count);
}

#[test]
fn many_wait_without_a_worker_and_each_gets_its_own_answer() {
    const MANY: usize = 40;
    let promises = Promises::default();
    let server =
        TestServer::start(Limits { workers: 1, ..Limits::default() }, promising(promises.clone(), PATIENCE));
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..MANY {
        let mut client = server.connect();
        client.send(get("/a") + &get("/plain"));
        await_promises(&promises, number + 1);
        clients.push(client);
    }
    let mut other = server.connect();
    other.get("/plain");
    assert_eq!(other.answer(), (200, "GET /plain".to_owned()));
    let mut kept = std::mem::take(&mut *lock(&promises));
    for (number, client) in clients.iter_mut().enumerate().rev() {
        kept.pop().unwrap().keep(done(&number.to_string()));
        assert_eq!(client.answer(), (200, number.to_string()));
        // What was sent behind it had to wait.
        assert_eq!(client.answer(), (200, "GET /plain".to_owned()));
    }
}

#[test]
fn an_answer_may_be_there_before_the_request_is_laid_down() {
    let server = TestServer::start(Limits::default(), |_: &Request<'_>| {
        let (promise, later) = promise(PATIENCE, late);
        promise.keep(done("at once"));
        Outcome::Later(later)
    });
    let mut client = server.connect();
    for _ in 0..100 {
        client.get("/");
        assert_eq!(client.answer(), (200, "at once".to_owned()));
    }
}

/// Keeps each promise from another thread in the moment in which it is made.
#[test]
fn an_answer_that_races_with_its_request_is_never_lost() {
    let (send, promises) = crossbeam_channel::bounded::<Promise>(16);
    let keeper = crate::thread::spawn("keeper", move || {
        for promise in promises {
            promise.keep(done("kept"));
        }
    })
    .unwrap();
    let server = TestServer::start(Limits::default(), move |_: &Request<'_>| {
        let (promise, later) = promise(PATIENCE, late);
        send.send(promise).unwrap();
        Outcome::Later(later)
    });
    let mut client = server.connect();
    for _ in 0..3000 {
        client.get("/");
        assert_eq!(client.answer(), (200, "kept".to_owned()));
    }
    drop(server);
    keeper.join().unwrap();
}

#[test]
fn who_waits_too_long_hears_so_and_the_connection_goes_on() {
    let promises = Promises::default();
    let wait = Duration::from_millis(100);
    let server = TestServer::start(Limits::default(), promising(promises.clone(), wait));
    let mut client = server.connect();
    let begun = Instant::now();
    client.get("/a");
    let (status, body) = client.answer();
    assert!(status == 503 && body.contains("late"), "{body}");
    assert!(begun.elapsed() >= wait);
    // The next request is not answered by the promise of the last.
    client.get("/b");
    await_promises(&promises, 2);
    let mut kept = std::mem::take(&mut *lock(&promises)).into_iter();
    kept.next().unwrap().keep(done("a"));
    kept.next().unwrap().keep(done("b"));
    assert_eq!(client.answer(), (200, "b".to_owned()));
}

#[test]
fn a_broken_promise_is_an_error_and_not_silence() {
    let server = TestServer::start(Limits::default(), |_: &Request<'_>| {
        let (promise, later) = promise(PATIENCE, late);
        drop(promise);
        Outcome::Later(later)
    });
    let mut client = server.connect();
    client.get("/");
    assert_eq!(client.answer().0, 500);
}

#[test]
fn the_stop_waits_for_an_answer_and_one_for_nobody_does_no_harm() {
    let promises = Promises::default();
    let mut server = TestServer::start(Limits::default(), promising(promises.clone(), PATIENCE));
    let (mut stays, mut leaves) = (server.connect(), server.connect());
    leaves.get("/a");
    await_promises(&promises, 1);
    stays.get("/b");
    await_promises(&promises, 2);
    drop(leaves);
    server.handle.stop();
    let mut kept = std::mem::take(&mut *lock(&promises));
    kept.pop().unwrap().keep(done("b"));
    assert_eq!(stays.answer(), (200, "b".to_owned()));
    assert!(stays.is_closed());
    kept.pop().unwrap().keep(done("a"));
    server.join();
}

#[test]
fn a_promise_that_outlives_the_server_does_no_harm() {
    let promises = Promises::default();
    let limits = Limits { stop_time: Duration::from_millis(50), ..Limits::default() };
    let mut server = TestServer::start(limits, promising(promises.clone(), PATIENCE));
    let mut client = server.connect();
    client.get("/a");
    await_promises(&promises, 1);
    server.handle.stop();
    server.join();
    assert!(client.is_closed());
    lock(&promises).pop().unwrap().keep(done("a"));
}
