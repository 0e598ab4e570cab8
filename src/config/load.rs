//! From the file as written to the resolved values. One run reports every error.

mod compaction;
mod memory;
mod places;
mod routing;
mod schedule;
mod working_memory;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use super::section::{Section, Source};
use super::{
    AgentConfig, ApiConfig, BindingConfig, BudgetConfig, ChannelConfig, CoalescingConfig, Config,
    ConfigError, CortexConfig, DAY, HumanConfig, IngestionConfig, IrcConfig, LimitsConfig, LinkConfig,
    LlmConfig, LoopGuardConfig, MemoryPersistenceConfig, MemoryUpkeepConfig, ModelConfig, OfflineConfig,
    ParticipantContextConfig, PriceConfig, ProviderConfig, SandboxConfig, SandboxMode, Secret, Secrets,
    SkillsConfig, WebhookConfig, WorkerContext, WorkerLogMode,
};
use crate::clock::Zone;
use crate::id::{AgentId, InstanceId};
use compaction::compaction;
use memory::memory;
use places::data_folder;
use routing::routing;
use schedule::schedule;
use working_memory::{timezone, working_memory};

pub use places::places;

/// Longest config file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Most agents of one daemon.
const MAX_AGENTS: usize = 64;
const PLATFORMS: [&str; 3] = ["irc", "webhook", "portal"];

/// Where variables come from; tests bring their own.
pub trait Environment {
    fn variable(&self, name: &str) -> Option<String>;
}

/// The variables of this process.
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }
}

/// A config with what the operator should know about it.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<String>,
}

/// Reads `explicit`, else the first of `$SPACEBOT_DIR/config.toml`, `~/.spacebot/config.toml` and
/// `/etc/spacebot/config.toml` that exists, else the defaults.
///
/// # Errors
/// Everything that is wrong with the file.
pub fn load(explicit: Option<&Path>, environment: &dyn Environment) -> Result<Loaded, Vec<ConfigError>> {
    let folder = data_folder(environment);
    let file = match explicit {
        Some(file) => Some(file.to_owned()),
        None => places(None, environment).into_iter().find(|file| file.is_file()),
    };
    let text = match &file {
        Some(file) => read(file).map_err(|reason| vec![whole_file(file, reason)])?,
        None => String::new(),
    };
    let mut loaded = parse(&text, file.clone(), folder, environment)?;
    if let Some(file) = &file
        && !loaded.warnings.is_empty()
        && !readable_by_others(file)
    {
        loaded.warnings.clear();
    }
    Ok(loaded)
}

fn whole_file(file: &Path, reason: String) -> ConfigError {
    ConfigError { file: file.to_owned(), line: 1, path: String::new(), reason }
}

fn read(file: &Path) -> Result<String, String> {
    let opened = File::open(file).map_err(|error| error.to_string())?;
    let mut text = String::new();
    opened.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("longer than {MAX_FILE_BYTES} bytes"));
    }
    Ok(text)
}

fn readable_by_others(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

/// Resolves `text`. Warnings name literal secrets; the caller knows whether others can read the file.
pub(super) fn parse(
    text: &str,
    file: Option<PathBuf>,
    data_folder: PathBuf,
    environment: &dyn Environment,
) -> Result<Loaded, Vec<ConfigError>> {
    let name = file.clone().unwrap_or_else(|| PathBuf::from("config.toml"));
    let source = Source::new(name, text, environment);
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            source.error(error.span().map_or(0, |span| span.start), "", error.message());
            return Err(source.take_errors());
        }
    };
    let root = Section::root(&source, table.get_ref());
    let config = resolve(&root, file, data_folder, environment);
    root.finish();
    let config = Config { secrets: Secrets::new(source.take_secrets()), ..config };
    let errors = source.take_errors();
    if !errors.is_empty() {
        return Err(errors);
    }
    let warn =
        |path| format!("{path} is written in the file, which others can read; use env:NAME or chmod 600");
    Ok(Loaded { config, warnings: source.literal_secrets().into_iter().map(warn).collect() })
}

