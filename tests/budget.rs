//! Ceilings: whatever providers report, whoever is stopped or killed, and whatever the clock does, what the
//! double bills by its own count stays below them. Over real HTTP, and in the whole binary.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;
#[path = "support/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use daemon::{DEADLINE, Home, eventually};
use llm_double::script::{calls, config};
use llm_double::{At, Body, Double, Request, Say, WireFormat, stand_in};
use random::Random;
use rig_core::completion::CompletionRequest;
use serde_json::{Value, json};
use spacebot::billing::{Exhausted, Meter, Outcome, Payer, Permit, Refused, Wanted};
use spacebot::clock::{Clock, SimulatedClock, Timestamp};
use spacebot::config::{
    ApiType, BudgetConfig, Config, Environment, LlmConfig, Price, PriceConfig, ProviderConfig, RoutingConfig,
};
use spacebot::db::{CommitGate, Db, DbError, Schema};
use spacebot::id::{AgentId, ProcessKind};
use spacebot::llm::{LlmError, LlmManager, Tuning};
use spacebot::prompts;
use spacebot::thread::Cancel;
use spacebot::usage::{Ledger, Rules};

/// 2026-11-20T22:00:00Z.
const EVENING: Timestamp = Timestamp(1_795_212_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const THREADS: u64 = 16;
const DAY_TOKENS: u64 = 300_000;
const MONTH_TOKENS: u64 = 500_000;
/// Billionths of a dollar.
const DAY_MONEY: u64 = 350_000_000;
/// Picodollars per token.
const INPUT: u64 = 1_000_000;
const OUTPUT: u64 = 10_000_000;

/// What the double bills, by its own count: tokens and billionths of a dollar by day.
#[derive(Default)]
struct Bill(Mutex<BTreeMap<String, (u64, u64)>>);

impl Bill {
    fn add(&self, day: &str, input: u64, output: u64) {
        let mut days = self.0.lock().unwrap();
        let day = days.entry(day.to_owned()).or_default();
        day.0 += input + output;
        day.1 += input * INPUT / 1000 + output * OUTPUT / 1000;
    }

    fn total(&self) -> (u64, u64) {
        self.0.lock().unwrap().values().fold((0, 0), |sum, day| (sum.0 + day.0, sum.1 + day.1))
    }
}

/// Nobody is stopped or killed, and all requests are long: the calls of sixteen threads come up to the ceiling together.
fn is_calm(seed: u64) -> bool {
    seed.is_multiple_of(3)
}

/// A provider that takes a token for each byte, which is the most that there can be, bills what it does, and says something else now and then.
fn liar(bill: Arc<Bill>, clock: Arc<SimulatedClock>, seed: u64) -> Double {
    let random = Mutex::new(Random(seed));
    Double::answering(move |request: &Request| {
        let draw = |below| random.lock().unwrap().below(below);
        let most = request.json["max_tokens"].as_u64().expect("a limit of output") * 4;
        let output = 1 + draw(most);
        let (input, output_tokens) = (u64::try_from(request.body.len()).unwrap(), output.div_ceil(4));
        let kind = match draw(200) {
            // Nothing but reports that are too low, so that nothing else makes room for what they hide.
            draw if is_calm(seed) => 8 + draw % 30,
            0 => 200,
            draw => draw / 2,
        };
        if kind < 8 {
            return Say::error(429, "rate_limit_exceeded", "slow down").header("retry-after", "900");
        }
        bill.add(&clock.now().to_rfc3339()[..10], input, output_tokens);
        let (says_input, says_output) = match kind {
            8..=15 => (json!(0), json!(0)),
            16..=20 => (json!(1), json!(1)),
            21..=25 if !is_calm(seed) => (json!(input * 3), json!(output_tokens * 3)),
            200 => (json!(u64::MAX), json!(u64::MAX)),
            26..=30 if !is_calm(seed) => (json!(-7), json!("many")),
            _ => (json!(input), json!(output_tokens)),
        };
        let mut answer = json!({
            "id": "c", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{ "index": 0, "finish_reason": "stop",
                "message": { "role": "assistant", "content": "x".repeat(usize::try_from(output).unwrap()) } }],
        });
        if !(31..=34).contains(&kind) {
            answer["usage"] = json!({ "prompt_tokens": says_input, "completion_tokens": says_output,
                "total_tokens": says_input.as_u64().unwrap_or(0).saturating_add(says_output.as_u64().unwrap_or(0)) });
        }
        let say = Say::new(Body::Raw(answer.to_string())).header("content-type", "application/json");
        match kind {
            39..=44 => say.cut(At::Bytes(20)),
            45..=48 => say.cut(At::Start),
            49..=52 => say.hang(At::Headers),
            53..=55 => Say { status: 502, ..say },
            _ => say,
        }
    })
}

