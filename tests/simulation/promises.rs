//! The promises, checked after every step and at the end.

#![allow(unreachable_pub)] // one of the parts of one test

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spacebot::agent::{AgentParts, Work};
use spacebot::clock::{Clock, Timestamp};
use spacebot::db::rusqlite::Connection;
use spacebot::error::Kind;
use spacebot::id::{AgentId, ConversationId, ProcessKind};
use spacebot::message::Inbound;
use spacebot::prompts;
use spacebot::tools::speech::Speech;

use crate::INSTANCE;
use crate::life::Pending;
use crate::replay;
use crate::start::{agent_of, limits, place_of};
use crate::world::World;

impl World {
    pub fn check_step(&self) -> Result<(), String> {
        if let Some(((_, id), count)) = self.platform.arrived.iter().find(|(_, count)| **count > 1) {
            return Err(format!("P2: answer {id} arrived {count} times"));
        }
        let mut running: BTreeMap<(String, String, ProcessKind, bool), usize> = BTreeMap::new();
        for pending in self.life.jobs.borrow().iter() {
            let commands = matches!(pending.job.work, Work::Commands { .. });
            let (place, kind) = (pending.job.place.conversation.to_string(), pending.job.process.kind);
            let key = (pending.agent.to_string(), place, kind, commands);
            *running.entry(key).or_default() += 1;
        }
        for ((_, conversation, kind, _), count) in running {
            // Of the compactors, one for the window and one for memories, of what has left it or of the rest.
            let most = if kind == ProcessKind::Channel { 1 } else { 2 };
            if count > most {
                return Err(format!("P5: {count} of {kind:?} in {conversation}"));
            }
        }
        self.ground.watch.check()?;
        self.ground.accounts.check()?;
        self.check_never_blocked()?;
        self.check_waits()?;
        self.check_windows()
    }

    /// In company, a message waits for others no longer than it may.
    pub fn check_waits(&self) -> Result<(), String> {
        let (place, life) = (place_of(0), &self.life);
        let here = |pending: &Pending| pending.job.place == place;
        if life.failing.borrow().contains(&place.conversation) || life.jobs.borrow().iter().any(here) {
            return Ok(());
        }
        let sql = "SELECT min(received_at) FROM inbox WHERE conversation_id = ?1 AND answered_at IS NULL";
        let read = |connection: &Connection| {
            Ok(connection
                .query_row(sql, [place.conversation.as_str()], |row| row.get::<_, Option<i64>>(0))?)
        };
        let Some(oldest) = life.parts.conversations.db().read(read).expect("read") else { return Ok(()) };
        let waited = self.clock.now().since(Timestamp(oldest));
        if waited > limits().coalescing.max_wait && life.status(self.now()).waiting_turns == 0 {
            return Err(format!("a message in company has waited for {waited:?}"));
        }
        Ok(())
    }

    /// Every line stands in the window or behind exactly one summary, in an archive that holds it.
    pub fn check_windows(&self) -> Result<(), String> {
        for number in 0..self.conversations() {
            let conversation = ConversationId::new(format!("{INSTANCE}:{number}"));
            let conversations = &self.life.agents[&agent_of(&conversation)].conversations;
            let said = conversations.find(&conversation, &[], None, usize::MAX >> 1).expect("read").lines;
            let window = conversations.window(&conversation).expect("read");
            let mut behind = Vec::new();
            for summary in &window.summaries {
                let lines = conversations.lines(&conversation, summary.first_line, summary.last_line);
                behind.extend(lines.expect("read").iter().map(|line| line.id));
            }
            let seen: Vec<i64> = behind.into_iter().chain(window.lines.iter().map(|line| line.id)).collect();
            if !seen.iter().eq(said.iter().map(|line| &line.id)) {
                return Err(format!("lines of {conversation} are lost or doubled: {seen:?}"));
            }
        }
        Ok(())
    }

    /// P3: a conversation with a message and a free turn has a turn, whatever else runs in it.
    pub fn check_never_blocked(&self) -> Result<(), String> {
        let report = self.life.status(self.now());
        let turns = self
            .life
            .jobs
            .borrow()
            .iter()
            .filter(|pending| pending.job.process.kind == ProcessKind::Channel)
            .count();
        if report.waiting_turns > 0 && turns < limits().max_concurrent_turns {
            return Err(format!("P3: {} conversations wait while {turns} turns run", report.waiting_turns));
        }
        Ok(())
    }

