//! The accounts of the daemon: what every request to a model took and cost, and whether the next one may be
//! sent. docs/BUDGET.md tells the rules.
//!
//! [`Ledger`] is the meter that `llm` asks before each request. Where a ceiling holds, the most that the request
//! can come to is booked first, in the one transaction that compares it with the ceilings, and the fsync of that
//! transaction comes before the first byte leaves. Where none does, the row is written afterwards and lazily.

mod ceiling;
mod ledger;
mod period;
pub mod prices;
mod report;
mod slip;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crate::billing::{Exhausted, Meter, Permit, Refused, Strained, Wanted};
use crate::clock::{SharedClock, Timestamp};
use crate::config::{BudgetConfig, Config};
use crate::db::{Db, DbError};
use crate::error::log_line;
use crate::id::AgentId;
use crate::onlookers::{Notice, Onlookers};
use crate::thread::Current;

pub use ceiling::Unit;
pub use ledger::{cost_of_process, redate};
pub use report::{By, Line, Standing, report, standings};

use ceiling::{Budget, Refusal};
use prices::Prices;
use report::standings_of;
use slip::{Entry, Slip};

/// How long rows are kept, in days: a year and what is needed to compare it with the one before. At most
/// [`ROWS_MAX`] of them, and sums as long. Older ones go with the first row of a day.
pub const KEEP_DAYS: u64 = 400;
/// Some 40 MB; on the busiest day of every year a Pi makes a few hundred calls an hour.
pub const ROWS_MAX: i64 = 250_000;

/// What the operator wrote about money.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    prices: Prices,
    daemon: BudgetConfig,
    agents: BTreeMap<AgentId, BudgetConfig>,
}

impl Rules {
    pub fn of(config: &Config) -> Self {
        Self {
            prices: Prices::new(&config.prices),
            daemon: config.budget.clone(),
            agents: config.agents.iter().map(|agent| (agent.id.clone(), agent.budget.clone())).collect(),
        }
    }

    /// The ceilings that hold for calls of this agent, or of any.
    fn of_agents(&self, agent: Option<&AgentId>) -> Vec<Budget> {
        let Some(agent) = agent else {
            let mut all = Vec::new();
            for budget in self.agents.keys().flat_map(|agent| self.budgets(agent)) {
                if !all.iter().any(|known: &Budget| known.owner == budget.owner) {
                    all.push(budget);
                }
            }
            return all;
        };
        self.budgets(agent)
    }

    /// The ceilings that hold for calls of this agent.
    fn budgets(&self, agent: &AgentId) -> Vec<Budget> {
        let daemon = Budget { owner: None, config: self.daemon.clone() };
        let own = self
            .agents
            .get(agent)
            .map(|config| Budget { owner: Some(agent.clone()), config: config.clone() });
        std::iter::once(daemon).chain(own).filter(|budget| budget.config.binds()).collect()
    }
}

/// The accounts; clones are the same accounts.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    db: Db,
    clock: SharedClock,
    rules: Current<Rules>,
    /// Who hears of ceilings besides the log.
    onlookers: OnceLock<Arc<Onlookers>>,
}

impl Ledger {
    /// Of the instance's database. What was under way when the daemon was killed is charged in full from here on.
    ///
    /// # Errors
    /// The database cannot be read or written.
    pub fn open(db: Db, clock: SharedClock, rules: Rules) -> Result<Self, DbError> {
        let cut_off = ledger::close_open(&db)?;
        if cut_off > 0 {
            log::warn!(
                "{cut_off} model calls were under way when the daemon stopped; they are charged in full"
            );
        }
        let (rules, onlookers) = (Current::new(rules), OnceLock::new());
        Ok(Self(Arc::new(Inner { db, clock, rules, onlookers })))
    }

    /// Who looks on hears from now on what the operator is to know about ceilings.
    pub fn tell_to(&self, onlookers: Arc<Onlookers>) {
        // The first ones stay.
        self.0.onlookers.set(onlookers).ok();
    }

    /// For the calls that begin from now on.
    pub fn set_rules(&self, rules: Rules) {
        self.0.rules.set(rules);
    }

