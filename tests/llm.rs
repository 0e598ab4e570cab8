//! Models over real HTTP against the double: every hazard of `tests/fixtures/llm` over all four wire
//! formats, streamed and whole, and what a script cannot say: stops, connections, cool-downs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/llm.rs"]
mod llm_double;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use llm_double::{At, Body, CACHED_TOKENS, Double, Exchange, INPUT_TOKENS, Say, WireFormat, stand_in};
use nix::sys::resource::{UsageWho, getrusage};
use rig_core::completion::{CompletionRequest, FinishReason, ToolDefinition};
use rig_core::message::{Message, ToolCall, ToolName, ToolResultContent, UserContent};
use serde_json::{Value, json};
use spacebot::billing::{Meter, Outcome, Permit, Refused, Wanted};
use spacebot::clock::{SharedClock, SimulatedClock, SystemClock, Timestamp};
use spacebot::config::{
    ApiType, LlmConfig, ProviderConfig, ProviderHeader, RoutingConfig, Secret, ThinkingEffort,
};
use spacebot::error::{Fault, Kind};
use spacebot::id::ProcessKind;
use spacebot::llm::{Delta, LlmError, LlmManager, RETRIES_MAX, Reply, SpacebotModel, Tuning};
use spacebot::thread::{Cancel, lock, spawn};

const WIRES: [WireFormat; 4] =
    [WireFormat::OpenAi, WireFormat::Anthropic, WireFormat::Responses, WireFormat::Gemini];
const PRIMARY_KEY: &str = "sk-test-primary-0123456789";
const SPARE_KEY: &str = "spare-key-that-looks-like-nothing";
/// A stop has to be through by then (P3).
const STOP_MAX: Duration = Duration::from_millis(250);
/// For what has to happen at all.
const SOON: Duration = Duration::from_secs(10);
/// Wherever the read time-out is not what is tested.
const PATIENT: Duration = Duration::from_secs(10);

fn provider(id: &str, base_url: String, wire: WireFormat, key: &str) -> ProviderConfig {
    let api = match wire {
        WireFormat::OpenAi => ApiType::OpenAiCompatible,
        WireFormat::Anthropic => ApiType::Anthropic,
        WireFormat::Responses => ApiType::OpenAiResponses,
        WireFormat::Gemini => ApiType::Gemini,
    };
    ProviderConfig {
        base_url: Some(base_url),
        api_key: Some(Secret::new(key)),
        ..ProviderConfig::new(id, api)
    }
}

/// Both providers live on the double.
fn config(double: &Double, wire: WireFormat, read_timeout: Duration) -> LlmConfig {
    let providers = [("primary", PRIMARY_KEY), ("spare", SPARE_KEY)]
        .map(|(id, key)| provider(id, double.base_url(id, wire), wire, key));
    LlmConfig { providers: providers.to_vec(), read_timeout: Some(read_timeout), ..LlmConfig::default() }
}

fn routing(chain: &[&str]) -> RoutingConfig {
    RoutingConfig {
        channel: chain[0].to_owned(),
        fallbacks: chain[1..].iter().map(|name| (*name).to_owned()).collect(),
        ..RoutingConfig::default()
    }
}

fn manager(config: &LlmConfig, clock: SharedClock, streamed: bool) -> LlmManager {
    let tuning = Tuning { retry_delay: Duration::from_millis(1), streamed, ..Tuning::default() };
    LlmManager::tuned(config, clock, stand_in(|_| Ok("offline stand-in".to_owned())), tuning)
}

fn model(double: &Double, wire: WireFormat, chain: &[&str]) -> SpacebotModel {
    let config = config(double, wire, PATIENT);
    manager(&config, SystemClock::shared(), true).model_for(&routing(chain), ProcessKind::Channel)
}