    /// Every start and end of a run, every memory and every turn that failed is one event, whatever crashed.
    pub fn check_events(&self, read: &dyn Fn(&str) -> Vec<String>) -> Result<(), String> {
        let ends = "SELECT run FROM (
                SELECT 'branch:' || id AS run FROM branch_runs UNION ALL SELECT 'worker:' || id FROM worker_runs) runs
            WHERE (SELECT count(*) FROM working_memory_events e WHERE e.run = runs.run
                   AND kind IN ('branch_completed', 'worker_completed', 'error')) <> 1";
        let starts = "SELECT 'worker:' || id FROM worker_runs
            WHERE (SELECT count(*) FROM working_memory_events
                   WHERE run = 'worker:' || worker_runs.id AND kind = 'worker_spawned') <> 1";
        let memories = "SELECT 'not as many' WHERE (SELECT count(*) FROM memories)
               <> (SELECT count(*) FROM working_memory_events WHERE kind = 'memory_saved')";
        let strangers = "SELECT kind || ' ' || text FROM working_memory_events
            WHERE run LIKE 'branch:%' AND substr(run, 8) NOT IN (SELECT id FROM branch_runs)
               OR run LIKE 'worker:%' AND substr(run, 8) NOT IN (SELECT id FROM worker_runs)";
        // The simulated branch saves at most one, also when it was cut off and went on.
        let twice =
            "SELECT run FROM working_memory_events WHERE kind = 'memory_saved' AND run LIKE 'branch:%'
            GROUP BY run HAVING count(*) > 1";
        // Each line is read once: what was kept of it are its words.
        let doubled = "SELECT content FROM memories WHERE source LIKE 'agent:compactor:%'
            GROUP BY content HAVING count(*) > 1";
        let endless = "SELECT 'worker ' || id FROM worker_runs WHERE continuations > 3
            UNION ALL SELECT 'branch ' || id FROM branch_runs WHERE continuations > 3";
        let cases = [
            ("ends", ends),
            ("starts", starts),
            ("memories", memories),
            ("causes", strangers),
            ("saves", twice),
            ("readings", doubled),
            ("continuations", endless),
        ];
        for (what, sql) in cases {
            let found = read(sql);
            if !found.is_empty() {
                return Err(format!("events and {what} differ: {found:?}"));
            }
        }
        let kinds = [
            Kind::Transient,
            Kind::RateLimited,
            Kind::Auth,
            Kind::NotFound,
            Kind::Budget,
            Kind::Full,
            Kind::Bug,
            Kind::Invalid,
        ];
        let sorry = |said: &&String| kinds.iter().any(|kind| *said == prompts::notice(kind.notice()));
        let texts = read("SELECT coalesce(json_extract(content, '$.text'), '') FROM outbox");
        let apologies = texts.iter().filter(sorry).count();
        let told =
            read("SELECT run FROM working_memory_events WHERE kind = 'error' AND run LIKE 'channel:%'");
        if apologies != told.len() {
            return Err(format!("{apologies} turns could not be answered, told was of {told:?}"));
        }
        Ok(())
    }

    /// Of all agents together.
    pub fn count(&self, sql: &str) -> usize {
        let read = |connection: &Connection| Ok(connection.query_row(sql, [], |row| row.get::<_, usize>(0))?);
        let of = |parts: &Arc<AgentParts>| parts.conversations.db().read(read).expect("read");
        self.life.agents.values().map(of).sum()
    }

    pub fn compacted(&self) -> [usize; 3] {
        let count = |sql| self.count(sql);
        [
            count("SELECT count(*) FROM conversation_summaries WHERE content IS NOT NULL"),
            count("SELECT count(*) FROM conversation_summaries WHERE content IS NULL"),
            count("SELECT count(*) FROM conversation_archives WHERE unread = 0"),
        ]
    }

    pub fn check_end(&self) -> Result<(), String> {
        for (id, parts) in &self.life.agents {
            self.check_end_of(id, parts).map_err(|error| format!("{id}: {error}"))?;
            self.check_deferral(parts).map_err(|error| format!("{id}: {error}"))?;
            self.check_cortex(parts).map_err(|error| format!("{id}: {error}"))?;
        }
        self.check_links()?;
        self.check_breakers()?;
        self.ground.accounts.check_end(self.crashes)?;
        if !self.life.status(self.now()).busy.is_empty() {
            return Err("P4: the hub still holds conversations".to_owned());
        }
        Ok(())
    }

    fn check_end_of(&self, id: &AgentId, parts: &AgentParts) -> Result<(), String> {
        let read = |sql: &str| texts(parts, sql);
        let answered: BTreeSet<String> =
            read("SELECT platform_id FROM inbox WHERE answered_at IS NOT NULL").into_iter().collect();
        let of = |sent: &Inbound| (sent.platform_id.clone(), agent_of(&sent.conversation));
        let whose: BTreeMap<_, _> = self.platform.sent.iter().map(of).collect();
        for id in self.platform.told.iter().filter(|message| whose[*message] == *id) {
            if !answered.contains(id) {
                return Err(format!("P1: {id} was taken and is not answered"));
            }
        }
        let inbox = read("SELECT platform_id FROM inbox");
        if inbox.len() != inbox.iter().collect::<BTreeSet<_>>().len() {
            return Err("P2: a message stands in the inbox twice".to_owned());
        }
        let outbox = read("SELECT content FROM outbox");
        for id in &answered {
            let word = format!("re:{id}");
            let count =
                outbox.iter().flat_map(|text| text.split(['"', ' '])).filter(|text| **text == word).count();
            if count > 1 {
                return Err(format!("P2: {id} was answered {count} times"));
            }
        }
        // A record's id is that of its run, shifted, and its number.
        let twice = read(
            "SELECT m.value || ' by ' || group_concat(j.id >> 16) FROM run_journal j, json_each(j.payload, '$.messages') m
             WHERE j.kind IN ('start', 'route')
                 AND EXISTS (SELECT 1 FROM run_journal e WHERE e.kind = 'end' AND e.id >> 16 = j.id >> 16)
             GROUP BY m.value HAVING count(*) > 1",
        );
        if !twice.is_empty() {
            return Err(format!("P2: messages that several turns have answered: {twice:?}"));
        }
        let routed = read(
            "SELECT message || ' came ' || times FROM (SELECT message, (SELECT count(*) FROM run_journal
                     WHERE kind = 'route' AND json_extract(payload, '$.text') = message)
                 + (SELECT count(*) FROM worker_runs WHERE instr(result, '- ' || message) > 0) AS times
                 FROM (SELECT json_extract(j.payload, e.fullkey || '.route.message') AS message FROM run_journal j, json_each(j.payload, '$.effects') e
                     WHERE j.kind = 'tool' AND message IS NOT NULL
                         AND EXISTS (SELECT 1 FROM run_journal e WHERE e.kind = 'end' AND e.id >> 16 = j.id >> 16)))
             WHERE times <> 1",
        );
        if !routed.is_empty() {
            return Err(format!("P2: messages that a worker has not heard once: {routed:?}"));
        }
        let open = read("SELECT state FROM outbox WHERE state IN ('pending', 'sending')");
        if !open.is_empty() {
            return Err(format!("P1: {} answers were never sent", open.len()));
        }
        let runs = read(
            "SELECT 'branch ' || id FROM branch_runs WHERE relayed = 0 OR status = 'running'
             UNION ALL SELECT 'worker ' || id FROM worker_runs WHERE relayed = 0 OR status = 'running'",
        );
        if !runs.is_empty() {
            return Err(format!("P1: results that nobody heard of: {runs:?}"));
        }
        let told = read(
            "SELECT run || ' told ' || times FROM (SELECT 'branch:' || id AS run, (SELECT count(*) FROM conversation_messages m
                 WHERE m.role = 'event' AND m.channel_id = b.channel_id
                     AND instr(content, 'process=\"branch:' || b.id || '\"') > 0) AS times FROM branch_runs b)
             WHERE times <> 1",
        );
        if !told.is_empty() {
            return Err(format!("P2: results that were not told once: {told:?}"));
        }
        let vanished = read(
            "SELECT started FROM (
                 SELECT json_extract(json_extract(t.payload, '$.result'), '$.started') AS started
                 FROM run_journal t WHERE t.kind = 'tool' AND t.payload LIKE '%\"started\":1%'
                     AND json_extract(t.payload, '$.tool') <> 'send_agent_message'
                     AND EXISTS (SELECT 1 FROM run_journal e WHERE e.kind = 'end' AND e.id >> 16 = t.id >> 16))
             WHERE started NOT IN (SELECT 'branch:' || id FROM branch_runs
                                   UNION ALL SELECT 'worker:' || id FROM worker_runs)",
        );
        if !vanished.is_empty() {
            return Err(format!("P1: a turn has started these, and nobody knows of them: {vanished:?}"));
        }
        replay::of_agent(&parts.conversations, &Speech::default())?;
        self.check_events(&read)?;
        let begun =
            read("SELECT number || ' is ' || status FROM tasks WHERE status IN ('ready', 'in_progress')");
        if !begun.is_empty() {
            return Err(format!("tasks that nobody takes: {begun:?}"));
        }
        // What is final is told once: a success, a stop, and the failure after which nothing is tried; and what
        // names messages that its worker has not read.
        let told = read(&format!(
            "SELECT t.number || ': ' || final || ' ends, told ' || told FROM
                 (SELECT number, (SELECT count(*) FROM task_attempts a JOIN worker_runs w ON w.id = a.worker
                     WHERE a.task = number AND (outcome IN ('success', 'partial', 'cancelled') OR attempt >= 3
                         OR instr(w.result, '{}') > 0)) AS final,
                 (SELECT count(*) FROM conversation_messages WHERE role = 'event'
                     AND instr(content, 'task=\"task #' || number || ': ') > 0) AS told
                 FROM tasks WHERE asked_by IS NULL) t
             WHERE final <> told",
            prompts::notice("worker_unheard")
        ));
        if !told.is_empty() {
            return Err(format!("results of tasks: {told:?}"));
        }
        let attempts =
            read("SELECT 'task ' || task FROM task_attempts WHERE attempt > 3 OR ended_at IS NULL");
        if !attempts.is_empty() {
            return Err(format!("attempts over the limit or never ended: {attempts:?}"));
        }
        Ok(())
    }
}

/// The first column of every row.
pub fn texts(parts: &AgentParts, sql: &str) -> Vec<String> {
    let read = |connection: &Connection| {
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        Ok(rows)
    };
    parts.conversations.db().read(read).expect("read")
}
