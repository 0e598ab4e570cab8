//! The resolved values as TOML, for `spacebot check`; secrets are hidden.

use std::fmt::Write;

use super::{
    AgentConfig, CompactionConfig, Config, DAY, IrcConfig, Language, MemoryConfig, MissedSlots, SandboxMode,
    Secret, VectorIndexKind, WorkerLogMode, WorkingMemoryConfig,
};
use crate::clock::Zone;

/// Everything that is in force, defaults included. With the secrets put back, the text is a config
/// file that resolves to the same values.
pub fn describe(config: &Config) -> String {
    written(config, ToString::to_string)
}

/// How a secret is written.
type Shown = fn(&Secret) -> String;

pub(super) fn written(config: &Config, shown: Shown) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    write_all(&mut out, config, shown).ok();
    out
}

pub(super) fn text(text: &str) -> String {
    // Every escape of a JSON string is one of a TOML string.
    serde_json::Value::from(text).to_string()
}

fn list<T: AsRef<str>>(items: &[T]) -> String {
    format!("[{}]", items.iter().map(|item| text(item.as_ref())).collect::<Vec<_>>().join(", "))
}

fn secret(out: &mut String, key: &str, secret: Option<&Secret>, shown: Shown) -> std::fmt::Result {
    secret.map_or(Ok(()), |secret| writeln!(out, "{key} = {}", text(&shown(secret))))
}

/// A part of a table's name.
pub(super) fn name(part: &str) -> String {
    let bare = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
    if !part.is_empty() && part.chars().all(bare) { part.to_owned() } else { text(part) }
}

fn optional(out: &mut String, key: &str, value: Option<&str>) -> std::fmt::Result {
    value.map_or(Ok(()), |value| writeln!(out, "{key} = {}", text(value)))
}

fn write_all(out: &mut String, config: &Config, shown: Shown) -> std::fmt::Result {
    match &config.file {
        Some(file) => writeln!(out, "# from {}", file.display())?,
        None => writeln!(out, "# built-in defaults")?,
    }
    writeln!(out, "# data folder {}", config.data_folder.display())?;
    writeln!(out, "log_level = {}", text(&config.log_level.to_string().to_lowercase()))?;
    writeln!(out, "\n[llm]")?;
    if let Some(timeout) = config.llm.read_timeout {
        writeln!(out, "read_timeout_secs = {}", timeout.as_secs())?;
    }
    for provider in &config.llm.providers {
        writeln!(out, "\n[llm.provider.{}]", name(&provider.id))?;
        provider.write(out, text, shown)?;
    }
    config.llm.models.iter().try_for_each(|model| model.write(out))?;
    config.prices.iter().try_for_each(|price| price.write(out))?;
    writeln!(out)?;
    config.budget.write(out, "budget")?;
    config.agents.iter().try_for_each(|agent| write_agent(out, agent))?;
    for binding in &config.bindings {
        writeln!(
            out,
            "\n[[bindings]]\nagent_id = {}\nchannel = {}",
            text(binding.agent.as_str()),
            text(&binding.channel)
        )?;
        optional(out, "adapter", binding.adapter.as_deref())?;
        writeln!(out, "channel_ids = {}", list(&binding.channel_ids))?;
        if let Some(mention) = binding.require_mention {
            writeln!(out, "require_mention = {mention}")?;
        }
        binding.settings.write(out)?;
    }
    config.links.iter().try_for_each(|link| link.write(out))?;
    config.humans.iter().try_for_each(|human| human.write(out, text))?;
    let (webhook, api) = (&config.webhook, &config.api);
    let listeners = [
        ("messaging.webhook", webhook.enabled, webhook.bind, webhook.port, &webhook.auth_token),
        ("api", api.enabled, api.bind, api.port, &api.auth_token),
    ];
    for (name, enabled, bind, port, token) in listeners {
        writeln!(out, "\n[{name}]\nenabled = {enabled}\nbind = {}\nport = {port}", text(&bind.to_string()))?;
        secret(out, "auth_token", token.as_ref(), shown)?;
    }
    let MemoryConfig { embedding, index, language } = &config.memory;
    let index = named(&VectorIndexKind::ALL.map(|(name, kind)| (name, kind == *index)));
    let language = named(&Language::ALL.map(|(name, known)| (name, known == *language)));
    writeln!(out, "\n[memory]\nindex = {}\nlanguage = {}", text(&index), text(&language))?;
    writeln!(out, "\n[memory.embedding]\nenabled = {}", embedding.enabled)?;
    let path =
        |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
    optional(out, "model", path(&embedding.model).as_deref())?;
    optional(out, "onnxruntime", path(&embedding.onnxruntime).as_deref())?;
    writeln!(out, "idle_unload_secs = {}", embedding.idle_unload.as_secs())?;
    config.irc.iter().try_for_each(|irc| write_irc(out, irc, shown))
}