fn request() -> CompletionRequest {
    let mut request = CompletionRequest::new("What is 2 + 3?");
    let parameters =
        json!({"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}}});
    request.tools = vec![ToolDefinition::new(ToolName::new("add").unwrap(), "Adds two numbers.", parameters)];
    request
}

fn ask(model: &SpacebotModel) -> Result<Reply, LlmError> {
    model.call(&request(), &Cancel::new(), &mut |_| {})
}

fn strings<'a>(value: &'a Value, default: &[&'a str]) -> Vec<&'a str> {
    match value.as_array() {
        Some(items) => items.iter().map(|item| item.as_str().unwrap()).collect(),
        None => default.to_vec(),
    }
}

#[test]
fn every_hazard_has_the_outcome_that_its_file_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llm");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    assert!(files.len() > 30, "{}", files.len());
    log_lines::capture();
    let mut broken = 0;
    for path in files {
        let file: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let logged_before = log_lines::all().len();
        let mut runs_made = 0;
        // Side by side, because some of them wait for a time-out.
        std::thread::scope(|scope| {
            let mut runs_started = Vec::new();
            for (wire, delivery) in WIRES.into_iter().flat_map(|wire| [(wire, "streamed"), (wire, "whole")]) {
                let runs = strings(&file["wires"], &WIRES.map(WireFormat::name)).contains(&wire.name())
                    && strings(&file["deliveries"], &["streamed", "whole"]).contains(&delivery);
                let (path, file) = (&path, &file);
                let case = format!("{name} over {} {delivery}", wire.name());
                if runs {
                    runs_made += 1;
                    runs_started.push(scope.spawn(move || play(&case, path, file, wire, delivery)));
                }
            }
            // What broke has said so; the other files run all the same.
            broken += runs_started.into_iter().filter_map(|run| run.join().err()).count();
        });
        if let Some(wanted) = file["logged"].as_str() {
            let lines = log_lines::all().split_off(logged_before);
            let found = lines.iter().filter(|line| line.contains(wanted)).count();
            assert!(found >= runs_made, "{name}: {wanted} is {found} times in {lines:#?}");
        }
    }
    assert_eq!(broken, 0, "runs that came out otherwise");
    for line in log_lines::all() {
        assert!(!line.contains(PRIMARY_KEY) && !line.contains("sk-other-key"), "a key in the log: {line}");
    }
}

fn play(case: &str, path: &Path, file: &Value, wire: WireFormat, delivery: &str) {
    let double = Double::script(path);
    let read_timeout = file["read_timeout_ms"].as_u64().map_or(PATIENT, Duration::from_millis);
    let manager =
        manager(&config(&double, wire, read_timeout), SystemClock::shared(), delivery == "streamed");
    let chain = strings(&file["chain"], &["primary/model-1"]);
    let model = manager.model_for(&routing(&chain), ProcessKind::Channel);
    let mut request = request();
    for (index, outcome) in file["outcomes"].as_array().unwrap().iter().enumerate() {
        let case = format!("{case}, call {}", index + 1);
        let mut deltas = String::new();
        let result = model.call(&request, &Cancel::new(), &mut |delta| {
            if let Delta::Text(text) = delta {
                deltas.push_str(text);
            }
        });
        let Some(reply) = check_result(&case, outcome, result) else { continue };
        check_reply(&case, outcome, &reply);
        check_deltas(&case, &reply, &deltas);
        if reply.response.tool_calls().next().is_some() {
            request.chat_history.extend(reply.response.message());
            let results = reply.response.tool_calls().map(answer_call).collect();
            request.chat_history.push(Message::User { content: results });
        }
    }
    double.finish();
}

fn answer_call(call: &ToolCall) -> UserContent {
    let (x, y) = (call.function.arguments.get("x"), call.function.arguments.get("y"));
    let numbers = x.and_then(Value::as_i64).zip(y.and_then(Value::as_i64));
    UserContent::ToolResult(match numbers {
        Some((x, y)) => call.result(vec![ToolResultContent::text((x + y).to_string())]),
        None => call.error_result(vec![ToolResultContent::text("that cannot be done")]),
    })
}

/// The reply, where one is expected.
fn check_result(case: &str, outcome: &Value, result: Result<Reply, LlmError>) -> Option<Reply> {
    match (outcome["error"].as_str(), result) {
        (None, Ok(reply)) => Some(reply),
        (Some(kind), Err(error)) => {
            let found = format!("{error:?}");
            assert!(found.starts_with(kind), "{case}: {found}");
            None
        }
        (wanted, result) => panic!("{case}: {result:?} instead of {wanted:?}"),
    }
}

fn check_reply(case: &str, outcome: &Value, reply: &Reply) {
    let found = json!({
        "text": reply.response.text(),
        "model": reply.model,
        "attempts": reply.attempts,
        "fell_back": reply.fell_back,
        "finish": if reply.response.finish_reason() == Some(FinishReason::Length) { "length" } else { "other" },
        "usage": {
            "input": reply.response.usage.input_tokens,
            "cached": reply.response.usage.cached_input_tokens,
            "output": reply.response.usage.output_tokens,
        },
        "calls": reply.response.tool_calls().map(|call| match &call.function.invalid_arguments {
            Some(_) => json!({"name": call.function.name, "invalid": true}),
            None => json!({"name": call.function.name, "arguments": call.function.arguments}),
        }).collect::<Vec<_>>(),
    });
    for (field, wanted) in outcome.as_object().unwrap() {
        assert_eq!(&found[field], wanted, "{case}: {field} of {reply:?}");
    }
    let calls = outcome["calls"].as_array().map_or(0, Vec::len);
    assert_eq!(reply.response.tool_calls().count(), calls, "{case}: {reply:?}");
}

/// What was shown on the way ends with the text of the answer; without a retry it is all of it.
fn check_deltas(case: &str, reply: &Reply, deltas: &str) {
    let text = reply.response.text();
    assert!(deltas.ends_with(&text), "{case}: {deltas}");
    assert!(reply.attempts > 1 || deltas == text, "{case}: {deltas}");
}

/// Ends `call` with a stop once `ready` has returned; how long that took.
fn stop_during(
    model: &SpacebotModel,
    ready: impl FnOnce() + Send + 'static,
) -> (Result<Reply, LlmError>, Duration) {
    let cancel = Cancel::new();
    let stopping = cancel.clone();
    let stopper = spawn("stopper", move || {
        ready();
        let at = Instant::now();
        stopping.cancel();
        at
    });
    let result = model.call(&request(), &cancel, &mut |_| {});
    let ended = Instant::now();
    let stopped = stopper.unwrap().join().unwrap();
    (result, ended.duration_since(stopped))
}

#[test]
fn a_stop_ends_a_call_wherever_it_waits_and_the_next_call_works() {
    for wire in WIRES {
        for silence in [At::Start, At::Headers, At::Events(3), At::Bytes(250)] {
            let silent = Exchange { expect: Value::Null, say: Say::text("never finished").hang(silence) };
            let good = Exchange { expect: Value::Null, say: Say::text("well") };
            let double = Arc::new(Double::exchanges(vec![silent, good], true));
            let model = model(&double, wire, &["primary/m", "spare/m"]);
            let waiting = double.clone();
            let (result, took) = stop_during(&model, move || waiting.wait_until_hanging(1, SOON));
            assert_eq!(result.unwrap_err(), LlmError::Cancelled, "{wire:?} {silence:?}");
            assert!(took < STOP_MAX, "{wire:?} {silence:?}: {took:?}");
            // The line that was cut is gone; the model is not.
            assert_eq!(ask(&model).unwrap().response.text(), "well");
            assert_eq!(double.connections(), 2);
            Arc::into_inner(double).unwrap().finish();
        }
    }
}

#[test]
fn a_stop_ends_the_wait_before_a_retry_and_a_call_that_has_not_begun() {
    log_lines::capture();
    let wait = Say::error(429, "rate_limit_error", "slow down").header("retry-after", "49.875");
    let exchanges = vec![Exchange { expect: Value::Null, say: wait }];
    let double = Arc::new(Double::exchanges(exchanges, true));
    let model = model(&double, WireFormat::OpenAi, &["primary/m"]);
    let (result, took) = stop_during(&model, || {
        let started = Instant::now();
        while !log_lines::all().iter().any(|line| line.contains("again in 49875 ms")) {
            assert!(started.elapsed() < SOON, "it does not wait");
            std::thread::yield_now();
        }
    });
    assert_eq!(result.unwrap_err(), LlmError::Cancelled);
    assert!(took < STOP_MAX, "{took:?}");

    let cancel = Cancel::new();
    cancel.cancel();
    let error = model.call(&request(), &cancel, &mut |_| {}).unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled);
    assert_eq!(double.requests().len(), 1);
    Arc::into_inner(double).unwrap().finish();
}

#[test]
fn a_call_that_finds_every_line_taken_waits_for_one_and_ends_on_a_stop() {
    const LINES: usize = 64;
    let say = Say::text("never").hang(At::Headers);
    let double = Arc::new(Double::exchanges(vec![Exchange { expect: Value::Null, say }; LINES], true));
    let mut config = config(&double, WireFormat::OpenAi, PATIENT);
    config.providers[0].max_concurrent = LINES;
    let model = manager(&config, SystemClock::shared(), true)
        .model_for(&routing(&["primary/m"]), ProcessKind::Channel);
    let all = Cancel::new();
    let callers: Vec<_> = (0..LINES)
        .map(|_| {
            let (model, cancel) = (model.clone(), all.clone());
            spawn("caller", move || model.call(&request(), &cancel, &mut |_| {}).unwrap_err()).unwrap()
        })
        .collect();
    double.wait_until_hanging(LINES, SOON);
    let (result, took) = stop_during(&model, || {});
    assert_eq!(result.unwrap_err(), LlmError::Cancelled);
    assert!(took < STOP_MAX, "{took:?}");
    let stopped = Instant::now();
    all.cancel();
    for caller in callers {
        assert_eq!(caller.join().unwrap(), LlmError::Cancelled);
    }
    assert!(stopped.elapsed() < STOP_MAX, "{:?}", stopped.elapsed());
    Arc::into_inner(double).unwrap().finish();
}

#[test]
fn a_connection_is_used_again_streamed_or_whole() {
    for wire in WIRES {
        for streamed in [true, false] {
            let double = Double::answering(|_| Say::text("as always"));
            let manager = manager(&config(&double, wire, PATIENT), SystemClock::shared(), streamed);
            let model = manager.model_for(&routing(&["primary/m"]), ProcessKind::Channel);
            for _ in 0..5 {
                assert_eq!(ask(&model).unwrap().response.text(), "as always");
            }
            assert_eq!(double.connections(), 1, "{wire:?} streamed: {streamed}");
        }
    }
}

#[test]
fn sixteen_conversations_at_once_get_their_own_answers() {
    let double = Double::answering(|request| {
        let asked = request.json["messages"][0]["content"].as_str().unwrap_or("nothing").to_owned();
        Say::text(format!("You said: {asked}"))
    });
    let model = model(&double, WireFormat::OpenAi, &["primary/m"]);
    let callers: Vec<_> = (0..16)
        .map(|number| {
            let model = model.clone();
            let body = move || {
                for turn in 0..20 {
                    let prompt = format!("{number}.{turn}");
                    let request = CompletionRequest::new(prompt.as_str());
                    let reply = model.call(&request, &Cancel::new(), &mut |_| {}).unwrap();
                    assert_eq!(reply.response.text(), format!("You said: {prompt}"));
                }
            };
            spawn("conversation", body).unwrap()
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
    assert!(double.connections() <= 16, "{}", double.connections());
}

#[test]
fn a_limited_model_rests_for_its_time_and_is_asked_again_afterwards() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let double = Double::answering(move |request| {
        let is_first = request.path.starts_with("/primary/") && counted.fetch_add(1, Ordering::SeqCst) == 0;
        if is_first { Say::error(429, "rate_limit_error", "slow down") } else { Say::text("fine") }
    });
    let clock = SimulatedClock::starting_at(Timestamp(1_790_000_000_000));
    let manager = manager(&config(&double, WireFormat::OpenAi, PATIENT), clock.clone(), true);
    let routing =
        RoutingConfig { rate_limit_cooldown: Duration::from_secs(60), ..routing(&["primary/m", "spare/m"]) };
    let model = manager.model_for(&routing, ProcessKind::Channel);
    let who = || (ask(&model).unwrap().model, asked.load(Ordering::SeqCst));
    assert_eq!(who(), ("spare/m".to_owned(), 1));
    clock.advance(Duration::from_secs(59));
    assert_eq!(who(), ("spare/m".to_owned(), 1));
    // The rest is the model's, not the process's.
    let worker = manager.model_for(&routing_of_worker("primary/m"), ProcessKind::Worker);
    assert_eq!(ask(&worker).unwrap().model, "offline/responder");
    clock.advance(Duration::from_secs(1));
    assert_eq!(who(), ("primary/m".to_owned(), 2));
}

#[test]
fn a_provider_that_wants_to_wait_is_left_alone_for_so_long() {
    const WISHED: Duration = Duration::from_millis(300);
    for (status, header, wished) in [(429, "retry-after-ms", "300"), (503, "retry-after", "0.3")] {
        let asked: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let kept = asked.clone();
        let double = Double::answering(move |_| {
            lock(&kept).push(Instant::now());
            match lock(&kept).len() {
                1 => Say::error(status, "later", "slow down").header(header, wished),
                _ => Say::text("well"),
            }
        });
        let reply = ask(&model(&double, WireFormat::OpenAi, &["primary/m"])).unwrap();
        assert_eq!((reply.response.text().as_str(), reply.attempts), ("well", 2));
        let asked = lock(&asked);
        assert!(asked[1].duration_since(asked[0]) >= WISHED, "{status}: {:?}", asked[1] - asked[0]);
    }
}

#[test]
fn a_model_that_somebody_has_to_mend_is_not_asked_in_every_turn() {
    for status in [401, 402, 403, 404] {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let double = Double::answering(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Say::error(status, "refused", "no")
        });
        let clock = SimulatedClock::starting_at(Timestamp(1_790_000_000_000));
        let manager = manager(&config(&double, WireFormat::OpenAi, PATIENT), clock.clone(), true);
        let model = manager.model_for(&routing(&["primary/m"]), ProcessKind::Channel);
        // The first rest is 60 to 66 s.
        for (rest, expected) in [(0, 1), (59, 1), (8, 2), (59, 2)] {
            clock.advance(Duration::from_secs(rest));
            assert_eq!(ask(&model).unwrap().model, "offline/responder");
            assert_eq!(asked.load(Ordering::SeqCst), expected, "{status} after {rest} s more");
        }
    }
}

#[test]
fn each_retry_waits_twice_as_long_as_the_one_before() {
    const FIRST: Duration = Duration::from_millis(50);
    let asked: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let kept = asked.clone();
    let double = Double::answering(move |_| {
        lock(&kept).push(Instant::now());
        Say::error(503, "overloaded_error", "busy")
    });
    let tuning = Tuning { retry_delay: FIRST, ..Tuning::default() };
    let config = config(&double, WireFormat::OpenAi, PATIENT);
    let offline = stand_in(|_| Ok("offline stand-in".to_owned()));
    let manager = LlmManager::tuned(&config, SystemClock::shared(), offline, tuning);
    ask(&manager.model_for(&routing(&["primary/m"]), ProcessKind::Channel)).unwrap();
    let asked = lock(&asked);
    let waits: Vec<Duration> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits.len(), RETRIES_MAX as usize);
    for (wait, least) in waits.iter().zip([FIRST, FIRST * 2, FIRST * 4]) {
        assert!(*wait >= least, "{waits:?}");
    }
}

