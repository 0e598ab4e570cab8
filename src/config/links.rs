//! `[[links]]`: which agents may give tasks to which others.

use std::fmt::Write;

use super::section::Section;
use super::{AgentConfig, Config};
use crate::id::AgentId;

/// Messages that one agent may send another over one link within an hour, if the file says nothing: a task
/// every three minutes is work, more is two models that talk to each other.
const MESSAGES_PER_HOUR: usize = 20;
/// Links of one daemon; each stands in the prompt of two agents.
const MAX_LINKS: usize = 256;

/// One link as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkConfig {
    pub from: AgentId,
    pub to: AgentId,
    pub direction: LinkDirection,
    pub kind: LinkKind,
    /// In each direction (`max_messages_per_hour`, 1 to 1,000).
    pub messages_per_hour: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkDirection {
    /// Only `from` may ask.
    OneWay,
    #[default]
    TwoWay,
}

impl LinkDirection {
    /// Each with its name in the config.
    pub const ALL: [(&'static str, Self); 2] = [("one_way", Self::OneWay), ("two_way", Self::TwoWay)];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkKind {
    /// `to` works for `from`.
    Hierarchical,
    #[default]
    Peer,
}

impl LinkKind {
    /// Each with its name in the config.
    pub const ALL: [(&'static str, Self); 2] = [("hierarchical", Self::Hierarchical), ("peer", Self::Peer)];
}

/// A link as one of its two agents sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedAgent {
    pub agent: AgentId,
    pub display_name: String,
    pub relation: Relation,
    /// Tasks may be given to it.
    pub may_ask: bool,
    /// It may give tasks.
    pub may_be_asked: bool,
    /// Messages to it.
    pub messages_per_hour: usize,
}

/// What the other agent is to this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    Superior,
    Subordinate,
    Peer,
}

impl Relation {
    pub fn as_str(self) -> &'static str {
        match self {
            Relation::Superior => "superior",
            Relation::Subordinate => "subordinate",
            Relation::Peer => "peer",
        }
    }
}

impl LinkConfig {
    pub(super) fn read_all(root: &Section<'_, '_>, agents: &[AgentConfig]) -> Vec<Self> {
        let mut links: Vec<Self> = Vec::new();
        for section in root.tables("links") {
            let end = |key: &'static str| {
                let name = section.name(key);
                match &name {
                    None => section.refuse(key, "is needed"),
                    Some(name) if agents.iter().all(|agent| agent.id.as_str() != name) => {
                        section.refuse(key, format!("there is no agent {name:?}"));
                    }
                    Some(_) => {}
                }
                AgentId::new(name.unwrap_or_default())
            };
            let (from, to) = (end("from"), end("to"));
            let known = |link: &Self| {
                (&link.from, &link.to) == (&from, &to) || (&link.from, &link.to) == (&to, &from)
            };
            if from == to {
                section.refuse("to", "links an agent with itself");
            } else if links.iter().any(known) {
                section.refuse("to", "these two agents are linked already");
            }
            if links.len() == MAX_LINKS {
                section.refuse("from", format!("is one link more than {MAX_LINKS}"));
            }
            let limit = section.number("max_messages_per_hour", 1, 1000);
            links.push(Self {
                from,
                to,
                direction: section.choice("direction", &LinkDirection::ALL).unwrap_or_default(),
                kind: section.choice("kind", &LinkKind::ALL).unwrap_or_default(),
                messages_per_hour: limit
                    .and_then(|limit| usize::try_from(limit).ok())
                    .unwrap_or(MESSAGES_PER_HOUR),
            });
            section.finish();
        }
        links
    }

    pub(super) fn write(&self, out: &mut String) -> std::fmt::Result {
        let name =
            |names: [(&'static str, bool); 2]| names.iter().find(|name| name.1).map_or("", |name| name.0);
        let direction = name(LinkDirection::ALL.map(|(name, known)| (name, known == self.direction)));
        let kind = name(LinkKind::ALL.map(|(name, known)| (name, known == self.kind)));
        // Ids of agents need no quoting beyond the marks.
        writeln!(out, "\n[[links]]\nfrom = \"{}\"\nto = \"{}\"", self.from, self.to)?;
        writeln!(out, "direction = \"{direction}\"\nkind = \"{kind}\"")?;
        writeln!(out, "max_messages_per_hour = {}", self.messages_per_hour)
    }

    /// As the agent sees it; none if it is not one of the two.
    fn seen_by(&self, agent: &AgentId, config: &Config) -> Option<LinkedAgent> {
        let begins = self.from == *agent;
        let other = if begins { &self.to } else { &self.from };
        if !begins && self.to != *agent {
            return None;
        }
        let two_way = self.direction == LinkDirection::TwoWay;
        let relation = match self.kind {
            LinkKind::Peer => Relation::Peer,
            LinkKind::Hierarchical if begins => Relation::Subordinate,
            LinkKind::Hierarchical => Relation::Superior,
        };
        Some(LinkedAgent {
            agent: other.clone(),
            display_name: config.agent(Some(other.as_str()))?.display_name.clone(),
            relation,
            may_ask: begins || two_way,
            may_be_asked: !begins || two_way,
            messages_per_hour: self.messages_per_hour,
        })
    }
}

impl Config {
    /// With its bindings, links and people at each agent too.
    pub(super) fn bound(mut self) -> Self {
        let links: Vec<_> = self.agents.iter().map(|agent| of(&agent.id, &self)).collect();
        for (agent, links) in self.agents.iter_mut().zip(links) {
            let own = self.bindings.iter().filter(|binding| binding.agent == agent.id);
            agent.bindings = own.cloned().collect();
            agent.links = links;
            agent.humans.clone_from(&self.humans);
        }
        self
    }
}

/// The links of one agent, in the order in which they are written.
fn of(agent: &AgentId, config: &Config) -> Vec<LinkedAgent> {
    config.links.iter().filter_map(|link| link.seen_by(agent, config)).collect()
}
