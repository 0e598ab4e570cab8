//! What models bill by their own count, and what is expected of the accounts (P6): the most that a call can come to
//! is booked before it is made, what was billed stands there afterwards, a crash leaves the whole of it, no ceiling
//! is passed, and nothing is refused that fits.

#![allow(unreachable_pub)] // one of the parts of one test

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rig_core::completion::CompletionRequest;
use spacebot::billing::{Meter, Permit, Refused, Wanted};
use spacebot::clock::{Clock, SimulatedClock};
use spacebot::db::rusqlite::{Connection, OptionalExtension, params};
use spacebot::db::{Db, DbError, Schema};
use spacebot::usage::{Ledger, Rules};

use crate::ceilings::{self, Amount, Booked, Ceilings, Price};
use crate::disk::Disk;
use crate::fault::Fault;
use crate::local_model::Say;
use crate::random::Random;
use crate::start::Ground;
use crate::watch::Running;

/// No tokenizer puts so many characters into one token; a report that says so is not believed.
const CHARACTERS_MOST: u64 = 16;

/// The output of a request that carries no limit.
const ENDLESS: u64 = 1 << 40;

/// What stands in the row of a call afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// What its provider has billed, or nothing.
    Exactly(&'static str, Amount),
    /// All that it could come to.
    Most,
}

/// A call that a model was asked for.
#[derive(Debug)]
struct Call {
    row: i64,
    day: i64,
    agent: String,
    price: Price,
    /// Bytes of the request, and the limit of output that it carries.
    input_most: u64,
    output_most: u64,
    booked: Amount,
    life: usize,
}

#[derive(Default)]
struct State {
    ledger: Option<Ledger>,
    ceilings: Ceilings,
    lives: usize,
    /// The rows of the calls that models were asked for.
    rows: BTreeSet<i64>,
    /// Calls whose rows have not been looked at since.
    ended: Vec<(Call, Expected)>,
    /// By day and agent.
    billed: BTreeMap<(i64, String), Amount>,
    broken: Vec<String>,
    counts: BTreeMap<&'static str, usize>,
}

pub struct Accounts {
    clock: Arc<SimulatedClock>,
    random: Mutex<Random>,
    state: Mutex<State>,
}

/// The production ledger; each of its refusals is looked into.
struct Watched {
    ledger: Ledger,
    accounts: Arc<Accounts>,
    disk: Arc<Disk>,
}

impl Meter for Watched {
    fn authorise(&self, wanted: &Wanted<'_>) -> Result<Box<dyn Permit>, Refused> {
        let done = self.ledger.authorise(wanted);
        let works = !self.disk.crashed.load(Ordering::SeqCst) && !self.disk.full.load(Ordering::SeqCst);
        if let Err(refused) = &done
            && works
        {
            self.accounts.refused(wanted, refused);
        }
        done
    }
}