#[test]
fn a_model_whose_provider_is_down_rests_as_long_as_that_says() {
    for status in [429, 503] {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let double = Double::answering(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Say::error(status, "later", "in five minutes").header("retry-after", "300")
        });
        let clock = SimulatedClock::starting_at(Timestamp(1_790_000_000_000));
        let manager = manager(&config(&double, WireFormat::OpenAi, PATIENT), clock.clone(), true);
        let model = manager.model_for(&routing(&["primary/m"]), ProcessKind::Channel);
        for (rest, expected) in [(0, 1), (299, 1), (1, 2)] {
            clock.advance(Duration::from_secs(rest));
            assert_eq!(ask(&model).unwrap().model, "offline/responder");
            assert_eq!(asked.load(Ordering::SeqCst), expected, "{status} after {rest} s more");
        }
    }
}

#[test]
fn a_lost_model_is_not_asked_in_every_turn_and_comes_back_by_one_probe() {
    let asked = Arc::new(AtomicUsize::new(0));
    let is_well = Arc::new(AtomicBool::new(false));
    let (counted, well) = (asked.clone(), is_well.clone());
    let double = Double::answering(move |request| {
        if !request.path.starts_with("/primary/") {
            return Say::text("fine");
        }
        counted.fetch_add(1, Ordering::SeqCst);
        match well.load(Ordering::SeqCst) {
            true => Say::text("fine"),
            false => Say::error(503, "overloaded_error", "busy"),
        }
    });
    let clock = SimulatedClock::starting_at(Timestamp(1_790_000_000_000));
    let manager = manager(&config(&double, WireFormat::OpenAi, PATIENT), clock.clone(), true);
    let model = manager.model_for(&routing(&["primary/m", "spare/m"]), ProcessKind::Channel);
    let who = || (ask(&model).unwrap().model, asked.load(Ordering::SeqCst));
    let tries = 1 + RETRIES_MAX as usize;
    assert_eq!(who(), ("spare/m".to_owned(), tries));
    assert_eq!(who(), ("spare/m".to_owned(), tries), "it rests");
    assert_eq!(manager.lost()[0].model, "primary/m");
    // The longest first rest is 11 s, the longest second one 22 s.
    clock.advance(Duration::from_secs(11));
    assert_eq!(who(), ("spare/m".to_owned(), tries + 1), "a probe is one request");
    clock.advance(Duration::from_secs(11));
    assert_eq!(who(), ("spare/m".to_owned(), tries + 1), "it rests longer");
    is_well.store(true, Ordering::SeqCst);
    clock.advance(Duration::from_secs(11));
    assert_eq!(who(), ("primary/m".to_owned(), tries + 2));
    assert_eq!(manager.lost(), []);
}

