//! What is promised of the cortex and of breakers, checked at the end: each event stands in one paragraph at most,
//! a day has one summary, the operator has one answer for each question, and what is well again does not rest.

#![allow(unreachable_pub)] // one of the parts of one test

use std::collections::BTreeSet;

use spacebot::agent::AgentParts;

use crate::promises::texts;
use crate::world::World;

const DAY: i64 = 86_400_000;

impl World {
    pub fn check_cortex(&self, parts: &AgentParts) -> Result<(), String> {
        let twice = texts(
            parts,
            &format!(
                "SELECT 'paragraphs up to ' || last_event FROM working_memory_syntheses WHERE daily = 0
                     GROUP BY last_event HAVING count(*) > 1
                 UNION ALL SELECT 'summaries of day ' || (from_at / {DAY}) FROM working_memory_syntheses WHERE daily = 1
                     GROUP BY from_at / {DAY} HAVING count(*) > 1
                 UNION ALL SELECT 'paragraphs hold ' || sum(events) FROM working_memory_syntheses WHERE daily = 0
                     HAVING sum(events) > (SELECT count(*) FROM working_memory_events)"
            ),
        );
        if !twice.is_empty() {
            return Err(format!("P4: put together twice: {twice:?}"));
        }
        // A crash may have cut off the answer, and nothing else may.
        let answers = texts(
            parts,
            "SELECT content || ' answered ' || answers FROM (SELECT q.content, (SELECT count(*) FROM cortex_chat_messages a
                 WHERE a.thread_id = q.thread_id AND a.role = 'assistant' AND a.id > q.id AND a.id < coalesce(
                     (SELECT min(n.id) FROM cortex_chat_messages n WHERE n.thread_id = q.thread_id AND n.role = 'user'
                         AND n.id > q.id), 9e15)) AS answers FROM cortex_chat_messages q WHERE q.role = 'user')
             WHERE answers <> 1",
        );
        if answers.len() > self.crashes || answers.iter().any(|answer| !answer.ends_with('0')) {
            return Err(format!("P2: {} crashes, answers to the operator: {answers:?}", self.crashes));
        }
        Ok(())
    }

    /// What is well again is asked as usual; what is not is known to be so.
    pub fn check_breakers(&self) -> Result<(), String> {
        let lost: BTreeSet<String> = self.life.parts.llm.lost().into_iter().map(|lost| lost.model).collect();
        let expected = self.ground.watch.ailing();
        if lost != expected {
            return Err(format!("the models {lost:?} rest, {expected:?} should"));
        }
        Ok(())
    }
}
