//! Models: which one a process talks to, and what happens when it does not answer.
//!
//! Wire formats are Rig's. Ours are routing, retries, fallback, cool-down, the stop within a call and
//! the hiding of keys. [`LlmManager`] is built once; each process gets a [`SpacebotModel`] from it,
//! whose one method [`SpacebotModel::call`] walks the chain: the model of the process, the fallbacks,
//! and last the offline responder.

mod again;
pub mod attached;
mod attempt;
mod cache_marks;
mod chain;
mod classify;
mod delta;
mod error;
mod gates;
mod health;
mod lines;
mod link;
pub mod media;
mod metered;
pub mod offline;
mod provider;
pub mod reach;
pub mod repair;
mod reported;
mod sessions;
mod thinking;
pub mod tokens;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rig_core::DynModel;
use rig_core::operation::Completion;

use crate::billing::{Meter, Payer, Strained};
use crate::clock::SharedClock;
use crate::config::{Config, LlmConfig, OFFLINE_MODEL, ProviderConfig, RoutingConfig};
use crate::http::transport::Network;
use crate::id::{AgentId, ConversationId, ProcessKind};

pub use again::{RETRIES_MAX, RETRY_AFTER_MAX};
pub use chain::{Reply, SpacebotModel};
pub use delta::Delta;
pub use error::{Failure, LlmError};
pub use health::Lost;

use crate::secrets::Scrubber;
use crate::thread::lock;
use chain::Shared;
use gates::Gates;
use health::Health;
use lines::{Cast, Lines};
use link::Link;
use metered::Account;
use provider::Providers;
use sessions::Sessions;
use tokens::Calibration;

/// First wait before the same model is asked again; each further wait is twice as long.
pub const RETRY_DELAY: Duration = Duration::from_millis(500);
/// Longest silence within one answer where the configuration names none.
pub const READ_WAIT_MAX: Duration = Duration::from_secs(90);
/// Models of conversations that are told to be unknown; after so many the operator has heard enough.
const TOLD_UNKNOWN_MAX: usize = 256;

/// What tests set differently.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    pub retry_delay: Duration,
    /// Ask for event streams; a provider that answers with a whole body anyway is remembered.
    pub streamed: bool,
    /// What stands in the place of the offline responder is a language model: the simulation's.
    pub offline_is_a_model: bool,
    /// Share of a lost model's rest that is random.
    pub jitter: f64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { retry_delay: RETRY_DELAY, streamed: true, offline_is_a_model: false, jitter: health::JITTER }
    }
}

/// Providers, connections and cool-downs of the whole program.
pub struct LlmManager {
    shared: Arc<Shared>,
    meter: Option<Arc<dyn Meter>>,
}

impl LlmManager {
    /// `offline` is the last link of every chain.
    pub fn new(config: &LlmConfig, clock: SharedClock, offline: DynModel<Completion>) -> Self {
        Self::tuned(config, clock, offline, Tuning::default())
    }

    pub fn tuned(
        config: &LlmConfig,
        clock: SharedClock,
        offline: DynModel<Completion>,
        tuning: Tuning,
    ) -> Self {
        Self::cast(config, clock, offline, tuning, (None, Scrubber::new(keys(config))))
    }

    /// Of a whole config, all of whose secrets are hidden wherever a key is.
    pub fn of(config: &Config, clock: SharedClock, offline: DynModel<Completion>) -> Self {
        let scrubber = Scrubber::new(config.secrets.iter().chain(keys(&config.llm)));
        Self::cast(&config.llm, clock, offline, Tuning::default(), (None, scrubber))
    }

    /// As [`LlmManager::tuned`], where no provider is asked: what `cast` gives for `provider/model` answers in the
    /// place of each model.
    pub fn simulated(
        config: &LlmConfig,
        clock: SharedClock,
        offline: DynModel<Completion>,
        tuning: Tuning,
        cast: impl Fn(&str) -> DynModel<Completion> + Send + Sync + 'static,
    ) -> Self {
        let cast: Cast = Box::new(cast);
        Self::cast(config, clock, offline, tuning, (Some(cast), Scrubber::new(keys(config))))
    }