fn resolve(
    root: &Section<'_, '_>,
    file: Option<PathBuf>,
    data_folder: PathBuf,
    environment: &dyn Environment,
) -> Config {
    let levels = [
        ("error", log::LevelFilter::Error),
        ("warn", log::LevelFilter::Warn),
        ("info", log::LevelFilter::Info),
        ("debug", log::LevelFilter::Debug),
        ("trace", log::LevelFilter::Trace),
    ];
    let log_level = root.choice("log_level", &levels).unwrap_or(log::LevelFilter::Info);
    let section = root.table("llm");
    // Asked for first: what nobody has asked for is an unknown key at the end of `llm`.
    let prices = section.table("prices");
    let llm = llm(&section, environment);
    let prices = PriceConfig::read_all(&prices, &llm);
    let budget = BudgetConfig::read(&root.table("budget"), &BudgetConfig::default(), &llm);
    let zone = Zone::of_system(environment.variable("TZ").as_deref());
    let agents = agents(root, &llm, zone);
    let messaging = root.table("messaging");
    let (webhook, irc) = (webhook(&messaging.table("webhook")), irc(&messaging.table("irc")));
    messaging.finish();
    let bindings = bindings(root, (&agents, &irc), &llm);
    let (links, humans) = (LinkConfig::read_all(root, &agents), HumanConfig::read_all(root));
    let api = api(&root.table("api"));
    let memory = memory(&root.table("memory"));
    Config {
        data_folder,
        file,
        log_level,
        llm,
        agents,
        bindings,
        links,
        humans,
        webhook,
        irc,
        api,
        memory,
        budget,
        prices,
        secrets: Secrets::default(),
    }
    .bound()
}

fn seconds(section: &Section<'_, '_>, key: &'static str, least: u64, most: u64) -> Option<Duration> {
    section.number(key, least, most).map(Duration::from_secs)
}

fn llm(section: &Section<'_, '_>, environment: &dyn Environment) -> LlmConfig {
    let providers = ProviderConfig::read_all(section, environment);
    let read_timeout = seconds(section, "read_timeout_secs", 1, 600);
    let models = ModelConfig::read_all(&section.table("models"));
    section.finish();
    LlmConfig { providers, read_timeout, models }
}

fn agents(root: &Section<'_, '_>, llm: &LlmConfig, zone: Zone) -> Vec<AgentConfig> {
    let defaults = root.table("defaults");
    let base = over(&defaults, &AgentConfig::new(AgentId::new("main"), "Spacebot", zone), llm);
    defaults.finish();
    let mut agents: Vec<AgentConfig> = Vec::new();
    for section in root.tables("agents") {
        let agent = agent(&section, &base, llm);
        if agents.iter().any(|known| known.id == agent.id) {
            section.refuse("id", "is used by another agent");
        }
        if agent.is_default && agents.iter().any(|known| known.is_default) {
            section.refuse("default", "is set for another agent already");
        }
        if agents.len() == MAX_AGENTS {
            section.refuse("id", format!("is one agent more than {MAX_AGENTS}"));
        }
        agents.push(agent);
    }
    if agents.is_empty() {
        agents.push(base);
    } else if agents.iter().all(|agent| !agent.is_default) {
        agents[0].is_default = true;
    }
    agents
}

fn agent(section: &Section<'_, '_>, base: &AgentConfig, llm: &LlmConfig) -> AgentConfig {
    let id = section.name("id").unwrap_or_default();
    // The id is a folder name and a part of thread and conversation names.
    let plain = |character: char| {
        character.is_ascii_lowercase() || character.is_ascii_digit() || matches!(character, '-' | '_')
    };
    if id.is_empty() || id.len() > 32 || !id.chars().all(plain) {
        section.refuse("id", "must be 1 to 32 of a-z, 0-9, - and _");
    }
    let agent = AgentConfig {
        id: AgentId::new(&id),
        is_default: section.switch("default").unwrap_or(false),
        display_name: section.name("display_name").unwrap_or(id),
        ..over(section, base, llm)
    };
    section.finish();
    agent
}

/// What `[defaults]` and an agent have in common; what is not set is `base`'s.
fn over(section: &Section<'_, '_>, base: &AgentConfig, llm: &LlmConfig) -> AgentConfig {
    AgentConfig {
        routing: routing(&section.table("routing"), &base.routing, llm),
        limits: limits(section, &base.limits),
        sandbox: sandbox(&section.table("sandbox"), &base.sandbox),
        timezone: timezone(section, &base.timezone),
        working_memory: working_memory(&section.table("working_memory"), &base.working_memory),
        compaction: compaction(&section.table("compaction"), &base.compaction),
        ingestion: IngestionConfig::read(&section.table("ingestion"), &base.ingestion),
        skills: SkillsConfig::read(&section.table("skills"), &base.skills),
        memory_persistence: MemoryPersistenceConfig::read(
            &section.table("memory_persistence"),
            &base.memory_persistence,
        ),
        memory_upkeep: MemoryUpkeepConfig::read(&section.table("memory_upkeep"), &base.memory_upkeep),
        participants: ParticipantContextConfig::read(
            &section.table("participant_context"),
            &base.participants,
        ),
        offline: OfflineConfig::read(&section.table("offline"), &base.offline),
        schedule: schedule(&section.table("schedule"), &base.schedule),
        budget: BudgetConfig::read(&section.table("budget"), &base.budget, llm),
        loop_guard: LoopGuardConfig::read(&section.table("loop_guard"), &base.loop_guard),
        channel: channel(&section.table("channel"), &base.channel),
        ..base.clone()
    }
}

