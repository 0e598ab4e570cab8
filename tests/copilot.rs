//! GitHub Copilot with the token of an account: the exchange for a session, against the double that is both GitHub
//! and Copilot.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/llm.rs"]
mod llm_double;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use llm_double::{At, Body, Double, Request, Say, WireFormat, stand_in};
use rig_core::completion::CompletionRequest;
use serde_json::json;
use spacebot::clock::{SharedClock, SimulatedClock, SystemClock, Timestamp};
use spacebot::config::{ApiType, LlmConfig, ProviderConfig, ProviderHeader, RoutingConfig, Secret};
use spacebot::error::{Fault, Kind};
use spacebot::id::ProcessKind;
use spacebot::llm::{LlmError, LlmManager, Reply, SpacebotModel, Tuning};
use spacebot::thread::{Cancel, spawn};

/// Of an account, in no maker's shape but for its beginning.
const ACCOUNT: &str = "gho_0123456789abcdef";
/// A stop has to be through by then (P3).
const STOP_MAX: Duration = Duration::from_millis(250);
/// For what has to happen at all.
const SOON: Duration = Duration::from_secs(10);
const CALLERS: usize = 4;

fn is_exchange(request: &Request) -> bool {
    request.path == "/github/copilot_internal/v2/token"
}

/// The session of this number, good for half an hour.
fn session(number: usize) -> Say {
    let token = format!("tid=session-{number:04};exp=1");
    Say::new(Body::Raw(json!({"token": token, "expires_at": 1, "refresh_in": 1500}).to_string()))
}

fn bearer(request: &Request) -> &str {
    request.header("authorization").unwrap_or_default()
}

fn model_of(double: &Double, clock: SharedClock) -> SpacebotModel {
    let header =
        ProviderHeader { name: "X-Tenant".to_owned(), value: Secret::new("tenant-secret"), is_secret: true };
    let provider = ProviderConfig {
        base_url: Some(double.base_url("copilot", WireFormat::OpenAi)),
        github_url: Some(format!("{}/github/", double.origin())),
        api_key: Some(Secret::new(ACCOUNT)),
        headers: vec![header],
        ..ProviderConfig::new("p", ApiType::Copilot)
    };
    let config = LlmConfig { providers: vec![provider], ..LlmConfig::default() };
    let tuning = Tuning { retry_delay: Duration::from_millis(1), ..Tuning::default() };
    let offline = stand_in(|_| Err("not to be asked".to_owned()));
    let manager = LlmManager::tuned(&config, clock, offline, tuning);
    let routing = RoutingConfig { channel: "p/gpt-4o".to_owned(), ..RoutingConfig::default() };
    manager.model_for(&routing, ProcessKind::Channel).without_offline()
}

fn ask(model: &SpacebotModel, cancel: &Cancel) -> Result<Reply, LlmError> {
    model.call(&CompletionRequest::new("Good day."), cancel, &mut |_| {})
}

/// Counts sessions; models answer with the credentials that they were asked with.
fn github() -> Double {
    let sessions = AtomicUsize::new(0);
    Double::recording(move |request| match is_exchange(request) {
        true => session(sessions.fetch_add(1, Ordering::SeqCst) + 1),
        false => Say::text(bearer(request)),
    })
}

#[test]
fn one_session_serves_all_calls_until_shortly_before_its_end() {
    let double = github();
    let clock = SimulatedClock::starting_at(Timestamp(1_800_000_000_000));
    let model = model_of(&double, clock.clone());
    let told = |number: usize| format!("Bearer tid=session-{number:04};exp=1");
    for (advance, number) in [(0, 1), (1499, 1), (1, 2), (1499, 2), (2, 3)] {
        clock.advance(Duration::from_secs(advance));
        assert_eq!(ask(&model, &Cancel::new()).unwrap().response.text(), told(number), "{advance}");
    }
    let requests = double.requests();
    let (exchanges, calls): (Vec<&Request>, Vec<_>) = requests.iter().partition(|one| is_exchange(one));
    assert_eq!((exchanges.len(), calls.len()), (3, 5));
    for exchange in exchanges {
        assert_eq!((exchange.method.as_str(), bearer(exchange)), ("GET", &*format!("token {ACCOUNT}")));
        assert_eq!(exchange.header("x-tenant"), None, "that is for Copilot");
    }
    assert!(calls.iter().all(|call| call.header("x-tenant") == Some("tenant-secret")));
    assert!(calls.iter().all(|call| !format!("{call:?}").contains(ACCOUNT)));
}