    fn cast(
        config: &LlmConfig,
        clock: SharedClock,
        offline: DynModel<Completion>,
        tuning: Tuning,
        (cast, scrubber): (Option<Cast>, Scrubber),
    ) -> Self {
        let network = Network::new(clock.clone());
        let shared = Shared {
            providers: Providers::new(config),
            lines: Lines::new(network, config.read_timeout.unwrap_or(READ_WAIT_MAX), cast),
            gates: Gates::new(&config.providers, clock.clone()),
            health: Health::new(clock.clone(), tuning.jitter),
            sessions: Sessions::new(&config.providers, clock.clone()),
            scrubber: Arc::new(scrubber),
            clock,
            offline,
            tuning,
            never_streams: Mutex::default(),
            calibration: Calibration::default(),
            told_unknown: Mutex::default(),
        };
        Self { shared: Arc::new(shared), meter: None }
    }

    /// Asks `meter` before every request.
    #[must_use]
    pub fn metered(self, meter: Arc<dyn Meter>) -> Self {
        Self { meter: Some(meter), ..self }
    }

    /// The chain of one process. Built when a process starts, so that the models stay the same while
    /// it runs.
    pub fn model_for(&self, routing: &RoutingConfig, kind: ProcessKind) -> SpacebotModel {
        let links =
            chain_of(routing, kind).into_iter().map(|name| Link::new(name, &self.shared.providers)).collect();
        // Who says nothing about itself is no agent, and below the daemon's ceilings all the same.
        let payer = Payer::new(AgentId::new(""), kind);
        let account = Account { meter: self.meter.clone(), payer };
        let model = SpacebotModel::new(self.shared.clone(), links, routing.rate_limit_cooldown, account);
        model.thinking(routing.thinking.of(kind))
    }

    /// Knows the keys of the providers, and of a manager of a whole config all of its secrets.
    pub fn scrubber(&self) -> &Arc<Scrubber> {
        &self.shared.scrubber
    }

    /// Models that cannot be asked at the moment.
    pub fn lost(&self) -> Vec<Lost> {
        self.shared.health.lost()
    }

    /// The ceilings for calls of this agent, or of all, of which little is left.
    pub fn strained(&self, agent: Option<&AgentId>) -> Vec<Strained> {
        self.meter.as_ref().map(|meter| meter.strained(agent)).unwrap_or_default()
    }

    /// For how long no model of this kind of process may be asked; none: one may, or there is none.
    pub fn rests(&self, routing: &RoutingConfig, kind: ProcessKind) -> Option<Duration> {
        self.model_for(routing, kind).rests()
    }

    /// Whether there is a provider for this model, which was set for a conversation; if not, that is told once.
    pub fn knows(&self, model: &str, conversation: &ConversationId) -> bool {
        let provider = model.split_once('/').map_or("", |(provider, _)| provider);
        if model == OFFLINE_MODEL || self.shared.providers.get(provider).is_some() {
            return true;
        }
        let mut told = lock(&self.shared.told_unknown);
        if told.len() < TOLD_UNKNOWN_MAX && told.insert(format!("{conversation} {model}")) {
            log::warn!(
                "{model:?}, which is set for {conversation}, has no provider in [llm]; it is passed over"
            );
        }
        false
    }

    /// Whether a process of this kind has a language model at all, or only the offline responder.
    pub fn has_model(&self, routing: &RoutingConfig, kind: ProcessKind) -> bool {
        self.shared.tuning.offline_is_a_model || routing.model(kind) != OFFLINE_MODEL
    }

    /// By how much an estimate of tokens is to be multiplied for the model of this kind of process: what
    /// its provider has counted, against what was estimated ([`tokens`]). 1 until it has answered.
    pub fn token_factor(&self, routing: &RoutingConfig, kind: ProcessKind) -> f64 {
        self.shared.calibration.factor(routing.model(kind))
    }
}

fn keys(config: &LlmConfig) -> impl Iterator<Item = &str> {
    config.providers.iter().flat_map(ProviderConfig::secrets)
}

/// The models that a process of this kind asks, in their order; behind them stands the offline responder.
pub fn chain_of(routing: &RoutingConfig, kind: ProcessKind) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    // A process whose own model is the offline responder asks nobody else.
    if routing.model(kind) == OFFLINE_MODEL {
        return names;
    }
    let configured = routing.fallbacks.iter().map(String::as_str);
    for name in std::iter::once(routing.model(kind)).chain(configured) {
        if name != OFFLINE_MODEL && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// From 0 to 1. The standard library's hash keys are random, and nothing more is needed here.
fn random_share() -> f64 {
    let number = RandomState::new().hash_one(0_u8);
    f64::from(u32::try_from(number >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}