impl Accounts {
    pub fn new(seed: u64, clock: Arc<SimulatedClock>) -> Arc<Self> {
        let mut random = Random(seed ^ 0x3333);
        let state = State { ceilings: Ceilings::draw(&mut random), ..State::default() };
        Arc::new(Self { clock, random: Mutex::new(random), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn random(&self) -> MutexGuard<'_, Random> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A life of the daemon begins.
    pub fn begin(self: &Arc<Self>, ground: &Ground, disk: &Arc<Disk>) -> Arc<dyn Meter> {
        let file = ground.folder.join("global.db");
        let db = Db::open_inline_as(&file, Schema::Instance, Some(disk.clone()))
            .expect("the accounts open after every crash");
        let mut state = self.state();
        let ledger = Ledger::open(db, self.clock.clone(), state.ceilings.rules()).expect("accounts");
        state.ledger = Some(ledger.clone());
        state.lives += 1;
        Arc::new(Watched { ledger, accounts: self.clone(), disk: disk.clone() })
    }

    /// The operator raises some ceiling.
    pub fn raise(&self) {
        let mut state = self.state();
        state.ceilings.raise(&mut self.random());
        let rules: Rules = state.ceilings.rules();
        state.ledger.as_ref().expect("a life").set_rules(rules);
    }

    /// A model is asked: what this can come to must be on disk.
    pub fn asked(
        self: &Arc<Self>,
        model: &str,
        running: &Running,
        request: &CompletionRequest,
    ) -> Option<Bill> {
        let mut state = self.state();
        let (agent, number) = (running.agent.to_string(), running.process.number);
        let day = ceilings::day(self.clock.now());
        let booked = read(&state, |connection| newest(connection, &agent, number));
        let bytes = serde_json::to_vec(request).expect("json").len() as u64;
        let (price, limit) = (Price::of(model), request.max_tokens.unwrap_or(ENDLESS));
        let most = price.amount(bytes, limit);
        let wrong = match &booked {
            Some((row, "open", of, amount)) if state.rows.insert(*row) && *of == day => amount
                .less_than(most)
                .then(|| format!("{amount:?} are booked for a call that can take {most:?}")),
            other => Some(format!("before it nothing is booked for it, but {other:?} is the last")),
        };
        if let Some(wrong) = wrong {
            state.broken.push(format!("P6: {} asks {model}, and {wrong}", running.caller()));
        }
        let (row, _, day, booked) = booked?;
        let life = state.lives;
        let call = Call { row, day, agent, price, input_most: bytes, output_most: limit, booked, life };
        Some(Bill { accounts: self.clone(), running: running.clone(), call: Some(call) })
    }

    /// Nothing is refused that fits.
    fn refused(&self, wanted: &Wanted<'_>, refused: &Refused) {
        let mut state = self.state();
        *state.counts.entry("calls over the budget").or_default() += 1;
        let price = Price::of(wanted.model);
        let most = price.amount(wanted.input_most, wanted.output_most.unwrap_or(ceilings::OUTPUT_MOST));
        let day = ceilings::day(self.clock.now());
        let agent = wanted.payer.agent.as_str();
        let booked = read(&state, totals);
        let fits = state
            .ceilings
            .all()
            .iter()
            .all(|ceiling| ceiling.leaves_room(&booked, day, agent, wanted.payer.background, most));
        if fits {
            state.broken.push(format!("P6: a call that fits is refused: {refused:?}"));
        }
    }

    /// Between two calls.
    pub fn check(&self) -> Result<(), String> {
        let mut state = self.state();
        if state.ledger.is_none() {
            return Ok(());
        }
        for (call, expected) in std::mem::take(&mut state.ended) {
            let found = read(&state, |connection| row(connection, call.row));
            let cut_off = call.life < state.lives;
            let fits = match (found, expected) {
                (Some((told, charged)), Expected::Exactly(wanted, amount)) if told == wanted => {
                    charged == amount
                }
                (Some(("unknown", charged)), _) if cut_off || expected == Expected::Most => {
                    charged == call.booked
                }
                _ => false,
            };
            if !fits {
                return Err(format!("P6: {expected:?} is expected of {call:?}, {found:?} stands there"));
            }
            if let (Some(("unknown", _)), Expected::Exactly(..)) = (found, expected) {
                *state.counts.entry("reservations that stood").or_default() += 1;
            }
        }
        let (open, booked) = read(&state, |connection| {
            let open = "SELECT count(*) FROM token_usage WHERE state = 'open'";
            Ok((connection.query_row(open, [], |row| row.get::<_, i64>(0))?, totals(connection)?))
        });
        if open > 0 {
            return Err(format!("P6: {open} calls are open, and none is under way"));
        }
        for ceiling in state.ceilings.all() {
            ceiling.holds(&booked, &state.billed)?;
        }
        for ((day, agent), billed) in &state.billed {
            let both = [false, true].map(|background| (*day, agent.clone(), background));
            let charged: Amount = both.iter().filter_map(|key| booked.get(key)).copied().sum();
            if charged.less_than(*billed) {
                return Err(format!("P6: {agent} was billed {billed:?} on {day}, {charged:?} are charged"));
            }
        }
        state.broken.first().map_or(Ok(()), |broken| Err(broken.clone()))
    }

    /// `crashes`: each may have left a row of a call that was never made.
    pub fn check_end(&self, crashes: usize) -> Result<(), String> {
        self.check()?;
        let state = self.state();
        if state.ledger.is_none() {
            return Ok(());
        }
        let (rows, sums, each) = read(&state, |connection| {
            let count = "SELECT count(*) FROM token_usage";
            let of = |table: &str| format!("SELECT coalesce(sum({table}), 0) FROM");
            let sums = format!("{} token_totals", of("tokens"));
            let each = format!("{} token_usage", of("charged_tokens"));
            let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
            Ok((number(count)?, number(&sums)?, number(&each)?))
        });
        let rows = usize::try_from(rows).expect("rows");
        if rows < state.rows.len() || rows - state.rows.len() > crashes {
            return Err(format!("P6: {} calls and {crashes} crashes have {rows} rows", state.rows.len()));
        }
        if sums == each { Ok(()) } else { Err(format!("P6: the rows come to {each}, the sums to {sums}")) }
    }

    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let state = self.state();
        let mut counts = state.counts.clone();
        counts.insert("calls in the accounts", state.rows.len());
        counts
    }
}

/// A call that is under way. What breaks off has been billed too.
pub struct Bill {
    accounts: Arc<Accounts>,
    running: Running,
    call: Option<Call>,
}

impl Bill {
    /// With what is reported of it.
    pub fn answers(mut self, answer: Result<Vec<Say>, Fault>) -> Result<Vec<Say>, Fault> {
        let Some(call) = self.call.take() else { return answer };
        let nothing = Amount::default();
        match answer {
            // Whoever stops a call does not hear what it has come to.
            answer if self.running.cancel.is_cancelled() => {
                self.end_unknown(call);
                answer
            }
            Ok(mut said) => {
                let report = self.report(&call, &said);
                said.push(Say::Took(report.input, report.output));
                self.end(call, report.billed, Expected::Exactly("billed", report.charged));
                Ok(said)
            }
            Err(fault @ Fault::Status(..)) => {
                self.end(call, nothing, Expected::Exactly("free", nothing));
                Err(fault)
            }
            Err(fault) => {
                self.end_unknown(call);
                Err(fault)
            }
        }
    }

    /// What the provider says is mostly the truth.
    fn report(&self, call: &Call, said: &[Say]) -> Report {
        let mut random = self.accounts.random();
        let least = said.iter().map(length).sum::<u64>() / CHARACTERS_MOST;
        let input = call.input_most / 8 + random.below(call.input_most - call.input_most / 8 + 1);
        let output = (least + 1 + random.below(call.output_most / 4)).min(call.output_most);
        let billed = call.price.amount(input, output);
        let rest = call.price.amount(0, call.output_most - output);
        match random.below(10) {
            0 => Report { input: None, output: None, billed, charged: call.booked },
            // Nobody believes that.
            1 => Report { input: Some(0), output: Some(output), billed, charged: call.booked.without(rest) },
            _ => Report { input: Some(input), output: Some(output), billed, charged: billed },
        }
    }

    /// It may have billed anything that it could.
    fn end_unknown(&self, call: Call) {
        let mut random = self.accounts.random();
        let input = random.below(call.input_most + 1);
        let billed = call.price.amount(input, random.below(call.output_most + 1));
        drop(random);
        self.end(call, billed, Expected::Most);
    }

    fn end(&self, call: Call, billed: Amount, expected: Expected) {
        let mut state = self.accounts.state();
        *state.billed.entry((call.day, call.agent.clone())).or_default() += billed;
        state.ended.push((call, expected));
    }
}

struct Report {
    input: Option<u64>,
    output: Option<u64>,
    billed: Amount,
    charged: Amount,
}

impl Drop for Bill {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            self.end_unknown(call);
        }
    }
}