    pub fn db(&self) -> &Db {
        &self.0.db
    }
}

impl Meter for Ledger {
    fn authorise(&self, wanted: &Wanted<'_>) -> Result<Box<dyn Permit>, Refused> {
        let rules = self.0.rules.get();
        let budgets = rules.budgets(&wanted.payer.agent);
        let price = rules.prices.of(wanted.model);
        let limits = budgets.iter().map(|budget| budget.config.output_most);
        let output_most = wanted.output_most.or_else(|| limits.min());
        let entry = Entry::new(wanted, price, output_most.unwrap_or(rules.daemon.output_most));
        let Some(output_most) = output_most.filter(|_| !budgets.is_empty()) else {
            return Ok(Box::new(Slip::unreserved(self.0.clone(), entry)));
        };
        if price.is_none()
            && let Some(budget) = budgets.iter().find(|budget| budget.is_blind())
        {
            let reason = format!(
                "{} has no price, and {} has a ceiling in money only: set [llm.prices.\"{}\"], or a ceiling in tokens",
                wanted.model,
                budget.name(),
                wanted.model
            );
            return Err(Refused { reason, then: budget.config.when_exhausted.clone() });
        }
        let (booked, now) = (entry.clone(), self.0.clock.now());
        let reserved = self.0.db.write(move |connection| ledger::reserve(connection, &booked, &budgets, now));
        let reserved = reserved.map(|booked| {
            booked.news.into_iter().for_each(|(refuses, text)| self.0.tell(refuses, text));
            booked.row
        });
        match reserved {
            Ok(Ok(row)) => Ok(Box::new(Slip::reserved(self.0.clone(), entry, row, output_most))),
            Ok(Err(Refusal { reason, then })) => Err(Refused { reason, then }),
            // Without a booked row nobody could say afterwards what was spent.
            Err(error) => Err(Refused {
                reason: format!("the call cannot be booked: {}", log_line(&error)),
                then: Exhausted::Refuse,
            }),
        }
    }

    fn strained(&self, agent: Option<&AgentId>) -> Vec<Strained> {
        let budgets = self.0.rules.get().of_agents(agent);
        if budgets.is_empty() {
            return Vec::new();
        }
        let now = self.0.clock.now();
        let standings = self.0.db.read(|connection| {
            let day = period::day(booking_time(now, ledger::ahead(connection, now)?));
            standings_of(connection, budgets, day)
        });
        let standings = standings.unwrap_or_else(|error| {
            log::error!("what is left of ceilings cannot be read: {}", log_line(&error));
            Vec::new()
        });
        let strained = standings.into_iter().filter(|standing| standing.strained);
        let told = |Standing { owner, period, unit, percent, .. }| Strained {
            owner,
            period,
            unit: unit.name(),
            percent,
        };
        strained.map(told).collect()
    }
}

impl Inner {
    /// After the commit that says that it was told.
    fn tell(&self, refuses: bool, text: String) {
        let level = if refuses { log::Level::Error } else { log::Level::Warn };
        log::log!(level, "budget: {text}");
        if let Some(onlookers) = self.onlookers.get() {
            onlookers.announce(Notice { about: "budget", text });
        }
    }

    /// May be lost with the power; a reservation that it would have made smaller then stands in full.
    fn write_lazily(&self, slip: slip::Settled) {
        let now = self.clock.now();
        let put =
            |slip: slip::Settled| self.db.defer(move |connection| ledger::settle(connection, &slip, now));
        let written = put(slip.clone()).or_else(|error| match error {
            DbError::QueueFull => self.db.write(move |connection| ledger::settle(connection, &slip, now)),
            error => Err(error),
        });
        if let Err(error) = written {
            log::error!("the usage of a model call was not recorded: {}", log_line(&error));
        }
    }
}

/// The time that new rows get: never earlier than the last one, so that a clock which goes back opens no day again.
fn booking_time(now: Timestamp, last: Option<Timestamp>) -> Timestamp {
    last.map_or(now, |last| last.max(now))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
