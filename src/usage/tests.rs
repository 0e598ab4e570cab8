//! The accounts over a database, with a clock of our own.

use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::billing::{Outcome, Payer, Tokens};
use crate::clock::{Clock, SimulatedClock};
use crate::config::{Price, PriceConfig};
use crate::db::Schema;
use crate::id::ProcessKind;
use crate::onlookers::{Interest, Onlooker, Seen};

/// 2026-11-21T12:00:00Z.
const NOON: Timestamp = Timestamp(1_795_262_400_000);
const DAY: Duration = Duration::from_secs(86_400);
const PRICED: &str = "p/priced";
const UNPRICED: &str = "p/unpriced";

struct Bench {
    _folder: TempDir,
    clock: Arc<SimulatedClock>,
    ledger: Ledger,
}

fn prices() -> Prices {
    // A thousandth of a dollar per thousand tokens of input, ten times that for output.
    let price = Price {
        input: 1_000_000,
        output: 10_000_000,
        cache_read: Some(100_000),
        cache_write: Some(2_000_000),
    };
    Prices::new(&[PriceConfig { model: PRICED.to_owned(), price }])
}

fn rules(daemon: BudgetConfig, agents: &[(&str, BudgetConfig)]) -> Rules {
    let agents = agents.iter().map(|(id, config)| (AgentId::new(id), config.clone())).collect();
    Rules { prices: prices(), daemon, agents }
}

fn tokens_a_day(tokens: u64) -> BudgetConfig {
    BudgetConfig { day_tokens: Some(tokens), output_most: 100, ..BudgetConfig::default() }
}

fn bench(rules: Rules) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let clock = SimulatedClock::starting_at(NOON);
    let db = Db::open_inline_as(&folder.path().join("global.db"), Schema::Instance, None).unwrap();
    let ledger = Ledger::open(db, clock.clone(), rules).unwrap();
    Bench { _folder: folder, clock, ledger }
}

impl Bench {
    /// A call of so many bytes, with the limit of output that the config gives it.
    fn ask(
        &self,
        agent: &str,
        kind: ProcessKind,
        model: &str,
        input_most: u64,
    ) -> Result<Box<dyn Permit>, Refused> {
        let payer = Payer::new(AgentId::new(agent), kind);
        let (input_least, output_most) = (input_most / 16, None);
        self.ledger.authorise(&Wanted { payer: &payer, model, input_most, input_least, output_most })
    }

    fn channel(&self, input_most: u64) -> Result<Box<dyn Permit>, Refused> {
        self.ask("main", ProcessKind::Channel, PRICED, input_most)
    }