#[test]
fn calls_at_once_make_one_exchange() {
    let double = github();
    let model = model_of(&double, SystemClock::shared());
    let callers = (0..CALLERS).map(|_| {
        let model = model.clone();
        spawn("caller", move || ask(&model, &Cancel::new()).unwrap().response.text()).unwrap()
    });
    let callers: Vec<_> = callers.collect();
    for caller in callers {
        assert_eq!(caller.join().unwrap(), "Bearer tid=session-0001;exp=1");
    }
    assert_eq!(double.requests().iter().filter(|request| is_exchange(request)).count(), 1);
}

#[test]
fn a_session_that_ended_early_is_renewed_once() {
    let sessions = Arc::new(AtomicUsize::new(0));
    let made = sessions.clone();
    let double = Double::recording(move |request| match is_exchange(request) {
        true => session(made.fetch_add(1, Ordering::SeqCst) + 1),
        false if bearer(request).contains("session-0002") => Say::text("well"),
        false
            if made.load(Ordering::SeqCst) == 1 && request.json["messages"].to_string().contains("first") =>
        {
            Say::text("well")
        }
        false => Say::error(401, "unauthorized", &format!("token expired: {}", bearer(request))),
    });
    let model = model_of(&double, SystemClock::shared());
    let first = CompletionRequest::new("first");
    model.call(&first, &Cancel::new(), &mut |_| {}).unwrap();
    assert_eq!(ask(&model, &Cancel::new()).unwrap().response.text(), "well");
    assert_eq!(sessions.load(Ordering::SeqCst), 2);
    assert_eq!(double.requests().len(), 5, "exchange, call, refused call, exchange, call");
}

#[test]
fn a_session_that_copilot_refuses_from_the_start_is_a_refused_key_and_is_told_without_it() {
    let double = Double::recording(|request| match is_exchange(request) {
        true => session(1),
        false => Say::error(401, "unauthorized", &format!("no good: {}", bearer(request))),
    });
    let error = ask(&model_of(&double, SystemClock::shared()), &Cancel::new()).unwrap_err();
    assert_eq!(error.kind(), Kind::Auth);
    assert!(!error.to_string().contains("session-0001"), "{error}");
    assert_eq!(double.requests().len(), 2);
}

#[test]
fn what_github_says_instead_has_the_class_that_it_would_have_from_a_provider() {
    let cases = [
        (Say::error(401, "", "Bad credentials"), Kind::Auth, 1),
        (Say::error(403, "", "no access"), Kind::Auth, 1),
        (Say::error(404, "", "Not Found"), Kind::Auth, 1),
        (Say::error(429, "", "slow down"), Kind::RateLimited, 1),
        (Say::error(503, "", "later"), Kind::Transient, 4),
        (Say::new(Body::Raw("<html>".to_owned())), Kind::Transient, 4),
        (Say::new(Body::Raw("{\"token\": \" \"}".to_owned())), Kind::Transient, 4),
        (Say::error(302, "", "").header("location", "http://127.0.0.1:9/"), Kind::Invalid, 1),
        (Say::text("").cut(At::Start), Kind::Transient, 4),
    ];
    for (say, kind, exchanges) in cases {
        let told = format!("{say:?}");
        let double = Double::recording(move |request| match is_exchange(request) {
            true => say.clone(),
            false => Say::text("asked all the same"),
        });
        let error = ask(&model_of(&double, SystemClock::shared()), &Cancel::new()).unwrap_err();
        assert_eq!(error.kind(), kind, "{told}: {error}");
        assert!(error.to_string().contains("p/gpt-4o, its session"), "{error}");
        assert!(!error.to_string().contains(ACCOUNT), "{error}");
        assert_eq!(double.requests().len(), exchanges, "{told}: nothing but exchanges");
    }
}

#[test]
fn a_stop_ends_the_exchange_and_the_wait_for_that_of_another_call() {
    let hangs = AtomicUsize::new(0);
    let double = Double::recording(move |request| match is_exchange(request) {
        true if hangs.fetch_add(1, Ordering::SeqCst) == 0 => session(1).hang(At::Start),
        true => session(2),
        false => Say::text("well"),
    });
    let model = model_of(&double, SystemClock::shared());
    let cancels = [Cancel::new(), Cancel::new()];
    let callers = cancels.clone().map(|cancel| {
        let model = model.clone();
        let caller = spawn("caller", move || (ask(&model, &cancel), Instant::now())).unwrap();
        // The first one is at GitHub before the second comes.
        double.wait_until_hanging(1, SOON);
        caller
    });
    let [first, second] = callers;
    for (cancel, caller) in cancels.iter().rev().zip([second, first]) {
        let stopped = Instant::now();
        cancel.cancel();
        let (answer, ended) = caller.join().unwrap();
        assert!(matches!(answer, Err(LlmError::Cancelled)), "{answer:?}");
        assert!(ended.duration_since(stopped) < STOP_MAX, "{:?}", ended.duration_since(stopped));
    }
    assert_eq!(ask(&model, &Cancel::new()).unwrap().response.text(), "well");
}