fn channel(section: &Section<'_, '_>, base: &ChannelConfig) -> ChannelConfig {
    let config = ChannelConfig::read(section).or(base.clone());
    section.finish();
    config
}

fn limits(section: &Section<'_, '_>, base: &LimitsConfig) -> LimitsConfig {
    let count = |key, least, most, base: usize| {
        section.number(key, least, most).and_then(|number| usize::try_from(number).ok()).unwrap_or(base)
    };
    LimitsConfig {
        max_turns: count("max_turns", 1, 50, base.max_turns),
        branch_max_turns: count("branch_max_turns", 1, 100, base.branch_max_turns),
        worker_max_turns: count("worker_max_turns", 1, 150, base.worker_max_turns),
        max_concurrent_branches: count("max_concurrent_branches", 1, 20, base.max_concurrent_branches),
        max_concurrent_workers: count("max_concurrent_workers", 1, 20, base.max_concurrent_workers),
        max_concurrent_turns: count("max_concurrent_turns", 1, 64, base.max_concurrent_turns),
        context_window: count("context_window", 4096, 4_000_000, base.context_window),
        history_messages: count("history_messages", 10, 1000, base.history_messages),
        history_backfill_count: count("history_backfill_count", 0, 200, base.history_backfill_count),
        worker_timeout: seconds(section, "worker_timeout_secs", 10, 86_400).unwrap_or(base.worker_timeout),
        branch_timeout: seconds(section, "branch_timeout_secs", 5, 3600).unwrap_or(base.branch_timeout),
        branch_wall_clock: seconds(section, "branch_wall_clock_secs", 10, 86_400)
            .unwrap_or(base.branch_wall_clock),
        worker_idle_timeout: seconds(section, "worker_idle_timeout_secs", 10, 86_400)
            .unwrap_or(base.worker_idle_timeout),
        worker_context: section.choice("worker_context", &WorkerContext::ALL).unwrap_or(base.worker_context),
        worker_log_mode: section
            .choice("worker_log_mode", &WorkerLogMode::ALL)
            .unwrap_or(base.worker_log_mode),
        task_max_attempts: count("task_max_attempts", 1, 10, base.task_max_attempts),
        max_retriggers: section
            .number("max_retriggers", 1, 20)
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(base.max_retriggers),
        retrigger_debounce: section
            .number("retrigger_debounce_ms", 1, 10_000)
            .map_or(base.retrigger_debounce, Duration::from_millis),
        task_retry: seconds(section, "task_retry_secs", 0, 600).unwrap_or(base.task_retry),
        keep: section
            .number("keep_days", 1, 3650)
            .map_or(base.keep, |days| Duration::from_secs(days * DAY.as_secs())),
        coalescing: CoalescingConfig::read(&section.table("coalescing"), &base.coalescing),
        cortex: CortexConfig::read(&section.table("cortex"), &base.cortex),
    }
}

fn sandbox(section: &Section<'_, '_>, base: &SandboxConfig) -> SandboxConfig {
    let modes = [("enabled", SandboxMode::Enabled), ("disabled", SandboxMode::Disabled)];
    let paths: Option<Vec<PathBuf>> =
        section.texts("writable_paths").map(|paths| paths.into_iter().map(PathBuf::from).collect());
    if paths.iter().flatten().any(|path| !path.is_absolute()) {
        section.refuse("writable_paths", "must be absolute paths");
    }
    let sandbox = SandboxConfig {
        mode: section.choice("mode", &modes).unwrap_or(base.mode),
        network: section.switch("network").unwrap_or(base.network),
        writable_paths: paths.unwrap_or_else(|| base.writable_paths.clone()),
        passthrough_env: section.texts("passthrough_env").unwrap_or_else(|| base.passthrough_env.clone()),
    };
    section.finish();
    sandbox
}

