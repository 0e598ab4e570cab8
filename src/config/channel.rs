//! `[defaults.channel]` / `[agents.channel]`, the same keys of a binding, and those that it has beside them: how
//! the agent behaves in a conversation. What the conversation's own people have set goes before the binding, that before the agent.

use std::fmt::Write as _;

use super::section::Section;
use super::{LlmConfig, ModelOverrides, WorkerContext};
use crate::id::{AgentId, ConversationId, InstanceId};
use crate::message::Inbound;

/// What the agent answers in company. Who writes directly is always answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResponseMode {
    #[default]
    Active,
    /// It reads and remembers, and answers commands only.
    Observe,
    /// It answers who addresses it.
    MentionOnly,
}

impl ResponseMode {
    /// Every mode with its name in the config and the database.
    pub const ALL: [(&'static str, Self); 3] =
        [("active", Self::Active), ("observe", Self::Observe), ("mention_only", Self::MentionOnly)];

    pub fn as_str(self) -> &'static str {
        name_of(&Self::ALL, self)
    }

    /// True when these messages together are worth a turn.
    pub fn answers<'a>(self, mut messages: impl Iterator<Item = &'a Inbound>) -> bool {
        messages.any(|message| {
            message.direct
                || match self {
                    ResponseMode::Active => true,
                    ResponseMode::Observe => false,
                    ResponseMode::MentionOnly => message.addressed,
                }
        })
    }
}

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delegation {
    /// The channel talks; branches think and workers act.
    #[default]
    Standard,
    /// The channel has the tools of both too. An answer that needs them takes as long as they do.
    Direct,
}

impl Delegation {
    pub const ALL: [(&'static str, Self); 2] = [("standard", Self::Standard), ("direct", Self::Direct)];

    pub fn as_str(self) -> &'static str {
        name_of(&Self::ALL, self)
    }
}

/// What the long-term memory has to do with a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryMode {
    #[default]
    Full,
    /// It is read, and nothing said here is saved.
    Ambient,
    /// Neither read nor written.
    Off,
}

impl MemoryMode {
    pub const ALL: [(&'static str, Self); 3] =
        [("full", Self::Full), ("ambient", Self::Ambient), ("off", Self::Off)];

    pub fn as_str(self) -> &'static str {
        name_of(&Self::ALL, self)
    }

    pub fn reads(self) -> bool {
        self != Self::Off
    }

    pub fn writes(self) -> bool {
        self == Self::Full
    }
}

fn name_of<T: PartialEq>(all: &[(&'static str, T)], wanted: T) -> &'static str {
    all.iter().find(|(_, value)| *value == wanted).map_or("", |(name, _)| name)
}

/// What is set at one place; what is not is taken from the next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChannelConfig {
    pub response_mode: Option<ResponseMode>,
    pub delegation: Option<Delegation>,
    pub memory_mode: Option<MemoryMode>,
    /// Of the agent: a key beside this table.
    pub worker_context: Option<WorkerContext>,
    /// Of the agent: its routing.
    pub models: ModelOverrides,
}

impl ChannelConfig {
    /// What an agent can say.
    pub(super) fn read(section: &Section<'_, '_>) -> Self {
        Self {
            response_mode: section.choice("response_mode", &ResponseMode::ALL),
            delegation: section.choice("delegation", &Delegation::ALL),
            memory_mode: section.choice("memory_mode", &MemoryMode::ALL),
            ..Self::default()
        }
    }

    /// What a binding can say.
    pub(super) fn read_binding(section: &Section<'_, '_>, llm: &LlmConfig) -> Self {
        Self {
            worker_context: section.choice("worker_context", &WorkerContext::ALL),
            models: ModelOverrides::read(&section.table("models"), llm),
            ..Self::read(section)
        }
    }

    /// As lines of TOML; what is not set is left out.
    pub(super) fn write(&self, out: &mut String) -> std::fmt::Result {
        let set = [
            ("response_mode", self.response_mode.map(ResponseMode::as_str)),
            ("delegation", self.delegation.map(Delegation::as_str)),
            ("memory_mode", self.memory_mode.map(MemoryMode::as_str)),
            ("worker_context", self.worker_context.map(WorkerContext::as_str)),
        ];
        set.iter()
            .filter_map(|(key, value)| Some((key, (*value)?)))
            .try_for_each(|(key, value)| writeln!(out, "{key} = \"{value}\""))?;
        self.models.write(out)
    }

    /// What is set here, else what is set there.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            response_mode: self.response_mode.or(other.response_mode),
            delegation: self.delegation.or(other.delegation),
            memory_mode: self.memory_mode.or(other.memory_mode),
            worker_context: self.worker_context.or(other.worker_context),
            models: self.models.or(other.models),
        }
    }

    /// Without the models that are unknown.
    #[must_use]
    pub fn with_models(self, is_known: impl Fn(&str) -> bool) -> Self {
        Self { models: self.models.only(is_known), ..self }
    }
}

/// What holds in one conversation, every value decided.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChannelSettings {
    pub response_mode: ResponseMode,
    pub delegation: Delegation,
    pub memory_mode: MemoryMode,
    pub worker_context: WorkerContext,
    /// In place of those of the agent's routing.
    pub models: ModelOverrides,
}