fn routing_of_worker(model: &str) -> RoutingConfig {
    RoutingConfig { worker: model.to_owned(), ..RoutingConfig::default() }
}

#[test]
fn each_kind_of_process_has_its_own_chain() {
    let double = Double::answering(|request| Say::text(request.json["model"].as_str().unwrap()));
    let manager = manager(&config(&double, WireFormat::Anthropic, PATIENT), SystemClock::shared(), true);
    let routing = RoutingConfig {
        channel: "primary/talker".to_owned(),
        branch: "spare/vendor/thinker".to_owned(),
        ..RoutingConfig::default()
    };
    let answer = |kind| ask(&manager.model_for(&routing, kind)).unwrap();
    assert_eq!(answer(ProcessKind::Channel).response.text(), "talker");
    let branch = answer(ProcessKind::Branch);
    assert_eq!(
        (branch.response.text().as_str(), branch.model.as_str()),
        ("vendor/thinker", "spare/vendor/thinker")
    );
    let worker = answer(ProcessKind::Worker);
    assert_eq!((worker.model.as_str(), worker.fell_back), ("offline/responder", false));
    assert_eq!(manager.model_for(&routing, ProcessKind::Worker).name(), "offline/responder");
}

#[test]
fn an_unreachable_provider_leaves_the_offline_responder() {
    // Not one that was free a moment ago: the double of another test may have got it.
    for (base_url, attempts) in [("http://127.0.0.1:1/v1", 5), ("not an address", 2)] {
        let provider = provider("primary", base_url.to_owned(), WireFormat::OpenAi, PRIMARY_KEY);
        let config = LlmConfig { providers: vec![provider], ..LlmConfig::default() };
        let manager = manager(&config, SystemClock::shared(), true);
        let reply = ask(&manager.model_for(&routing(&["primary/m"]), ProcessKind::Channel)).unwrap();
        assert_eq!((reply.model.as_str(), reply.attempts), ("offline/responder", attempts));
    }
}

