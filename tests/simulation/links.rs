//! What is promised of agents that ask each other, checked at the end: each request is one task, its result comes
//! back and is told once, and no chain of questions goes on and on.

#![allow(unreachable_pub)] // one of the parts of one test

use std::collections::BTreeSet;

use spacebot::agent::AgentParts;
use spacebot::id::AgentId;
use spacebot::tools::send_agent_message::DEPTH_MAX;

use crate::model::chain_of;
use crate::promises::texts;
use crate::world::World;

impl World {
    pub fn check_links(&self) -> Result<(), String> {
        for (id, parts) in &self.life.agents {
            let key = "target || ' ' || id || '@' || created_at";
            let asked = texts(parts, &format!("SELECT {key} FROM link_requests"));
            let refused = format!("SELECT {key} FROM link_requests WHERE result LIKE 'Not sent%'");
            let refused = texts(parts, &refused);
            let wanted: BTreeSet<String> = asked.into_iter().filter(|key| !refused.contains(key)).collect();
            let mut taken = Vec::new();
            for (other, board) in &self.life.agents {
                let sql = format!("SELECT asked_key FROM tasks WHERE asked_by = '{id}'");
                taken.extend(texts(board, &sql).iter().map(|key| format!("{other} {key}")));
            }
            let boards: BTreeSet<String> = taken.iter().cloned().collect();
            if boards.len() != taken.len() || boards != wanted {
                return Err(format!("P2: {id} has asked for {wanted:?}, on the boards are {taken:?}"));
            }
            self.results(id, parts).map_err(|error| format!("{id}: {error}"))?;
            chains(parts).map_err(|error| format!("{id}: {error}"))?;
        }
        Ok(())
    }

    fn results(&self, id: &AgentId, parts: &AgentParts) -> Result<(), String> {
        // What somebody has stopped is put aside on the other board until somebody takes it up there.
        let aside = "asked_by = 'AGENT' AND status = 'backlog' AND returned = 0 AND EXISTS
            (SELECT 1 FROM task_attempts a WHERE a.task = number AND outcome = 'cancelled')";
        let aside = |of: &AgentId| {
            format!("SELECT asked_key FROM tasks WHERE {}", aside.replace("AGENT", of.as_str()))
        };
        let waiting: Vec<String> =
            self.life.agents.values().flat_map(|board| texts(board, &aside(id))).collect();
        let open = texts(
            parts,
            "SELECT id || '@' || created_at FROM link_requests
             WHERE state NOT IN ('answered', 'delivered') OR (state = 'answered') <> relayed",
        );
        let unanswered =
            texts(parts, "SELECT id || '@' || created_at FROM link_requests WHERE state = 'delivered'");
        let lost: Vec<_> = unanswered.iter().filter(|key| !waiting.contains(key)).chain(&open).collect();
        if !lost.is_empty() {
            return Err(format!("P1: nothing came of the requests {lost:?}"));
        }
        let kept = texts(
            parts,
            "SELECT number || ' is ' || status FROM tasks WHERE asked_by IS NOT NULL AND returned = 0 AND status <> 'backlog'",
        );
        if !kept.is_empty() {
            return Err(format!("P1: results of these tasks were not taken back: {kept:?}"));
        }
        let told = texts(
            parts,
            "SELECT id || ' told ' || times FROM (SELECT id, relayed, (SELECT count(*) FROM conversation_messages m
                 WHERE m.role = 'event' AND m.channel_id = r.conversation_id
                     AND instr(content, 'process=\"delegation:' || r.id || '\"') > 0) AS times FROM link_requests r)
             WHERE times <> relayed",
        );
        if told.is_empty() { Ok(()) } else { Err(format!("P2: answers of other agents: {told:?}")) }
    }
}

/// Each question says how many have led to it.
fn chains(parts: &AgentParts) -> Result<(), String> {
    for row in texts(parts, "SELECT depth || ' ' || message FROM link_requests") {
        let depth = row.split(' ').next().and_then(|depth| depth.parse::<u32>().ok());
        if depth != chain_of(&row) || depth.is_none_or(|depth| depth > DEPTH_MAX) {
            return Err(format!("P5: a question goes too deep, or is taken for another one: {row}"));
        }
    }
    Ok(())
}