impl From<ChannelConfig> for ChannelSettings {
    fn from(config: ChannelConfig) -> Self {
        Self {
            response_mode: config.response_mode.unwrap_or_default(),
            delegation: config.delegation.unwrap_or_default(),
            memory_mode: config.memory_mode.unwrap_or_default(),
            worker_context: config.worker_context.unwrap_or_default(),
            models: config.models,
        }
    }
}

/// `[[bindings]]`: which agent answers where. The first match wins; without a match it is the default agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindingConfig {
    pub agent: AgentId,
    /// The platform: `irc`, `webhook` or `portal`.
    pub channel: String,
    /// The named instance; none means every instance of the platform.
    pub adapter: Option<String>,
    /// Channels of the platform, such as `#pi`; empty means all.
    pub channel_ids: Vec<String>,
    /// In company, only messages that name the agent reach it.
    pub require_mention: Option<bool>,
    /// What holds in the conversations here.
    pub settings: ChannelConfig,
}

impl BindingConfig {
    /// Whether this conversation of this instance is meant.
    pub fn covers(&self, instance: &InstanceId, conversation: &ConversationId) -> bool {
        let (platform, whole) = (instance.platform(), instance.as_str());
        let name = whole.strip_prefix(platform).and_then(|rest| rest.strip_prefix(':'));
        let here = conversation.as_str();
        let channel = here.strip_prefix(whole).and_then(|rest| rest.strip_prefix(':')).unwrap_or(here);
        self.channel == platform
            && self.adapter.as_deref().is_none_or(|adapter| Some(adapter) == name)
            && (self.channel_ids.is_empty()
                || self.channel_ids.iter().any(|id| id.eq_ignore_ascii_case(channel)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{OFFLINE_MODEL, RoutingConfig};
    use crate::id::ProcessKind;

    #[test]
    fn the_nearest_place_that_sets_a_value_decides() {
        let model = |name: &str| Some(format!("p/{name}"));
        let row = ChannelConfig {
            response_mode: Some(ResponseMode::Observe),
            models: ModelOverrides { channel: model("row"), ..ModelOverrides::default() },
            ..ChannelConfig::default()
        };
        let binding = ChannelConfig {
            response_mode: Some(ResponseMode::MentionOnly),
            delegation: Some(Delegation::Direct),
            worker_context: Some(WorkerContext::Fork),
            models: ModelOverrides {
                channel: model("binding"),
                worker: model("binding"),
                ..ModelOverrides::default()
            },
            ..ChannelConfig::default()
        };
        let agent = ChannelConfig {
            delegation: Some(Delegation::Standard),
            memory_mode: Some(MemoryMode::Ambient),
            worker_context: Some(WorkerContext::None),
            ..ChannelConfig::default()
        };
        let resolved = ChannelSettings::from(row.clone().or(binding.clone()).or(agent.clone()));
        assert_eq!(resolved.response_mode, ResponseMode::Observe);
        assert_eq!(resolved.delegation, Delegation::Direct);
        assert_eq!(resolved.memory_mode, MemoryMode::Ambient);
        assert_eq!(resolved.worker_context, WorkerContext::Fork);
        assert!(MemoryMode::Ambient.reads() && !MemoryMode::Ambient.writes() && !MemoryMode::Off.reads());

        let routing = RoutingConfig {
            task_overrides: [("coding".to_owned(), "p/coder".to_owned())].into(),
            ..RoutingConfig::default()
        };
        let asked = |config: ChannelConfig| {
            let models = ChannelSettings::from(config).models;
            let routing = routing.with(&models).into_owned();
            let typed = routing.of_task(Some("coding")).worker.clone();
            let kinds =
                [ProcessKind::Channel, ProcessKind::Branch, ProcessKind::Worker, ProcessKind::Compactor];
            (kinds.map(|kind| routing.model(kind).to_owned()), typed)
        };
        let offline = OFFLINE_MODEL;
        for (config, models) in [
            (agent.clone(), [offline, offline, offline, offline]),
            (binding.clone().or(agent.clone()), ["p/binding", offline, "p/binding", "p/binding"]),
            (row.clone().or(binding.clone()), ["p/row", offline, "p/binding", "p/row"]),
            // What is not known leaves the one below it.
            (
                row.with_models(|model| model != "p/row").or(binding),
                ["p/binding", offline, "p/binding", "p/binding"],
            ),
        ] {
            assert_eq!(
                asked(config),
                (models.map(str::to_owned), "p/coder".to_owned()),
                "a type keeps its own"
            );
        }
    }
}
