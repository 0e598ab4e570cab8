//! What a turn is about: unanswered messages and waiting results, and what comes while it runs.

use super::super::AgentParts;
use super::super::job::Job;
use super::attached::Attached;
use super::run::About;
use crate::conversation::WaitingResult;
use crate::db::DbError;
use crate::error::Fault;
use crate::event::Received;
use crate::id::InboxId;
use crate::message::Attachment;
use crate::message::attachment::with_lines;
use crate::prompts::{self, PromptError, Template};
use crate::turn::{self, Part};

/// Messages that one turn takes, in company at once, and with those that come while it runs; the rest
/// waits for the next turn.
const MAX_MESSAGES: usize = 32;
/// Results that one turn relays; the rest waits for the next one.
const MAX_RESULTS: usize = 16;

#[derive(Default)]
pub(super) struct Input {
    /// The oldest that are unanswered, without a gap.
    pub(super) messages: Vec<Received>,
    pub(super) results: Vec<WaitingResult>,
    /// More messages wait.
    pub(super) more: bool,
    /// More results wait.
    results_left: bool,
    /// The newest message that this turn has dealt with before.
    pub(super) covered: Option<InboxId>,
    /// Before which effect a newer message came, and which was the newest until then.
    heard: Vec<(usize, String)>,
    /// The first of the messages: what was started for them answers them, not what the turn says to those
    /// that came later.
    handed: usize,
    /// What it has been given of files.
    attached: Attached,
}

/// What has come behind the messages of a turn.
pub(super) struct Newer {
    /// As the model reads it.
    pub(super) words: String,
    /// Pictures and documents beside it.
    pub(super) shown: Vec<Attachment>,
    pub(super) has_files: bool,
}

impl Input {
    pub(super) fn read(parts: &AgentParts, job: &Job, single: bool) -> Result<Self, DbError> {
        let limit = if single { 1 } else { MAX_MESSAGES };
        let conversation = &job.place.conversation;
        let mut messages = parts.conversations.unanswered(conversation, limit + 1)?;
        let mut results = parts.conversations.waiting_results(conversation, MAX_RESULTS + 1)?;
        let (more, results_left) = (messages.len() > limit, results.len() > MAX_RESULTS);
        messages.truncate(limit);
        recognise(parts, &mut messages);
        results.truncate(MAX_RESULTS);
        Ok(Self { messages, results, more, results_left, ..Self::default() })
    }

    /// These messages alone.
    pub(super) fn of(messages: Vec<Received>, more: bool) -> Self {
        Self { messages, more, ..Self::default() }
    }

    /// What has come behind the messages that this turn has, as the model reads it; they are the turn's
    /// from now on. Nothing, if none of it needs an answer in this conversation: then it waits for a turn
    /// of its own, and disturbs nobody. `effects` were told so far.
    pub(super) fn hear(
        &mut self,
        parts: &AgentParts,
        job: &Job,
        effects: usize,
    ) -> Result<Option<Newer>, Box<dyn Fault>> {
        let boxed = |error: DbError| Box::new(error) as Box<dyn Fault>;
        let (conversation, has) = (&job.place.conversation, self.messages.len());
        let (conversations, room) = (&parts.conversations, MAX_MESSAGES.saturating_sub(has));
        let newest = self.messages.last().map(|received| (received.id, &received.message.platform_id));
        // The turn has the oldest, and nobody else answers them.
        let mut newer = conversations.unanswered(conversation, MAX_MESSAGES + 1).map_err(boxed)?;
        newer.retain(|received| newest.is_none_or(|(id, _)| received.id > id));
        recognise(parts, &mut newer);
        let mode = parts.settings(&job.place).map_err(boxed)?.response_mode;
        if room == 0 || !mode.answers(newer.iter().map(|received| &received.message)) {
            return Ok(None);
        }
        self.heard.push((effects, newest.map(|(_, id)| id.clone()).unwrap_or_default()));
        self.more = newer.len() > room;
        self.messages.extend(newer.into_iter().take(room));
        let mut words = vec![Part::Note(prompts::notice("meanwhile").to_owned())];
        let before = self.attached.shown.len();
        let new = &self.messages[has..];
        words.extend(self.attached.take(&conversations.attachments(), new));
        words.extend(new.iter().map(said));
        let shown = self.attached.shown[before..].to_vec();
        let has_files = new.iter().any(|received| !received.attachments.is_empty());
        Ok(Some(Newer { words: turn::write(&words), shown, has_files }))
    }

    /// Questions to other agents that led to what this turn is about; none where a person has spoken.
    pub(super) fn depth(&self, parts: &AgentParts) -> Result<u32, DbError> {
        if !self.messages.is_empty() {
            return Ok(0);
        }
        let results: Vec<_> = self.results.iter().map(|result| result.process).collect();
        parts.conversations.delegation_depth(&results)
    }