fn bindings(
    root: &Section<'_, '_>,
    (agents, irc): (&[AgentConfig], &[IrcConfig]),
    llm: &LlmConfig,
) -> Vec<BindingConfig> {
    let mut bindings = Vec::new();
    for section in root.tables("bindings") {
        let agent = section.name("agent_id").unwrap_or_default();
        if agents.iter().all(|known| known.id.as_str() != agent) {
            section.refuse("agent_id", format!("there is no agent {agent:?}"));
        }
        let platforms = PLATFORMS.map(|platform| (platform, platform));
        let channel = section.choice("channel", &platforms);
        if channel.is_none() {
            section.refuse("channel", "is needed");
        }
        let adapter = section.name("adapter");
        if let (Some(channel), Some(name)) = (channel, &adapter)
            && irc.iter().all(|known| known.instance.as_str() != format!("{channel}:{name}"))
        {
            section.refuse("adapter", format!("there is no instance {name:?} of {channel}"));
        }
        bindings.push(BindingConfig {
            agent: AgentId::new(&agent),
            channel: channel.unwrap_or_default().to_owned(),
            adapter,
            channel_ids: section.texts("channel_ids").unwrap_or_default(),
            require_mention: section.switch("require_mention"),
            settings: ChannelConfig::read_binding(&section, llm),
        });
        section.finish();
    }
    bindings
}

/// `bind`, `port` and `auth_token` of a listener; other machines need a token (P7).
fn listener(
    section: &Section<'_, '_>,
    bind: std::net::IpAddr,
    port: u16,
) -> (std::net::IpAddr, u16, Option<Secret>) {
    let bind = section.parsed("bind", "an IP address").unwrap_or(bind);
    let port = section.number("port", 1, 65_535).and_then(|port| u16::try_from(port).ok()).unwrap_or(port);
    let token = section.secret("auth_token");
    if !bind.is_loopback() && token.is_none() {
        section.refuse("bind", "an address that other machines reach needs auth_token");
    }
    (bind, port, token)
}

fn webhook(section: &Section<'_, '_>) -> WebhookConfig {
    let base = WebhookConfig::default();
    let enabled = section.switch("enabled").unwrap_or(base.enabled);
    let (bind, port, auth_token) = listener(section, base.bind, base.port);
    section.finish();
    WebhookConfig { enabled, bind, port, auth_token }
}

fn api(section: &Section<'_, '_>) -> ApiConfig {
    let base = ApiConfig::default();
    let enabled = section.switch("enabled").unwrap_or(base.enabled);
    let (bind, port, auth_token) = listener(section, base.bind, base.port);
    section.finish();
    ApiConfig { enabled, bind, port, auth_token }
}

fn irc(section: &Section<'_, '_>) -> Vec<IrcConfig> {
    let mut connections: Vec<IrcConfig> = Vec::new();
    let enabled = section.switch("enabled").unwrap_or(true);
    let instances = section.tables("instances");
    // Without `server`, [messaging.irc] only holds its instances.
    let alone = section.is_there() && (section.name("server").is_some() || instances.is_empty());
    if alone {
        connections.extend(irc_instance(section, None));
    }
    for instance in &instances {
        let name = instance.name("name").unwrap_or_default();
        let one = irc_instance(instance, Some(&name));
        if let Some(one) = one {
            if connections.iter().any(|known| known.instance == one.instance) {
                instance.refuse("name", "is used by another instance");
            }
            connections.push(one);
        }
        if name.is_empty() || name.contains([':', ' ']) {
            instance.refuse("name", "is needed, without blanks and colons");
        }
        instance.finish();
    }
    section.finish();
    if enabled { connections } else { Vec::new() }
}

fn irc_instance(section: &Section<'_, '_>, name: Option<&str>) -> Option<IrcConfig> {
    let (server, nick) = (section.name("server"), section.name("nick"));
    for (key, value) in [("server", &server), ("nick", &nick)] {
        if value.is_none() {
            section.refuse(key, "is needed");
        }
    }
    let tls = section.switch("tls").unwrap_or(true);
    let port = section.number("port", 1, 65_535).and_then(|port| u16::try_from(port).ok());
    let config = IrcConfig {
        instance: name.map_or_else(|| InstanceId::new("irc"), |name| InstanceId::new(format!("irc:{name}"))),
        port: port.unwrap_or(if tls { 6697 } else { 6667 }),
        tls,
        tls_ca_file: section.name("tls_ca_file").map(PathBuf::from),
        realname: section.name("realname").unwrap_or_else(|| "Spacebot".to_owned()),
        password: section.secret("password"),
        sasl_username: section.name("sasl_username"),
        sasl_password: section.secret("sasl_password"),
        channels: section.texts("channels").unwrap_or_default(),
        dm_allowed_users: section.texts("dm_allowed_users").unwrap_or_default(),
        require_mention: section.switch("require_mention").unwrap_or(true),
        server: server.clone().unwrap_or_default(),
        nick: nick.clone().unwrap_or_default(),
    };
    if config.sasl_username.is_some() != config.sasl_password.is_some() {
        section.refuse("sasl_username", "sasl_username and sasl_password belong together");
    }
    if !tls && config.sasl_password.is_some() {
        section.refuse("tls", "a password is sent over TLS only");
    }
    server.and(nick).map(|_| config)
}

#[cfg(test)]
mod tests;
