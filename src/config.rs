//! The resolved configuration: one small struct per consumer, every default in one place.
//!
//! The file as written is read by `config::load`, which turns it into these values or into errors
//! that name file, line and key path. docs/CONFIG.md lists every key.

mod budget;
mod changes;
mod channel;
mod coalescing;
mod compaction;
mod cortex;
mod describe;
mod humans;
mod ingestion;
mod links;
mod load;
mod loop_guard;
mod media;
mod memory;
mod memory_persistence;
mod memory_upkeep;
mod models;
mod offline;
mod participants;
mod provider;
mod schedule;
mod secrets;
mod section;
mod skills;
mod thinking;
mod worker;
mod working_memory;

pub use budget::{BudgetConfig, NANO_PLACES, PRICE_PLACES, Price, PriceConfig, decimal, decimal_text};
pub use changes::{changes, in_force};
pub use channel::{BindingConfig, ChannelConfig, ChannelSettings, Delegation, MemoryMode, ResponseMode};
pub use coalescing::CoalescingConfig;
pub use compaction::CompactionConfig;
pub use cortex::CortexConfig;
pub use describe::describe;
pub use humans::HumanConfig;
pub use ingestion::IngestionConfig;
pub use links::{LinkConfig, LinkDirection, LinkKind, LinkedAgent, Relation};
pub use load::{Environment, Loaded, ProcessEnvironment, load, places};
pub use loop_guard::{LoopGuardConfig, LoopLimits};
pub use media::ModelConfig;
pub use memory::{EmbeddingConfig, Language, MemoryConfig, VectorIndexKind};
pub use memory_persistence::MemoryPersistenceConfig;
pub use memory_upkeep::MemoryUpkeepConfig;
pub use models::ModelOverrides;
pub use offline::OfflineConfig;
pub use participants::ParticipantContextConfig;
pub use provider::{
    ApiType, KeyPlace, Media, PROVIDERS, ProviderConfig, ProviderHeader, ProviderKind, ProviderWire,
};
pub use schedule::{MissedSlots, ScheduleConfig};
pub use secrets::Secrets;
pub use skills::SkillsConfig;
pub use thinking::{ThinkingConfig, ThinkingEffort};
pub use worker::{WorkerContext, WorkerLogMode};
pub use working_memory::WorkingMemoryConfig;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock::Zone;
use crate::error::{Fault, Kind};
use crate::id::{AgentId, ConversationId, InstanceId, ProcessKind};

/// One mistake in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// The key, such as `messaging.irc.port`; empty where the file itself is meant.
    pub path: String,
    pub reason: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: ", self.file.display(), self.line)?;
        if !self.path.is_empty() {
            write!(formatter, "{}: ", self.path)?;
        }
        formatter.write_str(&self.reason)
    }
}

impl std::error::Error for ConfigError {}

impl Fault for ConfigError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

/// A value that must not be shown: keys, tokens, passwords. Debug and Display print `[hidden]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }
    /// The value itself, for the one call that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[hidden]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[hidden]")
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where everything lives: `$SPACEBOT_DIR`, else `~/.spacebot`.
    pub data_folder: PathBuf,
    /// The file that was read; none when the built-in defaults are in force.
    pub file: Option<PathBuf>,
    pub log_level: log::LevelFilter,
    pub llm: LlmConfig,
    pub agents: Vec<AgentConfig>,
    pub bindings: Vec<BindingConfig>,
    pub links: Vec<LinkConfig>,
    pub humans: Vec<HumanConfig>,
    pub webhook: WebhookConfig,
    pub irc: Vec<IrcConfig>,
    pub api: ApiConfig,
    pub memory: MemoryConfig,
    /// Of the whole daemon.
    pub budget: BudgetConfig,
    pub prices: Vec<PriceConfig>,
    /// All that must be seen nowhere.
    pub secrets: Secrets,
}

impl Config {
    /// The agent of this id; without one, the default agent.
    pub fn agent(&self, id: Option<&str>) -> Option<&AgentConfig> {
        match id {
            Some(id) => self.agents.iter().find(|agent| agent.id.as_str() == id),
            None => self.agents.iter().find(|agent| agent.is_default).or(self.agents.first()),
        }
    }

    /// Who answers where nobody else is bound.
    pub fn default_agent(&self) -> AgentId {
        self.agent(None).map_or_else(|| AgentId::new("main"), |agent| agent.id.clone())
    }
}

/// `[llm]` and `[llm.provider.<id>]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LlmConfig {
    pub providers: Vec<ProviderConfig>,
    /// Longest silence of a provider within one answer (`llm.read_timeout_secs`, 10 to 600).
    pub read_timeout: Option<Duration>,
    /// What the config says of single models (`[llm.models."provider/model"]`).
    pub models: Vec<ModelConfig>,
}