#[test]
fn when_even_the_offline_responder_fails_the_first_failure_is_told() {
    let double =
        Double::answering(|_| Say::error(401, "authentication_error", &format!("bad key {SPARE_KEY}")));
    let config = config(&double, WireFormat::Anthropic, PATIENT);
    let broken = stand_in(|_| Err("no rule".to_owned()));
    let manager = LlmManager::new(&config, SystemClock::shared(), broken);
    let model = manager.model_for(&routing(&["spare/m"]), ProcessKind::Channel);
    let error = ask(&model).unwrap_err();
    assert_eq!(error.kind(), Kind::Auth);
    assert!(error.hint().is_some());
    let told = error.to_string();
    assert!(told.contains("spare/m (HTTP 401): bad key [hidden]"), "{told}");
}

#[test]
fn what_a_provider_quotes_of_its_headers_and_its_address_is_hidden() {
    let double = Double::answering(|request| {
        let header = |name: &str| request.header(name).unwrap_or("nothing").to_owned();
        let said = format!("{} {} sesame-password", header("x-tenant"), header("x-title"));
        Say::error(400, "invalid_request_error", &said)
    });
    let mut config = config(&double, WireFormat::OpenAi, PATIENT);
    let header = |name: &str, value: &str, is_secret| ProviderHeader {
        name: name.to_owned(),
        value: Secret::new(value),
        is_secret,
    };
    let provider = &mut config.providers[0];
    provider.headers = vec![header("X-Tenant", "tenant-of-ours", true), header("X-Title", "Spacebot", false)];
    let base_url = provider.base_url.take().unwrap();
    provider.base_url = Some(base_url.replace("://", "://una:sesame-password@"));
    let model = manager(&config, SystemClock::shared(), true)
        .model_for(&routing(&["primary/m"]), ProcessKind::Channel)
        .without_offline();
    let told = ask(&model).unwrap_err().to_string();
    assert!(told.ends_with("[hidden] Spacebot [hidden]"), "{told}");
}

#[test]
fn an_answer_without_end_is_cut_at_the_limit() {
    let word = format!("{} ", "x".repeat(1 << 20));
    let double = Double::answering(move |_| Say::text(word.repeat(9)));
    for streamed in [true, false] {
        let manager = manager(&config(&double, WireFormat::OpenAi, PATIENT), SystemClock::shared(), streamed);
        let model = manager.model_for(&routing(&["primary/m"]), ProcessKind::Channel);
        let reply = ask(&model).unwrap();
        assert_eq!((reply.model.as_str(), reply.attempts), ("offline/responder", 2), "{streamed}");
    }
}

