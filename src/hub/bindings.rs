//! Which agent answers where: the `[[bindings]]` of the config as a pure function.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{AgentConfig, BindingConfig, Config};
use crate::conversation::EarlierRoom;
use crate::id::{AgentId, ConversationId, InstanceId};
use crate::message::Inbound;

/// The first binding that matches decides; without one it is the default agent.
#[derive(Debug, Clone)]
pub struct Bindings {
    bindings: Vec<BindingConfig>,
    agents: BTreeSet<AgentId>,
    default: AgentId,
    /// For what was said before a conversation began, by agent.
    earlier: BTreeMap<AgentId, EarlierRoom>,
}

/// Why a message reaches no agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// In company, and the agent was not named.
    NotAddressed,
    UnknownAgent(String),
}

impl Bindings {
    /// Those of a config, with its default agent.
    pub fn of(config: &Config) -> Self {
        let agents = config.agents.iter().map(|agent| agent.id.clone());
        let room = |agent: &AgentConfig| (agent.id.clone(), EarlierRoom::of(&agent.limits));
        let earlier = config.agents.iter().map(room).collect();
        Self { earlier, ..Self::new(config.bindings.clone(), agents, config.default_agent()) }
    }

    pub fn new(
        bindings: Vec<BindingConfig>,
        agents: impl IntoIterator<Item = AgentId>,
        default: AgentId,
    ) -> Self {
        Self { bindings, agents: agents.into_iter().collect(), default, earlier: BTreeMap::new() }
    }

    /// Whose conversation this is, as long as no message names another agent.
    pub(super) fn agent_of(&self, instance: &InstanceId, conversation: &ConversationId) -> &AgentId {
        self.covering(instance, conversation).map_or(&self.default, |binding| &binding.agent)
    }

    /// The agent's room for what was said before a conversation began.
    pub(super) fn earlier(&self, agent: &AgentId) -> EarlierRoom {
        self.earlier.get(agent).copied().unwrap_or_default()
    }

    fn covering(&self, instance: &InstanceId, conversation: &ConversationId) -> Option<&BindingConfig> {
        self.bindings.iter().find(|binding| binding.covers(instance, conversation))
    }

    /// # Errors
    /// The message is for nobody here.
    pub fn route(&self, message: &Inbound) -> Result<&AgentId, Refused> {
        if let Some(named) = &message.agent {
            return self.agents.get(named).ok_or_else(|| Refused::UnknownAgent(named.to_string()));
        }
        let Some(binding) = self.covering(&message.instance, &message.conversation) else {
            return Ok(&self.default);
        };
        if binding.require_mention == Some(true) && !message.direct && !message.addressed {
            return Err(Refused::NotAddressed);
        }
        Ok(&binding.agent)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::{ConversationId, InstanceId};

    fn message(instance: &str, channel: &str, addressed: bool) -> Inbound {
        Inbound {
            instance: InstanceId::new(instance),
            platform_id: "1".to_owned(),
            conversation: ConversationId::new(format!("{instance}:{channel}")),
            agent: None,
            sender_id: "a".to_owned(),
            sender_name: "a".to_owned(),
            content: "hi".to_owned(),
            sent_at: Timestamp(0),
            direct: false,
            addressed,
            place: String::new(),
        }
    }

    fn binding(
        agent: &str,
        channel: &str,
        adapter: Option<&str>,
        ids: &[&str],
        mention: Option<bool>,
    ) -> BindingConfig {
        BindingConfig {
            agent: AgentId::new(agent),
            channel: channel.to_owned(),
            adapter: adapter.map(str::to_owned),
            channel_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            require_mention: mention,
            settings: Default::default(),
        }
    }

    #[test]
    fn the_first_match_wins_and_the_default_takes_the_rest() {
        let list = vec![
            binding("ops", "irc", Some("libera"), &["#ops"], None),
            binding("pub", "irc", Some("libera"), &[], Some(true)),
            binding("any", "irc", None, &[], None),
        ];
        let agents = ["main", "ops", "pub", "any"].map(AgentId::new);
        let bindings = Bindings::new(list, agents, AgentId::new("main"));
        let route = |message: &Inbound| bindings.route(message).map(|agent| agent.to_string());
        assert_eq!(route(&message("irc:libera", "#Ops", false)), Ok("ops".to_owned()));
        assert_eq!(route(&message("irc:libera", "#pi", true)), Ok("pub".to_owned()));
        assert_eq!(route(&message("irc:libera", "#pi", false)), Err(Refused::NotAddressed));
        assert_eq!(route(&message("irc:oftc", "#pi", false)), Ok("any".to_owned()));
        assert_eq!(route(&message("webhook", "x", false)), Ok("main".to_owned()));
        let mut named = message("webhook", "x", false);
        named.agent = Some(AgentId::new("nobody"));
        assert_eq!(route(&named), Err(Refused::UnknownAgent("nobody".to_owned())));
        named.agent = Some(AgentId::new("ops"));
        assert_eq!(route(&named), Ok("ops".to_owned()));
    }
}