    /// State, charged tokens and money of every row.
    fn rows(&self) -> Vec<(String, i64, Option<i64>)> {
        let read = |connection: &crate::db::rusqlite::Connection| {
            let mut statement = connection
                .prepare("SELECT state, charged_tokens, charged_nano FROM token_usage ORDER BY id")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        self.ledger.db().read(read).unwrap()
    }

    fn one<T: crate::db::rusqlite::types::FromSql>(&self, sql: &str) -> T {
        self.ledger.db().read(|connection| Ok(connection.query_row(sql, [], |row| row.get(0))?)).unwrap()
    }

    /// What ceilings are compared with is what the rows say.
    fn sums_agree(&self) {
        for column in ["tokens", "nano"] {
            let rows: i64 = self.one(&format!("SELECT coalesce(sum(charged_{column}), 0) FROM token_usage"));
            let sums: i64 = self.one(&format!("SELECT coalesce(sum({column}), 0) FROM token_totals"));
            assert_eq!(rows, sums, "{column}");
        }
    }
}

fn billed(input: u64, output: u64) -> Outcome {
    let tokens = Tokens { input: Some(input), output: Some(output), ..Tokens::default() };
    Outcome::Billed { tokens, output_least: 0 }
}

#[test]
fn without_a_ceiling_every_outcome_is_recorded_and_nothing_is_refused() {
    let bench = bench(rules(BudgetConfig::default(), &[]));
    let default_output = BudgetConfig::default().output_most;
    let heard = Tokens { input: Some(9), ..Tokens::default() };
    for outcome in [billed(10, 5), Outcome::Unknown(heard), Outcome::Free] {
        let permit = bench.channel(16).unwrap();
        assert_eq!(permit.output_most(), None, "the request stays as it is");
        assert!(bench.rows().iter().all(|(state, ..)| state != "open"), "nothing is reserved");
        permit.settle(outcome);
    }
    drop(bench.ask("main", ProcessKind::Worker, UNPRICED, 16).unwrap());
    let worst = 16 + i64::try_from(default_output).unwrap();
    let nano = 16 * 2_000 + i64::try_from(default_output).unwrap() * 10_000;
    let expected = [
        ("billed", 15, Some(10 * 1_000 + 5 * 10_000)),
        ("unknown", worst, Some(nano)),
        ("free", 0, Some(0)),
        ("unknown", worst, None),
    ];
    assert_eq!(bench.rows(), expected.map(|(state, tokens, nano)| (state.to_owned(), tokens, nano)));
    bench.sums_agree();
    assert_eq!(bench.one::<String>("SELECT cost_status FROM token_usage WHERE id = 4"), "unknown");
    assert_eq!(
        bench.one::<i64>("SELECT input_tokens FROM token_usage WHERE id = 2"),
        9,
        "as far as it was heard"
    );
}

#[test]
fn the_most_is_reserved_before_and_what_was_billed_counts_afterwards() {
    let bench = bench(rules(tokens_a_day(1_000), &[]));
    let permit = bench.channel(600).unwrap();
    assert_eq!(permit.output_most(), Some(100), "the limit that was reckoned with");
    assert_eq!(bench.rows(), [("open".to_owned(), 700, Some(600 * 2_000 + 100 * 10_000))]);
    let refused = bench.channel(300).err().unwrap();
    assert!(refused.reason.contains("1000 tokens") && refused.reason.contains("700 tokens"), "{refused:?}");
    assert_eq!(refused.then, Exhausted::Refuse);
    permit.settle(billed(200, 50));
    assert_eq!(bench.rows()[0].1, 250);
    bench.channel(650).unwrap().settle(Outcome::Free);
    bench.channel(650).unwrap().settle(Outcome::Unknown(Tokens::default()));
    assert!(bench.channel(1).is_err(), "what nobody knows is charged in full");
    bench.sums_agree();
}

#[test]
fn who_comes_together_does_not_see_the_same_room() {
    const CALLERS: usize = 16;
    let bench = bench(rules(tokens_a_day(1_000), &[]));
    let start = std::sync::Barrier::new(CALLERS);
    // Each may come to 100 tokens.
    let caller = || {
        start.wait();
        (0..4).filter_map(|_| bench.channel(0).ok()).collect::<Vec<_>>()
    };
    let permits: Vec<_> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(caller)).collect();
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });
    assert_eq!(permits.len(), 10, "{:?}", bench.rows());
    bench.sums_agree();
}

#[test]
fn a_reservation_outlives_the_daemon() {
    let bench = bench(rules(tokens_a_day(1_000), &[]));
    std::mem::forget(bench.channel(600).unwrap());
    let again = Ledger::open(bench.ledger.db().clone(), bench.clock.clone(), rules(tokens_a_day(1_000), &[]));
    let bench = Bench { ledger: again.unwrap(), ..bench };
    assert_eq!(bench.rows(), [("unknown".to_owned(), 700, Some(600 * 2_000 + 100 * 10_000))]);
    assert!(bench.channel(300).is_err());
    assert!(bench.channel(200).is_ok());
}

#[test]
fn each_ceiling_binds_for_whom_and_how_long_it_is_meant() {
    let month = BudgetConfig { month_nano: Some(2_000_000), output_most: 100, ..BudgetConfig::default() };
    let bench = bench(rules(month, &[("a", tokens_a_day(300)), ("b", BudgetConfig::default())]));
    let ask = |agent, input| bench.ask(agent, ProcessKind::Channel, PRICED, input);
    // 200 bytes may cost 400,000 + 1,000,000.
    ask("a", 200).unwrap().settle(billed(200, 0));
    let refused = ask("a", 200).err().unwrap();
    assert!(refused.reason.contains("agent a"), "{refused:?}");
    ask("b", 200).unwrap().settle(billed(200, 100));
    let refused = ask("b", 1).err().unwrap();
    assert!(refused.reason.contains("the month of the daemon"), "{refused:?}");
    bench.clock.advance(DAY);
    assert!(ask("a", 1).is_err(), "the month of the daemon goes on");
    bench.clock.advance(DAY * 9);
    ask("a", 200).unwrap().settle(Outcome::Free);
}