/// The wire of a configured provider, where its requests go, and the headers that tell.
#[test]
fn each_type_of_provider_is_asked_in_its_own_way() {
    let cases = [
        (ApiType::OpenAi, "/v1", Some("k-123456789"), "/v1/chat/completions", "authorization"),
        (ApiType::OpenRouter, "/api/v1/", Some("k-123456789"), "/api/v1/chat/completions", "authorization"),
        (ApiType::OpenAiCompatible, "/llm/v1", None, "/llm/v1/chat/completions", ""),
        (ApiType::Ollama, "", None, "/v1/chat/completions", ""),
        (ApiType::Ollama, "/v1/", Some("k-123456789"), "/v1/chat/completions", "authorization"),
        (ApiType::Anthropic, "", Some("k-123456789"), "/v1/messages", "x-api-key"),
        (ApiType::Anthropic, "/anthropic/v1", Some("k-123456789"), "/anthropic/v1/messages", "x-api-key"),
    ];
    for (api, base, key, path, key_header) in cases {
        for streamed in [true, false] {
            let call = Say::call("call_1", "add", &json!({"x": 2, "y": 3}));
            let says = [call, Say::text("The sum is 5.")];
            let expect = json!({"path": path, "streamed": streamed, "json": {"model": "some-model"}});
            let exchanges = says.map(|say| Exchange { expect: expect.clone(), say }).to_vec();
            let double = Double::exchanges(exchanges, true);
            let provider = ProviderConfig {
                base_url: Some(format!("{}{base}", double.origin())),
                api_key: key.map(Secret::new),
                ..ProviderConfig::new("primary", api)
            };
            let config =
                LlmConfig { providers: vec![provider], read_timeout: Some(PATIENT), ..LlmConfig::default() };
            let model = manager(&config, SystemClock::shared(), streamed)
                .model_for(&routing(&["primary/some-model"]), ProcessKind::Channel);
            let mut request = request();
            let reply = model.call(&request, &Cancel::new(), &mut |_| {}).unwrap();
            request.chat_history.extend(reply.response.message());
            let results = reply.response.tool_calls().map(answer_call).collect();
            request.chat_history.push(Message::User { content: results });
            let reply = model.call(&request, &Cancel::new(), &mut |_| {}).unwrap();
            assert_eq!(reply.response.text(), "The sum is 5.", "{api:?}");
            for request in double.requests() {
                assert_eq!(
                    request.header("authorization").is_some(),
                    key_header == "authorization",
                    "{api:?}"
                );
                assert_eq!(request.header("x-api-key").is_some(), key_header == "x-api-key", "{api:?}");
            }
            double.finish();
        }
    }
}

#[test]
fn an_estimate_of_tokens_is_corrected_by_what_the_provider_counts() {
    let counted = AtomicUsize::new(1_500);
    let double = Double::answering(move |_| {
        let tokens = counted.fetch_sub(500, Ordering::SeqCst);
        let body = json!({"id": "1", "object": "chat.completion", "created": 1, "model": "double",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1}});
        Say::new(Body::Raw(body.to_string()))
    });
    let config = config(&double, WireFormat::OpenAi, PATIENT);
    let manager = manager(&config, SystemClock::shared(), false);
    let routing = routing(&["primary/m"]);
    let factor = || manager.token_factor(&routing, ProcessKind::Channel);
    let ask = || {
        // A thousand tokens by their characters.
        let request = CompletionRequest::new("x".repeat(4_000));
        let model = manager.model_for(&routing, ProcessKind::Channel);
        model.call(&request, &Cancel::new(), &mut |_| {}).unwrap();
    };
    assert!((factor() - 1.0).abs() < 1e-9, "until it has answered");
    ask();
    assert!((factor() - 1.5).abs() < 1e-9, "{}", factor());
    ask();
    assert!((factor() - 1.375).abs() < 1e-9, "a quarter of the way to 1: {}", factor());
    assert!((manager.token_factor(&routing, ProcessKind::Branch) - 1.0).abs() < 1e-9, "another model");
}

#[test]
fn what_only_a_language_model_can_do_is_not_asked_of_the_offline_responder() {
    let double = Double::answering(|_| Say::error(401, "invalid_api_key", "no"));
    let config = config(&double, WireFormat::OpenAi, PATIENT);
    let manager = manager(&config, SystemClock::shared(), true);
    let call = |routing: &RoutingConfig| {
        let model = manager.model_for(routing, ProcessKind::Channel).without_offline();
        model.call(&request(), &Cancel::new(), &mut |_| {}).map(|reply| reply.model)
    };
    assert!(matches!(call(&routing(&["primary/m"])), Err(LlmError::Unauthorized(_))));
    assert!(matches!(call(&RoutingConfig::default()), Err(LlmError::NotConfigured(_))));
    assert!(manager.has_model(&routing(&["primary/m"]), ProcessKind::Compactor), "that of the channel");
    assert!(!manager.has_model(&routing(&["primary/m"]), ProcessKind::Branch));
}