/// The disk of a daemon that is killed: from then on nothing is stored any more.
#[derive(Default)]
struct Killed(AtomicBool);

impl CommitGate for Killed {
    fn before_commit(&self) -> Result<(), DbError> {
        if self.0.load(Ordering::SeqCst) { Err(DbError::Closed) } else { Ok(()) }
    }
    fn after_commit(&self) -> Result<(), DbError> {
        self.before_commit()
    }
}

fn defaults() -> Config {
    struct Nothing;
    impl Environment for Nothing {
        fn variable(&self, _name: &str) -> Option<String> {
            None
        }
    }
    spacebot::config::load(None, &Nothing).unwrap().config
}

fn rules() -> Rules {
    let budget = BudgetConfig { output_most: 256, background_share: 1.0, ..BudgetConfig::default() };
    let price = Price { input: INPUT, output: OUTPUT, cache_read: None, cache_write: None };
    let mut config = defaults();
    config.agents[0].budget = BudgetConfig { day_nano: Some(DAY_MONEY), ..budget.clone() };
    config.budget = BudgetConfig { day_tokens: Some(DAY_TOKENS), month_tokens: Some(MONTH_TOKENS), ..budget };
    config.prices = vec![PriceConfig { model: "p/m".to_owned(), price }];
    Rules::of(&config)
}

/// One daemon's life: sixteen threads call until the ceilings hold or it is killed.
struct Life<'a> {
    double: &'a Double,
    clock: Arc<SimulatedClock>,
    /// Held by each call where midnight must not fall into one.
    midnight: Option<&'a RwLock<()>>,
    killed: Arc<Killed>,
    answered: &'a AtomicU64,
    seed: u64,
}

impl Life<'_> {
    fn live(&self, path: &Path, seed: u64) {
        let db = Db::open_inline_as(path, Schema::Instance, Some(self.killed.clone())).unwrap();
        let ledger = Ledger::open(db, self.clock.clone(), rules()).unwrap();
        let kill_after =
            AtomicU64::new(if is_calm(self.seed) { u64::MAX } else { 20 + Random(seed).below(120) });
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (ledger, kill_after) = (ledger.clone(), &kill_after);
                scope.spawn(move || self.caller(&ledger, kill_after, Random(seed * 100 + thread)));
            }
        });
    }

    fn caller(&self, ledger: &Ledger, kill_after: &AtomicU64, mut random: Random) {
        let mut refused = 0;
        while refused < 3 && !self.killed.0.load(Ordering::SeqCst) {
            let held = self.midnight.map(|midnight| midnight.read().unwrap());
            match self.call(ledger, &mut random) {
                Ok(()) => {
                    self.answered.fetch_add(1, Ordering::SeqCst);
                }
                Err(LlmError::OverBudget(_)) => refused += 1,
                Err(_) => {}
            }
            drop(held);
            if kill_after.fetch_sub(1, Ordering::SeqCst) == 1 {
                self.killed.0.store(true, Ordering::SeqCst);
            }
            if random.chance(4) {
                let _alone = self.midnight.map(|midnight| midnight.write().unwrap());
                self.clock.advance(HOUR / 4);
            }
        }
    }

    fn call(&self, ledger: &Ledger, random: &mut Random) -> Result<(), LlmError> {
        let provider = ProviderConfig {
            base_url: Some(self.double.base_url("p", WireFormat::OpenAi)),
            ..ProviderConfig::new("p", ApiType::OpenAiCompatible)
        };
        // A model that has failed would rest; a fresh manager knows nothing of it.
        let llm = LlmConfig {
            providers: vec![provider],
            read_timeout: Some(Duration::from_millis(100)),
            ..LlmConfig::default()
        };
        let tuning = Tuning { retry_delay: Duration::from_millis(1), streamed: false, ..Tuning::default() };
        let manager = LlmManager::tuned(&llm, self.clock.clone(), stand_in(|_| Ok(String::new())), tuning);
        let manager = manager.metered(Arc::new(ledger.clone()));
        let routing = RoutingConfig { channel: "p/m".to_owned(), ..RoutingConfig::default() };
        let payer = Payer::new(AgentId::new("main"), ProcessKind::Channel);
        let model = manager.model_for(&routing, ProcessKind::Channel).paid_by(payer).without_offline();
        let text = "a word or so "
            .repeat(usize::try_from(if is_calm(self.seed) { 800 } else { random.below(600) }).unwrap());
        let cancel = Cancel::new();
        std::thread::scope(|scope| {
            if !is_calm(self.seed) && random.chance(10) {
                let stops = cancel.clone();
                scope.spawn(move || stops.cancel());
            }
            model.call(&CompletionRequest::new(text), &cancel, &mut |_| {}).map(drop)
        })
    }
}