/// `[[agents]]`, each value resolved over `[defaults]`.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentConfig {
    pub id: AgentId,
    pub is_default: bool,
    pub display_name: String,
    pub routing: RoutingConfig,
    pub limits: LimitsConfig,
    pub sandbox: SandboxConfig,
    /// Where its days begin and end.
    pub timezone: Zone,
    pub working_memory: WorkingMemoryConfig,
    pub compaction: CompactionConfig,
    pub ingestion: IngestionConfig,
    pub skills: SkillsConfig,
    pub memory_persistence: MemoryPersistenceConfig,
    pub memory_upkeep: MemoryUpkeepConfig,
    pub participants: ParticipantContextConfig,
    pub offline: OfflineConfig,
    pub schedule: ScheduleConfig,
    pub loop_guard: LoopGuardConfig,
    pub budget: BudgetConfig,
    pub channel: ChannelConfig,
    /// Those of `[[bindings]]` that name this agent, in their order.
    pub bindings: Vec<BindingConfig>,
    /// Agents that may be asked by this one, or ask it.
    pub links: Vec<LinkedAgent>,
    /// People that it knows.
    pub humans: Vec<HumanConfig>,
}

impl AgentConfig {
    /// The defaults.
    pub fn new(id: AgentId, display_name: impl Into<String>, timezone: Zone) -> Self {
        Self {
            id,
            is_default: true,
            display_name: display_name.into(),
            routing: RoutingConfig::default(),
            limits: LimitsConfig::default(),
            sandbox: SandboxConfig::default(),
            timezone,
            working_memory: WorkingMemoryConfig::default(),
            compaction: CompactionConfig::default(),
            ingestion: IngestionConfig::default(),
            skills: SkillsConfig::default(),
            memory_persistence: MemoryPersistenceConfig::default(),
            memory_upkeep: MemoryUpkeepConfig::default(),
            participants: ParticipantContextConfig::default(),
            offline: OfflineConfig::default(),
            schedule: ScheduleConfig::default(),
            loop_guard: LoopGuardConfig::default(),
            budget: BudgetConfig::default(),
            channel: ChannelConfig::default(),
            bindings: Vec::new(),
            links: Vec::new(),
            humans: Vec::new(),
        }
    }

    /// What the config says about a conversation: the first binding of this agent that covers it, else the
    /// agent. Its models are those of its routing, and none of them stands here.
    pub fn channel_of(&self, instance: &InstanceId, conversation: &ConversationId) -> ChannelConfig {
        let bound = self.bindings.iter().find(|binding| binding.covers(instance, conversation));
        let agent =
            ChannelConfig { worker_context: Some(self.limits.worker_context), ..self.channel.clone() };
        bound.map(|binding| binding.settings.clone()).unwrap_or_default().or(agent)
    }
}

/// `[defaults.routing]` / `[agents.routing]`. Models are `provider/model`; `offline/responder` is built in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingConfig {
    pub channel: String,
    pub branch: String,
    pub worker: String,
    /// Summarises what leaves the window of a conversation; none: the model of the channel.
    pub compactor: Option<String>,
    /// Smooths the bulletin and writes the profile; none: these are made without a model.
    /// In the operator's conversation with the cortex, then the model of the channel answers.
    pub cortex: Option<String>,
    /// Tried in this order after the model of the process; the offline responder is always last.
    pub fallbacks: Vec<String>,
    /// How long a model is left alone after a 429 that names no time (`rate_limit_cooldown_secs`).
    pub rate_limit_cooldown: Duration,
    pub thinking: ThinkingConfig,
    /// Models of workers by the type of their task, in place of `worker`.
    pub task_overrides: BTreeMap<String, String>,
}

/// The name of the built-in model.
pub const OFFLINE_MODEL: &str = "offline/responder";

impl RoutingConfig {
    /// The same with the model for tasks of this type, where there is one.
    pub fn of_task(&self, task_type: Option<&str>) -> Cow<'_, Self> {
        match task_type.and_then(|task_type| self.task_overrides.get(task_type)) {
            Some(worker) => Cow::Owned(Self { worker: worker.clone(), ..self.clone() }),
            None => Cow::Borrowed(self),
        }
    }

    pub fn model(&self, kind: ProcessKind) -> &str {
        match kind {
            ProcessKind::Channel => &self.channel,
            // Both think with memory.
            ProcessKind::Branch | ProcessKind::Ingestion => &self.branch,
            // It has a model of its own there.
            ProcessKind::Delegation => &self.worker,
            ProcessKind::Worker => &self.worker,
            ProcessKind::Compactor => self.compactor.as_ref().unwrap_or(&self.channel),
            ProcessKind::Cortex => self.cortex.as_ref().unwrap_or(&self.channel),
        }
    }
}

impl Default for RoutingConfig {
    fn default() -> Self {
        Self {
            channel: OFFLINE_MODEL.to_owned(),
            branch: OFFLINE_MODEL.to_owned(),
            worker: OFFLINE_MODEL.to_owned(),
            compactor: None,
            cortex: None,
            fallbacks: Vec::new(),
            rate_limit_cooldown: Duration::from_secs(60),
            thinking: ThinkingConfig::default(),
            task_overrides: BTreeMap::new(),
        }
    }
}