fn length(say: &Say) -> u64 {
    match say {
        Say::Text(text) => text.chars().count() as u64,
        Say::Call(_, _, arguments) => arguments.chars().count() as u64,
        Say::Took(..) | Say::BreaksOff => 0,
    }
}

fn read<T>(state: &State, work: impl FnOnce(&Connection) -> Result<T, DbError>) -> T {
    state.ledger.as_ref().expect("a life").db().read(work).expect("read")
}

fn state_name(name: &str) -> &'static str {
    ["open", "billed", "unknown", "free"].into_iter().find(|known| *known == name).expect("a state")
}

/// The last row of a process: its number, state, day, and what is charged.
type Newest = Option<(i64, &'static str, i64, Amount)>;

fn newest(connection: &Connection, agent: &str, process: u64) -> Result<Newest, DbError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, state, day, charged_tokens, charged_nano FROM token_usage
         WHERE agent_id = ?1 AND process_number = ?2 ORDER BY id DESC LIMIT 1",
    )?;
    let found = statement.query_row(params![agent, i64::try_from(process).expect("small")], |row| {
        let amount = Amount { tokens: row.get(3)?, nano: row.get(4)? };
        Ok((row.get(0)?, state_name(&row.get::<_, String>(1)?), row.get(2)?, amount))
    });
    Ok(found.optional()?)
}

fn row(connection: &Connection, id: i64) -> Result<Option<(&'static str, Amount)>, DbError> {
    let mut statement = connection
        .prepare_cached("SELECT state, charged_tokens, charged_nano FROM token_usage WHERE id = ?1")?;
    let found = statement.query_row([id], |row| {
        let amount = Amount { tokens: row.get(1)?, nano: row.get(2)? };
        Ok((state_name(&row.get::<_, String>(0)?), amount))
    });
    Ok(found.optional()?)
}

/// What is charged or booked by day, agent, and whether nobody waits for it.
fn totals(connection: &Connection) -> Result<Booked, DbError> {
    let mut statement =
        connection.prepare_cached("SELECT day, agent_id, background, tokens, nano FROM token_totals")?;
    let rows = statement.query_map([], |row| {
        let amount = Amount { tokens: row.get(3)?, nano: row.get(4)? };
        Ok(((row.get(0)?, row.get(1)?, row.get(2)?), amount))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