#[test]
fn what_is_billed_stays_below_the_ceilings_whatever_happens() {
    for seed in 1..=6 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("global.db");
        let (bill, clock) = (Arc::new(Bill::default()), SimulatedClock::starting_at(EVENING));
        let double = liar(bill.clone(), clock.clone(), seed);
        let (midnight, answered) = (RwLock::new(()), AtomicU64::new(0));
        // In half of them the day of a call is the same on both sides, so that days can be compared.
        let midnight = (seed % 2 == 0).then_some(&midnight);
        for life in 0..6 {
            let killed = Arc::new(Killed::default());
            Life { double: &double, clock: clock.clone(), midnight, killed, answered: &answered, seed }
                .live(&path, seed * 10 + life);
            clock.advance(HOUR);
        }
        let (tokens, nano) = bill.total();
        let days = bill.0.lock().unwrap().clone();
        assert!(tokens <= MONTH_TOKENS, "seed {seed}: {tokens} of {MONTH_TOKENS} tokens: {days:?}");
        let count = u64::try_from(days.len()).unwrap();
        assert!(nano <= DAY_MONEY * count, "seed {seed}: {days:?}");
        if midnight.is_some() {
            let over = |day: &(u64, u64)| day.0 > DAY_TOKENS || day.1 > DAY_MONEY;
            assert!(!days.values().any(over), "seed {seed}: {days:?}");
        }
        assert!(
            answered.load(Ordering::SeqCst) > 3 && tokens > 2_000,
            "seed {seed}: hardly anything was asked: {days:?}"
        );
    }
}

/// Has no room for the models that it is not told of.
struct Closed(&'static [&'static str], Exhausted);

struct Leave;

impl Permit for Leave {
    fn output_most(&self) -> Option<u64> {
        None
    }
    fn settle(self: Box<Self>, _outcome: Outcome) {}
}

impl Meter for Closed {
    fn authorise(&self, wanted: &Wanted<'_>) -> Result<Box<dyn Permit>, Refused> {
        match self.0.contains(&wanted.model) {
            true => Ok(Box::new(Leave)),
            false => Err(Refused { reason: "no room".to_owned(), then: self.1.clone() }),
        }
    }
}

#[test]
fn where_a_ceiling_leaves_no_room_the_chain_and_then_the_config_decide() {
    let double = Double::recording(|request: &Request| Say::text(request.json["model"].as_str().unwrap()));
    let provider = ProviderConfig {
        base_url: Some(double.base_url("p", WireFormat::OpenAi)),
        ..ProviderConfig::new("p", ApiType::OpenAiCompatible)
    };
    let llm = LlmConfig { providers: vec![provider], ..LlmConfig::default() };
    let cheap = || Exhausted::Model("p/cheap".to_owned());
    // For which models there is room, what the config says, who answers.
    let cases: [(&[&str], Exhausted, Option<&str>); 7] = [
        (&["p/first", "p/cheap"], cheap(), Some("first")),
        (&["p/second", "p/cheap"], cheap(), Some("second")),
        (&["p/cheap"], cheap(), Some("cheap")),
        (&["p/cheap"], Exhausted::Offline, Some("the responder")),
        (&["p/cheap"], Exhausted::Refuse, None),
        (&[], cheap(), Some("the responder")),
        (&[], Exhausted::Offline, Some("the responder")),
    ];
    for (open, then, answers) in cases {
        let offline = stand_in(|_| Ok("the responder".to_owned()));
        let manager = LlmManager::new(&llm, SimulatedClock::starting_at(EVENING), offline);
        let manager = manager.metered(Arc::new(Closed(open, then.clone())));
        let routing = RoutingConfig {
            channel: "p/first".to_owned(),
            fallbacks: vec!["p/second".to_owned()],
            ..RoutingConfig::default()
        };
        let before = double.requests().len();
        let model = manager.model_for(&routing, ProcessKind::Channel);
        let reply = model.call(&CompletionRequest::new("hello"), &Cancel::new(), &mut |_| {});
        let said = reply.as_ref().ok().map(|reply| reply.response.text());
        assert_eq!(said.as_deref(), answers, "{open:?} {then:?}");
        if answers.is_none() {
            assert!(matches!(reply, Err(LlmError::OverBudget(_))), "{reply:?}");
        }
        let asked = usize::from(answers.is_some_and(|who| who != "the responder"));
        assert_eq!(double.requests().len() - before, asked, "nobody else was asked: {open:?}");
        assert!(manager.lost().is_empty(), "what is too dear is not lost");
        // A job is done as far as that can be without a model, whatever the config says to those who write.
        let job = manager.model_for(&routing, ProcessKind::Channel).offline_only_while_away();
        let reply = job.call(&CompletionRequest::new("hello"), &Cancel::new(), &mut |_| {}).unwrap();
        assert_eq!(reply.response.text(), answers.unwrap_or("the responder"), "{open:?} {then:?}");
    }
}