#[test]
fn a_redirect_to_a_private_address_leads_nowhere() {
    for status in [301, 302, 303, 307, 308] {
        for (wire, streamed) in WIRES.into_iter().flat_map(|wire| [(wire, true), (wire, false)]) {
            let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let location = format!("http://{}/v1/messages", elsewhere.local_addr().unwrap());
            let double = Double::answering(move |_| {
                Say { status, ..Say::new(Body::Raw("moved".to_owned())) }.header("location", &location)
            });
            let manager = manager(&config(&double, wire, PATIENT), SystemClock::shared(), streamed);
            let model = manager.model_for(&routing(&["primary/m"]), ProcessKind::Channel).without_offline();
            assert!(matches!(ask(&model), Err(LlmError::Rejected(_))), "{status} over {wire:?}");
            elsewhere.set_nonblocking(true).unwrap();
            assert!(elsewhere.accept().is_err(), "{status} over {wire:?}, streamed {streamed}, was followed");
        }
    }
}

#[test]
fn the_arguments_of_a_call_may_be_a_megabyte() {
    let text = "0123456789".repeat(100_000);
    let sent = json!({"x": 1, "text": text});
    let double = Double::answering(move |_| Say::call("call_1", "add", &sent));
    for (wire, streamed) in WIRES.into_iter().flat_map(|wire| [(wire, true), (wire, false)]) {
        let manager = manager(&config(&double, wire, PATIENT), SystemClock::shared(), streamed);
        let reply = ask(&manager.model_for(&routing(&["primary/m"]), ProcessKind::Channel)).unwrap();
        let call = reply.response.tool_calls().next().unwrap();
        assert_eq!(call.function.arguments["text"], text.as_str(), "{wire:?} streamed {streamed}");
        assert_eq!(reply.attempts, 1, "{wire:?} streamed {streamed}");
    }
}

/// What a call costs this thread, without the double's side. The bound is for the unoptimised build;
/// making clients anew for each call would break it.
#[test]
fn a_call_costs_little() {
    const CALLS: u32 = 200;
    const EACH_MAX: Duration = Duration::from_millis(4);
    let cpu = || {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
        let (user, system) = (usage.user_time(), usage.system_time());
        Duration::from_micros(u64::try_from(user.tv_sec() + system.tv_sec()).unwrap() * 1_000_000)
            + Duration::from_micros(u64::try_from(user.tv_usec() + system.tv_usec()).unwrap())
    };
    for wire in WIRES {
        for streamed in [true, false] {
            let double = Double::answering(|_| Say::text("A short answer, as most of them are."));
            let manager = manager(&config(&double, wire, PATIENT), SystemClock::shared(), streamed);
            let model = manager.model_for(&routing(&["primary/m"]), ProcessKind::Channel);
            ask(&model).unwrap();
            let (before, started) = (cpu(), Instant::now());
            for _ in 0..CALLS {
                ask(&model).unwrap();
            }
            let (each, wall) = ((cpu() - before) / CALLS, started.elapsed() / CALLS);
            println!("{wire:?} streamed {streamed}: {each:?} of CPU and {wall:?} per call");
            assert!(each < EACH_MAX, "{wire:?} streamed {streamed}: {each:?}");
        }
    }
}

#[test]
fn a_model_can_go_to_another_thread() {
    fn can_travel<T: Send + Sync + 'static>() {}
    can_travel::<LlmManager>();
    can_travel::<SpacebotModel>();
    can_travel::<Reply>();
    can_travel::<LlmError>();
}

/// What the program logs, for all tests of this file.
mod log_lines {
    use super::*;

    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

    struct Capture;

    impl log::Log for Capture {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.target().starts_with("spacebot")
        }

        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                lock(&LINES).push(format!("{} {}", record.level(), record.args()));
            }
        }

        fn flush(&self) {}
    }

    pub(super) fn capture() {
        // Another test of this file may have been first.
        log::set_logger(&Capture).ok();
        log::set_max_level(log::LevelFilter::Debug);
    }

    pub(super) fn all() -> Vec<String> {
        lock(&LINES).clone()
    }
}

#[test]
fn each_process_thinks_as_much_as_its_key_says() {
    let double = Double::recording(|_| Say::text("fine"));
    let mut config = config(&double, WireFormat::OpenAi, PATIENT);
    config.providers[0].api = ApiType::OpenAi;
    let manager = manager(&config, SystemClock::shared(), true);
    let mut routing = RoutingConfig { worker: "primary/gpt-5".to_owned(), ..routing(&["primary/gpt-5"]) };
    routing.thinking.worker = ThinkingEffort::High;
    for kind in [ProcessKind::Channel, ProcessKind::Worker] {
        ask(&manager.model_for(&routing, kind)).unwrap();
    }
    // What a model lacks is left out.
    routing.worker = "spare/plain".to_owned();
    ask(&manager.model_for(&routing, ProcessKind::Worker)).unwrap();
    let efforts: Vec<_> =
        double.requests().iter().map(|request| request.json["reasoning_effort"].clone()).collect();
    assert_eq!(efforts, [Value::Null, json!("high"), Value::Null]);
}

