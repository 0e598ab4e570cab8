//! Ceilings and prices of a simulation, and its own arithmetic about them.

#![allow(unreachable_pub)] // one of the parts of one test

use std::collections::BTreeMap;
use std::iter::Sum;
use std::ops::AddAssign;

use spacebot::billing::Exhausted;
use spacebot::clock::{Timestamp, Zone};
use spacebot::config::{AgentConfig, BudgetConfig, Config, Environment, PriceConfig};
use spacebot::id::AgentId;
use spacebot::usage::Rules;

use crate::random::Random;
use crate::start::{main_agent, other_agent};

/// The limit of output of one request.
pub const OUTPUT_MOST: u64 = 2_000;
/// Models with what a token of input and of output costs, in billionths of a dollar. The last is asked where a ceiling
/// leaves no room for the others.
const PRICES: [(&str, u64, u64); 3] =
    [("sim/a", 1_000, 10_000), ("sim/b", 2_000, 8_000), (CHEAPER, 100, 500)];
pub const CHEAPER: &str = "sim/c";

/// By day, agent, and whether nobody waits for it.
pub type Booked = BTreeMap<(i64, String, bool), Amount>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    pub tokens: u64,
    /// Billionths of a dollar.
    pub nano: u64,
}

impl Amount {
    /// On some side.
    pub fn less_than(self, other: Self) -> bool {
        self.tokens < other.tokens || self.nano < other.nano
    }

    pub fn without(self, other: Self) -> Self {
        Self { tokens: self.tokens - other.tokens, nano: self.nano - other.nano }
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.nano += other.nano;
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), |mut sum, amount| {
            sum += amount;
            sum
        })
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Price {
    input: u64,
    output: u64,
}

impl Price {
    pub fn of(model: &str) -> Self {
        let (_, input, output) = PRICES.into_iter().find(|(name, ..)| *name == model).expect("a price");
        Self { input, output }
    }

    pub fn amount(self, input: u64, output: u64) -> Amount {
        Amount { tokens: input + output, nano: input * self.input + output * self.output }
    }
}

/// `YYYYMMDD`, of UTC.
pub fn day(at: Timestamp) -> i64 {
    at.to_rfc3339()[..10].replace('-', "").parse().expect("a day")
}

#[derive(Debug, Clone)]
pub struct Ceiling {
    /// None: the daemon.
    owner: Option<AgentId>,
    is_month: bool,
    is_money: bool,
    most: u64,
    /// Hundredths for what nobody waits for.
    share: u64,
}

impl Ceiling {
    fn counts(&self, amount: Amount) -> u64 {
        if self.is_money { amount.nano } else { amount.tokens }
    }

    fn period(&self, day: i64) -> i64 {
        if self.is_month { day / 100 } else { day }
    }

    fn is_of(&self, agent: &str) -> bool {
        self.owner.as_ref().is_none_or(|owner| owner.as_str() == agent)
    }

    /// Booked in this period, in all or only what nobody waits for.
    fn spent(&self, booked: &Booked, period: i64, behind: bool) -> u64 {
        let mine = booked.iter().filter(|((day, agent, background), _)| {
            self.period(*day) == period && self.is_of(agent) && (*background || !behind)
        });
        mine.map(|(_, amount)| self.counts(*amount)).sum()
    }

    pub fn leaves_room(&self, booked: &Booked, day: i64, agent: &str, behind: bool, most: Amount) -> bool {
        let period = self.period(day);
        let all = self.spent(booked, period, false) + self.counts(most) <= self.most;
        let share = self.spent(booked, period, true) + self.counts(most) <= self.most * self.share / 100;
        !self.is_of(agent) || all && (share || !behind)
    }