#[test]
fn a_cheaper_model_is_asked_also_where_the_first_is_away_and_the_next_too_dear() {
    let double = Double::recording(|request: &Request| match request.json["model"].as_str() {
        Some("first") => Say::error(401, "invalid_api_key", "no"),
        name => Say::text(name.unwrap()),
    });
    let provider = ProviderConfig {
        base_url: Some(double.base_url("p", WireFormat::OpenAi)),
        ..ProviderConfig::new("p", ApiType::OpenAiCompatible)
    };
    let llm = LlmConfig { providers: vec![provider], ..LlmConfig::default() };
    let offline = stand_in(|_| Ok("the responder".to_owned()));
    let manager = LlmManager::new(&llm, SimulatedClock::starting_at(EVENING), offline);
    let open = Closed(&["p/first", "p/cheap"], Exhausted::Model("p/cheap".to_owned()));
    let manager = manager.metered(Arc::new(open));
    let routing = RoutingConfig {
        channel: "p/first".to_owned(),
        fallbacks: vec!["p/second".to_owned()],
        ..RoutingConfig::default()
    };
    let model = manager.model_for(&routing, ProcessKind::Channel);
    for asked in [2, 3] {
        let reply = model.call(&CompletionRequest::new("hello"), &Cancel::new(), &mut |_| {}).unwrap();
        assert_eq!((reply.response.text().as_str(), double.requests().len()), ("cheap", asked));
    }
}

#[test]
fn a_cheaper_model_that_is_lost_rests_as_any_other() {
    let double = Double::recording(|_: &Request| Say::error(503, "overloaded_error", "busy"));
    let provider = ProviderConfig {
        base_url: Some(double.base_url("p", WireFormat::OpenAi)),
        ..ProviderConfig::new("p", ApiType::OpenAiCompatible)
    };
    let llm = LlmConfig { providers: vec![provider], ..LlmConfig::default() };
    let clock = SimulatedClock::starting_at(EVENING);
    let offline = stand_in(|_| Ok("the responder".to_owned()));
    let tuning = Tuning { retry_delay: Duration::from_millis(1), ..Tuning::default() };
    let manager = LlmManager::tuned(&llm, clock.clone(), offline, tuning);
    let manager = manager.metered(Arc::new(Closed(&["p/cheap"], Exhausted::Model("p/cheap".to_owned()))));
    let routing = RoutingConfig { channel: "p/first".to_owned(), ..RoutingConfig::default() };
    let model = manager.model_for(&routing, ProcessKind::Channel);
    let asked_after = |rest: Duration| {
        clock.advance(rest);
        let reply = model.call(&CompletionRequest::new("hello"), &Cancel::new(), &mut |_| {});
        assert_eq!(reply.unwrap().response.text(), "the responder");
        double.requests().len()
    };
    assert_eq!(asked_after(Duration::ZERO), 4);
    assert_eq!(asked_after(Duration::ZERO), 4, "it rests");
    assert_eq!(asked_after(Duration::from_secs(11)), 5, "one request tries it");
}

/// Replies at once, and bills what it was asked.
fn billing_double(billed: Arc<AtomicUsize>, wait: Duration) -> Double {
    Double::recording(move |request: &Request| billed_call(&billed, request, wait))
}

fn billed_call(billed: &AtomicUsize, request: &Request, wait: Duration) -> Say {
    billed.fetch_add(request.body.len() / 4 + 10, Ordering::SeqCst);
    assert_eq!(request.json["max_tokens"], 256, "the limit that was reckoned with");
    Say { pause: Some(wait), ..calls(&[("reply", json!({ "content": "here you are" }))]) }
}

