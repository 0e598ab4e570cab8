//! One outbox for adapters over the databases of all agents. An id that leaves here carries the
//! number of its agent ([`super::places`]) in its low bits, because every database counts by itself.

use crate::conversation::Conversations;
use crate::error::Kind;
use crate::id::{ConversationId, InstanceId, OutboxId};
use crate::message::{Delivery, Outbound, Outbox, OutboxError, Recorded};

/// Low bits of an id that hold the number of the agent.
const AGENT_BITS: u32 = 6;
/// Most agents of one daemon.
pub const MAX_AGENTS: usize = 1 << AGENT_BITS;

pub struct AgentOutbox {
    /// With its number.
    agents: Vec<(i64, Conversations)>,
}

impl AgentOutbox {
    /// Each with its number, below [`MAX_AGENTS`].
    pub fn new(agents: Vec<(i64, Conversations)>) -> Self {
        Self { agents }
    }
}

impl Outbox for AgentOutbox {
    fn pending(
        &self,
        instance: &InstanceId,
        conversation: Option<&ConversationId>,
        after: OutboxId,
        limit: usize,
    ) -> Result<Vec<Outbound>, OutboxError> {
        let mut all = Vec::new();
        for (place, agent) in &self.agents {
            // The newest row of this agent whose outer id is not above `after`.
            let row = OutboxId((after.0 - place) >> AGENT_BITS);
            let rows = agent.pending(instance, conversation, row, limit)?;
            all.extend(rows.into_iter().map(|outbound| Outbound {
                id: OutboxId((outbound.id.0 << AGENT_BITS) | place),
                ..outbound
            }));
        }
        if self.agents.len() > 1 {
            all.sort_by_key(|outbound| outbound.id);
            all.truncate(limit);
        }
        Ok(all)
    }

    fn acknowledge(&self, ids: &[OutboxId], conversation: &ConversationId) -> Result<(), OutboxError> {
        self.for_each(ids, |agent, rows| agent.acknowledge(rows, conversation))
    }

    fn record(
        &self,
        ids: &[OutboxId],
        conversation: &ConversationId,
        delivery: Delivery,
    ) -> Result<(), OutboxError> {
        self.for_each(ids, |agent, rows| agent.record(rows, conversation, delivery.clone()))
    }

    fn begin_record(
        &self,
        ids: &[OutboxId],
        conversation: &ConversationId,
        delivery: Delivery,
        recorded: Recorded,
    ) {
        match self.by_agent(ids) {
            Ok(parts) => record_all(parts, conversation.clone(), delivery, recorded),
            Err(error) => recorded(Err(error)),
        }
    }
}

type Part = (Conversations, Vec<OutboxId>);

/// One agent after the other; nearly always there is but one.
fn record_all(mut parts: Vec<Part>, conversation: ConversationId, delivery: Delivery, recorded: Recorded) {
    let Some((agent, rows)) = parts.pop() else { return recorded(Ok(())) };
    let (of_all, again) = (conversation.clone(), delivery.clone());
    let next = move |result: Result<(), OutboxError>| match result {
        Ok(()) => record_all(parts, of_all, again, recorded),
        Err(error) => recorded(Err(error)),
    };
    agent.begin_record(&rows, &conversation, delivery, Box::new(next));
}

impl AgentOutbox {
    /// Calls `change` with the rows of each agent.
    fn for_each(
        &self,
        ids: &[OutboxId],
        change: impl Fn(&Conversations, &[OutboxId]) -> Result<(), OutboxError>,
    ) -> Result<(), OutboxError> {
        self.by_agent(ids)?.iter().try_for_each(|(agent, rows)| change(agent, rows))
    }