#[test]
fn a_model_that_takes_no_steps_is_asked_to_think_for_so_many_tokens() {
    let cases = [
        (WireFormat::Anthropic, "claude-haiku-4-5", "/thinking/budget_tokens"),
        (WireFormat::Gemini, "gemini-2.5-flash", "/generationConfig/thinkingConfig/thinkingBudget"),
    ];
    for (wire, name, place) in cases {
        let double = Double::recording(|_| Say::text("fine"));
        let manager = manager(&config(&double, wire, PATIENT), SystemClock::shared(), true);
        let mut routing =
            RoutingConfig { worker: format!("primary/{name}"), ..routing(&[&format!("primary/{name}")]) };
        routing.thinking.worker = ThinkingEffort::High;
        for kind in [ProcessKind::Channel, ProcessKind::Worker] {
            ask(&manager.model_for(&routing, kind)).unwrap();
        }
        let asked: Vec<_> =
            double.requests().iter().map(|request| request.json.pointer(place).cloned()).collect();
        assert_eq!(asked, [None, Some(json!(16_384))], "{wire:?}");
    }
}

/// The most requests that are out at once while so many callers ask these models. Each is answered when one more than
/// `expected` is out, or when that has not come about within a moment.
fn most_at_once(
    max_concurrent: usize,
    callers: usize,
    chain: &'static [&'static str],
    expected: usize,
) -> usize {
    let out = Arc::new((Mutex::new((0_usize, 0_usize)), Condvar::new()));
    let counted = out.clone();
    let double = Double::answering(move |_| {
        let (numbers, changed) = &*counted;
        let mut held = lock(numbers);
        held.0 += 1;
        held.1 = held.1.max(held.0);
        changed.notify_all();
        let moment = Duration::from_millis(200);
        held = changed.wait_timeout_while(held, moment, |(_, most)| *most <= expected).unwrap().0;
        held.0 -= 1;
        Say::text("well")
    });
    let mut config = config(&double, WireFormat::OpenAi, PATIENT);
    config.providers.iter_mut().for_each(|provider| provider.max_concurrent = max_concurrent);
    let manager = manager(&config, SystemClock::shared(), true);
    let callers: Vec<_> = (0..callers)
        .map(|number| {
            let name = chain[number % chain.len()];
            let model = manager.model_for(&routing(&[name]), ProcessKind::Channel);
            spawn("caller", move || ask(&model).unwrap().model).unwrap()
        })
        .collect();
    for (number, caller) in callers.into_iter().enumerate() {
        assert_eq!(caller.join().unwrap(), chain[number % chain.len()], "everybody is answered in the end");
    }
    lock(&out.0).1
}

#[test]
fn no_more_requests_are_out_at_once_than_a_provider_takes_and_than_the_daemon_may() {
    assert_eq!(most_at_once(3, 8, &["primary/m", "primary/other"], 3), 3, "of one provider, whichever model");
    assert_eq!(most_at_once(64, 80, &["primary/m", "spare/m"], 64), 64, "of all providers");
}

/// Keeps what came of each request.
#[derive(Clone, Default)]
struct Noted(Arc<Mutex<Vec<Outcome>>>);

impl Permit for Noted {
    fn output_most(&self) -> Option<u64> {
        None
    }
    fn settle(self: Box<Self>, outcome: Outcome) {
        lock(&self.0).push(outcome);
    }
}

impl Meter for Noted {
    fn authorise(&self, _wanted: &Wanted<'_>) -> Result<Box<dyn Permit>, Refused> {
        Ok(Box::new(self.clone()))
    }
}

#[test]
fn what_a_stream_had_reported_before_it_broke_off_is_known_and_its_outcome_is_not() {
    let text = || Say::text("one two three four five");
    let chunk = json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{ "index": 0, "delta": { "content": "one " }, "finish_reason": null }],
        "usage": { "prompt_tokens": INPUT_TOKENS, "completion_tokens": 1, "total_tokens": INPUT_TOKENS + 1,
            "prompt_tokens_details": { "cached_tokens": CACHED_TOKENS } } });
    let chunk = format!("data: {chunk}\n\n");
    let openai = Say::new(Body::Events(vec![chunk; 4]));
    let known = (Some(INPUT_TOKENS), Some(CACHED_TOKENS));
    let cases = [
        (WireFormat::Anthropic, text(), known),
        (WireFormat::OpenAi, openai, known),
        (WireFormat::Gemini, text(), known),
    ];
    for (wire, say, expected) in cases {
        for is_stopped in [false, true] {
            let broken =
                if is_stopped { say.clone().hang(At::Events(3)) } else { say.clone().cut(At::Events(3)) };
            let double = Double::answering(move |_| broken.clone());
            let noted = Noted::default();
            let config = config(&double, wire, PATIENT);
            let manager = manager(&config, SystemClock::shared(), true).metered(Arc::new(noted.clone()));
            let model = manager.model_for(&routing(&["primary/model-1"]), ProcessKind::Channel);
            let cancel = Cancel::new();
            let answer = model.without_offline().call(&request(), &cancel, &mut |delta| {
                if is_stopped && matches!(delta, Delta::Text(_)) {
                    cancel.cancel();
                }
            });
            assert_eq!(matches!(answer, Err(LlmError::Cancelled)), is_stopped, "{answer:?}");
            let outcomes = lock(&noted.0);
            assert!(!outcomes.is_empty());
            for outcome in &*outcomes {
                let Outcome::Unknown(tokens) = outcome else { panic!("{outcome:?}") };
                assert_eq!((tokens.input, tokens.cache_read), expected, "{wire:?}, stopped: {is_stopped}");
            }
        }
    }
}