/// The name of what holds.
fn named(names: &[(&str, bool)]) -> String {
    names.iter().find(|(_, holds)| *holds).map_or("", |(name, _)| *name).to_owned()
}

fn write_agent(out: &mut String, agent: &AgentConfig) -> std::fmt::Result {
    writeln!(out, "\n[[agents]]\nid = {}\ndefault = {}", text(agent.id.as_str()), agent.is_default)?;
    writeln!(out, "display_name = {}", text(&agent.display_name))?;
    let limits = &agent.limits;
    let numbers = [
        ("max_turns", limits.max_turns as u64),
        ("branch_max_turns", limits.branch_max_turns as u64),
        ("worker_max_turns", limits.worker_max_turns as u64),
        ("max_concurrent_branches", limits.max_concurrent_branches as u64),
        ("max_concurrent_workers", limits.max_concurrent_workers as u64),
        ("max_concurrent_turns", limits.max_concurrent_turns as u64),
        ("context_window", limits.context_window as u64),
        ("history_messages", limits.history_messages as u64),
        ("history_backfill_count", limits.history_backfill_count as u64),
        ("worker_timeout_secs", limits.worker_timeout.as_secs()),
        ("branch_timeout_secs", limits.branch_timeout.as_secs()),
        ("branch_wall_clock_secs", limits.branch_wall_clock.as_secs()),
        ("worker_idle_timeout_secs", limits.worker_idle_timeout.as_secs()),
        ("max_retriggers", u64::from(limits.max_retriggers)),
        ("retrigger_debounce_ms", u64::try_from(limits.retrigger_debounce.as_millis()).unwrap_or(u64::MAX)),
        ("task_max_attempts", limits.task_max_attempts as u64),
        ("task_retry_secs", limits.task_retry.as_secs()),
        ("keep_days", limits.keep.as_secs() / DAY.as_secs()),
    ];
    numbers.iter().try_for_each(|(key, number)| writeln!(out, "{key} = {number}"))?;
    let context = limits.worker_context.as_str();
    let mode = named(&WorkerLogMode::ALL.map(|(name, known)| (name, known == limits.worker_log_mode)));
    writeln!(out, "worker_context = {}\nworker_log_mode = {}", text(context), text(&mode))?;
    write_timezone(out, &agent.timezone)?;
    let routing = &agent.routing;
    writeln!(out, "[agents.routing]")?;
    writeln!(
        out,
        "channel = {}\nbranch = {}\nworker = {}",
        text(&routing.channel),
        text(&routing.branch),
        text(&routing.worker)
    )?;
    optional(out, "compactor", routing.compactor.as_deref())?;
    optional(out, "cortex", routing.cortex.as_deref())?;
    writeln!(out, "fallbacks = {}", list(&routing.fallbacks))?;
    writeln!(out, "rate_limit_cooldown_secs = {}", routing.rate_limit_cooldown.as_secs())?;
    routing.thinking.write(out)?;
    let overrides = routing.task_overrides.iter();
    let overrides: Vec<_> =
        overrides.map(|(name, model)| format!("{} = {}", text(name), text(model))).collect();
    writeln!(out, "task_overrides = {{ {} }}", overrides.join(", "))?;
    let sandbox = &agent.sandbox;
    let mode = if sandbox.mode == SandboxMode::Enabled { "enabled" } else { "disabled" };
    writeln!(out, "[agents.sandbox]\nmode = {}\nnetwork = {}", text(mode), sandbox.network)?;
    let paths: Vec<_> = sandbox.writable_paths.iter().map(|path| path.to_string_lossy()).collect();
    writeln!(out, "writable_paths = {}\npassthrough_env = {}", list(&paths), list(&sandbox.passthrough_env))?;
    write_working_memory(out, &agent.working_memory)?;
    write_compaction(out, &agent.compaction)?;
    agent.limits.coalescing.write(out)?;
    let ingestion = &agent.ingestion;
    writeln!(out, "[agents.ingestion]\nenabled = {}", ingestion.enabled)?;
    writeln!(out, "poll_interval_secs = {}", ingestion.poll_interval.as_secs())?;
    writeln!(out, "chunk_size = {}", ingestion.chunk_size)?;
    agent.skills.write(out)?;
    agent.memory_persistence.write(out)?;
    agent.memory_upkeep.write(out)?;
    agent.participants.write(out)?;
    agent.offline.write(out)?;
    let missed = if agent.schedule.missed == MissedSlots::RunOnce { "run_once" } else { "skip" };
    writeln!(out, "[agents.schedule]\nmissed_slots = {}", text(missed))?;
    writeln!(out, "job_timeout_secs = {}", agent.schedule.timeout.as_secs())?;
    agent.limits.cortex.write(out)?;
    agent.budget.write(out, "agents.budget")?;
    agent.loop_guard.write(out)?;
    writeln!(out, "[agents.channel]")?;
    agent.channel.write(out)
}