#[test]
fn background_work_has_a_share_of_its_own() {
    let bench = bench(rules(tokens_a_day(1_000), &[]));
    let behind = |input| bench.ask("main", ProcessKind::Compactor, PRICED, input);
    behind(150).unwrap().settle(billed(150, 0));
    assert!(behind(1).is_err_and(|refused| refused.reason.contains("background")), "250 are its share");
    bench.channel(700).unwrap().settle(Outcome::Unknown(Tokens::default()));
    assert!(bench.ask("main", ProcessKind::Ingestion, PRICED, 0).is_err(), "and the whole binds it too");
}

#[test]
fn a_model_without_a_price_is_refused_where_money_alone_binds() {
    let money = BudgetConfig { day_nano: Some(1_000_000_000), output_most: 100, ..BudgetConfig::default() };
    let both = BudgetConfig { day_tokens: Some(1_000), ..money.clone() };
    let bench = bench(rules(BudgetConfig::default(), &[("money", money), ("both", both)]));
    let ask = |agent, model| bench.ask(agent, ProcessKind::Channel, model, 100);
    let refused = ask("money", UNPRICED).err().unwrap();
    assert!(refused.reason.contains("has no price"), "{refused:?}");
    assert!(ask("money", PRICED).is_ok() && ask("neither", UNPRICED).is_ok());
    ask("both", UNPRICED).unwrap().settle(billed(100, 100));
    assert_eq!(bench.rows().last().unwrap().2, None, "no price is guessed");
    ask("both", UNPRICED).unwrap().settle(Outcome::Unknown(Tokens::default()));
    for _ in 0..3 {
        drop(ask("both", UNPRICED).unwrap());
    }
    assert!(ask("both", UNPRICED).is_err(), "the tokens bind");
}

#[test]
fn a_report_counts_in_full_if_it_is_high_and_is_not_believed_if_it_cannot_be() {
    // What is reported of input and output, what is charged; 160 bytes, of which ten tokens must come, and at most
    // 100 tokens of output.
    let cases = [
        (Some(50), Some(60), 110),
        (Some(10), Some(0), 10),
        (Some(9), Some(60), 160 + 60),
        (Some(0), None, 160 + 100),
        (None, Some(60), 160 + 60),
        (None, None, 160 + 100),
        (Some(5_000), Some(900), 5_900),
        (Some(u64::MAX), Some(1), 1_000_000_000_000),
    ];
    for (input, output, charged) in cases {
        let bench = bench(rules(tokens_a_day(1_000), &[]));
        let tokens = Tokens { input, output, ..Tokens::default() };
        bench.channel(160).unwrap().settle(Outcome::Billed { tokens, output_least: 0 });
        assert_eq!(bench.rows()[0].1, charged, "{input:?} {output:?}");
        let said: Option<i64> = bench.one("SELECT input_tokens FROM token_usage");
        assert_eq!(said.is_some(), input.is_some(), "and what it said is kept");
        assert_eq!(bench.channel(160).is_err(), charged > 740, "{charged}");
        bench.sums_agree();
    }
    let bench = bench(rules(tokens_a_day(1_000), &[]));
    let tokens = Tokens { input: Some(100), output: Some(3), ..Tokens::default() };
    bench.channel(160).unwrap().settle(Outcome::Billed { tokens, output_least: 4 });
    assert_eq!(bench.rows()[0].1, 200, "so little output it cannot have been");
}

#[test]
fn cached_tokens_have_their_own_price() {
    let bench = bench(rules(tokens_a_day(10_000), &[]));
    let tokens = Tokens {
        input: Some(1_000),
        output: Some(10),
        cache_read: Some(700),
        cache_write: Some(200),
        reasoning: Some(5),
    };
    bench.channel(2_000).unwrap().settle(Outcome::Billed { tokens, output_least: 0 });
    let nano = 100 * 1_000 + 700 * 100 + 200 * 2_000 + 10 * 10_000;
    assert_eq!(bench.rows(), [("billed".to_owned(), 1_010, Some(nano))]);
}