/// Keys of `[defaults]` that bound an agent's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Model calls in one channel turn (1 to 50).
    pub max_turns: usize,
    pub branch_max_turns: usize,
    pub worker_max_turns: usize,
    /// Running at once in one conversation (1 to 20).
    pub max_concurrent_branches: usize,
    pub max_concurrent_workers: usize,
    /// Channel turns running at once in the whole agent (1 to 64).
    pub max_concurrent_turns: usize,
    /// Tokens of the model's window (4,096 to 4,000,000).
    pub context_window: usize,
    /// Messages that a window holds at most (10 to 1,000); fills it just as tokens do.
    pub history_messages: usize,
    /// Older messages of the platform that a conversation begins with (0 to 200); 0: none.
    pub history_backfill_count: usize,
    /// Wall clock of one worker without waiting for input (`worker_timeout_secs`, 10 to 86,400).
    pub worker_timeout: Duration,
    /// A branch without any activity is ended (`branch_timeout_secs`, 5 to 3,600).
    pub branch_timeout: Duration,
    /// Wall clock of one branch, whatever it does (`branch_wall_clock_secs`, 10 to 86,400).
    pub branch_wall_clock: Duration,
    /// How long an interactive worker waits for the next `route` (`worker_idle_timeout_secs`).
    pub worker_idle_timeout: Duration,
    /// What a worker knows of the conversation besides its task.
    pub worker_context: WorkerContext,
    pub worker_log_mode: WorkerLogMode,
    /// Workers that a task gets before it has failed (1 to 10).
    pub task_max_attempts: usize,
    /// The pause after the first failure of a task, which doubles with each (`task_retry_secs`, 0 to 600).
    pub task_retry: Duration,
    /// Turns that results may start for one message of a person (1 to 20); further results are kept in the
    /// history for the next message.
    pub max_retriggers: u32,
    /// Results that come within this time of each other share one turn (`retrigger_debounce_ms`, 1 to 10,000).
    pub retrigger_debounce: Duration,
    /// How long messages, answers, runs and journals are kept after they are over (`keep_days`, 1 to 3,650).
    pub keep: Duration,
    /// How long messages in company wait for each other.
    pub coalescing: CoalescingConfig,
    pub cortex: CortexConfig,
}

/// Days of the config are 24 hours.
pub const DAY: Duration = Duration::from_secs(86_400);

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            max_turns: 5,
            branch_max_turns: 10,
            worker_max_turns: 50,
            max_concurrent_branches: 5,
            max_concurrent_workers: 5,
            max_concurrent_turns: 16,
            context_window: 128_000,
            history_messages: 200,
            history_backfill_count: 50,
            worker_timeout: Duration::from_secs(1800),
            branch_timeout: Duration::from_secs(60),
            // Ten calls of a slow model, and less than a turn may take.
            branch_wall_clock: Duration::from_secs(600),
            worker_idle_timeout: Duration::from_secs(600),
            worker_context: WorkerContext::default(),
            worker_log_mode: WorkerLogMode::default(),
            task_max_attempts: 3,
            task_retry: Duration::from_secs(30),
            max_retriggers: 3,
            retrigger_debounce: Duration::from_millis(500),
            keep: 90 * DAY,
            coalescing: CoalescingConfig::default(),
            cortex: CortexConfig::default(),
        }
    }
}

/// `[agents.sandbox]` / `[defaults.sandbox]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SandboxConfig {
    pub mode: SandboxMode,
    /// Worker commands may use the network.
    pub network: bool,
    /// Further folders that commands may write to, absolute.
    pub writable_paths: Vec<PathBuf>,
    /// Names of variables of the daemon that commands get.
    pub passthrough_env: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SandboxMode {
    /// Bubblewrap or no shell tool at all.
    #[default]
    Enabled,
    /// Commands run as the daemon's user, with only the environment cleared.
    Disabled,
}

/// `[messaging.webhook]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    pub enabled: bool,
    pub bind: IpAddr,
    pub port: u16,
    pub auth_token: Option<Secret>,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self { enabled: true, bind: IpAddr::from([127, 0, 0, 1]), port: 18789, auth_token: None }
    }
}

/// `[api]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    pub enabled: bool,
    pub bind: IpAddr,
    pub port: u16,
    pub auth_token: Option<Secret>,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self { enabled: true, bind: IpAddr::from([127, 0, 0, 1]), port: 19898, auth_token: None }
    }
}

/// `[[messaging.irc.instances]]`, or `[messaging.irc]` itself as the one instance `irc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IrcConfig {
    /// `irc` or `irc:<name>`.
    pub instance: InstanceId,
    pub server: String,
    pub port: u16,
    pub tls: bool,
    /// PEM file with certificates to trust besides the public ones.
    pub tls_ca_file: Option<PathBuf>,
    pub nick: String,
    pub realname: String,
    /// Server password (`PASS`).
    pub password: Option<Secret>,
    /// SASL PLAIN account and password; both or none.
    pub sasl_username: Option<String>,
    pub sasl_password: Option<Secret>,
    /// Joined after registration.
    pub channels: Vec<String>,
    /// Who may write directly: a services account, a mask `nick!user@host` with `*`, or `*`.
    /// Empty refuses everybody (P7).
    pub dm_allowed_users: Vec<String>,
    /// In channels, answer only messages that name the bot (default true).
    pub require_mention: bool,
}