fn write_compaction(out: &mut String, config: &CompactionConfig) -> std::fmt::Result {
    writeln!(out, "[agents.compaction]\nbackground_threshold = {:?}", config.background)?;
    writeln!(out, "aggressive_threshold = {:?}", config.aggressive)?;
    writeln!(out, "emergency_threshold = {:?}", config.emergency)?;
    writeln!(out, "extract_memories = {}", config.extract_memories)
}

fn write_timezone(out: &mut String, zone: &Zone) -> std::fmt::Result {
    // Rules of the system that have no name cannot be written down.
    match zone.name().parse::<Zone>() {
        Ok(_) => writeln!(out, "timezone = {}", text(zone.name())),
        Err(_) => writeln!(out, "# timezone: the system's, which has no name"),
    }
}

fn write_working_memory(out: &mut String, config: &WorkingMemoryConfig) -> std::fmt::Result {
    writeln!(out, "[agents.working_memory]\nenabled = {}", config.enabled)?;
    let numbers = [
        ("today_max_unsynthesized_events", config.today_max_events as u64),
        ("context_token_budget", config.token_budget as u64),
        ("channel_map_token_budget", config.map_token_budget as u64),
        ("channel_map_max_channels", config.map_max_channels as u64),
        ("channel_map_inactive_hours", config.map_inactive.as_secs() / 3600),
        ("intraday_batch_threshold", config.intraday_batch as u64),
        ("intraday_time_fallback_secs", config.intraday_fallback.as_secs()),
        ("daily_summary_max_words", config.daily_max_words as u64),
        ("event_retention_days", config.retention.as_secs() / DAY.as_secs()),
    ];
    numbers.iter().try_for_each(|(key, number)| writeln!(out, "{key} = {number}"))?;
    writeln!(out, "min_importance_under_pressure = {:?}", config.min_importance)
}

fn write_irc(out: &mut String, irc: &IrcConfig, shown: Shown) -> std::fmt::Result {
    match irc.instance.as_str().split_once(':') {
        Some((_, name)) => writeln!(out, "\n[[messaging.irc.instances]]\nname = {}", text(name))?,
        None => writeln!(out, "\n[messaging.irc]")?,
    }
    writeln!(out, "server = {}\nport = {}\ntls = {}", text(&irc.server), irc.port, irc.tls)?;
    optional(out, "tls_ca_file", irc.tls_ca_file.as_ref().map(|file| file.to_string_lossy()).as_deref())?;
    writeln!(out, "nick = {}\nrealname = {}", text(&irc.nick), text(&irc.realname))?;
    secret(out, "password", irc.password.as_ref(), shown)?;
    optional(out, "sasl_username", irc.sasl_username.as_deref())?;
    secret(out, "sasl_password", irc.sasl_password.as_ref(), shown)?;
    writeln!(out, "channels = {}\ndm_allowed_users = {}", list(&irc.channels), list(&irc.dm_allowed_users))?;
    writeln!(out, "require_mention = {}", irc.require_mention)
}