    /// Something was started for the messages that this turn had until now.
    pub(super) fn hand_over(&mut self, messages: usize) {
        self.handed = messages;
    }

    /// Platform ids of the messages that are left to the turn itself.
    fn own(&self) -> impl Iterator<Item = &String> {
        self.messages[self.handed..].iter().map(|received| &received.message.platform_id)
    }

    /// Something is left for another turn.
    pub(super) fn has_more(&self) -> bool {
        self.more || self.results_left
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.results.is_empty()
    }

    /// What this says of the turn, now that nothing more comes.
    pub(super) fn about(&self, direct: bool, visit: bool) -> About {
        About {
            direct,
            visit,
            addressed: self.messages.iter().any(|received| received.message.addressed),
            newest: self.messages.last().map(|received| received.message.platform_id.clone()),
            heard: self.heard.clone(),
        }
    }

    /// Platform ids that an answer of this turn answers: those that asked for the results, and the messages.
    pub(super) fn answers(&self) -> Vec<String> {
        let mut ids: Vec<String> = Vec::new();
        for id in self.results.iter().flat_map(|result| &result.answers).chain(self.own()) {
            if !ids.contains(id) {
                ids.push(id.clone());
            }
        }
        ids
    }

    /// Platform ids that ask for what this turn starts: the messages, else those that asked for the results.
    pub(super) fn askers(&self) -> Vec<String> {
        if self.messages.is_empty() {
            return self.answers();
        }
        self.own().cloned().collect()
    }

    /// As the model reads it. Several messages of a company are announced as one batch; files stand in front.
    pub(super) fn parts(&mut self, agent: &AgentParts, direct: bool) -> Result<Vec<Part>, PromptError> {
        let result = |result: &WaitingResult| Part::Result {
            process: result.process,
            task: result.task.clone(),
            text: result.text.clone(),
        };
        let mut parts: Vec<Part> = self.results.iter().map(result).collect();
        if !direct && self.messages.len() > 1 {
            let context = serde_json::json!({ "count": self.messages.len() });
            parts.push(Part::Note(prompts::render(Template::Batch, &context)?));
        }
        parts.extend(self.attached.take(&agent.conversations.attachments(), &self.messages));
        parts.extend(self.messages.iter().map(said));
        Ok(parts)
    }

    /// What it has been given of files so far.
    pub(super) fn attached(&self) -> &Attached {
        &self.attached
    }
}

/// People whom the config knows have the name that stands there.
fn recognise(parts: &AgentParts, messages: &mut [Received]) {
    for Received { message, .. } in messages {
        let known = parts.config.humans.iter().find(|human| human.is(&message.instance, &message.sender_id));
        if let Some(human) = known {
            message.sender_name.clone_from(&human.name);
        }
    }
}

fn said(received: &Received) -> Part {
    Part::Said {
        sender: received.message.sender_name.clone(),
        at: received.message.sent_at,
        text: with_lines(&received.message.content, &received.attachments),
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::{ConversationId, InboxId, InstanceId, ProcessId, ProcessKind};
    use crate::message::Inbound;

    fn said(id: i64) -> Received {
        let message = Inbound {
            instance: InstanceId::new("webhook"),
            platform_id: format!("m{id}"),
            conversation: ConversationId::new("webhook:c"),
            agent: None,
            sender_id: "u".to_owned(),
            sender_name: "u".to_owned(),
            content: "x".to_owned(),
            sent_at: Timestamp(0),
            direct: true,
            addressed: true,
            place: String::new(),
        };
        Received { id: InboxId(id), message, attachments: Vec::new() }
    }

    fn result(answers: &[&str]) -> WaitingResult {
        WaitingResult {
            process: ProcessId::parse(ProcessKind::Branch, "1").expect("a branch"),
            task: String::new(),
            text: String::new(),
            answers: answers.iter().map(|answer| (*answer).to_owned()).collect(),
        }
    }

    #[test]
    fn a_turn_with_results_and_messages_answers_both_and_asks_for_the_messages() {
        let results = || vec![result(&["m1", "m2"]), result(&["m2"])];
        let mixed = Input { messages: vec![said(2), said(3)], results: results(), ..Input::default() };
        assert_eq!(mixed.answers(), ["m1", "m2", "m3"]);
        assert_eq!(mixed.askers(), ["m2", "m3"]);
        let mut handed = Input { messages: vec![said(2), said(3)], ..Input::default() };
        handed.hand_over(1);
        assert_eq!((handed.answers(), handed.askers()), (vec!["m3".to_owned()], vec!["m3".to_owned()]));
        let relayed = Input { messages: Vec::new(), results: results(), ..Input::default() };
        assert_eq!(relayed.answers(), ["m1", "m2"]);
        assert_eq!(relayed.askers(), ["m1", "m2"]);
    }
}