fn with_budget(double: &Double, budget: &str) -> String {
    // Nothing else asks a model beside the turns.
    let quiet = "[defaults.memory_persistence]\nenabled = false\n[defaults.cortex]\nenabled = false\n";
    format!("{}{quiet}[budget]\nmax_output_tokens = 256\n{budget}\n", config(double, ""))
}

fn usage(home: &Home) -> Value {
    let output = home.command(&["usage", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What counts against the ceiling.
fn spent(home: &Home) -> u64 {
    usage(home)["ceilings"][0]["spent"].as_u64().unwrap()
}

#[test]
fn at_the_ceiling_who_writes_gets_a_plain_sentence_until_it_is_raised() {
    let billed = Arc::new(AtomicUsize::new(0));
    let double = billing_double(billed.clone(), Duration::ZERO);
    let ceiling = 120_000;
    let mut home = Home::new(&with_budget(&double, &format!("day_tokens = {ceiling}")));
    let other = with_budget(&double, &format!("day_tokens = {}", ceiling * 2));
    let sentence = prompts::notice("budget");
    let config = home.config();
    {
        let daemon = home.start();
        let mut client = daemon.client("c");
        let answers: Vec<String> = (0..30)
            .map(|number| client.ask(&number.to_string(), "hello"))
            .take_while(|said| said != sentence)
            .collect();
        assert!((1..30).contains(&answers.len()), "{answers:?}");
        assert!(answers.iter().all(|answer| answer == "here you are"), "{answers:?}");
        let asked = double.requests().len();
        assert_eq!(client.ask("again", "hello?"), sentence);
        assert_eq!(double.requests().len(), asked, "nothing is asked any more");
        assert!(billed.load(Ordering::SeqCst) <= ceiling);
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(
            &config,
            text.replace(&format!("day_tokens = {ceiling}"), &format!("day_tokens = {}", ceiling * 2)),
        )
        .unwrap();
        eventually("the new ceiling holds", DEADLINE, || {
            daemon.status()["config"]["reloads"].as_u64() > Some(0)
        });
        assert_eq!(client.ask("more", "hello!"), "here you are");
        let (status, log) = daemon.stop();
        assert!(status.success());
        assert_eq!(log.matches("budget: calls are refused").count(), 1, "{log}");
        assert!(!log.contains("k-double"));
    }
    home.configure(&other);
    let report = usage(&home);
    assert!(spent(&home) <= u64::try_from(ceiling * 2).unwrap());
    let calls =
        report["lines"].as_array().unwrap().iter().map(|line| line["calls"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(calls, u64::try_from(double.requests().len()).unwrap(), "one row for each request: {report}");
    assert_eq!(report["lines"][0]["unpriced_calls"], calls, "and no price is guessed");
    // The double says that it has read 7 of 10 from its cache.
    assert_eq!(report["lines"][0]["cache_read_percent"], 70, "{report}");
}

/// More of a ceiling is used than `warn_at` says: that is seen on `watch`, in `/status`, in `usage` and over the API.
#[test]
fn a_ceiling_of_which_little_is_left_is_seen_where_the_operator_looks_and_announced_once() {
    let double = billing_double(Arc::default(), Duration::ZERO);
    let mut home = Home::new(&with_budget(&double, "day_tokens = 10000000"));
    let first = {
        let daemon = home.start();
        daemon.client("c").ask("0", "hello");
        assert!(daemon.stop().0.success());
        spent(&home)
    };
    // Room for the next calls, which are booked with their most, and yet more used than nothing is said of.
    let ceiling = first * 40;
    home.configure(&with_budget(&double, &format!("day_tokens = {ceiling}\nwarn_at = 0.02")));
    let mut announced = Vec::new();
    for round in ["a", "b"] {
        let daemon = home.start();
        let mut watch = home.command(&["watch"]).stdout(Stdio::piped()).spawn().unwrap();
        eventually("an onlooker", DEADLINE, || daemon.status()["onlookers"] == 1);
        let mut client = daemon.client("c");
        for number in 0..2 {
            client.ask(&format!("{round}{number}"), "hello");
        }
        let told = client.ask(&format!("{round}-status"), "/status");
        assert!(told.contains("Of the tokens that the daemon may use in a day, "), "{told}");
        assert!(told.contains(" % are used."), "{told}");
        let budget = &daemon.status()["budget"];
        assert_eq!(budget[0]["owner"], "the daemon", "{budget}");
        assert_eq!((&budget[0]["period"], &budget[0]["unit"]), (&json!("day"), &json!("tokens")), "{budget}");
        let (status, log) = daemon.stop();
        assert!(status.success());
        let mut seen = String::new();
        watch.stdout.take().unwrap().read_to_string(&mut seen).unwrap();
        assert!(watch.wait().unwrap().success());
        let lines = |text: &str| text.lines().filter(|line| line.contains("budget: ")).count();
        announced.push((lines(&seen), lines(&log)));
        let sight = seen.lines().filter(|line| line.starts_with("budget: ")).collect::<Vec<_>>();
        assert!(
            sight.iter().all(|line| line.ends_with("that the daemon may use in a day are used")),
            "{sight:?}"
        );
    }
    assert_eq!(announced, [(1, 1), (0, 0)], "once, also over a restart");
    assert_eq!(usage(&home)["ceilings"][0]["warned"], true);
    let output = home.command(&["usage"]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains(" %: little is left"), "{printed}");
}

#[test]
fn a_call_that_was_out_when_the_daemon_was_killed_is_charged_in_full() {
    let asked = AtomicUsize::new(0);
    let double = Double::recording(move |_: &Request| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => calls(&[("reply", json!({ "content": "here you are" }))]),
        _ => Say::text("never").hang(At::Start),
    });
    let mut home = Home::new(&with_budget(&double, "day_tokens = 10000000"));
    let first = {
        let daemon = home.start();
        assert_eq!(daemon.client("c").ask("1", "hello"), "here you are");
        assert!(daemon.stop().0.success());
        spent(&home)
    };
    assert!(first > 1_000, "{first}");
    // Room for one more, and no further one.
    home.configure(&with_budget(&double, &format!("day_tokens = {}", first * 2 + first / 2)));
    {
        let daemon = home.start();
        daemon.client("c").send("2", "hello again");
        double.wait_until_hanging(1, DEADLINE);
        daemon.kill();
    }
    let reserved = spent(&home);
    assert!(reserved > first + first / 2, "{reserved}");
    let daemon = home.start();
    let mut client = daemon.client("c");
    assert_eq!(client.answer("2"), prompts::notice("budget"), "what was reserved stands");
    assert_eq!(double.requests().len(), 2);
    assert_eq!(spent(&home), reserved);
    assert_eq!(usage(&home)["lines"][0]["unknown_calls"], 1);
    assert!(daemon.stop().0.success());
}

#[test]
fn a_daemon_that_is_killed_again_and_again_stays_below_its_ceiling() {
    let (billed, asked) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let bill = billed.clone();
    let double = Double::recording(move |request: &Request| {
        let mut say = billed_call(&bill, request, Duration::from_millis(20));
        // Nor is anything true of what it says about it.
        let lies = [None, Some("missing"), Some("negative"), Some("text"), Some("huge")];
        say.odd.usage = lies[asked.fetch_add(1, Ordering::SeqCst) % lies.len()].map(str::to_owned);
        say
    });
    let ceiling = 400_000;
    let home = Home::new(&with_budget(&double, &format!("day_tokens = {ceiling}")));
    let mut random = Random(7);
    for round in 0..4 {
        let daemon = home.start();
        for client in 0..THREADS {
            let conversation = format!("c{client}");
            daemon.client(&conversation).send(&format!("{round}-{client}"), "hello there");
        }
        let before = double.requests().len();
        let more = usize::try_from(random.below(6)).unwrap();
        // At the ceiling nothing comes any more.
        let mut looks = 0;
        eventually("some are out", DEADLINE, || {
            looks += 1;
            double.requests().len() >= before + more || looks > 2_000
        });
        daemon.kill();
        assert!(billed.load(Ordering::SeqCst) <= ceiling);
    }
    let daemon = home.start();
    for client in 0..THREADS {
        let conversation = format!("c{client}");
        let mut client_of = daemon.client(&conversation);
        for round in 0..4 {
            let said = client_of.answer(&format!("{round}-{client}"));
            assert!(said == "here you are" || said == prompts::notice("budget"), "{said}");
        }
    }
    assert!(daemon.stop().0.success());
    let billed = billed.load(Ordering::SeqCst);
    assert!(billed <= ceiling && billed > 1_000, "{billed} of {ceiling}");
    assert!(spent(&home) <= u64::try_from(ceiling).unwrap());
}