    /// Neither what is booked nor what was billed is more than it.
    pub fn holds(&self, booked: &Booked, billed: &BTreeMap<(i64, String), Amount>) -> Result<(), String> {
        for period in booked.keys().map(|(day, ..)| self.period(*day)) {
            let (all, behind) = (self.spent(booked, period, false), self.spent(booked, period, true));
            if all > self.most || behind > self.most * self.share / 100 {
                return Err(format!(
                    "P6: {all}, of it {behind} in the background, are booked below {self:?}"
                ));
            }
            let billed =
                billed.iter().filter(|((day, agent), _)| self.period(*day) == period && self.is_of(agent));
            let billed: u64 = billed.map(|(_, amount)| self.counts(*amount)).sum();
            if billed > self.most {
                return Err(format!("P6: {billed} are billed below {self:?}"));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Default)]
pub struct Ceilings {
    all: Vec<Ceiling>,
    when_exhausted: Exhausted,
}

impl Ceilings {
    /// So low that most worlds come up to them.
    pub fn draw(random: &mut Random) -> Self {
        let when_exhausted = match random.below(3) {
            0 => Exhausted::Refuse,
            1 => Exhausted::Offline,
            _ => Exhausted::Model(CHEAPER.to_owned()),
        };
        let share = if random.chance(50) { 25 } else { 100 };
        let mut all = Vec::new();
        for owner in [None, Some(main_agent()), Some(other_agent())] {
            for (is_month, is_money) in [(false, false), (false, true), (true, false), (true, true)] {
                if !random.chance(30) {
                    continue;
                }
                let calls = 4 + random.below(60);
                let most = calls * if is_money { 30_000_000 } else { 20_000 };
                all.push(Ceiling { owner: owner.clone(), is_month, is_money, most, share });
            }
        }
        // Where none holds for an agent, nothing is booked before its calls.
        if all.iter().all(|ceiling: &Ceiling| ceiling.owner.is_some()) {
            all.push(Ceiling { owner: None, is_month: false, is_money: true, most: 500_000_000, share });
        }
        Self { all, when_exhausted }
    }

    pub fn all(&self) -> &[Ceiling] {
        &self.all
    }

    pub fn raise(&mut self, random: &mut Random) {
        let index = usize::try_from(random.below(self.all.len() as u64)).expect("index");
        self.all[index].most *= 2;
    }

    pub fn rules(&self) -> Rules {
        struct Nothing;
        impl Environment for Nothing {
            fn variable(&self, _name: &str) -> Option<String> {
                None
            }
        }
        let mut config: Config = spacebot::config::load(None, &Nothing).expect("defaults").config;
        config.budget = self.budget(None);
        config.agents = [main_agent(), other_agent()]
            .map(|id| {
                let budget = self.budget(Some(&id));
                AgentConfig { budget, ..AgentConfig::new(id, "Sim", Zone::utc()) }
            })
            .into();
        config.prices = PRICES
            .map(|(model, input, output)| {
                let price = spacebot::config::Price {
                    input: input * 1_000,
                    output: output * 1_000,
                    cache_read: None,
                    cache_write: None,
                };
                PriceConfig { model: model.to_owned(), price }
            })
            .into();
        Rules::of(&config)
    }

    fn budget(&self, owner: Option<&AgentId>) -> BudgetConfig {
        let mine = || self.all.iter().filter(|ceiling| ceiling.owner.as_ref() == owner);
        let most = |is_month, is_money| {
            let mut found = mine().filter(|one| (one.is_month, one.is_money) == (is_month, is_money));
            found.next().map(|ceiling| ceiling.most)
        };
        #[allow(clippy::cast_precision_loss)] // hundredths
        let background_share = mine().next().map_or(1.0, |ceiling| ceiling.share as f64 / 100.0);
        BudgetConfig {
            day_tokens: most(false, false),
            day_nano: most(false, true),
            month_tokens: most(true, false),
            month_nano: most(true, true),
            background_share,
            when_exhausted: self.when_exhausted.clone(),
            output_most: OUTPUT_MOST,
            ..BudgetConfig::default()
        }
    }
}