#[test]
fn a_clock_that_goes_back_opens_no_day_again() {
    let bench = bench(rules(tokens_a_day(1_000), &[]));
    bench.channel(900).unwrap().settle(Outcome::Unknown(Tokens::default()));
    let back = SimulatedClock::starting_at(NOON.minus(DAY * 3));
    let ledger =
        Ledger::open(bench.ledger.db().clone(), back.clone(), rules(tokens_a_day(1_000), &[])).unwrap();
    let bench = Bench { ledger, clock: back, ..bench };
    assert!(bench.channel(1).is_err(), "the day of the last call goes on");
    bench.clock.advance(DAY * 3);
    assert!(bench.channel(1).is_err(), "also when the clock is back there");
    bench.clock.advance(DAY);
    bench.channel(900).unwrap().settle(Outcome::Unknown(Tokens::default()));
    // It had run ten years ahead, and the operator says so.
    bench.clock.advance(DAY * 3650);
    bench.channel(10).unwrap().settle(Outcome::Unknown(Tokens::default()));
    let right = SimulatedClock::starting_at(NOON.plus(DAY * 2));
    let ledger =
        Ledger::open(bench.ledger.db().clone(), right.clone(), rules(tokens_a_day(1_000), &[])).unwrap();
    let bench = Bench { ledger, clock: right.clone(), ..bench };
    bench.channel(10).unwrap().settle(Outcome::Unknown(Tokens::default()));
    let (_, ahead) = bench.ledger.db().read(|c| standings(c, &config(), right.now())).unwrap();
    assert!(ahead.is_some());
    let now = right.now();
    assert_eq!(bench.ledger.db().write(move |connection| redate(connection, now)).unwrap(), 2);
    bench.sums_agree();
    assert!(bench.channel(700).is_err(), "they count today");
    assert!(bench.channel(600).is_ok());
}

fn config() -> Config {
    struct Nothing;
    impl crate::config::Environment for Nothing {
        fn variable(&self, _name: &str) -> Option<String> {
            None
        }
    }
    crate::config::load(None, &Nothing).unwrap().config
}

/// What onlookers have heard since the last look.
fn heard(onlooker: &Onlooker) -> Vec<String> {
    let text = |seen: Seen| match seen {
        Seen::Notice(notice) => format!("{}: {}", notice.about, notice.text),
        other => panic!("{other:?}"),
    };
    onlooker.look(usize::MAX).into_iter().map(text).collect()
}

#[test]
fn who_looks_on_hears_of_a_ceiling_once_in_a_period_also_over_a_restart() {
    let Bench { _folder, clock, ledger } =
        bench(rules(tokens_a_day(1_000), &[("main", tokens_a_day(100_000))]));
    let onlookers = Arc::new(Onlookers::default());
    ledger.tell_to(onlookers.clone());
    let onlooker = onlookers.join(Interest::default()).unwrap();
    let strained = |ledger: &Ledger| -> Vec<_> {
        let told =
            |one: Strained| format!("{}, {}: {} % of {}", one.owner, one.period, one.percent, one.unit);
        ledger.strained(Some(&AgentId::new("main"))).into_iter().map(told).collect()
    };
    let ask = |ledger: &Ledger, input_most| {
        let payer = Payer::new(AgentId::new("main"), ProcessKind::Channel);
        let wanted = Wanted { payer: &payer, model: PRICED, input_most, input_least: 1, output_most: None };
        ledger.authorise(&wanted).map(|permit| permit.settle(Outcome::Unknown(Tokens::default())))
    };
    ask(&ledger, 649).unwrap();
    assert_eq!(strained(&ledger), [] as [&str; 0], "749 of 1000");
    ask(&ledger, 1).unwrap();
    assert_eq!(heard(&onlooker), [] as [&str; 0], "it is noticed with the next call");
    assert_eq!(strained(&ledger), ["the daemon, day: 85 % of tokens"], "and seen by who asks before");
    assert_eq!(ledger.strained(None), ledger.strained(Some(&AgentId::new("main"))));
    ask(&ledger, 2).unwrap();
    assert_eq!(
        heard(&onlooker),
        ["budget: 850 tokens of the 1000 tokens that the daemon may use in a day are used"]
    );
    for _ in 0..2 {
        ask(&ledger, 900).unwrap_err();
    }
    let refusal = heard(&onlooker);
    assert_eq!(refusal.len(), 1, "{refusal:?}");
    assert!(
        refusal[0].starts_with("budget: calls are refused from now on: the day of the daemon allows"),
        "{refusal:?}"
    );

    let restarted =
        Ledger::open(ledger.db().clone(), clock.clone(), rules(tokens_a_day(1_000), &[])).unwrap();
    restarted.tell_to(onlookers.clone());
    ask(&restarted, 900).unwrap_err();
    assert_eq!(heard(&onlooker), [] as [&str; 0], "that was told before");
    assert_eq!(strained(&restarted), ["the daemon, day: 95 % of tokens"]);
    clock.advance(DAY);
    assert_eq!(strained(&restarted), [] as [&str; 0]);
    for _ in 0..2 {
        ask(&restarted, 650).ok();
    }
    assert_eq!(heard(&onlooker).len(), 2, "the next day has its own");
}