    fn by_agent(&self, ids: &[OutboxId]) -> Result<Vec<Part>, OutboxError> {
        let mask = (1 << AGENT_BITS) - 1;
        let of_nobody = |id: &OutboxId| self.agents.iter().all(|(place, _)| id.0 & mask != *place);
        if let Some(id) = ids.iter().find(|id| of_nobody(id)) {
            let reason = format!("answer {id} belongs to no agent");
            return Err(OutboxError { reason, kind: Kind::NotFound });
        }
        let mut parts = Vec::new();
        for (place, agent) in &self.agents {
            let rows: Vec<_> = ids
                .iter()
                .filter(|id| id.0 & mask == *place)
                .map(|id| OutboxId(id.0 >> AGENT_BITS))
                .collect();
            if !rows.is_empty() {
                parts.push((agent.clone(), rows));
            }
        }
        Ok(parts)
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;
    use crate::clock::{SimulatedClock, Timestamp};
    use crate::conversation::{Place, TurnCommit};
    use crate::db::Db;
    use crate::message::Content;

    #[test]
    fn two_agents_share_an_instance_without_mixing_their_rows() {
        let folder = tempfile::tempdir().expect("folder");
        let agent = |name: &str| {
            let db = Db::open_inline(&folder.path().join(name), None).expect("open");
            Conversations::new(db, SimulatedClock::starting_at(Timestamp(1)))
        };
        let agents = vec![agent("a"), agent("b")];
        let instance = InstanceId::new("irc");
        for (name, agent) in ["irc:#a", "irc:#b"].iter().zip(&agents) {
            let place = Place {
                conversation: ConversationId::new(name),
                instance: instance.clone(),
                direct: false,
                name: String::new(),
            };
            let say = (0..2).map(|n| Content::Text { text: format!("{name} {n}") }).collect();
            agent.commit_turn(&place, TurnCommit { say, ..TurnCommit::default() }).expect("commit");
        }
        let outbox = AgentOutbox::new((0..).zip(agents).collect());
        let all = outbox.pending(&instance, None, OutboxId(0), 10).expect("read");
        assert_eq!(all.len(), 4);
        for after in &all {
            let later = outbox.pending(&instance, None, after.id, 10).expect("read");
            assert_eq!(
                later.iter().map(|row| row.id).collect::<Vec<_>>(),
                all.iter().map(|row| row.id).filter(|id| *id > after.id).collect::<Vec<_>>()
            );
        }
        let of_b: Vec<_> =
            all.iter().filter(|row| row.conversation.as_str() == "irc:#b").map(|row| row.id).collect();
        outbox
            .record(&of_b, &ConversationId::new("irc:#b"), Delivery::Sent { platform_id: None })
            .expect("write");
        let left = outbox.pending(&instance, None, OutboxId(0), 10).expect("read");
        assert!(left.len() == 2 && left.iter().all(|row| row.conversation.as_str() == "irc:#a"));
    }

    #[test]
    fn the_answers_of_a_conversation_that_moves_to_another_agent_come_behind_the_older_ones() {
        let folder = tempfile::tempdir().expect("folder");
        let clock = SimulatedClock::starting_at(Timestamp(1_795_262_400_000));
        let agent = |name: &str| {
            let db = Db::open_inline(&folder.path().join(name), None).expect("open");
            Conversations::new(db, clock.clone())
        };
        let (one, other) = (agent("a"), agent("b"));
        let outbox = AgentOutbox::new(vec![(0, one.clone()), (1, other.clone())]);
        let (instance, conversation) = (InstanceId::new("webhook"), ConversationId::new("webhook:c"));
        let place = Place {
            conversation: conversation.clone(),
            instance: instance.clone(),
            direct: true,
            name: String::new(),
        };
        let answer = |agent: &Conversations, words: &str| {
            let say = vec![Content::Text { text: words.to_owned() }];
            agent.commit_turn(&place, TurnCommit { say, ..TurnCommit::default() }).expect("commit");
        };
        let mut seen = OutboxId(0);
        let mut heard = Vec::new();
        // The first agent has said much more; each time the conversation moves, the client asks for what
        // comes behind the last id that it has.
        for (agent, words) in
            [(&one, "1"), (&one, "2"), (&one, "3"), (&other, "4"), (&one, "5"), (&other, "6")]
        {
            answer(agent, words);
            clock.advance(std::time::Duration::from_secs(1));
            let new = outbox.pending(&instance, Some(&conversation), seen, 10).expect("read");
            seen = new.last().map_or(seen, |outbound| outbound.id);
            heard.extend(new.into_iter().map(|outbound| outbound.content));
        }
        let texts = heard.iter().map(|content| match content {
            Content::Text { text } => text.as_str(),
            other => panic!("{other:?}"),
        });
        assert_eq!(texts.collect::<Vec<_>>(), ["1", "2", "3", "4", "5", "6"]);
        assert!(seen.0 < 1 << 53, "clients in JavaScript read ids as numbers");
    }
}
