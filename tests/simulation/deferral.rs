//! What is promised of messages that wait for a model, checked at the end: each is answered once, in its order and
//! with its age, or given up by the policy, and either stands in the history.

#![allow(unreachable_pub)] // one of the parts of one test

use std::collections::BTreeMap;

use spacebot::agent::AgentParts;
use spacebot::clock::Timestamp;
use spacebot::prompts;
use spacebot::turn::{self, Part};

use crate::promises::texts;
use crate::start::MAX_AGE;
use crate::world::World;

/// When messages of a turn that was committed were taken, with the turn.
const TURNS: &str = "SELECT json_array(j.at, j.id >> 16, json_extract(j.payload, '$.conversation'),
        json_extract(j.payload, '$.messages'), json_extract(j.payload, '$.prompt')) FROM run_journal j
    WHERE j.kind = 'start' AND json_extract(j.payload, '$.kind') = 'channel'
        AND EXISTS (SELECT 1 FROM run_journal e WHERE e.kind = 'end' AND e.id >> 16 = j.id >> 16)
    ORDER BY j.id";

/// A message, when it was put off, when it was over, and when it was sent.
const PUT_OFF: &str = "SELECT json_array(platform_id, deferred_at, answered_at, sent_at, direct) FROM inbox
    WHERE deferred_at IS NOT NULL ORDER BY id";

impl World {
    pub fn check_deferral(&self, parts: &AgentParts) -> Result<(), String> {
        let json = |text: &String| serde_json::from_str::<serde_json::Value>(text).expect("json");
        let put_off: BTreeMap<String, [i64; 3]> = texts(parts, PUT_OFF)
            .iter()
            .map(json)
            .map(|row| {
                let number = |index: usize| row[index].as_i64().unwrap_or_default();
                (row[0].as_str().unwrap_or_default().to_owned(), [number(1), number(2), number(3)])
            })
            .collect();
        // What was lost on the way stands behind what came before it was sent again.
        let arrived = texts(parts, "SELECT platform_id FROM inbox ORDER BY id");
        let places: BTreeMap<&str, usize> = arrived.iter().map(String::as_str).zip(1..).collect();
        let mut newest: BTreeMap<String, usize> = BTreeMap::new();
        for row in texts(parts, TURNS).iter().map(json) {
            let (at, prompt) = (row[0].as_i64().unwrap_or_default(), row[4].as_str().unwrap_or_default());
            let ids: Vec<&str> =
                row[3].as_array().into_iter().flatten().filter_map(|id| id.as_str()).collect();
            let waited: Vec<_> =
                ids.iter().filter_map(|id| put_off.get(*id)).filter(|times| times[0] < at).collect();
            if let Some(stale) = waited.iter().find(|times| at - times[0] > millis(MAX_AGE)) {
                return Err(format!("deferral: the turn {} is about what was put off at {stale:?}", row[1]));
            }
            if !waited.is_empty() && !prompt.contains(prompts::notice("waited")) {
                return Err(format!("deferral: the turn {} does not know that {ids:?} had to wait", row[1]));
            }
            let age = |times: &[i64; 3]| says_when(prompt, times[2]);
            if let Some(times) = waited.iter().find(|times| !age(times)) {
                return Err(format!("deferral: the turn {} does not say the time of {times:?}", row[1]));
            }
            let order = newest.entry(row[2].to_string()).or_default();
            for id in &ids {
                if places[*id] < *order {
                    return Err(format!("deferral: {id} is answered behind newer ones"));
                }
                *order = places[*id];
            }
        }
        given_up(parts)?;
        announced(parts)
    }
}

fn millis(time: std::time::Duration) -> i64 {
    i64::try_from(time.as_millis()).expect("small")
}

/// Times are written in whole seconds.
fn says_when(prompt: &str, sent_at: i64) -> bool {
    let near = |at: &Timestamp| (at.0 - sent_at).abs() < 1_000;
    turn::read(prompt).iter().any(|part| matches!(part, Part::Said { at, .. } if near(at)))
}

/// What no turn has dealt with has waited for too long, was told so, and stands in the history; or it has an apology.
/// What a turn had begun for it before its model was lost is told all the same.
fn given_up(parts: &AgentParts) -> Result<(), String> {
    let stale = prompts::notice("stale");
    let wrong = texts(
        parts,
        &format!(
            "SELECT platform_id || ' put off for ' || (answered_at - deferred_at) || ', told ' || told || ' ' || otherwise FROM (
                 SELECT i.*, (SELECT count(*) FROM outbox o WHERE json_extract(o.content, '$.text') = '{stale}'
                         AND EXISTS (SELECT 1 FROM json_each(o.answers) WHERE value = i.platform_id)) AS told,
                     (SELECT count(*) FROM outbox o WHERE json_extract(o.content, '$.text') <> '{stale}'
                         AND EXISTS (SELECT 1 FROM json_each(o.answers) WHERE value = i.platform_id)) AS otherwise,
                     EXISTS (SELECT 1 FROM run_journal j, json_each(j.payload, '$.messages') m
                         WHERE j.kind IN ('start', 'route') AND m.value = i.platform_id
                             AND EXISTS (SELECT 1 FROM run_journal e WHERE e.kind = 'end' AND e.id >> 16 = j.id >> 16)) AS turned,
                     EXISTS (SELECT 1 FROM (SELECT answers FROM branch_runs UNION ALL SELECT answers FROM worker_runs) r,
                         json_each(r.answers) WHERE value = i.platform_id) AS begun,
                     (SELECT count(*) FROM conversation_messages h WHERE h.role = 'user'
                         AND h.channel_id = i.conversation_id AND h.content = i.content) AS lines
                 FROM inbox i WHERE i.deferred_at IS NOT NULL)
             WHERE lines <> 1 OR told > 1 OR (told > 0 AND (turned OR otherwise > 0 AND NOT begun))
                 OR (told > 0 AND answered_at - deferred_at <= {max})
                 OR (NOT turned AND told = 0 AND otherwise = 0 AND (direct OR answered_at - deferred_at <= {max}))",
            max = millis(MAX_AGE),
        ),
    );
    if wrong.is_empty() { Ok(()) } else { Err(format!("deferral: not answered once or given up: {wrong:?}")) }
}

/// That messages are kept is said once, until none waits any more: when the first of them is put off, at the same
/// moment, and not after that. (At that moment others may have been told so and answered.)
fn announced(parts: &AgentParts) -> Result<(), String> {
    let kept = prompts::notice("deferred");
    let twice = texts(
        parts,
        &format!(
            "SELECT i.platform_id FROM inbox i WHERE deferred_at IS NOT NULL AND 0 < (SELECT count(*) FROM outbox o
                 WHERE o.conversation_id = i.conversation_id AND json_extract(o.content, '$.text') = '{kept}'
                     AND o.created_at > i.deferred_at AND o.created_at < i.answered_at)"
        ),
    );
    if twice.is_empty() { Ok(()) } else { Err(format!("deferral: told again while these waited: {twice:?}")) }
}