#[test]
fn the_operator_is_told_once_in_a_period() {
    let bench = bench(rules(tokens_a_day(1_000), &[]));
    bench.channel(650).unwrap().settle(Outcome::Unknown(Tokens::default()));
    let told = || bench.one::<i64>("SELECT count(*) FROM budget_notices");
    assert_eq!(told(), 0);
    for _ in 0..3 {
        bench.channel(10).unwrap().settle(Outcome::Free);
    }
    assert_eq!(told(), 1, "three quarters are used");
    for _ in 0..3 {
        assert!(bench.channel(900).is_err());
    }
    assert_eq!(told(), 2, "and a call was refused");
    bench.clock.advance(DAY);
    bench.channel(650).unwrap().settle(Outcome::Unknown(Tokens::default()));
    bench.channel(10).unwrap().settle(Outcome::Free);
    assert_eq!(told(), 3, "the next day has its own");
}

#[test]
fn new_ceilings_hold_from_the_next_call_on() {
    let bench = bench(rules(tokens_a_day(1_000), &[]));
    bench.channel(850).unwrap().settle(Outcome::Unknown(Tokens::default()));
    assert!(bench.channel(100).is_err());
    let cheap = Exhausted::Model("p/cheap".to_owned());
    bench.ledger.set_rules(rules(BudgetConfig { when_exhausted: cheap.clone(), ..tokens_a_day(1_100) }, &[]));
    bench.channel(50).unwrap().settle(Outcome::Unknown(Tokens::default()));
    assert_eq!(bench.channel(1).err().unwrap().then, cheap);
    bench.ledger.set_rules(rules(BudgetConfig::default(), &[]));
    assert!(bench.channel(1_000_000).is_ok());
}

#[test]
fn rows_are_kept_for_so_long_and_no_longer() {
    let bench = bench(rules(BudgetConfig::default(), &[]));
    for _ in 0..3 {
        bench.channel(10).unwrap().settle(billed(5, 5));
    }
    bench.clock.advance(DAY * 400);
    bench.channel(10).unwrap().settle(billed(5, 5));
    assert_eq!(bench.rows().len(), 4);
    bench.clock.advance(DAY);
    bench.channel(10).unwrap().settle(billed(5, 5));
    assert_eq!(bench.rows().len(), 2);
    bench.sums_agree();
}

#[test]
fn the_report_adds_up_by_each_key() {
    let bench = bench(rules(BudgetConfig { day_nano: Some(1_000_000_000), ..BudgetConfig::default() }, &[]));
    bench.channel(160).unwrap().settle(billed(100, 20));
    bench.ask("main", ProcessKind::Branch, PRICED, 160).unwrap().settle(Outcome::Unknown(Tokens::default()));
    bench.clock.advance(DAY);
    bench.ask("other", ProcessKind::Channel, PRICED, 160).unwrap().settle(billed(50, 5));
    let by = |by| {
        let lines = bench.ledger.db().read(|connection| report(connection, by, 20_261_101)).unwrap();
        lines.into_iter().map(|line| (line.key, line.calls, line.input, line.output)).collect::<Vec<_>>()
    };
    let line = |key: &str, calls, input, output| (key.to_owned(), calls, input, output);
    assert_eq!(by(By::Day), [line("20261121", 2, 100, 20), line("20261122", 1, 50, 5)]);
    assert_eq!(by(By::Model), [line(PRICED, 3, 150, 25)]);
    assert_eq!(by(By::Agent), [line("main", 2, 100, 20), line("other", 1, 50, 5)]);
    assert_eq!(by(By::Process), [line("branch", 1, 0, 0), line("channel", 2, 150, 25)]);
    assert_eq!(by(By::Conversation), [line("-", 3, 150, 25)]);
    let since = bench.ledger.db().read(|connection| report(connection, By::Day, 20_261_122)).unwrap();
    assert_eq!((since.len(), since[0].charged_nano), (1, 50 * 1_000 + 5 * 10_000));
}

#[test]
fn days_and_months_are_those_of_utc() {
    let cases = [
        ("2026-11-21T00:00:00Z", 20_261_121),
        ("2026-11-21T23:59:59Z", 20_261_121),
        ("2026-11-22T00:30:00+02:00", 20_261_121),
        ("1970-01-01T00:00:00Z", 19_700_101),
    ];
    for (text, wanted) in cases {
        assert_eq!(period::day(Timestamp::parse_rfc3339(text).unwrap()), wanted, "{text}");
    }
    assert_eq!(period::Period::Month.days(20_261_121), (20_261_100, 20_261_199));
}
